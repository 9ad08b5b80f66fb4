"""The multiple-choice knapsack behind mode and supply, against brute force."""

import itertools

import numpy as np
import pytest

from cooptim.descent.assign import InfeasibleDeadline, choose

NAMES = ("a", "b", "c")


def _brute(energy, latency, deadline):
    best = np.inf
    for pick in itertools.product(range(energy.shape[0]), repeat=energy.shape[1]):
        columns = np.arange(energy.shape[1])
        if latency[list(pick), columns].sum() <= deadline:
            best = min(best, energy[list(pick), columns].sum())
    return best


def test_choice_under_a_deadline_is_within_two_percent_of_brute_force_and_never_late():
    rng = np.random.default_rng(0)
    ratios = []
    for _ in range(200):
        # faster costs more, as on a supply grid: energy ~ v^2, latency ~ 1/v
        v = np.linspace(0.6, 1.0, 12)[:, None]
        size = rng.uniform(0.2, 3.0, 3)
        energy, latency = size * v**2, size / v
        deadline = rng.uniform(latency.min(0).sum(), latency.max(0).sum())
        pick = choose(energy, latency, deadline, NAMES)
        columns = np.arange(3)
        assert latency[pick, columns].sum() <= deadline
        ratios.append(energy[pick, columns].sum() / _brute(energy, latency, deadline))
    assert max(ratios) < 1.02
    assert np.median(ratios) < 1.002


def test_choice_skips_illegal_options():
    energy = np.asarray([[1.0, np.inf, 1.0], [2.0, 2.0, 2.0]])
    latency = np.asarray([[1.0, np.inf, 1.0], [1.0, 1.0, 1.0]])
    np.testing.assert_array_equal(choose(energy, latency, 3.0, NAMES), [0, 1, 0])


def test_impossible_deadline_names_demand_bound_and_levers():
    with pytest.raises(
        InfeasibleDeadline, match=r"deadline 2 ns: the fastest legal design takes 3 ns.*raise the supply"
    ):
        choose(np.ones((2, 3)), np.ones((2, 3)), 2.0, NAMES)
