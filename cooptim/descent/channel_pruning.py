"""Channels removed in rounds with training between them: a smaller network, and what it costs before and after."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from cooptim.cost.evaluate import evaluate
from cooptim.cost.report import CostReport
from cooptim.descent.pruning import SETTLE_STEPS
from cooptim.descent.retrain import Lesson, Teacher, Trainer, free_weights
from cooptim.descent.wide import wide
from cooptim.hardware.machine import Machine
from cooptim.network.shrink import shrunk
from cooptim.network.trace import Network


@dataclasses.dataclass(frozen=True)
class Slim:
    """A smaller network after one round, its weights in `network.params` and `network.state`.

    Attributes:
      channels: by the weights that make them, (before the round, after). val_accuracy: fraction.
    """

    network: Network
    channels: Mapping[str, tuple[int, int]]
    val_accuracy: float


def prune_channels(
    trainer: Trainer,
    params: Any,
    state: Any,
    shares: Sequence[float | Mapping[str, float]],
    lesson: Lesson,
    *,
    score: str = "l1",
    teacher: Teacher | None = None,
    least_accuracy: float = 0.0,
    progress: Any = None,
) -> list[Slim]:
    """The network after each round, until one misses `least_accuracy` on validation data; that round is listed too.

    Args:
      shares: of the channels that are left to remove in each round, as in `cooptim.network.shrink.shrunk`.
      lesson: training of each round, its order counting up.
      teacher: of the network that `trainer` has.

    Raises ValueError and UnshrinkableError as `shrunk` does.
    """
    found: list[Slim] = []
    x = trainer.data.x_train[: min(trainer.batch, len(trainer.data.x_train))]
    if teacher is not None and teacher.network is None:
        teacher = dataclasses.replace(teacher, network=trainer.network)
    for number, share in enumerate(shares):
        small = shrunk(trainer.network, params, state, x, share, score=score)
        trainer = dataclasses.replace(trainer, network=small.network)
        stretch = dataclasses.replace(lesson, name=f"{lesson.name} {number + 1}", order=lesson.order + number)
        weights, state = trainer.train(
            free_weights(small.network.params), small.network.state, stretch, teacher, progress
        )
        params = weights.params
        state = trainer.settled(params, state, SETTLE_STEPS)
        accuracy = trainer.accuracy(params, state, trainer.data.x_val, trainer.data.y_val)
        trained = dataclasses.replace(small.network, params=params, state=state)
        found.append(Slim(trained, small.channels, accuracy))
        if accuracy < least_accuracy:
            break
    return found


def wide_costs(network: Network, machine: Machine) -> CostReport:
    """Price of the network at the machine's full width, nominal supply and best tilings, not a zero anywhere."""
    design, stats = wide(network.workload, machine)
    return evaluate(network.workload, machine, design, stats)
