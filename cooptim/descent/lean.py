"""Networks without dead channels: pruning leaves channels that nothing reads, and a chip pays for each of them.

A design with pruned weights still takes the cycles, the control and the fetches of every channel. Those that are dead
leave the network, which computes the same for less, and descents that price live channels alone take further ones.
"""

import dataclasses
import math
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cooptim.cost.bound import energy_bound_pj
from cooptim.data import Dataset
from cooptim.descent.budget import Setting
from cooptim.descent.descend import Descent
from cooptim.descent.finalize import Limits, finalize
from cooptim.descent.live import IMAGES, Channels, LiveDescent, cut_factors, joined, live_descent
from cooptim.descent.loop import Progress
from cooptim.descent.plan import Plan, plan_for
from cooptim.descent.result import Priced, Result
from cooptim.descent.run import assembled, tested, unpruned
from cooptim.descent.task import Task, priced, signed_task, with_teacher
from cooptim.design.design import Design
from cooptim.hardware.machine import Machine
from cooptim.network.shrink import Shrunk, UnshrinkableError, without_dead
from cooptim.network.trace import Network

_SHARE = 0.7  # of its energy that the first round asks of a design that keeps the accuracy
_SAME = (
    1e-2  # mean difference of quantized outputs over the largest: sums in another order tip a rounding here or there
)


class Leaner(NamedTuple):
    """A task whose network has lost its dead channels, and the same function on it."""

    task: Task
    same: Priced
    channels: Mapping[str, tuple[int, int]]  # by the weights that make them, (before, after)


def leaner(task: Task, one: Priced, deadline_ns: float, *, keep: Collection[str] = ()) -> Leaner | None:
    """The function of a legal design without its dead channels, on the hardware that suits it; None if none is dead.

    Args:
      keep: as in `cooptim.network.shrink.without_dead`.

    Raises UnshrinkableError where the network's function does not take fewer channels or its output changes.
    """
    x = task.data.x_train[:IMAGES]
    small = without_dead(task.network, one.params, one.state, x, keep=keep)
    if all(before == after for before, after in small.channels.values()):
        return None
    network, signed = small.network, task.space.input_signed
    less = signed_task(network, task.machine, task.data, task.plan, task.seed, signed)
    less = dataclasses.replace(less, teacher=task.teacher)
    design = _carried(task, less, one.design, small)
    _require_same(task.network, one, network, design, x)
    legal = finalize(less, design, network.params, network.state, deadline_ns)
    return Leaner(less, priced(less, one.title, network.params, network.state, legal, deadline_ns), small.channels)


def _carried(task: Task, less: Task, design: Design, small: Shrunk) -> Design:
    """The design on the smaller network; its tilings are to be chosen anew."""
    valid = jnp.asarray(less.space.tilings.valid, design.tiling.dtype)
    scales = design.weight_scale
    if scales is not None:
        scales = tuple(cut_factors(task.network, small, row, np.asarray(scale)) for row, scale in enumerate(scales))
    return dataclasses.replace(design, tiling=valid / jnp.sum(valid, axis=1, keepdims=True), weight_scale=scales)


def _require_same(network: Network, one: Priced, smaller: Network, design: Design, x: np.ndarray) -> None:
    """Raises UnshrinkableError unless the quantized networks agree, as where words of pruned weights are not zero."""

    def outputs(which: Network, params: Any, state: Any, design: Design) -> np.ndarray:
        return np.asarray(jax.jit(lambda p, s, d: which.apply(p, s, x, d)[0])(params, state, design), np.float64)

    before = outputs(network, one.params, one.state, one.design)
    after = outputs(smaller, smaller.params, smaller.state, design)
    apart = float(np.mean(np.abs(after - before)) / max(np.max(np.abs(before)), 1e-30))
    if not apart <= _SAME:
        raise UnshrinkableError(
            f"{network.workload.name}: without dead channels the quantized outputs move by {apart:.2g} of the largest, "
            "as where the words of pruned weights are no zeros or a scale counts them; keep the design as it is"
        )


