"""One descent: uniform training, or budgets with learned thresholds, widths and hardware, down to a legal design."""

import dataclasses
import enum
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cooptim.cost.report import CostReport
from cooptim.descent.checkpoint import Checkpoints
from cooptim.descent.exits import best_exits
from cooptim.descent.faults import safe_supply_v
from cooptim.descent.finalize import Limits, finalize, fitted, improve, price
from cooptim.descent.loop import Progress, Stage, run_stage
from cooptim.descent.plan import Plan
from cooptim.descent.references import uniform_phase
from cooptim.descent.result import Priced
from cooptim.descent.step import TrainState, init_state
from cooptim.descent.task import Task, calibrated_knobs, decode, priced, settled
from cooptim.design.design import Design
from cooptim.design.knobs import Knobs, OperandKnobs, Phase, free_phase, frozen_phase, knob_names

_RANGES = ("weight_log2_range", "input_log2_range")  # follow from steps where widths are held
_QUANTIZER = ("weight_log2_step", "input_log2_step", "weight_log2_scale", "codebook")
# One round of fine-tuning has brought back 0.021 of validation accuracy at most: 2 bits, 4.7 points missed, then 2.6.
# Source: experiments/digits/README.md.
_OUT_OF_REACH = 0.025
_NEAR = 0.05  # a budget missed by this share is met at once
_SNAP_LEEWAY = 0.005  # validation accuracy that a move may cost before fine-tuning, as a fraction


class Ending(enum.Enum):
    """What happens to a legal design beside training, once its descent has ended."""

    MOVES = "single moves of widths that save energy, and all of the budget spent"
    HELD = "all of the budget spent"
    ACCURATE = "what is left of the budget spent where that costs no accuracy"


@dataclasses.dataclass(frozen=True)
class Descent:
    """What one descent hands back."""

    final: Priced
    relaxed: CostReport
    history: dict[str, np.ndarray]
    snap_drop: float  # validation accuracy lost by the snap, before any repair or fine-tuning


def train_uniform(
    task: Task, params: Any, state: Any, bits: int, limits: Limits,
    checkpoints: Checkpoints | None, progress: Progress | None,
) -> Priced:  # fmt: skip
    """The network trained at one width everywhere, as long as a joint run, on its own best hardware."""
    phase = uniform_phase(task, bits, prune=False)
    name, plan = f"uniform-{bits}b", task.plan
    stage = Stage(name, plan.steps, plan.descent_weight_rate, _QUANTIZER, phase, anneal=False)
    end, phase, _ = run_stage(task, stage, _begin(task, params, state, bits), checkpoints, progress)
    soft = decode(task, end.knobs, phase)
    end = dataclasses.replace(end, state=settled(task, end.params, end.state, soft))
    design = finalize(task, soft, end.params, end.state, limits.latency_ns)
    free = dataclasses.replace(limits, energy_pj=None)
    tuned = _finetuned(
        task, end, design, [free] * plan.finetune_tries, name, checkpoints, progress, Ending.HELD,
        give_up=patience(plan, bits),
    )  # fmt: skip
    return dataclasses.replace(tuned, title=f"uniform {bits} b")


def descend(
    task: Task, params: Any, state: Any, limits: Limits, name: str, bits: int | None,
    checkpoints: Checkpoints | None, progress: Progress | None, *, start_bits: float | None = None,
) -> Descent:  # fmt: skip
    """Descends under the limits from the float parent; widths are learned unless `bits` holds them.

    Descent with travelling budgets, widths frozen for the last part, snap, repair, fine-tuning, repair.

    Args:
      start_bits: where learned widths start, near to where they end, such as the best uniform width: they move at
        `plan.near_rate_share` of their rate. None is `plan.start_bits`, far above, at their whole rate.
    """
    stage, begin = descent_stage(task, params, state, limits, name, bits, start_bits)
    end, phase, history = run_stage(task, stage, begin, checkpoints, progress)
    return landed(task, end, phase, history, limits, name, usual_ending(bits), checkpoints, progress)


def usual_ending(bits: int | None) -> Ending:
    """How a descent ends whose widths are held at `bits`, or learned where that is None."""
    return Ending.MOVES if bits is None else Ending.HELD


