"""A sweep over energy budgets and seeds: one compiled step, float parents and references shared by seed."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from cooptim.data import Dataset, check_head
from cooptim.descent.budget import InfeasibleBudget, Setting, require_reachable, resolve
from cooptim.descent.checkpoint import Checkpoints
from cooptim.descent.descend import descent_stage, landed, usual_ending
from cooptim.descent.finalize import Limits
from cooptim.descent.fingerprint import claim, fingerprint, versions
from cooptim.descent.front import DIVERGED, FAILED, FINISHED, INFEASIBLE, Front, Point, member_name
from cooptim.descent.loop import Progress
from cooptim.descent.memory import Estimate, estimate, peak_bytes, require_room
from cooptim.descent.parents import Parent, parent_of, rehearsed, starts_of, trained
from cooptim.descent.plan import Plan, plan_for
from cooptim.descent.recipes import learns_widths
from cooptim.descent.references import with_deadline
from cooptim.descent.result import Budget, Priced, Result
from cooptim.descent.ring import InfeasibleDeadline
from cooptim.descent.run import assembled, best_uniform, outputs, tested
from cooptim.descent.task import Task, seen_signs, signed_task
from cooptim.descent.together import Ended, Job, Program, run_together, step_program
from cooptim.descent.tokens import check_tokens
from cooptim.design.legal import IllegalDesign
from cooptim.hardware.machine import Machine
from cooptim.network.trace import Network

MEMBERS, SEEDS = "members", "seeds"  # folders under the sweep's
_STAGE = "joint0"  # as `optimize` names the first joint descent

Keep = Callable[[Point, Result | None], None]


@dataclasses.dataclass(frozen=True)
class Options:
    """How a sweep runs.

    Attributes:
      out: directory for checkpoints; None keeps none. resume: go on from what is there.
      together: members in one call of the step; default 1 on a CPU, all of them elsewhere.
      only: names of members to work on, the others left as they are; a diverged one is landed where it stands.
      halt: take no more steps of a descent, land where the checkpoint stands.
      floor_drop: the hypervolume's reference accuracy is the float parents' mean less this fraction; default: chance.
      fresh: called where a sweep starts anew, once all has been checked, to remove what the caller keeps in `out`.
    """

    out: pathlib.Path | None = None
    resume: bool = False
    together: int | None = None
    only: tuple[str, ...] = ()
    halt: bool = False
    floor_drop: float | None = None
    progress: Progress | None = None
    fresh: Callable[[], None] | None = None


@dataclasses.dataclass(frozen=True)
class _Wanted:
    """A member before it starts."""

    name: str
    budget: Budget
    seed: int


def sweep(
    network: Network | Callable[[int], Network], machine: Machine, data: Dataset, budgets: Sequence[Budget],
    seeds: Sequence[int], plan: Plan | None, options: Options, known: Mapping[str, Point], keep: Keep,
    said: Callable[[Estimate], None],
) -> Front:  # fmt: skip
    """Runs every member that is not `known` to its legal design; `keep` is called as each ends.

    Args:
      network: one for all seeds, or a function of the seed that returns it with other weights.
      known: members that have ended before, by name. said: is told the memory estimate before anything trains.

    Raises ValueError for what cannot be run at all; a member that diverges, has no legal design or asks for less than
    the bound is marked and does not stop the others.
    """
    plan = plan_for(len(data.x_train)) if plan is None else plan
    if plan.distill_weight > 0.0:
        raise ValueError(
            f"sweep: the plan's distill_weight is {plan.distill_weight:g}, and members of a sweep have no teacher; use "
            "0, or run `optimize` for each budget"
        )
    wanted = members_of(budgets, seeds)
    todo = _todo(wanted, known, options)
    first, starts = starts_of(network, tuple(seeds))
    check_head(data, outputs(first, data.x_train[: plan.chunk]))
    check_tokens(first, data, plan.chunk)
    points = dict(known)
    task = _task(first, machine, data, plan, starts)
    for budget in budgets:
        require_reachable(task.space, budget)
    mine = _common(first, machine, data, budgets[0], plan, seeds[0])
    if options.resume:
        _claim(options, mine)  # refused before anything is compiled
    spent: dict[str, int] = {}
    if todo:
        single, together, found = _programs(task, starts, budgets[0], len(todo), options)
        said(found)
        require_room(found, batch=plan.batch)
        if not options.resume:
            _claim(options, mine)

        def store(point: Point, result: Result | None) -> None:
            points[point.name] = point
            keep(point, result)

        needed = {member.seed: starts[member.seed] for member in todo}
        kept = {seed: _checkpoints(options, SEEDS, str(seed)) for seed in needed}
        task = dataclasses.replace(task, step=single.step)
        done, lost = trained(task, needed, kept, options.progress)
        again = _signs(task, done)
        if again != task.space.input_signed:  # a trained network sends what the untrained did not
            task = signed_task(first, machine, data, plan, seeds[0], again)
            single, together, _ = _programs(task, starts, budgets[0], len(todo), options)
            task = dataclasses.replace(task, step=single.step)
        parents = {seed: parent_of(dataclasses.replace(task, seed=seed), one) for seed, one in done.items()}
        for member in (member for member in todo if member.seed in lost):
            note = lost[member.seed]
            store(Point(member.name, member.seed, DIVERGED, 0, *_asked(member.budget), note=note), None)
        _run(parents, [m for m in todo if m.seed in parents], together, kept, options, store)
        spent = {"estimated": found.total, "peak": peak_bytes()}
    if options.progress is not None:
        options.progress.done()
    order = {member.name: i for i, member in enumerate(wanted)}
    listed = sorted(points.values(), key=lambda point: (order.get(point.name, len(order)), point.name))
    floor, note = _floor(listed, data.classes, options.floor_drop)
    return Front(
        first.workload.name, machine.name, tuple(listed), data.classes, floor, note, spent, versions()
    )  # fmt: skip


def members_of(budgets: Sequence[Budget], seeds: Sequence[int]) -> list[_Wanted]:
    """Every member, by seed, then budget.

    Raises ValueError when budgets ask for more than different energies, or one of them, or a seed, comes twice.
    """
    if not budgets or not seeds:
        raise ValueError("sweep: no budgets or no seeds; give at least one of each")
    for i, budget in enumerate(budgets):
        if budget.energy_pj is None and budget.energy_ratio is None:
            raise ValueError(f"sweep: budget {i} asks for no energy; give each an energy_pj or an energy_ratio")
        for field in ("latency_ns", "area_mm2", "accuracy_drop", "lift"):
            ours, theirs = getattr(budget, field), getattr(budgets[0], field)
            if ours != theirs:
                raise ValueError(
                    f"sweep: budget {i} has {field} {ours}, budget 0 {theirs}; a front compares energies at one "
                    "deadline, area and drop: run one sweep for each"
                )
    wanted = [_Wanted(member_name(budget, seed), budget, seed) for seed in seeds for budget in budgets]
    names = [member.name for member in wanted]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"sweep: member {twice} comes twice; give each budget and each seed once")
    return wanted


def _todo(wanted: list[_Wanted], known: Mapping[str, Point], options: Options) -> list[_Wanted]:
    if options.together is not None and options.together < 1:
        raise ValueError(f"sweep: {options.together} members in a call; at least 1")
    names = [member.name for member in wanted]
    odd = [name for name in options.only if name not in names]
    if odd:
        raise ValueError(f"sweep: no member {odd[0]}; it has {', '.join(names)}")
    if options.only:
        return [m for m in wanted if m.name in options.only and not (m.name in known and known[m.name].stands)]
    return [member for member in wanted if member.name not in known]


def _task(network: Network, machine: Machine, data: Dataset, plan: Plan, starts: Mapping[int, Any]) -> Task:
    """The task of the first seed, an input being signed where it is for any seed."""
    seed = next(iter(starts))
    plain = signed_task(network, machine, data, plan, seed, (False,) * len(network.workload.layers))
    return signed_task(network, machine, data, plan, seed, _signs(plain, starts))


def _signs(task: Task, starts: Mapping[int, Any]) -> tuple[bool, ...]:
    seen = [seen_signs(task, params, state) for params, state in starts.values()]
    return tuple(any(column) for column in zip(*seen, strict=True)) if seen else task.space.input_signed


def _programs(
    task: Task, starts: Mapping[int, Any], budget: Budget, members: int, options: Options
) -> tuple[Program, Program, Estimate]:
    """(the step of one member, the step of a call, the estimate); one program where a call holds one member."""
    if options.out is not None:
        import orbax.checkpoint  # noqa: F401  # what writing checkpoints takes is there before memory is measured
    width = options.together or (1 if jax.default_backend() == "cpu" else members)
    width = min(width, members)
    stage, begin = rehearsed(task, next(iter(starts.values())), budget)
    single = step_program(task, 1, stage, begin)
    together = single if width == 1 else step_program(task, width, stage, begin)
    return single, together, estimate(together, begin, len(starts), members)


def _run(
    parents: Mapping[int, Parent], todo: list[_Wanted], program: Program, kept: Mapping[int, Checkpoints | None],
    options: Options, store: Keep,
) -> None:  # fmt: skip
    """Descends and lands the members, `program.width` at a time."""
    settings = _settings(parents, todo, store)
    todo = [member for member in todo if member.name in settings]
    uniforms: dict[int, tuple[Priced, int] | FloatingPointError] = {}
    for start in range(0, len(todo), program.width):
        group = todo[start : start + program.width]
        jobs, limits, alive = [], {}, []
        for member in group:
            parent, setting = parents[member.seed], settings[member.name]
            least = parent.val_accuracy - member.budget.accuracy_drop
            limit = Limits(setting.energy_pj, setting.latency_ns, setting.area_mm2, least)
            if member.seed not in uniforms:
                uniforms[member.seed] = _uniform(parent, limit, kept[member.seed], options.progress)
            try:
                bits, near = _widths(parent.task.plan, uniforms[member.seed])
            except FloatingPointError as error:
                point = _point(member, parent, setting, uniforms[member.seed], 0)
                store(dataclasses.replace(point, status=DIVERGED, note=f"best uniform width: {error}"), None)
                continue
            stage, begin = descent_stage(parent.task, parent.params, parent.state, limit, _STAGE, bits, near)
            jobs.append(Job(member.name, parent.task, stage, begin, _checkpoints(options, MEMBERS, member.name)))
            limits[member.name] = limit
            alive.append((member, bits))
        ends = run_together(program, jobs, options.progress, halt=options.halt) if jobs else []
        for (member, bits), job, end in zip(alive, jobs, ends, strict=True):
            parent, limit = parents[member.seed], limits[member.name]
            uniform = uniforms[member.seed]
            store(*_outcome(member, parent, settings[member.name], limit, uniform, bits, job, end, options))


def _widths(
    plan: Plan, uniform: tuple[Priced, int] | FloatingPointError
) -> tuple[int | None, float | None]:  # fmt: skip
    """(widths that a descent holds, those it starts from): the best uniform design's, held where none are learned.

    Where that one's training ran away, learned widths start from the plan's.
    """
    if isinstance(uniform, FloatingPointError):
        if learns_widths(plan.quantizer):
            return None, None
        raise uniform
    return (None, float(uniform[1])) if learns_widths(plan.quantizer) else (uniform[1], None)


def _uniform(
    parent: Parent, limits: Limits, checkpoints: Checkpoints | None, progress: Progress | None
) -> tuple[Priced, int] | FloatingPointError:
    try:
        one, bits = best_uniform(
            parent.task, parent.params, parent.state, limits, checkpoints, _named(progress, f"s{parent.task.seed}")
        )
    except FloatingPointError as error:
        return error
    return tested(parent.task, one), bits


def _outcome(
    member: _Wanted, parent: Parent, setting: Setting, limits: Limits,
    uniform: tuple[Priced, int] | FloatingPointError, bits: int | None, job: Job, end: Ended, options: Options,
) -> tuple[Point, Result | None]:  # fmt: skip
    """A member's figures and, where it has a legal design, its result."""
    point = _point(member, parent, setting, uniform, end.taken)
    if not end.finite:
        note = f"not finite after step {end.taken} of {job.stage.steps}; lower the learning rates of the plan"
        point = dataclasses.replace(point, status=DIVERGED, note=note)
        if member.name not in options.only:
            return point, None
    elif end.taken < job.stage.steps:
        point = dataclasses.replace(point, note=f"landed after {end.taken} of {job.stage.steps} steps")
    try:
        found = landed(
            parent.task, end.train, end.phase, end.history, limits, _STAGE, usual_ending(bits), job.checkpoints,
            _named(options.progress, member.name),
        )  # fmt: skip
    except FloatingPointError as error:
        return dataclasses.replace(point, status=DIVERGED, note=str(error)), None
    except (IllegalDesign, InfeasibleDeadline) as error:
        return dataclasses.replace(point, status=FAILED, note=str(error)), None
    final = tested(parent.task, found.final)
    designs = {"reference_16b": parent.reference}
    designs |= {} if isinstance(uniform, FloatingPointError) else {"best_uniform": uniform[0]}
    result = assembled(
        parent.task, member.budget, setting, limits, (parent.val_accuracy, parent.test_accuracy), parent.dense_pj,
        designs | {"final": final}, found,
    )  # fmt: skip
    return dataclasses.replace(
        point, energy_pj=float(final.report.total_energy_pj), latency_ns=float(final.report.total_latency_ns),
        area_mm2=float(final.report.area_mm2), val_accuracy=final.val_accuracy, test_accuracy=final.test_accuracy,
    ), result  # fmt: skip


