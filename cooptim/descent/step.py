"""One jitted step of gradient descent over weights and knobs; the same program serves every phase."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from cooptim.compile import compiled
from cooptim.cost.evaluate import evaluate
from cooptim.data.augment import Augmentation
from cooptim.descent.constraint import Budgets, excess, penalty, raise_multipliers
from cooptim.descent.faults import Faults
from cooptim.descent.stages import stage_shares, staged_loss
from cooptim.descent.teacher import lesson_logits, taught_loss
from cooptim.design.knobs import Knobs, Phase
from cooptim.design.operands import projected_operands
from cooptim.design.space import DesignSpace
from cooptim.network.liveness import Liveness
from cooptim.network.trace import Network

_WEIGHTS = optax.scale_by_adam()
_KNOBS = optax.scale_by_adam(b1=0.9, b2=0.99)
_SUPPLY_LIMIT = 6.0  # sigmoid(6) is within 0.25 % of the supply range of its end
_LOGIT_LIMIT = 12.0
_MARGIN_LIMIT = 30.0  # log-odds beyond which every input, or none, leaves
_AUGMENT = 1  # folded into a step's key, so that dropout sees the same whether images are augmented or not
_ERRORS = 2


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """All that a step changes."""

    params: Any
    state: Any  # non-trained state of the network (batch statistics)
    knobs: Knobs
    weight_moments: optax.OptState
    knob_moments: optax.OptState
    multipliers: Float[Array, "constraint"]
    key: Any  # PRNG key data (uint32) for dropout


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Control:
    """All that the schedule sets from step to step; traced, so that no phase compiles anew."""

    phase: Phase
    temperature: Float[Array, ""]
    weight_rate: Float[Array, ""]
    knob_rates: Knobs  # a scalar a leaf, 0 holds it
    budgets: Budgets
    dual_rate: Float[Array, ""]
    penalty: Float[Array, ""]
    period_ns: Float[Array, ""]
    distill_weight: Float[Array, ""]  # of the teacher's outputs in the loss, where a step gets a lesson
    hold: Float[Array, ""] | float = 0.0  # 1: a weight that can be pruned and is just zero stays zero


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Metrics:
    """What one step saw."""

    loss: Float[Array, ""]
    accuracy: Float[Array, ""]
    log_cost: Float[Array, "constraint"]
    multipliers: Float[Array, "constraint"]
    weight_bits: Float[Array, "layer"]
    input_bits: Float[Array, "layer"]
    weight_density: Float[Array, "layer"]


def init_state(params: Any, state: Any, knobs: Knobs, seed: int) -> TrainState:
    """A fresh state: zero moments and multipliers."""
    return TrainState(
        params=params,
        state=state,
        knobs=knobs,
        weight_moments=_WEIGHTS.init(params),
        knob_moments=_KNOBS.init(knobs),
        multipliers=jnp.zeros(3),
        key=jax.random.key_data(jax.random.key(seed)),
    )


def project(space: DesignSpace, knobs: Knobs) -> Knobs:
    """Knobs moved back to where decode's straight-through bounds do not act, so that none runs away."""
    held = projected_operands(knobs, space.input_signed, space.most_bits, space.methods)
    return dataclasses.replace(
        held,
        mode_logits=jnp.clip(knobs.mode_logits, -_LOGIT_LIMIT, _LOGIT_LIMIT),
        tiling_logits=jnp.clip(knobs.tiling_logits, -10 * _LOGIT_LIMIT, 10 * _LOGIT_LIMIT),
        supply=jnp.clip(knobs.supply, -_SUPPLY_LIMIT, _SUPPLY_LIMIT),
        buffer=None if knobs.buffer is None else jnp.clip(knobs.buffer, -_SUPPLY_LIMIT, _SUPPLY_LIMIT),
        exit_margin=None if knobs.exit_margin is None else jnp.clip(knobs.exit_margin, -_MARGIN_LIMIT, _MARGIN_LIMIT),
    )


