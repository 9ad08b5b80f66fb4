"""Early exits on any traced network: heads at tensors inside it, added without rewriting the model."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from cooptim.network.flow import Path
from cooptim.network.interpret import bind
from cooptim.network.jaxprs import CALLS, REMATS
from cooptim.network.program import Program
from cooptim.network.rewrite import Replacement, rerun, sites_of, tagged, way_to
from cooptim.network.trace import Network, Traced, network_of

PyTree = Any
EXITS = "exits"  # key of the heads in the parameters


class _Spot(NamedTuple):
    """A tensor inside a program, and the axes of it that hold channels."""

    path: Path
    operand: int | None  # of the equation; None is its output
    channels: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class _Staged:
    """The network's program with a head at each label; `batch` is the axis of the batch in each tensor."""

    network: Network
    batch: Mapping[str, int]
    grid: int
    merged: bool  # the heads stand among the network's own parameters

    def __call__(self, p: PyTree, s: PyTree, x: PyTree, rngs: PyTree, train: bool) -> tuple[PyTree, PyTree]:
        own = {name: leaf for name, leaf in p.items() if name != EXITS} if self.merged else p["network"]
        said: dict[str, Array] = {}

        def replacing(traced: Traced) -> Mapping[Path, Replacement]:
            here: dict[Path, list[tuple[str, _Spot]]] = {}
            for label, spot in _spots(self.network, traced, tuple(self.batch)).items():
                here.setdefault(spot.path, []).append((label, spot))
            return {path: self._tapped(spots, p[EXITS], said) for path, spots in here.items()}

        y, new_state = rerun(self.network, own, s, x, rngs, train, replacing)
        return jnp.stack([*(said[label] for label in self.batch), y]), new_state

    def _tapped(self, spots: list[tuple[str, _Spot]], heads: PyTree, said: dict[str, Array]) -> Replacement:
        """An equation as it is, with heads on its operand before it runs or on its output."""

        def run(eqn: Any, args: list[Any]) -> list[Any]:
            outs = bind(eqn, args) if any(spot.operand is None for _, spot in spots) else None
            for label, spot in spots:
                tensor = args[spot.operand] if spot.operand is not None else outs[0]  # type: ignore[index]
                seen = _features(tensor, self.batch[label], spot.channels, self.grid)
                said[label] = seen @ heads[label]["dense"] + heads[label]["bias"]
            return bind(eqn, args) if outs is None else outs

        return run


def with_exits(network: Network, at: Sequence[str], *, key: Array, grid: int = 4) -> Network:
    """The network with an early exit at each of some tensors; its output becomes logits [stage, batch, class].

    An exit is named by a tag (`cooptim.tag`; channels on the last axis), or by a layer: then it stands at the tensor by
    which the layer's output first enters another layer, so behind its normalization, rectifier and pooling. Its head
    averages each spatial axis over `grid` cells and puts one dense layer on them. Stages are in order of execution, the
    network's own output last; `workload.exits` names the heads. Deciding by confidence is not priced, like all work
    outside multiply-accumulates.

    Args:
      network: its output is logits [batch, class].
      at: names of layers or tags.
      key: PRNG key of the heads' first weights.
      grid: cells an axis; shorter axes stay as they are.

    The heads stand under 'exits' among the parameters ({'network', 'exits'} where these are no dictionary).

    Raises ValueError for a tensor that the network lacks or that cannot be reached, named with what is legal.
    """
    labels = _checked(network, at, grid)
    (x, rngs), axis, before = network.example, network.batch_axis, (network.params, network.state)
    two, three = (network.traced(*before, _batch_of(x, axis, n), rngs, False)[0] for n in (2, 3))
    logits = _logits(network, two)
    held = jnp.promote_types(logits.dtype, jnp.float32)  # as `trace` holds parameters of half precision
    batch, heads = {}, {}
    wider = _spots(network, three, labels)
    for n, (label, spot) in enumerate(_spots(network, two, labels).items()):
        tensor = _tensor(two, spot)
        batch[label] = _batch_axis(label, tensor.shape, _tensor(three, wider[label]).shape)
        words = _words(tensor.shape, batch[label], spot.channels, grid)
        kernel = jax.random.normal(jax.random.fold_in(key, n), (words, logits.shape[1]), held)
        heads[label] = {"bias": jnp.zeros(logits.shape[1], held), "dense": kernel / math.sqrt(words)}
    merged = isinstance(network.params, Mapping)
    params = {**network.params, EXITS: heads} if merged else {"network": network.params, EXITS: heads}
    call = _Staged(network, batch, grid, merged)
    name, two_modes = f"{network.program.name} with exits", network.program.two_modes
    made = network_of(Program(name, call, params, network.state, two_modes), x, rngs, axis)
    ends = tuple(_head_of(made, label) for label in batch)
    return dataclasses.replace(made, workload=dataclasses.replace(made.workload, exits=ends))


