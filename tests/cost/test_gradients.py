"""Gradients of every cost term, in each coordinate, against finite differences; finiteness at corners."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cooptim.compile import compiled_once
from cooptim.cost.evaluate import evaluate
from cooptim.cost.report import COMPONENTS
from cooptim.network.stats import Stats
from tests.cost.cases import DIGITS, MACHINES, conv, design_of, few_rows

from cooptim.workload import Bounds, Layer, Workload  # isort: skip

TIGHT = Workload(  # three layers whose maps and weights crowd a small buffer, with an activation product and a loop
    "tight",
    (
        conv("a", 24, 3, 16),
        Layer("b", "dense", Bounds(K=40, C=96), repeat=3, inputs=("a",)),
        Layer("c", "matmul", Bounds(G=2, K=12, C=20, OX=24), inputs=("b", "a")),
    ),
    ("c",),
    768,
)
ROWS, MODES, LAYERS = 3, 3, 3
SIZED = MACHINES["dvafs_sized"]
TERMS = (*COMPONENTS, "standby", "latency", "area")
LAYOUT = {
    "weight_bits": LAYERS, "input_bits": LAYERS, "weight_density": LAYERS, "input_density": LAYERS,
    "supply_v": LAYERS, "freq_ghz": LAYERS, "mode": LAYERS * MODES, "tiling": LAYERS * ROWS, "buffer_bits": 1,
}  # fmt: skip
SIZE = sum(LAYOUT.values())


def _split(x):
    parts, start = {}, 0
    for name, size in LAYOUT.items():
        parts[name] = x[start : start + size]
        start += size
    return parts


def _report(workload, x, period):
    p = _split(x)
    design = design_of(
        SIZED, p["mode"].reshape(LAYERS, MODES), p["tiling"].reshape(LAYERS, ROWS), p["weight_bits"], p["input_bits"],
        p["supply_v"], p["freq_ghz"], p["buffer_bits"][0],
    )  # fmt: skip
    stats = Stats(p["weight_density"], p["input_density"])
    table = few_rows(workload, SIZED, ROWS)
    return evaluate(workload, SIZED, design, stats, period_ns=period, tilings=table)


def _terms(workload, x, period):
    """The twelve terms, each alone, and which side of each kink the point is on."""
    r, p = _report(workload, x, period), _split(x)
    values = [jnp.sum(r.energy_pj[name]) for name in COMPONENTS]
    values += [r.standby_pj, r.total_latency_ns, r.area_mm2]
    slots = jnp.array([4.0, 8.0, 16.0])
    widths = jnp.concatenate([p["weight_bits"], p["input_bits"]])
    density = jnp.concatenate([p["weight_density"], p["input_density"]])
    kept = jnp.concatenate([r.kept_share, r.resident_share])
    side = jnp.concatenate([
        (widths[:, None] > slots).ravel(),
        1.0 + density * widths > widths,
        jnp.isclose(r.latency_ns, r.cycles / p["freq_ghz"], rtol=1e-12),
        kept <= 0.0, kept >= 1.0, jnp.argsort(kept) == jnp.arange(len(kept)),
        r.total_latency_ns[None] > period,
    ])  # fmt: skip
    return jnp.stack(values), side


def _points(rng, count):
    """Random relaxed designs: shares on the simplex, all widths, all densities, buffers from 8 kB on."""

    def simplex(n):
        return rng.dirichlet(np.ones(n), (count, LAYERS)).reshape(count, -1)

    columns = {
        "weight_bits": rng.uniform(2, 16, (count, LAYERS)), "input_bits": rng.uniform(2, 16, (count, LAYERS)),
        "weight_density": rng.uniform(0.02, 0.98, (count, LAYERS)),
        "input_density": rng.uniform(0.02, 0.98, (count, LAYERS)),
        "supply_v": rng.uniform(0.59, 1.03, (count, LAYERS)), "freq_ghz": rng.uniform(0.01, 0.4, (count, LAYERS)),
        "mode": simplex(MODES), "tiling": simplex(ROWS), "buffer_bits": 2.0 ** rng.uniform(16, 22, (count, 1)),
    }  # fmt: skip
    return jnp.asarray(np.concatenate([columns[name] for name in LAYOUT], axis=1))


@pytest.mark.parametrize("workload", [DIGITS, TIGHT], ids=lambda w: w.name)
def test_every_term_has_the_gradient_of_finite_differences_in_every_coordinate(workload):
    period, count = 1e5, 5_000
    x = _points(np.random.default_rng(2), count)
    terms = functools.partial(_terms, workload, period=period)
    values, side = compiled_once(jax.vmap(terms))(x)
    exact = compiled_once(jax.vmap(jax.jacrev(lambda p: terms(p)[0])))(x)  # [point, term, coordinate]

    @compiled_once
    def numeric(j):
        h = 1e-5 * x[:, j]
        move = jnp.zeros_like(x).at[:, j].set(h)
        (p1, s1), (m1, s2), (p2, s3), (m2, s4) = (jax.vmap(terms)(x + k * move) for k in (1, -1, 2, -2))
        smooth = jnp.all((s1 == side) & (s2 == side) & (s3 == side) & (s4 == side), axis=1)
        return (8 * (p1 - m1) - (p2 - m2)) / (12 * h[:, None]), smooth

    checked = 0
    for j in range(SIZE):
        slope, smooth = numeric(j)
        floor = 1e-6 * jnp.abs(values / x[:, j, None]) + 1e-12
        error = jnp.abs(exact[:, :, j] - slope) / jnp.maximum(jnp.abs(slope), floor)
        worst = jnp.max(jnp.where(smooth[:, None], error, 0.0), axis=0)
        assert float(worst.max()) <= 1e-4, (j, dict(zip(TERMS, np.asarray(worst), strict=True)))
        checked += int(smooth.sum())
    assert checked > 0.98 * count * SIZE


def test_a_crowded_buffer_sends_gradients_to_widths_density_and_size():
    x = _points(np.random.default_rng(2), 500)
    slope = compiled_once(jax.vmap(jax.grad(lambda p: jnp.sum(_report(TIGHT, p, 1e5).energy_pj["dram_w"]))))(x)
    parts = dict(zip(LAYOUT, np.split(np.abs(slope), np.cumsum(list(LAYOUT.values()))[:-1], axis=1), strict=True))
    reached = {name for name, part in parts.items() if (part > 0).any()}
    assert {"weight_bits", "weight_density", "buffer_bits", "input_bits", "mode", "tiling"} <= reached


def _corner_points(rng, count):
    """Legal and relaxed designs with values on their bounds mixed in."""
    x = np.array(_points(rng, count))
    p, start = {}, 0
    for name, size in LAYOUT.items():
        p[name] = slice(start, start + size)
        start += size

    def put(name, choices, share=0.5):
        shape = x[:, p[name]].shape
        x[:, p[name]] = np.where(rng.random(shape) < share, rng.choice(choices, shape), x[:, p[name]])

    put("weight_bits", [2.0, 4.0, 8.0, 16.0])
    put("input_bits", [2.0, 4.0, 8.0, 16.0])
    put("weight_density", [0.0, 1.0])
    put("input_density", [0.0, 1.0])
    put("supply_v", [0.59, 1.03])
    put("freq_ghz", [0.001, 1.0], 0.1)
    put("buffer_bits", [65536.0, 4194304.0, 1.0])
    for name, n in (("mode", MODES), ("tiling", ROWS)):
        hard = np.eye(n)[rng.integers(0, n, (count, LAYERS))].reshape(count, -1)
        x[:, p[name]] = np.where(rng.random((count, 1)) < 0.5, hard, x[:, p[name]])
    return x


@pytest.mark.parametrize("workload", [DIGITS, TIGHT], ids=lambda w: w.name)
def test_no_random_design_has_a_nan_or_infinity_in_value_or_gradient(workload):
    rng = np.random.default_rng(4)

    @compiled_once
    @jax.vmap
    def finite(x, period):
        def total(p):
            r = _report(workload, p, period)
            return jnp.log(r.total_energy_pj) + jnp.log(r.total_latency_ns) + r.area_mm2

        value, slope = jax.value_and_grad(total)(x)
        return jnp.isfinite(value) & jnp.isfinite(slope).all()

    good, blocks, block = 0, 10, 5_000
    for _ in range(blocks):
        period = rng.choice([0.0, 1e3, 1e6], block)
        good += int(finite(_corner_points(rng, block), period).sum())
    assert good == blocks * block
