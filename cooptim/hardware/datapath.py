"""The MAC array of a machine and its subword modes."""

import dataclasses

import jax
from jaxtyping import Array, Float

_STATIC = {"static": True}  # changes the program


@dataclasses.dataclass(frozen=True)
class Mode:
    """One subword mode: `lanes` subwords of `slot_bits` share a MAC, each with a pixel of its own."""

    name: str
    lanes: int
    slot_bits: int


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Systolic:
    """Weights stay in the MACs, pixels stream along the rows, sums down the columns into accumulators."""

    taps_on_rows: bool = dataclasses.field(metadata=_STATIC)  # filter taps lie beside the channels (im2col)
    overlapped: bool = dataclasses.field(metadata=_STATIC)  # the next weights shift in while pixels stream
    accumulators: int = dataclasses.field(metadata=_STATIC)  # sums that a column holds
    sum_pj: Float[Array, ""]  # one sum written to or read from the accumulators, at V0


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Datapath:
    """The MAC array and what its reference operating point (1 lane, full width, V0, f0, dense) costs per cycle."""

    rows: int = dataclasses.field(metadata=_STATIC)  # output channels (K); products of a sum where `systolic`
    cols: int = dataclasses.field(
        metadata=_STATIC
    )  # output pixels (OY*OX) at one subword, times `lanes` in a mode; output channels where `systolic`
    width_bits: int = dataclasses.field(metadata=_STATIC)
    accumulator_bits: int = dataclasses.field(metadata=_STATIC)
    modes: tuple[Mode, ...] = dataclasses.field(metadata=_STATIC)
    busy_pj: Float[Array, ""]  # accuracy-scalable energy of one cycle with every lane busy
    control_pj: Float[Array, ""]  # clock, instruction and all else that neither width nor zeros change, a cycle
    gating_exponent: Float[Array, ""]  # k0(b) = (width/b)^gating_exponent: low bits gated
    subword_exponent: Float[Array, ""]  # k3(N) = N^subword_exponent: divisor of the activity of a subword mode
    idle_share: Float[Array, ""]  # energy of an empty lane over that of a busy one, in [0, 1]
    guarded_share: Float[Array, ""]  # energy of a MAC with a zero operand over that of a busy one, in [0, 1]
    systolic: Systolic | None = None  # None: outputs stay in the array, which is unrolled K x (pixels * lanes)