def _head_of(network: Network, label: str) -> str:
    leaf = f"{EXITS}.{label}.dense"
    return next(layer.name for layer in network.workload.layers if leaf in layer.weight_leaves)


def _checked(network: Network, at: Sequence[str], grid: int) -> tuple[str, ...]:
    """The labels; ValueError for what is no tensor of the network."""
    labels, layers = ((at,) if isinstance(at, str) else tuple(at)), network.workload.layers
    if network.workload.exits:
        raise ValueError(f"{network.program.name}: it has exits already; name all of them in one call of with_exits")
    if not labels or len(set(labels)) < len(labels) or grid < 1:
        raise ValueError(f"with_exits: at {list(labels)}, grid {grid}; name one tensor or more, each once, and 1 cell")
    if isinstance(network.params, Mapping) and EXITS in network.params:
        raise ValueError(f"{network.program.name}: its parameters hold '{EXITS}' already; give them another name")
    taken = {name for layer in layers for name in layer.inputs}
    inner = [layer.name for layer in layers if layer.name in taken]
    for label in labels:
        if label not in inner and label not in network.tags:
            why = "no other layer takes its output" if label in network.layer_names else "no such layer or tag"
            raise ValueError(
                f"exit '{label}': {why} in {network.workload.name}; legal are layers {', '.join(inner) or '(none)'} "
                f"and tags {', '.join(network.tags) or '(none; name a tensor by cooptim.tag)'}"
            )
    return labels


def _logits(network: Network, traced: Traced) -> Any:
    """Shape of the output at batch 2."""
    y, _ = jax.tree.unflatten(traced.out_tree, [var.aval for var in traced.jaxpr.jaxpr.outvars])
    if getattr(y, "ndim", 0) != 2 or y.shape[0] != 2 or y.shape[1] < 2:
        found = getattr(y, "shape", type(y).__name__)
        raise ValueError(
            f"{network.program.name}: for 2 images it returns {found}; exits need logits [batch, class] of at least 2 "
            "classes and nothing beside them"
        )
    return y


def _batch_of(x: PyTree, axis: int, n: int) -> PyTree:
    def one(leaf: Any) -> Any:
        shape = list(leaf.shape)
        shape[axis] = n
        return jax.ShapeDtypeStruct(tuple(shape), leaf.dtype)

    return jax.tree.map(one, x)


def _spots(network: Network, traced: Traced, labels: Sequence[str]) -> dict[str, _Spot]:
    """Where each label stands in a program, in order of execution; ValueError for what stands in a loop or branch."""
    found = {}
    for label in labels:
        choices = _by_layer(traced, label) if label in network.layer_names else _by_tag(traced, label)
        for spot in choices:
            calls = {eqn.primitive.name for eqn in way_to(traced.jaxpr, spot.path)[:-1]}
            if calls <= CALLS - REMATS:
                found[label] = spot
                break
        else:
            raise ValueError(
                f"exit '{label}': its tensor exists inside a scan, cond, remat or custom derivative rule only; put "
                "cooptim.tag on one outside, or name a layer whose output enters another outside"
            )
        if label in network.tags and len(choices) > 1:
            raise ValueError(f"exit '{label}': {len(choices)} tensors bear this tag; give each a name of its own")
    return dict(sorted(found.items(), key=lambda item: item[1].path))


