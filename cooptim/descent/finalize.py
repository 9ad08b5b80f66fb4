"""From the end of a descent to a legal design within its budgets: snap, repair both ways, certify."""

import dataclasses
import functools
import heapq
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cooptim.cost.report import CostReport
from cooptim.descent.assign import assign_hardware
from cooptim.descent.foresee import foreseen
from cooptim.descent.moves import HARDWARE, Move, hardware_moves, legal_moves, mode_moves, width_moves
from cooptim.descent.polish import polished
from cooptim.descent.raising import raised_thresholds
from cooptim.descent.task import Task, rates, settled
from cooptim.design.design import Design
from cooptim.design.legal import IllegalDesign, snap, violations
from cooptim.network.stats import Stats

LOSS_LEEWAY = 0.1  # a single move may cost this much validation loss [nat] and still count as free
_SAVING = 0.02  # a move that saves less than this share of the energy is not worth a change
_BAND = 0.02  # repair ends with the energy in [budget * (1 - band), budget]
_BISECTIONS = 14
_LOOKS = 3  # at zero rates of inputs, before spending measures every step of its way
_UNSEEN = 0.02  # of the energy: so much more than foreseen at the inputs' old zero rates is a move given credit for
_ROUNDS = 5
_REFITS = 3
_FEWEST = 8.0  # one weight in so many is the least share that a layer is left with at once
_SINGLE_LAYERS = 4  # tried one by one when spending on all layers misses the accuracy


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a legal design must keep; None is free."""

    energy_pj: float | None
    latency_ns: float
    area_mm2: float | None
    val_accuracy: float  # least acceptable


def finalize(task: Task, relaxed: Design, params: Any, state: Any, deadline_ns: float) -> Design:
    """The legal design at these widths and thresholds: best modes, tilings, supplies within the deadline.

    They are chosen layer by layer, then polished for the whole network, for layers share the buffer; from the hardware
    that `relaxed` came with where that is cheaper already.

    Where errors are injected a supply is no free choice of the hardware: each stays at least what it is in `relaxed`,
    rounded up to the grid, and is higher just where the deadline or a cheaper mode asks for it.

    Idempotent at fixed parameters and statistics images: finalizing its own result gives the same design.
    """
    space = task.space
    stats = rates(task, params, state, relaxed)
    sized = dataclasses.replace(relaxed, buffer_bits=_built_size(task, relaxed))
    lowest_v = None if task.faults is None else np.asarray(relaxed.supply_v)
    legal = snap(space, assign_hardware(space, task.pricer, sized, stats, deadline_ns, lowest_v=lowest_v))
    broken = violations(space, legal)
    if broken:
        raise IllegalDesign("; ".join(broken))
    start = _cheaper_of(task, legal, snap(space, sized), stats, deadline_ns)
    kinds = HARDWARE if task.faults is None else tuple(kind for kind in HARDWARE if kind != "supply")
    return polished(space, task.pricer, start, stats, deadline_ns, kinds)


def _cheaper_of(task: Task, legal: Design, other: Design, stats: Stats, deadline_ns: float) -> Design:
    """`legal`, or the other design where that is legal too, in time and takes no more."""
    if violations(task.space, other):
        return legal
    prices = task.pricer.many([legal, other], stats, deadline_ns if np.isfinite(deadline_ns) else 0.0)
    in_time = prices.latency_ns[1] <= deadline_ns * (1 + 1e-6)
    return other if in_time and prices.energy_pj[1] <= prices.energy_pj[0] else legal


def _built_size(task: Task, design: Design) -> jax.Array:
    from cooptim.design.legal import snap_buffer

    return snap_buffer(task.space, design).buffer_bits


def price(task: Task, params: Any, state: Any, design: Design, period_ns: float) -> tuple[CostReport, Stats]:
    """Report and measured zero rates of a design at these parameters."""
    stats = rates(task, params, state, design)
    return task.pricer.report(design, stats, period_ns), stats


def spend(
    task: Task, params: Any, state: Any, design: Design, limits: Limits, layer: int | None = None
) -> Design:  # fmt: skip
    """Pruning thresholds, of all layers together or of one, moved until the energy budget binds from below.

    Scales them down while there is slack (the nearest pruned weights return first) and raises them while the budget is
    broken, so that each layer keeps the same share of its weights (`raising`). The design comes back as it is without
    an energy budget, and where one weight in eight is still too many: then inputs and widths take the energy, and a
    dead network above the budget is no better than a live one.
    """
    if limits.energy_pj is None:
        return design
    budget_pj, period = limits.energy_pj, limits.latency_ns
    raised = functools.cache(lambda: raised_thresholds(task.network, params, design))

    def moved(scale: float) -> Design:
        """Up to 1 thresholds scaled by so much, beyond it 1/scale of each layer's weights kept."""
        found = np.asarray(design.threshold) * scale if scale <= 1.0 else raised()(1.0 / scale)
        if layer is not None:
            found = np.where(np.arange(task.layers) == layer, found, np.asarray(design.threshold))
        return dataclasses.replace(design, threshold=jnp.asarray(found, jnp.asarray(design.threshold).dtype))

    def costs_of(report: Callable[[Design], CostReport]) -> Callable[[float], float]:
        return lambda scale: float(report(moved(scale)).total_energy_pj)

    nearby = design
    _, stats = price(task, params, state, nearby, period)
    for _ in range(_LOOKS):
        scale = _binding(costs_of(foreseen(task, params, state, nearby, stats, period)), budget_pj)
        if scale is None:
            break
        nearby = moved(scale)
        report, stats = price(task, params, state, nearby, period)
        cost = float(report.total_energy_pj)
        if cost <= budget_pj and (scale == 0.0 or cost >= budget_pj * (1.0 - _BAND)):
            return nearby
    scale = _binding(costs_of(lambda design: price(task, params, state, design, period)[0]), budget_pj)
    return design if scale is None else moved(scale)


