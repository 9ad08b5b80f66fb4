"""What early exits do to a loss and to what runs: decisions by confidence, relaxed in training, hard when measured."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from cooptim.design.design import Design
from cooptim.relax.leaving import leaving_shares, leaving_stage, log_odds
from cooptim.workload import Workload
from cooptim.workload.graph import needed

_EVERY_STAGE = 0.5  # weight of the mean over stages in the loss; the rest is the stage at which an input leaves
_NEVER = 1e4  # log-odds that no input reaches


def staged_loss(
    workload: Workload,
    logits: Float[Array, "..."],
    labels: Int[Array, "batch"],
    margin: Float[Array, "exit"] | None,
    temperature: Float[ArrayLike, ""],
) -> tuple[Float[Array, ""], Float[Array, ""], Float[Array, "layer"] | None]:
    """(cross-entropy [nat], accuracy, share of inputs for which each layer runs or None) of a batch.

    Without exits the plain mean. With them half of the loss is the mean over stages, so that every head learns from
    every input, and half the expectation over the stage at which an input leaves, by a sigmoid of its confidence; this
    half and the reach move the margins. Confidence is taken without gradient, or heads would learn to be sure instead
    of right, which saves energy.

    Args:
      logits: [batch, class], or [stage, batch, class] where the workload has exits.
      temperature: of the decisions [nat]; they are hard at 0.
    """
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.broadcast_to(labels, logits.shape[:-1]))
    hits = (jnp.argmax(logits, axis=-1) == labels).astype(loss.dtype)
    shares = stage_shares(workload, logits, margin, temperature)
    if shares is None:
        return jnp.mean(loss), jnp.mean(hits), None
    shares = shares.astype(loss.dtype)
    right = jnp.mean(jnp.sum(shares * hits, axis=0))
    return staged_mean(loss, shares), right, reach(workload, jnp.mean(shares, axis=1))


def stage_shares(
    workload: Workload,
    logits: Float[Array, "..."],
    margin: Float[Array, "exit"] | None,
    temperature: Float[ArrayLike, ""],
) -> Float[Array, "stage batch"] | None:
    """How likely each input leaves at each stage, by margins alone (no gradient to the logits); None without exits."""
    if not workload.exits or margin is None:
        return None
    return leaving_shares(log_odds(jax.lax.stop_gradient(logits[:-1])), margin, temperature)


def staged_mean(
    loss: Float[Array, "*stage batch"], shares: Float[Array, "stage batch"] | None
) -> Float[Array, ""]:  # fmt: skip
    """Mean of a loss: with shares half over every stage, half over the stage at which an input leaves."""
    if shares is None:
        return jnp.mean(loss)
    expected = jnp.mean(jnp.sum(shares.astype(loss.dtype) * loss, axis=0))
    return _EVERY_STAGE * jnp.mean(loss) + (1.0 - _EVERY_STAGE) * expected


def decided(
    workload: Workload, logits: Float[Array, "..."], margin: Float[Array, "exit"] | None
) -> tuple[Float[Array, "batch class"], Float[Array, "layer"] | None]:
    """(logits of the stage at which each input leaves, measured share of inputs for which each layer runs or None).

    Without margins no input leaves early.
    """
    if not workload.exits or margin is None:
        return (last_stage(logits) if workload.exits else logits), None
    shares = leaving_stage(log_odds(logits[:-1]), margin)
    return jnp.sum(shares[..., None] * logits, axis=0), reach(workload, jnp.mean(shares, axis=1))


def reach(workload: Workload, shares: Float[Array, "stage"]) -> Float[Array, "layer"]:
    """Share of inputs for which each layer runs, from the shares that leave at each stage."""
    return shares @ jnp.asarray(needed(workload), shares.dtype)


def exit_shares(workload: Workload, runs: Float[ArrayLike, "layer"]) -> dict[str, float]:
    """Share of inputs that leaves at each exit, by name, from what `reach` gave; its inverse."""
    # Each stage needs a layer that no earlier one does, its own end, so that the rows are independent.
    shares = np.linalg.lstsq(np.asarray(needed(workload), float).T, np.asarray(runs, float), rcond=None)[0]
    return dict(zip(workload.exits, np.clip(shares[:-1], 0.0, 1.0).tolist(), strict=True))


def last_stage(logits: Float[Array, "*stage batch class"]) -> Float[Array, "batch class"]:
    """Logits of the whole network, where some inputs leave it early."""
    return logits.reshape(-1, *logits.shape[-2:])[-1]


def without_exits(design: Design) -> Design:
    """The design in which every input runs the whole network, heads included."""
    if design.exit_margin is None:
        return design
    return dataclasses.replace(design, exit_margin=jnp.full_like(jnp.asarray(design.exit_margin), _NEVER))
