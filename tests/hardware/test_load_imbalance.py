"""Lanes that share out a sparse matrix: by hand, by simulation of every column, gradients by differences."""

import jax
import numpy as np
import pytest

from cooptim.hardware.load_imbalance import chances, queued_cycles, stored_entries


def simulated(lanes, rows, density, queue, columns, seed=0):
    """Cycles a column: each enters all queues at once when none is full, and takes max(1, non-zeros) in each lane."""
    rng = np.random.default_rng(seed)
    work = np.maximum(rng.binomial(rows, density, (columns, lanes)), 1)
    done, freed = np.zeros(lanes), np.zeros((queue, lanes))
    entered = -1.0
    for j in range(columns):
        entered = max(entered + 1.0, freed[j % queue].max())  # the place of the column `queue` before
        done = np.maximum(done, entered) + work[j]
        freed[j % queue] = done
    return done.max() / columns, work.mean()


def test_entries_of_a_column_by_hand_and_by_counting():
    # Two bits count three zeros, the fourth is a filler: word 5 needs one when four zeros stand before it, word 9 two.
    hand = 0.2 * 9 + 0.2 * (0.8**4 * 5 + 0.8**8 * 1)
    assert float(stored_entries(0.2, 9, 2)) == pytest.approx(hand)
    assert float(stored_entries(0.3, 16, 4)) == pytest.approx(0.3 * 16) == float(stored_entries(0.3, 16, 0))
    columns = np.random.default_rng(2).random((20000, 64)) < 0.04
    found = 0
    for column in columns:
        places = np.flatnonzero(column)
        found += places.size + (np.diff(places, prepend=-1) - 1).__floordiv__(16).sum()
    assert float(stored_entries(0.04, 64, 4)) == pytest.approx(found / len(columns), rel=0.01)


def test_one_place_is_lock_step_by_hand():
    # Two lanes of two words, half of them zero: counts 0 or 1 take a cycle, so two take 2 unless both have fewer.
    assert float(queued_cycles(0.5, 2.0, 2, 1.0)) == pytest.approx(2.0 - (3 / 4) ** 2, abs=1e-6)
    assert float(queued_cycles(0.5, 1.0, 2, 8.0)) == pytest.approx(1.25, abs=1e-6)  # one lane waits for none
    assert np.asarray(queued_cycles(np.array([0.0, 1.0]), 64.0, 7, 8.0)) == pytest.approx([1.0, 7.0], abs=1e-4)


def test_idle_time_of_queued_lanes_is_that_of_every_column_simulated():
    cases = [(64, 64, 0.09, 1), (64, 64, 0.09, 2), (64, 64, 0.04, 8), (64, 10, 0.11, 8), (4, 30, 0.1, 4),
             (1024, 64, 0.09, 16)]  # fmt: skip
    lanes, rows, density, queue = (np.array(column) for column in zip(*cases, strict=True))
    found = np.asarray(queued_cycles(density, lanes.astype(float), rows, queue.astype(float)))
    for case, cycles in zip(cases, found, strict=True):
        took, busy = simulated(*case, 4000)
        idle = took / busy - 1.0
        assert cycles / busy - 1.0 == pytest.approx(idle, rel=0.2 if case[3] > 1 else 0.02), case


def test_two_places_and_few_entries_are_where_idle_time_is_too_low():
    took, busy = simulated(1024, 4, 0.04, 2, 2500)
    cycles = float(queued_cycles(0.04, 1024.0, 4, 2.0))
    assert took / busy - 1.0 == pytest.approx(0.253, abs=0.01)
    assert 0.0 < cycles / busy - 1.0 < 0.25 * (took / busy - 1.0) and took * 0.8 < cycles < took


def test_half_of_the_time_is_idle_without_a_queue_and_a_tenth_with_eight_places():
    # EIE (ISCA 2016), "Queue Depth", of its nine layers: around half at one place, little more to gain beyond eight.
    idle = 1.0 - 64 * 0.09 / np.asarray(queued_cycles(0.09, 64.0, 64, np.array([1.0, 8.0, 256.0])))
    assert 0.4 < idle[0] < 0.6 and 0.02 < idle[1] < 0.12 and idle[1] - idle[2] < 0.08


def test_slopes_in_density_lanes_and_queue_are_those_of_differences():
    at = np.array([0.03, 0.4, 0.97]), np.array([4.0, 64.0, 2.0]), np.array([8.0, 2.0, 30.0])
    both = {
        "cycles": jax.jit(lambda d, n, q: jax.vmap(lambda x, y, z: queued_cycles(x, y, 12, z))(d, n, q)),
        "entries": jax.jit(lambda d, n, q: stored_entries(d, 40, 4) + 0.0 * n * q),
    }
    for name, run in both.items():
        slopes = jax.jit(jax.grad(lambda *x, run=run: run(*x).sum(), argnums=(0, 1, 2)))(*at)
        for place, slope in enumerate(slopes):
            step = [1e-6 * values if i == place else 0.0 * values for i, values in enumerate(at)]
            up, down = (np.asarray(run(*(x + sign * s for x, s in zip(at, step, strict=True)))) for sign in (1, -1))
            assert np.asarray(slope) == pytest.approx((up - down) / (2e-6 * at[place]), rel=1e-4, abs=1e-7), name


def test_more_density_never_takes_fewer_cycles_and_slopes_are_finite_at_the_ends():
    grid = np.linspace(0.0, 1.0, 101)
    rows, queue = np.array([[1, 2, 10, 64]]), np.array([[8.0, 1.0, 2.0, 100.0]])
    cycles, back = jax.vjp(jax.jit(lambda d: queued_cycles(d[:, None], 64.0, rows, queue)), grid)
    assert np.all(np.diff(cycles, axis=0) > -1e-9) and np.all(np.isfinite(back(np.ones((101, 4)))[0]))


def test_chances_add_up_and_columns_without_words_are_refused():
    assert np.asarray(chances(np.array([0.0, 0.3, 1.0]), np.array(5), np.arange(6)).sum(-1)) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="rows = 0 of a column in a lane; legal: 1 or more"):
        queued_cycles(0.5, 2.0, 0, 2.0)
