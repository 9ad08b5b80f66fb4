"""From a model that nobody rewrote to a Network: its workload, and the same program under a design."""

import contextlib
import dataclasses
import functools
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.interpreters import partial_eval

from cooptim.network.errors import ErrorRates
from cooptim.network.flow import Flow, Path, UnpriceableError
from cooptim.network.interpret import Interpreter
from cooptim.network.kept import patterned, site_methods
from cooptim.network.plan import Leaf, Plan, Site, WeightProduct
from cooptim.network.program import Program, program_of
from cooptim.network.quantized import OperandDesign, by_layer, observing, off_rows, quantizing, site_knobs, words
from cooptim.network.stats import Observation, Stats, dense_stats
from cooptim.network.walk import Walker
from cooptim.relax.method import method_of
from cooptim.workload import INPUT, Workload

__all__ = ["Network", "OperandDesign", "trace"]

PyTree = Any


class Traced(NamedTuple):
    """One mode of the network at one input shape."""

    jaxpr: Any  # closed, without dead code
    plan: Plan
    out_tree: Any


class EvalProgram(NamedTuple):
    """The eval program at batch 1: its jaxpr and plan, rows of the design by site, and how its results are packed."""

    jaxpr: Any
    plan: Plan
    rows: dict[Path, np.ndarray]
    mask_rows: dict[Path, np.ndarray]
    out_tree: Any  # of (y, state)
    x_shape: tuple[int, ...]  # of the first array of x


