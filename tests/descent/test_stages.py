"""Early exits in a descent: what the loss and the price see of them, and margins fitted against brute force."""

import dataclasses
import inspect
import itertools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cooptim
from cooptim.cost.bit_operations import BitOperations as CheapPrice
from cooptim.data import data_from_batches
from cooptim.descent import descend, exits, finalize
from cooptim.descent.constraint import Budgets
from cooptim.descent.exits import Choice, best_choice, fitted_margins
from cooptim.descent.finalize import Limits
from cooptim.descent.measure import Measure
from cooptim.descent.plan import Plan
from cooptim.descent.pruning import prune_in_rounds
from cooptim.descent.retrain import Lesson, Teacher, Trainer, built
from cooptim.descent.stages import decided, exit_shares, reach, stage_shares, staged_loss, without_exits
from cooptim.descent.step import Control, init_state, make_loss
from cooptim.descent.task import Task, priced
from cooptim.descent.teacher import taught_loss
from cooptim.design.knobs import Knobs, free_phase
from cooptim.design.space import DesignSpace
from cooptim.network.stats import Stats
from cooptim.relax.leaving import log_odds
from tests.network.cases import normal

LOGITS = np.array([[[0.0, 1.0], [2.0, 0.0]], [[3.0, 0.0], [0.0, 0.5]], [[0.0, 2.0], [1.0, 3.0]]])
LABELS = np.array([1, 1])


@pytest.fixture(scope="module")
def early():
    def fn(p, x):
        return jax.nn.relu(jax.nn.relu(x @ p["a"]) @ p["b"]) @ p["c"]

    params = {"a": normal(0, 6, 8), "b": normal(1, 8, 8), "c": normal(2, 8, 3)}
    net = cooptim.trace(fn, params, normal(3, 2, 6))
    return cooptim.with_exits(net, ("a", "b"), key=jax.random.key(4))


@pytest.fixture(scope="module")
def space(early):
    machine = cooptim.load_machine("envision")
    table = cooptim.tilings(early.workload, machine, most=2)
    return DesignSpace(early.workload, machine, table, (True, False, False, False, False))


@pytest.fixture(scope="module")
def measure(early):
    return Measure(early, 4)


def knobs_of(space, margin):
    knobs = space.init(jnp.full(5, 3.0), jnp.full(5, 4.0), 6.0, 6.0)
    return dataclasses.replace(knobs, exit_margin=jnp.asarray(margin))


def test_loss_accuracy_and_reach_of_two_images_by_hand(early):
    margin, temperature = np.array([0.5, 1.0]), 0.5
    confidence = np.array([[1.0, 2.0], [3.0, 0.5]])  # of two classes: the difference of their logits
    chance = 1 / (1 + np.exp(-(confidence - margin[:, None]) / temperature))
    shares = np.stack([chance[0], (1 - chance[0]) * chance[1], (1 - chance[0]) * (1 - chance[1])])
    gap = np.array([[1.0, -2.0], [-3.0, 0.5], [2.0, 2.0]])  # logit of the label over the other's
    loss, right = np.log1p(np.exp(-gap)), gap > 0
    task, hits, runs = staged_loss(early.workload, jnp.asarray(LOGITS), jnp.asarray(LABELS), jnp.asarray(margin), 0.5)
    np.testing.assert_allclose(task, 0.5 * loss.mean() + 0.5 * (shares * loss).sum(axis=0).mean(), rtol=1e-12)
    np.testing.assert_allclose(hits, (shares * right).sum(axis=0).mean(), rtol=1e-12)
    one, two, three = shares.mean(axis=1)
    np.testing.assert_allclose(runs, [1, 1, two + three, two + three, three], rtol=1e-12)
    plain = staged_loss(early.workload, jnp.asarray(LOGITS[2]), jnp.asarray(LABELS), None, 0.5)
    np.testing.assert_allclose(plain[0], loss[2].mean(), rtol=1e-12)
    assert plain[2] is None


