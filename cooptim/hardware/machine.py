"""A machine: the numbers of one processor, as frozen pytrees.

Leaves are what one differentiates, sweeps or vmaps; static fields are what changes the program. Built from YAML by
`cooptim.hardware.load`, which also keeps the provenance of each number.
"""

import dataclasses

import jax
from jaxtyping import Array, Float

from cooptim.hardware.datapath import Datapath, Mode
from cooptim.hardware.mechanisms import Mechanisms

_STATIC = {"static": True}  # changes the program


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class BodyBias:
    """Body bias of the whole chip, forward above 0; `cooptim.hardware.body_bias` moves it."""

    bias_v: Float[Array, ""]  # where threshold_v, nominal_ghz and leakage_mw of the supply hold
    min_v: Float[Array, ""]
    max_v: Float[Array, ""]
    shift: Float[Array, ""]  # fall of the threshold a volt of bias [V/V]
    swing_v: Float[Array, ""]  # change of the threshold that changes leakage ten times [V]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Switching:
    """What a change of mode or supply between consecutive layers takes; `cooptim.cost.switching` prices it."""

    rail_pf: Float[Array, ""]  # capacitance of the scaled rail with all that hangs on it
    mode_ns: Float[Array, ""]  # settle time of a change of mode
    step_ns: Float[Array, ""]  # settle time of each step_v that the supply moves


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Supply:
    """V-f law, supply grid and leakage. V0 = nominal_v, f0 = nominal_ghz at full width."""

    nominal_v: Float[Array, ""]
    nominal_ghz: Float[Array, ""]
    floor_v: Float[Array, ""]
    ceiling_v: Float[Array, ""]
    step_v: Float[Array, ""]  # grid of legal supplies, counted from floor_v
    step_ghz: Float[Array, ""]  # grid of legal clocks, multiples of it
    threshold_v: Float[Array, ""]
    alpha: Float[Array, ""]  # f ~ (V - threshold)^alpha / V
    path_share: Float[Array, ""]  # critical path(b) = 1 - path_share * (1 - b/width): the part that width shortens
    fixed_share: Float[Array, ""]  # share of dynamic energy on a rail that stays at V0 (nas domain); 0 = one rail
    leakage_mw: Float[Array, ""]  # at V0, whole chip at the nominal memory size
    leakage_exponent: Float[Array, ""]  # P_leak ~ (V/V0)^leakage_exponent
    memory_leakage_share: Float[Array, ""]  # part of the leakage that grows with memory size
    retention_v: Float[Array, ""]  # supply between inferences; 0 = power-gated, then nothing stays resident
    fixed_v: Float[Array, ""] | None = None  # where the fixed rail stands; None: at V0
    fixed_leakage_share: Float[Array, ""] | None = None  # share of the leakage at V0 that is the fixed rail's; None: 0
    body: BodyBias | None = None  # None: no body bias


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Buffer:
    """The on-chip buffer. Energy per access grows as the square root of size."""

    word_bits: int = dataclasses.field(metadata=_STATIC)
    free: bool = dataclasses.field(metadata=_STATIC)  # is the size a knob?
    double_buffered: bool = dataclasses.field(metadata=_STATIC)
    input_shift: bool = dataclasses.field(
        metadata=_STATIC
    )  # inputs shift between pixel lanes along FX and are fetched once a row of taps
    size_bits: Float[Array, ""]
    min_bits: Float[Array, ""]
    max_bits: Float[Array, ""]
    step_bits: Float[Array, ""]  # what can be built: multiples of it
    nominal_bits: Float[Array, ""]  # size at which access_pj holds
    access_pj: Float[Array, ""]  # one word read or written, at V0


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Dram:
    """Off-chip memory behind one link; not on the scaled supply."""

    coded: bool = dataclasses.field(
        metadata=_STATIC
    )  # zero-flag Huffman code: a zero costs 1 bit, anything else 1 + b; raw where cheaper
    access_pj_per_bit: Float[Array, ""]
    bandwidth_bit_per_ns: Float[Array, ""]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Area:
    """Silicon area."""

    logic_mm2: Float[Array, ""]
    memory_mm2_per_bit: Float[Array, ""]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Machine:
    """One processor with its off-chip memory."""

    name: str = dataclasses.field(metadata=_STATIC)
    datapath: Datapath
    supply: Supply
    buffer: Buffer
    dram: Dram
    area: Area
    mechanisms: Mechanisms = Mechanisms()
    switching: Switching | None = None  # None: changing mode or supply takes neither time nor energy

    @property
    def modes(self) -> tuple[Mode, ...]:
        """Subword modes; the `mode` axis of every array follows this order."""
        return self.datapath.modes
