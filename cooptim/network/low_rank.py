"""Low rank: layers of a traced network split in two by the singular value decomposition of their weights."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core as jcore
from jax.interpreters import partial_eval

from cooptim.network.flow import Path, UnpriceableError
from cooptim.network.jaxprs import CUSTOM
from cooptim.network.plan import Plan, Site
from cooptim.network.program import Program
from cooptim.network.rewrite import InTheOpen, Replacement, rerun, sites_of, way_to
from cooptim.network.trace import Network, Traced, network_of

PyTree = Any
_DIGITS = 128


class Split(NamedTuple):
    """How the W operand of a layer is read as a matrix [inputs, outputs].

    Attributes:
      leaf: position among the leaves of the parameters.
      shape: of the operand.
      ins, outs: its axes that are summed over, and the others, in the order of the matrix.
      intact: whether the operand is the leaf as it lies, neither reshaped nor transposed.
    """

    leaf: int
    shape: tuple[int, ...]
    ins: tuple[int, ...]
    outs: tuple[int, ...]
    intact: bool

    @property
    def layout(self) -> tuple[Any, ...]:
        """What is the same at any size of the operand."""
        return self.leaf, self.ins, self.outs, self.intact

    @property
    def matrix(self) -> tuple[int, int]:
        """Rows and columns of the matrix."""
        rows, cols = (math.prod(self.shape[a] for a in axes) for axes in (self.ins, self.outs))
        return rows, cols

    @property
    def limit(self) -> int:
        """Largest rank."""
        return min(self.matrix)


@dataclasses.dataclass(frozen=True)
class _Factored:
    """The network's program with two factors in place of some weights."""

    network: Network
    splits: Mapping[str, Split]

    def __call__(self, p: PyTree, s: PyTree, x: PyTree, rngs: PyTree, train: bool) -> tuple[PyTree, PyTree]:
        shapes = jax.tree.leaves(self.network.params)
        leaves, tree = parameters(self.network, p)
        factors = {name: leaves[split.leaf] for name, split in self.splits.items()}
        for name, split in self.splits.items():  # nothing reads the weight that was there, so it is dead code
            shape = _leaf_shape(name, split, shapes[split.leaf].shape, factors[name])
            leaves[split.leaf] = jnp.zeros(shape, shapes[split.leaf].dtype)

        def replacing(traced: Traced) -> Mapping[Path, Replacement]:
            found = {}
            for name, split in self.splits.items():
                (site,) = sites_of(traced.plan, name)
                if split_of(traced, name).layout != split.layout:
                    raise UnpriceableError(f"low rank '{name}': its weights lie otherwise in the train program")
                found[site.path] = _twice(site, split, factors[name])
            return found

        return rerun(self.network, jax.tree.unflatten(tree, leaves), s, x, rngs, train, replacing)


def _leaf_shape(name: str, split: Split, shape: tuple[int, ...], factors: Mapping[str, Any]) -> tuple[int, ...]:
    """Shape of the leaf whose factors these are; UnpriceableError (a ValueError) where it cannot be told."""
    sizes = (*factors["u"].shape[:-1], *factors["v"].shape[1:])
    made = tuple(sizes[a] for a in np.argsort((*split.ins, *split.outs)))
    if split.intact or made == split.shape:
        return made if split.intact else shape
    raise UnpriceableError(
        f"low rank '{name}': its factors make {list(made)} of what was {list(split.shape)}, and it is reshaped or "
        "transposed before its layer; shrink first, split after"
    )


