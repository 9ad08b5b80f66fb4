"""Training of weights under masks and tables that hold them: the loop that recipes of compression retrain with."""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int

from cooptim.compile import compiled
from cooptim.data import Dataset
from cooptim.data.augment import augmentation
from cooptim.descent.measure import Measure
from cooptim.descent.teacher import TeacherLogits, lesson_logits, taught_loss
from cooptim.network.trace import Network
from cooptim.relax.codebook import shared

_ADAM = optax.scale_by_adam()
_AUGMENT, _END_SHARE = 1, 0.02  # as in `descent.step`; the cosine ends at this share of the rate
_EVERY = 50  # steps between two looks at the loss: a look waits for the step

Masks = tuple[Any, ...]  # for each leaf of params True where it lives, or None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Weights:
    """What a network's weights are made of; one entry of each tuple a leaf of its params, None where it has none.

    Attributes:
      params: as the network takes them.
      masks: True where a weight lives; elsewhere it is 0 whatever `params` says.
      tables: entries that the leaf's weights share, each weight the nearest, or the one that `labels` names.
      labels: places in the table, held; None lets each weight choose again after every step.
    """

    params: Any
    masks: tuple[Bool[Array, "..."] | None, ...]
    tables: tuple[Float[Array, "entry"] | None, ...]
    labels: tuple[Int[Array, "..."] | None, ...]


@dataclasses.dataclass(frozen=True)
class Lesson:
    """One stretch of training.

    Attributes:
      name: for messages. steps: length. rate: Adam's for weights at the start, cosine to 2 %.
      table_share: rate of table entries over that of weights.
      order: which order of the batches, so that stretches differ.
    """

    name: str
    steps: int
    rate: float
    table_share: float = 0.3
    order: int = 0


@dataclasses.dataclass(frozen=True, eq=False)
class Teacher:
    """A network whose outputs a smaller one learns: softened by `temperature`, with this share of the loss.

    Attributes:
      network: whose params these are; None for that of the Trainer.

    Source: Hinton, Vinyals, Dean, "Distilling the knowledge in a neural network" (2015).
    """

    params: Any
    state: Any
    share: float = 0.5
    temperature: float = 4.0
    network: Network | None = None


def free_weights(params: Any) -> Weights:
    """Weights that nothing holds."""
    none = (None,) * len(jax.tree.leaves(params))
    return Weights(params, none, none, none)


def built(weights: Weights) -> Any:
    """The params that the network runs with; differentiable in `params` and `tables`."""
    leaves, tree = jax.tree.flatten(weights.params)
    columns = zip(leaves, weights.masks, weights.tables, weights.labels, strict=True)
    return jax.tree.unflatten(tree, [_leaf(*column) for column in columns])


def _leaf(w: Any, mask: Any, table: Any, labels: Any) -> Any:
    w = jnp.asarray(w)
    if mask is not None:
        w = jnp.where(mask, w, jnp.zeros((), w.dtype))
    if table is None:
        return w
    if labels is not None:
        return jnp.where(table == 0, jax.lax.stop_gradient(table), table)[labels].astype(w.dtype)
    return shared(w.astype(table.dtype), table).astype(w.dtype)


