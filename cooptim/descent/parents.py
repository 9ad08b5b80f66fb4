"""What the members of one seed share: the float parent and the references."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from cooptim.descent.checkpoint import Checkpoints
from cooptim.descent.descend import descent_stage
from cooptim.descent.finalize import Limits
from cooptim.descent.loop import Progress, Stage
from cooptim.descent.references import reference_16b
from cooptim.descent.result import Budget, Priced
from cooptim.descent.run import accuracy_on_test, float_parent, tested
from cooptim.descent.step import TrainState
from cooptim.descent.task import Task, calibrated_knobs, decode, float_design
from cooptim.design.knobs import free_phase
from cooptim.network.trace import Network

Start = tuple[Any, Any]  # (params, state)


@dataclasses.dataclass(frozen=True)
class Parent:
    """The float network of one seed, measured, and its 16-bit reference; `task` holds the seed."""

    task: Task
    params: Any
    state: Any
    val_accuracy: float
    test_accuracy: float
    reference: Priced
    dense_pj: float


def trained(
    task: Task, starts: Mapping[int, Start], checkpoints: Mapping[int, Checkpoints | None], progress: Progress | None
) -> tuple[dict[int, Start], dict[int, str]]:
    """({seed: (params, state) after float training}, {seed: why it diverged})."""
    done: dict[int, Start] = {}
    lost: dict[int, str] = {}
    for seed, (params, state) in starts.items():
        try:
            done[seed] = float_parent(
                dataclasses.replace(task, seed=seed), params, state, checkpoints[seed], progress
            )  # fmt: skip
        except FloatingPointError as error:
            lost[seed] = f"float parent: {error}"
    return done, lost


def parent_of(task: Task, start: Start) -> Parent:
    """A float network measured and priced at 16 bits."""
    params, state = start
    data = task.data
    plain = float_design(task, calibrated_knobs(task, params, state, task.plan.start_bits))
    val = task.measure.accuracy(params, state, plain, data.x_val, data.y_val)[0]
    reference, dense_pj = reference_16b(task, params, state)
    test = accuracy_on_test(task, params, state, plain)
    return Parent(task, params, state, val, test, tested(task, reference), dense_pj)


def rehearsed(task: Task, start: Start, budget: Budget) -> tuple[Stage, TrainState]:
    """(a member's stage, its beginning) at untrained weights, every program but the step compiled and run once."""
    params, state = start
    reference, _ = reference_16b(task, params, state)
    latency_ns = float(reference.report.total_latency_ns) if budget.latency_ns is None else budget.latency_ns
    limits = Limits(None, latency_ns, budget.area_mm2, 0.0)
    stage, begin = descent_stage(task, params, state, limits, "joint0", None)
    design = decode(task, begin.knobs, free_phase(task.layers))
    batch = task.data.batch(task.seed, 0, task.plan.batch)[0]
    task.measure.settled(params, state, design, [batch])
    return stage, begin


def starts_of(network: Network | Callable[[int], Network], seeds: tuple[int, ...]) -> tuple[Network, dict[int, Start]]:
    """(the network that is run, {seed: (params, state) before training}).

    Raises ValueError when the network of one seed is not of the shape of the first's.
    """
    if isinstance(network, Network):
        return network, {seed: (network.params, network.state) for seed in seeds}
    first = network(seeds[0])
    starts = {seeds[0]: (first.params, first.state)}
    for seed in seeds[1:]:
        other = network(seed)
        starts[seed] = (other.params, other.state)
        if _form(starts[seed]) != _form(starts[seeds[0]]):
            raise ValueError(
                f"network of seed {seed}: its parameters are not of the shapes of seed {seeds[0]}'s; a sweep runs one "
                "network from several initial weights: let the seed choose weights only"
            )
    return first, starts


def _form(tree: Any) -> Any:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [(jax.tree_util.keystr(path), np.shape(leaf), str(leaf.dtype)) for path, leaf in leaves]
