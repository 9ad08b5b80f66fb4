"""The descents of several members in step: one compiled program moves them all, each under its own schedule and mask.

On a CPU one member a call is cheapest: vmapped over members with weights of their own, convolutions become grouped ones
and a member's step of LeNet-5 takes 2.2 (8 members) to 2.5 times (32) the CPU (experiments/pareto).
"""

import dataclasses
import math
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cooptim.compile import compiled
from cooptim.descent.checkpoint import Checkpoints, is_key
from cooptim.descent.loop import (
    EVERY,
    Progress,
    Stage,
    control_at,
    empty_history,
    freeze_step,
    frozen_widths,
    record,
)  # fmt: skip
from cooptim.descent.member import Member, begun, masked
from cooptim.descent.step import Control, TrainState
from cooptim.descent.task import Task
from cooptim.design.knobs import Phase


@dataclasses.dataclass(frozen=True)
class Job:
    """One member's descent: a task that holds its seed, a stage, where it begins, and its own checkpoints."""

    name: str
    task: Task
    stage: Stage
    begin: TrainState
    checkpoints: Checkpoints | None


@dataclasses.dataclass(frozen=True)
class Ended:
    """A member whose descent has ended, all steps taken or `finite` false; `taken` steps have moved it."""

    train: TrainState
    phase: Phase
    history: dict[str, np.ndarray]
    taken: int
    finite: bool


@dataclasses.dataclass(frozen=True, eq=False)
class Program:
    """The step, compiled ahead of time for `width` members a call; nothing can make it compile anew."""

    width: int
    executable: Any

    def __call__(
        self, members: Any, controls: Sequence[Control], running: np.ndarray, batches: Sequence[tuple[Any, Any]]
    ) -> tuple[Any, Any]:
        """(members, metrics) after a step of those that are running; all `width` long, as `stacked` makes them."""
        x, labels = (self.stacked(column) for column in zip(*batches, strict=True))
        on = np.asarray(running[0]) if self.width == 1 else np.asarray(running)
        return self.executable(members, self.stacked(controls), on, x, labels)

    def stacked(self, trees: Sequence[Any]) -> Any:
        """Trees of one structure along a leading axis `member`; the tree itself where a call holds one."""
        return trees[0] if self.width == 1 else jax.tree.map(lambda *leaves: _stack(leaves), *trees)

    def member(self, stacked: Any, at: int) -> Any:
        """One member's part of what is stacked."""
        return stacked if self.width == 1 else jax.tree.map(lambda leaf: _part(leaf, at), stacked)

    def step(self, state: TrainState, control: Control, x: Any, labels: Any) -> tuple[TrainState, Any]:
        """The plain step of a single state, for the stages that a member takes alone."""
        member, seen = self.executable(begun(state), control, np.asarray(True), x, labels)
        return member.train, seen


def step_program(task: Task, width: int, stage: Stage, begin: TrainState) -> Program:
    """Compiles the task's step for `width` members a call, with a stage's beginning for the shapes."""
    move = masked(task.step.__wrapped__)
    control = control_at(task.plan, stage, begin.knobs, 0, stage.phase)
    each = (begun(begin), control, np.asarray(True), *task.data.batch(task.seed, 0, task.plan.batch))
    lead = () if width == 1 else (width,)
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((*lead, *np.shape(leaf)), leaf.dtype), each)
    jitted = compiled(move if width == 1 else jax.vmap(move), donate_argnums=0)
    return Program(width, jitted.lower(*shapes).compile())


def run_together(
    program: Program, jobs: Sequence[Job], progress: Progress | None, *, halt: bool = False
) -> list[Ended]:  # fmt: skip
    """Runs at most `program.width` members to the end of their stages, each on from its last checkpoint.

    A member that has finished or diverged is masked; the call ends when all have. `halt` takes no step: it hands back
    what the checkpoints hold.
    """
    runs = [_Run.restored(job) for job in jobs]
    filled = [*runs, *[runs[0]] * (program.width - len(runs))]
    members = program.stacked([run.member for run in filled])
    running = np.asarray([i < len(runs) and run.goes_on and not halt for i, run in enumerate(filled)])
    if progress is not None:
        name = jobs[0].name if len(jobs) == 1 else f"{len(jobs)} members"
        progress.stage(name, max(job.stage.steps for job in jobs))
    saved_at = time.monotonic()
    while running.any():
        members = _frozen(program, runs, members, running)
        inputs = [run.inputs() for run in filled]
        members, seen = program(members, [c for c, _ in inputs], running, [b for _, b in inputs])
        _advance(program, runs, running, members, seen, progress)
        save = time.monotonic() - saved_at > jobs[0].task.plan.save_seconds
        for i in np.flatnonzero(running).tolist():
            runs[i].member = program.member(members, i) if save or not runs[i].goes_on else runs[i].member
            if save or not runs[i].goes_on:
                runs[i].save()
            running[i] = runs[i].goes_on
        saved_at = time.monotonic() if save else saved_at
    return [run.ended() for run in runs]


