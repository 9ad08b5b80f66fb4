"""Channels that pruning has killed: which leave, by hand, and that the smaller network computes the same."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import cooptim
from cooptim.network.shrink import UnshrinkableError, dead_channels, without_dead

pytestmark = pytest.mark.float32
X = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)


def drawn(**shapes):
    rng = np.random.default_rng(1)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def dense(p, x):
    return jax.nn.relu(x @ p["a"] + p["bias"]) @ p["b"]


def test_what_nothing_reads_and_what_nothing_makes_leaves_with_its_bias():
    params = drawn(a=(4, 6), bias=(6,), b=(6, 2))
    params["b"][1] = 0.0  # nothing reads channel 1, whatever it is
    params["a"][:, 3] = 0.0  # channel 3 is its bias: nothing behind the rectifier
    params["bias"][3] = -0.5
    params["a"][:, 4] = 0.0  # channel 4 is a constant that is read
    params["bias"][4] = 0.5
    params["b"][5, 0] = 0.0  # still read by the other output
    network = cooptim.trace(dense, params, X)
    small = without_dead(network, params, {}, X)
    kept = [0, 2, 4, 5]
    assert small.channels == {"a": (6, 4)} and small.error < 1e-6
    np.testing.assert_array_equal(small.network.params["a"], params["a"][:, kept])
    np.testing.assert_array_equal(small.network.params["bias"], params["bias"][kept])
    np.testing.assert_array_equal(small.network.params["b"], params["b"][kept])
    np.testing.assert_allclose(dense(small.network.params, X), dense(params, X), rtol=1e-6, atol=1e-6)
    order = list(params)  # flattening sorts names: a, b, bias
    assert sorted(order) == ["a", "b", "bias"]
    assert {at: list(stays) for at, stays in small.kept.items()} == {(0, 1): kept, (1, 0): kept, (2, 0): kept}
    assert small.network.workload.macs == 4 * 4 + 4 * 2


class Normalized(nnx.Module):
    def __init__(self, rngs):
        self.c = nnx.Conv(1, 5, (3, 3), rngs=rngs)
        self.bn = nnx.BatchNorm(5, rngs=rngs)
        self.d = nnx.Linear(5 * 16, 3, rngs=rngs)

    def __call__(self, x):
        x = nnx.max_pool(nnx.relu(self.bn(self.c(x))), (2, 2), (2, 2))
        return self.d(x.reshape(x.shape[0], -1))


def test_a_channel_is_read_at_every_pixel_and_leaves_its_statistics_too():
    x = np.random.default_rng(2).normal(size=(3, 8, 8, 1)).astype(np.float32)
    network = cooptim.trace(Normalized(nnx.Rngs(0)), x)
    params = jax.tree.map(np.array, network.params)
    rows = params["d"]["kernel"].reshape(16, 5, 3)  # the flatten puts channels innermost
    rows[:, 2] = 0.0
    rows[1:, 4] = 0.0  # one pixel of channel 4 is read still
    small = without_dead(network, params, network.state, x)
    assert small.channels == {"c.kernel": (5, 4)}
    assert small.network.state["bn"]["mean"].shape == small.network.params["bn"]["scale"].shape == (4,)
    np.testing.assert_array_equal(small.network.params["c"]["kernel"], params["c"]["kernel"][..., [0, 1, 3, 4]])
    before, after = (n.apply(p, s, x)[0] for n, p, s in (
        (network, params, network.state), (small.network, small.network.params, small.network.state)
    ))  # fmt: skip
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-6)


def test_a_convolution_that_does_not_read_a_channel_lets_it_go():
    x = np.random.default_rng(2).normal(size=(2, 5, 5, 1)).astype(np.float32)
    params = drawn(a=(3, 3, 1, 4), b=(3, 3, 4, 2))
    params["b"][:, :, 1] = 0.0
    params["b"][:, :, 2, 0] = 0.0  # still read by the other output

    def two(p, x):
        for w in (p["a"], p["b"]):
            x = jnp.tanh(jax.lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")))
        return x.mean((1, 2))

    small = without_dead(cooptim.trace(two, params, x), params, {}, x)
    np.testing.assert_array_equal(small.network.params["a"], params["a"][..., [0, 2, 3]])
    np.testing.assert_array_equal(small.network.params["b"], params["b"][:, :, [0, 2, 3]])


def test_a_channel_stays_while_one_of_its_readers_uses_it():
    params = drawn(a=(4, 5), b=(5, 2), c=(5, 2))
    params["b"][[0, 1]] = 0.0
    params["c"][[1, 2]] = 0.0
    network = cooptim.trace(lambda p, x: jnp.tanh(x @ p["a"]) @ p["b"] + jnp.sin(x @ p["a"]) @ p["c"], params, X)
    assert without_dead(network, params, {}, X).channels == {"a": (5, 4)}  # 1 alone


def test_a_channel_that_a_product_of_data_uses_stays_though_no_weight_reads_it():
    params = drawn(a=(4, 5), b=(5, 2))
    params["b"][[0, 3]] = 0.0
    params["a"][:, 3] = 0.0  # this one adds nothing to the product either

    def alike(p, x):
        y = x @ p["a"]
        return y @ p["b"] + jnp.einsum("nk,mk->nm", y, y)[:, :2] / 8

    network = cooptim.trace(alike, params, X)
    small = without_dead(network, params, {}, X)
    np.testing.assert_array_equal(small.network.params["a"], params["a"][:, [0, 1, 2, 4]])


def test_both_makers_of_a_residual_sum_must_be_dead():
    params = drawn(a=(4, 5), b=(5, 5), c=(5, 2))
    params["b"][:, [0, 1]] = 0.0
    params["b"][[0, 1]] = 0.0
    params["a"][:, 1] = 0.0
    network = cooptim.trace(lambda p, x: (x @ p["a"] + jnp.tanh(x @ p["a"]) @ p["b"]) @ p["c"], params, X)
    assert without_dead(network, params, {}, X).channels == {"a+b": (5, 4)}


def test_one_channel_stays_of_a_layer_that_is_dead_and_layers_can_be_kept():
    params = drawn(a=(4, 3), bias=(3,), b=(3, 2)) | {"b": np.zeros((3, 2), np.float32)}
    network = cooptim.trace(dense, params, X)
    assert without_dead(network, params, {}, X).channels == {"a": (3, 1)}
    assert without_dead(network, params, {}, X, keep=["a"]).channels == {"a": (3, 3)}
    with pytest.raises(ValueError, match="channels of 'b' are not known; legal: a"):
        without_dead(network, params, {}, X, keep=["b"])


def test_a_network_without_dead_channels_comes_back_with_its_weights():
    params = drawn(a=(4, 3), bias=(3,), b=(3, 2))
    network = cooptim.trace(dense, {name: np.zeros_like(leaf) for name, leaf in params.items()}, X)
    small = without_dead(network, params, {}, X)
    assert small.channels == {"a": (3, 3)} and small.error == 0.0 and not small.kept
    np.testing.assert_array_equal(small.network.params["a"], params["a"])
    alone = cooptim.trace(lambda p, x: x @ p["a"], params, X)  # no channel could leave
    assert without_dead(alone, params, {}, X).channels == {}


def test_a_function_that_counts_its_channels_is_refused_by_name():
    params = drawn(a=(4, 6), b=(6, 2))
    params["b"][0] = 0.0
    network = cooptim.trace(lambda p, x: (x @ p["a"]).reshape(-1, 6) @ p["b"], params, X)
    with pytest.raises(UnshrinkableError, match="does not take fewer channels of a .*x.shape"):
        without_dead(network, params, {}, X)


def test_dead_channels_are_counted_by_the_weights_that_make_them():
    params = drawn(a=(4, 6), bias=(6,), b=(6, 2))
    params["b"][1] = 0.0
    params["a"][:, 3] = 0.0  # whatever its bias
    network = cooptim.trace(dense, params, X)
    assert dead_channels(network, params, {}, X[:1]) == {"a": (2, 6)}
