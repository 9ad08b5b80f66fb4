"""Distillation: the float parent's softened outputs beside the labels, the same for every design of a run.

Source: Hinton, Vinyals, Dean, "Distilling the knowledge in a neural network" (2015).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from cooptim.compile import compiled
from cooptim.data import Dataset
from cooptim.descent.stages import last_stage, staged_mean
from cooptim.network.trace import Network


def taught_loss(
    task: Float[Array, ""],
    logits: Float[Array, "*stage batch class"],
    teacher: Float[Array, "batch class"],
    weight: Float[ArrayLike, ""],
    temperature: Float[ArrayLike, ""],
    shares: Float[Array, "stage batch"] | None = None,
) -> Float[Array, ""]:
    """(1 - weight) of `task`, the loss to the labels, and `weight` of that to the teacher's softened outputs [nat].

    Where inputs may leave early, every stage learns from the teacher's last, and the soft term is a mean over stages as
    `task` is one (`stages.staged_mean`), so that margins feel what leaving costs whatever the weight. Both outputs are
    divided by temperature before the softmax, and the soft term is multiplied by its square, so that its gradient keeps
    its size whatever the temperature.

    Args:
      shares: of inputs that leave at each stage, as `stages.stage_shares`; None: stages count alike.

    Source: Hinton et al. 2015, sections 2 and 2.1.
    """
    soft_labels = jax.nn.softmax(jax.lax.stop_gradient(teacher) / temperature)
    soft = staged_mean(optax.softmax_cross_entropy(logits / temperature, soft_labels), shares)
    share = jnp.asarray(weight, task.dtype)
    return (1.0 - share) * task + share * jnp.asarray(temperature, task.dtype) ** 2 * soft


class TeacherLogits:
    """What a trained network teaches: the logits of its eval mode, for the batches of a data set.

    Of a held set they are computed once. Where a step changes the images (`augmented`), or the set is a stream, they
    depend on the step, and the parameters go along instead.
    """

    def __init__(
        self, network: Network, params: Any, state: Any, data: Dataset, chunk: int, *, augmented: bool
    ) -> None:
        self._network, self._params, self._state, self._data = network, params, state, data
        self._table: np.ndarray | None = None
        if data.stream is None and not augmented:
            run = compiled(lambda p, s, x: last_stage(network.apply(p, s, x, train=False)[0]))
            x = data.x_train
            padded = np.concatenate([x, np.repeat(x[:1], -len(x) % chunk, axis=0)])
            parts = [np.asarray(run(params, state, padded[at : at + chunk])) for at in range(0, len(x), chunk)]
            self._table = np.concatenate(parts)[: len(x)]

    def lesson(self, seed: int, step: int, size: int) -> Any:
        """What a step takes beside `data.batch(seed, step, size)`: logits [batch, class], or (parameters, state)."""
        if self._table is None:
            return self._params, self._state
        return self._table[self._data.rows(seed, step, size)]


def lesson_logits(network: Network, lesson: Any, x: Float[Array, "batch ..."]) -> Float[Array, "batch class"]:
    """The teacher's logits for the images of a step, from what `TeacherLogits.lesson` gave; no gradient passes them."""
    if not isinstance(lesson, tuple):
        return lesson
    params, state = lesson
    return jax.lax.stop_gradient(last_stage(network.apply(params, state, x, train=False)[0]))
