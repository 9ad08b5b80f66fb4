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
from cooptim.cost.bound import energy_bound_pj
from cooptim.descent.assign import assign_hardware
from cooptim.descent.descend import Ending, best_hardware, descend, landed
from cooptim.descent.finalize import Limits, price
from cooptim.descent.lean import leaner
from cooptim.descent.live import live_descent
from cooptim.descent.loop import Stage, run_stage
from cooptim.descent.moves import HARDWARE
from cooptim.descent.polish import polished
from cooptim.descent.references import reference_16b
from cooptim.descent.result import Priced
from cooptim.descent.run import best_uniform
from cooptim.descent.step import TrainState, init_state, make_step
from cooptim.descent.task import Task, calibrated_knobs, decode
from cooptim.design.knobs import Phase, free_phase, frozen_phase, knob_names
from cooptim.design.legal import snap
from cooptim.design.operands import MIN_BITS
from cooptim.workload.graph import facts

PROXY = ("widths on bit operations", "pruning on bit operations")
ORDERS: dict[str, tuple[str, str]] = {"WP": ("widths", "pruning"), "PW": ("pruning", "widths")}
FIRST_SPAN = 4.0  # a first step alone is tried down to this much below where it starts
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
    def own_bound_pj(self) -> float:
        """Least energy of any legal design of this cell's network; `bound_pj` is that of the network as given."""
        task = self.task
        return energy_bound_pj(task.space.workload, task.machine, self.deadline_ns, tilings=task.space.tilings).bound_pj

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


Made = tuple[Cell, Priced]  # a design and its cell, whose network may have lost channels


def uniform(cell: Cell) -> Priced:
    """The cheapest width for all that keeps the accuracy."""
    return best_uniform(cell.task, cell.params, cell.state, cell.limits(None), None, None)[0]


def joint(cell: Cell, energy_pj: float, *, bits: int | None = None, start_bits: float | None = None) -> Priced:
    """Everything in one descent towards an energy; widths are held at `bits`, or start from `start_bits`."""
    limits = cell.limits(energy_pj)
    return descend(
        cell.task, cell.params, cell.state, limits, "joint", bits, None, None, start_bits=start_bits
    ).final  # fmt: skip


def leaned(
    cell: Cell, energy_pj: float, rounds: int, near: float, *, bits: int | None = None, start_bits: float | None = None
) -> tuple[Cell, Priced]:
    """(its cell, the design) of so many joint descents that price live channels alone; 0 is one that lets none leave.

    No descent is asked for less than `near` times the bound of the network that it starts from: below, weights die
    faster than the rest can learn. Of the designs within the energy the most accurate is taken, and the cheapest where
    none is.
    """
    if rounds == 0:
        return cell, joint(cell, energy_pj, bits=bits, start_bits=start_bits)
    found: list[tuple[Cell, Priced]] = []
    design = None
    for _ in range(rounds):
        limits = cell.limits(max(energy_pj, near * cell.own_bound_pj))
        at = live_descent(
            cell.task, cell.params, cell.state, limits, "joint", bits, start_bits=start_bits, design=design,
            ending=Ending.ACCURATE,
        )  # fmt: skip
        one = at.descent.final
        cell = dataclasses.replace(cell, task=at.task, params=one.params, state=one.state)
        found.append((cell, one))
        small = leaner(cell.task, one, cell.deadline_ns)  # fine-tuning may have killed more
        if small is not None:
            cell = dataclasses.replace(cell, task=small.task, params=small.same.params, state=small.same.state)
            found.append((cell, small.same))
        design = found[-1][1].design
    within = [(at, one) for at, one in found if _energy_pj(one) <= energy_pj * (1 + 1e-6)]
    if within:
        return max(within, key=lambda pair: (pair[1].val_accuracy, -pair[1].val_loss))
    return min(found, key=lambda pair: _energy_pj(pair[1]))


def narrowest_pj(cell: Cell, one: Priced) -> float:
    """Energy of a design if every width were 2 b and the zeros stayed where they are, on the hardware that suits it.

    What the widths of a design can still save, whoever chooses them.
    """
    task = cell.task
    two = jnp.full(task.layers, MIN_BITS)
    design = dataclasses.replace(one.design, weight_bits=two, input_bits=two)
    legal = snap(task.space, assign_hardware(task.space, task.pricer, design, one.stats, cell.deadline_ns))
    best = polished(task.space, task.pricer, legal, one.stats, cell.deadline_ns, HARDWARE)
    return min(float(task.pricer.report(at, one.stats, cell.deadline_ns).total_energy_pj) for at in (best, design))


def first_step(cell: Cell, kind: str, top_pj: float, live: bool) -> Made:
    """One kind of choice made alone from the float parent, as cheap as the accuracy allows; half a descent a try.

    Args:
      top_pj: of the best uniform width. live: as in `one_kind`.
    """
    cell = _half(cell)
    if kind.endswith("on bit operations"):
        low, high = _operations_range(cell)
        measure = functools.partial(operations, cell.task)
    else:
        high, measure = (top_pj if kind == "widths" else _first_pj(cell)), _energy_pj
        low = high / FIRST_SPAN
    return least(cell, low, high, lambda target: one_kind(cell, None, kind, target, live), measure)