def make_loss(
    network: Network,
    space: DesignSpace,
    price: Callable[..., Any] = evaluate,
    faults: Faults | None = None,
    temperature: float = 1.0,
    channels: Liveness | None = None,
) -> Callable[..., tuple[Float[Array, ""], Any]]:
    """The objective, pure: `loss(params, knobs, train_state, control, x, labels, key, lesson) -> (loss, aux)`.

    Args:
      price: called as `evaluate` is; its `total_energy_pj`, `total_latency_ns` and `area_mm2` meet the budgets.
      faults: what goes wrong at the design's supplies; None injects nothing.
      temperature: of the softmax that softens the teacher's outputs, where there is a lesson (not None).
      channels: where those of the network stand, so that dead ones are not priced; None prices all of them.
    """

    def loss(params, knobs, old, control, x, labels, key, lesson):  # type: ignore[no-untyped-def]
        design = space.decode(knobs, control.temperature, control.phase)
        errors = None if faults is None else faults.in_step(design.supply_v, jax.random.fold_in(key, _ERRORS))
        logits, state, stats = network.apply(params, old.state, x, design, train=True, rngs=key, errors=errors)
        task, hits, reach = staged_loss(space.workload, logits, labels, design.exit_margin, control.temperature)
        live = None if channels is None else channels.shares(params, design)
        stats = dataclasses.replace(stats, reach=reach, live=live)
        report = price(space.workload, space.machine, design, stats, period_ns=control.period_ns, tilings=space.tilings)
        costs = jnp.stack([report.total_energy_pj, report.total_latency_ns, report.area_mm2])
        log_cost = jnp.log(costs).astype(task.dtype)
        c = excess(log_cost, control.budgets)
        learned = task
        if lesson is not None:
            shares = stage_shares(space.workload, logits, design.exit_margin, control.temperature)
            teacher = lesson_logits(network, lesson, x)
            learned = taught_loss(task, logits, teacher, control.distill_weight, temperature, shares)
        total = learned + penalty(c, old.multipliers, control.penalty)
        return total, (state, c, (task, hits, log_cost, design, stats))

    return loss


def without_pruned(network: Network, params: Any, update: Any, hold: Float[ArrayLike, ""]) -> Any:
    """The update without its part in weights that are zero and have a threshold, where `hold` is 1."""
    leaves, structure = jax.tree.flatten(update)
    weights = jax.tree.leaves(params)
    for leaf in {leaf for leaf, *_ in network.masked_leaves}:
        leaves[leaf] = jnp.where((jnp.asarray(hold) > 0.5) & (weights[leaf] == 0), 0.0, leaves[leaf]).astype(
            leaves[leaf].dtype
        )
    return jax.tree.unflatten(structure, leaves)


def make_step(
    network: Network,
    space: DesignSpace,
    augment: Augmentation | None = None,
    price: Callable[..., Any] = evaluate,
    faults: Faults | None = None,
    temperature: float = 1.0,
    channels: Liveness | None = None,
) -> Callable[..., tuple[TrainState, Metrics]]:
    """The jitted step `(state, control, x, labels, lesson=None) -> (state, metrics)`; the old state is donated.

    Args:
      augment: changes the images by the step's key, which is part of the state: a resumed run sees the same.
      price: what meets the budgets, as in `make_loss`; a rival's proxy, for instance.
      faults: what goes wrong at the design's supplies.
      channels: as in `make_loss`.
      temperature: of the teacher's outputs. A lesson is what `TeacherLogits.lesson` gives for these images.
    """
    loss = make_loss(network, space, price, faults, temperature, channels)

    def step(old, control, x, labels, lesson=None):  # type: ignore[no-untyped-def]
        key, next_key = jax.random.split(jax.random.wrap_key_data(old.key))
        if augment is not None:
            x = augment(jax.random.fold_in(key, _AUGMENT), x)
        (_, aux), (g_weights, g_knobs) = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(
            old.params, old.knobs, old, control, x, labels, key, lesson
        )
        state, c, (task, hits, log_cost, design, stats) = aux
        w_update, weight_moments = _WEIGHTS.update(g_weights, old.weight_moments)
        k_update, knob_moments = _KNOBS.update(g_knobs, old.knob_moments)
        w_update = without_pruned(network, old.params, w_update, control.hold)
        params = jax.tree.map(lambda p, u: p - control.weight_rate * u, old.params, w_update)
        knobs = jax.tree.map(lambda p, rate, u: p - rate * u, old.knobs, control.knob_rates, k_update)
        multipliers = raise_multipliers(old.multipliers, c, control.dual_rate) * control.budgets.active
        new = TrainState(
            params=params,
            state=state,
            knobs=project(space, knobs),
            weight_moments=weight_moments,
            knob_moments=knob_moments,
            multipliers=multipliers,
            key=jax.random.key_data(next_key),
        )
        seen = Metrics(task, hits, log_cost, multipliers, design.weight_bits, design.input_bits, stats.weight_density)
        return new, seen

    return compiled(step, donate_argnums=0)
