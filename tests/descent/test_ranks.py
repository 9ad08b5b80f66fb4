"""Learned ranks: the gates, the gradient of the relaxed objective, whole ranks within a budget, and a tiny run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cooptim
from cooptim.data.dataset import split_dataset
from cooptim.descent.ranks import RankPrice, _at_rank, _Relaxed, gates, learn_ranks, plain_pj, whole_ranks
from cooptim.network.low_rank import halves, low_rank, whole
from tests.network.cases import normal


def two_layers(p, x):
    return jnp.tanh(x.reshape(x.shape[0], -1) @ p["wide"]) @ p["out"].T


def network_of(rank, seed=0):
    """A dense network whose first weights have this rank, and noise of a hundredth."""
    exact = normal(seed, 16, rank) @ normal(seed + 1, rank, 24) / 4.0
    params = {"wide": exact + 0.01 * normal(seed + 2, 16, 24), "out": normal(seed + 3, 3, 24)}
    return cooptim.trace(two_layers, params, jnp.zeros((2, 4, 4, 1))), params


PRICES = {
    "wide": RankPrice(16, np.array([1, 4, 16]), np.array([10.0, 19.0, 55.0]), 40.0),
    "out": RankPrice(3, np.array([1, 3]), np.array([50.0, 55.0]), 52.0),
}


@pytest.fixture(scope="module")
def relaxed():
    network, _ = network_of(4)
    return _Relaxed(network, low_rank(network, {"wide": 16, "out": 3}), PRICES, 55.0)


def test_gates_keep_a_prefix_with_a_soft_edge():
    by_hand = 1 / (1 + np.exp(-(2.2 - np.array([0.5, 1.5, 2.5, 3.5])) / 0.4))
    np.testing.assert_allclose(gates(2.2, 4, 0.4), by_hand, rtol=1e-12)
    np.testing.assert_allclose(gates(2.0, 4, 0.01), [1, 1, 0, 0], atol=1e-12)


def test_the_price_is_linear_between_the_ranks_that_were_priced(relaxed):
    # 2.5 of 16: halfway from 10 to 19; 2 of 3: halfway from 50 to 55; both below 55
    shares = {"wide": jnp.asarray(2.5 / 16), "out": jnp.asarray(2.0 / 3)}
    np.testing.assert_allclose(relaxed.energy_pj(shares), 55 + (14.5 - 55) + (52.5 - 55), rtol=1e-12)


def test_the_ranks_feel_loss_and_energy_like_finite_differences(relaxed):
    x, labels, dual = normal(9, 8, 4, 4, 1), jnp.arange(8) % 3, jnp.array([0.7])

    def value(shares):
        at = (relaxed.full.params, {"wide": shares[0], "out": shares[1]})
        return relaxed.objective(at, {}, x, labels, None, 0.4, jnp.log(30.0), dual)[0]

    def loss(shares):
        return value(shares) - relaxed_penalty(shares)

    def relaxed_penalty(shares):
        c = jnp.log(relaxed.energy_pj({"wide": shares[0], "out": shares[1]})) - jnp.log(30.0)
        return ((0.7 + c) ** 2 - 0.7**2) / 2  # above the budget

    at = jnp.array([0.35, 0.55])
    run = jax.jit(jax.value_and_grad(value))
    slope, of_loss = run(at)[1], jax.jit(jax.grad(loss))(at)
    for i, step in enumerate(np.eye(2) * 1e-6):
        want = float(run(at + step)[0] - run(at - step)[0]) / 2e-6
        np.testing.assert_allclose(slope[i], want, rtol=1e-6)
    assert (np.abs(of_loss) > 1e-3).all() and (np.abs(slope - of_loss) > 1e-3).all()


def test_whole_ranks_give_up_the_dearest_component_until_the_budget_holds():
    shares = {"wide": jnp.asarray(5.2 / 16), "out": jnp.asarray(1.0)}
    # at (5, 3): -33 and 0; a component of `wide` takes 3 from 16 to 4 and below, one of `out` takes 2.5
    assert whole_ranks(PRICES, shares, -33.0) == {"wide": 5, "out": 3}
    assert whole_ranks(PRICES, shares, -35.0) == {"wide": 4, "out": 3}
    assert whole_ranks(PRICES, shares, -1e9) == {"wide": 1, "out": 1}


def test_factors_put_together_are_the_leaf_again_in_its_own_layout():
    network, params = network_of(4)
    for name in ("wide", "out"):
        split = low_rank(network, {name: 3}).params[name]
        left, values, right = np.linalg.svd(np.asarray(params[name]))
        np.testing.assert_allclose(whole(network, name, **split), (left[:, :3] * values[:3]) @ right[:3], atol=1e-9)


@pytest.mark.parametrize("place", [lambda w: w, lambda w: {"fc": {"w": w}}])
def test_a_workload_at_another_rank_is_that_of_the_network_split_at_it(place):
    network = cooptim.trace(lambda p, x: x @ jax.tree.leaves(p)[0], place(normal(0, 16, 24)), jnp.zeros((1, 16)))
    (name,) = network.layer_names
    found = _at_rank(low_rank(network, {name: 16}).workload, halves(network, name), 3)
    assert found == low_rank(network, {name: 3}).workload


def test_a_run_keeps_the_rank_that_the_data_need_and_leaves_whole_what_is_cheaper_so():
    network, params = network_of(3, seed=20)
    images = np.asarray(normal(30, 240, 4, 4, 1), np.float32)
    labels = np.asarray(jnp.argmax(two_layers(params, jnp.asarray(images)), axis=1))
    data = split_dataset("made", (images, labels), (images[:60], labels[:60]), 0.25, 0, classes=3)
    machine = cooptim.load_machine("envision")
    found = learn_ranks(network, machine, data, energy_ratio=1.3, steps=120, rank_rate=2e-2, seed=0)
    assert set(found.ranks) == {"wide"} and found.ranks["wide"] < 16
    assert found.network.layer_names == ("wide.u", "wide.v", "out")
    assert found.energy_pj == pytest.approx(plain_pj(found.network.workload, machine, 8.0))
    assert found.before_pj == pytest.approx(plain_pj(network.workload, machine, 8.0))
    assert found.before_pj / found.energy_pj >= 1.25
    y = found.network.apply(found.network.params, found.network.state, jnp.asarray(data.x_val))[0]
    assert np.mean(np.argmax(y, axis=1) == data.y_val) > 0.9
    with pytest.raises(ValueError, match="energy_ratio 1 asks for no saving"):
        learn_ranks(network, machine, data, energy_ratio=1.0)
    with pytest.raises(ValueError, match="low rank 'nowhere': no such layer"):
        learn_ranks(network, machine, data, ("nowhere",), energy_ratio=2.0)
