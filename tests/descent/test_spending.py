"""Energy that a move frees is spent on pruned weights, on all layers or on one, by hand-made prices."""

import dataclasses
import types
from unittest import mock

import numpy as np
import pytest

from cooptim.descent import descend, finalize
from cooptim.descent.finalize import Limits
from cooptim.descent.moves import Move
from cooptim.descent.step import TrainState
from cooptim.descent.task import Task
from cooptim.design.design import Design

LIMITS = Limits(70.0, 1.0, None, 0.9)


class TwoLayers(Task):
    """A task that knows no more than what spending asks for."""

    layers = 2
    data = types.SimpleNamespace(x_val=np.zeros(1), y_val=np.zeros(1, int))
    network = None

    def __init__(self, measure):
        object.__setattr__(self, "measure", measure)


def cut(*threshold):
    """A design of two layers of which only the thresholds matter."""
    two, choice = np.ones(2), np.ones((2, 1))
    return Design((False, False), two, two, two, np.asarray(threshold), two, two, two, choice, choice, two, two, two[0])


def energy_pj(design):
    """100 pJ without pruning; a threshold of 1 saves a quarter of it in either layer."""
    return 100.0 - 25.0 * float(np.sum(design.threshold))


def foreseeing(factor):
    """Reports of designs that are foreseen to cost so many times what they do."""
    return lambda design: types.SimpleNamespace(total_energy_pj=factor * energy_pj(design))


@pytest.fixture
def task(monkeypatch):
    def priced(task, params, state, design, period_ns):
        return types.SimpleNamespace(total_energy_pj=energy_pj(design)), None

    monkeypatch.setattr(finalize, "price", priced)

    def raised(network, params, design):  # `test_raising.py` has the real one
        return lambda share: np.minimum(design.threshold / share, 64.0)

    monkeypatch.setattr(finalize, "raised_thresholds", raised)
    monkeypatch.setattr(finalize, "settled", lambda task, params, state, design: state)
    monkeypatch.setattr(finalize, "foreseen", lambda *_: foreseeing(1.0))
    return accepting(lambda threshold: True)


def accepting(rule):
    """A task with accuracy 1 where the rule on the thresholds holds, else 0."""
    return TwoLayers(types.SimpleNamespace(accuracy=lambda p, s, design, *_: (float(rule(design.threshold)), 0.0)))


START = cut(0.8, 0.8)  # 60 pJ


def test_thresholds_of_all_layers_fall_together_until_the_budget_binds(task):
    found = finalize.spend(task, None, None, START, LIMITS)
    # 100 - 25 * 1.6 * scale = 70 at scale 0.75; the band allows 68.6 to 70
    assert found.threshold[0] == found.threshold[1]
    assert 0.8 * 0.75 <= found.threshold[0] <= 0.8 * 0.785 + 1e-6
    assert 68.6 <= energy_pj(found) <= 70.0


def test_the_threshold_of_one_layer_falls_alone(task):
    found = finalize.spend(task, None, None, START, LIMITS, 1)
    # 100 - 25 * (0.8 + 0.8 scale) = 70 at scale 0.5
    assert found.threshold[0] == pytest.approx(0.8) and 0.4 <= found.threshold[1] <= 0.4 * 1.14 + 1e-6


def test_a_broken_budget_raises_them(task):
    found = finalize.spend(task, None, None, cut(0.4, 0.4), LIMITS)
    assert 68.6 <= energy_pj(found) <= 70.0 and found.threshold[0] > 0.4


def test_a_budget_that_no_pruning_meets_leaves_the_network_alive(task, monkeypatch):
    always = types.SimpleNamespace(total_energy_pj=100.0)
    monkeypatch.setattr(finalize, "price", lambda *_: (always, None))
    assert finalize.spend(task, None, None, START, LIMITS) is START
    settled = []
    monkeypatch.setattr(finalize, "settled", lambda task, params, state, design: settled.append(design) or state)
    assert np.all(finalize.bind(task, None, "state", START, LIMITS)[0].threshold == START.threshold)
    assert len(settled) == 2  # once aimed at the budget, once below it: a third aim is not met either


def test_one_weight_in_eight_may_be_left_and_no_fewer(task, monkeypatch):
    """Thresholds of 0.8 over the share: 6.4 at an eighth, 12.8 at a sixteenth."""
    for met_at, moves in ((6.0, True), (7.0, False)):
        monkeypatch.setattr(finalize, "price", lambda t, p, s, design, period_ns, met_at=met_at: (
            types.SimpleNamespace(total_energy_pj=69.0 if design.threshold[0] >= met_at else 100.0), None))  # fmt: skip
        found = finalize.spend(task, None, None, START, LIMITS)
        assert (found.threshold[0] >= met_at) == moves and (found is START) != moves


@pytest.mark.parametrize(
    "rule, changed",
    [
        (lambda t: t[0] < 0.62, (True, True)),  # all layers, the first way
        (lambda t: t[1] > 0.79, (True, False)),  # only the first layer may lose its mask
        (lambda t: t[0] > 0.79, (False, True)),
    ],
)
def test_the_first_way_of_spending_that_keeps_the_accuracy_is_taken(task, rule, changed):
    task = accepting(rule)
    design, _ = finalize._spent(task, None, None, START, LIMITS)
    assert tuple(design.threshold < 0.79) == changed
    assert 0.972 * 70.0 <= energy_pj(design) <= 70.0


def test_no_way_is_said_so(task):
    task = accepting(lambda t: False)
    assert finalize._spent(task, None, None, START, LIMITS) is None


def test_one_layer_that_cannot_take_what_was_freed_is_no_way(task):
    task = accepting(lambda t: t[0] == 0.8)  # spending everything of layer 1 gives 80 pJ, far below 95
    assert finalize._spent(task, None, None, START, dataclasses.replace(LIMITS, energy_pj=95.0)) is None


