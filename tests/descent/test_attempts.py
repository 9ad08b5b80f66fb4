"""Which energy targets are tried when the accuracy is missed, with descents that only pretend to train."""

import dataclasses
import inspect
import math
from types import SimpleNamespace

import pytest

from cooptim.descent import descend, run
from cooptim.descent.finalize import Limits
from cooptim.descent.plan import Plan, plan_for


@pytest.fixture(autouse=True)
def past_type_checks(monkeypatch: pytest.MonkeyPatch):
    """The type checks of the tests know stand-ins from designs."""
    for name in ("_meets", "_energy", "_rank"):
        monkeypatch.setattr(run, name, inspect.unwrap(getattr(run, name)))


def priced(energy_pj: float, accuracy: float):
    return SimpleNamespace(val_accuracy=accuracy, report=SimpleNamespace(total_energy_pj=energy_pj))


def tried(monkeypatch: pytest.MonkeyPatch, least_pj: float, energy_pj: float | None = 50.0, **how: bool):
    """(targets, energy of the design taken) where the accuracy holds from `least_pj` on; uniform 200, bound 17."""
    targets = []

    def pretend(task, params, state, limits, name, bits, checkpoints, progress, *, start_bits):
        targets.append(limits.energy_pj)
        assert start_bits == how.get("start_bits")
        accuracy = 0.99 if limits.energy_pj >= least_pj else 0.90
        return SimpleNamespace(final=priced(limits.energy_pj, accuracy))

    monkeypatch.setattr(run, "descend", pretend)
    limits = Limits(energy_pj, 1e3, None, 0.98)
    task = SimpleNamespace(plan=Plan(attempts=3))
    cheapest = inspect.unwrap(run.cheapest)  # past the type checks of the tests, which know stand-ins from tasks
    best = cheapest(task, None, None, limits, "joint", None, None, None, priced(200.0, 0.99), 17.0, **how)
    return targets, best.final.report.total_energy_pj


def test_a_budget_that_stands_is_tried_once_and_reported_as_it_is(monkeypatch):
    assert tried(monkeypatch, 60.0, stands=True) == ([50.0], 50.0)


@pytest.mark.parametrize(
    ("joint", "pruned", "stands", "taken"),
    [
        ((50.0, 0.99), (45.0, 0.99), True, "joint"),  # both meet the budget: more weights, not less energy
        ((50.0, 0.97), (49.0, 0.98), True, "pruned"),
        ((50.0, 0.97), (60.0, 0.99), True, "joint"),  # that one moved up, and misses the budget
        ((50.0, 0.97), (50.0, 0.97), True, "joint"),
        ((50.0, 0.985), (45.0, 0.99), True, "pruned"),  # both meet it, and this one is better in all
        ((45.0, 0.985), (50.0, 0.99), True, "joint"),
        ((60.0, 0.99), (50.0, 0.99), False, "pruned"),
        ((60.0, 0.97), (90.0, 0.98), False, "pruned"),
        ((60.0, 0.98), (90.0, 0.99), False, "joint"),
        ((60.0, 0.98), (50.0, 0.97), False, "joint"),
    ],
)
def test_one_width_with_pruning_is_taken_where_it_is_better(joint, pruned, stands, taken):
    best_of = inspect.unwrap(run.best_of)
    a, b = (SimpleNamespace(final=priced(*one)) for one in (joint, pruned))
    limits = Limits(50.0, 1e3, None, 0.98)
    assert best_of((a, b), limits, stands=stands) is {"joint": a, "pruned": b}[taken]


def test_a_uniform_width_stands_in_for_pruning_that_loses_the_accuracy():
    @dataclasses.dataclass(frozen=True)
    class Found:
        final: object
        relaxed: object
        history: str
        snap_drop: float

    dead, uniform = Found(priced(40.0, 0.25), "its own", "its own", 0.3), priced(90.0, 0.99)
    plain = inspect.unwrap(run.unpruned)(dead, uniform)
    assert plain == Found(uniform, uniform.report, "its own", 0.0)
    best_of, limits = inspect.unwrap(run.best_of), Limits(50.0, 1e3, None, 0.98)
    assert best_of((dead, plain), dataclasses.replace(limits, energy_pj=None), stands=True) is plain
    assert best_of((dead, plain), limits, stands=False) is plain
    assert best_of((dead, plain), limits, stands=True) is dead  # the uniform one misses the energy that was asked for


def test_where_no_attempt_keeps_the_accuracy_the_most_accurate_is_taken():
    rank, limits = run._rank, Limits(None, 1e3, None, 0.98)
    ones = [priced(40.0, 0.25), priced(60.0, 0.97), priced(70.0, 0.98), priced(65.0, 0.99), priced(50.0, 0.96)]
    assert max(ones, key=lambda one: rank(one, limits)) is ones[3]
    assert max(ones[:2] + ones[4:], key=lambda one: rank(one, limits)) is ones[1]


