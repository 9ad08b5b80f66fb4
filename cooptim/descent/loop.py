"""The training loop of one stage: schedule in, state and history out, checkpoints on the way."""

import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from cooptim.descent.checkpoint import Checkpoints
from cooptim.descent.constraint import Budgets, travelling
from cooptim.descent.plan import Plan
from cooptim.descent.step import Control, TrainState
from cooptim.descent.task import Task, with_teacher
from cooptim.descent.teacher import TeacherLogits
from cooptim.design.knobs import Knobs, Phase, float_phase, knob_names
from cooptim.design.operands import held_ranges

HISTORY = ("step", "loss", "accuracy", "log_energy", "log_latency", "multiplier_energy", "weight_bits", "density")
EVERY = 10  # steps between two rows of the history

Progress = Any  # an object with stage(name, total), step(metrics), done(); see cooptim.reporting.progress


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stage of a run.

    Attributes:
      name: of its checkpoints. steps: length.
      weight_rate: Adam's rate at the start (cosine to 5 %).
      moving: names of the knob leaves that learn.
      log_start, log_target: log cost at the start and the target, axis CONSTRAINTS; None without budgets.
      active: which budgets count.
      phase: the switches; with `freeze` the widths of the moment are frozen after `plan.freeze_share`.
      order: which order of the batches, so that rounds differ.
      taught: whether the teacher's outputs count, where the plan asks for them.
      width_rate: of steps and ranges while widths are learned, over the plan's.
      hold: whether a weight that is just zero, as pruned ones are in hardened parameters, stays zero.
      refit: what the knobs become at that moment: the hardware fitted to widths that no longer move.
    """

    name: str
    steps: int
    weight_rate: float
    moving: tuple[str, ...]
    phase: Phase
    log_start: np.ndarray | None = None
    log_target: np.ndarray | None = None
    active: np.ndarray | None = None
    freeze: bool = False
    travel: bool = True
    anneal: bool = True
    period_ns: float = 0.0
    order: int = 0
    taught: bool = True
    width_rate: float = 1.0
    hold: bool = False
    refit: Callable[[TrainState, Phase], Knobs] | None = None


class Part(NamedTuple):
    """Some steps of a stage: where it stands and what it has seen."""

    first: int
    end: int
    phase: Phase
    history: dict[str, np.ndarray]


_STEPS = ("log2_step", "log2_scale")
_WIDTHS = ("log2_step", "log2_range")
_CHANNELS = "weight_log2_scale"  # stands while widths are learned: with both free, factors run off and channels die


def control_at(plan: Plan, stage: Stage, knobs: Knobs, step: int, phase: Phase) -> Control:
    """The schedule's values at one step."""
    progress = step / max(stage.steps, 1)
    cosine = 0.05 + 0.95 * 0.5 * (1.0 + math.cos(math.pi * progress))
    late = 1.0 if progress < plan.freeze_share else max(0.1, (1.0 - progress) / (1.0 - plan.freeze_share))
    span = math.log(plan.end_temperature / plan.start_temperature)
    warm = min(1.0, progress / plan.freeze_share) if stage.anneal else 1.0
    log_cost: Any = np.zeros(3)
    active: Any = np.zeros(3)
    if stage.log_target is not None and stage.log_start is not None and stage.active is not None:
        way = progress / plan.budget_share if stage.travel else 1.0
        log_cost = np.asarray([travelling(a, b, way) for a, b in zip(stage.log_start, stage.log_target, strict=True)])
        active = stage.active
    rates = {name: 0.0 for name in knob_names(knobs)}
    frozen = float(phase.frozen) > 0.5
    for name in stage.moving:
        if name in rates and not (name == _CHANNELS and stage.freeze and not frozen):
            share = plan.frozen_rate_share if frozen and name.endswith(_STEPS) else 1.0
            share *= stage.width_rate if not frozen and name.endswith(_WIDTHS) else 1.0
            rates[name] = late * getattr(plan.knob_rates, name) * share
    f: Any = np.float32  # numpy scalars travel to a program faster than arrays made one by one
    return Control(
        phase=phase,
        temperature=f(plan.start_temperature * math.exp(span * warm)),
        weight_rate=f(stage.weight_rate * cosine),
        knob_rates=Knobs(**{name: _each(getattr(knobs, name), f(rates[name])) for name in rates}),
        budgets=Budgets(log_cost.astype(f), active.astype(f)),
        dual_rate=f(plan.dual_rate),
        penalty=f(plan.penalty),
        period_ns=f(stage.period_ns),
        distill_weight=f(plan.distill_weight if stage.taught else 0.0),
        hold=f(stage.hold),
    )


def _each(leaf: Any, rate: Any) -> Any:
    """The rate, once for each array of a knob that has one a layer."""
    return tuple(rate for _ in leaf) if isinstance(leaf, tuple) else rate


