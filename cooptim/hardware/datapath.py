"""The MAC array of a machine and its subword modes."""

import dataclasses

import jax
from jaxtyping import Array, Float

_STATIC = {"static": True}  # changes the program


@dataclasses.dataclass(frozen=True)
class Mode:
    """One subword mode: `lanes` subwords of `slot_bits` share a MAC; the array is unrolled K x (pixels * lanes)."""

    name: str
    lanes: int
    slot_bits: int


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Datapath:
    """The MAC array and what its reference operating point (1 lane, full width, V0, f0, dense) costs per cycle."""

    rows: int = dataclasses.field(metadata=_STATIC)  # K lanes (output channels)
    cols: int = dataclasses.field(
        metadata=_STATIC
    )  # OY*OX lanes (output pixels) at one subword; times `lanes` in a mode
    width_bits: int = dataclasses.field(metadata=_STATIC)
    accumulator_bits: int = dataclasses.field(metadata=_STATIC)
    modes: tuple[Mode, ...] = dataclasses.field(metadata=_STATIC)
    busy_pj: Float[Array, ""]  # accuracy-scalable energy of one cycle with every lane busy
    control_pj: Float[Array, ""]  # clock, instruction and all else that neither width nor zeros change, a cycle
    gating_exponent: Float[Array, ""]  # k0(b) = (width/b)^gating_exponent: low bits gated
    subword_exponent: Float[Array, ""]  # k3(N) = N^subword_exponent: divisor of the activity of a subword mode
    idle_share: Float[Array, ""]  # energy of an empty lane over that of a busy one, in [0, 1]
    guarded_share: Float[Array, ""]  # energy of a MAC with a zero operand over that of a busy one, in [0, 1]
