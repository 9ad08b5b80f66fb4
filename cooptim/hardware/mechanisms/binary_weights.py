"""Weights of one bit, +1 or -1: an adder that changes signs in the place of the multiplier."""

import dataclasses
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float
from pydantic import Field

from cooptim.hardware.datapath import Datapath
from cooptim.hardware.mechanisms.effect import Effect, LayerPoint
from cooptim.hardware.mechanisms.steps import leaf, subwords_fault
from cooptim.hardware.quantity import Quantity, Rule, Strict

WEIGHT_BITS = 1.0


class BinaryWeightsSection(Strict):
    """A datapath for weights of one bit and inputs of up to `datapath.width`; it has no multiplier."""

    adder_exponent: Annotated[Quantity, Rule("ratio", 0, 4)] = Field(
        description="energy of a lane follows (input bits / `datapath.width`)^exponent; an adder's has exponent 1"
    )

    def fault(self, spec: Any) -> str | None:
        """Subwords, which split a multiplier."""
        return subwords_fault(spec, "an adder", "for there is no multiplier to split", "binary_weights")

    def build(self) -> "BinaryWeights":
        """The mechanism."""
        return BinaryWeights(leaf(self.adder_exponent))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class BinaryWeights:
    """Sign-changing adders."""

    adder_exponent: Float[Array, ""]


def adder_share(binary: BinaryWeights, datapath: Datapath, input_bits: Float[ArrayLike, "*n"]) -> Float[Array, "*n"]:
    """Energy of a lane over that at full input width.

    Source: a ripple of full adders, one a bit, so the exponent is 1; assumed.
    """
    return (jnp.asarray(input_bits) / float(datapath.width_bits)) ** binary.adder_exponent


def array_bits(
    binary: BinaryWeights, datapath: Datapath, weight_bits: Float[ArrayLike, "*n"], input_bits: Float[ArrayLike, "*n"]
) -> tuple[Any, Any]:
    """Full width of both: no low bits of a multiplier are gated and no path is shortened."""
    full = float(datapath.width_bits)
    return 0.0 * weight_bits + full, 0.0 * input_bits + full


def most_bits(binary: BinaryWeights, width_bits: int) -> tuple[float, float]:
    """One bit of weights, inputs as wide as the datapath."""
    return WEIGHT_BITS, float(width_bits)


def held_bits(binary: BinaryWeights, datapath: Datapath) -> tuple[np.ndarray, np.ndarray]:
    """A weight holds one bit of the buffer, an input a slot."""
    slots = np.asarray([mode.slot_bits for mode in datapath.modes], np.float64)
    return np.full_like(slots, WEIGHT_BITS), slots


def effect(binary: BinaryWeights, datapath: Datapath, point: LayerPoint) -> Effect:
    """An adder's energy, and as many weights in a buffer word as it has bits."""
    return Effect(
        datapath=adder_share(binary, datapath, point.input_bits), words_w=point.weight_bits / float(datapath.width_bits)
    )
