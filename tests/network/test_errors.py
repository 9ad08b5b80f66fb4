"""Bit errors and late sums in a network: untouched without them, by hand with them, drawn anew in each trip."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cooptim.network import ErrorRates, trace
from tests.network.cases import design, equal_bits, normal

PARAMS = {"a": normal(0, 6, 5), "b": normal(1, 5, 3)}
X = normal(3, 20, 6)
DESIGN = design(2)
NONE = ErrorRates(None, None, None, jax.random.key(1), jax.random.key(2))
NOUGHT = dataclasses.replace(NONE, weight=jnp.zeros(2), input=jnp.zeros(2), accumulator=jnp.zeros(2))
DRAWS = 40_000


def two_layers(p, x):
    return jax.nn.relu(x @ p["a"]) @ p["b"]


@pytest.fixture(scope="module")
def net():
    return trace(two_layers, PARAMS, X)


@pytest.fixture(scope="module")
def run(net):
    """Outputs and zero rates of the network under given errors: one program where only the rates differ."""
    return jax.jit(lambda errors, x=X: net.apply(PARAMS, {}, x, DESIGN, errors=errors)[::2])


def rates(**given):
    return dataclasses.replace(NOUGHT, **{name: jnp.asarray(rate, float) for name, rate in given.items()})


def test_no_errors_and_rates_of_0_leave_every_bit(net, run):
    plain = jax.jit(lambda x: net.apply(PARAMS, {}, x, DESIGN)[::2])(X)
    for errors in (None, NONE, NOUGHT):
        assert equal_bits(run(errors, X), plain)


def test_each_kind_goes_wrong_in_its_layer_and_follows_its_key(run):
    plain, zeros = run(NOUGHT)
    other = jax.random.key(9)
    for kind in ("weight", "input", "accumulator"):
        for layer in range(2):
            one = rates(**{kind: np.eye(2)[layer] * 0.3})
            out, stats = run(one)
            assert not np.allclose(out, plain), (kind, layer)
            # What is stored before anything goes wrong counts as zero or not.
            assert equal_bits(stats.weight_density, zeros.weight_density)
            assert equal_bits(stats.input_density[: layer + 1], zeros.input_density[: layer + 1])
            assert equal_bits(run(one)[0], out)
            key = "timing" if kind == "accumulator" else "cells"
            assert not np.allclose(run(dataclasses.replace(one, **{key: other}))[0], out), kind
            unused = "cells" if kind == "accumulator" else "timing"
            assert equal_bits(run(dataclasses.replace(one, **{unused: other}))[0], out), kind


def test_images_of_a_batch_share_weights_and_have_inputs_and_sums_of_their_own(run):
    same = jnp.broadcast_to(X[:1], X.shape)
    assert np.ptp(run(rates(weight=[0.3, 0.3]), same)[0], axis=0).max() == 0
    for kind in ("input", "accumulator"):
        assert np.ptp(run(rates(**{kind: [0.3, 0.3]}), same)[0], axis=0).min() > 0


def test_words_in_float_neither_flip_nor_come_late(net):
    everything = rates(weight=[0.4, 0.4], input=[0.4, 0.4], accumulator=[0.4, 0.4])
    wide = design(2, weight_bits=32.0, input_bits=32.0)
    np.testing.assert_allclose(net.apply(PARAMS, {}, X, wide, errors=everything)[0], two_layers(PARAMS, X), rtol=1e-12)


@pytest.mark.parametrize(("kind", "offset"), [("weight", 0.0), ("accumulator", 3.0)])
def test_slope_of_the_mean_loss_in_a_rate_is_its_finite_difference(net, kind, offset):
    # The last layer's errors under a quadratic loss: what the estimate is without bias for. The offset of the targets
    # takes the slope away from 0.
    keys = jax.random.split(jax.random.key(4), DRAWS)
    x, wanted = X[:2], normal(5, 2, 3) + offset

    def loss(rate, key):
        one = {kind: jnp.asarray([0.0, 1.0]) * rate}
        errors = dataclasses.replace(NONE, **one, cells=key, timing=key)
        return jnp.mean((net.apply(PARAMS, {}, x, DESIGN, errors=errors)[0] - wanted) ** 2)

    run = jax.jit(jax.vmap(jax.value_and_grad(loss), (None, 0)))
    low, middle, high = (run(jnp.asarray(p), keys) for p in (0.05, 0.1, 0.15))
    # The mean of a quadratic loss is quadratic in the rate, so a central difference is exact however wide.
    difference = (np.asarray(high[0]) - np.asarray(low[0])) / 0.1
    error = (np.std(difference) + np.std(middle[1])) / DRAWS**0.5
    assert abs(np.mean(middle[1]) - np.mean(difference)) < 4 * error
    assert error < 0.1 * abs(np.mean(difference))


def sums_along(p, x):
    """A scan over constant weights, each trip on its own."""
    return jax.lax.scan(lambda carry, step: (carry, step @ p["a"]), 0.0, x)[1]


def test_trips_of_a_scan_share_the_weights_cells_and_draw_the_rest_anew():
    x = jnp.broadcast_to(normal(0, 1, 2, 6), (4, 2, 6))
    net = trace(sums_along, {"a": PARAMS["a"]}, x, batch_axis=1)
    run = jax.jit(lambda e: net.apply({"a": PARAMS["a"]}, {}, x, design(1), errors=e)[0])
    none = dataclasses.replace(NOUGHT, weight=jnp.zeros(1), input=jnp.zeros(1), accumulator=jnp.zeros(1))
    for kind, differs in (("weight", False), ("input", True), ("accumulator", True)):
        y = run(dataclasses.replace(none, **{kind: jnp.full(1, 0.3)}))
        assert (float(np.ptp(y, axis=0).max()) > 0) == differs, kind
        assert not np.allclose(y, run(none))


def test_a_tied_leaf_lies_in_the_same_cells_for_each_use_as_it_lies():
    params = {"first": normal(6, 6, 6), "w": jnp.full((6, 6), 0.5)}
    net = trace(lambda p, x: (x @ p["w"].T, x @ p["first"], x @ p["w"], 2 * x @ p["w"]), params, jnp.eye(6))
    errors = dataclasses.replace(NONE, weight=jnp.full(4, 0.3))
    off = [f"{name}/I" for name in net.layer_names]
    turned, other, one, two = net.apply(params, {}, jnp.eye(6), design(4), errors=errors, off=off)[0]
    assert len(np.unique(one)) > 2 and np.array_equal(2 * one, two)
    assert not np.array_equal(turned, one) and not np.array_equal(turned, one.T)


def test_rates_of_another_length_are_refused(net):
    with pytest.raises(ValueError, match=r"errors: input has shape \(3,\), the network 2 layers; pass one rate a lay"):
        net.apply(PARAMS, {}, X, DESIGN, errors=rates(input=[0.1, 0.1, 0.1]))


@jax.custom_vjp
def closed(w, x):
    return x @ w


closed.defvjp(lambda w, x: (x @ w, (w, x)), lambda kept, g: (kept[1].T @ g, g @ kept[0].T))


def test_late_sums_in_a_closed_call_are_refused_by_name_and_its_words_are_not():
    net = trace(lambda p, x: closed(p["w"], x), {"w": PARAMS["a"]}, X)
    late = dataclasses.replace(NONE, accumulator=jnp.full(1, 0.1))
    with pytest.raises(ValueError, match="errors of accumulators in w, whose multiply stands in a call with a deriva"):
        net.apply({"w": PARAMS["a"]}, {}, X, design(1), errors=late)
    words = dataclasses.replace(NONE, weight=jnp.full(1, 0.3))
    plain, wrong = (net.apply({"w": PARAMS["a"]}, {}, X, design(1), errors=e)[0] for e in (None, words))
    assert not np.allclose(plain, wrong)
