"""Learned ranks: the gates, the gradient of the relaxed objective, whole ranks within a budget, and a tiny run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cooptim
from cooptim.data.dataset import split_dataset
from cooptim.descent import ranks
from cooptim.descent.ranks import (
    RankPrice,
    _at_rank,
    _Relaxed,
    gates,
    learn_ranks,
    plain_pj,
    rank_prices,
    saving,
    within,
)
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
    "wide": RankPrice(16, np.array([1, 4, 8, 16]), np.array([10.0, 14.0, 45.0, 55.0]), 40.0),
    "out": RankPrice(3, np.array([1, 3]), np.array([50.0, 55.0]), 52.0),
}
NOW_PJ = 40.0
CURVES = {name: price.curve(NOW_PJ) for name, price in PRICES.items()}


@pytest.fixture(scope="module")
def relaxed():
    network, _ = network_of(4)
    return _Relaxed(network, low_rank(network, {"wide": 16, "out": 3}), {"wide": 16, "out": 3})


def test_gates_keep_a_prefix_with_a_soft_edge():
    by_hand = 1 / (1 + np.exp(-(2.2 - np.array([0.5, 1.5, 2.5, 3.5])) / 0.4))
    np.testing.assert_allclose(gates(2.2, 4, 0.4), by_hand, rtol=1e-12)
    np.testing.assert_allclose(gates(2.0, 4, 0.01), [1, 1, 0, 0], atol=1e-12)


def test_a_curve_is_the_hull_of_the_priced_ranks_and_of_the_whole_layer():
    # At 16 the layer is whole at 40; 8 lies above the line from (4, 14) to (16, 40), which is 22.7 there.
    ranks, logs = CURVES["wide"]
    assert ranks[:3].tolist() == [1, 4, 16] and np.all(np.diff(ranks) > 0)
    np.testing.assert_allclose(logs[:3], np.log(np.array([10, 14, 40]) / 40), rtol=1e-6)
    np.testing.assert_allclose(np.diff(logs[2:]), (logs[2] - logs[1]) / 12, rtol=1e-4)  # beyond, the last slope
    assert len(CURVES["out"][0]) == len(ranks)
    np.testing.assert_allclose(CURVES["out"][1][1], np.log(52 / 40), rtol=1e-6)


def test_the_energy_of_several_ranks_is_the_product_of_their_changes(relaxed):
    # halfway from 10 to 14 and from 50 to 52, in the logarithm
    shares = {"wide": jnp.asarray(2.5 / 16), "out": jnp.asarray(2.0 / 3)}
    found = relaxed.log_energy(shares, CURVES, np.log(NOW_PJ))
    np.testing.assert_allclose(np.exp(found), 40 * np.sqrt(10 / 40 * 14 / 40) * np.sqrt(50 / 40 * 52 / 40), rtol=1e-6)


def test_the_ranks_feel_loss_and_energy_like_finite_differences(relaxed):
    x, labels, dual = normal(9, 8, 4, 4, 1), jnp.arange(8) % 3, jnp.array([0.7])

    def value(shares):
        at = (relaxed.full.params, {"wide": shares[0], "out": shares[1]})
        return relaxed.objective(at, {}, x, labels, None, 0.4, CURVES, np.log(NOW_PJ), jnp.log(20.0), dual)[0]

    def loss(shares):
        return value(shares) - relaxed_penalty(shares)

    def relaxed_penalty(shares):
        at = {"wide": shares[0], "out": shares[1]}
        c = relaxed.log_energy(at, CURVES, np.log(NOW_PJ)) - jnp.log(20.0)
        return ((0.7 + c) ** 2 - 0.7**2) / 2  # above the budget

    at = jnp.array([0.35, 0.55])
    run = jax.jit(jax.value_and_grad(value))
    slope, of_loss = run(at)[1], jax.jit(jax.grad(loss))(at)
    for i, step in enumerate(np.eye(2) * 1e-6):
        want = float(run(at + step)[0] - run(at - step)[0]) / 2e-6
        np.testing.assert_allclose(slope[i], want, rtol=1e-6)
    assert (np.abs(of_loss) > 1e-3).all() and (np.abs(slope - of_loss) > 1e-3).all()


def test_whole_ranks_are_the_largest_in_proportion_that_the_budget_holds():
    def energy_pj(ranks):  # made up: 2 a component of `wide`, 30 in one piece
        return 2.0 * ranks["wide"] if "wide" in ranks else 30.0

    even = {"wide": np.linspace(0, 1, 17), "out": np.linspace(0, 1, 4)}
    wanted = {"wide": 5.2, "out": 0.9}
    # `out` saves below the rank of 1.8 at which its line from 50 to 55 reaches 52; `wide` below 7.4 (14 to 45 at 40)
    assert saving(PRICES, wanted, 1.0) == {"wide": 5, "out": 1} and saving(PRICES, wanted, 2.0) == {}
    assert within(PRICES, wanted, 13.0, energy_pj, even) == {"wide": 6, "out": 1}
    assert within(PRICES, wanted, 31.0, energy_pj, even) == {}
    assert within(PRICES, wanted, 1.0, energy_pj, even) == {"wide": 1, "out": 1}  # cannot be met
    # 5 components take 10: too many by log(10/7). Prices say 4, which take 8, then 2, and there is room for 3.
    assert within(PRICES, wanted, 7.0, energy_pj, even) == {"wide": 3, "out": 1}
    # From one piece to the largest rank that saves, 7, then to 6; `out` in one piece saves less at 1
    assert within(PRICES, {"wide": 16.0, "out": 3.0}, 13.0, energy_pj, even) == {"wide": 6}


def test_components_that_a_layer_can_miss_leave_first():
    def energy_pj(ranks):
        return 10.0 * ranks.get("a", 4) + 10.0 * ranks.get("b", 4)

    price = RankPrice(4, np.array([1, 2, 3, 4]), np.array([50.0, 60.0, 70.0, 80.0]), 75.0)
    prices, wanted = {"a": price, "b": price}, {"a": 3.0, "b": 3.0}
    faint = np.array([0.0, 0.98, 0.99, 1.0, 1.0])  # all but one of its components hardly matter
    level = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
    assert within(prices, wanted, 41.0, energy_pj, {"a": faint, "b": level}) == {"a": 1, "b": 3}
    assert within(prices, wanted, 41.0, energy_pj, {"a": level, "b": faint}) == {"a": 3, "b": 1}
    # a layer of zeros, such as one that starts at zero, has nothing to lose
    assert within(prices, wanted, 41.0, energy_pj, {"a": np.zeros(5), "b": level}) == {"a": 1, "b": 3}


def test_what_is_held_is_the_share_of_the_singular_values_squared():
    network, params = network_of(4)
    full = low_rank(network, {"wide": 16, "out": 3})
    descent = ranks._Descent(network, full, {"wide": 16, "out": 3}, None, 1, 1e-3, 1e-2, 0)
    for name, held in descent.held().items():
        values = np.linalg.svd(np.asarray(params[name]), compute_uv=False) ** 2
        by_hand = [values[:kept].sum() / values.sum() for kept in range(len(values) + 1)]
        np.testing.assert_allclose(held, by_hand, atol=1e-9)


def test_prices_are_taken_beside_what_the_other_layers_are():
    network, _ = network_of(4)
    machine = cooptim.load_machine("envision")
    for kept in ({}, {"wide": 5, "out": 2}):
        prices = rank_prices(network, machine, {"wide": 16, "out": 3}, kept, 8.0)
        assert set(prices["wide"].ranks) >= {1, 16, kept.get("wide", 16)}
        others = {name: rank for name, rank in kept.items() if name != "wide"}
        for rank, energy in zip(prices["wide"].ranks, prices["wide"].energy_pj, strict=True):
            made = low_rank(network, {**others, "wide": int(rank)})
            assert energy == pytest.approx(plain_pj(made.workload, machine, 8.0), rel=1e-6)
        apart = low_rank(network, others) if others else network
        assert prices["wide"].whole_pj == pytest.approx(plain_pj(apart.workload, machine, 8.0), rel=1e-6)


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


def test_a_run_keeps_the_rank_that_the_data_need_and_leaves_whole_what_is_cheaper_so(monkeypatch):
    stretches, priced, lessons = [], [], []

    def spy(owner, name, note):
        old = getattr(owner, name)

        def noted(*args):
            note(args)
            return old(*args)

        monkeypatch.setattr(owner, name, noted)

    spy(ranks._Descent, "run", lambda args: stretches.append(args[-1]))
    spy(ranks, "rank_prices", lambda args: priced.append(dict(args[3])))
    spy(ranks.Trainer, "train", lambda args: lessons.append(args[3].steps))
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
    assert stretches == [(0, 28, 84), (28, 56, 84), (56, 84, 84)]  # 0.7 of the steps, with three looks at the prices
    assert priced[0] == {} and priced[2] and set(priced[2]) == {"wide"} and lessons == [36]
    with pytest.raises(FloatingPointError, match="learn_ranks: the loss is not a number; lower weight_rate"):
        learn_ranks(network, machine, data, energy_ratio=1.3, steps=12, weight_rate=np.inf)
    with pytest.raises(ValueError, match="energy_ratio 1 asks for no saving"):
        learn_ranks(network, machine, data, energy_ratio=1.0)
    with pytest.raises(ValueError, match="low rank 'nowhere': no such layer"):
        learn_ranks(network, machine, data, ("nowhere",), energy_ratio=2.0)