def run_stage(
    task: Task, stage: Stage, state: TrainState, checkpoints: Checkpoints | None, progress: Progress | None,
    part: Part | None = None,
) -> tuple[TrainState, Phase, dict[str, np.ndarray]]:  # fmt: skip
    """Runs a stage to its end, or on from its last checkpoint; returns state, phase at the end and history.

    Args:
      part: the steps of it that are run, without checkpoints; None runs all.
    """
    plan, data = task.plan, task.data
    history = empty_history(stage) if part is None else part.history
    phase, first, end = (stage.phase, 0, stage.steps) if part is None else (part.phase, part.first, part.end)
    if checkpoints is not None and checkpoints.latest(stage.name) is not None:
        first, saved = checkpoints.restore(stage.name, {"state": state, "phase": phase, "history": history})
        state, phase, history = saved["state"], saved["phase"], dict(saved["history"])
    if progress is not None and (part is None or first == 0):
        progress.stage(stage.name, stage.steps)
    saved_at, seen, teacher = time.monotonic(), None, _teacher(task, stage)
    for step in range(first, end):
        if stage.freeze and step == freeze_step(plan, stage):
            state, phase = frozen_widths(task, stage, state, phase)
        control = control_at(plan, stage, state.knobs, step, phase)
        place = (task.seed + 1000 * stage.order, step, plan.batch)
        lesson = () if teacher is None else (teacher.lesson(*place),)
        state, seen = task.step(state, control, *data.batch(*place), *lesson)
        if step % EVERY == 0:
            record(history, step, seen)
            if progress is not None:
                progress.step(step + 1, loss=float(seen.loss), energy_pj=math.exp(float(seen.log_cost[0])))
            if not math.isfinite(history["loss"][step // EVERY]):
                raise FloatingPointError(f"stage {stage.name}: the loss is not a number {_remedy(stage, step)}")
        if checkpoints is not None and time.monotonic() - saved_at > plan.save_seconds:
            checkpoints.save(stage.name, step + 1, {"state": state, "phase": phase, "history": history})
            saved_at = time.monotonic()
    if checkpoints is not None and first < stage.steps:
        checkpoints.save(stage.name, stage.steps, {"state": state, "phase": phase, "history": history})
    return state, phase, history


def empty_history(stage: Stage) -> dict[str, np.ndarray]:
    """A history without any row written."""
    return {name: np.full(stage.steps // EVERY + 1, np.nan, np.float32) for name in HISTORY}


def freeze_step(plan: Plan, stage: Stage) -> int:
    """The step before which a stage that freezes its widths does so."""
    return math.ceil(plan.freeze_share * stage.steps)


def frozen_widths(task: Task, stage: Stage, state: TrainState, phase: Phase) -> tuple[TrainState, Phase]:
    """State and phase once the widths of the moment are held, the hardware fitted to them."""
    design = task.decode(state.knobs, task.plan.end_temperature, phase)
    phase = dataclasses.replace(
        phase, frozen=jnp.ones(()), weight_bits=jnp.round(design.weight_bits), input_bits=jnp.round(design.input_bits)
    )
    knobs = held_ranges(state.knobs, phase, task.space.input_signed, task.space.methods)
    state = dataclasses.replace(state, knobs=knobs)
    if stage.refit is not None:
        state = dataclasses.replace(state, knobs=stage.refit(state, phase))
    return state, phase


def record(history: dict[str, np.ndarray], step: int, seen: Any) -> None:
    """Writes what a step saw into its row of the history."""
    row = step // EVERY
    values = (
        step, seen.loss, seen.accuracy, seen.log_cost[0], seen.log_cost[1], seen.multipliers[0],
        np.mean(np.asarray(seen.weight_bits)), np.mean(np.asarray(seen.weight_density)),
    )  # fmt: skip
    for name, value in zip(HISTORY, values, strict=True):
        history[name][row] = float(value)


def _remedy(stage: Stage, step: int) -> str:
    if step == 0:
        return (
            "at its first step, before the stage has moved a weight; look for weights or inputs that are none, and for "
            "divisions, roots and logarithms of 0 in the network"
        )
    return f"after step {step}; lower the learning rates of the plan (weights {stage.weight_rate:g})"


def _teacher(task: Task, stage: Stage) -> TeacherLogits | None:
    """Whose lessons the steps of a stage take.

    A stage that is not taught takes those of the untrained network, at weight 0: then one program serves all.
    """
    if task.plan.distill_weight == 0.0:
        return None
    if not stage.taught:
        return with_teacher(task, task.network.params, task.network.state).teacher
    if task.teacher is None:
        raise ValueError(
            f"stage {stage.name}: the plan's distill_weight is {task.plan.distill_weight:g} and nobody teaches; give "
            "the task the float parent with `with_teacher`"
        )
    return task.teacher


def float_stage(task: Task) -> Stage:
    """The float parent: nothing quantized, no budget, no teacher."""
    return Stage("float", task.plan.float_steps, task.plan.weight_rate, (), float_phase(task.layers), taught=False)
