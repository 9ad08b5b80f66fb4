"""What a forward pass measures: shares of non-zero words for the cost model, extrema for calibration."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class Live(NamedTuple):
    """What would be left of each layer without the dead channels of its network, as shares."""

    outputs: Float[Array, "layer"]  # of its output channels
    inputs: Float[Array, "layer"]  # of its input channels
    weights: Float[Array, "layer"]  # of its non-zero weights


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Stats:
    """Measured shares of non-zero words at the current widths, with gradients; 1 where nothing was measured.

    `reach` is None unless the network has early exits; densities are those of all inputs, whether they reach or not.
    """

    weight_density: Float[Array, "layer"]  # non-zero quantized weights over all weights
    input_density: Float[Array, "layer"]  # non-zero quantized inputs over all inputs
    reach: Float[Array, "layer"] | None = None  # share of inputs for which the layer runs
    live: Live | None = None  # what is priced of each layer; None: the whole network


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Observation:
    """Extrema and root mean squares of the operands in one batch, from which steps and ranges start.

    For an activation product ('matmul') the weight is its second operand.
    """

    weight_max: Float[Array, "layer"]  # largest magnitude
    weight_rms: Float[Array, "layer"]
    input_min: Float[Array, "layer"]
    input_max: Float[Array, "layer"]
    input_rms: Float[Array, "layer"]

    def signed(self) -> tuple[bool, ...]:
        """Whether each layer's input was seen below zero; needs concrete arrays (not under jit)."""
        return tuple(bool(low < 0) for low in jax.device_get(self.input_min))


def dense_stats(layers: int) -> Stats:
    """Stats of a network without a single zero."""
    return Stats(jnp.ones(layers), jnp.ones(layers))
