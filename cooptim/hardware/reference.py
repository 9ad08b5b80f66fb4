"""The reference operating point: the published power of a chip, and the energies that follow from its shares."""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from cooptim.hardware.datapath import Datapath, Mode
from cooptim.hardware.dvafs import activity_divisor, critical_path, dynamic_scale, leakage_mw, supply_for_clock
from cooptim.hardware.machine import Machine
from cooptim.hardware.mechanisms import WITHOUT, Effect, LayerPoint, array_bits, layer_effect
from cooptim.hardware.schema import MachineSchema, ReferenceData
from cooptim.hardware.systolic import words_a_busy_cycle


@dataclasses.dataclass(frozen=True)
class ReferencePoint:
    """What a chip does while its published power is measured.

    Attributes:
      busy_fraction: share of the cycles with every lane busy; in the others the lanes idle and no word is fetched.
      sram_w, sram_i, sram_o: buffer words per busy cycle and operand.
      sums: of a systolic array, accesses to accumulators per busy cycle, as buffer words of the same energy.
      active: energy of the lanes in a busy cycle over that of as many busy ones; below 1 where some wait or gate.
      waiting: share of the lanes that wait in a busy cycle. divisor: of the lanes' energy, by the widths at hand.
      extra_pj: what mechanisms add to the lanes in a busy cycle (table look-ups).
    """

    power_mw: float
    freq_ghz: float
    busy_fraction: float
    sram_w: float
    sram_i: float
    sram_o: float
    sums: float = 0.0
    active: float = 1.0
    waiting: float = 0.0
    divisor: float = 1.0
    extra_pj: float = 0.0

    @property
    def sram_words(self) -> float:
        """Buffer words of all operands per busy cycle, sums in accumulators among them."""
        return self.sram_w + self.sram_i + self.sram_o + self.sums

    def lanes(self, idle_share: float) -> float:
        """Mean energy of the lanes in a cycle over that of as many busy ones; `idle_share`: of an empty over a busy."""
        busy = self.busy_fraction
        return busy * (self.active + self.waiting * idle_share) + (1.0 - busy) * idle_share


@dataclasses.dataclass(frozen=True)
class DerivedEnergies:
    """Energies and leakage that add up to the reference power."""

    busy_pj: float  # scalable energy of a cycle with all lanes busy
    access_pj: float  # one buffer word
    control_pj: float  # a cycle
    leakage_mw: float


def reference_point(spec: MachineSchema) -> ReferencePoint:
    """The reference point of a machine file.

    Words per busy cycle: every row reads one weight; a row of pixels reads its inputs once a row of taps when they
    shift between lanes, else once a tap; every output is written once, after C * FY * FX cycles. Of a systolic array:
    `cooptim.hardware.systolic`. Where the file says on what data, all of this is as the mechanisms leave it.
    """
    layer = {name: getattr(spec.reference.layer, name).value for name in ("C", "FY", "FX")}
    rows, cols = spec.datapath.rows.value, spec.datapath.cols.value
    freq = spec.supply.nominal_clock.value
    inputs = (cols + layer["FX"] - 1.0) / layer["FX"] if spec.buffer.input_shift.value else cols
    power, busy = spec.reference.power.value, spec.reference.busy_fraction.value
    if spec.datapath.systolic is not None:
        w, i, o, sums = words_a_busy_cycle(spec)
        return ReferencePoint(power, freq, busy, w, i, o, sums * spec.datapath.systolic.sum_access.value)
    dense = ReferencePoint(
        power_mw=power,
        freq_ghz=freq,
        busy_fraction=busy,
        sram_w=rows,
        sram_i=min(inputs, cols),
        sram_o=rows * cols / (layer["C"] * layer["FY"] * layer["FX"]),
    )
    return dense if spec.reference.data is None else _on_data(spec, dense, spec.reference.data)