def descent_stage(
    task: Task, params: Any, state: Any, limits: Limits, name: str, bits: int | None, start_bits: float | None = None,
    design: Design | None = None,
) -> tuple[Stage, TrainState]:  # fmt: skip
    """(the stage of a descent from the float parent, where it begins); arguments as in `descend`.

    Args:
      design: whose widths, ranges and thresholds it starts from, in the place of `start_bits`; None starts uniform.
    """
    plan, period = task.plan, limits.latency_ns
    phase = free_phase(task.layers) if bits is None else uniform_phase(task, bits, prune=True)
    learned = plan.start_bits if start_bits is None else start_bits
    begin = _begin(task, params, state, learned if bits is None else bits)
    if bits is None and begin.knobs.weight_log2_scale is not None:
        # Channels of their own range die where widths fall and thresholds rise, so that they start alike.
        alike = tuple(jnp.zeros_like(scale) for scale in begin.knobs.weight_log2_scale)
        begin = dataclasses.replace(begin, knobs=dataclasses.replace(begin.knobs, weight_log2_scale=alike))
    if design is not None:
        begin = dataclasses.replace(begin, knobs=_operands_of(task, design, begin.knobs))
    begin = dataclasses.replace(begin, knobs=best_hardware(task, begin, free_phase(task.layers), period))
    moving = tuple(n for n in knob_names(begin.knobs) if bits is None or n not in _RANGES)
    stage = Stage(
        name, plan.steps, plan.descent_weight_rate, moving, phase, freeze=True, period_ns=period,
        width_rate=1.0 if start_bits is None and design is None else plan.near_rate_share,
        refit=lambda state, phase: best_hardware(task, state, phase, period),
        **_budgets(task, begin, phase, limits),
    )  # fmt: skip
    return stage, begin


def with_held_widths(stage: Stage, design: Design) -> Stage:
    """The stage of a descent that starts from a design whose widths stay."""
    phase = frozen_phase(design.weight_bits, design.input_bits)
    moving = tuple(name for name in stage.moving if name not in _RANGES)
    return dataclasses.replace(stage, phase=phase, moving=moving, width_rate=1.0)


def _operands_of(task: Task, design: Design, knobs: Knobs) -> Knobs:
    """The knobs with what a legal design keeps of weights and inputs."""
    found = task.space.encode(jax.tree.map(jnp.asarray, design))
    names = [field.name for field in dataclasses.fields(OperandKnobs)]
    return dataclasses.replace(knobs, **{name: getattr(found, name) for name in names})


def landed(
    task: Task, end: TrainState, phase: Phase, history: dict[str, np.ndarray], limits: Limits, name: str,
    ending: Ending, checkpoints: Checkpoints | None, progress: Progress | None,
) -> Descent:  # fmt: skip
    """The legal design of a descent that has ended: snap, repair, fine-tuning, repair."""
    period = limits.latency_ns
    soft = decode(task, end.knobs, phase)
    end = dataclasses.replace(end, state=settled(task, end.params, end.state, soft))
    relaxed, _ = price(task, end.params, end.state, soft, period)
    before = task.measure.accuracy(end.params, end.state, soft, task.data.x_val, task.data.y_val)[0]
    design = finalize(task, soft, end.params, end.state, period)
    after = task.measure.accuracy(end.params, end.state, design, task.data.x_val, task.data.y_val)[0]
    now_pj = float(price(task, end.params, end.state, design, period)[0].total_energy_pj)
    aims = graded(limits, now_pj, task.plan.finetune_tries)
    design, state = _spent_well(task, end, design, (after, now_pj), aims[0], _SNAP_LEEWAY)
    if ending is Ending.MOVES:
        # Fine-tuning still follows, so a move may cost a little more here than in the end.
        reached = task.measure.accuracy(end.params, state, design, task.data.x_val, task.data.y_val)[0]
        leeway = dataclasses.replace(aims[0], val_accuracy=min(limits.val_accuracy, reached - _SNAP_LEEWAY))
        design, state = improve(task, end.params, state, design, leeway)
    end = dataclasses.replace(end, state=state)
    # Fine-tuning moves energy too, and what it adds is pruned away: what stands before it may stay the best.
    first = _as_it_is(task, end.params, state, design, limits, name) if aims[0] == aims[-1] else None
    tuned = _finetuned(
        task, end, design, aims[1:], name, checkpoints, progress, ending, first=first
    )  # fmt: skip
    return Descent(tuned, relaxed, history, before - after)


