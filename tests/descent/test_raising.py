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


def test_layers_rise_together_from_what_is_zero_and_keep_their_share(network, design):
    raised = raised_thresholds(network, network.params, design)
    # Zero up to 0.2 (its threshold) and up to 1.0 (half a step of 2): 6 and 4 weights are left.
    np.testing.assert_allclose(raised(1.0), [0.2, 1.0])
    # Twice as high: 0.4 leaves 4 of the first's 6, no fewer than 3; 2.0 is below all of the second's.
    np.testing.assert_allclose(raised(2.0), [0.4, 2.0])
    assert kept(raised(2.0)) == [4, 4]
    # Three times as high would leave 0.6 < {0.7, 0.8}: 2 of 6, a third and so allowed.
    np.testing.assert_allclose(raised(3.0), [0.6, 3.0])
    # Eight times: 1.6 would kill the first and 8.0 the second; one weight of each stays, the largest.
    assert kept(raised(8.0)) == [1, 1] and kept(raised(64.0)) == [1, 1]
    assert 0.7 < raised(8.0)[0] < 0.8 and 6.0 < raised(8.0)[1] < 7.0


def test_a_share_holds_before_the_threshold_does(network, design):
    sharp = dataclasses.replace(design, threshold=jnp.array([0.39, 0.5]))
    # 5 of the first layer lie above 0.39. 1.5 times as high cuts at 0.585 and leaves 3 (ceil(5 / 1.5) = 4 must stay).
    raised = raised_thresholds(network, network.params, sharp)
    assert kept(raised(1.5))[0] == 4 and 0.4 < raised(1.5)[0] < 0.5


def test_thresholds_never_fall_and_layers_without_one_stay_whole(network, design):
    raised = raised_thresholds(network, network.params, dataclasses.replace(design, threshold=jnp.array([0.0, 0.5])))
    scales = [1.0, 1.3, 2.0, 5.0, 20.0, 64.0]
    rows = np.array([raised(scale) for scale in scales])
    assert np.all(rows[:, 0] == 0.0) and np.all(np.diff(rows[:, 1]) >= 0)


def test_a_layer_that_is_dead_already_stays_so_within_what_a_float_holds(network, design):
    dead = dataclasses.replace(design, threshold=jnp.array([30.0, 0.5]))
    assert raised_thresholds(network, network.params, dead)(64.0)[0] == 64.0  # of its range of 1


def test_a_step_of_channels_is_no_step_of_the_tensor(network, design):
    channels = dataclasses.replace(design, methods=(Method(), Method(per_channel=True)))
    assert raised_thresholds(network, network.params, channels)(1.0)[1] == 0.5
