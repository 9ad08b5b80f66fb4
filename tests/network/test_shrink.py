"""Channels that go together, by hand on small networks, and smaller networks that compute what the silenced ones do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

import cooptim
from cooptim.network import examples
from cooptim.network.channels import channels
from cooptim.network.shrink import UnshrinkableError, channel_counts, channel_scores, shrunk

pytestmark = pytest.mark.float32
X = np.random.default_rng(0).normal(size=(2, 8, 8, 1)).astype(np.float32)


def conv(x, w, groups=1):
    return jax.lax.conv_general_dilated(
        x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups
    )


def drawn(**shapes):
    rng = np.random.default_rng(1)
    return {name: jnp.asarray(rng.normal(size=shape), jnp.float32) for name, shape in shapes.items()}


class Net(nnx.Module):
    def __init__(self, rngs):
        self.c = nnx.Conv(1, 4, (3, 3), rngs=rngs)
        self.bn = nnx.BatchNorm(4, rngs=rngs)
        self.d = nnx.Linear(4 * 16, 5, rngs=rngs)

    def __call__(self, x):
        x = nnx.max_pool(nnx.relu(self.bn(self.c(x))), (2, 2), (2, 2))
        return self.d(x.reshape(x.shape[0], -1))


@pytest.fixture(scope="module")
def net():
    return cooptim.trace(Net(nnx.Rngs(0)), X)


def test_a_channel_goes_with_its_bias_normalization_and_all_pixels_that_the_next_layer_reads(net):
    params = jax.tree.map(np.asarray, net.params)
    params["c"]["kernel"] = params["c"]["kernel"] * np.array([1.0, 1e-3, 3.0, 2e-3], np.float32)
    params["bn"]["bias"] = np.array([0.3, 0.4, -0.2, 0.5], np.float32)
    small = shrunk(net, params, net.state, X, 0.5)
    assert small.channels == {"c.kernel": (4, 2)} and small.error < 1e-6
    got = small.network.params
    np.testing.assert_array_equal(got["c"]["kernel"], params["c"]["kernel"][..., [0, 2]])
    np.testing.assert_array_equal(got["bn"]["bias"], params["bn"]["bias"][[0, 2]])
    # The flatten puts channels innermost: pixel p of channel c is row 4 p + c.
    np.testing.assert_array_equal(got["d"]["kernel"], params["d"]["kernel"].reshape(16, 4, 5)[:, [0, 2]].reshape(32, 5))
    assert small.network.state["bn"]["mean"].shape == (2,) and params["c"]["kernel"].shape == (3, 3, 1, 4)
    bounds = [layer.bounds for layer in small.network.workload.layers]
    assert [(b.K, b.C) for b in bounds] == [(2, 1), (5, 32)]
    assert small.network.workload.macs == 64 * 9 * 2 + 32 * 5


def test_the_scale_of_a_normalization_scores_its_channel(net):
    params = jax.tree.map(np.asarray, net.params)
    params["bn"]["scale"] = np.array([3.0, -0.5, 0.1, 2.0], np.float32)
    found = channels(net, params, net.state, X)
    assert [float(s) for s in channel_scores(net, params, found, "scale")] == pytest.approx([3.0, 0.5, 0.1, 2.0])
    by_hand = np.abs(params["c"]["kernel"]).mean((0, 1, 2))
    np.testing.assert_allclose(channel_scores(net, params, found), by_hand, rtol=1e-6)
    assert len(found) == 4 and all(len(one.makers) == 1 for one in found)
    # kernel, bias, scale, shift, mean, variance, and 16 pixels of the dense layer
    assert [len(one.places) for one in found] == [22] * 4


def residual(p, x):
    a = conv(x, p["a"])
    b = a + jnp.tanh(conv(a, p["b"]))  # ties the outputs of a and b
    c = conv(b, p["c"])
    both = jnp.concatenate([b, c], axis=-1)
    return jnp.einsum("nhwc,co->no", both, p["d"])


def test_a_residual_sum_ties_and_a_concatenation_shifts():
    params = drawn(a=(3, 3, 1, 4), b=(3, 3, 4, 4), c=(1, 1, 4, 3), d=(7, 2))
    network = cooptim.trace(residual, params, X)
    assert channel_counts(network, params, {}, X) == {"a+b": 4, "c": 3}
    small = shrunk(network, params, {}, X, {"a+b": 0.5, "c": 1 / 3})
    assert small.channels == {"a+b": (4, 2), "c": (3, 2)} and small.error < 1e-5
    shapes = {name: leaf.shape for name, leaf in small.network.params.items()}
    assert shapes == {"a": (3, 3, 1, 2), "b": (3, 3, 2, 2), "c": (1, 1, 2, 2), "d": (4, 2)}
    # The mean of the means of both makers decides.
    score = (np.abs(params["a"]).mean((0, 1, 2)) + np.abs(params["b"]).mean((0, 1, 2))) / 2
    kept = np.sort(np.argsort(score)[2:])
    np.testing.assert_array_equal(small.network.params["a"], params["a"][..., kept])
    np.testing.assert_array_equal(small.network.params["b"], params["b"][:, :, kept][..., kept])


def normalized(p, x):
    y = conv(x, p["a"])
    y = y - jnp.mean(y, axis=-1, keepdims=True)  # over channels: fewer would be another mean
    y = conv(conv(y, p["mix"]), p["deep"], groups=4)  # the number of groups is a constant
    return jnp.mean(conv(y, p["b"]), axis=(1, 2)) @ p["c"]


def test_what_a_smaller_array_would_change_stays():
    params = drawn(a=(3, 3, 1, 4), mix=(1, 1, 4, 4), deep=(3, 3, 1, 4), b=(1, 1, 4, 3), c=(3, 2))
    network = cooptim.trace(normalized, params, X)
    assert channel_counts(network, params, {}, X) == {"b": 3}
    with pytest.raises(ValueError, match="channels of 'a' cannot be removed, or there is no such layer; legal: b"):
        shrunk(network, params, {}, X, {"a": 0.5})


def test_early_exits_stay():
    params = drawn(a=(64, 6), b=(6, 2))
    network = cooptim.trace(lambda p, x: jnp.tanh(x.reshape(x.shape[0], -1) @ p["a"]) @ p["b"], params, X)
    early = cooptim.with_exits(network, ("a",), key=jax.random.key(0))
    small = shrunk(early, early.params, early.state, X, 0.5)
    assert small.network.workload.exits == early.workload.exits == ("exits.a.dense",)
    assert small.network.params["exits"]["a"]["dense"].shape == (3, 2)


def test_one_channel_always_stays():
    params = drawn(a=(64, 3), b=(3, 2))
    network = cooptim.trace(lambda p, x: (x.reshape(x.shape[0], -1) @ p["a"]) @ p["b"], params, X)
    assert shrunk(network, params, {}, X, 0.99).channels == {"a": (3, 1)}


def test_a_function_that_does_not_take_smaller_leaves_is_refused_by_name():
    params = drawn(a=(64, 6), b=(6, 2))

    def fixed(p, x):
        return (x.reshape(x.shape[0], -1) @ p["a"]).reshape(-1, 6) @ p["b"]

    network = cooptim.trace(fixed, params, X)
    with pytest.raises(
        UnshrinkableError, match="fixed: its function does not take fewer channels of a .TypeError: .*x.shape"
    ):
        shrunk(network, params, {}, X, 0.5)

    class Dense(linen.Module):
        @linen.compact
        def __call__(self, x):
            return linen.Dense(2)(linen.Dense(6, name="first")(x.reshape(x.shape[0], -1)))

    variables = Dense().init(jax.random.key(0), X)
    network = cooptim.trace(Dense(), X, variables=variables)
    with pytest.raises(UnshrinkableError, match="Dense: its function does not take fewer channels of first.kernel"):
        shrunk(network, network.params, network.state, X, 0.5)


def test_a_constant_that_counts_channels_is_found_by_the_output():
    params = drawn(a=(64, 6), b=(6, 2))

    def counted(p, x):
        y = x.reshape(x.shape[0], -1) @ p["a"]
        return (y / y.shape[1]) @ p["b"]

    network = cooptim.trace(counted, params, X)
    with pytest.raises(
        UnshrinkableError, match="its output is 1 of its largest away .* constant of the program counts"
    ):
        shrunk(network, params, {}, X, 0.5)


@pytest.mark.parametrize(
    ("share", "score", "said"),
    [
        (1.0, "l1", "channels of a: share 1 is out of range; legal are 0 up to, without, 1"),
        ({"a": -0.5}, "l1", "channels of a: share -0.5"),
        (0.5, "l3", "score 'l3' is not known; use one of l1, scale"),
        (0.5, "scale", "channels of a: no leaf 'scale' goes with them; use the score 'l1'"),
    ],
)
def test_what_cannot_be_asked_is_refused(share, score, said):
    params = drawn(a=(64, 6), b=(6, 2))
    network = cooptim.trace(lambda p, x: (x.reshape(x.shape[0], -1) @ p["a"]) @ p["b"], params, X)
    with pytest.raises(ValueError, match=said):
        shrunk(network, params, {}, X, share, score=score)


def test_a_network_without_such_channels_is_refused():
    params = drawn(a=(64, 6))
    network = cooptim.trace(lambda p, x: x.reshape(x.shape[0], -1) @ p["a"], params, X)
    with pytest.raises(UnshrinkableError, match="no layer has channels that can be removed"):
        shrunk(network, params, {}, X, 0.5)


def test_residual_stages_tie_their_channels_and_shapes_are_enough():
    model = nnx.eval_shape(lambda: examples.resnet8(nnx.Rngs(0)))
    x = examples.example_input("resnet8")
    network = cooptim.trace(model, x)
    # The identity ties a stage to the one before it, a 1x1 convolution beside it to itself; inner ones are free.
    assert channel_counts(network, network.params, network.state, x) == {
        "conv0.kernel+s1.conv2.kernel": 16,
        "s1.conv1.kernel": 16,
        "s2.conv1.kernel": 32,
        "s2.conv2.kernel+s2.down.kernel": 32,
        "s3.conv1.kernel": 64,
        "s3.conv2.kernel+s3.down.kernel": 64,
    }
