"""A lower bound on the energy of every legal design of a workload on a machine within a deadline; numpy, float64."""

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from cooptim.cost.effect import workload_effect
from cooptim.cost.energy import access_pj, link_bits
from cooptim.cost.report import CostReport
from cooptim.hardware.dvafs import (
    activity_divisor,
    critical_path,
    dynamic_scale,
    leakage_mw,
    max_clock_ghz,
    standby_mw,
    supply_grid,
)
from cooptim.hardware.machine import Machine
from cooptim.hardware.mechanisms import WITHOUT, Effect, array_bits, most_bits
from cooptim.mapping.frontier import tilings as frontier_tilings
from cooptim.mapping.tilings import Tilings
from cooptim.workload import Workload
from cooptim.workload.graph import facts, needed

_SLACK = 1e-5  # relative room for rounding: deadlines are met to 1e-6, clocks stand within 1e-4 of a grid step


@dataclasses.dataclass(frozen=True)
class EnergyBound:
    """The bound and what it is made of [pJ per inference].

    Attributes:
      bound_pj: no legal design within the deadline takes less; on_chip_pj + dram_pj.
      dram_pj: compulsory traffic: network inputs, network outputs, weights that cannot stay on chip.
      ungated_pj: on-chip part of the same bound for a network without a single zero.
      layer_pj: share of each layer in the bound, DRAM included; leakage at the retention supply over the whole period
        and weights that cannot stay are of no layer.
      deadline_ns: the period that was asked for.
      shadow_mw: what one more nanosecond of deadline would save [pJ/ns].
    """

    bound_pj: float
    on_chip_pj: float
    dram_pj: float
    ungated_pj: float
    layer_pj: dict[str, float]
    deadline_ns: float
    shadow_mw: float


@dataclasses.dataclass(frozen=True)
class BoundFactors:
    """Why no design can do better than `total` times a reference; the product of the three.

    Attributes:
      mode_gain: on chip, from the reference to the best modes, widths, supplies and clocks, nothing gated.
      gating_ceiling: on chip, from there to every operand zero.
      dram_gain: what DRAM adds to (below 1) or takes from the on-chip gain.
    """

    mode_gain: float
    gating_ceiling: float
    dram_gain: float

    @property
    def total(self) -> float:
        """Energy of the reference over the bound."""
        return self.mode_gain * self.gating_ceiling * self.dram_gain


class _Options(NamedTuple):
    """Least energy [layer, option] and time of each mode and supply, and what no choice changes."""

    energy_pj: np.ndarray
    latency_ns: np.ndarray
    dram_pj: np.ndarray  # [layer], included in energy_pj
    fixed_pj: float  # standby over the whole period and weights that cannot stay
    fixed_dram_pj: float


def energy_bound_pj(
    workload: Workload,
    machine: Machine,
    period_ns: float,
    *,
    min_bits: float = 2.0,
    density: float = 0.0,
    tilings: Tilings | None = None,
) -> EnergyBound:
    """The least energy that `evaluate` can give for any legal design whose latency is within `period_ns`.

    Each layer is free to take the mode, supply and clock that suit it at `min_bits`, with each of its word counts the
    least over all tilings, every operand zero and everything on chip but network inputs and outputs and the weights
    that exceed the largest buffer at their shortest code; every input leaves at the first exit, where the workload has
    exits, and the deadline holds for one that does not. The deadline over the sum of layers enters by its Lagrangian
    dual, max over price >= 0 of sum_l min (E_l + price T_l) - price * period, a lower bound for any price.

    Args:
      density: share of non-zero words that both operands of every layer have at least, in [0, 1]: the bound is that of
        the designs that have as many.

    Raises ValueError when no legal design is as fast, and for a density that is no share.
    """
    if not 0.0 <= density <= 1.0:
        raise ValueError(f"bound of {workload.name}: density {density:g} is no share; legal are 0 to 1")
    table = frontier_tilings(workload, machine) if tilings is None else tilings
    period = float(period_ns)
    gated = _options(workload, machine, table, period, min_bits, density)
    dense = _options(workload, machine, table, period, min_bits, 1.0)
    fastest = gated.latency_ns.min(axis=1).sum()
    if fastest > period * (1.0 + _SLACK):
        raise ValueError(
            f"deadline {period:.6g} ns for {workload.name} on {machine.name}: no legal design is faster than "
            f"{fastest:.6g} ns (gap {fastest / period:.3g} times); allow more time, fewer MACs or a faster machine"
        )
    value, price, pick = _dual(gated, period)
    ungated, _, picked = _dual(dense, period)
    rows = np.arange(len(workload.layers))
    dram = float(gated.dram_pj.sum()) + gated.fixed_dram_pj
    return EnergyBound(
        bound_pj=value,
        on_chip_pj=value - dram,
        dram_pj=dram,
        ungated_pj=ungated - float(dense.dram_pj.sum()) - dense.fixed_dram_pj,
        layer_pj=dict(zip(workload.names, gated.energy_pj[rows, pick].tolist(), strict=True)),
        deadline_ns=period,
        shadow_mw=price,
    )