@dataclasses.dataclass(frozen=True, eq=False)
class Network:
    """A traced network; immutable, and nothing it does changes the model it came from.

    Attributes:
      workload: its layers at batch 1, as inference runs them.
      params, state: pure pytrees, arrays or shapes as they were given; `apply` takes any of the same structure.
      param_paths: name of each leaf of `params`, in flattening order.
      tags: tag -> layers whose outputs reach it through no other layer.
      weight_products: products of two weights, done once a load of the weights; they are no layers.
      masked_leaves: (position among the leaves of `params`, layer row of its threshold, one a trip of its scans, site).
      example: shapes of (x, rngs) that it was traced with, x at batch 1.
    """

    workload: Workload
    params: PyTree
    state: PyTree
    param_paths: tuple[str, ...]
    tags: Mapping[str, tuple[str, ...]]
    weight_products: tuple[WeightProduct, ...]
    program: Program = dataclasses.field(repr=False)
    masked_leaves: tuple[tuple[int, np.ndarray, Site], ...] = dataclasses.field(default=(), repr=False)
    batch_axis: int = 0
    example: tuple[PyTree, PyTree] = dataclasses.field(default=(None, None), repr=False)
    _cache: dict[Any, Any] = dataclasses.field(default_factory=dict, repr=False)

    @property
    def layer_names(self) -> tuple[str, ...]:
        """Names on the layer axis of designs and statistics."""
        return self.workload.names

    def apply(
        self,
        params: PyTree,
        state: PyTree,
        x: PyTree,
        design: OperandDesign | None = None,
        *,
        train: bool = False,
        rngs: PyTree = None,
        off: str | Collection[str] = (),
        errors: ErrorRates | None = None,
    ) -> tuple[PyTree, PyTree, Stats]:
        """Output, new state and measured densities of the network whose operands follow `design`.

        W is pruned at the threshold of the first layer that uses its leaf, then quantized; I is quantized. Widths of 32
        and more leave a tensor as it is. Without a design, or with everything off, the original program runs.

        Args:
          params, state, x: as in the model; x at any batch size (each new shape is traced once).
          design: fields of `OperandDesign`, one value a layer.
          train: static; the mode of normalization and dropout.
          rngs: a key that reseeds the random streams, or whatever the traced function takes; None keeps the state's.
          off: static; 'all', or names of layers, or 'name/W' and 'name/I', that stay as they are and measure 1.
          errors: words of quantized operands misread at the multiplies, products that come too late; None injects
            nothing. Leaves used elsewhere are read right.

        Raises ValueError for a layer that the network lacks, a design or errors of another length, a method that a
        layer cannot follow or whose weights cannot be misread, late products in a call that keeps its derivative rule,
        or a train program whose layers differ from the workload's.
        """
        rows_off = off_rows(off, self.layer_names)
        layers = len(self.layer_names)
        if design is None or (len(rows_off.weights) == layers and len(rows_off.inputs) == layers):
            y, new_state = self.program.call(params, state, x, rngs, train)
            return y, new_state, dense_stats(layers)
        traced, rows, mask_rows = self.traced(params, state, x, rngs, train)
        if errors is not None and errors.accumulator is not None and traced.plan.boundaries:
            self._refuse_late(traced.plan)
        cells = None if errors is None else traced.plan.cell_rows(rows)
        knobs = site_knobs(design, rows, mask_rows, rows_off, layers, errors, cells)
        methods = site_methods(design, rows, traced.plan, self.layer_names)
        images = jnp.shape(jax.tree.leaves(x)[0])[self.batch_axis]
        probe = quantizing(design.input_signed, rows, rows_off, errors, methods, images, self.layer_names)
        machine = Interpreter(traced.plan, probe)
        outs, measured = machine.run(traced.jaxpr, arrays(params, state, x, rngs), (), knobs)
        y, new_state = jax.tree.unflatten(traced.out_tree, outs)
        densities = [by_layer(measured, field, rows, layers) for field in ("weight_density", "input_density")]
        return y, new_state, Stats(densities[0], densities[1])

    def given(self, params: PyTree) -> PyTree:
        """`params` in the dtypes of the model: what was held in float32 for half precision is cast back."""
        return self.program.given(params)

    def _refuse_late(self, plan: Plan) -> None:
        closed = [str(name) for found in plan.boundaries.values() for b in found for name in plan.names[b.site].ravel()]
        raise ValueError(
            f"{self.workload.name}: errors of accumulators in {', '.join(dict.fromkeys(closed))}, whose multiply "
            "stands in a call with a derivative rule of its own and cannot be reached; leave accumulator None, or move "
            "the rule off the multiply"
        )

    def harden(self, params: PyTree, design: OperandDesign) -> PyTree:
        """`params` with each weight that pattern or threshold cuts set to zero: the mask survives in the weights.

        Leaves that reach a layer through arithmetic (a sum of low-rank factors) stay: their mask is the operand's; so
        does the pattern of a leaf that is reshaped or transposed on its way.
        """
        leaves, tree = jax.tree.flatten(params)
        methods = getattr(design, "methods", ())
        for leaf, rows, site in self.masked_leaves:
            w = jnp.asarray(leaves[leaf])
            each = rows.shape + (1,) * (w.ndim - rows.ndim)
            method, axes = method_of(methods, int(rows.ravel()[0])), site.axes if site.intact else None
            w = patterned(w, axes, method, jnp.asarray(design.weight_bits)[rows].reshape(each), rows.ndim)
            cut = jnp.asarray(design.threshold)[rows].reshape(each)
            leaves[leaf] = jnp.where((jnp.abs(w) > cut) | (cut <= 0), w, jnp.zeros((), w.dtype))
        return jax.tree.unflatten(tree, leaves)

    def observe(
        self, params: PyTree, state: PyTree, x: PyTree, *, train: bool = False, rngs: PyTree = None
    ) -> Observation:
        """Extrema and root mean squares of the operands in one batch, as the network was given; works under jit."""
        traced, rows, _ = self.traced(params, state, x, rngs, train)
        machine = Interpreter(traced.plan, observing())
        _, measured = machine.run(traced.jaxpr, arrays(params, state, x, rngs), (), {})
        get = functools.partial(by_layer, measured, rows=rows, layers=len(self.layer_names))
        return Observation(
            weight_max=get("weight_max"),
            weight_rms=jnp.sqrt(get("weight_square")),
            input_min=get("input_min"),
            input_max=get("input_max"),
            input_rms=jnp.sqrt(get("input_square")),
        )

    def eval_program(self, params: PyTree, state: PyTree, x: PyTree) -> EvalProgram:
        """What evaluates one image, equation by equation; x gives the shape, at any batch size."""
        one = _first_image(_shapes(x), self.batch_axis)
        traced, rows, mask_rows = self.traced(params, state, one, None, False)
        shape = tuple(jax.tree.leaves(one)[0].shape)
        return EvalProgram(traced.jaxpr, traced.plan, rows, mask_rows, traced.out_tree, shape)

    def traced(
        self, params: PyTree, state: PyTree, x: PyTree, rngs: PyTree, train: bool
    ) -> tuple[Traced, dict[Path, np.ndarray], dict[Path, np.ndarray]]:
        """The program at the shapes met, with the layer rows of its sites; cached by shape."""
        train = train and self.program.two_modes
        shapes = _shapes((params, state, x, rngs))
        leaves, tree = jax.tree.flatten(shapes)
        key = (train, tree, tuple((leaf.shape, leaf.dtype) for leaf in leaves))
        if key not in self._cache:
            p, s, image, streams = shapes
            traced = _trace_mode(self.program, p, s, image, streams, train)
            _match(self.workload, traced.plan, "train" if train else "eval", sizes=False)
            index = {name: i for i, name in enumerate(self.layer_names)}
            rows = traced.plan.rows(index)
            self._cache[key] = (traced, rows, traced.plan.mask_rows(rows))
        return self._cache[key]


