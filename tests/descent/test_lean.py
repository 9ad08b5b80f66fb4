"""Dead channels leave a design: the same predictions for less, then a descent with what was saved."""

import dataclasses
from types import SimpleNamespace
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cooptim
from cooptim.cost.evaluate import evaluate
from cooptim.descent import lean as leaning
from cooptim.descent.budget import resolve
from cooptim.descent.descend import Descent
from cooptim.descent.finalize import Limits, finalize
from cooptim.descent.lean import lean, leaner
from cooptim.descent.plan import quick_plan
from cooptim.descent.references import reference_16b, uniform_phase
from cooptim.descent.result import Priced
from cooptim.descent.run import assembled
from cooptim.descent.task import build_task, calibrated_knobs, decode, priced
from cooptim.design.legal import violations
from cooptim.network.shrink import UnshrinkableError
from tests.descent.two_layers import two_layers

pytestmark = [pytest.mark.float32, pytest.mark.unoptimized]
HIDDEN, DEAD = 40, (3, 7, 8, 20, 21, 22, 23, 24, 25, 26, 27, 28)


@pytest.fixture(scope="module")
def data():
    return cooptim.load_data("digits")


@pytest.fixture(scope="module")
def traced(data):
    jax.config.update("jax_enable_x64", False)  # as users run; each test below is marked float32
    rng = np.random.default_rng(0)
    shapes = {"a": (64, HIDDEN), "b": (HIDDEN, 10)}
    params = {name: jnp.asarray(rng.normal(size=s) / 6, jnp.float32) for name, s in shapes.items()}
    return cooptim.trace(two_layers, params, data.x_train[:1])


@pytest.fixture(scope="module")
def result(traced, data):
    """A run that trained nothing: one width, a few weights pruned, and channels that nothing reads."""
    jax.config.update("jax_enable_x64", False)
    params = dict(traced.params) | {"b": traced.params["b"].at[np.array(DEAD)].set(0.0)}
    task = build_task(traced, cooptim.load_machine("envision"), data, quick_plan(), 0, params, {})
    parent, dense_pj = reference_16b(task, params, {})
    budget = cooptim.Budget(energy_ratio=4.0, accuracy_drop=0.9)
    setting = resolve(task.space, budget, parent.report)
    soft = decode(task, calibrated_knobs(task, params, {}, 4.0), uniform_phase(task, 4, prune=True))
    design = finalize(task, soft, params, {}, setting.latency_ns)
    one = priced(task, "joint", traced.harden(params, design), {}, design, setting.latency_ns)
    limits = Limits(setting.energy_pj, setting.latency_ns, None, parent.val_accuracy - budget.accuracy_drop)
    designs = {"reference_16b": parent, "best_uniform": one, "best_uniform_pruned": one, "final": one}
    descent = Descent(one, one.report, {}, 0.0)
    return assembled(task, budget, setting, limits, (parent.val_accuracy, 0.0), dense_pj, designs, descent)


def task_of(network, data, result, plan):
    final = result.designs["final"]
    return build_task(network, cooptim.load_machine("envision"), data, plan, result.seed, final.params, final.state)


@pytest.fixture(scope="module")
def small(traced, data, result):
    jax.config.update("jax_enable_x64", False)
    return leaner(task_of(traced, data, result, quick_plan()), result.designs["final"], result.budget.latency_ns)


def test_the_same_predictions_take_less_on_a_legal_design(data, result, small):
    before, after = result.designs["final"], small.same
    assert small.channels == {"a": (HIDDEN, HIDDEN - len(DEAD))}
    assert small.task.space.workload.macs == (64 + 10) * (HIDDEN - len(DEAD))
    assert after.val_accuracy == before.val_accuracy and after.val_loss == pytest.approx(before.val_loss, rel=1e-4)
    assert violations(small.task.space, after.design) == []
    assert float(after.report.total_latency_ns) <= result.budget.latency_ns * (1 + 1e-6)
    for field in ("weight_bits", "weight_step", "input_bits", "input_step", "threshold"):
        np.testing.assert_array_equal(getattr(after.design, field), getattr(before.design, field))
    # 40 output channels take three passes of the 16 rows, 28 take two; the next layer's words fall with its inputs
    cycles = np.asarray(after.report.cycles) / np.asarray(before.report.cycles)
    assert cycles == pytest.approx([2 / 3, (HIDDEN - len(DEAD)) / HIDDEN], abs=0.02)
    assert float(after.report.total_energy_pj) < float(before.report.total_energy_pj)
    again = evaluate(
        small.task.space.workload, result.machine, after.design, after.stats, period_ns=result.budget.latency_ns
    )
    assert float(again.total_energy_pj) == pytest.approx(float(after.report.total_energy_pj), rel=1e-5)


def test_nothing_leaves_a_design_without_dead_channels(traced, data, result):
    task = task_of(traced, data, result, quick_plan())
    alive = dataclasses.replace(result.designs["final"], params=traced.params)
    assert leaner(task, alive, result.budget.latency_ns) is None
    assert leaner(task, result.designs["final"], result.budget.latency_ns, keep=["a"]) is None