def lean(
    network: Network,
    machine: Machine,
    data: Dataset,
    result: Result,
    *,
    rounds: int = 2,
    plan: Plan | None = None,
    keep: Collection[str] = (),
    progress: Progress | None = None,
) -> tuple[Network, Result]:
    """A smaller network and the result on it: channels die by gradient, leave, and what they took is saved.

    Channels that are dead already leave the final design, which keeps its function and takes less. In each round a
    joint descent follows that prices live channels alone and is asked for 0.7 of the energy, nearer to it after each
    round that missed the accuracy, or, where the design misses it, for the energy that it has, to win it back. Of both
    the cheaper one that keeps the accuracy goes on.

    Args:
      network, machine, data: those of the run. result: what `optimize` gave; its budgets but for energy still hold.
      rounds: of descents.
      plan: that of the run; None for the default.
      keep: names of `cooptim.network.shrink.channel_counts` that lose nothing.

    Returns:
      The smaller network, its weights those of the final design, and a result whose references are those of the run, of
      the whole network, and whose bound is that of the smaller one; the network and the result as they came where
      no channel leaves and no descent gains.

    Raises ValueError for a plan of other methods than the run's, UnshrinkableError where channels cannot leave.
    """
    final, budget = result.designs["final"], result.budget
    plan = plan_for(len(data.x_train)) if plan is None else plan
    task = _task_of(network, machine, data, result, plan)
    deadline_ns = budget.latency_ns
    if deadline_ns is None:
        deadline_ns = float(result.designs["reference_16b"].report.total_latency_ns)
    limits = Limits(None, deadline_ns, budget.area_mm2, result.float_val_accuracy - budget.accuracy_drop)
    widest = int(np.max(np.asarray(result.designs["best_uniform"].design.weight_bits)))
    best, share = Descent(final, result.relaxed, result.history, result.snap_drop), _SHARE
    left: Channels = result.channels
    task, best, left = _without_dead(task, best, left, deadline_ns, keep)
    for number in range(rounds):
        target = dataclasses.replace(limits, energy_pj=_target_pj(best.final, limits, share))
        found = _descent(task, best.final, target, widest, result.widths_held, number, keep, progress)
        if found is None or not _is_better(found.descent.final, best.final, limits):
            share = math.sqrt(share)
            continue
        task, best, left = _without_dead(found.task, found.descent, joined(left, found.channels), deadline_ns, keep)
    if best.final is final:
        return network, result
    one = dataclasses.replace(best.final, title=final.title)
    bound = energy_bound_pj(task.space.workload, task.machine, deadline_ns, tilings=task.space.tilings)
    setting = Setting(budget.energy_pj, deadline_ns, budget.area_mm2, bound, budget.lift)
    designs = result.designs | {"final": tested(task, one)}
    accuracy = (result.float_val_accuracy, result.float_test_accuracy)
    made = assembled(task, budget, setting, limits, accuracy, result.dense_16b_pj, designs, best)
    smaller = dataclasses.replace(task.network, params=one.params, state=one.state)
    return smaller, dataclasses.replace(made, channels=left)


def _task_of(network: Network, machine: Machine, data: Dataset, result: Result, plan: Plan) -> Task:
    """The task of the run; ValueError for another plan than the run's."""
    final, parent = result.designs["final"], result.designs["reference_16b"]
    task = signed_task(network, machine, data, plan, result.seed, final.design.input_signed)
    if task.space.methods != final.design.methods or (task.faults is None) != (result.errors is None):
        raise ValueError(
            f"lean: the run of {network.workload.name} had another plan (quantizer, pattern, per_channel or errors); "
            "pass it as plan="
        )
    return with_teacher(task, parent.params, parent.state)


def _without_dead(
    task: Task, best: Descent, left: Channels, deadline_ns: float, keep: Collection[str]
) -> tuple[Task, Descent, Channels]:
    """What goes on, without the channels that are dead in it."""
    small = leaner(task, best.final, deadline_ns, keep=keep)
    if small is None:
        return task, best, left
    return small.task, unpruned(best, small.same), joined(left, small.channels)


def _target_pj(one: Priced, limits: Limits, share: float) -> float:
    """What the next descent is asked for."""
    energy_pj = float(one.report.total_energy_pj)
    return energy_pj * share if one.val_accuracy >= limits.val_accuracy else energy_pj


def _descent(
    task: Task, begin: Priced, limits: Limits, widest: int, held: bool, number: int, keep: Collection[str],
    progress: Progress | None,
) -> LiveDescent | None:  # fmt: skip
    """A joint descent of the network from its weights; None where its training ran away."""
    bits = widest if held else None
    try:
        return live_descent(
            task, begin.params, begin.state, limits, f"lean{number}", bits, progress, start_bits=widest, keep=keep,
            design=begin.design,
        )  # fmt: skip
    except FloatingPointError:
        return None


def _is_better(found: Priced, same: Priced, limits: Limits) -> bool:
    """Whether it takes less of those that keep the accuracy; is more accurate where none does."""

    def rank(one: Priced) -> tuple[bool, float]:
        keeps = one.val_accuracy >= limits.val_accuracy
        return keeps, -float(one.report.total_energy_pj) if keeps else one.val_accuracy

    return rank(found) > rank(same)