@dataclasses.dataclass(frozen=True, eq=False)
class Trainer:
    """Trains one network on one data set; a program is compiled for each combination of masks and tables.

    Args:
      chunk: images a measured batch. augment: as in `Plan`.
    """

    network: Network
    data: Dataset
    batch: int
    seed: int
    chunk: int = 256
    augment: str = "none"

    @functools.cached_property
    def measure(self) -> Measure:
        """Accuracy of params, without a design."""
        return Measure(self.network, self.chunk)

    def accuracy(self, params: Any, state: Any, x: np.ndarray, labels: np.ndarray) -> float:
        """Share of correct labels."""
        return self.measure.accuracy(params, state, None, x, labels)[0]

    def train(self, weights: Weights, state: Any, lesson: Lesson, teacher: Teacher | None = None,
              progress: Any = None) -> tuple[Weights, Any]:  # fmt: skip
        """(weights, state) after a lesson; what they hold is held, and the caller's arrays live on.

        Raises FloatingPointError when the loss is not a number.
        """
        if progress is not None:
            progress.stage(lesson.name, lesson.steps)
        weights, state = jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), (weights, state))
        moments = _ADAM.init((weights.params, weights.tables))
        key = jax.random.key(self.seed + 1000 * lesson.order)
        for step in range(lesson.steps):
            cosine = _END_SHARE + (1.0 - _END_SHARE) * 0.5 * (1.0 + math.cos(math.pi * step / lesson.steps))
            own = jax.random.fold_in(key, step)
            x, y, goal = self._batch(lesson.order, step, own, teacher)
            rates = (np.float32(lesson.rate * cosine), np.float32(lesson.table_share * lesson.rate * cosine))
            soft = None if teacher is None else (np.float32(teacher.share), np.float32(teacher.temperature))
            weights, state, moments, loss = self._step(weights, state, moments, x, y, goal, rates, soft, own)
            if step % _EVERY == 0 or step == lesson.steps - 1:
                if not math.isfinite(float(loss)):
                    raise FloatingPointError(
                        f"stage {lesson.name}: the loss is not a number after step {step}; lower its rate "
                        f"({lesson.rate:g})"
                    )
                if progress is not None:
                    progress.step(step + 1, loss=float(loss))
        return weights, state

    def settled(self, params: Any, state: Any, steps: int) -> Any:
        """State with batch statistics of these params, as `descent.task.settled`."""
        if not jax.tree.leaves(state):
            return state
        batches = (self.data.batch(self.seed + 7, step, self.batch)[0] for step in range(steps))
        return self.measure.settled(params, state, None, batches)

    def _batch(self, order, step, key, teacher):  # type: ignore[no-untyped-def]
        """(images, labels, the teacher's logits) of a step."""
        seed = self.seed + 1000 * order
        x, y = self.data.batch(seed, step, self.batch)
        if augmentation(self.augment, self.data.image_shape) is not None:
            x = self._augmented(jax.random.fold_in(key, _AUGMENT), x)
        if teacher is None:
            return x, y, None
        logits, said = self._taught(teacher)
        lesson = logits.lesson(seed, step, self.batch)
        return x, y, said(lesson, x) if isinstance(lesson, tuple) else lesson

    def _taught(self, teacher: Teacher) -> tuple[TeacherLogits, Any]:
        """(what a teacher says, the program for a step whose images differ); of a held set it is said once for all."""
        if teacher not in self._lessons:
            network, data = self.network if teacher.network is None else teacher.network, self.data
            logits = TeacherLogits(
                network, teacher.params, teacher.state, data, min(self.chunk, len(data.x_train)),
                augmented=self.augment != "none",
            )  # fmt: skip
            self._lessons[teacher] = (logits, compiled(functools.partial(lesson_logits, network)))
        return self._lessons[teacher]

    @functools.cached_property
    def _lessons(self) -> dict[Teacher, tuple[TeacherLogits, Any]]:
        return {}

    @functools.cached_property
    def _augmented(self) -> Any:
        return compiled(augmentation(self.augment, self.data.image_shape) or (lambda key, x: x))

    @functools.cached_property
    def _step(self) -> Any:
        def loss(learned, held, state, x, y, goal, soft, key):  # type: ignore[no-untyped-def]
            weights = dataclasses.replace(held, params=learned[0], tables=learned[1])
            logits, after, _ = self.network.apply(built(weights), state, x, train=True, rngs=key)
            y = jnp.broadcast_to(y, logits.shape[:-1])  # every stage learns them, where inputs may leave early
            task = jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, y))
            if goal is None:
                return task, (after, task)
            return taught_loss(task, logits, goal, *soft), (after, task)

        def step(weights, state, moments, x, y, goal, rates, soft, key):  # type: ignore[no-untyped-def]
            learned = (weights.params, weights.tables)
            held = dataclasses.replace(weights, params=None, tables=())
            slopes, (after, task) = jax.grad(loss, has_aux=True)(learned, held, state, x, y, goal, soft, key)
            moves, moments = _ADAM.update(slopes, moments)
            params, tables = (
                jax.tree.map(lambda p, u, rate=rate: (p - rate * u).astype(p.dtype), old, move)
                for old, move, rate in zip(learned, moves, rates, strict=True)
            )
            return dataclasses.replace(held, params=params, tables=tables), after, moments, task

        return compiled(step, donate_argnums=(0, 2))