def _point(
    member: _Wanted, parent: Parent, setting: Setting, uniform: tuple[Priced, int] | FloatingPointError, steps: int
) -> Point:
    reference_pj = float(parent.reference.report.total_energy_pj)
    asked = setting.energy_pj
    point = Point(
        member.name, member.seed, FINISHED, steps, asked, reference_pj / asked if asked else None,
        reference_pj=reference_pj, float_val_accuracy=parent.val_accuracy, float_test_accuracy=parent.test_accuracy,
        bound_pj=setting.bound_pj,
    )  # fmt: skip
    if isinstance(uniform, FloatingPointError):
        return point
    one, bits = uniform
    return dataclasses.replace(
        point, uniform_bits=bits, uniform_pj=float(one.report.total_energy_pj), uniform_val_accuracy=one.val_accuracy,
        uniform_test_accuracy=one.test_accuracy,
    )  # fmt: skip


def _settings(parents: Mapping[int, Parent], todo: list[_Wanted], store: Keep) -> dict[str, Setting]:
    """Budgets in numbers; a member below the bound is marked, and InfeasibleBudget raised where all are."""
    settings, reasons = {}, []
    for member in todo:
        parent = parents[member.seed]
        try:
            settings[member.name] = resolve(
                parent.task.space, with_deadline(parent.task, member.budget, parent.reference), parent.reference.report
            )
        except InfeasibleBudget as error:
            reasons.append(error)
            store(Point(member.name, member.seed, INFEASIBLE, 0, *_asked(member.budget), note=str(error)), None)
    if todo and not settings:
        raise reasons[0]
    return settings


