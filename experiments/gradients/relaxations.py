"""The relaxations of the package, each with the function whose slope it promises and the sides of its kinks."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import cooptim
from cooptim.design.space import DesignSpace
from cooptim.hardware import dvafs
from cooptim.network import fake
from cooptim.relax import bitwidth, choice, mask, rounding
from tests.cost.cases import DIGITS, few_rows

MACHINE = cooptim.load_machine("dvafs_sized")
SPACE = DesignSpace(DIGITS, MACHINE, few_rows(DIGITS, MACHINE, 3), (True, False, False))
LAYERS, MODES, ROWS = 3, 3, 3


def no_kink(x: jax.Array) -> jax.Array:
    """A smooth function is on one side everywhere."""
    return jnp.zeros(1, bool)


@dataclasses.dataclass(frozen=True)
class Case:
    """One relaxation.

    Attributes:
      relaxed: coordinates -> outputs; what the package differentiates.
      low, high: bounds of each coordinate; points are uniform between them.
      promised: (coordinates, point at which the slope is taken) -> outputs of the function that has this slope.
      sides: which side of each kink the coordinates are on.
    """

    relaxed: Callable[[jax.Array], jax.Array]
    low: tuple[float, ...]
    high: tuple[float, ...]
    promised: Callable[[jax.Array, jax.Array], jax.Array]
    sides: Callable[[jax.Array], jax.Array] = no_kink

    def points(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Random coordinates [point, coordinate]."""
        return rng.uniform(self.low, self.high, (count, len(self.low)))


def itself(relaxed: Callable[[jax.Array], jax.Array], low: Any, high: Any, sides: Any = no_kink) -> Case:
    """A relaxation with an exact gradient."""
    return Case(relaxed, low, high, lambda x, start: relaxed(x), sides)


def _softmax(scores: jax.Array) -> jax.Array:
    e = jnp.exp(scores - jnp.max(scores))
    return e / jnp.sum(e)


def _level(x: jax.Array, signed: bool) -> jax.Array:
    """Rounding residue of word x[0] at step x[1] and range x[2]."""
    level = jnp.clip(x[0], -x[2] if signed else 0.0, x[2]) / x[1]
    return jnp.round(level) - level


def _quantizer(words: Callable[..., Any], signed: bool) -> Case:
    """Promised: the clipped word plus its rounding residue, held, times the step."""
    low = -1.5 if signed else -0.5

    def promised(x: jax.Array, start: jax.Array) -> jax.Array:
        return jnp.clip(x[:1], -x[2] if signed else 0.0, x[2]) + _level(start, signed) * x[1]

    def sides(x: jax.Array) -> jax.Array:
        return jnp.stack([x[0] > x[2], x[0] < (-x[2] if signed else 0.0)])

    return Case(lambda x: words(x[0], x[1], x[2])[None], (low, 0.01, 0.3), (1.5, 0.2, 1.2), promised, sides)


def _ramp(magnitude: jax.Array, cut: jax.Array) -> jax.Array:
    return jnp.minimum(magnitude / (2 * cut), 1.0)


def _pruner(words: Callable[[jax.Array, jax.Array], jax.Array], share: bool) -> Case:
    """Promised for a word: w + w_held * ramp(|w_held|, threshold); for the share of non-zeros: the mean ramp."""
    n = 6 if share else 1

    def promised(x: jax.Array, start: jax.Array) -> jax.Array:
        if share:
            return jnp.mean(_ramp(jnp.abs(x[:n]), x[n]))[None]
        return x[:n] + start[:n] * _ramp(jnp.abs(start[:n]), x[n])

    def sides(x: jax.Array) -> jax.Array:
        return jnp.concatenate([jnp.abs(x[:n]) > 2 * x[n], x[:n] > 0])

    return Case(
        lambda x: jnp.atleast_1d(words(x[:n], x[n])), (-1.0,) * n + (0.05,), (1.0,) * n + (0.8,), promised, sides
    )


def _pruned_quantized() -> Case:
    """Weight words of a step: prune, then quantize; promised is one after the other."""

    def residue(start: jax.Array) -> jax.Array:
        kept = jnp.where(jnp.abs(start[0]) > start[3], start[0], 0.0)
        return _level(jnp.stack([kept, start[1], start[2]]), True)

    def promised(x: jax.Array, start: jax.Array) -> jax.Array:
        kept = jnp.where(jnp.abs(start[0]) > start[3], start[0], 0.0)
        inside = jnp.abs(kept) <= start[2]
        ramp = start[0] * (_ramp(jnp.abs(start[0]), x[3]) - _ramp(jnp.abs(start[0]), start[3]))
        moved = kept + (x[0] - start[0]) + ramp
        return (jnp.where(inside, moved, jnp.sign(kept) * x[2]) + residue(start) * x[1])[None]

    def sides(x: jax.Array) -> jax.Array:
        size = jnp.abs(x[0])
        return jnp.stack([size > x[3], size > 2 * x[3], size > x[2], x[0] > 0])

    def relaxed(x: jax.Array) -> jax.Array:
        return fake.pruned_words(x[:1], jnp.asarray(6.0), x[1], x[2], x[3])

    return Case(relaxed, (-1.5, 0.01, 0.3, 0.02), (1.5, 0.2, 1.2, 0.25), promised, sides)


