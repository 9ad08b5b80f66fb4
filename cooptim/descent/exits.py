"""Margins of early exits fitted to held-out images: by gradient on expected error and energy, at many prices."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from cooptim.compile import compiled
from cooptim.descent.finalize import Limits
from cooptim.descent.stages import reach, without_exits
from cooptim.descent.task import Task
from cooptim.design.design import Design
from cooptim.relax.leaving import leaving_shares, leaving_stage, log_odds
from cooptim.workload.graph import needed

PRICES: tuple[float, ...] = tuple(
    np.geomspace(1e-3, 1.0, 20).tolist()
)  # errors that the whole network's energy is worth
_STEPS = 250
_RATE = 0.1  # nat a step: ten times the spread of confidences that networks have
_TEMPERATURES = (1.0, 0.05)  # of the decisions, annealed geometrically [nat]


class Choice(NamedTuple):
    """Margins, and what they come to on the images they were fitted to."""

    margin: np.ndarray  # [exit]
    shares: np.ndarray  # [stage], of images that leave there
    accuracy: float
    energy_pj: float  # mean over images, by `evaluate` at these shares


def expected_cost(
    margin: Float[Array, "exit"],
    confidence: Float[Array, "exit image"],
    wrong: Float[Array, "stage image"],
    stage_cost: Float[Array, "stage"],
    price: Float[ArrayLike, ""],
    temperature: Float[ArrayLike, ""],
) -> Float[Array, ""]:
    """Expected share of errors plus price times expected cost, decisions relaxed at this temperature [nat]."""
    shares = leaving_shares(confidence, margin, temperature)
    return jnp.mean(jnp.sum(shares * (wrong + price * stage_cost[:, None]), axis=0))


@functools.cache
def _fitter() -> Any:
    slopes = jax.vmap(jax.grad(expected_cost), in_axes=(0, None, None, None, 0, None))
    first, last = _TEMPERATURES

    def fit(start, confidence, wrong, stage_cost, prices):  # type: ignore[no-untyped-def]
        adam = optax.adam(optax.cosine_decay_schedule(_RATE, _STEPS, 0.02))

        def step(carry, progress):  # type: ignore[no-untyped-def]
            margin, moments = carry
            slope = slopes(margin, confidence, wrong, stage_cost, prices, first * (last / first) ** progress)
            update, moments = adam.update(slope, moments)
            return (margin + update, moments), None

        margin = jnp.broadcast_to(start, (len(prices), len(start)))
        (margin, _), _ = jax.lax.scan(step, (margin, adam.init(margin)), jnp.linspace(0.0, 1.0, _STEPS))
        return margin

    return compiled(fit)


def fitted_margins(
    start: Float[Array, "exit"],
    confidence: Float[Array, "exit image"],
    wrong: Float[Array, "stage image"],
    stage_cost: Float[Array, "stage"],
    prices: Float[Array, "price"],
) -> Float[Array, "price exit"]:
    """Margins that minimize `expected_cost` at each price, by Adam as the decisions harden.

    Args:
      stage_cost: of an input that leaves at each stage, over that of the whole network.
    """
    return _fitter()(start, confidence, wrong, stage_cost, prices)


def exit_choices(task: Task, params: Any, state: Any, design: Design, period_ns: float) -> list[Choice]:
    """Margins fitted to the validation images at each of PRICES, cheapest first; with the design's own, and none.

    Where errors are injected, to the images under each draw that a search sees.

    Energies are those of `evaluate` at the shares that leave; the deadline is not touched, for it holds for an input
    that runs every layer.
    """
    workload, data = task.space.workload, task.data
    draws = task.measure.few
    logits = np.concatenate([task.measure.logits(params, state, design, data.x_val, draw) for draw in draws], axis=-2)
    labels = np.tile(data.y_val, len(draws))
    stats = task.measure.stats(params, state, design, *task.stats_images)

    def energy_pj(runs: Any) -> float:
        at = dataclasses.replace(stats, reach=jnp.asarray(runs, stats.weight_density.dtype))
        return float(task.pricer.report(design, at, period_ns).total_energy_pj)

    stage_pj = np.array([energy_pj(runs) for runs in needed(workload)])
    confidence = jax.jit(log_odds)(logits[:-1])
    wrong = jnp.asarray(np.argmax(logits, axis=-1) != labels, confidence.dtype)
    own = jnp.asarray(design.exit_margin, confidence.dtype)
    cost, prices = (jnp.asarray(x, confidence.dtype) for x in (stage_pj / stage_pj[-1], PRICES))
    margins = [*np.asarray(fitted_margins(own, confidence, wrong, cost, prices)), np.asarray(own)]
    margins.append(np.asarray(without_exits(design).exit_margin))
    found = []
    for margin in margins:
        stage = leaving_stage(confidence, jnp.asarray(margin, confidence.dtype))
        shares = jnp.mean(stage, axis=1)
        right = 1.0 - float(jnp.mean(jnp.sum(stage * wrong, axis=0)))
        found.append(Choice(margin, np.asarray(shares), right, energy_pj(reach(workload, shares))))
    return sorted(found, key=lambda one: one.energy_pj)


def best_choice(choices: list[Choice], limits: Limits) -> Choice:
    """The cheapest that keeps the validation accuracy, else the most accurate, of those within the energy budget.

    Where all break the budget, the cheapest. Args: choices: cheapest first.
    """
    inside = [one for one in choices if limits.energy_pj is None or one.energy_pj <= limits.energy_pj] or choices[:1]
    keeps = [one for one in inside if one.accuracy >= limits.val_accuracy]
    return keeps[0] if keeps else max(inside, key=lambda one: one.accuracy)


def best_exits(task: Task, params: Any, state: Any, design: Design, limits: Limits) -> Design:
    """The design with the best of its fitted margins; one without exits comes back as it is."""
    if design.exit_margin is None:
        return design
    best = best_choice(exit_choices(task, params, state, design, limits.latency_ns), limits)
    return dataclasses.replace(design, exit_margin=jnp.asarray(best.margin, jnp.asarray(design.exit_margin).dtype))