def _binding(energy_pj: Callable[[float], float], budget_pj: float) -> float | None:
    """The scale at which an energy that falls with it is within the budget and next to it, 0 where all are.

    None where it is above the budget at `_FEWEST`.
    """
    low, high = 0.0, 1.0
    if energy_pj(1.0) > budget_pj:
        low, high = 1.0, 2.0
        while (cost := energy_pj(high)) > budget_pj and high < _FEWEST:
            low, high = high, high * 2.0
        if cost > budget_pj:
            return None
    elif energy_pj(0.0) <= budget_pj:
        return 0.0
    for _ in range(_BISECTIONS):
        middle = 0.5 * (low + high)
        cost = energy_pj(middle)
        low, high = (middle, high) if cost > budget_pj else (low, middle)
        if budget_pj * (1.0 - _BAND) <= cost <= budget_pj:
            break
    return high


def bind(
    task: Task, params: Any, state: Any, design: Design, limits: Limits, layer: int | None = None
) -> tuple[Design, Any]:  # fmt: skip
    """(design, state) whose energy budget binds with batch statistics up to date: `spend`, settle, and again.

    Pruning shifts the statistics and the statistics shift the zero rates, so each waits for the other.
    """
    aimed = limits.energy_pj
    for _ in range(_ROUNDS):
        before = design
        design = spend(task, params, state, design, dataclasses.replace(limits, energy_pj=aimed), layer)
        state = settled(task, params, state, design)
        if limits.energy_pj is None or aimed is None or (aimed < limits.energy_pj and design is before):
            break  # no budget, or one that no threshold meets: a lower aim is not met either
        cost = float(price(task, params, state, design, limits.latency_ns)[0].total_energy_pj)
        if limits.energy_pj * (1.0 - _BAND) <= cost <= limits.energy_pj:
            break
        aimed *= min(1.0, (1.0 - 0.25 * _BAND) * limits.energy_pj / cost)
    return design, state


def fitted(task: Task, params: Any, state: Any, design: Design, limits: Limits) -> tuple[Design, Any]:
    """(design, state) whose budget binds with the best hardware for what is left: `bind`, `finalize`, and again.

    Weights that leave make room in the buffer, and what that saves brings some of them back.
    """
    design, state = bind(task, params, state, design, limits)
    for _ in range(_REFITS if limits.energy_pj is not None else 0):
        before_pj = float(price(task, params, state, design, limits.latency_ns)[0].total_energy_pj)
        design = finalize(task, design, params, state, limits.latency_ns)
        if float(price(task, params, state, design, limits.latency_ns)[0].total_energy_pj) > before_pj * (1.0 - _BAND):
            break
        design, state = bind(task, params, state, design, limits)
    return design, state


def improve(task: Task, params: Any, state: Any, design: Design, limits: Limits) -> tuple[Design, Any]:
    """Takes single moves while one saves more than 2 % energy within all budgets at <= 0.1 validation loss.

    After each move the energy it freed is spent on weights again. Returns design and state.
    """
    for _ in range(4 * task.layers):
        best = best_move(task, params, state, design, limits, least=_SAVING)[0]
        if best is None:
            break
        moved = finalize(task, best.design, params, state, limits.latency_ns) if best.retrains else best.design
        found = _spent(task, params, state, moved, limits)
        if found is None:
            break
        design, state = found
    return design, state


def _spent(task: Task, params: Any, state: Any, design: Design, limits: Limits) -> tuple[Design, Any] | None:
    """The first way to spend what a move freed that keeps the accuracy: on all layers, a little less, on one layer.

    None when no way does, or none that ends near the budget.
    """
    ways: list[tuple[float, int | None]] = [(1.0, None)]
    if limits.energy_pj is not None:
        alone = _roomiest(task, params, state, design, limits.energy_pj, limits.latency_ns)
        ways += [(1.0 - 0.4 * _BAND, None), *((1.0, layer) for layer in alone)]
    for share, layer in ways:
        energy_pj = None if limits.energy_pj is None else share * limits.energy_pj
        moved, settled_state = bind(
            task, params, state, design, dataclasses.replace(limits, energy_pj=energy_pj), layer
        )  # fmt: skip
        if layer is not None and limits.energy_pj is not None:
            cost = float(price(task, params, settled_state, moved, limits.latency_ns)[0].total_energy_pj)
            if not limits.energy_pj * (1.0 - 1.4 * _BAND) <= cost <= limits.energy_pj:
                continue
        reached = task.measure.accuracy(params, settled_state, moved, task.data.x_val, task.data.y_val)[0]
        if reached >= limits.val_accuracy:
            return moved, settled_state
    return None