def trace(
    model: Any,
    *args: Any,
    variables: Mapping[str, Any] | None = None,
    state: PyTree = None,
    rngs: PyTree = None,
    batch_axis: int = 0,
) -> Network:
    """The Network of a Flax module or of a function, found from its jaxpr.

    `trace(nnx_module, x)`; `trace(linen_module, x, variables=variables)` or `trace((linen_module, variables), x)`;
    `trace(fn, params, x)` for fn(params, x); `trace(fn, params, x, state=state, rngs=rngs)` for
    fn(params, state, x, rngs, train) -> (y, state). Arrays may be `jax.ShapeDtypeStruct`: only shapes are read.
    Parameters of half precision are held in float32 and cast in every call, so that small updates add up;
    `Network.given` casts them back for the model itself.

    Args:
      x: an example input of any batch size, or a pytree of such.
      rngs: example of what the train program needs to draw random numbers.
      batch_axis: axis of x over which the images of a batch are stacked.

    Raises UnpriceableError (a ValueError) that names the layer for multiply-accumulates without a loop nest, ValueError
    for other forms of call and for train and eval programs whose layers do not match.
    """
    program, x = program_of(model, args, variables, state)
    return network_of(program, x, rngs, batch_axis)


def retraced(network: Network, params: PyTree, state: PyTree, x: PyTree, rngs: PyTree = None) -> Network:
    """The Network of the same function with other leaves, of other shapes where the function takes them; exits stay.

    Raises whatever the function raises when it does not take them, and as `trace` does.
    """
    program = dataclasses.replace(network.program, params=params, state=state)
    made = network_of(program, x, rngs, network.batch_axis)
    for end in network.workload.exits:
        made.workload.index(end)  # its head is a layer still
    return dataclasses.replace(made, workload=dataclasses.replace(made.workload, exits=network.workload.exits))


@contextlib.contextmanager
def _noted(note: str) -> Iterator[None]:
    """What the user's own function raises gets a note on how it was called."""
    try:
        yield
    except UnpriceableError:
        raise
    except Exception as error:
        error.add_note(note)
        raise


def network_of(program: Program, x: PyTree, rngs: PyTree = None, batch_axis: int = 0) -> Network:
    """The Network of a program; arguments and errors are those of `trace`."""
    one, rngs = _first_image(_shapes(x), batch_axis), _shapes(rngs)
    params, carried = _shapes(program.params), _shapes(program.state)
    seen = ", ".join(str(leaf.shape) for leaf in jax.tree.leaves(one))
    with _noted(
        f"cooptim.trace: {program.name} fails on a batch of one image, x of shape {seen}; axis {batch_axis} of the "
        "example x must be the batch (batch_axis=)"
    ):
        evaluated = _trace_mode(program, params, carried, one, rngs, train=False).plan
    workload = Workload(program.name, evaluated.layers, evaluated.outputs, words(one))
    if program.two_modes:
        with _noted(f"cooptim.trace: the train program of {program.name} fails; does it need rngs?"):
            trained = _trace_mode(program, params, carried, one, rngs, train=True).plan
        _match(workload, trained, "train", sizes=True)
    index = {name: i for i, name in enumerate(workload.names)}
    masks = evaluated.mask_rows(evaluated.rows(index))
    learned = len(jax.tree.leaves(program.params))
    masked = tuple(
        (site.leaf, masks[path], site)
        for path, site in evaluated.sites.items()
        if site.leaf is not None and site.leaf < learned and not site.product
    )
    return Network(
        workload=workload,
        params=program.params,
        state=program.state,
        param_paths=_paths(program.params),
        tags=evaluated.tags,
        weight_products=evaluated.products,
        program=program,
        masked_leaves=masked,
        batch_axis=batch_axis,
        example=(one, rngs),
    )


