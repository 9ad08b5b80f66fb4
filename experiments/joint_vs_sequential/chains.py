"""The ways to a legal design that are compared: everything at once, or one kind of choice after the other."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cooptim.cost.bit_operations import bit_operations, bit_operations_price
from cooptim.descent.budget import BOUND_SHARE
from cooptim.descent.descend import best_hardware, descend, landed
from cooptim.descent.finalize import Limits, price
from cooptim.descent.loop import Stage, run_stage
from cooptim.descent.references import reference_16b
from cooptim.descent.result import Priced
from cooptim.descent.run import best_uniform
from cooptim.descent.step import TrainState, init_state, make_step
from cooptim.descent.task import Task, calibrated_knobs, decode
from cooptim.design.knobs import Phase, free_phase, frozen_phase, knob_names
from cooptim.design.operands import MIN_BITS
from cooptim.workload.graph import facts

PROXY = ("widths on bit operations", "pruning on bit operations")
ORDERS: dict[str, tuple[str, ...]] = {"WP": ("widths", "pruning"), "PW": ("pruning", "widths")}
_RANGES = ("weight_log2_range", "input_log2_range")


@dataclasses.dataclass(frozen=True)
class Cell:
    """One seed, deadline and buffer, with its float parent."""

    task: Task
    params: Any
    state: Any
    deadline_ns: float
    bound_pj: float
    val_accuracy: float  # least acceptable
    attempts: int

    @property
    def reference_ns(self) -> float:
        """Latency of the 16-bit reference."""
        return float(self.reference().report.total_latency_ns)

    def reference(self) -> Priced:
        """The 16-bit reference on this chip."""
        return reference_16b(self.task, self.params, self.state)[0]

    def limits(self, energy_pj: float | None) -> Limits:
        """What a design of this cell must keep."""
        return Limits(energy_pj, self.deadline_ns, None, self.val_accuracy)


def uniform(cell: Cell) -> Priced:
    """The cheapest width for all that keeps the accuracy."""
    return best_uniform(cell.task, cell.params, cell.state, cell.limits(None), None, None)[0]


def joint(cell: Cell, top_pj: float, *, bits: int | None = None) -> Priced:
    """Everything in one descent; with `bits` widths are held."""

    def towards(energy_pj: float, attempt: int) -> Priced:
        limits = cell.limits(energy_pj)
        return descend(cell.task, cell.params, cell.state, limits, f"joint{attempt}", bits, None, None).final

    return least(cell, cell.bound_pj / BOUND_SHARE, top_pj, towards, _energy_pj)


def sequential(cell: Cell, top_pj: float, order: tuple[str, ...]) -> Priced:
    """One kind of choice after the other, each as cheap as the accuracy allows, from where the last one ended.

    All of them together take as many training steps as one joint descent, and as many tries.
    """
    plan = cell.task.plan
    steps = dataclasses.replace(plan, steps=plan.steps // len(order))
    cell = dataclasses.replace(cell, task=dataclasses.replace(cell.task, plan=steps))
    found: Priced | None = None
    for kind in order:
        if kind.endswith("on bit operations"):
            proxy = _proxy_task(cell.task)
            low, high = _operations_range(cell, found)
            measure = functools.partial(_operations, cell.task)
        else:
            proxy, low, measure = cell.task, cell.bound_pj / BOUND_SHARE, _energy_pj
            high = top_pj if found is not None else max(top_pj, _first_pj(cell))
        begin = found

        def towards(target: float, attempt: int, kind: str = kind, begin: Any = begin, task: Task = proxy) -> Priced:
            return one_kind(cell, task, begin, kind, target)

        found = least(cell, low, high, towards, measure)
    assert found is not None
    return found


def least(
    cell: Cell, low: float, top: float, towards: Callable[[float, int], Priced], cost: Callable[[Priced], float]
) -> Priced:
    """The cheapest design that keeps the accuracy within the cell's tries: targets bisected from `low` up to `top`."""
    target = floor = low
    best: Priced | None = None
    for attempt in range(cell.attempts):
        one: Priced | None
        try:
            one = towards(target, attempt)
        except FloatingPointError:  # so tight a target that the training ran away: missed like any other
            one = None
        keeps = one is not None and one.val_accuracy >= cell.val_accuracy
        if one is None:
            pass
        elif best is None or (keeps, -cost(one) if keeps else one.val_accuracy) > (
            best.val_accuracy >= cell.val_accuracy,
            -cost(best) if keeps else best.val_accuracy,
        ):
            best = one
        if keeps and target <= floor * 1.03:
            break
        floor, top = (floor, target) if keeps else (target, top)
        target = math.sqrt(floor * max(top, floor))
    if best is None:
        raise FloatingPointError(f"none of {cell.attempts} targets from {low:.4g} on could be trained towards")
    return best


