"""Layers side by side and their tilings as real factors: what the relaxations of tiling are functions of."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from cooptim.hardware.hierarchy import Hierarchy, Memory
from cooptim.mapping.nest import INDEX, LayerShape, Nest
from cooptim.mapping.tiers import tier_count
from cooptim.workload import OPERANDS
from cooptim.workload.dims import DIMS

_STATIC = {"static": True}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Stack:
    """Layers side by side, of one network or several.

    Attributes:
      shape: every leaf has a trailing axis `layer`; bits may be effective ones (width times the share stored).
      unroll: given unrolling [array dimension, dim, layer], fractional as in `Nest`; None: free.
      repeat: how often each layer runs.
    """

    names: tuple[str, ...] = dataclasses.field(metadata=_STATIC)
    shape: LayerShape
    repeat: Float[Array, "layer"] | Float[np.ndarray, "layer"]
    unroll: Float[Array, "axis dim layer"] | Float[np.ndarray, "axis dim layer"] | None = None

    @property
    def layers(self) -> int:
        """Number of layers."""
        return len(self.names)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TilingKnobs:
    """What is descended.

    Attributes:
      split: logits of the share of each loop's logarithm that a slot takes, innermost first, then each array dimension
        where the unrolling is free.
      stay: logits of the operand (W, I, O) that is stationary in each slot.
    """

    split: Float[Array, "dim place layer"]
    stay: Float[Array, "slot operand layer"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Tiling:
    """Real factors by their natural logarithms.

    Attributes:
      temporal: [slot, dim, layer]. units: [axis, dim, layer]. stay: shares, [slot, operand, layer].
    """

    temporal: Any
    units: Any
    stay: Any


def stack_layers(
    names: Sequence[str],
    shapes: Sequence[LayerShape],
    repeat: Sequence[float],
    nests: Sequence[Nest] | None = None,
    dtype: Any = np.float64,
) -> Stack:
    """Layers as one stack; `nests` give the unrolling of each (see `cooptim.mapping.search.unrolled`)."""
    columns = jax.tree.map(lambda *leaves: np.array(leaves, dtype=dtype), *shapes)
    whole = {f: tuple(np.array(c, dtype=np.int64) for c in getattr(columns, f)) for f in ("stride", "dilation")}
    columns = dataclasses.replace(columns, **whole)
    unroll = None if nests is None else np.stack([np.array(n.unroll, dtype=dtype) for n in nests], axis=-1)
    return Stack(tuple(names), columns, np.array(repeat, dtype=dtype), unroll)


def random_knobs(key: Array, stack: Stack, machine: Hierarchy, spread: float = 1.0) -> TilingKnobs:
    """Normal logits; small spread: every slot takes its equal share."""
    split, stay = jax.random.split(key)
    slots = tier_count(machine)
    places = slots + (len(machine.array) if stack.unroll is None else 0)
    return TilingKnobs(
        spread * jax.random.normal(split, (len(DIMS), places, stack.layers)),
        spread * jax.random.normal(stay, (slots, len(OPERANDS), stack.layers)),
    )


def tiling(knobs: TilingKnobs, stack: Stack, machine: Hierarchy, array_sizes: Sequence[Any] | None = None) -> Tiling:
    """Real factors of the knobs.

    Units beyond an array dimension's size turn as loops of the innermost slot instead, all dims by the same power.

    Args:
      array_sizes: in place of the machine's; may be traced.
    """
    slots = tier_count(machine)
    logs = jnp.log(jnp.stack([jnp.asarray(b) for b in stack.shape.bounds]))
    share, stay = jax.nn.softmax(knobs.split, axis=1), jax.nn.softmax(knobs.stay, axis=1)
    if stack.unroll is not None:
        units = np.log(stack.unroll) if isinstance(stack.unroll, np.ndarray) else jnp.log(stack.unroll)
        return Tiling(jnp.moveaxis((logs - units.sum(axis=0))[:, None] * share, 1, 0), units, stay)
    sizes = jnp.stack([jnp.asarray(s, logs.dtype) for s in array_sizes or [size for _, size in machine.array]])
    wanted = jnp.moveaxis(logs[:, None] * share[:, slots:], 1, 0)
    shrink = jnp.minimum(1.0, jnp.log(sizes)[:, None] / jnp.maximum(jnp.sum(wanted, axis=1), 1e-9))
    taken = wanted * shrink[:, None]
    temporal = jnp.moveaxis(logs[:, None] * share[:, :slots], 1, 0)
    return Tiling(temporal.at[0].add(jnp.sum(wanted - taken, axis=0)), taken, stay)


def usable_room(memory: Memory) -> Any:
    """Bits that tiles may fill; half where the memory is always double-buffered."""
    return memory.size_bits / (2.0 if memory.double_buffered == "always" else 1.0)


def one_hot_tiling(factors: Sequence[Sequence[dict[str, int]]], stay: Sequence[Sequence[str]], unroll: Any) -> Tiling:
    """A tiling of whole factors: per slot and layer {dim: factor} and the stationary operand."""
    temporal = np.ones((len(factors), len(DIMS), len(factors[0])))
    shares = np.zeros((len(factors), len(OPERANDS), len(factors[0])))
    for k, (row, chosen) in enumerate(zip(factors, stay, strict=True)):
        for n, (given, operand) in enumerate(zip(row, chosen, strict=True)):
            for dim, factor in given.items():
                temporal[k, INDEX[dim], n] = factor
            shares[k, OPERANDS.index(operand), n] = 1.0
    return Tiling(jnp.log(temporal), jnp.log(unroll), jnp.asarray(shares))