def low_rank(network: Network, ranks: Mapping[str, int]) -> Network:
    """The network whose named layers are two each: their weights W, as a matrix, are the product of two factors.

    A dense layer is split at its matrix [inputs, outputs], a convolution at [inputs x taps, outputs]: first a
    convolution with `rank` outputs, then one of a single tap. Factors start at the truncated singular value
    decomposition, each with the square root of the singular values, so the output is the best in least squares of W and
    the same at full rank. In the parameters the leaf of W becomes {'u', 'v'}, and the layers are called after them.
    Channels can leave the network (`shrunk`) before and after, but where a W that was split is reshaped or transposed
    on the way to its layer: shrink first there.

    Args:
      network: concrete parameters.
      ranks: by name of layer, 1 to the smaller side of its matrix.

    Raises ValueError for a layer that the network lacks or that has no such matrix (grouped or depthwise, a product of
    two activations, weights that are computed, shared or differ from trip to trip), and for a rank out of range.

    Source: Eckart & Young, Psychometrika 1, 1936; Denton et al., NeurIPS 2014, for networks.
    """
    (x, rngs), before = network.example, (network.params, network.state)
    traced, _, _ = network.traced(*before, x, rngs, False)
    splits = {}
    for name, rank in ranks.items():
        splits[name] = split = split_of(traced, _known(network, name))
        if isinstance(rank, bool) or not isinstance(rank, int | np.integer) or not 1 <= rank <= split.limit:
            rows, cols = split.matrix
            raise ValueError(
                f"low rank '{name}': rank {rank} of a {rows} x {cols} matrix; legal are 1 to {split.limit}, and fewer "
                f"MACs than one layer takes {rows * cols / (rows + cols):.4g} or less"
            )
    if not splits:
        raise ValueError(f"low rank: no layer is named; {network.workload.name} has {', '.join(network.layer_names)}")
    leaves, tree = jax.tree.flatten(network.params)
    for name, split in splits.items():
        if isinstance(leaves[split.leaf], jax.ShapeDtypeStruct):
            raise ValueError(f"low rank '{name}': its weights are a shape; trace the network with concrete parameters")
        dtype = leaves[split.leaf].dtype
        u, v = factors_of(_operand(network, traced, name), split, int(ranks[name]))
        leaves[split.leaf] = {"u": jnp.asarray(u, dtype), "v": jnp.asarray(v, dtype)}
    call = _Factored(network, splits)
    program = Program(network.program.name, call, jax.tree.unflatten(tree, leaves), network.state, True)
    program = dataclasses.replace(program, two_modes=network.program.two_modes)
    made = network_of(program, x, rngs, network.batch_axis)
    ends = tuple(end if end in made.layer_names else f"{end}.v" for end in network.workload.exits)
    return dataclasses.replace(made, workload=dataclasses.replace(made.workload, exits=ends))


def parameters(network: Network, params: PyTree) -> tuple[list[Any], Any]:
    """(leaves, tree) of the parameters of a network that `low_rank` made of `network`; factors count as one leaf."""
    tree: Any = jax.tree.structure(network.params)
    return tree.flatten_up_to(params), tree


def halves(network: Network, name: str) -> tuple[str, str]:
    """Names of the two layers that take the place of this one."""
    traced, _, _ = network.traced(network.params, network.state, *network.example, False)
    alone = jax.tree_util.treedef_is_leaf(jax.tree.structure(network.params))  # its factors bear no other name
    path = "" if alone else f"{network.param_paths[split_of(traced, name).leaf]}."
    return f"{path}u", f"{path}v"


def rank_limits(network: Network) -> dict[str, int]:
    """Largest rank of each layer that `low_rank` can split."""
    traced, _, _ = network.traced(network.params, network.state, *network.example, False)
    found = {}
    for name in network.layer_names:
        try:
            found[name] = split_of(traced, name).limit
        except UnpriceableError:
            continue
    return found


def _known(network: Network, name: str) -> str:
    if name not in network.layer_names:
        raise ValueError(
            f"low rank '{name}': no such layer in {network.workload.name}; legal are {', '.join(network.layer_names)}"
        )
    return name