def bound_factors(bound: EnergyBound, reference: CostReport) -> BoundFactors:
    """The bound as mode gain x gating ceiling x DRAM share against the report of a reference design."""
    total = float(reference.total_energy_pj)
    dram = sum(float(reference.energy_pj[name].sum()) for name in ("dram_w", "dram_i", "dram_o"))
    return BoundFactors(
        mode_gain=(total - dram) / bound.ungated_pj,
        gating_ceiling=bound.ungated_pj / bound.on_chip_pj,
        dram_gain=(total / (total - dram)) * (bound.on_chip_pj / bound.bound_pj),
    )


def _options(
    workload: Workload, machine: Machine, table: Tilings, period_ns: float, min_bits: float, density: float
) -> _Options:
    """Least energy and time of each layer in each mode and at each supply, at this density of every operand."""
    d, s, known = machine.datapath, machine.supply, facts(workload)
    sure = needed(workload)[0].astype(np.float64)  # layers that run for every input
    least = {name: _least(table, name) for name in ("dram_w", "dram_i", "dram_o", "cycles")}
    read_w, read_i = _least(table, "sram_w"), _least(table, "sram_i")  # [layer, mode]
    both_o = _least(table, "sram_o") + _least(table, "sram_psum")
    sums_pj = np.zeros_like(read_w) if d.systolic is None else _least(table, "sums") * float(d.systolic.sum_pj)
    volts = np.unique(np.append(supply_grid(s), float(s.nominal_v)))
    size = float(machine.buffer.min_bits if machine.buffer.free else machine.buffer.size_bits)
    scale = np.asarray(dynamic_scale(s, volts), np.float64)
    access = np.asarray(access_pj(machine, size, volts), np.float64)
    leak = np.asarray(leakage_mw(machine, volts, size), np.float64)
    standby = float(standby_mw(machine, size))

    widths = tuple(np.asarray(min(min_bits, top), np.float64) for top in most_bits(machine.mechanisms, d.width_bits))
    code_w, code_i = (
        float(link_bits(machine, name, bits, np.asarray(density))) for name, bits in zip("WI", widths, strict=True)
    )
    words_in = least["dram_i"] * known.from_input
    words_out = least["dram_o"] * known.is_output
    link = words_in * code_i + words_out * float(d.width_bits)
    dram = link * float(machine.dram.access_pj_per_bit)
    transfer = link / float(machine.dram.bandwidth_bit_per_ns)
    seen_w, seen_i = (float(x) for x in array_bits(machine.mechanisms, d, *widths))
    path = float(critical_path(s, float(d.width_bits), np.asarray(max(seen_w, seen_i))))
    clock = np.asarray(max_clock_ghz(s, volts, path), np.float64)
    clock = np.maximum(clock, float(s.step_ghz)) + _SLACK * float(s.step_ghz) + 1e-4 * float(s.step_ghz)
    at = _effects(workload, machine, volts, widths, density, least["cycles"], read_w, read_i)

    energy, latency = [], []
    for k, mode in enumerate(machine.modes):
        if machine.mechanisms.names and mode.slot_bits < max(seen_w, seen_i):
            continue
        here = Effect(*(x if np.ndim(x) == 0 else x[:, k, :] for x in at))  # [layer, supply]
        busy = (known.macs / float(d.rows * d.cols * mode.lanes))[:, None] * here.executed
        cycles = least["cycles"][:, k, None] * here.cycles + here.extra_cycles
        seen = here.seen(density, "W") * here.seen(density, "I")
        guarded = float(d.guarded_share) + (1.0 - float(d.guarded_share)) * seen
        divisor = float(activity_divisor(d, mode, np.asarray(seen_w), np.asarray(seen_i)))
        lanes = busy * guarded * here.datapath + np.maximum(cycles - busy, 0.0) * float(d.idle_share)
        fetched_w = read_w[:, k, None] * here.read(density, "W")
        extra = here.extra_datapath_pj + read_w[:, k, None] * here.entries(density) * here.entry_datapath_pj
        moved = words_in[:, None] * here.moved(density, "I") + words_out[:, None]
        transit = moved * mode.slot_bits / machine.buffer.word_bits
        words = fetched_w + read_i[:, k, None] * here.read(density, "I") + both_o[:, k, None] + transit
        time = np.maximum(cycles / clock, transfer[:, None])
        once = lanes * float(d.busy_pj) / divisor + float(d.control_pj) * cycles + extra + sums_pj[:, k, None]
        dynamic = once * scale + words * access
        energy.append((dynamic + dram[:, None] + (leak - standby) * time) * sure[:, None])
        latency.append(time)
    excess = _excess_weight_bits(machine, known.stored_words * sure, least["dram_w"] * sure, code_w)
    fixed_dram = excess * float(machine.dram.access_pj_per_bit)
    return _Options(
        np.concatenate(energy, axis=1),
        np.concatenate(latency, axis=1),
        dram * sure,
        standby * period_ns + fixed_dram,
        fixed_dram,
    )


