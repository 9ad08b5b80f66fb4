"""Live channels counted by hand and against what really leaves; the part of a channel that each weight holds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import cooptim
from cooptim.network.examples import ResNet8
from cooptim.network.liveness import liveness
from cooptim.network.shrink import without_dead
from cooptim.relax.method import Method
from tests.network.cases import design

X = np.random.default_rng(0).normal(size=(6, 4))
CUT = 0.0625  # half of the step of `design`


def dense(p, x):
    return jax.nn.relu(x @ p["a"] + p["bias"]) @ p["b"]


def drawn():
    """Weights far above the cut, channel 1 without readers and channel 3 without makers."""
    rng = np.random.default_rng(1)
    params = {name: rng.choice([-1.0, 1.0], shape) for name, shape in (("a", (4, 5)), ("bias", (5,)), ("b", (5, 2)))}
    params["b"][1] = CUT / 2
    params["a"][:, 3] = -CUT / 2
    return params


def test_channels_without_readers_and_without_makers_are_dead_with_the_weights_on_their_other_side():
    params = drawn()
    params["a"][0, 0] = 0.0
    network = cooptim.trace(dense, params, X)
    live = liveness(network, params, {}, X).shares(params, design(2))
    np.testing.assert_allclose(live.outputs, [3 / 5, 1.0])
    np.testing.assert_allclose(live.inputs, [1.0, 3 / 5])
    # of a, 4 x 5 less one zero and the column of channel 3 are non-zero; the column of channel 1 leaves
    np.testing.assert_allclose(live.weights, [(15 - 4) / 15, (8 - 2) / 8])


def test_a_threshold_kills_what_the_step_spares_and_other_methods_round_elsewhere():
    params = drawn()
    params["b"][0] = 0.2
    network = cooptim.trace(dense, params, X)
    found = liveness(network, params, {}, X)
    assert float(found.shares(params, design(2)).inputs[1]) == pytest.approx(3 / 5)
    assert float(found.shares(params, design(2, threshold=[0.0, 0.3])).inputs[1]) == pytest.approx(2 / 5)
    other = design(2)
    other.methods = (Method(weights="lsq"), Method(weights="lsq"))  # the cut is its own: only exact zeros are dead
    assert float(found.shares(params, other).inputs[1]) == 1.0


def test_each_weight_that_is_left_holds_an_equal_part_of_its_channel():
    params = drawn()
    params["b"][0, 0] = 0.3  # below twice the threshold of 0.2, where the ramp has a slope
    params["b"][2] = 0.3, 0.1  # one reader is left
    network = cooptim.trace(dense, params, X)
    found, at = liveness(network, params, {}, X), design(2, threshold=[0.0, 0.2])
    slopes = jax.grad(lambda p: found.shares(p, at).outputs[0])(jax.tree.map(jnp.asarray, params))
    ramp = 1 / (2 * 0.2)
    expected = np.zeros((5, 2))
    expected[0, 0] = ramp / 5 / 2  # one of two readers of one of five channels
    expected[2] = ramp / 5  # the last reader, and one that is pruned and would be the second
    expected[1] = ramp / 5  # of a channel without readers the first to come back would be all
    np.testing.assert_allclose(slopes["b"], expected)
    # makers stand above twice their cut but for the dead column: no slope, and the whole channel for each of the column
    expected = np.zeros((4, 5))
    expected[:, 3] = -1 / (2 * CUT) / 5
    np.testing.assert_allclose(slopes["a"], expected)
    towards = jax.grad(lambda cut: found.shares(params, design(2, threshold=jnp.stack([0.0, cut]))).inputs[1])(0.2)
    # the ramp |w|/(2 cut) falls with the cut by |w|/(2 cut^2), for each weight below twice the cut
    pulls = sum(size * part for size, part in ((0.3, 1 / 2), (0.3, 1), (0.1, 1), (CUT / 2, 1), (CUT / 2, 1)))
    assert towards == pytest.approx(-pulls / (2 * 0.2**2) / 5)


def test_shares_are_those_of_what_leaves_a_residual_network():
    x = jnp.asarray(np.random.default_rng(2).uniform(size=(2, 16, 16, 3)), jnp.float32)
    network = cooptim.trace(ResNet8(nnx.Rngs(0)), x)
    rng = np.random.default_rng(3)
    leaves, tree = jax.tree.flatten(jax.tree.map(lambda leaf: np.array(leaf, float), network.params))
    for path, leaf in zip(network.param_paths, leaves, strict=True):
        if path.endswith("kernel"):
            leaf *= rng.random(leaf.shape) < 0.5
            leaf[..., rng.random(leaf.shape[-2]) < 0.4, :] = 0.0  # channels that this layer does not read
    params = jax.tree.unflatten(tree, leaves)
    found = liveness(network, params, network.state, x)
    layers = len(network.layer_names)
    live = found.shares(params, design(layers, weight_step=1e-9))
    small = without_dead(network, params, network.state, x)
    assert any(after < before for before, after in small.channels.values())
    whole, left = network.workload.layers, small.network.workload.layers
    for share, dim in ((live.outputs, "K"), (live.inputs, "C")):
        expected = [getattr(b.bounds, dim) / getattr(a.bounds, dim) for a, b in zip(whole, left, strict=True)]
        np.testing.assert_allclose(share, expected, err_msg=dim)
    count = lambda net, p: [np.count_nonzero(jax.tree.leaves(p)[leaf]) for leaf, *_ in net.masked_leaves]  # noqa: E731
    expected = np.divide(count(small.network, small.network.params), count(network, params))
    np.testing.assert_allclose(live.weights, expected)


def test_weights_that_a_pattern_cuts_are_not_left():
    read = np.array([[1.0, 1.0], [0.5, 2.0], [0.25, 0.5], [2.0, 0.25]])  # of four channels by two outputs
    params = {"a": np.ones((4, 4)), "bias": np.ones(4), "b": read}
    two = design(2)
    two.methods = (Method(), Method(pattern=(2, 4)))  # of each output's four readers the two largest stay
    live = liveness(cooptim.trace(dense, params, X), params, {}, X).shares(params, two)
    np.testing.assert_allclose(live.inputs, [1.0, 3 / 4])  # neither output keeps channel 2
    np.testing.assert_allclose(live.weights, [3 / 4, 1.0])


def test_what_cannot_leave_is_alive():
    params = drawn()
    network = cooptim.trace(dense, params, X)
    kept = liveness(network, params, {}, X, keep=["a"])
    assert kept is None  # no other layer has channels
    single = cooptim.trace(lambda p, x: x @ p["a"], {"a": params["a"]}, X)
    assert liveness(single, {"a": params["a"]}, {}, X) is None
