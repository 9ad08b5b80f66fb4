"""How many channels of each layer are alive, with a slope: the price of a network as if its dead channels had left.

A channel is dead when none of the weights that read it is left, or none of those that make it; `shrink.without_dead`
then takes it out of the network, and the cycles, words and control of the whole channel go with it. The share of a
layer's energy that the last weights of a channel hold is therefore far more than their own.
"""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from cooptim.network.channels import bundles, channels
from cooptim.network.interpret import measure_dtype
from cooptim.network.kept import patterned
from cooptim.network.quantized import OperandDesign
from cooptim.network.stats import Live
from cooptim.network.trace import Network
from cooptim.relax.mask import present
from cooptim.relax.method import method_of
from cooptim.relax.rounding import replace_gradient

PyTree = Any


@dataclasses.dataclass(frozen=True)
class _Side:
    """One axis of a weight: the channel of each of its indices, `channels` for one that cannot leave."""

    leaf: int
    axis: int
    channel: np.ndarray
    makes: bool  # output channels of the weight; False: input channels


@dataclasses.dataclass(frozen=True)
class Liveness:
    """Where the channels of a network stand in its weights; made by `liveness`."""

    network: Network
    channels: int
    sides: tuple[_Side, ...]
    always: np.ndarray  # [read or made, channel]: 1 where something that no threshold cuts reads it, or makes it

    def shares(self, params: PyTree, design: OperandDesign) -> Live:
        """Shares of what is live at the thresholds and steps of a design; pure, differentiable.

        Forward counted exactly. Backward each weight that is left of a channel holds an equal part of it, on the side
        of its makers and on that of its readers, along the ramp of `cooptim.relax.mask`.
        """
        left = self._left(params, design)
        each = jnp.append(self._alive(left), 1.0)
        layers = len(self.network.layer_names)
        one = jnp.ones((), each.dtype)
        found = {name: [one] * layers for name in Live._fields}
        for leaf, rows, _ in self.network.masked_leaves:
            live = left[leaf]
            for side in self.sides:
                if side.leaf != leaf:
                    continue
                channels = each[side.channel]
                live = live * jnp.expand_dims(channels, [axis for axis in range(live.ndim) if axis != side.axis])
                kind = found["outputs" if side.makes else "inputs"]
                for row in rows.ravel():
                    kind[row] = kind[row] * jnp.mean(channels)
            for row in rows.ravel():
                found["weights"][row] = jnp.sum(live) / jnp.maximum(jnp.sum(left[leaf]), 1.0)
        return Live(*(jnp.stack(found[name]) for name in Live._fields))

    def _left(self, params: PyTree, design: OperandDesign) -> dict[int, Float[Array, "..."]]:
        """1 for each weight that is not zero, by leaf."""
        leaves = jax.tree.leaves(params)
        methods = getattr(design, "methods", ())
        own = [method_of(methods, row) for row in range(len(self.network.layer_names))]
        bits = jnp.asarray(design.weight_bits)
        rounding = np.asarray([method.weights == "step_range" and not method.scaled for method in own])
        cut = jnp.maximum(jnp.asarray(design.threshold), jnp.where(rounding, jnp.asarray(design.weight_step), 0.0) / 2)
        left = {}
        for leaf, rows, site in self.network.masked_leaves:
            w = jnp.asarray(leaves[leaf])
            each = rows.shape + (1,) * (w.ndim - rows.ndim)
            axes = site.axes if site.intact else None
            w = patterned(w, axes, own[int(rows.ravel()[0])], bits[rows].reshape(each), rows.ndim)
            left[leaf] = present(w, cut[rows].reshape(each))
        return left

    def _alive(self, left: Mapping[int, Float[Array, "..."]]) -> Float[Array, "channel"]:
        """1 for each channel that something makes and something reads."""
        dtype = jnp.result_type(*left.values(), measure_dtype())
        counts = list(jnp.asarray(self.always, dtype))
        for side in self.sides:
            weights = left[side.leaf]
            of_each = jnp.sum(weights, axis=[axis for axis in range(weights.ndim) if axis != side.axis])
            counts[side.makes] = counts[side.makes].at[side.channel].add(of_each.astype(dtype), mode="drop")
        fair = sum(count / jax.lax.stop_gradient(jnp.maximum(count, 1.0)) for count in counts)
        return replace_gradient(((counts[0] > 0.5) & (counts[1] > 0.5)).astype(fair.dtype), fair)


def liveness(network: Network, params: PyTree, state: PyTree, x: PyTree, keep: Collection[str] = ()) -> Liveness | None:
    """Where the channels of a network stand; None where none can leave.

    Args:
      params, state: their shapes count, as that of x.
      keep: names of `cooptim.network.shrink.channel_counts` whose channels count as alive.
    """
    found = channels(network, params, state, x)
    kept = {number for name, some in bundles(found, network.param_paths).items() if name in keep for number in some}
    found = tuple(channel for number, channel in enumerate(found) if number not in kept)
    shapes = [np.shape(leaf) for leaf in jax.tree.leaves(params)]
    masked = {leaf for leaf, *_ in network.masked_leaves}
    always = np.zeros((2, len(found)))
    sides: dict[tuple[int, int, bool], np.ndarray] = {}
    for number, channel in enumerate(found):
        for makes, places in ((True, channel.makers), (False, channel.readers)):
            for leaf, axis, index in places:
                if leaf not in masked:
                    always[int(makes), number] = 1.0
                    continue
                side = sides.setdefault((leaf, axis, makes), np.full(shapes[leaf][axis], len(found)))
                side[index] = number
            if not places:
                always[int(makes), number] = 1.0
    if not sides:
        return None
    found_sides = tuple(_Side(leaf, axis, at, makes) for (leaf, axis, makes), at in sides.items())
    return Liveness(network, len(found), found_sides, always)
