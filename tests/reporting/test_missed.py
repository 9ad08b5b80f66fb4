"""A broken budget is said in words, not left to the reader's arithmetic."""

import copy

import pytest

from cooptim.descent.summary import summary
from cooptim.reporting import notes
from tests.reporting import fake_run


@pytest.fixture
def content():
    """A run that keeps its budgets: 6 nJ of 8, 1 us of 2, nothing lost."""
    found = copy.deepcopy(summary(fake_run.result()))
    found["budget"] |= {"energy_pj": 8e3, "latency_ns": 2e3, "area_mm2": 2.0, "accuracy_drop": 0.005}
    found["energy_pj"]["final"], found["latency_ns"]["final"] = 6e3, 1e3
    found["accuracy_val"] |= {"float": 0.95, "final": 0.95}
    return found


def _missed(content):
    return [line for line in notes(content) if line.startswith("MISSED")]


def test_a_run_within_its_budgets_misses_nothing(content):
    assert _missed(content) == []
    content["accuracy_val"]["final"] = 0.945  # exactly what was allowed
    assert _missed(content) == []


@pytest.mark.parametrize(
    ("where", "key", "value", "words"),
    [
        ("energy_pj", "final", 12e3, ("12 nJ", "1.5x its energy budget")),
        ("latency_ns", "final", 3e3, ("3 us", "1.5x its latency budget")),
        ("area_mm2", None, 3.0, ("3 mm2", "1.5x its area budget")),
        ("accuracy_val", "final", 0.93, ("2.00 points", "0.5 were allowed", "more energy or more steps")),
    ],
)
def test_each_broken_budget_is_one_line(content, where, key, value, words):
    if key is None:
        content[where] = value
    else:
        content[where][key] = value
    (line,) = _missed(content)
    assert [word for word in words if word not in line] == []


def test_a_lifted_default_budget_is_said(content):
    assert not [line for line in notes(content) if "0.85 of the bound" in line]
    content["budget"]["lifted"] = True
    assert [line for line in notes(content) if "0.85 of the bound is the budget" in line]


def test_a_quantity_without_a_budget_is_never_missed(content):
    content["budget"]["energy_pj"] = None
    content["energy_pj"]["final"] = 1e9
    assert _missed(content) == []