def test_scales_of_the_channels_that_left_leave_the_design(traced, data, result):
    plan = dataclasses.replace(quick_plan(), per_channel=True)
    task = task_of(traced, data, result, plan)
    scales = (jnp.linspace(0.5, 2.0, HIDDEN), jnp.linspace(1.0, 2.0, 10))
    final = dataclasses.replace(result.designs["final"].design, methods=task.space.methods, weight_scale=scales)
    one = dataclasses.replace(result.designs["final"], design=final)
    after = leaner(task, one, result.budget.latency_ns).same.design.weight_scale
    np.testing.assert_array_equal(after[0], np.delete(np.asarray(scales[0]), DEAD))
    np.testing.assert_array_equal(after[1], scales[1])


def test_a_function_whose_words_of_pruned_weights_count_is_left_as_it_is(traced, data, result):
    plan = dataclasses.replace(quick_plan(), quantizer="xnor")
    task = task_of(traced, data, result, plan)
    design = dataclasses.replace(
        result.designs["final"].design, methods=task.space.methods, weight_bits=jnp.ones(2), threshold=jnp.zeros(2),
        weight_scale=tuple(jnp.ones(n) for n in (HIDDEN, 10)) if any(m.scaled for m in task.space.methods) else None,
    )  # fmt: skip
    one = dataclasses.replace(result.designs["final"], design=design)
    with pytest.raises(UnshrinkableError, match="two_layers: without dead channels the quantized outputs move by 0"):
        leaner(task, one, result.budget.latency_ns)


def test_a_run_goes_on_without_dead_channels(traced, data, result):
    network, after = lean(traced, result.machine, data, result, rounds=1, plan=quick_plan())
    final, before = after.designs["final"], result.designs["final"]
    left = HIDDEN - len(DEAD)
    assert after.channels["a"][0] == HIDDEN and after.channels["a"][1] <= left
    assert network.workload.macs == after.workload.macs == (64 + 10) * after.channels["a"][1]
    np.testing.assert_array_equal(network.params["a"], final.params["a"])
    assert float(final.report.total_energy_pj) < float(before.report.total_energy_pj)
    assert float(final.report.total_latency_ns) <= result.budget.latency_ns * (1 + 1e-6)
    assert after.bound_pj < result.bound_pj and after.bound_pj <= float(final.report.total_energy_pj)
    assert after.designs["reference_16b"] is result.designs["reference_16b"] and 0 <= final.test_accuracy <= 1
    assert after.gap == pytest.approx(float(final.report.total_energy_pj) / float(after.relaxed.total_energy_pj))
    rows = network.apply(final.params, final.state, data.x_test, final.design)[0]
    assert float(np.mean(np.argmax(np.asarray(rows), -1) == data.y_test)) == pytest.approx(final.test_accuracy)


def test_a_run_comes_back_where_nothing_is_dead_and_no_descent_gains(traced, data, result, monkeypatch):
    final = result.designs["final"]
    alive = dataclasses.replace(final, params=traced.params)
    alive = dataclasses.replace(result, designs=result.designs | {"final": alive})
    asked = []

    def runs_away(task, params, state, limits, *args, keep, design, **kwargs):
        assert keep == ["a"] and design is final.design  # it goes on from where it stands
        asked.append(limits.energy_pj / float(final.report.total_energy_pj))
        raise FloatingPointError

    monkeypatch.setattr(leaning, "live_descent", runs_away)
    network, after = lean(traced, result.machine, data, alive, rounds=3, plan=quick_plan(), keep=["a"])
    assert network is traced and after is alive
    assert asked == pytest.approx([0.7, 0.7**0.5, 0.7**0.25])  # nearer after each miss


def test_another_plan_than_the_runs_is_refused(traced, data, result):
    with pytest.raises(ValueError, match="lean: the run of two_layers had another plan .*; pass it as plan="):
        lean(traced, result.machine, data, result, plan=dataclasses.replace(quick_plan(), per_channel=True))


def costing(energy_pj, val_accuracy):
    report = SimpleNamespace(total_energy_pj=energy_pj)
    return mock.Mock(spec=Priced, report=report, val_accuracy=val_accuracy)


def test_the_next_descent_saves_or_wins_the_accuracy_back():
    limits = Limits(None, 1.0, None, 0.9)
    assert leaning._target_pj(costing(150.0, 0.9), limits, 0.7) == pytest.approx(105.0)
    assert leaning._target_pj(costing(150.0, 0.89), limits, 0.7) == 150.0


@pytest.mark.parametrize(
    ("same", "found", "wins"),
    [
        ((100.0, 0.95), (90.0, 0.91), "found"),  # cheaper, keeps
        ((100.0, 0.95), (90.0, 0.89), "same"),  # cheaper, loses the accuracy
        ((100.0, 0.95), (110.0, 0.99), "same"),  # keeps, dearer
        ((100.0, 0.85), (110.0, 0.91), "found"),  # wins the accuracy back
        ((100.0, 0.85), (110.0, 0.84), "same"),
    ],
)
def test_the_cheaper_of_those_that_keep_the_accuracy_goes_on(same, found, wins):
    assert leaning._is_better(costing(*found), costing(*same), Limits(None, 1.0, None, 0.9)) is (wins == "found")


def test_channels_are_counted_from_the_first_network_on():
    left = leaning.joined({"a": (40, 30), "b": (9, 9)}, {"a": (30, 20), "c": (5, 4)})
    assert left == {"a": (40, 20), "b": (9, 9), "c": (5, 4)}
