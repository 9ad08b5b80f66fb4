"""Low rank: full rank is the network itself, lower rank the truncated decomposition, and the price is two layers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cooptim
from cooptim.network.low_rank import low_rank, rank_limits, whole
from cooptim.network.shrink import UnshrinkableError, shrunk
from cooptim.workload import Bounds
from tests.network.cases import layer_of, normal

NHWC = ("NHWC", "HWIO", "NHWC")


def net(p, x):
    x = jax.lax.conv_general_dilated(x, p["conv"], (2, 1), "SAME", dimension_numbers=NHWC)
    x = jax.nn.relu(x).transpose(0, 3, 1, 2)
    x = jax.lax.conv_general_dilated(
        x, p["oihw"], (1, 1), [(0, 1), (1, 0)], rhs_dilation=(1, 2), dimension_numbers=("NCHW", "OIHW", "NCHW")
    )
    x = jnp.mean(jax.nn.relu(x), axis=(2, 3))
    return (p["left"] @ jnp.tanh(x.T)).T @ p["head"].reshape(6, 5)


@pytest.fixture(scope="module")
def parts():
    params = {
        "conv": normal(0, 3, 3, 2, 8), "oihw": normal(1, 7, 8, 2, 2), "left": normal(2, 6, 7), "head": normal(3, 5, 6),
    }  # fmt: skip
    x = normal(4, 3, 6, 6, 2)
    return cooptim.trace(net, params, x), params, x


def test_full_rank_is_the_network_itself_for_every_layout(parts):
    network, params, x = parts
    limits = rank_limits(network)
    assert limits == {"conv": 8, "oihw": 7, "left": 6, "head": 5}
    split = low_rank(network, limits)
    y = split.apply(split.params, split.state, x)[0]
    np.testing.assert_allclose(y, net(params, x), rtol=1e-9, atol=1e-12)


def test_a_lower_rank_is_the_best_approximation_and_two_layers_of_hand_counted_macs(parts):
    network, params, x = parts
    split = low_rank(network, {"conv": 3, "left": 2})
    names = ("conv.u", "conv.v", "oihw", "left.u", "left.v", "head")
    assert split.layer_names == names
    assert layer_of(split, "conv.u").bounds == Bounds(K=3, C=2, OY=3, OX=6, FY=3, FX=3)
    assert layer_of(split, "conv.v").bounds == Bounds(K=8, C=3, OY=3, OX=6)
    assert layer_of(split, "left.u").macs + layer_of(split, "left.v").macs == 2 * (7 + 6)
    assert layer_of(split, "conv.v").inputs == ("conv.u",)

    def best(matrix, rank):
        left, values, right = np.linalg.svd(matrix)
        return (left[:, :rank] * values[:rank]) @ right[:rank]

    cut = params | {
        "conv": best(np.asarray(params["conv"]).reshape(18, 8), 3).reshape(3, 3, 2, 8),
        "left": best(np.asarray(params["left"]), 2),
    }
    y = split.apply(split.params, split.state, x)[0]
    np.testing.assert_allclose(y, net({k: jnp.asarray(w) for k, w in cut.items()}, x), rtol=1e-9, atol=1e-12)
    u, v = (np.asarray(split.params["left"][k]) for k in "uv")
    np.testing.assert_allclose((u**2).sum(axis=0), (v**2).sum(axis=1), rtol=1e-9)  # balanced


def test_a_split_network_can_have_exits_and_its_exits_can_be_split(parts):
    network, params, x = parts
    early = cooptim.with_exits(network, ("conv",), key=jax.random.key(0), grid=2)
    split = low_rank(early, {"conv": 2, "exits.conv.dense": 3})
    assert split.workload.exits == ("exits.conv.dense.v",)
    y = split.apply(split.params, split.state, x)[0]
    assert y.shape == (2, 3, 5)


def held(p, x):
    """Weights that are turned in a scan, in a branch and where they are computed again."""
    x = jax.lax.scan(lambda h, row: (jnp.tanh((h + row) @ p["scan"].T), None), x, jnp.ones((2, 4)))[0]
    x = jax.lax.cond(x.sum() > 1e3, lambda w, x: x * 0.0, lambda w, x: jnp.tanh(x @ w.T), p["cond"], x)
    return jax.checkpoint(lambda w, x: x @ w.T)(p["again"], x)


def test_weights_that_are_turned_inside_of_scans_branches_and_checkpoints_are_split_there():
    params = {"scan": normal(0, 4, 4), "cond": normal(1, 4, 4), "again": normal(2, 3, 4)}
    x = normal(3, 2, 4)
    network = cooptim.trace(held, params, x)
    assert rank_limits(network) == {"scan": 4, "cond": 4, "again": 3}
    split = low_rank(network, rank_limits(network))
    y = split.apply(split.params, split.state, x)[0]
    np.testing.assert_allclose(y, held(params, x), rtol=1e-9, atol=1e-12)


def through(dtype):
    return lambda p, x: x @ p["w"].astype(dtype).astype(x.dtype)


@pytest.mark.parametrize("shape", [(40, 32), (31, 11)])
def test_factors_are_put_together_where_the_program_rounds_its_weights(shape):
    # 1280 words, and bfloat16 holds whole numbers up to 256 alone.
    params = {"w": normal(0, *shape).T}
    network = cooptim.trace(lambda p, x: through(jnp.bfloat16)({"w": p["w"].T}, x), params, normal(1, 1, shape[0]))
    u, v = normal(2, shape[0], 3), normal(3, 3, shape[1])
    np.testing.assert_allclose(whole(network, "w", u, v), (u @ v).T, rtol=1e-12)


@pytest.mark.parametrize(("dtype", "held"), [(jnp.float64, jnp.float64), (jnp.bfloat16, jnp.float32)])
def test_the_factors_of_a_convolution_are_put_together_in_the_type_it_is_held_in(dtype, held):
    def conv(p, x):
        return jax.lax.conv_general_dilated(x, p["w"], (1, 1), "SAME", dimension_numbers=NHWC)

    w = normal(0, 3, 3, 2, 8).astype(dtype)
    network = cooptim.trace(conv, {"w": w}, normal(1, 1, 4, 4, 2).astype(dtype))
    again = whole(network, "w", **low_rank(network, {"w": 8}).params["w"])
    assert again.dtype == held and again.shape == w.shape and network.given({"w": again})["w"].dtype == dtype
    np.testing.assert_allclose(again.astype(float), w.astype(float), atol=16 * float(jnp.finfo(dtype).eps))


def test_a_type_that_holds_no_digit_is_refused():
    network = cooptim.trace(through(jnp.float8_e4m3fn), {"w": normal(0, 8, 6)}, normal(1, 1, 8))
    with pytest.raises(ValueError, match="low rank 'w': its weights pass through a type that does not hold the whole"):
        whole(network, "w", np.ones((8, 1)), np.ones((1, 6)))


def rows(x, w):
    """x times weights whose rows are the outputs, as they lie."""
    return jax.lax.dot_general(x, w, (((1,), (1,)), ((), ())))


def test_channels_leave_a_network_that_was_split_and_its_rank_is_one_of_them():
    params = {"a": normal(0, 4, 8), "b": normal(1, 6, 8), "c": normal(2, 6, 3)}
    x = normal(3, 2, 4)
    network = cooptim.trace(lambda p, x: jnp.tanh(rows(jnp.tanh(x @ p["a"]), p["b"])) @ p["c"], params, x)
    split = low_rank(network, {"b": 4})
    small = shrunk(split, split.params, split.state, x, {"a": 0.5, "b.u": 0.25, "b.v": 0.5})
    shapes = jax.tree.map(jnp.shape, small.network.params)
    assert shapes == {"a": (4, 4), "b": {"u": (4, 3), "v": (3, 3)}, "c": (3, 3)} and small.error < 1e-9
    turned = cooptim.trace(lambda p, x: jnp.tanh(x @ p["a"]) @ p["b"].T, {k: params[k] for k in "ab"}, x)
    split = low_rank(turned, {"b": 4})
    with pytest.raises(UnshrinkableError, match=r"'b': its factors make \[4, 6\] of what was \[8, 6\].*shrink first"):
        shrunk(split, split.params, split.state, x, {"a": 0.5})


def odd(p, x):
    x = jax.lax.conv_general_dilated(x, p["depthwise"], (1, 1), "SAME", dimension_numbers=NHWC, feature_group_count=4)
    x = jnp.mean(x, axis=(1, 2)) @ (p["sum"] + p["sum2"])
    x = x @ p["tied"] @ p["tied"].T
    x, _ = jax.lax.scan(lambda c, w: (jnp.tanh(c @ w), None), x, p["scanned"])
    return jnp.einsum("bgc,gck->bgk", x.reshape(-1, 2, 2), p["groups"]).reshape(-1, 4) @ p["out"]


@pytest.mark.parametrize(
    ("ranks", "message"),
    [
        ({"nowhere": 1}, "low rank 'nowhere': no such layer in odd; legal are depthwise, sum"),
        ({"out": 4}, r"low rank 'out': rank 4 of a 4 x 3 matrix; legal are 1 to 3, and fewer MACs .* 1.714 or less"),
        ({"out": 0}, "rank 0 of a 4 x 3 matrix; legal are 1 to 3"),
        ({"depthwise": 1}, r"low rank 'depthwise': it is a grouped or depthwise convolution \(4 groups\); legal are"),
        ({"sum": 1}, "low rank 'sum': its weights are computed from others"),
        ({"tied": 1}, "low rank 'tied': its weights are used elsewhere too"),
        ({r"scanned[0]": 1}, r"low rank 'scanned\[0\]': its weights differ from trip to trip"),
        ({"groups": 1}, "low rank 'groups': its weights are one matrix a group"),
        ({}, "no layer is named; odd has depthwise"),
    ],
)
def test_what_has_no_factors_is_refused_by_name(odd_network, ranks, message):
    with pytest.raises(ValueError, match=message):
        low_rank(odd_network, ranks)


@pytest.fixture(scope="module")
def odd_network():
    params = {
        "depthwise": normal(0, 3, 3, 1, 4), "sum": normal(1, 4, 4), "sum2": normal(2, 4, 4), "tied": normal(3, 4, 4),
        "scanned": normal(4, 2, 4, 4), "groups": normal(5, 2, 2, 2), "out": normal(6, 4, 3),
    }  # fmt: skip
    network = cooptim.trace(odd, params, normal(7, 2, 5, 5, 4))
    assert rank_limits(network) == {"out": 3}
    return network
