"""Low rank: full rank is the network itself, lower rank the truncated decomposition, and the price is two layers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cooptim
from cooptim.network.low_rank import low_rank, rank_limits
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