def split_of(traced: Traced, name: str) -> Split:
    """How a layer's weights are a matrix; UnpriceableError (a ValueError) that names the layer where they are none."""
    sites = sites_of(traced.plan, name)
    site, way = sites[0], way_to(traced.jaxpr, sites[0].path)
    eqn = way[-1]
    why = _obstacle(traced.plan, sites, {outer.primitive.name for outer in way[:-1]}, eqn)
    if why or site.leaf is None:
        raise UnpriceableError(
            f"low rank '{name}': {why}; legal are dense layers and ungrouped convolutions with a weight of their own"
        )
    shape = tuple(eqn.invars[site.weight].aval.shape)
    if eqn.primitive.name == "dot_general":
        (contract, _) = eqn.params["dimension_numbers"]
        ins = tuple(contract[site.weight])
        outs = tuple(a for a in range(len(shape)) if a not in ins)
        return Split(site.leaf, shape, ins, outs, site.intact)
    out, *ins_of = eqn.params["dimension_numbers"].rhs_spec
    return Split(site.leaf, shape, tuple(ins_of), (out,), site.intact)


def _obstacle(plan: Plan, sites: list[Site], calls: set[str], eqn: Any) -> str:
    """Why a layer cannot be split; empty when it can."""
    site, params = sites[0], eqn.params
    if site.product:
        return "both of its operands are data"
    if len(sites) > 1:
        return "it stands in several branches"
    if site.leaf is None:
        return "its weights are computed from others"
    if site.scans:
        return "its weights differ from trip to trip of a scan"
    if calls & CUSTOM:
        return "it stands in a call with a derivative rule of its own"
    others = sum(other.leaf == site.leaf for other in plan.sites.values()) > 1
    if others or any(site.path in uses.values() for uses in plan.masked.values()):
        return "its weights are used elsewhere too"
    if eqn.primitive.name == "conv_general_dilated":
        groups = max(params["feature_group_count"], params["batch_group_count"])
        if groups > 1 or site.weight != 1:
            return f"it is a grouped or depthwise convolution ({groups} groups)"
    elif eqn.primitive.name != "dot_general" or params["dimension_numbers"][1][site.weight]:
        return "its weights are one matrix a group"
    return ""


def _operand(network: Network, traced: Traced, name: str) -> np.ndarray:
    """The W operand of a layer as the network's parameters make it."""
    (site,) = sites_of(traced.plan, name)
    (x, rngs), seen = network.example, []

    def run(p: PyTree, s: PyTree, x: PyTree, rngs: PyTree) -> Any:
        def kept(eqn: Any, args: list[Any]) -> list[Any]:
            seen.append(args[site.weight])
            return [jnp.zeros(var.aval.shape, var.aval.dtype) for var in eqn.outvars]

        rerun(network, p, s, x, rngs, False, lambda traced: {site.path: kept}, InTheOpen)
        return seen[-1]

    shapes = jax.eval_shape(lambda t: t, (network.params, network.state, x, rngs))
    closed = jax.make_jaxpr(run)(*shapes)
    live, used = partial_eval.dce_jaxpr(closed.jaxpr, [True])
    leaves = jax.tree.leaves((network.params, network.state, x, rngs))
    given = [leaf for leaf, needed in zip(leaves, used, strict=True) if needed]
    return np.asarray(jcore.jaxpr_as_fun(closed.replace(jaxpr=live))(*given)[0])