def _spent_well(
    task: Task, end: TrainState, design: Design, known: tuple[float, float], limits: Limits, leeway: float
) -> tuple[Design, Any]:
    """(design, state) whose budget binds, or as they are where they meet it and spending what is left does harm.

    Pruned weights that come back are what they were when they went, and many at once are noise.

    Args:
      known: (validation accuracy, energy [pJ]) of the design.
      leeway: validation accuracy that spending may cost, as a fraction, where training still follows.
    """
    accuracy, now_pj = known
    found, state = fitted(task, end.params, end.state, design, limits)
    if limits.energy_pj is None or now_pj > limits.energy_pj:
        return found, state
    reached = task.measure.accuracy(end.params, state, found, task.data.x_val, task.data.y_val)[0]
    return (found, state) if reached >= accuracy - leeway else (design, end.state)


def graded(limits: Limits, now_pj: float, rounds: int) -> list[Limits]:
    """Limits before fine-tuning and after each of its rounds: the energy falls to its budget in equal ratios.

    What the descent left above the budget is pruned away; all at once, and fine-tuning finds a dead network. On the way
    there are `rounds` cuts, and as many rounds at the budget. One that is missed by little binds from the first.
    """
    if limits.energy_pj is None or now_pj <= limits.energy_pj * (1.0 + _NEAR):
        return [limits] * (rounds + 1)
    ratios = [(now_pj / limits.energy_pj) ** (1.0 - (n + 1) / rounds) for n in range(rounds)] + [1.0] * rounds
    return [dataclasses.replace(limits, energy_pj=limits.energy_pj * ratio) for ratio in ratios]


def patience(plan: Plan, bits: int) -> float:
    """Miss of the accuracy at which fine-tuning a uniform width is given up, for a wider one takes its place.

    The widest is reported whatever it reaches, so it gets every round.
    """
    return _OUT_OF_REACH if bits < max(plan.uniform_bits) else math.inf


def _finetuned(  # type: ignore[no-untyped-def]
    task, end, design, aims, name, checkpoints, progress, ending, give_up=math.inf, first=None
):
    """The best of several rounds of fine-tuning on validation data, each on from the last, and of `first`, if any.

    Each ends within its own of `aims`; only what is within the last counts. Under an energy budget all rounds are run,
    for the first that keeps the accuracy may owe it to few images. Without one the first ends it, and so does one after
    which the best still misses by `give_up`: a uniform width is chosen by whether it keeps the accuracy at all.
    """
    best: Priced | None = first
    goal, budgeted = aims[-1].val_accuracy, aims[-1].energy_pj is not None
    for attempt, limits in enumerate(aims):
        hold = _holds(aims, attempt)
        end, one = _finetune(task, end, design, limits, name, attempt, checkpoints, progress, ending, hold)
        design = one.design
        if limits.energy_pj != aims[-1].energy_pj:
            continue
        best = one if best is None or _merit(one, aims[-1]) > _merit(best, aims[-1]) else best
        if not budgeted and best.val_accuracy >= goal or best.val_accuracy <= goal - give_up:
            break
    return best


def _merit(one: Priced, limits: Limits) -> tuple[bool, bool, float]:
    """What a round is judged by: its energy budget, its accuracy, and then its validation loss, which ties less.

    Where the accuracy is missed, by the accuracy.
    """
    fits = limits.energy_pj is None or float(one.report.total_energy_pj) <= limits.energy_pj
    keeps = one.val_accuracy >= limits.val_accuracy
    return fits, keeps, -one.val_loss if keeps else one.val_accuracy


def _holds(aims: list[Limits], attempt: int) -> bool:
    """Whether a round of fine-tuning keeps what is pruned: every one at the energy budget but the first."""
    return attempt > 0 and aims[-1].energy_pj is not None and aims[attempt - 1].energy_pj == aims[-1].energy_pj