def _by_layer(traced: Traced, label: str) -> list[_Spot]:
    """The data operands that a layer's output enters, first come first."""
    takers = [layer.name for layer in traced.plan.layers if label in layer.inputs]
    sites = {site.path: site for name in takers for site in sites_of(traced.plan, name)}
    return [
        _Spot(path, sites[path].data, _channels(way_to(traced.jaxpr, path)[-1], sites[path].data))
        for path in sorted(sites)
    ]


def _by_tag(traced: Traced, label: str) -> list[_Spot]:
    return [
        _Spot(path, None, (len(way_to(traced.jaxpr, path)[-1].outvars[0].aval.shape) - 1,))
        for path in tagged(traced.jaxpr, label)
    ]


def _channels(eqn: Any, operand: int) -> tuple[int, ...]:
    """Axes of a multiply's data operand that it sums over, spatial ones left out."""
    if eqn.primitive.name == "conv_general_dilated":
        numbers = eqn.params["dimension_numbers"]
        return ((numbers.lhs_spec, numbers.rhs_spec)[operand][1],)
    if eqn.primitive.name == "dot_general":
        contract, groups = eqn.params["dimension_numbers"]
        return (*groups[operand], *contract[operand])
    return (len(eqn.invars[operand].aval.shape) - 1,)


def _tensor(traced: Traced, spot: _Spot) -> Any:
    eqn = way_to(traced.jaxpr, spot.path)[-1]
    return (eqn.outvars[0] if spot.operand is None else eqn.invars[spot.operand]).aval


def _batch_axis(label: str, two: tuple[int, ...], three: tuple[int, ...]) -> int:
    """The axis that holds the batch, from the shapes at two and at three images."""
    axes = [axis for axis, sizes in enumerate(zip(two, three, strict=True)) if sizes == (2, 3)]
    if len(axes) != 1 or sum(a != b for a, b in zip(two, three, strict=True)) != 1:
        raise ValueError(
            f"exit '{label}': its tensor is {list(two)} for 2 images and {list(three)} for 3, without an axis of its "
            "own for the batch; put cooptim.tag on one of shape [batch, ..., channels]"
        )
    return axes[0]


def _features(
    tensor: Float[Array, "..."], batch: int, channels: tuple[int, ...], grid: int
) -> Float[Array, "batch word"]:
    """Means over `grid` cells along each spatial axis, flattened; cells of equal size that overlap where n % grid."""
    spatial = [axis for axis in range(tensor.ndim) if axis != batch and axis not in channels]
    out = jnp.transpose(tensor, (batch, *spatial, *(axis for axis in channels if axis != batch)))
    window, stride = [1] * out.ndim, [1] * out.ndim
    for axis in range(1, 1 + len(spatial)):
        n = out.shape[axis]
        if n > grid:
            stride[axis] = n // grid
            window[axis] = n - (grid - 1) * stride[axis]
    if max(window) > 1:
        zero = np.zeros((), out.dtype)  # a constant: a traced 0 makes a reduction without a derivative
        out = jax.lax.reduce_window(out, zero, jax.lax.add, window, stride, "VALID") / math.prod(window)
    return out.reshape(out.shape[0], -1)


def _words(shape: tuple[int, ...], batch: int, channels: tuple[int, ...], grid: int) -> int:
    seen = jax.eval_shape(lambda t: _features(t, batch, channels, grid), jax.ShapeDtypeStruct(shape, jnp.float32))
    return seen.shape[1]
