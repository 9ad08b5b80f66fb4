"""Cycles left by skipping zeros: by hand, by simulation, gradients by differences."""

import jax
import numpy as np
import pytest

from cooptim.hardware.mechanisms.zero_skipping import skipped_cycles_share


def test_two_lanes_of_two_words_by_hand():
    # Counts 0, 1, 2 with chance 1/4, 1/2, 1/4: the larger of two is 0 in 1/16, at most 1 in 9/16, so 7/16 * 2 + 8/16.
    assert float(skipped_cycles_share(0.5, 2.0, 2)) == pytest.approx((7 / 16 * 2 + 8 / 16) / 2, abs=1e-6)
    # One word each: a cycle unless all are zero.
    assert float(skipped_cycles_share(0.3, 3.0, 1)) == pytest.approx(1 - 0.7**3, abs=1e-6)


def test_one_lane_waits_for_none():
    density = np.linspace(0.0, 1.0, 5)
    assert np.asarray(skipped_cycles_share(density, 1.0, 7)) == pytest.approx(density, abs=1e-6)


def test_dense_and_empty_data_take_all_and_no_cycles():
    assert skipped_cycles_share(np.array([1.0, 0.0]), 16.0, 50).tolist() == pytest.approx([1.0, 0.0], abs=3e-6)


@pytest.mark.parametrize(("density", "lanes", "words"), [(0.5, 16, 9), (0.1, 168, 3), (0.3, 64, 288), (0.02, 16, 288)])
def test_mean_of_the_slowest_lane_is_that_of_random_data(density, lanes, words):
    rng = np.random.default_rng(1)
    slowest = np.array([(rng.random((lanes, words)) < density).sum(1).max() for _ in range(1500)]) / words
    error = slowest.std() / np.sqrt(slowest.size)
    assert float(skipped_cycles_share(density, float(lanes), words)) == pytest.approx(slowest.mean(), abs=4 * error)


def test_more_lanes_and_shorter_rounds_wait_longer():
    by_lanes = skipped_cycles_share(0.4, np.array([1.0, 4.0, 16.0, 256.0]), 20).tolist()
    by_words = [float(skipped_cycles_share(0.4, 16.0, words)) for words in (1000, 100, 10, 1)]
    assert by_lanes == sorted(by_lanes) and by_words == sorted(by_words)
    assert min(by_lanes + by_words) >= 0.4 - 1e-6 and max(by_lanes + by_words) <= 1.0


def test_gradients_are_those_of_differences():
    at = np.array([0.05, 0.5, 0.93]), np.array([4.0, 16.0, 2.0])
    share = jax.jit(lambda density, lanes: skipped_cycles_share(density, lanes, 12))
    for place, values in enumerate(at):
        step = [1e-5 * values if i == place else 0.0 * values for i in range(2)]
        apart = share(at[0] + step[0], at[1] + step[1]) - share(at[0] - step[0], at[1] - step[1])
        slope = np.asarray(apart) / (2e-5 * values)
        found = jax.jit(jax.vmap(jax.grad(share, argnums=place)))(*at)
        assert np.all(slope > 0) and found == pytest.approx(slope, rel=1e-5)


def test_gradients_are_finite_at_both_ends():
    for density in (0.0, 1.0):
        found = jax.jit(jax.grad(lambda *x: skipped_cycles_share(*x, 5), argnums=(0, 1)))(density, 16.0)
        assert np.all(np.isfinite(np.array(found)))


def test_rounds_without_words_are_refused():
    with pytest.raises(ValueError, match="words = 0 between two waits; legal: 1 or more"):
        skipped_cycles_share(0.5, 2.0, 0)