def _shapes(tree: PyTree) -> PyTree:
    return jax.eval_shape(lambda t: t, tree)


def arrays(*trees: PyTree) -> list[Any]:
    """Inputs of a traced jaxpr, in order."""
    return [jnp.asarray(leaf) for leaf in jax.tree.leaves(trees)]


def _first_image(x: PyTree, batch_axis: int) -> PyTree:
    def one(leaf: Any) -> Any:
        if not -len(leaf.shape) <= batch_axis < len(leaf.shape):
            raise ValueError(f"trace: x has shape {leaf.shape}, without a batch axis {batch_axis}; pass a batch")
        axis = batch_axis % len(leaf.shape)
        return jax.ShapeDtypeStruct((*leaf.shape[:axis], 1, *leaf.shape[axis + 1 :]), leaf.dtype)

    return jax.tree.map(one, x)


def _paths(tree: PyTree) -> tuple[str, ...]:
    """'conv1.kernel' for each leaf, in flattening order; 'params' for a lone array."""

    def part(key: Any) -> str:
        return str(getattr(key, "key", getattr(key, "idx", getattr(key, "name", key))))

    paths = jax.tree_util.tree_leaves_with_path(tree)
    return tuple(".".join(part(key) for key in path) or "params" for path, _ in paths)


def _trace_mode(program: Program, params: PyTree, state: PyTree, x: PyTree, rngs: PyTree, train: bool) -> Traced:
    """Jaxpr and plan of one mode at the given shapes."""

    def call(p: PyTree, s: PyTree, x: PyTree, rngs: PyTree) -> tuple[PyTree, PyTree]:
        return program.call(p, s, x, rngs, train)

    closed, shapes = jax.make_jaxpr(call, return_shape=True)(params, state, x, rngs)
    live, _ = partial_eval.dce_jaxpr(closed.jaxpr, [True] * len(closed.jaxpr.outvars), instantiate=True)
    closed = closed.replace(jaxpr=live)
    learned, carried = _leaves(params, True), _leaves(state, False)
    walker = Walker([*learned, *carried])
    flows = [
        Flow(fixed=not leaf.learned, leaves=frozenset({i}), leaf=i, root=walker.fresh())
        for i, leaf in enumerate([*learned, *carried])
    ]
    flows += [Flow(data=True, sources=frozenset({INPUT}), root=walker.fresh()) for _ in jax.tree.leaves(x)]
    flows += [Flow() for _ in jax.tree.leaves(rngs)]
    outs = walker.walk(closed, flows, ())
    return Traced(
        closed, walker.plan(outs[: len(jax.tree.leaves(shapes[0]))], program.name), jax.tree.structure(shapes)
    )


def _leaves(tree: PyTree, learned: bool) -> list[Leaf]:
    names, arrays = _paths(tree), jax.tree.leaves(tree)
    return [Leaf(name, words(array), learned) for name, array in zip(names, arrays, strict=True)]


def _match(workload: Workload, plan: Plan, mode: str, sizes: bool) -> None:
    """Raises ValueError unless the plan has the workload's layers (and, at the same batch, their bounds)."""
    ours, theirs = {layer.name: layer for layer in workload.layers}, {layer.name: layer for layer in plan.layers}
    missing, extra = sorted(ours.keys() - theirs.keys()), sorted(theirs.keys() - ours.keys())
    if missing or extra:
        raise ValueError(
            f"{workload.name}: the {mode} program has other layers than the eval program at batch 1: without {missing}"
            f", in addition {extra}; both must run the same weights, so take heads that one mode lacks out of the model"
        )
    differing = [n for n, layer in ours.items() if sizes and layer.bounds != theirs[n].bounds]
    if differing:
        n = differing[0]
        raise ValueError(
            f"{workload.name}: layer '{n}' has bounds {theirs[n].bounds} in the {mode} program and {ours[n].bounds} in "
            "the eval program; both modes must run the same loop nests"
        )
