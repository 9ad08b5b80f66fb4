"""Best mode, tiling and supply of every layer for given widths, under one deadline that is a sum over layers."""

import dataclasses
import itertools

import numpy as np

from cooptim.cost.switching import entering
from cooptim.descent.price import Pricer
from cooptim.descent.ring import InfeasibleDeadline, choose_ring
from cooptim.design.design import Design
from cooptim.design.legal import grid_clock_ghz, snap_widths
from cooptim.design.space import DesignSpace
from cooptim.hardware.dvafs import standby_mw
from cooptim.network.stats import Stats


def assign_hardware(
    space: DesignSpace, pricer: Pricer, design: Design, stats: Stats, deadline_ns: float, *, nominal: bool = False,
    lowest_v: np.ndarray | None = None,
) -> Design:  # fmt: skip
    """The legal design with these widths that takes the least energy within the deadline.

    A tiling is chosen per layer and mode by price; then mode and supply together by one multiplier on latency (a
    multiple-choice knapsack), polished by single changes until none helps. Where the machine charges a change of mode
    or supply between layers, each layer's choice is weighed against its neighbours' (`cooptim.descent.ring`).

    Args:
      nominal: keep the widest mode at the nominal supply and choose tilings only (the 16-bit reference).
      lowest_v: no supply below these [layer], but for a tenth of a grid step [V]; None leaves the whole grid.

    Raises InfeasibleDeadline when even the fastest choice misses it.
    """
    design = snap_widths(space, design)
    period_ns = deadline_ns if np.isfinite(deadline_ns) else 0.0
    supplies = _supply_grid(space) if not nominal else np.asarray([float(space.machine.supply.nominal_v)])
    clocks = [_clock_ghz(space, design, v, nominal) for v in supplies]
    modes = range(len(space.machine.modes)) if not nominal else [_widest_mode(space)]
    widest = np.asarray(space.widest_bits(design.weight_bits, design.input_bits))
    slack_v = 0.1 * float(space.machine.supply.step_v)  # a knob comes this near to the end of its range
    options, energy, latency = [], [], []
    for mode in modes:
        legal = space.slot_bits[mode] >= widest - 1e-3
        if not legal.any():
            continue
        rows, fit = _best_rows(space, pricer, design, stats, mode, period_ns)
        batch = [_with(space, design, mode, rows, v, clock) for v, clock in zip(supplies, clocks, strict=True)]
        prices = pricer.many(batch, stats, period_ns)
        for k, v in enumerate(supplies):
            options.append((mode, rows, v))
            usable = legal & fit if lowest_v is None else legal & fit & (v >= lowest_v - slack_v)
            energy.append(np.where(usable, prices.layer_energy_pj[k], np.inf))
            latency.append(np.where(usable, prices.layer_latency_ns[k], np.inf))
    # Without a period no standby is priced, so that none is saved while a layer runs.
    idle_mw = float(standby_mw(space.machine, space.machine.buffer.size_bits)) if period_ns > 0 else 0.0
    e, t = np.asarray(energy), np.asarray(latency)
    e = e - idle_mw * np.where(np.isfinite(t), t, 0.0)
    deadline, names = deadline_ns * (1 + 1e-6), space.workload.names
    if space.machine.switching is None:
        pick = choose(e, t, deadline, names)
    else:
        change_pj, change_ns = _changes(space, design, options)
        pick = choose_ring(e, t, change_pj - idle_mw * change_ns, change_ns, deadline, names)
    mode, rows, volts = _picked(options, pick)
    return _with(space, design, mode, rows, volts, _clock_ghz(space, design, volts, nominal))


def choose(energy: np.ndarray, latency: np.ndarray, deadline_ns: float, names: tuple[str, ...]) -> np.ndarray:
    """Option [layer] of least summed energy whose summed latency meets the deadline.

    Args:
      energy, latency: [option, layer]; infinite where an option is not legal.

    Source: Lagrangian relaxation of the multiple-choice knapsack, then exchange of one and of two layers at a time.
    """
    fastest = np.argmin(latency, axis=0)
    columns = np.arange(latency.shape[1])
    if latency[fastest, columns].sum() > deadline_ns:
        slow = names[int(np.argmax(latency[fastest, columns]))]
        raise InfeasibleDeadline(
            f"deadline {deadline_ns:.0f} ns: the fastest legal design takes {latency[fastest, columns].sum():.0f} ns, "
            f"most of it in {slow}; narrow its widths, raise the supply ceiling or allow more time"
        )

    def at(multiplier: float) -> np.ndarray:
        return np.argmin(energy + multiplier * np.where(np.isfinite(latency), latency, 1e30), axis=0)

    low, high = 0.0, 1.0
    if latency[at(0.0), columns].sum() <= deadline_ns:
        return at(0.0)
    while latency[at(high), columns].sum() > deadline_ns and high < 1e12:
        high *= 4.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if latency[at(middle), columns].sum() > deadline_ns else (low, middle)
    pick = at(high)
    pick = pick if latency[pick, columns].sum() <= deadline_ns else fastest
    return _exchanged(energy, latency, deadline_ns, pick)