def _decoded(x: jax.Array) -> jax.Array:
    """Supplies, clocks, sizes and tiling shares of a decoded design, from supply, buffer and tiling knobs."""
    supply, buffer, logits = x[:LAYERS], x[LAYERS], x[LAYERS + 1 :].reshape(LAYERS, ROWS)
    one = jnp.ones(LAYERS)
    start = SPACE.init(one, one, 6.0, 6.0)
    knobs = dataclasses.replace(start, supply=supply, buffer=buffer, tiling_logits=logits)
    design = SPACE.decode(knobs, 0.7)
    parts = (design.supply_v, design.freq_ghz, design.buffer_bits[None], design.tiling.ravel())
    return jnp.concatenate(parts)


def _feasible(x: jax.Array) -> jax.Array:
    """Three non-decreasing probabilities that end at 1, of x[4] and x[5]."""
    one = jax.nn.sigmoid(x[4])
    return jnp.stack([one, one + (1.0 - one) * jax.nn.sigmoid(x[5]), jnp.ones(())])


def _mixture(scores: jax.Array, feasible: jax.Array) -> jax.Array:
    """All three with probability f0, the last two with f1 - f0, the last alone with f2 - f1."""
    nothing = jnp.zeros(1)
    return (
        feasible[0] * _softmax(scores)
        + (feasible[1] - feasible[0]) * jnp.concatenate([nothing, _softmax(scores[1:])])
        + (feasible[2] - feasible[1]) * jnp.array([0.0, 0.0, 1.0])
    )


def _fixed(bits: float, quantize: Callable[..., Any]) -> Callable[..., Any]:
    return lambda word, step, range_: quantize(word, jnp.asarray(bits), step, range_)


SUPPLY, DATAPATH = MACHINE.supply, MACHINE.datapath
FLOOR, CEILING = float(SUPPLY.floor_v), float(SUPPLY.ceiling_v)
CHOICE_LOW, CHOICE_HIGH = (-2.0,) * 3 + (0.3,) + (-2.0,) * 3, (2.0,) * 3 + (2.0,) + (0.0,) * 3
ON_GRID = (-2.0,) * LAYERS + (-2.0,) + (-1.0,) * (LAYERS * ROWS)

RELAXATIONS: dict[str, Case] = {
    "round_ste": Case(rounding.round_ste, (-3.0,), (3.0,), lambda x, start: x),
    "ceil_ste": Case(rounding.ceil_ste, (-3.0,), (3.0,), lambda x, start: x),
    "clip_ste": Case(lambda x: rounding.clip_ste(x, -1.0, 1.0), (-3.0,), (3.0,), lambda x, start: x),
    "width from step and range": Case(
        lambda x: bitwidth.integer_bits(x[0], x[1], 1.0)[None], (0.01, 0.3), (0.2, 4.0),
        lambda x, start: (jnp.log(x[1] / x[0] + 1.0) / jnp.log(2.0) + 1.0)[None],
    ),
    "range from step and width": itself(
        lambda x: bitwidth.range_of(x[0], x[1], 1.0)[None], (0.01, 2.0), (0.2, 16.0)
    ),
    "quantize, signed": _quantizer(_fixed(6.0, lambda *a: bitwidth.quantize(*a, True)), True),
    "quantize, unsigned": _quantizer(_fixed(6.0, lambda *a: bitwidth.quantize(*a, False)), False),
    "quantize on tensors, signed": _quantizer(_fixed(6.0, fake.signed_words), True),
    "quantize on tensors, unsigned": _quantizer(_fixed(6.0, fake.unsigned_words), False),
    "prune": _pruner(mask.prune, False),
    "prune and quantize on tensors": _pruned_quantized(),
    "density": _pruner(mask.density, True),
    "density on tensors": _pruner(fake.nonzero_share, True),
    "soft choice": itself(lambda x: choice.soft_choice(x[:3], x[3], x[4:]), CHOICE_LOW, CHOICE_HIGH),
    "nested choice": itself(lambda x: choice.nested_choice(x[:3], x[3], _feasible(x)), CHOICE_LOW, CHOICE_HIGH),
    "straight-through nested choice": Case(
        lambda x: choice.straight_through_nested_choice(x[:3], x[3], jnp.ones(3), _feasible(x)),
        CHOICE_LOW, CHOICE_HIGH, lambda x, start: _mixture(x[:3] / x[3], _feasible(x)),
    ),
    "decode: supply, clock, buffer, tilings": itself(_decoded, ON_GRID, tuple(-x for x in ON_GRID)),
    "activity divisor": itself(
        lambda x: dvafs.activity_divisors(DATAPATH, x[0], x[1]), (2.0, 2.0), (16.0, 16.0),
        lambda x: (x[:, None] > jnp.array([4.0, 8.0, 16.0])).ravel(),
    ),
    "critical path": itself(lambda x: dvafs.critical_path(SUPPLY, 16, x), (2.0,), (15.9,)),
    "fastest clock": itself(
        lambda x: dvafs.max_clock_ghz(SUPPLY, x[0], x[1])[None], (FLOOR, 0.3), (CEILING, 1.0)
    ),
    "supply for a clock": itself(
        lambda x: dvafs.supply_for_clock(SUPPLY, x[0], x[1])[None], (0.02, 0.3), (0.2, 1.0),
        lambda x: (dvafs.supply_for_clock(SUPPLY, x[0], x[1]) > FLOOR)[None],
    ),
    "dynamic energy over supply": itself(lambda x: dvafs.dynamic_scale(SUPPLY, x), (FLOOR,), (CEILING,)),
    "leakage": itself(lambda x: dvafs.leakage_mw(MACHINE, x[0], x[1])[None], (FLOOR, 1e5), (CEILING, 4e6)),
}  # fmt: skip
