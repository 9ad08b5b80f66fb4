"""Thresholds that rise when a budget is broken, by hand on two dense layers."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

import cooptim
from cooptim.descent.raising import raised_thresholds
from cooptim.descent.references import wide_design
from cooptim.relax.method import Method

FIRST = np.array([[0.1, -0.2, 0.3, 0.4], [0.5, -0.6, 0.7, 0.8]])
SECOND = np.array([[4.0], [-5.0], [6.0], [7.0]])


def _two(params, x):
    return (x @ params["a"]) @ params["b"]


@pytest.fixture(scope="module")
def network():
    params = {"a": jnp.asarray(FIRST), "b": jnp.asarray(SECOND)}
    return cooptim.trace(_two, params, jnp.zeros((1, 2)))


@pytest.fixture(scope="module")
def design(network):
    machine = cooptim.load_machine("envision")
    space = cooptim.DesignSpace(network.workload, machine, cooptim.tilings(network.workload, machine), (True, True))
    wide = wide_design(space, jnp.ones(2), jnp.ones(2))
    return dataclasses.replace(
        wide, weight_step=jnp.array([0.1, 2.0]), weight_range=jnp.array([1.0, 8.0]), threshold=jnp.array([0.2, 0.5])
    )


def kept(thresholds):
    return [int(np.sum(np.abs(w) > t)) for w, t in zip((FIRST, SECOND), thresholds, strict=True)]


def test_each_layer_keeps_its_share_of_what_is_left(network, design):
    raised = raised_thresholds(network, network.params, design)
    # Zero up to 0.2 (the threshold) and up to 1.0 (half a step of 2): 6 and 4 weights are left, and all of them stay.
    assert kept(raised(1.0)) == [6, 4]
    # Two thirds are 4 of 6, and ceil(8/3) = 3 of 4: the largest that go are 0.4 and 4.
    assert kept(raised(2 / 3)) == [4, 3]
    np.testing.assert_allclose(raised(2 / 3), [0.4, 4.0], rtol=1e-6)
    # However little is asked, the largest of each layer stays.
    assert kept(raised(1e-6)) == [1, 1]


def test_weights_whose_nearest_value_of_the_table_is_zero_do_not_count(network, design):
    shared = dataclasses.replace(
        design,
        methods=(Method("codebook", label_bits=2), Method()),
        codebook=(jnp.array([0.0, -0.6, 0.8, 0.9]), jnp.zeros(0)),
    )
    # Of 0.3, 0.4, 0.5, -0.6, 0.7 and 0.8 above the threshold, 0.3 and 0.4 are not nearer to 0.8 than to 0: 4 are left.
    raised = raised_thresholds(network, network.params, shared)
    np.testing.assert_allclose(raised(1.0), design.threshold, rtol=1e-6)  # all of them stay as it is
    assert kept(raised(0.75)) == [3, 3] and kept(raised(0.5)) == [2, 2]


def test_thresholds_never_fall_and_layers_without_one_stay_whole(network, design):
    raised = raised_thresholds(network, network.params, dataclasses.replace(design, threshold=jnp.array([0.0, 0.5])))
    rows = np.array([raised(share) for share in (1.0, 0.8, 0.5, 0.2, 1e-3)])
    assert np.all(rows[:, 0] == 0.0) and np.all(np.diff(rows[:, 1]) >= 0) and rows[0, 1] >= 0.5


def test_a_weight_just_above_the_threshold_brings_none_back(network, design):
    sharp = dataclasses.replace(design, threshold=jnp.array([0.2999, 0.5]))
    assert raised_thresholds(network, network.params, sharp)(1.0)[0] == pytest.approx(0.2999, rel=1e-6)


def test_a_layer_that_is_dead_already_stays_as_it_is(network, design):
    dead = dataclasses.replace(design, threshold=jnp.array([30.0, 0.5]))
    assert raised_thresholds(network, network.params, dead)(0.1)[0] == 30.0


def test_a_step_of_channels_is_no_step_of_the_tensor(network, design):
    wide = dataclasses.replace(design, weight_step=jnp.array([0.1, 9.0]))  # half a step is 4.5: 5, 6 and 7 are left
    channels = dataclasses.replace(
        wide, methods=(Method(), Method(per_channel=True)), weight_scale=(jnp.zeros(0), jnp.array([0.1]))
    )  # 0.45: all four are
    # ceil(0.3 * 3) = 1 and ceil(0.3 * 4) = 2
    assert kept(raised_thresholds(network, network.params, wide)(0.3))[1] == 1
    assert kept(raised_thresholds(network, network.params, channels)(0.3))[1] == 2


@pytest.mark.parametrize("weights", ["step_range", "lsq"])
def test_what_rounds_to_zero_in_its_own_channel_does_not_count(network, design, weights):
    scaled = dataclasses.replace(
        design,
        threshold=jnp.array([0.05, 0.5]),
        methods=(Method(weights, per_channel=True), Method()),
        weight_scale=(jnp.array([4.0, 2.0, 16.0, 1.0]), jnp.zeros(0)),
    )
    # Half a step of 0.1 in each column: 0.2, 0.1, 0.8, 0.05. Left are 0.5; 0.2, 0.6; none of 0.3, 0.7; 0.4, 0.8.
    raised = raised_thresholds(network, network.params, scaled)
    np.testing.assert_allclose(raised(3 / 5)[0], 0.4, rtol=1e-6)  # 0.8, 0.6 and 0.5 stay
    np.testing.assert_allclose(raised(4 / 5)[0], 0.2, rtol=1e-6)


def test_weights_that_lie_close_together_part(network, design):
    """Penalties gather weights just above their threshold, and all or none of them would never meet a budget."""
    gathered = 0.5 * (1 + 1e-5 * np.arange(8).reshape(2, 4))
    raised = raised_thresholds(network, {"a": jnp.asarray(gathered), "b": jnp.asarray(SECOND)}, design)
    assert int(np.sum(gathered > raised(0.5)[0])) == 4
    equal = {"a": jnp.full((2, 4), 0.5), "b": jnp.asarray(SECOND)}
    assert float(raised_thresholds(network, equal, design)(0.5)[0]) < 0.5  # all or none, then: a layer stays alive