def _effects(
    workload: Workload,
    machine: Machine,
    volts: np.ndarray,
    widths: tuple[np.ndarray, ...],
    density: float,
    cycles: np.ndarray,
    words_w: np.ndarray,
    words_i: np.ndarray,
) -> Effect:
    """What the mechanisms do at each supply, [layer, mode, supply]: at the least widths, which cost least.

    Every effect falls with widths and densities, or the bound would be none; the laws are tested for each mechanism.
    """
    layers = len(workload.layers)
    bits_w, bits_i = (np.full(layers, width) for width in widths)
    dense = np.full(layers, density)
    found = [
        workload_effect(machine, workload, bits_w, bits_i, dense, dense, np.full(layers, v), *given)
        for given in [tuple(jnp.asarray(x, jnp.result_type(float)) for x in (cycles, words_w, words_i))]
        for v in volts
    ]
    if found[0] is None:
        return WITHOUT
    return Effect(*(np.stack([np.asarray(x, np.float64) for x in one], axis=-1) for one in zip(*found, strict=True)))


def _least(table: Tilings, name: str) -> np.ndarray:
    values = np.asarray(getattr(table, name), np.float64)
    valid = table.valid if values.ndim == 2 else table.valid[:, :, None]
    return np.min(np.where(valid > 0, values, np.inf), axis=1)


def _excess_weight_bits(machine: Machine, stored: np.ndarray, fetched: np.ndarray, code: float) -> float:
    """Bits of weights that cross the link at least: the largest buffer holds those that are fetched most often.

    Args:
      stored: weight words of each layer that may stay; fetched: words fetched in one inference where none stays.
    """
    b = machine.buffer
    capacity = float(b.max_bits if b.free else b.size_bits) if float(machine.supply.retention_v) > 0 else 0.0
    excess = 0.0
    times = fetched / np.maximum(stored, 1.0)
    for layer in np.argsort(-times):
        held = min(capacity, float(stored[layer]) * code)
        capacity -= held
        excess += float(times[layer]) * (float(stored[layer]) * code - held)
    return excess


def _dual(options: _Options, period_ns: float) -> tuple[float, float, np.ndarray]:
    """(value of the best bound found, its price [mW], option of each layer there); concave in the price."""
    rows = np.arange(len(options.energy_pj))
    deadline = period_ns * (1.0 + _SLACK)

    def at(price: float) -> tuple[float, float, np.ndarray]:
        cost = options.energy_pj + price * options.latency_ns
        pick = np.argmin(cost, axis=1)
        late = float(options.latency_ns[rows, pick].sum()) - deadline
        return float(cost[rows, pick].sum()) - price * deadline + options.fixed_pj, late, pick

    low, high = 0.0, 1e-3
    if at(0.0)[1] > 0:
        while at(high)[1] > 0 and high < 1e12:
            low, high = high, 4.0 * high
        for _ in range(60):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if at(middle)[1] > 0 else (low, middle)
    else:
        high = 0.0
    price = max((low, high), key=lambda x: at(x)[0])
    value, _, pick = at(price)
    return value, price, pick