def test_every_descent_of_a_search_starts_from_the_widths_it_is_given(monkeypatch):
    assert tried(monkeypatch, 1e9, start_bits=3)[0] == pytest.approx([50.0, 100.0, math.sqrt(100.0 * 200.0)])


def test_a_budget_that_keeps_the_accuracy_ends_the_search(monkeypatch):
    assert tried(monkeypatch, 40.0) == ([50.0], 50.0)


def test_a_default_that_misses_the_accuracy_moves_to_the_least_energy_that_keeps_it(monkeypatch):
    # sqrt(50 * 200) = 100 keeps, sqrt(50 * 100) = 70.7 keeps; and where 100 misses, sqrt(100 * 200) = 141
    targets, taken = tried(monkeypatch, 60.0)
    assert targets == pytest.approx([50.0, 100.0, math.sqrt(5000.0)]) and taken == pytest.approx(math.sqrt(5000.0))
    targets, taken = tried(monkeypatch, 120.0)
    assert targets == pytest.approx([50.0, 100.0, math.sqrt(20000.0)]) and taken == pytest.approx(math.sqrt(20000.0))


def test_without_an_energy_budget_the_search_starts_at_the_share_of_the_bound(monkeypatch):
    targets, _ = tried(monkeypatch, 1e9, energy_pj=None)
    assert targets[0] == pytest.approx(17.0 / 0.85) and targets[1] == pytest.approx(math.sqrt(20.0 * 200.0))


def test_descents_that_were_run_are_not_run_again(monkeypatch):
    done = {}
    targets, taken = tried(monkeypatch, 60.0, done=done)
    assert len(targets) == 3 and sorted(done) == pytest.approx(sorted(targets))
    assert tried(monkeypatch, 60.0, done=done) == ([], taken)
    assert tried(monkeypatch, 60.0, stands=True, done=done) == ([], 50.0)
    assert tried(monkeypatch, 60.0, energy_pj=70.0, stands=True, done=done) == ([70.0], 70.0)


def test_default_plan_grows_with_the_data():
    assert plan_for(1150) == Plan()
    large = plan_for(48_000)  # 6 passes in batches of 64; a third of it for the float parent, a quarter at the end
    assert (large.float_steps, large.steps, large.finetune_steps) == (1500, 4500, 1125)


def test_a_penalty_of_zero_is_refused():
    with pytest.raises(ValueError, match="penalty 0 cannot hold a budget"):
        Plan(penalty=0.0)


@pytest.mark.parametrize(
    ("energy_pj", "rounds", "how", "tries", "taken"),
    [
        (None, [(0.97, 0.5), (0.99, 0.4), (0.98, 0.3)], {}, 2, 1),  # the first that keeps 0.98
        (None, [(0.99, 0.5), (1.0, 0.4), (1.0, 0.3)], {}, 1, 0),
        (None, [(0.97, 0.3), (0.96, 0.2), (0.95, 0.1)], {}, 3, 0),  # else the most accurate
        (None, [(0.90, 0.5), (0.91, 0.4), (0.99, 0.3)], {}, 3, 2),
        (None, [(0.90, 0.5), (0.99, 0.4), (0.99, 0.3)], {"give_up": 0.02}, 1, 0),  # 0.08 below the limit
        (None, [(0.97, 0.5), (0.90, 0.4), (0.99, 0.3)], {"give_up": 0.02}, 3, 2),  # the best, not the last, is in reach
        (50.0, [(0.99, 0.5), (0.98, 0.3), (1.0, 0.4)], {}, 3, 1),  # the least loss of those that keep it
        (50.0, [(0.97, 0.1), (0.99, 0.5), (0.96, 0.1)], {}, 3, 1),
        (50.0, [(0.96, 0.1), (0.97, 0.5), (0.90, 0.1)], {}, 3, 1),
        (50.0, [(0.99, 0.1, 50.1), (0.98, 0.3), (1.0, 0.4)], {}, 3, 1),  # the first is above the budget
        (50.0, [(0.99, 0.1, 50.1), (0.90, 0.3), (0.91, 0.4)], {}, 3, 2),
        (50.0, [(0.99, 0.2, 50.1), (0.99, 0.1, 50.2), (1.0, 0.4, 51.0)], {}, 3, 1),
    ],
)
def test_all_rounds_at_a_budget_are_run_and_without_one_the_first_that_keeps_the_accuracy_ends_it(
    monkeypatch, energy_pj, rounds, how, tries, taken
):
    begun = []

    def pretend(task, end, design, limits, name, attempt, checkpoints, progress, ending, hold):
        begun.append((end, design))
        accuracy, loss, energy = (*rounds[attempt], 49.0)[:3]
        return f"end{attempt}", SimpleNamespace(
            **vars(priced(energy, accuracy)), val_loss=loss, design=f"design{attempt}"
        )

    monkeypatch.setattr(descend, "_finetune", pretend)
    monkeypatch.setattr(descend, "_merit", inspect.unwrap(descend._merit))
    finetuned = inspect.unwrap(descend._finetuned)
    aims = [Limits(energy_pj, 1e3, None, 0.98)] * 3
    best = finetuned(None, "end", "design", aims, "joint0", None, None, descend.Ending.MOVES, **how)
    assert best.design == f"design{taken}"
    on_from_the_last = [("end", "design"), ("end0", "design0"), ("end1", "design1")]
    assert begun == on_from_the_last[:tries]