@dataclasses.dataclass(frozen=True)
class _Named:
    """A progress that says whose stage it is."""

    inner: Any
    whose: str

    def stage(self, name: str, total: int) -> None:
        self.inner.stage(f"{self.whose} {name.removeprefix(_STAGE).lstrip('-')}", total)

    def step(self, done: int, **metrics: float) -> None:
        self.inner.step(done, **metrics)


def _named(progress: Progress | None, whose: str) -> Progress | None:
    return None if progress is None else _Named(progress, whose)


def _asked(budget: Budget) -> tuple[float | None, float | None]:
    return budget.energy_pj, budget.energy_ratio


def _floor(points: Sequence[Point], classes: int, drop: float | None) -> tuple[float, str]:
    """(validation accuracy of the hypervolume's reference point, what it is)."""
    parents = {p.seed: p.float_val_accuracy for p in points if p.float_val_accuracy is not None}
    if drop is None or not parents:
        return 1.0 / classes, f"chance, 1 of {classes}"
    return max(float(np.mean(list(parents.values()))) - drop, 0.0), f"{100 * drop:g} points below the float parents"


def _checkpoints(options: Options, kind: str, name: str) -> Checkpoints | None:
    return None if options.out is None else Checkpoints(options.out / kind / name / "checkpoints")


def _common(
    network: Network, machine: Machine, data: Dataset, budget: Budget, plan: Plan, seed: int
) -> dict[str, Any]:  # fmt: skip
    """What all members have in common; budgets may be added."""
    common = dataclasses.replace(budget, energy_pj=None, energy_ratio=None)
    return fingerprint(network, machine, data, common, plan, seed)


def _claim(options: Options, mine: dict[str, Any]) -> None:
    """The directory is this sweep's: what its members have in common must be what it was, or all goes that was."""
    if options.out is None:
        return
    if not options.resume:
        if options.fresh is not None:
            options.fresh()
        for folder in options.out.glob("*/*/checkpoints"):
            if folder.parent.parent.name in (MEMBERS, SEEDS):
                Checkpoints(folder).clear()
    claim(options.out / "checkpoints", mine, resume=options.resume)