def _on_data(spec: MachineSchema, dense: ReferencePoint, data: ReferenceData) -> ReferencePoint:
    """The point as the mechanisms leave it, in the mode of one lane, by the formulas of `cooptim.cost.energy`."""
    path, mechanisms = datapath_of(spec), spec.mechanisms.build()
    bounds = {name: np.array([int(getattr(spec.reference.layer, name).value)]) for name in ("K", "C", "OX", "FY", "FX")}
    weight_bits, input_bits, weight_density, input_density, supply_v = (
        jnp.asarray([quantity.value])
        for quantity in (
            data.weight_bits, data.input_bits, data.weight_density, data.input_density, spec.supply.nominal_v,
        )
    )  # fmt: skip
    cycle = jnp.ones((1, len(path.modes)))
    point = LayerPoint(
        weight_bits, input_bits, weight_density, input_density, supply_v, cycle, dense.sram_w * cycle,
        dense.sram_i * cycle, bounds,
    )  # fmt: skip
    found = layer_effect(mechanisms, path, point)
    here = [mode.lanes for mode in path.modes].index(1)
    effect = WITHOUT if found is None else Effect(*(float(x[0, here]) for x in found))
    w, i = data.weight_density.value, data.input_density.value
    wide = array_bits(mechanisms, path, weight_bits, input_bits)
    cycles = effect.cycles + effect.extra_cycles  # of one without mechanisms
    guarded = spec.datapath.guarded_share.value
    activity = guarded + (1.0 - guarded) * effect.seen(w, "W") * effect.seen(i, "I")
    return dataclasses.replace(
        dense,
        sram_w=dense.sram_w * effect.read(w, "W") / cycles,
        sram_i=dense.sram_i * effect.read(i, "I") / cycles,
        sram_o=dense.sram_o / cycles,
        active=effect.executed * activity * effect.datapath / cycles,
        waiting=1.0 - effect.executed / cycles,
        divisor=float(activity_divisor(path, path.modes[here], *wide)[0]),
        extra_pj=(effect.extra_datapath_pj + dense.sram_w * effect.entries(w) * effect.entry_datapath_pj) / cycles,
    )


