import math

import pytest

from cooptim.validate import Row


def row(relation, published=10.0, model=11.0, low=None, high=None, tolerance=0.1, top=None):
    low, high = model if low is None else low, model if high is None else high
    return Row("name", "1", published, model, low, high, tolerance, "source", relation=relation, published_high=top)


@pytest.mark.parametrize(
    ("relation", "model", "holds"),
    [
        ("equal", 10.9, True), ("equal", 11.1, False), ("equal", 8.9, False),
        ("below", 10.9, True), ("below", 11.1, False), ("below", 1.0, True),
        ("above", 9.1, True), ("above", 8.9, False), ("above", 99.0, True),
    ],
)  # fmt: skip
def test_a_value_is_met_from_both_sides_and_a_limit_from_one(relation, model, holds):
    assert row(relation, model=model).holds is holds
    assert row(relation, model=model).error == pytest.approx(model / 10 - 1)


@pytest.mark.parametrize(
    ("low", "high", "error", "holds"),
    [(8, 12, 0.0, True), (10.5, 20, 0.05, True), (12, 20, 0.2, False), (4, 8, -0.2, False), (5, 15.1, 0.0, None)],
)
def test_an_interval_holds_what_lies_in_it_unless_it_is_three_times_wide(low, high, error, holds):
    found = row("inside", model=math.sqrt(low * high), low=low, high=high)
    assert found.error == pytest.approx(error) and found.holds is holds
    assert found.informative is (high <= 3 * low)


@pytest.mark.parametrize(
    ("low", "high", "error", "holds"),
    [(11, 19, 0.0, True), (9.5, 15, -0.05, True), (8.9, 15, -0.11, False), (12, 21.9, 0.095, True),
     (12, 23, 0.15, False), (30, 40, 1.0, False), (1, 60, 2.0, False), (9.5, 21.5, 0.075, True),
     (math.nan, 15, math.nan, False), (12, math.nan, math.nan, False)],
)  # fmt: skip
def test_a_published_range_holds_all_of_the_model_within_its_widened_ends(low, high, error, holds):
    found = row("range", model=15.0, low=low, high=high, top=20.0)
    assert found.error == pytest.approx(error, nan_ok=True) and found.holds is holds and found.informative


def test_an_upper_end_belongs_to_a_range_alone():
    for relation, top in (("range", None), ("equal", 12.0)):
        with pytest.raises(ValueError, match=f"relation '{relation}' with published_high {top}; legal: an upper end"):
            row(relation, top=top)


def test_nothing_published_and_no_tolerance_are_not_checked_and_nan_never_holds():
    assert row("equal", published=None).holds is None and row("equal", published=None).error is None
    assert row("equal", tolerance=None).holds is None
    assert row("equal", model=math.nan).holds is False
