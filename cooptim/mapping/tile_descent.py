"""Gradient descent on the continuous relaxation alone: tilings of many layers and many starts at once.

The loss is the logarithm of the objective; capacities enter by an augmented Lagrangian on log(tiles / room) of every
memory and layer, with multipliers by plain projected ascent.
"""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from cooptim.compile import compiled_once
from cooptim.hardware.hierarchy import Hierarchy
from cooptim.mapping.continuous import RelaxedPrice, relaxed_price
from cooptim.mapping.rules import HARDWARE, Rules
from cooptim.mapping.stack import Stack, TilingKnobs, random_knobs, tiling, usable_room

PENALTY = 1.0  # curvature of the constraint's quadratic
CLIP = 0.3  # of log(tiles / room) in the multipliers' step


@dataclasses.dataclass(frozen=True)
class Descended:
    """Final knobs of every start (leading axis), their temporal factors and stationarity, energy and latency."""

    knobs: TilingKnobs
    temporal: Float[Array, "start slot dim layer"]
    stay: Float[Array, "start slot operand layer"]
    energy_pj: Float[Array, "start layer"]
    cycles: Float[Array, "start layer"]
    overflow: Float[Array, "start layer"]


def log_overflow(found: RelaxedPrice, machine: Hierarchy) -> Float[Array, "memory layer"]:
    """log(tiles / room) of every memory with a limit; positive is overfilled."""
    rows = [
        jnp.log(found.tile_bits[memory.name] / usable_room(memory))
        for memory in machine.memories
        if not (isinstance(memory.size_bits, float) and math.isinf(memory.size_bits))
    ]
    return jnp.stack(rows)


def lagrangian(overflow: Any, multiplier: Any) -> Any:
    """Penalty of overfilled memories whose slope is max(0, multiplier + PENALTY x overflow)."""
    return jnp.sum(jnp.square(jnp.maximum(0.0, multiplier + PENALTY * overflow))) / (2.0 * PENALTY)


def _objective(found: RelaxedPrice, stack: Stack, objective: str) -> Any:
    if objective == "energy":
        return jnp.sum(jnp.log(found.energy_pj))
    energy, cycles = (jnp.sum(stack.repeat * x) for x in (found.energy_pj, found.cycles))
    return jnp.log(energy) + jnp.log(cycles)


class _Static:
    """A machine's structure with its unlimited sizes, hashable; its finite numbers are traced, so that one program
    serves all sizes and energies."""

    def __init__(self, machine: Hierarchy) -> None:
        leaves, self.structure = jax.tree.flatten(machine)
        self.fixed = tuple(x if isinstance(x, float) and math.isinf(x) else None for x in leaves)

    def __hash__(self) -> int:
        return hash((self.structure, self.fixed))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Static) and (self.structure, self.fixed) == (other.structure, other.fixed)

    def finite(self, machine: Hierarchy) -> list[Any]:
        """The leaves that are traced."""
        return [x for x, known in zip(jax.tree.leaves(machine), self.fixed, strict=True) if known is None]

    def whole(self, finite: list[Any]) -> Hierarchy:
        """The machine of these leaves."""
        rest = iter(finite)
        leaves = [next(rest) if known is None else known for known in self.fixed]
        machine: Hierarchy = jax.tree.unflatten(self.structure, leaves)
        return machine


def _descend(
    key: Any,
    stack: Stack,
    finite: list[Any],
    rate: Any,
    *,
    static: _Static,
    rules: Rules,
    objective: str,
    starts: int,
    steps: int,
) -> Any:
    machine = static.whole(finite)
    adam = optax.adam(optax.cosine_decay_schedule(rate, steps))

    def price_of(knobs: TilingKnobs) -> tuple[RelaxedPrice, Any]:
        tile = tiling(knobs, stack, machine)
        return relaxed_price(tile, stack, machine, rules), tile

    def loss(knobs: TilingKnobs, multiplier: Any) -> tuple[Any, Any]:
        found, _ = price_of(knobs)
        overflow = log_overflow(found, machine)
        return _objective(found, stack, objective) + lagrangian(overflow, multiplier), overflow

    def one(key: Any) -> Any:
        knobs = random_knobs(key, stack, machine)
        shape = jax.eval_shape(lambda k: log_overflow(price_of(k)[0], machine), knobs)

        def step(carry: Any, _: Any) -> tuple[Any, None]:
            knobs, moments, multiplier = carry
            (_, overflow), slope = jax.value_and_grad(loss, has_aux=True)(knobs, multiplier)
            update, moments = adam.update(slope, moments)
            multiplier = jnp.maximum(0.0, multiplier + PENALTY * jnp.clip(overflow, -CLIP, CLIP))
            return (optax.apply_updates(knobs, update), moments, multiplier), None

        start = (knobs, adam.init(knobs), jnp.zeros(shape.shape, shape.dtype))
        (knobs, _, _), _ = jax.lax.scan(step, start, None, length=steps)
        found, tile = price_of(knobs)
        return (
            knobs,
            jnp.exp(tile.temporal),
            tile.stay,
            found.energy_pj,
            found.cycles,
            jnp.max(log_overflow(found, machine), axis=0),
        )

    return jax.vmap(one)(jax.random.split(key, starts))


# With all optimizations 300 steps take 0.4 CPU-s less and compiling 11 more.
@functools.cache
def _program() -> Any:
    return compiled_once(_descend, static_argnames=("static", "rules", "objective", "starts", "steps"))


def descend_tilings(
    stack: Stack,
    machine: Hierarchy,
    rules: Rules = HARDWARE,
    objective: str = "energy",
    starts: int = 8,
    steps: int = 300,
    rate: float = 0.1,
    seed: int = 0,
) -> Descended:
    """Descends `starts` random starts of all layers at once.

    Args:
      objective: 'energy' (of each layer) or 'edp' (of the whole stack, repeats counted).

    Raises ValueError for another objective.
    """
    if objective not in ("energy", "edp"):
        raise ValueError(f"objective '{objective}' is unknown; use one of energy, edp")
    static = _Static(machine)
    found = _program()(
        jax.random.key(seed), stack, static.finite(machine), rate,
        static=static, rules=rules, objective=objective, starts=starts, steps=steps,
    )  # fmt: skip
    return Descended(*found)