@pytest.mark.parametrize("energies, taken", [([30.0, 55.0, 58.0], "fits"), ([30.0, 60.0, 61.0], None)])
def test_the_move_that_saves_most_of_those_that_can_be_built_is_named(task, monkeypatch, energies, taken):
    moves = [Move(name, cut(k, k), False) for k, name in enumerate(("too large", "fits", "dearer"))]
    monkeypatch.setattr(finalize, "hardware_moves", lambda space, design: moves)
    monkeypatch.setattr(finalize, "violations", lambda space, design: ["no"] if design is moves[0].design else [])
    for kind in ("width_moves", "mode_moves", "legal_moves"):
        monkeypatch.setattr(finalize, kind, lambda *_: [])
    prices = types.SimpleNamespace(energy_pj=np.asarray(energies), latency_ns=np.ones(3))
    object.__setattr__(task, "space", None)
    object.__setattr__(task, "pricer", types.SimpleNamespace(many=lambda *_: prices))
    move, saving, count = finalize.best_move(task, None, None, START, LIMITS)
    # 60 pJ before: 55 saves a twelfth; what costs as much or more saves nothing, and nothing is not less than nothing
    assert (move and move.name, count) == (taken, 3) and saving == pytest.approx(1 / 12 if taken else 0.0)


@pytest.mark.parametrize(
    ("least", "accepted", "taken", "measured"),
    [
        (0.0, 1.0, "d", 2),  # the start and d
        (0.0, 0.9, "b", 3),  # d loses the accuracy; a and c are not asked
        (0.0, 0.8, None, 4),  # all that save are asked, and c costs more
        (0.05, 0.8, None, 3),  # a saves 4 %
        (0.09, 0.9, None, 2),  # b saves 8.3 %
    ],
)
def test_accuracies_are_measured_from_the_move_that_saves_most_on(task, monkeypatch, least, accepted, taken, measured):
    """60 pJ before; moves to 57.5, 55, 62.5 and 50 pJ; those that prune beyond `accepted` lose the accuracy."""
    asked = []

    def accuracy(params, state, design, *_):
        asked.append(design)
        return float(design.threshold[0] <= accepted + 1e-9), 0.0

    cuts = {"a": 0.85, "b": 0.9, "c": 0.75, "d": 1.0}
    moves = [Move(name, cut(both, both), True) for name, both in cuts.items()]
    for name, found in {
        "hardware_moves": lambda *_: [],
        "mode_moves": lambda *_: [],
        "width_moves": lambda space, design, by: moves if by < 0 else [],
        "legal_moves": lambda space, moves: moves,
    }.items():
        monkeypatch.setattr(finalize, name, found)
    none = types.SimpleNamespace(energy_pj=np.zeros(0), latency_ns=np.zeros(0))
    one = TwoLayers(types.SimpleNamespace(accuracy=accuracy))
    object.__setattr__(one, "space", None)
    object.__setattr__(one, "faults", None)
    object.__setattr__(one, "pricer", types.SimpleNamespace(many=lambda *_: none))
    priced = lambda task, params, state, design, period_ns: (  # noqa: E731
        types.SimpleNamespace(total_energy_pj=energy_pj(design), total_latency_ns=1.0), None
    )  # fmt: skip
    monkeypatch.setattr(finalize, "price", priced)
    move, saving, count = finalize.best_move(one, None, None, START, LIMITS, least)
    assert ((move and move.name), len(asked), count) == (taken, measured, 4)
    assert saving == pytest.approx({"d": 1 / 6, "b": 1 / 12, None: least}[taken])


def test_the_layers_that_hold_most_are_tried_alone(monkeypatch):
    """Six layers; what comes back without a threshold, by layer, is 3, 9, 1, 8, 7 and 6 pJ, on top of 60."""
    one = TwoLayers(None)
    object.__setattr__(one, "layers", 6)
    takes = np.asarray([3.0, 9.0, 1.0, 8.0, 7.0, 6.0])
    report = lambda design: types.SimpleNamespace(  # noqa: E731
        total_energy_pj=60.0 + float(takes @ (np.asarray(design.threshold) == 0.0))
    )
    monkeypatch.setattr(finalize, "price", lambda t, p, s, design, period_ns: (report(design), None))
    monkeypatch.setattr(finalize, "foreseen", lambda *_: report)
    design = dataclasses.replace(START, threshold=np.full(6, 0.8))
    assert finalize._roomiest(one, None, None, design, 65.0, 1.0) == [1, 3, 4, 5]
    # 0.952 of 72 pJ is 68.5: 69 is above it, 68 below
    assert finalize._roomiest(one, None, None, design, 72.0, 1.0) == [1]


@pytest.mark.parametrize(
    ("cost_pj", "reached", "kept"),
    [
        (60.0, 0.70, "as it is"),  # within the budget, and what comes back is noise
        (60.0, 0.796, "spent"),  # harmless
        (60.0, 0.90, "spent"),
        (80.0, 0.10, "spent"),  # above the budget: no choice
    ],
)
def test_what_is_within_its_budget_is_not_spent_on_noise(monkeypatch, cost_pj, reached, kept):
    end = mock.Mock(spec=TrainState, params="params", state="old")
    fitted, measure = cut(0.0, 0.0), types.SimpleNamespace(accuracy=lambda *_: (reached, 1.0))
    monkeypatch.setattr(descend, "fitted", lambda *_: (fitted, "new"))
    before = cut(1.0, 1.0)
    found, state = descend._spent_well(TwoLayers(measure), end, before, (0.8, cost_pj), LIMITS, 0.005)
    assert (found is fitted, state) == ((True, "new") if kept == "spent" else (False, "old"))