def _exchanged(energy: np.ndarray, latency: np.ndarray, deadline_ns: float, pick: np.ndarray) -> np.ndarray:
    """`pick` after changes of one layer, then of two at once, for as long as one saves energy within the deadline."""
    layers = range(energy.shape[1])
    least = 1e-9 * abs(energy[pick, layers].sum())
    pick = pick.copy()
    improved = True
    while improved:
        improved = False
        slack = deadline_ns - latency[pick, layers].sum()
        gain = energy[pick, layers] - np.where(latency - latency[pick, layers] <= slack, energy, np.inf)
        option, layer = np.unravel_index(int(np.argmax(gain)), gain.shape)
        if gain[option, layer] > least:
            pick[layer], improved = option, True
            continue
        for a, b in itertools.combinations(layers, 2):
            slack = deadline_ns - latency[pick, layers].sum()
            spent = (latency[:, a] - latency[pick[a], a])[:, None] + (latency[:, b] - latency[pick[b], b])[None, :]
            saved = (energy[pick[a], a] - energy[:, a])[:, None] + (energy[pick[b], b] - energy[:, b])[None, :]
            saved = np.where(spent <= slack, saved, -np.inf)
            one, two = np.unravel_index(int(np.argmax(saved)), saved.shape)
            if saved[one, two] > least:
                pick[a], pick[b], improved = one, two, True
    return pick


def _changes(space, design, options):  # type: ignore[no-untyped-def]
    """(energy [pJ], time [ns]) of a change from each option to each other."""
    machine = space.machine
    mode, volts = (np.asarray([option[k] for option in options], np.float64) for k in (0, 2))
    differs = (mode[:, None] != mode[None, :]).astype(np.float64)
    found = entering(machine, machine.switching, differs, volts[:, None], volts[None, :], design.buffer_bits)
    return tuple(np.asarray(x, np.float64) for x in found)


def _best_rows(space, pricer, design, stats, mode, period_ns):  # type: ignore[no-untyped-def]
    """(row [layer] of least energy at the nominal supply, whether any fits) for one mode held by all layers."""
    layers = len(space.workload.layers)
    one_hot = np.zeros((layers, len(space.machine.modes)), np.float32)
    one_hot[:, mode] = 1.0
    demand = np.asarray(space.working_set_bits(one_hot))
    fits = (demand <= float(design.buffer_bits)) & (space.tilings.valid > 0)
    nominal_v = float(space.machine.supply.nominal_v)
    clock = _clock_ghz(space, design, nominal_v, True)
    batch = [_with(space, design, mode, np.full(layers, row), nominal_v, clock) for row in range(space.tilings.rows)]
    prices = pricer.many(batch, stats, period_ns)
    cost = np.where(fits.T, prices.layer_energy_pj, np.inf)
    return np.argmin(cost, axis=0), fits.any(axis=1)


def _with(space, design, mode, rows, supply_v, freq_ghz):  # type: ignore[no-untyped-def]
    layers = len(space.workload.layers)
    modes = np.zeros((layers, len(space.machine.modes)), np.float32)
    modes[np.arange(layers), mode] = 1.0
    tiling = np.zeros((layers, space.tilings.rows), np.float32)
    tiling[np.arange(layers), rows] = 1.0
    dtype = np.asarray(design.supply_v).dtype
    volts = np.broadcast_to(np.asarray(supply_v, dtype), (layers,))
    return dataclasses.replace(
        design, mode=modes.astype(dtype), tiling=tiling.astype(dtype), supply_v=volts, freq_ghz=freq_ghz
    )


def _clock_ghz(space, design, supply_v, at_most_nominal):  # type: ignore[no-untyped-def]
    """Clock [layer] at these supplies and the design's widths, which is all that it depends on."""
    dtype = np.asarray(design.supply_v).dtype
    volts = np.broadcast_to(np.asarray(supply_v, dtype), (len(space.workload.layers),))
    clock = np.asarray(grid_clock_ghz(space, design, volts), dtype)
    return np.minimum(clock, np.asarray(space.machine.supply.nominal_ghz, dtype)) if at_most_nominal else clock


def _picked(options, pick):  # type: ignore[no-untyped-def]
    """(mode, row, supply) of each layer."""
    mode = np.asarray([options[p][0] for p in pick])
    rows = np.asarray([options[p][1][layer] for layer, p in enumerate(pick)])
    return mode, rows, np.asarray([options[p][2] for p in pick])


def _supply_grid(space: DesignSpace) -> np.ndarray:
    s = space.machine.supply
    count = int(np.floor((float(s.ceiling_v) - float(s.floor_v)) / float(s.step_v) + 1e-4)) + 1
    return float(s.floor_v) + float(s.step_v) * np.arange(count)


def _widest_mode(space: DesignSpace) -> int:
    return int(np.argmax(space.slot_bits))