def _roomiest(
    task: Task, params: Any, state: Any, design: Design, budget_pj: float, period_ns: float
) -> list[int]:  # fmt: skip
    """The few layers whose pruned weights would take most energy if they all came back, in order.

    Those whose weights cannot take what is to be spent are left out.
    """
    _, stats = price(task, params, state, design, period_ns)
    foresee = foreseen(task, params, state, design, stats, period_ns)
    cut = np.asarray(design.threshold)
    open_to = [
        dataclasses.replace(
            design, threshold=jnp.asarray(np.where(np.arange(task.layers) == layer, 0.0, cut), cut.dtype)
        )
        for layer in range(task.layers)
    ]
    holds = [float(foresee(one).total_energy_pj) for one in open_to]
    able = [layer for layer in range(task.layers) if holds[layer] >= budget_pj * (1.0 - 1.4 * _BAND - _UNSEEN)]
    return sorted(sorted(able, key=lambda layer: -holds[layer])[:_SINGLE_LAYERS])


def best_move(
    task: Task, params: Any, state: Any, design: Design, limits: Limits, least: float = 0.0
) -> tuple[Move | None, float, int]:
    """(the move that saves most, its share of the energy, moves priced) among those that keep every budget.

    Exhaustive over one width +-1, one mode, one tiling and one supply step. A move that changes what the network
    computes is re-measured: its validation loss may rise by 0.1 at most and its accuracy must keep the limit. Where
    errors are injected a step of the supply is such a move. A share of `least` or below is not looked for, and moves
    from which no more is to be expected are not measured; with a `least` of 0, the certificate's, every move is.
    """
    space, data = task.space, task.data
    report, stats = price(task, params, state, design, limits.latency_ns)
    now = float(report.total_energy_pj)
    _, loss = task.measure.accuracy(params, state, design, data.x_val, data.y_val)
    best: tuple[Move | None, float] = (None, least)
    still = hardware_moves(space, design)
    faulty = np.asarray([move.supply and task.faults is not None for move in still], bool)
    prices = task.pricer.many([move.design for move in still], stats, limits.latency_ns)
    ok = (prices.latency_ns <= limits.latency_ns * (1 + 1e-6)) & ~faulty
    saving = np.where(ok, 1.0 - prices.energy_pj / now, -np.inf)
    for i in np.argsort(-saving):  # most of them save nothing: only those that do are checked
        if saving[i] <= least:
            break
        if not violations(space, still[i].design):
            best = (still[i], float(saving[i]))
            break
    changed = width_moves(space, design, -1) + width_moves(space, design, +1) + mode_moves(space, design)
    changed += [move._replace(retrains=True) for move, wrong in zip(still, faulty, strict=True) if wrong]
    changed = legal_moves(space, changed)
    foresee = foreseen(task, params, state, design, stats, limits.latency_ns)
    unseen = _UNSEEN if least > 0.0 else np.inf
    for saved, move in _cheaper(task, params, state, changed, foresee, now, limits, best[1], unseen):
        accuracy, moved_loss = task.measure.accuracy(params, state, move.design, data.x_val, data.y_val)
        if moved_loss <= loss + LOSS_LEEWAY and accuracy >= limits.val_accuracy:
            best = (move, saved)
            break
    count = int(np.sum(~faulty)) + len(changed)
    return best[0], best[1], count


def _cheaper(
    task: Task, params: Any, state: Any, moves: list[Move], foresee: Callable[[Design], CostReport], now_pj: float,
    limits: Limits, least: float, unseen: float,
) -> Iterator[tuple[float, Move]]:  # fmt: skip
    """(share of the energy saved, move) of those that save more than `least` in time, zero rates measured, most first.

    In this order the first whose accuracy holds is the best, and no other's accuracy has to be measured; nor have zero
    rates of moves that are foreseen to save too little even with the credit of `unseen`.
    """
    expected = [1.0 - float(foresee(move.design).total_energy_pj) / now_pj for move in moves]
    found: list[tuple[float, int]] = []
    for i in np.argsort(-np.asarray(expected), kind="stable"):
        while found and -found[0][0] >= expected[i] + unseen:
            saved, k = heapq.heappop(found)
            yield -saved, moves[k]
        if expected[i] + unseen <= least:
            break
        report, _ = price(task, params, state, moves[i].design, limits.latency_ns)
        saved = 1.0 - float(report.total_energy_pj) / now_pj
        if saved > least and float(report.total_latency_ns) <= limits.latency_ns * (1 + 1e-6):
            heapq.heappush(found, (-saved, int(i)))
    while found:
        saved, k = heapq.heappop(found)
        yield -saved, moves[k]