def one_kind(cell: Cell, task: Task, begin: Priced | None, kind: str, target: float) -> Priced:
    """The legal design after one kind of choice was trained towards a cost, modes, tilings and supplies the best."""
    plan, widths = task.plan, kind.startswith("widths")
    start, phase = _start(cell, task, begin, widths)
    held = ("log2_threshold",) if widths else _RANGES
    on_energy = task is cell.task
    target_log = np.zeros(3)
    target_log[0] = math.log(target) + (math.log1p(-plan.margin) if on_energy else 0.0)
    now = np.log([_cost_now(cell, task, start, phase, on_energy), 1.0, 1.0])
    active = np.asarray([1.0, 0.0, 0.0])
    if on_energy:
        active[1], target_log[1] = 1.0, math.log(cell.deadline_ns)
        now[1] = target_log[1]
    stage = Stage(
        kind.replace(" ", "-"), plan.steps, plan.descent_weight_rate,
        tuple(name for name in knob_names(start.knobs) if name not in held), phase,
        log_start=np.maximum(now, target_log), log_target=target_log, active=active, freeze=widths,
        period_ns=cell.deadline_ns, refit=lambda state, phase: best_hardware(task, state, phase, cell.deadline_ns),
    )  # fmt: skip
    end, phase, history = run_stage(task, stage, start, None, None)
    limits = cell.limits(target if on_energy else None)
    polished = None if widths and on_energy else 8  # a chain that never saw energy has no moves by energy either
    return landed(cell.task, end, phase, history, limits, stage.name, polished, None, None).final


def _start(cell: Cell, task: Task, begin: Priced | None, widths: bool) -> tuple[TrainState, Phase]:
    layers = task.layers
    if begin is None:
        knobs = calibrated_knobs(task, cell.params, cell.state, task.plan.start_bits)
        params, state = cell.params, cell.state
    else:
        knobs, params, state = task.space.encode(jax.tree.map(jnp.asarray, begin.design)), begin.params, begin.state
    if widths:
        phase = free_phase(layers)
        phase = dataclasses.replace(phase, prune=jnp.zeros(())) if begin is None else phase
    else:
        eight = jnp.full(layers, task.plan.start_bits)
        held = (eight, eight) if begin is None else (begin.design.weight_bits, begin.design.input_bits)
        phase = frozen_phase(*held)
        knobs = dataclasses.replace(knobs, log2_threshold=knobs.weight_log2_step - 1.0)
    copied = jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), (params, state))
    start = init_state(*copied, knobs, task.seed)
    return dataclasses.replace(start, knobs=best_hardware(cell.task, start, phase, cell.deadline_ns)), phase


def _first_pj(cell: Cell) -> float:
    """Energy of the network at the widths that a descent starts from."""
    start, phase = _start(cell, cell.task, None, widths=True)
    return _cost_now(cell, cell.task, start, phase, on_energy=True)


def _cost_now(cell: Cell, task: Task, start: TrainState, phase: Phase, on_energy: bool) -> float:
    design = decode(task, start.knobs, phase)
    report, stats = price(cell.task, start.params, start.state, design, cell.deadline_ns)
    if on_energy:
        return float(report.total_energy_pj)
    return float(np.sum(bit_operations(task.space.workload, design, stats)))


@functools.lru_cache(maxsize=2)
def _proxy_task(task: Task) -> Task:
    return dataclasses.replace(task, step=make_step(task.network, task.space, price=bit_operations_price))


def _operations(task: Task, one: Priced) -> float:
    return float(np.sum(bit_operations(task.space.workload, one.design, one.stats)))


def _operations_range(cell: Cell, found: Priced | None) -> tuple[float, float]:
    """From the fewest bit operations worth asking for to those at hand."""
    macs = float(np.sum(facts(cell.task.space.workload).macs))
    if found is None:
        return macs * MIN_BITS**2 * 1.2, macs * 16.0
    now = _operations(cell.task, found)
    return 0.1 * now, now


def _energy_pj(one: Priced) -> float:
    return float(one.report.total_energy_pj)


def without(machine: Any, held: str) -> Any:
    """The chip with one freedom less: no subwords, or supplies within a step of the nominal one."""
    if held == "modes":
        one = tuple(mode for mode in machine.modes if mode.lanes == 1)
        return dataclasses.replace(machine, datapath=dataclasses.replace(machine.datapath, modes=one))
    supply = machine.supply
    return dataclasses.replace(machine, supply=dataclasses.replace(supply, floor_v=supply.nominal_v - supply.step_v))


def unpruned(cell: Cell, top_pj: float) -> Priced:
    """The joint descent with nothing pruned beyond what rounds to zero."""

    def towards(energy_pj: float, attempt: int) -> Priced:
        del attempt
        return one_kind(cell, cell.task, None, "widths", energy_pj)

    return least(cell, cell.bound_pj / BOUND_SHARE, top_pj, towards, _energy_pj)