def test_what_a_descent_left_above_the_budget_goes_in_equal_ratios_and_rounds_at_the_budget_follow():
    limits = Limits(50.0, 1e3, 2.0, 0.98)
    aims = descend.graded(limits, 86.4, 3)  # 50 * 1.2^3: two cuts of a sixth on the way
    assert [aim.energy_pj for aim in aims] == pytest.approx([72.0, 60.0, 50.0, 50.0, 50.0, 50.0])
    assert {dataclasses.replace(aim, energy_pj=50.0) for aim in aims} == {limits}
    assert descend.graded(limits, 52.4, 3) == [limits] * 4  # near enough
    assert descend.graded(limits, 100.0, 1) == [limits] * 2  # one round leaves no way
    free = dataclasses.replace(limits, energy_pj=None)
    assert descend.graded(free, 86.4, 3) == [free] * 4


def test_a_descent_lands_by_these_grades(monkeypatch):
    """86.4 pJ at the snap, 50 asked: the first cut before any fine-tuning, the others after its rounds."""
    aimed = {}

    def bind(task, params, state, design, limits):
        aimed["first"] = limits.energy_pj
        return design, state

    def tuned(task, end, design, aims, *rest, **how):
        aimed["rounds"] = [aim.energy_pj for aim in aims]
        return "tuned"

    report = SimpleNamespace(total_energy_pj=86.4)
    for name, stub in {
        "decode": lambda *_: "soft", "settled": lambda *_: "state", "finalize": lambda *_: "legal", "fitted": bind,
        "_spent_well": inspect.unwrap(descend._spent_well),
        "price": lambda *_: (report, None), "_finetuned": tuned,
    }.items():  # fmt: skip
        monkeypatch.setattr(descend, name, stub)
    monkeypatch.setattr(descend, "dataclasses", SimpleNamespace(replace=lambda one, **_: one))
    monkeypatch.setattr(descend, "Descent", lambda *parts: parts)
    measure = SimpleNamespace(accuracy=lambda *_: (1.0, 0.0))
    data = SimpleNamespace(x_val=None, y_val=None)
    task = SimpleNamespace(plan=SimpleNamespace(finetune_tries=3), measure=measure, data=data)
    end = SimpleNamespace(params=None, state=None, knobs=None)
    landed = inspect.unwrap(descend.landed)
    monkeypatch.setattr(descend, "graded", lambda limits, now_pj, rounds: [
        Limits(now_pj / 1.2 ** min(n + 1, rounds), 1e3, None, 0.98) for n in range(2 * rounds)])  # fmt: skip
    landed(task, end, None, {}, Limits(50.0, 1e3, None, 0.98), "joint0", descend.Ending.HELD, None, None)
    assert aimed["first"] == pytest.approx(72.0)
    assert aimed["rounds"] == pytest.approx([60.0, 50.0, 50.0, 50.0, 50.0])


def test_a_round_on_the_way_is_no_design_within_the_budget(monkeypatch):
    seen = []

    def pretend(task, end, design, limits, name, attempt, *rest):
        seen.append(limits.energy_pj)
        one = priced(limits.energy_pj, [1.0, 0.9, 0.95, 0.99][attempt])
        return end, SimpleNamespace(**vars(one), val_loss=0.1, design=design)

    monkeypatch.setattr(descend, "_finetune", lambda *args, **kwargs: pretend(*args))
    monkeypatch.setattr(descend, "_merit", inspect.unwrap(descend._merit))
    aims = [Limits(energy, 1e3, None, 0.98) for energy in (60.0, 50.0, 50.0, 50.0)]
    best = inspect.unwrap(descend._finetuned)(None, "end", "design", aims, "joint0", None, None, True)
    assert best.val_accuracy == 0.99 and seen == [60.0, 50.0, 50.0, 50.0]


def test_every_uniform_width_but_the_widest_may_be_given_up():
    found = [descend.patience(Plan(uniform_bits=(8, 4, 2)), bits) for bits in (2, 4, 8)]
    assert found[0] == found[1] == 0.025 and math.isinf(found[2])