def test_being_sure_saves_no_energy_in_the_eyes_of_the_weights(early):
    def runs(logits):
        return jnp.sum(staged_loss(early.workload, logits, jnp.asarray(LABELS), jnp.asarray([0.5, 1.0]), 0.5)[2])

    np.testing.assert_array_equal(jax.grad(runs)(jnp.asarray(LOGITS)), 0.0)


def test_each_image_is_judged_where_it_leaves(early):
    logits, runs = decided(early.workload, jnp.asarray(LOGITS), jnp.asarray([1.5, 2.5]))
    np.testing.assert_array_equal(logits, [LOGITS[1][0], LOGITS[0][1]])  # at the second exit, at the first
    np.testing.assert_array_equal(runs, [1, 1, 0.5, 0.5, 0])
    assert decided(early.workload, jnp.asarray(LOGITS[2]), None)[1] is None
    whole, none = decided(early.workload, jnp.asarray(LOGITS), None)
    np.testing.assert_array_equal(whole, LOGITS[2])
    assert none is None


def test_measured_accuracy_and_reach_are_those_of_the_decisions(early, space, measure):
    x, labels = np.asarray(normal(5, 7, 6)), np.array([0, 1, 2, 0, 1, 2, 0])
    design = space.decode(knobs_of(space, [0.8, 0.4]), 1.0)
    y = measure.logits(early.params, early.state, design, x)
    p = np.exp(y) / np.exp(y).sum(axis=-1, keepdims=True)
    odds = np.log(p.max(axis=-1) / (1 - p.max(axis=-1)))
    margin = np.array([np.sort(odds[0])[4], np.sort(odds[1])[2]]) - 1e-3
    design = dataclasses.replace(design, exit_margin=jnp.asarray(margin))
    stage = np.where(odds[0] >= margin[0], 0, np.where(odds[1] >= margin[1], 1, 2))
    assert set(stage) == {0, 1, 2}
    right = np.argmax(y[stage, np.arange(7)], axis=-1) == labels
    assert measure.accuracy(early.params, early.state, design, x, labels)[0] == pytest.approx(right.mean())
    found = measure.stats(early.params, early.state, design, x, labels)
    np.testing.assert_allclose(found.reach[jnp.array([0, 2, 4])], [1, (stage[:4] > 0).mean(), (stage[:4] > 1).mean()])
    np.testing.assert_array_equal(measure.logits(early.params, early.state, design, x[4:6]), y[:, 4:6])
    all_run = measure.stats(early.params, early.state, without_exits(design), x, labels)
    np.testing.assert_array_equal(all_run.reach, 1.0)
    # Of all images, those of the last part of a chunk too.
    runs = measure.reach(early.params, early.state, design, x)
    np.testing.assert_allclose(runs[jnp.array([0, 2, 4])], [1, (stage > 0).mean(), (stage > 1).mean()])
    whole = dataclasses.replace(design, exit_margin=None)
    with pytest.raises(ValueError, match="has no exits, or this design no margins"):
        measure.reach(early.params, early.state, whole, x)


def test_a_design_is_priced_by_the_validation_images_that_leave(early, space, measure, monkeypatch):
    # Images are told apart by their confidence at the first exit: the surer ones train, as they do once learned.
    x = np.asarray(normal(5, 7, 6))
    design = space.decode(knobs_of(space, [0.8, 9.0]), 1.0)
    sure = np.argsort(-np.asarray(log_odds(jnp.asarray(measure.logits(early.params, early.state, design, x)[0]))))
    odds = np.asarray(log_odds(jnp.asarray(measure.logits(early.params, early.state, design, x[sure])[0])))
    design = dataclasses.replace(design, exit_margin=jnp.asarray([0.5 * (odds[4] + odds[5]), 99.0]))
    train, val, labels = x[sure[:4]], x[sure], np.zeros(7, int)
    data = types.SimpleNamespace(x_train=train, y_train=labels[:4], x_val=val, y_val=labels)
    pricer = types.SimpleNamespace(report=lambda design, stats, period_ns: stats.reach)
    task = object.__new__(Task)  # what a price reads of one
    parts = {"measure": measure, "data": data, "pricer": pricer, "plan": Plan(stats_images=4)}
    for name, value in parts.items():
        object.__setattr__(task, name, value)
    given = (task, early.params, early.state, design)
    report, stats = inspect.unwrap(finalize.price)(*given, 1.0)
    monkeypatch.setattr("cooptim.descent.task.Priced", lambda *found: types.SimpleNamespace(all=found))
    final = inspect.unwrap(priced)(task, "joint", *given[1:], 1.0).all
    for found in (report, stats.reach, final[4].reach, final[5]):
        np.testing.assert_allclose(found, [1, 1, 2 / 7, 2 / 7, 2 / 7], rtol=1e-6)  # all four that train leave
    assert measure.stats(early.params, early.state, design, train, labels[:4]).reach[-1] == 0


