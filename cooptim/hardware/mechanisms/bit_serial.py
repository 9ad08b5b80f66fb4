"""Bit-serial MACs: an operand comes a few bits at a time, so cycles and energy follow its width."""

import dataclasses
from typing import Annotated, Any

import jax
from jax.typing import ArrayLike
from jaxtyping import Array, Float
from pydantic import Field

from cooptim.hardware.datapath import Datapath
from cooptim.hardware.mechanisms.effect import Effect, LayerPoint
from cooptim.hardware.mechanisms.steps import leaf, subwords_fault, whole_steps
from cooptim.hardware.quantity import Choice, OneOf, Quantity, Rule, Strict

# Energy of an operation over that of a data-gated parallel MAC, both operands of 8 bit, by (serial operands, digit).
# Source: Camus et al., JETCAS 9(4) 2019, p. 705, 28 nm (reading notes).
CAMUS_8B: dict[tuple[str, int], float] = {("one", 1): 3.3, ("both", 1): 14.0, ("one", 4): 1.5}


class BitSerialSection(Strict):
    """MACs that take one or both operands a digit at a time."""

    operand: Annotated[Choice, OneOf("W", "I", "both")] = Field(description="which operand comes in digits")
    digit: Annotated[Quantity, Rule("size", 1, 64, whole=True)] = Field(description="bits of the operand in a step")
    units: Annotated[Quantity, Rule("count", 1, 1e6, whole=True)] = Field(
        description="serial units that make one MAC lane: as many as the steps at `datapath.width` are as fast as a "
        "parallel MAC there; a chip whose `reference` is serial has just those"
    )
    energy_ratio: Annotated[Quantity, Rule("ratio", 0, above=True)] = Field(
        description="energy of an operation at `datapath.width` over that of the MAC behind `reference`: 1 where the "
        "reference is serial itself, 3.3 at 8 bit against a parallel MAC (digits of 1 bit; 1.5 of 4; both operands 14)"
    )

    def fault(self, spec: Any) -> str | None:
        """Subwords, or a digit that is wider than the operand."""
        width, digit = spec.datapath.width.value, self.digit.value
        if digit > width:
            return f".digit: {digit:g} bit of operands of {width:g} bit (datapath.width); legal: 1 to {width:g}"
        return subwords_fault(spec, "a serial MAC", "for narrow operands take fewer steps", "bit_serial")

    def build(self) -> "BitSerial":
        """The mechanism."""
        return BitSerial(self.operand.value, leaf(self.digit), leaf(self.units), leaf(self.energy_ratio))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class BitSerial:
    """Serial MACs; digits, units and energy as in the section."""

    operand: str = dataclasses.field(metadata={"static": True})  # W, I or both
    digit_bits: Float[Array, ""]
    units: Float[Array, ""]
    energy_ratio: Float[Array, ""]


def serial_steps(
    serial: BitSerial, weight_bits: Float[ArrayLike, "*#n"], input_bits: Float[ArrayLike, "*#n"]
) -> Float[Array, "..."]:
    """Steps of one MAC: digits of the serial operand, or the product of both; whole, its gradient that of the quotient.

    Source: the shift-and-add product of a digit and a word takes one step.
    """
    w, i = (whole_steps(bits, serial.digit_bits) for bits in (weight_bits, input_bits))
    return {"W": w, "I": i, "both": w * i}[serial.operand]


def array_bits(
    serial: BitSerial, datapath: Datapath, weight_bits: Float[ArrayLike, "*n"], input_bits: Float[ArrayLike, "*n"]
) -> tuple[Any, Any]:
    """The serial operand fills its unit at any width: it gates nothing and shortens no path, it takes fewer steps."""
    full = float(datapath.width_bits)
    w = weight_bits if serial.operand == "I" else 0.0 * weight_bits + full
    i = input_bits if serial.operand == "W" else 0.0 * input_bits + full
    return w, i


def least_bits(serial: BitSerial) -> tuple[float, float]:
    """A serial operand may be a single bit: it takes one step, as any number of bits up to a digit does."""
    return (2.0 if serial.operand == "I" else 1.0), (2.0 if serial.operand == "W" else 1.0)


def effect(serial: BitSerial, datapath: Datapath, point: LayerPoint) -> Effect:
    """Cycles and energy in proportion to the steps; those of full width cost `energy_ratio`."""
    full = float(datapath.width_bits)
    cycles = serial_steps(serial, point.weight_bits, point.input_bits) / serial.units
    # Lanes are busy for those cycles, each at the energy of a full-width operation over the cycles that one takes.
    each = serial.energy_ratio * serial.units / serial_steps(serial, full, full)
    return Effect(cycles=cycles, executed=cycles, datapath=each)