def _advance(
    program: Program, runs: list["_Run"], running: np.ndarray, members: Any, seen: Any, progress: Progress | None
) -> None:
    """Counts the step in every running member; now and then looks at losses, and stops those that have diverged."""
    for i in np.flatnonzero(running).tolist():
        run, at = runs[i], runs[i].step
        run.step += 1
        if at % EVERY == 0 or run.step == run.job.stage.steps:
            run.finite = bool(np.asarray(members.finite).reshape(-1)[i])
            if at % EVERY == 0:
                one = program.member(seen, i)
                record(run.history, at, one)
                if progress is not None and i == running.tolist().index(True):
                    progress.step(run.step, loss=float(one.loss), energy_pj=math.exp(float(one.log_cost[0])))
            if not run.finite:
                run.step = int(np.asarray(members.taken).reshape(-1)[i])


def _frozen(program: Program, runs: list["_Run"], members: Any, running: np.ndarray) -> Any:
    """Members with the widths frozen of those that have come to that step."""
    due = [
        i for i in np.flatnonzero(running).tolist()
        if runs[i].job.stage.freeze and runs[i].step == freeze_step(runs[i].job.task.plan, runs[i].job.stage)
    ]  # fmt: skip
    if not due:
        return members
    apart = [program.member(members, i) for i in range(program.width)]
    for i in due:
        if bool(apart[i].finite):
            train, runs[i].phase = frozen_widths(runs[i].job.task, runs[i].job.stage, apart[i].train, runs[i].phase)
            apart[i] = dataclasses.replace(apart[i], train=train)
    return program.stacked(apart)


@dataclasses.dataclass
class _Run:
    """Where one member stands."""

    job: Job
    member: Member
    phase: Phase
    history: dict[str, np.ndarray]
    step: int
    finite: bool = True

    @classmethod
    def restored(cls, job: Job) -> "_Run":
        """At its last checkpoint, or at its beginning."""
        stage, history = job.stage, empty_history(job.stage)
        if job.checkpoints is None or job.checkpoints.latest(stage.name) is None:
            return cls(job, begun(job.begin), stage.phase, history, 0)
        like = {"state": job.begin, "phase": stage.phase, "history": history}
        step, saved = job.checkpoints.restore(stage.name, like)
        return cls(job, begun(saved["state"], step), saved["phase"], dict(saved["history"]), step)

    @property
    def goes_on(self) -> bool:
        return self.finite and self.step < self.job.stage.steps

    def inputs(self) -> tuple[Control, tuple[Any, Any]]:
        """Schedule and batch of the step at hand; of a member that stands still, any."""
        task, stage = self.job.task, self.job.stage
        step = min(self.step, max(stage.steps - 1, 0))
        control = control_at(task.plan, stage, self.job.begin.knobs, step, self.phase)
        return control, task.data.batch(task.seed + 1000 * stage.order, step, task.plan.batch)

    def save(self) -> None:
        """Writes the checkpoint that `run_stage` would; a member that has diverged since the last look stops here."""
        if not bool(self.member.finite):
            self.finite, self.step = False, int(self.member.taken)
        if self.job.checkpoints is not None:
            tree = {"state": self.member.train, "phase": self.phase, "history": self.history}
            self.job.checkpoints.save(self.job.stage.name, self.step, tree)

    def ended(self) -> Ended:
        return Ended(self.member.train, self.phase, self.history, int(self.member.taken), self.finite)


def _stack(leaves: Sequence[Any]) -> Any:
    """By numpy: jax would compile a small program for each shape."""
    return jnp.stack(leaves) if is_key(leaves[0]) else np.stack([np.asarray(leaf) for leaf in leaves])


def _part(leaf: Any, at: int) -> Any:
    # A copy: what is taken out must outlive the whole, whose buffers the next call may overwrite.
    return leaf[at] if is_key(leaf) else jnp.array(np.asarray(leaf)[at], copy=True)