def test_a_design_outlives_the_fine_tuning_that_begins_with_it(early, space, monkeypatch):
    class Begun(Exception):
        pass

    def donating(task, stage, begin, *_):
        for leaf in jax.tree.leaves((begin.params, begin.state, begin.knobs, begin.multipliers)):
            leaf.delete()  # as a step does where the device can
        raise Begun

    monkeypatch.setattr(descend, "run_stage", donating)
    knobs = knobs_of(space, [0.8, 9.0])
    design, task = space.decode(knobs, 1.0), types.SimpleNamespace(plan=Plan(), space=space, seed=0)
    end = init_state(early.params, early.state, knobs, 0)
    with pytest.raises(Begun):
        descend._finetune(task, end, design, Limits(None, 1.0, None, 0.9), "joint", 0, None, None, descend.Ending.MOVES)
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves((design, end)))


def test_shares_that_leave_are_told_from_what_runs(early):
    found = exit_shares(early.workload, reach(early.workload, jnp.asarray([0.5, 0.2, 0.3])))
    assert list(found) == list(early.workload.exits) and list(found.values()) == pytest.approx([0.5, 0.2])


def test_margins_feel_the_teacher_where_labels_have_no_share(early):
    margin, temperature, soft = np.array([0.5, 1.0]), 0.5, 2.0
    teacher = jnp.asarray([[0.3, -0.2], [1.0, 2.0]])

    def taught(margin):
        shares = stage_shares(early.workload, jnp.asarray(LOGITS), margin, temperature)
        return taught_loss(jnp.zeros(()), jnp.asarray(LOGITS), teacher, jnp.ones(()), soft, shares)

    leave = 1 / (1 + np.exp(-(np.array([[1.0, 2.0], [3.0, 0.5]]) - margin[:, None]) / temperature))
    target = 1 / (1 + np.exp(-(teacher[:, 1] - teacher[:, 0]) / soft))
    gap = (LOGITS[..., 1] - LOGITS[..., 0]) / soft
    loss = target * np.log1p(np.exp(-gap)) + (1 - target) * np.log1p(np.exp(gap))
    shares = np.stack([leave[0], (1 - leave[0]) * leave[1], (1 - leave[0]) * (1 - leave[1])])
    want = soft**2 * (0.5 * loss.mean() + 0.5 * (shares * loss).sum(axis=0).mean())
    np.testing.assert_allclose(taught(jnp.asarray(margin)), want, rtol=1e-12)
    # An input that no longer leaves at an exit is judged by what comes after it.
    slope = leave * (1 - leave) / temperature
    later = np.stack([leave[1] * loss[1] + (1 - leave[1]) * loss[2] - loss[0], (1 - leave[0]) * (loss[2] - loss[1])])
    by_hand = 0.5 * soft**2 * (slope * later).mean(axis=1)
    assert np.all(np.abs(by_hand) > 1e-4)
    np.testing.assert_allclose(jax.grad(taught)(jnp.asarray(margin)), by_hand, rtol=1e-12)


