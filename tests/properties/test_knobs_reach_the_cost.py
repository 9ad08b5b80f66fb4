"""No knob is decoration: at random points each leaf moves energy, latency or area, through network and price alike."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cooptim
from cooptim.design.knobs import Knobs
from cooptim.design.space import DesignSpace

MANY = 1024


def small_network():
    """A convolution and a dense layer on 6x6 images; every layer has weights that prune and zeros that count."""

    def forward(params, x):
        x = jax.lax.conv_general_dilated(x, params["conv"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        x = jnp.mean(jax.nn.relu(x), axis=(1, 2))
        return x @ params["dense"]

    keys = jax.random.split(jax.random.key(0), 3)
    params = {"conv": jax.random.normal(keys[0], (3, 3, 2, 20)), "dense": jax.random.normal(keys[1], (20, 9))}
    x = jax.random.normal(keys[2], (4, 6, 6, 2))
    return params, x, cooptim.trace(forward, params, x)


def random_points(space: DesignSpace, network, params, x, number: int) -> tuple[Knobs, jax.Array]:
    """Knobs at widths of 2.2 to 15.8 bit, thresholds among the weights and free choices; temperatures of 0.1 to 2.

    Thresholds stay above half a quantization step: below it every weight they prune rounds to zero anyway.
    """
    rng = np.random.default_rng(0)
    seen = network.observe(params, None, x)
    layers = len(network.layer_names)
    uniform = lambda low, high: jnp.asarray(rng.uniform(low, high, (number, layers)))  # noqa: E731
    start = space.init(seen.weight_max, jnp.maximum(seen.input_max, -seen.input_min))
    spread = jax.tree.map(lambda leaf: leaf + jnp.asarray(rng.normal(0.0, 1.0, (number, *leaf.shape))), start)
    weight_range, input_range = (
        leaf + uniform(-1.0, 0.5) for leaf in (start.weight_log2_range, start.input_log2_range)
    )
    width = lambda: uniform(2.2, 15.8) - 1.0  # noqa: E731  log2 of levels over range
    weight_step = weight_range - width()
    points = dataclasses.replace(
        spread,
        weight_log2_range=weight_range,
        weight_log2_step=weight_step,
        input_log2_range=input_range,
        input_log2_step=input_range - width(),
        log2_threshold=jnp.maximum(start.weight_log2_range - uniform(0.5, 4.0), weight_step - 0.9),
        tiling_logits=jnp.asarray(rng.normal(0.0, 1.0, spread.tiling_logits.shape)),
    )
    return points, jnp.asarray(rng.uniform(0.1, 2.0, number))


@pytest.mark.parametrize("number", [8, MANY])
def test_every_knob_has_a_finite_gradient_that_reaches_energy_latency_or_area(number):
    params, x, network = small_network()
    machine = cooptim.load_machine("dvafs_sized")  # frees its buffer, so that no leaf is missing
    space = DesignSpace(network.workload, machine, cooptim.tilings(network.workload, machine, most=3), (True, False))
    points, temperatures = random_points(space, network, params, x, number)

    def costs(knobs, temperature):
        design = space.decode(knobs, temperature)
        stats = network.apply(params, None, x, design)[2]
        report = cooptim.evaluate(network.workload, machine, design, stats, tilings=space.tilings)
        return jnp.log(jnp.stack([report.total_energy_pj, report.total_latency_ns, report.area_mm2]))

    slopes = jax.jit(jax.vmap(jax.jacrev(costs)))(points, temperatures)
    layers = len(network.layer_names)
    unmoved = {}
    for field in dataclasses.fields(Knobs):
        if getattr(slopes, field.name) is None:  # tests/design/test_methods.py, tests/descent/test_stages.py
            continue
        slope = np.asarray(getattr(slopes, field.name))  # [point, cost, layer, ...] or [point, cost]
        assert np.isfinite(slope).all(), f"{field.name}: a gradient is not finite"
        by_layer = slope.reshape(number, 3, layers if slope.ndim > 2 else 1, -1)
        dead = ~(by_layer != 0).any(axis=(1, 3))
        if dead.any():
            unmoved[field.name] = dead.sum(axis=0).tolist()
    assert unmoved == {}, f"points of {number} at which a knob, by layer, moves nothing: {unmoved}"
