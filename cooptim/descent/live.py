"""A descent that prices live channels alone: those that die on its way leave the network before it lands.

While it runs the network keeps its shape, and its price is that of the network without the channels that are dead at
the thresholds of the moment (`cooptim.network.liveness`), so that the last weights of a channel are pressed by the
cycles, words and control of the whole channel. At its end the dead ones leave, and what is left is snapped, repaired
and fine-tuned like any design.
"""

import dataclasses
import functools
import math
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cooptim.descent.descend import (
    Descent,
    Ending,
    best_hardware,
    descent_stage,
    landed,
    usual_ending,
    with_held_widths,
)
from cooptim.descent.finalize import Limits
from cooptim.descent.loop import Part, Progress, empty_history, freeze_step, run_stage
from cooptim.descent.step import TrainState, init_state
from cooptim.descent.task import Task, decode, signed_task, step_of
from cooptim.design.design import Design
from cooptim.design.knobs import Knobs, Phase
from cooptim.design.operands import MIN_BITS
from cooptim.network.liveness import liveness
from cooptim.network.shrink import Shrunk, channel_counts, shrunk, without_dead
from cooptim.network.trace import Network
from cooptim.relax.bitwidth import range_of

Channels = Mapping[str, tuple[int, int]]  # by the weights that make them, (at first, left)
IMAGES = 64  # on which functions are held against each other
# Of the rate of widths that start near their end: channels that die and widths that fall at once cost accuracy that
# neither does alone (LeNet-5, experiments/joint_vs_sequential: 1.0 points at 0.3 of their whole rate, 0.0 at 0.1).
_SLOW = 1 / 3
_MARGIN_BITS = 0.15  # of a width that is to be learned, to the next wider one
_LEAVE = 0.5  # of the steps, after which dead channels leave for the first time


class LiveDescent(NamedTuple):
    """A task whose network has lost channels, or the one that came, the descent on it and what is left of channels."""

    task: Task
    descent: Descent
    channels: Channels


def live_descent(
    task: Task, params: Any, state: Any, limits: Limits, name: str, bits: int | None, progress: Progress | None = None,
    *, start_bits: float | None = None, keep: Collection[str] = (), design: Design | None = None, held: bool = False,
    ending: Ending | None = None,
) -> LiveDescent:  # fmt: skip
    """As `descend`, with dead channels free of charge, and gone in the end.

    They leave half way, when widths freeze and at the end, for the hardware that suits the network that is left is
    better than what the price of live channels can know, and what it saves is to be spent before the descent ends.

    Args:
      keep: as in `cooptim.network.shrink.without_dead`.
      design: of these parameters, from whose widths, ranges and thresholds it goes on; None starts uniform.
      held: whether the widths of `design` stay, as they do without one at `bits`.
      ending: None takes single moves where widths are learned.

    Raises ValueError for `held` without a design; UnshrinkableError, before it descends, where the network's function
    does not take fewer channels.
    """
    if held and design is None:
        raise ValueError("live_descent: held=True keeps the widths of a design; pass design=, or bits= for one width")
    _require_shrinkable(task, params, state, keep)
    stage, now = descent_stage(task, params, state, limits, name, bits, start_bits, design)
    if held and design is not None:
        stage = with_held_widths(stage, design)
    elif bits is None and stage.width_rate < 1.0:
        stage = dataclasses.replace(stage, width_rate=_SLOW * stage.width_rate)
        now = dataclasses.replace(now, knobs=_inside(task, now.knobs, stage.phase))
    ending = ending or (Ending.HELD if held else usual_ending(bits))
    history, phase, first = empty_history(stage), stage.phase, 0
    left: Channels = {}
    for last in sorted({math.ceil(_LEAVE * stage.steps), freeze_step(task.plan, stage), stage.steps}):
        steps = Part(first, last, phase, history)
        now, phase, history = run_stage(_priced_live(task, now, keep), stage, now, None, progress, steps)
        task, now, gone = _smaller(task, now, phase, limits.latency_ns, keep)
        stage = dataclasses.replace(stage, refit=functools.partial(_refitted, task, limits.latency_ns))
        first, left = last, joined(left, gone)
    return LiveDescent(task, landed(task, now, phase, history, limits, name, ending, None, progress), left)