def test_a_network_with_exits_is_pruned_and_measured_by_its_last_stage(early):
    x, labels = np.asarray(normal(7, 12, 6)), np.arange(12) % 3
    data = data_from_batches((x, labels), test=(x, labels), val=(x, labels))
    trainer = Trainer(early, data, 4, 0, chunk=6)
    teacher = Teacher(early.params, early.state, 0.5, 2.0)
    x = data.x_train
    said = trainer._batch(0, 1, jax.random.key(0), teacher)  # as held, and as it would be where images change
    for goals in (said[2], trainer._taught(teacher)[1]((early.params, early.state), said[0])):
        np.testing.assert_allclose(goals, early.apply(early.params, early.state, said[0])[0][-1], rtol=1e-6)
    (one,) = prune_in_rounds(trainer, early.params, early.state, (0.5,), Lesson("prune", 2, 1e-3), teacher=teacher)
    last = np.asarray(early.apply(built(one.weights), one.state, x)[0][-1])
    assert one.val_accuracy == pytest.approx(np.mean(last.argmax(axis=-1) == labels))


@pytest.fixture(scope="module")
def objective(early, space):
    """(loss, aux) and its slope by margins, under an energy budget that is broken; the margins alone move."""
    knobs = knobs_of(space, [0.8, 0.4])
    on = jnp.array([1.0, 0.0, 0.0])
    control = Control(
        phase=free_phase(5), temperature=jnp.asarray(0.3), weight_rate=jnp.zeros(()), distill_weight=jnp.zeros(()),
        knob_rates=jax.tree.map(jnp.zeros_like, knobs), budgets=Budgets(jnp.array([8.0, 0.0, 0.0]), on),
        dual_rate=jnp.zeros(()), penalty=jnp.asarray(1.0), period_ns=jnp.asarray(1e5),
    )  # fmt: skip
    state = init_state(early.params, early.state, knobs, 0)
    x, labels = normal(5, 16, 6), jnp.arange(16) % 3
    loss = make_loss(early, space)

    def value(margin):
        own = dataclasses.replace(knobs, exit_margin=margin)
        return loss(early.params, own, state, control, x, labels, None, None)

    return jax.jit(jax.value_and_grad(value, has_aux=True)), knobs.exit_margin


def test_the_margins_feel_loss_and_energy_like_finite_differences(objective):
    run, at = objective
    slope = run(at)[1]
    for e, step in enumerate(np.eye(2) * 1e-5):
        want = float(run(at + step)[0][0] - run(at - step)[0][0]) / 2e-5
        assert abs(want) > 1e-3
        np.testing.assert_allclose(slope[e], want, rtol=1e-5)


def test_a_taught_step_moves_the_margins_at_any_share_of_the_teacher(early, space):
    one, none = jnp.ones(()), jnp.zeros(3)
    price = lambda *_, **__: CheapPrice(one, one, one)  # noqa: E731
    loss, knobs = make_loss(early, space, price, temperature=2.0), knobs_of(space, [0.8, 0.4])
    control = Control(
        free_phase(5), jnp.asarray(0.3), one, knobs, Budgets(none, none), one, one, one, distill_weight=one
    )  # fmt: skip
    state, lesson = init_state(early.params, early.state, knobs, 0), normal(6, 8, 3)
    given = (state, control, normal(5, 8, 6), jnp.arange(8) % 3, None, lesson)
    value = lambda margin: loss(early.params, dataclasses.replace(knobs, exit_margin=margin), *given)[0]  # noqa: E731
    run, at = jax.jit(jax.value_and_grad(value)), knobs.exit_margin
    for e, step in enumerate(np.eye(2) * 1e-5):
        want = float(run(at + step)[0] - run(at - step)[0]) / 2e-5
        assert abs(want) > 1e-4
        np.testing.assert_allclose(run(at)[1][e], want, rtol=1e-5)


def test_a_step_prices_the_layers_that_run(objective, space):
    price = jax.jit(
        lambda design, stats: (
            cooptim.evaluate(
                space.workload, space.machine, design, stats, period_ns=jnp.asarray(1e5), tilings=space.tilings
            ).total_energy_pj
        )
    )
    rows = ([-50.0, -50.0], [1, 1, 0, 0, 0]), ([50.0, -50.0], [1, 1, 1, 1, 0]), ([50.0, 50.0], [1, 1, 1, 1, 1])
    for margin, runs in rows:
        _, _, (_, _, log_cost, design, stats) = objective[0](jnp.asarray(margin))[0][1]
        seen = dataclasses.replace(stats, reach=jnp.asarray(runs, float))
        np.testing.assert_allclose(log_cost[0], jnp.log(price(design, seen)), rtol=1e-9)


