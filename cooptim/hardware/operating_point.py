"""DAS, DVAS and DVAFS by name: activity, critical path, supply, clock, power and energy at widths of each operand."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cooptim.hardware.dvafs import activity_divisor, critical_path, scaled_divisor, supply_for_clock
from cooptim.hardware.load import MachineFile
from cooptim.hardware.machine import Mode
from cooptim.hardware.multiplier import ScalableMultiplier, lowest_supply_v, word_energy_pj
from cooptim.hardware.reference import operating_power_mw

TECHNIQUES: tuple[str, ...] = ("DAS", "DVAS", "DVAFS")
_SUPPLY_FOR_CLOCK, _LOWEST_SUPPLY = jax.jit(supply_for_clock), jax.jit(lowest_supply_v)  # bisections: one compilation


class OperatingPoint(NamedTuple):
    """One technique at one pair of widths, at the throughput of one lane at nominal clock.

    Attributes:
      mode: the subword mode.
      activity: switching activity a cycle over that of one lane at full width; `activity / mode.lanes` is a word's.
      path: critical path over that of the full width.
      power_mw: of the whole circuit. energy_pj: a MAC of a machine, a word of a multiplier.
    """

    mode: Mode
    activity: Float[Array, ""]
    path: Float[Array, ""]
    supply_v: Float[Array, ""]
    freq_ghz: Float[Array, ""]
    power_mw: Float[Array, ""]
    energy_pj: Float[Array, ""]


def operating_point(file: MachineFile, technique: str, weight_bits: float, input_bits: float) -> OperatingPoint:
    """A machine under a technique, dense, at its reference duty; supplies are continuous and not below the floor.

    DAS gates low bits at the nominal supply and clock; DVAS also lowers the supply as far as the shorter path allows;
    DVAFS also takes the most subwords that hold both operands and divides the clock by their number.

    Raises ValueError for an unknown technique or a width outside 1 to the datapath's.

    Source: Moons & Verhelst, DATE 2017; the laws are those of `cooptim.hardware.dvafs`.
    """
    machine, point = file.machine, file.reference
    d, s = machine.datapath, machine.supply
    mode = mode_for(machine.modes, technique, weight_bits, input_bits, d.width_bits, f"machine {machine.name}")
    freq = s.nominal_ghz / mode.lanes
    path = critical_path(s, d.width_bits, max(float(weight_bits), float(input_bits)))
    volts = s.nominal_v if technique == "DAS" else _SUPPLY_FOR_CLOCK(s, freq, path)
    divisor = activity_divisor(d, mode, float(weight_bits), float(input_bits))
    bits = _mean_width(mode.slot_bits, weight_bits, input_bits)
    power = operating_power_mw(machine, point, mode, bits, freq, volts)
    macs_per_ns = point.busy_fraction * d.rows * d.cols * mode.lanes * freq
    return OperatingPoint(mode, 1.0 / divisor, path, jnp.asarray(volts), freq, power, power / macs_per_ns)


def multiplier_point(
    part: ScalableMultiplier, modes: tuple[Mode, ...], technique: str, weight_bits: float, input_bits: float
) -> OperatingPoint:
    """A multiplier by itself under a technique, no leakage; `modes` are those of the processor it was made for.

    Raises ValueError for an unknown technique or a width outside 1 to the multiplier's.
    """
    mode = mode_for(modes, technique, weight_bits, input_bits, part.width_bits, f"multiplier {part.name}")
    widths = float(weight_bits), float(input_bits)
    freq = part.clock_ghz / mode.lanes
    path = 1.0 - part.path_share * (1.0 - max(widths) / part.width_bits)
    volts = part.supply_v if technique == "DAS" else _LOWEST_SUPPLY(part, max(widths), freq)
    slot = part.width_bits / mode.lanes
    divisor = scaled_divisor(part.gating_exponent, part.subword_exponent, float(mode.lanes), slot, *widths)
    energy = word_energy_pj(part, float(mode.lanes), _mean_width(slot, *widths), volts)
    return OperatingPoint(mode, 1.0 / divisor, path, jnp.asarray(volts), freq, energy * mode.lanes * freq, energy)


def _mean_width(slot_bits: float, weight_bits: float, input_bits: float) -> float:
    """The width of both operands whose divisor is that of the pair: the law takes the mean of what the slot holds."""
    return (min(float(weight_bits), float(slot_bits)) * min(float(input_bits), float(slot_bits))) ** 0.5


def mode_for(
    modes: tuple[Mode, ...], technique: str, weight_bits: float, input_bits: float, width_bits: int, who: str
) -> Mode:
    """The mode of a technique: DVAFS the most subwords that hold both operands, else one.

    Raises ValueError with what is legal for an unknown technique or a width that the datapath lacks.
    """
    if technique not in TECHNIQUES:
        raise ValueError(f"{who}: technique {technique!r}; legal: {', '.join(TECHNIQUES)}")
    for operand, bits in (("weight", weight_bits), ("input", input_bits)):
        if not 1 <= bits <= width_bits:
            raise ValueError(
                f"{who}: {operand} width {bits:g} bit; legal: 1 to {width_bits}, its datapath's width; narrow the "
                "operand or take a wider datapath"
            )
    widest = max(weight_bits, input_bits)
    fitting = [mode for mode in modes if mode.slot_bits >= widest and (technique == "DVAFS" or mode.lanes == 1)]
    return max(fitting, key=lambda mode: mode.lanes)