def _finetune(  # type: ignore[no-untyped-def]
    task, end, design, limits, name, attempt, checkpoints, progress, ending, hold=False
):
    """(state, priced design) after weights and steps moved under the design's widths and masks, and the last repair."""
    plan = task.plan
    phase = frozen_phase(design.weight_bits, design.input_bits)
    knobs = task.space.encode(jax.tree.map(jnp.asarray, design))
    # Copies, for a step donates them: the design, whose margins are the knobs' own arrays, may be the best in the end.
    begin = task.network.harden(end.params, design) if hold else end.params
    params, state, knobs, multipliers, key = jax.tree.map(
        lambda leaf: jnp.array(leaf, copy=True), (begin, end.state, knobs, end.multipliers, end.key)
    )
    begin = dataclasses.replace(init_state(params, state, knobs, task.seed + 1), multipliers=multipliers, key=key)
    target = np.log([limits.energy_pj or 1.0, limits.latency_ns, limits.area_mm2 or 1.0])
    stage = Stage(
        f"{name}-finetune{attempt}", plan.finetune_steps, 0.5 * plan.descent_weight_rate, _QUANTIZER, phase,
        log_start=target, log_target=target, active=np.asarray([limits.energy_pj is not None, 0.0, 0.0], float),
        travel=False, anneal=False, period_ns=limits.latency_ns, order=attempt + 1, hold=hold,
    )  # fmt: skip
    tuned, phase, _ = run_stage(task, stage, begin, checkpoints, progress)
    held = _held(task, tuned, phase, design)
    state = settled(task, tuned.params, tuned.state, held)
    legal = finalize(task, held, tuned.params, state, limits.latency_ns)
    if ending is Ending.ACCURATE:
        reached = task.measure.accuracy(tuned.params, state, legal, task.data.x_val, task.data.y_val)[0]
        now_pj = float(price(task, tuned.params, state, legal, limits.latency_ns)[0].total_energy_pj)
        tuned = dataclasses.replace(tuned, state=state)
        legal, state = _spent_well(task, tuned, legal, (reached, now_pj), limits, 0.0)
    else:
        legal, state = fitted(task, tuned.params, state, legal, limits)
    if ending is Ending.MOVES:
        legal, state = improve(task, tuned.params, state, legal, limits)
    return dataclasses.replace(tuned, state=state), _as_it_is(task, tuned.params, state, legal, limits, name)


def _as_it_is(task: Task, params: Any, state: Any, design: Design, limits: Limits, name: str) -> Priced:
    """A legal design with these parameters, priced; pruned weights are zero in them from now on."""
    params = task.network.harden(params, design)
    design = best_exits(task, params, state, design, limits)
    return priced(task, name.rstrip("0123456789"), params, state, design, limits.latency_ns)


def _held(task: Task, tuned: TrainState, phase: Phase, design: Design) -> Design:
    """The fine-tuned quantizers on the hardware of `design`."""
    fine = decode(task, tuned.knobs, phase)
    return dataclasses.replace(
        fine, mode=design.mode, tiling=design.tiling, supply_v=design.supply_v, freq_ghz=design.freq_ghz,
        threshold=design.threshold, buffer_bits=design.buffer_bits,
    )  # fmt: skip


def best_hardware(task: Task, state: TrainState, phase: Phase, deadline_ns: float) -> Knobs:
    """Knobs whose tilings and supplies are the best legal ones at today's widths.

    Modes follow once the widths are frozen; before, they keep their preference, for narrower ones may become legal.
    """
    legal = finalize(task, decode(task, state.knobs, phase), state.params, state.state, deadline_ns)
    found = task.space.encode(jax.tree.map(jnp.asarray, legal))
    frozen = phase.frozen > 0.5
    return dataclasses.replace(
        state.knobs,
        tiling_logits=found.tiling_logits,
        supply=found.supply,
        mode_logits=jnp.where(frozen, found.mode_logits, state.knobs.mode_logits),
    )


def _begin(task: Task, params: Any, state: Any, bits: float) -> TrainState:
    copy = lambda tree: jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), tree)  # noqa: E731
    knobs = calibrated_knobs(task, params, state, bits)
    if task.faults is not None:  # from where nothing goes wrong yet; only a gradient or a measured move goes lower
        knobs = dataclasses.replace(knobs, supply=_safe_supply(task, knobs))
    return init_state(copy(params), copy(state), knobs, task.seed)


def _safe_supply(task: Task, knobs: Knobs) -> jax.Array:
    """The supply knobs at the lowest supply that the machine calls safe."""
    s = task.machine.supply
    share = jnp.clip((safe_supply_v(task.machine) - s.floor_v) / (s.ceiling_v - s.floor_v), 2.5e-3, 1 - 2.5e-3)
    return jnp.full_like(knobs.supply, jnp.log(share / (1 - share)))


def _budgets(task: Task, begin: TrainState, phase: Phase, limits: Limits) -> dict[str, Any]:
    """Where the travelling budgets start (today's cost) and end."""
    design = decode(task, begin.knobs, phase)
    report, _ = price(task, begin.params, begin.state, design, limits.latency_ns)
    now = np.log([float(report.total_energy_pj), float(report.total_latency_ns), float(report.area_mm2)])
    asked = (limits.energy_pj, limits.latency_ns, limits.area_mm2)
    active = np.asarray([value is not None for value in asked], float)
    target = np.asarray([now[i] if value is None else np.log(value) for i, value in enumerate(asked)])
    target[0] += np.log1p(-task.plan.margin) if limits.energy_pj is not None else 0.0
    return {"log_start": np.maximum(now, target), "log_target": target, "active": active}