def whole(network: Network, name: str, u: Any, v: Any) -> Any:
    """The weight leaf of a layer whose factors are u and v, as the network keeps it.

    Raises ValueError where the weights pass through a type that does not hold the whole numbers below 128.
    """
    traced, _, _ = network.traced(network.params, network.state, *network.example, False)
    split = split_of(traced, name)
    leaves, tree = jax.tree.flatten(network.params)
    leaf = leaves[split.leaf]
    # Which word of the leaf stands where in the operand, digit by digit: bfloat16 and wider hold each digit exactly.
    words, place, unit = np.arange(leaf.size), np.zeros(split.shape, np.int64), 1
    while unit < leaf.size:
        leaves[split.leaf] = (words // unit % _DIGITS).astype(leaf.dtype).reshape(leaf.shape)
        digit = _operand(dataclasses.replace(network, params=jax.tree.unflatten(tree, leaves)), traced, name)
        place += unit * digit.astype(np.int64)
        unit *= _DIGITS
    if not np.array_equal(np.sort(place, axis=None), words):
        raise ValueError(
            f"low rank '{name}': its weights pass through a type that does not hold the whole numbers below {_DIGITS}, "
            "so their factors cannot be put together again; let them pass through bfloat16 or wider"
        )
    matrix = np.asarray(u, np.float64).reshape(-1, np.shape(u)[-1]) @ np.asarray(v, np.float64).reshape(len(v), -1)
    operand = np.transpose(
        matrix.reshape([split.shape[a] for a in (*split.ins, *split.outs)]), np.argsort((*split.ins, *split.outs))
    )
    flat = np.zeros(leaf.size)
    flat[place.ravel()] = operand.ravel()
    return jnp.asarray(flat.reshape(leaf.shape), leaf.dtype)


def factors_of(w: np.ndarray, split: Split, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """(u, v) of an operand at a rank, in the layouts in which `low_rank` keeps them."""
    rows, cols = split.matrix
    matrix = np.transpose(w, (*split.ins, *split.outs)).reshape(rows, cols).astype(np.float64)
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    root = np.sqrt(values[:rank])
    u = (left[:, :rank] * root).reshape(*(split.shape[a] for a in split.ins), rank)
    v = (root[:, None] * right[:rank]).reshape(rank, *(split.shape[a] for a in split.outs))
    return u, v


def _twice(site: Site, split: Split, factors: Mapping[str, Any]) -> Replacement:
    """The two multiplies that take the place of one."""

    def run(eqn: Any, args: list[Any]) -> list[Any]:
        u, v = (jnp.asarray(factors[k]).astype(args[site.weight].dtype) for k in "uv")
        two = _two_convolutions if eqn.primitive.name == "conv_general_dilated" else _two_products
        return [two(eqn, site, args[site.data], u, v)]

    return run


def _two_products(eqn: Any, site: Site, x: Any, u: Any, v: Any) -> Any:
    contract, _ = eqn.params["dimension_numbers"]
    options = {k: eqn.params[k] for k in ("precision", "preferred_element_type")}
    h = jax.lax.dot_general(x, u, ((contract[site.data], tuple(range(u.ndim - 1))), ((), ())), **options)
    last = h.ndim - 1
    if site.weight == 1:
        return jax.lax.dot_general(h, v, (((last,), (0,)), ((), ())), **options)
    return jax.lax.dot_general(v, h, (((0,), (last,)), ((), ())), **options)


def _two_convolutions(eqn: Any, site: Site, x: Any, u: Any, v: Any) -> Any:
    del site
    params, numbers = eqn.params, eqn.params["dimension_numbers"]
    out, into, *taps = numbers.rhs_spec
    lie = [
        int(a) for a in np.argsort((into, *taps, out))
    ]  # u is [inputs, *taps, rank]; kernels lie as the network's own
    options = {k: params[k] for k in ("precision", "preferred_element_type")}
    h = jax.lax.conv_general_dilated(
        x, jnp.transpose(u, lie), params["window_strides"], params["padding"], params["lhs_dilation"],
        params["rhs_dilation"], numbers, **options,
    )  # fmt: skip
    one = jnp.transpose(v.reshape(v.shape[0], *(1 for _ in taps), v.shape[1]), lie)
    through = jax.lax.ConvDimensionNumbers(numbers.out_spec, numbers.rhs_spec, numbers.out_spec)
    return jax.lax.conv_general_dilated(
        h, one, [1] * len(taps), [(0, 0)] * len(taps), dimension_numbers=through, **options
    )
