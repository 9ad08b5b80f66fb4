"""A whole run: float parent, references, joint descent, legal design, result."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cooptim.data import Dataset, check_head
from cooptim.descent.budget import BOUND_SHARE, Setting, require_reachable, resolve
from cooptim.descent.checkpoint import Checkpoints
from cooptim.descent.descend import Descent, descend, train_uniform
from cooptim.descent.finalize import Limits, best_move
from cooptim.descent.fingerprint import claim, fingerprint, versions
from cooptim.descent.loop import Progress, float_stage, run_stage
from cooptim.descent.plan import Plan, plan_for
from cooptim.descent.recipes import learns_widths
from cooptim.descent.references import reference_16b, with_deadline
from cooptim.descent.result import DEFAULT_BUDGET, Budget, Priced, Result
from cooptim.descent.step import init_state
from cooptim.descent.task import Task, build_task, calibrated_knobs, float_design, seen_signs, settled, with_teacher
from cooptim.descent.tokens import check_tokens
from cooptim.hardware.machine import Machine
from cooptim.network.trace import Network

RELAXED_PARTS: tuple[str, ...] = (
    "tilings: softmax-weighted mean of the table's rows",
    "supplies: continuous between floor and ceiling",
    "widths, modes, masks: straight-through (exact in the forward pass, so their gap is 1 by construction)",
)


def optimize(
    network: Network,
    machine: Machine,
    data: Dataset,
    budget: Budget | None = None,
    *,
    seed: int = 0,
    plan: Plan | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> Result:
    """Trains the float parent, the references and the joint design; returns all of them, legal and priced.

    Args:
      network: from `cooptim.trace`; its parameters are where the float parent starts.
      budget: default is 1/25 of the 16-bit reference's energy (or 0.85 of the bound where that is less), its latency
        as the deadline (without a zero where the chip skips their cycles) and 0.5 points of accuracy.
      plan: default is `plan_for` the training set.
      out: directory for checkpoints; None keeps none. resume: go on from the checkpoints found there, which must be
        of a run with the same arguments.
      progress: receives stage(name, total), step(done, **metrics), done().

    Raises ValueError when data and network do not match, InfeasibleBudget when no legal design can meet the budget.
    """
    plan = plan_for(len(data.x_train)) if plan is None else plan
    budget = DEFAULT_BUDGET if budget is None else budget
    check_head(data, outputs(network, data.x_train[: plan.chunk]))
    check_tokens(network, data, plan.chunk)
    task = build_task(network, machine, data, plan, seed, network.params, network.state)
    require_reachable(task.space, budget)
    mine = fingerprint(network, machine, data, budget, plan, seed)
    checkpoints = _checkpoints(out, resume, mine)
    params, state = float_parent(task, network.params, network.state, checkpoints, progress)
    if seen_signs(task, params, state) != task.space.input_signed:
        task = build_task(network, machine, data, plan, seed, params, state)
    task = with_teacher(task, params, state)
    reference, dense_pj = reference_16b(task, params, state)
    setting = resolve(task.space, with_deadline(task, budget, reference), reference.report)
    plain = float_design(task, calibrated_knobs(task, params, state, plan.start_bits))
    float_val = task.measure.accuracy(params, state, plain, data.x_val, data.y_val)[0]
    limits = Limits(setting.energy_pj, setting.latency_ns, setting.area_mm2, float_val - budget.accuracy_drop)
    uniform, bits = best_uniform(task, params, state, limits, checkpoints, progress)
    done: dict[float, Descent] = {}
    pruned = cheapest(
        task, params, state, limits, "pruned", bits, checkpoints, progress, uniform, setting.bound_pj, done=done
    )  # fmt: skip
    stands = not setting.lifted
    pruned = best_of((pruned, unpruned(pruned, uniform)), limits, stands=stands)
    held = None if learns_widths(plan.quantizer) else bits
    known = pruned.final if pruned.final.val_accuracy >= limits.val_accuracy else uniform
    joint = cheapest(
        task, params, state, limits, "joint", held, checkpoints, progress, known, setting.bound_pj,
        stands=stands, done=done if held is not None else None, start_bits=bits,
    )  # fmt: skip
    joint = best_of((joint, pruned), limits, stands=stands)
    joint = dataclasses.replace(joint, final=dataclasses.replace(joint.final, title="joint"))  # also where it is pruned
    designs = {
        "reference_16b": reference, "best_uniform": uniform, "best_uniform_pruned": pruned.final, "final": joint.final
    }  # fmt: skip
    designs = {name: tested(task, one) for name, one in designs.items()}
    accuracy = (float_val, accuracy_on_test(task, params, state, plain))
    result = assembled(task, budget, setting, limits, accuracy, dense_pj, designs, joint)
    if progress is not None:
        progress.done()
    return result


def assembled(
    task: Task, budget: Budget, setting: Setting, limits: Limits, float_accuracy: tuple[float, float], dense_pj: float,
    designs: dict[str, Priced], joint: Descent,
) -> Result:  # fmt: skip
    """The result of a run from its parts, local optimality measured; `float_accuracy` is (validation, test)."""
    final = joint.final
    move, saving, count = best_move(
        task, final.params, final.state, final.design, dataclasses.replace(limits, energy_pj=None)
    )
    reference_pj = float(designs["reference_16b"].report.total_energy_pj)
    return Result(
        workload=task.space.workload,
        machine=task.machine,
        budget=dataclasses.replace(
            budget, energy_pj=setting.energy_pj, latency_ns=setting.latency_ns, lift=setting.lifted,
            energy_ratio=reference_pj / setting.energy_pj if setting.energy_pj else None,
        ),
        seed=task.seed,
        float_test_accuracy=float_accuracy[1],
        float_val_accuracy=float_accuracy[0],
        designs=designs,
        dense_16b_pj=dense_pj,
        relaxed=joint.relaxed,
        bound_pj=setting.bound_pj,
        history=joint.history,
        local={"best_saving": saving, "moves": count, "move": "none" if move is None else move.name},
        relaxed_parts=RELAXED_PARTS,
        snap_drop=joint.snap_drop,
        versions=versions(),
        errors=None if task.faults is None else (task.plan.errors, task.plan.error_map),
        bound=setting.bound,
        widths_held=not learns_widths(task.plan.quantizer),
    )  # fmt: skip


def best_uniform(
    task: Task, params: Any, state: Any, limits: Limits, checkpoints: Checkpoints | None, progress: Progress | None
) -> tuple[Priced, int]:
    """(cheapest uniform width that keeps the validation accuracy, its bits); the widest when none keeps it.

    Widths are tried from 4 bits: downwards while they keep it, upwards otherwise.
    """
    widths = sorted(task.plan.uniform_bits)
    trained: dict[int, Priced] = {}

    def keeps(bits: int) -> bool:
        trained[bits] = train_uniform(task, params, state, bits, limits, checkpoints, progress)
        return trained[bits].val_accuracy >= limits.val_accuracy

    at = max((i for i, bits in enumerate(widths) if bits <= 4), default=0)
    if keeps(widths[at]):
        while at > 0 and keeps(widths[at - 1]):
            at -= 1
    else:
        at += 1
        while at < len(widths) - 1 and not keeps(widths[at]):
            at += 1
        at = min(at, len(widths) - 1)
        if widths[at] not in trained:
            keeps(widths[at])
    return trained[widths[at]], widths[at]


def cheapest(
    task: Task, params: Any, state: Any, limits: Limits, name: str, bits: int | None,
    checkpoints: Checkpoints | None, progress: Progress | None, known: Priced, bound_pj: float,
    *, stands: bool = False, done: dict[float, Descent] | None = None, start_bits: float | None = None,
) -> Descent:  # fmt: skip
    """The descent that keeps the accuracy at the least energy, within `plan.attempts` tries.

    With an energy budget it is aimed at first, and the target moves up towards the `known` design while the accuracy
    is missed; without one the target is bisected between the bound and that design. A budget that `stands` is not
    moved: what it costs in accuracy is reported.

    Args:
      known: the cheapest design so far that keeps the accuracy.
      done: descents at these widths by target, which are not run again; those run here are added.
      start_bits: where learned widths start, as in `descend`.
    """
    done = {} if done is None else done
    top = _energy(known)
    given = limits.energy_pj is not None
    low = limits.energy_pj if limits.energy_pj is not None else bound_pj / BOUND_SHARE
    target, best, floor = low, None, low
    for attempt in range(task.plan.attempts):
        if target not in done:
            aimed = dataclasses.replace(limits, energy_pj=target)
            done[target] = descend(
                task, params, state, aimed, f"{name}{attempt}", bits, checkpoints, progress, start_bits=start_bits
            )  # fmt: skip
        found = done[target]
        keeps = found.final.val_accuracy >= limits.val_accuracy
        best = found if best is None or _rank(found.final, limits) > _rank(best.final, limits) else best
        if keeps and (given and attempt == 0 or target <= floor * 1.03):
            break
        if stands and given:
            break
        floor, top = (floor, target) if keeps else (target, top)
        target = math.sqrt(floor * max(top, floor))
    assert best is not None
    return best


def best_of(found: Sequence[Descent], limits: Limits, *, stands: bool) -> Descent:
    """The best of these, of which each is a point of the spaces of those before it; the first where none is good.

    Good is what keeps the accuracy, within the energy budget if that one `stands`. Of good ones the one that takes
    least; under a budget that stands the first, for it has more to train, but for one that is more accurate and takes
    no more.
    """
    most_pj = limits.energy_pj if stands else None
    good = [one for one in found if _meets(one.final, most_pj, limits.val_accuracy)]
    if not good:
        return found[0]
    if most_pj is None:
        return min(good, key=lambda one: _energy(one.final))
    ahead = [one for one in good if _energy(one.final) <= _energy(good[0].final)]
    return max(ahead, key=lambda one: one.final.val_accuracy)  # of equals the first


def unpruned(like: Descent, uniform: Priced) -> Descent:
    """A uniform design as what a descent such as `like` would hand back had it moved nothing."""
    return dataclasses.replace(like, final=uniform, relaxed=uniform.report, snap_drop=0.0)


def _rank(one: Priced, limits: Limits) -> tuple[bool, float]:
    """Higher is better: least energy among those that keep the accuracy, the most accurate where none does."""
    keeps = one.val_accuracy >= limits.val_accuracy
    return keeps, -_energy(one) if keeps else one.val_accuracy


def _meets(one: Priced, most_pj: float | None, val_accuracy: float) -> bool:
    return one.val_accuracy >= val_accuracy and (most_pj is None or _energy(one) <= most_pj)


def _energy(one: Priced) -> float:
    return float(one.report.total_energy_pj)


def float_parent(
    task: Task, params: Any, state: Any, checkpoints: Checkpoints | None, progress: Progress | None
) -> tuple[Any, Any]:
    """(params, state) after float training from these, batch statistics up to date; the same at 0 steps."""
    if task.plan.float_steps == 0:
        return params, state
    knobs = calibrated_knobs(task, params, state, task.plan.start_bits)
    begin = init_state(_copy(params), _copy(state), knobs, task.seed)
    end, _, _ = run_stage(task, float_stage(task), begin, checkpoints, progress)
    return end.params, settled(task, end.params, end.state, float_design(task, end.knobs))


def _copy(tree: Any) -> Any:
    """Fresh buffers, because a step donates its input and the caller's model must live on."""
    return jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), tree)


