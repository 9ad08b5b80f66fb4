"""A member of a sweep: a training state that a mask freezes once it has diverged or finished."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from cooptim.descent.step import TrainState


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Member:
    """What a sweep carries of a member; `taken` counts the steps that moved it, `finite` falls when it diverges."""

    train: TrainState
    finite: Bool[Array, ""]
    taken: Int[Array, ""]


def begun(train: TrainState, taken: int = 0) -> Member:
    """A member at its beginning, or after so many steps."""
    # 32 bits whatever jax's default: a compiled step takes one type only.
    return Member(train, jnp.asarray(True), jnp.asarray(taken, jnp.int32))


def masked(step: Callable[..., Any]) -> Callable[..., Any]:
    """`(member, control, running, x, labels) -> (member, metrics)` of `step(state, control, x, labels)`, to be vmapped.

    A member that is not `running` stays as it is. So does one whose loss is not finite, or whose weights, batch
    statistics, knobs or multipliers would not be: it keeps the last state whose numbers are, and never moves again.
    """

    def move(old: Member, control: Any, running: Any, x: Any, labels: Any) -> tuple[Member, Any]:
        new, seen = step(old.train, control, x, labels)
        good = all_finite((seen.loss, new.params, new.state, new.knobs, new.multipliers))
        moves = running & old.finite & good
        train = jax.tree.map(lambda a, b: jnp.where(moves, a, b), new, old.train)
        return Member(train, old.finite & (good | ~running), old.taken + moves.astype(old.taken.dtype)), seen

    return move


def all_finite(tree: Any) -> Bool[Array, ""]:
    """Whether no real number of a tree is infinite or NaN; whole numbers and keys always are finite."""
    reals = (leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact))
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in reals]))
