"""Patterns and scales a channel on an unmodified network: values by hand, in integers too, and what is refused."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cooptim.design.design import Operands
from cooptim.integer import outputs
from cooptim.network import trace
from cooptim.network.errors import ErrorRates
from cooptim.network.integer import integer_network
from cooptim.relax.method import Method, spread

W = np.array([[0.9, -0.1], [0.2, 0.8], [-0.5, 0.3], [0.1, -0.4]])  # [C, K]
X = np.array([[0.25, -1.0, 0.5, 0.75], [1.0, 0.5, -0.25, 0.0]])
SCALE = np.array([1.0, 0.5])


def operands(methods=(), weight_scale=None, layers=1, **fields):
    values = dict(
        weight_bits=4.0, weight_step=0.125, weight_range=0.875, threshold=0.0, input_bits=8.0, input_step=1 / 64,
        input_range=127 / 64,
    )  # fmt: skip
    arrays = {name: jnp.full(layers, value, float) for name, value in (values | fields).items()}
    scale = None if weight_scale is None else tuple(jnp.asarray(s, float) for s in weight_scale)
    return Operands((True,) * layers, methods=methods, weight_scale=scale, **arrays)


@pytest.fixture(scope="module")
def dense():
    return trace(lambda p, x: x @ p, jnp.asarray(W), jnp.asarray(X))


@pytest.fixture(scope="module")
def run(dense):
    """(params, design, x) -> (y, densities), compiled once for each set of methods."""

    def apply(params, design, x):
        y, _, stats = dense.apply(params, {}, x, design)
        return y, stats

    return jax.jit(apply)


def levels(w, scale=1.0, step=0.125, range_=0.875):
    return np.round(np.clip(w / scale, -range_, range_) / step) * step * scale


def test_the_default_method_is_the_network_as_it_was_to_the_last_equation(dense):
    said = operands(methods=(Method(),))
    plain, default = (
        str(jax.make_jaxpr(lambda p, d=d: dense.apply(p, {}, jnp.asarray(X), d)[::2])(jnp.asarray(W)))
        for d in (operands(), said)
    )
    assert plain == default


def test_channels_are_quantized_at_their_own_step_and_pruned_in_units_of_the_weight(run):
    y, stats = run(jnp.asarray(W), operands((Method(per_channel=True),), (SCALE,), threshold=0.15), X)
    kept = np.where(np.abs(W) > 0.15, W, 0.0)
    np.testing.assert_allclose(y, X @ levels(kept, SCALE), atol=1e-12)
    # Of 8 weights 0.1 and -0.1 are cut; all others are at least half of their channel's step.
    assert stats.weight_density.tolist() == [6 / 8]
    coarse = run(jnp.asarray(W), operands((Method(per_channel=True),), ([1.0, 4.0],)), X)[1]
    assert coarse.weight_density.tolist() == [np.mean(levels(W, np.array([1.0, 4.0])) != 0)] == [7 / 8]
    wide = run(jnp.asarray(W), operands((Method(per_channel=True),), ([0.3, 3.7],), weight_bits=32.0), jnp.eye(4))[0]
    assert np.array_equal(wide, W)  # to the last bit, which W / 0.3 * 0.3 is not


def test_a_scale_learns_by_what_rounding_and_clipping_do_to_its_channel(run):
    def loss(scale):
        y = run(jnp.asarray(W), operands((Method(per_channel=True),), (scale,)), jnp.eye(4))[0]
        return jnp.sum(y * jnp.arange(1.0, 9.0).reshape(4, 2))

    ratio = W / SCALE
    inside = np.abs(ratio) <= 0.875
    slope = np.where(inside, levels(ratio) - ratio, np.sign(ratio) * 0.875)
    by_hand = (slope * np.arange(1.0, 9.0).reshape(4, 2)).sum(axis=0)
    np.testing.assert_allclose(jax.grad(loss)(jnp.asarray(SCALE)), by_hand, atol=1e-12)


def test_two_of_four_keeps_the_largest_and_passes_every_gradient(run, dense):
    design = operands((Method(pattern=(2, 4)),))
    mask = np.array([[1, 0], [0, 1], [1, 0], [0, 1]])
    y, stats = run(jnp.asarray(W), design, X)
    np.testing.assert_allclose(y, X @ levels(W * mask), atol=1e-12)
    assert stats.weight_density.tolist() == [0.5]
    slope = jax.grad(lambda w: jnp.sum(run(w, design, X)[0]))(jnp.asarray(W))
    inside = np.abs(W * mask) <= 0.875  # 0.9 is beyond the range
    np.testing.assert_allclose(slope, inside * X.sum(axis=0)[:, None], atol=1e-12)
    assert np.array_equal(dense.harden(jnp.asarray(W), design), W * mask)
    assert np.array_equal(dense.harden(jnp.asarray(W), operands((Method(pattern=(2, 4)),), weight_bits=32.0)), W)


def test_factors_of_groups_and_channels_stand_at_their_axes():
    """Weights [K, C, G] whose channels are counted group by group, as a product with a batch axis has them."""
    found = spread(jnp.arange(6.0), (3, 4, 2), (2, 0))
    assert found.shape == (3, 1, 2)
    assert found[:, 0].tolist() == [[0, 3], [1, 4], [2, 5]]


def test_of_equal_magnitudes_the_first_is_kept(run):
    w = jnp.asarray([[0.5, 0.5], [-0.5, 0.25], [0.5, 0.5], [0.5, 0.5]])
    y, _ = run(w, operands((Method(pattern=(1, 2)),)), jnp.eye(4))
    assert y.tolist() == [[0.5, 0.5], [0, 0], [0.5, 0.5], [0, 0]]


def test_a_bit_of_a_channel_is_worth_its_own_step(dense):
    """A misread weight moves by whole steps of its channel, and at rate 0 by none."""
    design = operands((Method(per_channel=True),), (SCALE,))
    key = jax.random.key(8)
    read = jax.jit(
        lambda rate: dense.apply(
            jnp.asarray(W), {}, jnp.eye(4), design, errors=ErrorRates(rate, None, None, key, key), off="params/I"
        )[0]
    )
    still, moved = (np.asarray(read(jnp.array([rate]))) / (0.125 * SCALE) for rate in (0.0, 0.4))
    np.testing.assert_allclose(still, levels(W, SCALE) / (0.125 * SCALE), atol=1e-12)
    assert (moved != still).any()
    np.testing.assert_allclose(moved, np.round(moved), atol=1e-9)
    steps = np.round(np.abs(moved - still)).astype(int)
    assert (steps % 2 == 1).any(axis=0).all()  # the last bit of some word of each channel


def test_words_that_are_no_whole_numbers_are_refused_where_they_are_misread_and_nowhere_else(dense):
    design, key, one = operands((Method("dorefa"),)), jax.random.key(0), jnp.ones(1)
    none = ErrorRates(None, None, None, key, key)
    late = dense.apply(jnp.asarray(W), {}, X, design, errors=dataclasses.replace(none, accumulator=one))[0]
    assert np.array_equal(late, np.zeros((2, 2)))  # every product comes too late
    wrong = dataclasses.replace(none, weight=0.3 * one, input=0.0 * one)
    still = dense.apply(jnp.asarray(W), {}, X, design, errors=wrong, off="params/W")[0]
    np.testing.assert_allclose(still, X @ W, atol=1e-12)  # inputs are multiples of 1/64
    with pytest.raises(ValueError, match="params: dorefa weights: .* or leave the errors of weights None"):
        dense.apply(jnp.asarray(W), {}, X, design, errors=wrong)


def conv(p, x):
    y = jax.lax.conv_general_dilated(x, p["c"], (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return jnp.maximum(y, 0).reshape(x.shape[0], -1) @ p["d"].T


def test_a_convolution_groups_along_channels_and_integers_follow_its_scales():
    key = jax.random.split(jax.random.key(0), 3)
    params = {"c": jax.random.normal(key[0], (1, 2, 4, 3)) * 0.4, "d": jax.random.normal(key[1], (5, 9)) * 0.4}
    x = jax.random.uniform(key[2], (50, 1, 4, 4), minval=-1.0)
    net = trace(conv, params, x)
    methods = (Method(per_channel=True, pattern=(2, 4)), Method(per_channel=True))
    scale = (jnp.array([1.0, 0.5, 2.0]), jnp.array([1.0, 0.7, 0.5, 1.5, 1.0]))
    design = dataclasses.replace(
        operands(methods, scale, 2), input_signed=(True, False), input_step=jnp.full(2, 1 / 32)
    )
    y, _, stats = jax.jit(lambda d: net.apply(params, {}, x, d))(design)
    w = np.asarray(params["c"])
    order = np.argsort(-np.abs(w), axis=2, kind="stable")
    mask = np.zeros_like(w)
    np.put_along_axis(mask, order[:, :, :2], 1.0, axis=2)
    kernel, head = levels(w * mask, np.asarray(scale[0])), levels(np.asarray(params["d"]).T, np.asarray(scale[1]))
    q = np.round(np.clip(x, -127 / 64, 127 / 64) * 32) / 32
    middle = np.stack([np.einsum("nxc,xck->nk", q[:, 0, i : i + 2], kernel[0]) for i in range(3)], axis=1)
    middle = np.round(np.clip(np.maximum(middle, 0), 0, 127 / 64) * 32) / 32
    np.testing.assert_allclose(y, middle.reshape(50, -1) @ head, atol=1e-9)
    assert float(stats.weight_density[0]) == np.mean(kernel != 0)
    integer = integer_network(net, params, {}, design, x[:1])
    found = outputs(integer, np.asarray(x, np.float32))[0] * integer.outputs[0].step
    assert np.abs(found - y).max() < 0.02 * np.std(y)
    hard = net.harden(params, design)
    assert np.array_equal(hard["c"], w * mask) and np.array_equal(hard["d"], params["d"])


def scanned(p, x):
    return jax.lax.scan(lambda h, w: (h @ w, None), x, p)[0]


@pytest.mark.parametrize(
    ("fn", "params", "methods", "words"),
    [
        (lambda p, x: x @ p, W, Method(pattern=(2, 3)), "params: pattern 2 of 3 does not divide its 4 .*M may be 2, 4"),
        (scanned, np.ones((2, 4, 4)), Method(per_channel=True), r"params\[0\]: it stands in a scan over differing"),
        (scanned, np.ones((2, 4, 4)), (Method(), Method(pattern=(2, 4))), r"all of params\[0\], params\[1\] the same"),
        (lambda p, x: (x @ p) @ p.T, np.ones((4, 4)), Method(pattern=(2, 4)), "params#2: pattern .* used elsewhere"),
        (lambda p, x: (x @ p) * p.sum(), W, Method(pattern=(2, 4)), "params: pattern .* outside of layers"),
        (lambda p, x: x @ p, W, (Method(), Method()), "design: 2 methods for 1 layers"),
        (lambda p, x: x @ p, W, Method(per_channel=True), "params: weight_scale has 3 factors for 2 output channels"),
        (lambda p, x: (x @ p) @ x.T, np.ones((4, 4)), (Method(), Method(per_channel=True)), "matmul: .* no axis of"),
        (lambda p, x: (x @ p) @ x.T, np.ones((4, 4)), (Method(), Method("ternary")), "matmul: .* ternary .* its batch"),
        (lambda p, x: (x @ p) @ x.T, np.ones((4, 4)), (Method(), Method("dorefa")), "matmul: .* dorefa .* its batch"),
    ],
)  # fmt: skip
def test_what_a_method_cannot_do_is_refused_by_name(fn, params, methods, words):
    net = trace(fn, jnp.asarray(params), jnp.asarray(X))
    layers = len(net.layer_names)
    methods = methods if isinstance(methods, tuple) else (methods,) * layers
    scale = [np.ones(3)] * layers
    with pytest.raises(ValueError, match=words):
        net.apply(jnp.asarray(params), {}, jnp.asarray(X), operands(methods, scale, layers))


def test_a_scanned_pattern_is_cut_in_each_trip_and_in_the_leaf():
    params = jax.random.normal(jax.random.key(4), (2, 4, 4)) * 0.3
    net = trace(scanned, params, jnp.asarray(X))
    design = operands((Method(pattern=(1, 4)),) * 2, layers=2)
    hard = np.asarray(net.harden(params, design))
    w = np.asarray(params)
    mask = np.abs(w) == np.abs(w).max(axis=1, keepdims=True)
    assert np.array_equal(hard, w * mask)
    both = jax.jit(lambda p: net.apply(p, {}, jnp.asarray(X), design)[0])
    assert np.array_equal(both(params), both(jnp.asarray(hard)))
    assert np.any(both(params) != 0)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"weights": "lsg"}, "quantizer 'lsg' of weights is not known; use one of step_range, lsq, dorefa"),
        ({"inputs": "none"}, "quantizer 'none' of inputs is not known; use one of step_range, lsq, pact"),
        ({"pattern": (4, 4)}, r"pattern \(4, 4\) does not keep N of M"),
        ({"pattern": (0, 4)}, r"1 <= N < M <= 32"),
        ({"pattern": (2, 40)}, "does not keep"),
    ],
)
def test_a_method_that_does_not_exist_is_refused(fields, words):
    with pytest.raises(ValueError, match=words):
        Method(**fields)


NAMED = {
    "sign": (Method("sign"), [8 / 8, 8 / 8]),
    "ternary": (Method("ternary", "lsq", per_channel=True), None),
    "lsq": (Method("lsq", "pact", per_channel=True, pattern=(1, 2)), [4 / 8]),
    "blend": (Method("blend", "blend"), None),
    "dorefa": (Method("dorefa", "dorefa"), [8 / 8]),
}


@pytest.mark.parametrize("name", NAMED)
def test_a_named_quantizer_runs_on_the_unmodified_network_and_in_integers(name, run, dense):
    method, dense_share = NAMED[name]
    scale = (SCALE,) if method.scaled else (np.ones(0),)
    design = operands((method,), scale, weight_bits=3.0, weight_step=0.25, weight_range=0.75)
    y, stats = run(jnp.asarray(W), design, X)
    step, top = (SCALE if method.scaled else 1.0) * 0.25, 3
    if name == "sign":
        words = np.where(W < 0, -1, 1) * np.abs(W).mean(axis=0)
    elif name == "ternary":
        kept = np.abs(W) > 0.7 * np.abs(W).mean(axis=0)
        words = np.sign(W) * kept * (np.abs(W) * kept).sum(axis=0) / kept.sum(axis=0)
    elif name == "lsq":
        mask = np.array([[1, 0], [0, 1], [1, 0], [0, 1]])  # of each two along C
        words = np.round(np.clip(W * mask / step, -top - 1, top)) * step
    elif name == "blend":
        words = np.round(np.clip(W, -0.75, 0.75) / 0.25) * 0.25
    else:
        t = np.tanh(W)
        words = 0.75 * (2 * np.round(7 * (t / np.abs(t).max() / 2 + 0.5)) / 7 - 1)
    np.testing.assert_allclose(y, X @ words, atol=1e-12)  # X holds multiples of 1/64, which 8 bits keep
    assert stats.weight_density.tolist() == [np.mean(words != 0)]
    assert dense_share is None or stats.weight_density[0] == dense_share[0]
    if name == "dorefa":
        with pytest.raises(ValueError, match="params: dorefa weights: their levels are odd halves"):
            integer_network(dense, jnp.asarray(W), {}, design, X)
        return
    integer = integer_network(dense, jnp.asarray(W), {}, design, X)
    found = outputs(integer, X.astype(np.float32))[0] * integer.outputs[0].step
    np.testing.assert_allclose(found, X @ words, atol=1e-4)


def test_the_sign_of_an_input_has_no_integer_form(dense):
    design = operands((Method("sign", "sign"),), (np.ones(0),))
    with pytest.raises(ValueError, match="params: its inputs keep their sign alone"):
        integer_network(dense, jnp.asarray(W), {}, design, X)
    w = np.round(64 * W) / 64  # sums are exact in any order: some cancel
    signs = np.asarray(dense.apply(jnp.asarray(w), {}, jnp.asarray(X), design)[0])
    np.testing.assert_allclose(signs, np.where(X < 0, -1, 1) * 127 / 64 @ (np.where(w < 0, -1, 1) * np.abs(w).mean(0)))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"weights": "dorefa", "per_channel": True}, "dorefa normalizes a whole tensor"),
        (
            {"weights": "sign", "pattern": (2, 4)},
            "of sign weights, which have no zero; use one of step_range, lsq",
        ),
    ],
)
def test_what_a_quantizer_cannot_be_combined_with_is_said(fields, words):
    with pytest.raises(ValueError, match=words):
        Method(**fields)