def accuracy_on_test(task: Task, params: Any, state: Any, design: Any) -> float:
    """Accuracy on the test set, for the end of a run."""
    return task.measure.accuracy(params, state, design, task.data.x_test, task.data.y_test)[0]


def tested(task: Task, one: Priced) -> Priced:
    """A design with its accuracy on the test set, over `plan.error_draws` draws where errors are injected."""
    x, labels = task.data.x_test, task.data.y_test
    each = task.measure.accuracies(one.params, one.state, one.design, x, labels, task.plan.error_draws)
    draws = () if task.faults is None else each
    return dataclasses.replace(one, test_accuracy=float(np.mean(each)), test_draws=draws)


def outputs(network: Network, x: np.ndarray) -> int:
    """Number of logits an image; ValueError unless the network returns one row of them for each."""
    found = jax.eval_shape(lambda p, s, x: network.apply(p, s, x)[0], network.params, network.state, x)
    shape = getattr(found, "shape", None)
    if network.workload.exits and shape is not None and len(shape) == 3:
        shape = shape[1:]  # one stage
    if shape is None or len(shape) != 2 or shape[0] != len(x):
        what = type(found).__name__ if shape is None else f"shape {list(shape)}"
        raise ValueError(
            f"network {network.workload.name}: for {len(x)} images it returns {what} where [{len(x)}, classes] logits "
            "are needed; flatten or pool before the last layer, and return nothing beside them"
        )
    return int(shape[1])


def _checkpoints(out: str | Path | None, resume: bool, mine: dict[str, Any]) -> Checkpoints | None:
    if out is None:
        return None
    checkpoints = Checkpoints(Path(out) / "checkpoints")
    if not resume:
        checkpoints.clear()
    claim(checkpoints.directory, mine, resume=resume)
    return checkpoints
