"""Shared weights: the buffer holds indices into a table, the array multiplies what the table says."""

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
from cooptim.hardware.quantity import Quantity, Rule, Strict


class SharedWeightsSection(Strict):
    """Weights of few distinct values."""

    index: Annotated[Quantity, Rule("size", 1, 16, whole=True)] = Field(
        description="widest index; a layer of b-bit weights takes a table of 2^b entries and b-bit indices"
    )
    decoded: Annotated[Quantity, Rule("size", 1, 64, whole=True)] = Field(description="width of a table entry")
    lookup: Annotated[Quantity, Rule("energy")] = Field(
        description="energy of one look-up at the nominal supply, for each weight read into the array"
    )

    def build(self) -> "SharedWeights":
        """The mechanism."""
        lookup = jnp.asarray(self.lookup.value, jnp.result_type(float))
        return SharedWeights(int(self.index.value), int(self.decoded.value), lookup)

    def fault(self, spec: Any) -> str | None:
        """What does not fit with the rest of the file, after the section's name; None when all does."""
        index, decoded, width = self.index.value, self.decoded.value, spec.datapath.width.value
        if decoded > width:
            return f".decoded: {decoded:g} bit; legal: at most the datapath's width, {width:g} bit; narrow the entries"
        if index > decoded:
            return (
                f".index: {index:g} bit; legal: at most the decoded width, {decoded:g} bit; a wider index saves nothing"
            )
        return None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SharedWeights:
    """Numbers of `SharedWeightsSection`."""

    index_bits: int = dataclasses.field(metadata={"static": True})
    decoded_bits: int = dataclasses.field(metadata={"static": True})
    lookup_pj: Float[Array, ""]


def effect(mechanism: SharedWeights, datapath: Datapath, point: LayerPoint) -> Effect:
    """Weights take the bits of their index in the buffer, and a look-up on their way into the array."""
    slots = np.asarray([mode.slot_bits for mode in datapath.modes], float)
    index = jnp.minimum(jnp.asarray(point.weight_bits), float(mechanism.index_bits))
    words = jnp.minimum((index + point.run_bits) / slots, 1.0)  # that a stored weight takes
    return Effect(words_w=1.0 if point.coded_w else words, entry_datapath_pj=mechanism.lookup_pj)


def array_bits(
    mechanism: SharedWeights, datapath: Datapath, weight_bits: Float[ArrayLike, "*n"], input_bits: Any
) -> tuple[Any, Any]:
    """Widths in the array: a weight is as wide as an entry of the table."""
    return jnp.full_like(jnp.asarray(weight_bits), float(mechanism.decoded_bits)), input_bits


def most_bits(mechanism: SharedWeights, width_bits: int) -> tuple[float, float]:
    """Widest weights and inputs: a table holds no more values than an index can name."""
    return float(mechanism.index_bits), float(width_bits)


def held_bits(mechanism: SharedWeights, datapath: Datapath) -> tuple[np.ndarray, np.ndarray]:
    """Bits that a weight and an input reserve in the buffer, per mode."""
    slots = np.asarray([mode.slot_bits for mode in datapath.modes], np.float64)
    return np.minimum(slots, float(mechanism.index_bits)), slots