def last_step(begin: Made, kind: str, target: float, live: bool) -> Made:
    """The other kind of choice, trained towards a cost from where the first one ended; half a descent."""
    return one_kind(begin[0], begin[1], kind, target, live, Ending.ACCURATE if live else None)


def _half(cell: Cell) -> Cell:
    """Two steps of a chain take as many training steps as one joint descent."""
    plan = dataclasses.replace(cell.task.plan, steps=cell.task.plan.steps // 2)
    return dataclasses.replace(cell, task=dataclasses.replace(cell.task, plan=plan))


def _task_of(cell: Cell, kind: str) -> Task:
    return _proxy_task(cell.task) if kind.endswith("on bit operations") else cell.task


def least(
    cell: Cell, low: float, top: float, towards: Callable[[float], Made], cost: Callable[[Priced], float]
) -> Made:
    """The cheapest design that keeps the accuracy within the cell's tries: targets bisected from `low` up to `top`.

    The most accurate where none keeps it.
    """
    target = floor = low
    found: list[Made] = []
    for _ in range(cell.attempts):
        try:
            found.append(towards(target))
            keeps = found[-1][1].val_accuracy >= cell.val_accuracy
        except FloatingPointError:  # so tight a target that the training ran away: missed like any other
            keeps = False
        if keeps and target <= floor * 1.03:
            break
        floor, top = (floor, target) if keeps else (target, top)
        target = math.sqrt(floor * max(top, floor))
    if not found:
        raise FloatingPointError(f"none of {cell.attempts} targets from {low:.4g} on could be trained towards")
    keeping = [made for made in found if made[1].val_accuracy >= cell.val_accuracy]
    if keeping:
        return min(keeping, key=lambda made: cost(made[1]))
    return max(found, key=lambda made: made[1].val_accuracy)


def one_kind(
    cell: Cell, begin: Priced | None, kind: str, target: float, live: bool, ending: Ending | None = None
) -> Made:
    """The legal design after one kind of choice was trained towards a cost, modes, tilings and supplies the best.

    Args:
      live: whether pruning on energy prices live channels alone, and takes dead ones out, as joint descents do.
      ending: None takes single moves where widths were trained on energy: a chain that never saw it has none by it.
    """
    task, widths = _task_of(cell, kind), kind.startswith("widths")
    if live and kind == "pruning":
        return pruned_live(cell, begin, target)
    plan = task.plan
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
    ending = ending or (Ending.MOVES if widths and on_energy else Ending.HELD)
    return cell, landed(cell.task, end, phase, history, limits, stage.name, ending, None, None).final


def pruned_live(cell: Cell, begin: Priced | None, energy_pj: float) -> Made:
    """Pruning alone with live channels priced: at the widths of `begin`, or at those that a descent starts from."""
    limits, eight = cell.limits(energy_pj), int(cell.task.plan.start_bits)
    if begin is None:
        at = live_descent(cell.task, cell.params, cell.state, limits, "pruning", eight, ending=Ending.ACCURATE)
    else:
        at = live_descent(
            cell.task, begin.params, begin.state, limits, "pruning", None, design=begin.design, held=True,
            ending=Ending.ACCURATE,
        )  # fmt: skip
    one = at.descent.final
    return dataclasses.replace(cell, task=at.task, params=one.params, state=one.state), one


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


def operations(task: Task, one: Priced) -> float:
    """Bit operations of a design, zero weights not counted."""
    return float(np.sum(bit_operations(task.space.workload, one.design, one.stats)))


def _operations_range(cell: Cell) -> tuple[float, float]:
    """From the fewest bit operations worth asking of widths alone, to 4 bits everywhere."""
    macs = float(np.sum(facts(cell.task.space.workload).macs))
    return macs * MIN_BITS**2 * 1.2, macs * 16.0


def _energy_pj(one: Priced) -> float:
    return float(one.report.total_energy_pj)


def without(machine: Any, held: str) -> Any:
    """The chip with one freedom less: no subwords, or supplies within a step of the nominal one."""
    if held == "modes":
        one = tuple(mode for mode in machine.modes if mode.lanes == 1)
        return dataclasses.replace(machine, datapath=dataclasses.replace(machine.datapath, modes=one))
    supply = machine.supply
    return dataclasses.replace(machine, supply=dataclasses.replace(supply, floor_v=supply.nominal_v - supply.step_v))


def unpruned(cell: Cell, energy_pj: float, live: bool) -> Priced:
    """The joint descent with nothing pruned beyond what rounds to zero; it ends as live ones do where these are."""
    return one_kind(cell, None, "widths", energy_pj, live, Ending.ACCURATE if live else None)[1]
