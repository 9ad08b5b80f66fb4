"""Batch statistics catch up with a network that stands still."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import cooptim
from cooptim.descent.measure import Measure
from cooptim.descent.running import MEAN_PASSES, at_rest
from cooptim.design.knobs import float_phase
from cooptim.design.space import DesignSpace


class OneNorm(nnx.Module):
    """A dense layer behind one batch normalization."""

    def __init__(self, rngs):
        self.norm = nnx.BatchNorm(3, momentum=0.9, rngs=rngs)
        self.dense = nnx.Linear(3, 2, rngs=rngs)

    def __call__(self, x):
        return self.dense(self.norm(x))


@pytest.mark.float32
def test_statistics_rest_at_the_mean_over_batches():
    rng = np.random.default_rng(0)
    batches = [rng.normal(2.0, 1.0, (16, 3)).astype(np.float32) for _ in range(5)]
    network = cooptim.trace(OneNorm(nnx.Rngs(0)), batches[0][:1])
    machine = cooptim.load_machine("envision")
    space = DesignSpace(network.workload, machine, cooptim.tilings(network.workload, machine), (True,))
    design = space.decode(space.init(jnp.ones(1), jnp.ones(1)), 1.0, float_phase(1))
    state = Measure(network, 16).settled(network.params, network.state, design, batches)
    # what endless passes over these batches in any order come to, in the mean over orders
    np.testing.assert_allclose(state["norm"]["mean"], np.mean(batches, axis=(0, 1)), rtol=1e-5)
    np.testing.assert_allclose(state["norm"]["var"], np.mean([x.var(axis=0) for x in batches], axis=0), rtol=1e-4)
    np.testing.assert_array_equal(jax.tree.leaves(network.state)[0], 0.0)  # the caller's own is untouched


def _batches(count):
    return [np.full((2, 1), float(step + 1), np.float32) for step in range(count)]


def test_a_running_mean_rests_at_the_mean_of_its_first_batches_and_counters_count():
    calls = []

    def one_pass(state, step, x):
        calls.append(step)
        return {"mean": 0.99 * state["mean"] + 0.01 * x.mean() * jnp.asarray([1.0, 100.0]), "seen": state["seen"] + 1}

    begin = {"mean": jnp.asarray([5.0, -7.0]), "seen": jnp.asarray(3)}
    state = at_rest(one_pass, begin, _batches(200))
    np.testing.assert_allclose(
        state["mean"], np.mean(np.arange(1, MEAN_PASSES + 1)) * np.asarray([1.0, 100.0]), rtol=1e-5
    )
    assert int(state["seen"]) == 3 + MEAN_PASSES
    assert calls == [0, 0, 0, *range(1, MEAN_PASSES), MEAN_PASSES - 1]


@pytest.mark.parametrize(
    "update",
    [
        pytest.param(lambda s, b: s + 1.0, id="float counter"),
        pytest.param(lambda s, b: jnp.maximum(s, b), id="running maximum"),
        pytest.param(lambda s, b: 0.9 * s + 0.1 * b + 0.01 * s * b, id="its rate hangs on the batch"),
        pytest.param(lambda s, b: -0.5 * s + b, id="overshoots"),
        pytest.param(lambda s, b: s * jnp.asarray([0.9, 0.5]) + b, id="a rate for each element"),
        pytest.param(lambda s, b: 0.9 * s + jnp.tanh(s) * b, id="not linear"),
    ],
)
def test_any_other_state_gets_every_pass(update):
    def one_pass(state, step, x):
        return update(state, jnp.asarray(x.mean()))

    begin = jnp.asarray([0.3, 0.2])
    expected = begin
    for x in _batches(50):
        expected = one_pass(expected, 0, x)
    np.testing.assert_array_equal(at_rest(one_pass, begin, _batches(50)), expected)


def test_a_mean_whose_rate_falls_with_a_counter_gets_every_pass():
    def one_pass(state, step, x):
        n = state["n"] + 1
        return {"n": n, "mean": state["mean"] + (x.mean() - state["mean"]) / n}

    state = at_rest(one_pass, {"n": jnp.asarray(1), "mean": jnp.asarray(10.0)}, _batches(40))
    assert int(state["n"]) == 41
    np.testing.assert_allclose(state["mean"], (10.0 + np.sum(np.arange(1, 41))) / 41, rtol=1e-6)


def test_what_passes_leave_alone_stays_to_the_last_bit():
    def one_pass(state, step, x):
        return {"mean": 0.9 * state["mean"] + 0.1 * x.mean(), "table": state["table"]}

    table = jnp.asarray([0.1, -3.7, 1e-7])
    state = at_rest(one_pass, {"mean": jnp.zeros(()), "table": table}, _batches(3))
    np.testing.assert_array_equal(state["table"], table)
    np.testing.assert_allclose(state["mean"], 2.0, rtol=1e-6)


def test_a_network_without_state_needs_no_pass():
    def never(*_):
        raise AssertionError("a pass without a state")

    assert at_rest(never, {}, _batches(3)) == {}
    assert at_rest(never, jnp.ones(2), []).tolist() == [1.0, 1.0]
