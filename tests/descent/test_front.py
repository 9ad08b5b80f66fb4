"""The front of a sweep and its hypervolume, against slow oracles and by hand."""

import math

import numpy as np
import pytest

from cooptim.descent.front import (
    DIVERGED,
    FINISHED,
    Front,
    Point,
    front_content,
    front_of,
    hypervolume,
    member_name,
    non_dominated,
    volumes,
)  # fmt: skip
from cooptim.descent.result import Budget


def _point(name, energy, accuracy, seed=0, status=FINISHED, reference=1000.0, bound=10.0):
    return Point(
        name, seed, status, 5, energy, 2.0, reference_pj=reference, bound_pj=bound, float_val_accuracy=0.9,
        energy_pj=energy, val_accuracy=accuracy,
    )  # fmt: skip


def test_a_point_is_on_the_front_exactly_when_no_other_dominates_it():
    rng = np.random.default_rng(0)
    for _ in range(50):
        energy, accuracy = rng.integers(1, 6, 12).astype(float), rng.integers(0, 5, 12) / 5.0  # with many ties
        slow = [
            not any(
                (e <= energy[i] and a >= accuracy[i]) and (e < energy[i] or a > accuracy[i])
                for e, a in zip(energy, accuracy, strict=True)
            )
            for i in range(12)
        ]
        assert non_dominated(energy, accuracy).tolist() == slow


def test_hypervolume_of_two_points_by_hand():
    # The axis from 1,000 pJ to 10 pJ has two decades: 100 pJ stands at 0.5, 31.62 pJ at 0.75. Accuracy from 0.5: 0.9 is
    # 0.8 of the way, 0.7 is 0.4. Dominated: 0.5 x 0.8 + (0.75 - 0.5) x 0.4.
    energy, accuracy = np.array([100.0, 1000.0 / 10**1.5]), np.array([0.9, 0.7])
    assert hypervolume(energy, accuracy, 1000.0, 10.0, 0.5) == pytest.approx(0.5 * 0.8 + 0.25 * 0.4)
    assert hypervolume(energy[::-1].copy(), accuracy[::-1].copy(), 1000.0, 10.0, 0.5) == pytest.approx(0.5)


def test_what_lies_outside_the_plane_adds_nothing():
    outside = np.array([2000.0, 100.0]), np.array([0.99, 0.4])  # above the reference's energy; below the floor
    assert hypervolume(*outside, 1000.0, 10.0, 0.5) == 0.0
    assert hypervolume(np.array([5.0]), np.array([1.0]), 1000.0, 10.0, 0.5) == pytest.approx(1.0)


def test_hypervolume_is_the_share_of_random_points_that_are_dominated():
    rng = np.random.default_rng(1)
    energy, accuracy = 10.0 ** rng.uniform(1, 3, 8), rng.uniform(0.1, 1.0, 8)
    at = rng.uniform(size=(200_000, 2))
    saved, right = np.log10(1000.0 / energy) / 2.0, (accuracy - 0.1) / 0.9
    share = np.mean(np.any((at[:, :1] <= saved) & (at[:, 1:] <= right), axis=1))
    assert hypervolume(energy, accuracy, 1000.0, 10.0, 0.1) == pytest.approx(share, abs=0.005)  # 4 deviations


def test_only_finished_members_are_on_the_front_and_in_the_volume():
    points = (
        _point("a", 100.0, 0.9), _point("b", 50.0, 0.8, seed=1), _point("c", 120.0, 0.85),
        _point("d", 10.0, 1.0, status=DIVERGED), Point("e", 0, DIVERGED, 3, 10.0, 2.0),
    )  # fmt: skip
    assert [point.name for point in front_of(points)] == ["b", "a"]
    whole, each = volumes(points, 0.5)
    assert whole == pytest.approx(0.5 * 0.8 + (math.log10(20) / 2 - 0.5) * 0.6)
    assert each == {0: pytest.approx(0.4), 1: pytest.approx(math.log10(20) / 2 * 0.6)}
    assert front_of(()) == () and volumes((), 0.5) == (None, {})


def test_the_references_of_the_volume_are_means_over_the_seeds():
    # 16-bit references of 900 and 1,100 pJ: the axis starts at 1,000.
    points = [_point("a", 100.0, 0.9, reference=900.0), _point("b", 100.0, 0.9, seed=1, reference=1100.0)]
    assert volumes(points, 0.5)[0] == pytest.approx(0.4)
    front = Front("net", "chip", tuple(points), 10, 0.5, "chance", {}, {})
    found = front_content(front)["hypervolume"]["reference_point"]
    assert found == {"energy_pj": 1000.0, "val_accuracy": 0.5, "accuracy_is": "chance"}


def test_members_are_named_by_what_they_were_asked_for():
    assert member_name(Budget(energy_pj=125_892.54), 3) == "e125.893nJ-s3"
    assert member_name(Budget(energy_ratio=28.5), 0) == "r28.5-s0"