def datapath_of(spec: MachineSchema, busy_pj: float = 0.0, control_pj: float = 0.0, access_pj: float = 0.0) -> Datapath:
    """The MAC array of a machine file at these energies of a cycle and of a buffer word."""
    d, width = spec.datapath, int(spec.datapath.width.value)

    def leaf(value: float) -> Float[Array, ""]:
        return jnp.asarray(value, dtype=jnp.result_type(float))

    return Datapath(
        rows=int(d.rows.value),
        cols=int(d.cols.value),
        width_bits=width,
        accumulator_bits=int(d.accumulator.value),
        modes=tuple(Mode(f"{n}x{width // n}b", n, width // n) for n in d.lanes.value),
        busy_pj=leaf(busy_pj),
        control_pj=leaf(control_pj),
        gating_exponent=leaf(d.gating_exponent.value),
        subword_exponent=leaf(d.subword_exponent.value),
        idle_share=leaf(d.idle_share.value),
        guarded_share=leaf(d.guarded_share.value),
        systolic=None if d.systolic is None else d.systolic.build(access_pj),
    )


def derived_energies(spec: MachineSchema) -> DerivedEnergies:
    """Energies such that datapath, SRAM, control and leakage add up to the published power at the reference point.

    Raises ValueError where look-ups alone take more than the datapath's share.
    """
    point, shares = reference_point(spec), spec.reference.shares
    cycle_pj = point.power_mw / point.freq_ghz
    lanes = point.lanes(spec.datapath.idle_share.value)
    own_pj = shares.datapath.value * cycle_pj - point.busy_fraction * point.extra_pj
    if own_pj < 0.0:
        raise ValueError(
            f"machine {spec.name}: reference.shares.datapath: {shares.datapath.value:g} of the power is "
            f"{shares.datapath.value * cycle_pj:.4g} pJ a cycle, and mechanisms take {point.extra_pj:.4g} pJ of it "
            "(table look-ups); legal: at least as much; raise the share or lower mechanisms.*.lookup"
        )
    return DerivedEnergies(
        busy_pj=own_pj / lanes * point.divisor,
        access_pj=shares.sram.value * cycle_pj / (point.busy_fraction * point.sram_words),
        control_pj=shares.control.value * cycle_pj,
        leakage_mw=shares.leakage.value * point.power_mw,
    )


def peak_gops(machine: Machine) -> dict[str, float]:
    """Operations a nanosecond of each mode at the nominal clock with every lane busy; 1 MAC = 2 operations [GOPS]."""
    d = machine.datapath
    macs = {mode.name: d.rows * d.cols * mode.lanes for mode in d.modes}
    return {name: 2.0 * n * float(machine.supply.nominal_ghz) for name, n in macs.items()}


def operating_power_mw(
    machine: Machine,
    point: ReferencePoint,
    mode: Mode,
    bits: float,
    freq_ghz: Float[ArrayLike, ""],
    supply_v: Float[ArrayLike, ""],
    weight_density: float = 1.0,
    input_density: float = 1.0,
) -> Float[Array, ""]:
    """On-chip power at the reference duty in another mode, width, clock, supply or density [mW].

    Args:
      weight_density, input_density: over those of the reference point, which are 1 unless its file says otherwise.

    Source: P = P_dyn0 (s/k + 1 - s) (f/f0) (V/V0)^2 + P_leak(V), the formula of the DVAFS paper (DATE 2017), with the
    zero guarding of `cooptim.cost.energy`.
    """
    d = machine.datapath
    wide = jnp.asarray(bits, jnp.result_type(float))
    guarded = d.guarded_share + (1.0 - d.guarded_share) * weight_density * input_density
    busy = point.active * guarded + point.waiting * d.idle_share
    lanes = point.busy_fraction * busy + (1.0 - point.busy_fraction) * d.idle_share
    words = weight_density * point.sram_w + input_density * point.sram_i + point.sram_o + point.sums
    cycle = (
        d.busy_pj * lanes / activity_divisor(d, mode, wide, wide)
        + point.extra_pj * point.busy_fraction
        + machine.buffer.access_pj * words * point.busy_fraction
        + d.control_pj
    )
    size = machine.buffer.nominal_bits
    return cycle * freq_ghz * dynamic_scale(machine.supply, supply_v) + leakage_mw(machine, supply_v, size)


# Published for Envision at 4 bit and constant throughput (76 GOPS) unless named otherwise. Source: reading notes on
# Moons et al., DATE 2017 sec. V and Fig. 8 (300, 18 and 104 mW, 6.9, 4.1) and ISSCC 2017 (7.6 mW, 1.6).
PUBLISHED: dict[str, float] = {
    "dvafs_over_16b": 300.0 / 18.0,
    "dvafs_over_das": 6.9,
    "dvafs_over_dvas": 4.1,
    "dvafs_200_over_50_mhz": 5.8,
}


def dvafs_ratios(machine: Machine, point: ReferencePoint) -> dict[str, Float[Array, ""]]:
    """The model's value of each ratio in PUBLISHED, supplies being the lowest that reach the clock.

    DAS: one lane, 4 bit, nominal clock and supply. DVAS: the same at the supply that the shorter path allows. DVAFS:
    four lanes of 4 bit at a quarter of the clock. All do as many operations a second as 16 bit at the nominal clock.
    """
    supply, widest = machine.supply, machine.datapath.width_bits
    one, four = _mode(machine, 1), _mode(machine, 4)
    bits = float(four.slot_bits)
    f0, path = supply.nominal_ghz, critical_path(supply, widest, jnp.asarray(bits, jnp.result_type(float)))
    fast_v, slow_v = (supply_for_clock(supply, f, path) for f in (f0, f0 / four.lanes))

    def power(mode: Mode, width: float, freq: Float[Array, ""], volts: Float[Array, ""]) -> Float[Array, ""]:
        return operating_power_mw(machine, point, mode, width, freq, volts)

    dvafs = power(four, bits, f0 / four.lanes, slow_v)
    return {
        "dvafs_over_16b": power(one, float(widest), f0, supply.nominal_v) / dvafs,
        "dvafs_over_das": power(one, bits, f0, supply.nominal_v) / dvafs,
        "dvafs_over_dvas": power(one, bits, f0, fast_v) / dvafs,
        "dvafs_200_over_50_mhz": power(four, bits, f0, fast_v) / dvafs,
    }


def sparse_gain(
    machine: Machine, point: ReferencePoint, weight_density: float, input_density: float
) -> Float[Array, ""]:
    """Dense over sparse power at the four-lane constant-throughput point.

    Published: 18 over 7.6 mW = 2.4 (and 1.6 as "additional gain") at zero rates that were not published.
    """
    supply, four = machine.supply, _mode(machine, 4)
    bits, freq = float(four.slot_bits), machine.supply.nominal_ghz / four.lanes
    path = critical_path(supply, machine.datapath.width_bits, jnp.asarray(bits, jnp.result_type(float)))
    volts = supply_for_clock(supply, freq, path)
    dense = operating_power_mw(machine, point, four, bits, freq, volts)
    return dense / operating_power_mw(machine, point, four, bits, freq, volts, weight_density, input_density)


def _mode(machine: Machine, lanes: int) -> Mode:
    for mode in machine.modes:
        if mode.lanes == lanes:
            return mode
    have = ", ".join(mode.name for mode in machine.modes)
    raise ValueError(f"machine {machine.name} has no mode of {lanes} lanes (it has {have}); the DVAFS ratios need it")