def _inside(task: Task, knobs: Knobs, phase: Phase) -> Knobs:
    """Knobs whose steps are so coarse that no width is next to a wider one, which the noise of a batch would tip."""
    design = decode(task, knobs, phase)

    def coarser(log2_step: Any, log2_range: Any, bits: Any, signed: Any) -> Any:
        levels = range_of(jnp.ones_like(log2_step), jnp.maximum(bits - _MARGIN_BITS, MIN_BITS), signed)
        return jnp.maximum(log2_step, log2_range - jnp.log2(levels))

    signed = jnp.asarray(task.space.signed, knobs.input_log2_step.dtype)
    return dataclasses.replace(
        knobs,
        weight_log2_step=coarser(knobs.weight_log2_step, knobs.weight_log2_range, design.weight_bits, 1.0),
        input_log2_step=coarser(knobs.input_log2_step, knobs.input_log2_range, design.input_bits, signed),
    )


def joined(left: Channels, found: Channels) -> Channels:
    """Channels (first, left) after more have gone."""
    return {**left, **{name: (left.get(name, at)[0], at[1]) for name, at in found.items()}}


def _refitted(task: Task, deadline_ns: float, state: TrainState, phase: Phase) -> Knobs:
    return best_hardware(task, state, phase, deadline_ns)


def _require_shrinkable(task: Task, params: Any, state: Any, keep: Collection[str]) -> None:
    """Raises UnshrinkableError unless each layer that has channels of its own can do with one less."""
    network, x = task.network, task.data.x_train[:IMAGES]
    counts = channel_counts(network, params, state, x[:1])
    shares = {name: 1 / n for name, n in counts.items() if n > 1 and name not in keep}
    if shares:
        shrunk(network, params, state, x, shares)


def _priced_live(task: Task, now: TrainState, keep: Collection[str]) -> Task:
    """The task whose steps price live channels alone; itself where none can leave."""
    found = liveness(task.network, now.params, now.state, task.data.x_train[:1], keep)
    if found is None:
        return task
    return dataclasses.replace(task, step=step_of(task.network, task.space, task.data, task.plan, task.faults, found))


def _smaller(
    task: Task, now: TrainState, phase: Phase, deadline_ns: float, keep: Collection[str]
) -> tuple[Task, TrainState, Channels]:
    """(task, state, channels) without what is dead at the thresholds of the moment; what is pruned may come back."""
    soft = decode(task, now.knobs, phase)
    pruned = task.network.harden(now.params, soft)
    small = without_dead(task.network, pruned, now.state, task.data.x_train[:IMAGES], keep=keep)
    if all(before == after for before, after in small.channels.values()):
        return task, now, small.channels
    less = signed_task(small.network, task.machine, task.data, task.plan, task.seed, task.space.input_signed)
    less = dataclasses.replace(less, teacher=task.teacher)
    params, state = left_of(small, now.params, now.state)
    scales = now.knobs.weight_log2_scale
    if scales is not None:
        scales = tuple(cut_factors(task.network, small, row, np.asarray(scale)) for row, scale in enumerate(scales))
    tilings = less.init(*jnp.ones((2, less.layers))).tiling_logits  # where every descent starts
    knobs = dataclasses.replace(now.knobs, tiling_logits=tilings, weight_log2_scale=scales)
    fresh = init_state(params, state, knobs, task.seed)
    moments = now.weight_moments
    moments = moments._replace(mu=left_of(small, moments.mu, ())[0], nu=left_of(small, moments.nu, ())[0])
    begin = dataclasses.replace(fresh, weight_moments=moments, multipliers=now.multipliers, key=now.key)
    return less, dataclasses.replace(begin, knobs=best_hardware(less, begin, phase, deadline_ns)), small.channels


def left_of(small: Shrunk, params: Any, state: Any) -> Any:
    """(params, state) at the places that stay; without a state, those of params."""
    leaves, tree = jax.tree.flatten((params, state))
    for (leaf, axis), kept in small.kept.items():
        if leaf < len(leaves):
            leaves[leaf] = jnp.take(leaves[leaf], kept, axis=axis)
    return jax.tree.unflatten(tree, leaves)


def cut_factors(network: Network, small: Shrunk, row: int, scale: np.ndarray) -> Any:
    """Factors of the output channels of a layer that stay."""
    for leaf, rows, site in network.masked_leaves if scale.size else ():
        if row not in rows or site.axes is None or not site.intact:
            continue
        stays = np.ones([site.axes.sizes[axis] for axis in site.axes.channels], bool)
        for place, axis in enumerate(site.axes.channels):
            kept = small.kept.get((leaf, axis))
            if kept is not None:
                gone = np.setdiff1d(np.arange(stays.shape[place]), kept)
                stays[(slice(None),) * place + (gone,)] = False
        return jnp.asarray(scale[stays.ravel()])
    return jnp.asarray(scale)