def test_fitted_margins_come_near_the_best_on_a_grid():
    rng = np.random.default_rng(0)
    confidence = rng.normal(2.0, 2.0, (2, 400))
    wrong = (rng.random((3, 400)) < np.stack([1 / (1 + np.exp(confidence[0])), 1 / (1 + np.exp(confidence[1] + 0.5)), np.full(400, 0.1)])).astype(float)  # fmt: skip # noqa: E501
    cost, prices = np.array([0.3, 0.6, 1.0]), np.array([0.02, 0.1, 0.4])

    def hard(margin, price):
        first = confidence[0] >= margin[0]
        second = ~first & (confidence[1] >= margin[1])
        stage = np.where(first, 0, np.where(second, 1, 2))
        return (wrong[stage, np.arange(400)] + price * cost[stage]).mean()

    given = (jnp.asarray(v) for v in (np.zeros(2), confidence, wrong, cost, prices))
    found = np.asarray(fitted_margins(*given))
    grid = np.linspace(-4.0, 8.0, 49)
    for price, margin in zip(prices, found, strict=True):
        best = min(hard(m, price) for m in itertools.product(grid, grid))
        start, never = hard((0.0, 0.0), price), hard((99.0, 99.0), price)
        assert hard(margin, price) - best <= 0.1 * (min(start, never) - best) + 2e-3
    assert (np.diff(found, axis=0) < 0).any()  # dearer energy lets more inputs leave


def test_margins_are_fitted_and_judged_under_every_draw_that_a_search_sees(early):
    # Whole networks are right on both images in one draw of errors, on none in the other.
    draws = np.stack([np.stack([LOGITS[0], LOGITS[1], LOGITS[2] * side]) for side in (1.0, -1.0)])
    stats = Stats(jnp.ones(5), jnp.ones(5))
    measure = types.SimpleNamespace(few=range(2), logits=lambda *given: draws[given[-1]], stats=lambda *_: stats)
    report = lambda design, stats, period_ns: types.SimpleNamespace(total_energy_pj=float(stats.reach.sum()))  # noqa: E731
    task = types.SimpleNamespace(
        space=types.SimpleNamespace(workload=early.workload), data=types.SimpleNamespace(x_val=None, y_val=LABELS),
        measure=measure, pricer=types.SimpleNamespace(report=report), stats_images=(None, None),
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exits, "fitted_margins", lambda own, *_: own[None])
        patch.setattr(exits, "without_exits", lambda design: types.SimpleNamespace(exit_margin=np.full(2, 99.0)))
        design = types.SimpleNamespace(exit_margin=np.full(2, -99.0))
        found = inspect.unwrap(exits.exit_choices)(task, None, None, design, 1.0)
    assert [(one.margin[0], one.accuracy) for one in found] == [(-99.0, 0.5), (-99.0, 0.5), (99.0, 0.5)]
    assert found[-1].shares.tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("energy_pj", "accuracy", "margin"), [(None, 0.85, 2.0), (None, 0.99, 3.0), (15.0, 0.95, 1.0), (5.0, 0.0, 1.0)]
)
def test_the_cheapest_margins_that_keep_the_accuracy_within_the_budget_are_taken(energy_pj, accuracy, margin):
    choices = [
        Choice(np.full(2, float(n)), np.ones(3) / 3, right, pj)
        for n, right, pj in ((1, 0.8, 10.0), (2, 0.9, 20.0), (3, 0.95, 30.0))
    ]
    assert best_choice(choices, Limits(energy_pj, 1.0, None, accuracy)).margin[0] == margin


def test_only_networks_with_exits_have_margins(space):
    plain = dataclasses.replace(space, workload=dataclasses.replace(space.workload, exits=()))
    knobs = plain.init(jnp.ones(5), jnp.ones(5))
    assert isinstance(knobs, Knobs) and knobs.exit_margin is None and plain.decode(knobs, 1.0).exit_margin is None
    np.testing.assert_array_equal(space.encode(space.decode(knobs_of(space, [1.0, 3.0]), 1.0)).exit_margin, [1.0, 3.0])
