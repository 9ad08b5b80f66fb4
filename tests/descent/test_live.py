"""Descents that price live channels alone: the price of a step, what leaves at the end, a legal smaller design."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cooptim
from cooptim.cost.evaluate import evaluate
from cooptim.descent import descend as descending
from cooptim.descent import live as living
from cooptim.descent.descend import Ending, descend, descent_stage
from cooptim.descent.finalize import Limits
from cooptim.descent.live import live_descent
from cooptim.descent.loop import control_at, run_stage
from cooptim.descent.plan import quick_plan
from cooptim.descent.task import build_task, decode
from cooptim.design.knobs import free_phase
from cooptim.design.legal import violations
from cooptim.network.shrink import UnshrinkableError
from tests.descent.two_layers import two_layers

pytestmark = [pytest.mark.float32, pytest.mark.unoptimized]
HIDDEN, DEAD = 40, (3, 7, 8, *range(20, 29))
LEFT = HIDDEN - len(DEAD)
DEADLINE_NS = 50e3


@pytest.fixture(scope="module")
def task():
    jax.config.update("jax_enable_x64", False)  # as users run; each test below is marked float32
    data, rng = cooptim.load_data("digits"), np.random.default_rng(0)
    params = {name: jnp.asarray(rng.normal(size=s) / 6, jnp.float32) for name, s in
              (("a", (64, HIDDEN)), ("b", (HIDDEN, 10)))}  # fmt: skip
    params["b"] = params["b"].at[np.array(DEAD)].set(0.0)
    network = cooptim.trace(two_layers, params, data.x_train[:1])
    plan = dataclasses.replace(quick_plan(), steps=40, finetune_steps=20, finetune_tries=1)
    return build_task(network, cooptim.load_machine("envision"), data, plan, 0, params, {})


def limits(energy_pj):
    return Limits(energy_pj, DEADLINE_NS, None, 0.0)


def test_a_step_is_charged_for_live_channels_alone(task):
    network = task.network
    stage, begin = descent_stage(task, network.params, {}, limits(2e4), "live", 4)
    control = control_at(task.plan, stage, begin.knobs, 0, stage.phase)
    batch = task.data.batch(0, 0, task.plan.batch)
    copy = lambda state: jax.tree.map(jnp.array, state)  # noqa: E731  the step donates it
    plain = task.step(copy(begin), control, *batch)[1]
    live = living._priced_live(task, begin, ()).step(copy(begin), control, *batch)[1]
    design = task.space.decode(begin.knobs, control.temperature, stage.phase)
    x = np.asarray(batch[0])
    smaller = {"a": np.delete(np.asarray(network.params["a"]), DEAD, 1), "b": np.delete(network.params["b"], DEAD, 0)}
    few = cooptim.trace(two_layers, smaller, x[:1])
    stats = few.apply(smaller, {}, x, design)[2]
    # on the untiled row, which both networks have, the price is that of the smaller one
    untiled = lambda n: jnp.asarray(np.eye(1, n)[[0, 0]], jnp.float32)  # noqa: E731
    table = cooptim.mapping.frontier.tilings(few.workload, task.machine)
    small = dataclasses.replace(design, tiling=untiled(table.rows))
    wanted = evaluate(few.workload, task.machine, small, stats, period_ns=DEADLINE_NS, tilings=table)
    shares = living.liveness(network, network.params, {}, x[:1]).shares(network.params, design)
    measured = dataclasses.replace(network.apply(network.params, {}, x, design)[2], live=shares)
    whole = dataclasses.replace(design, tiling=untiled(task.space.tilings.rows))
    found = evaluate(network.workload, task.machine, whole, measured, period_ns=DEADLINE_NS, tilings=task.space.tilings)
    assert float(found.total_energy_pj) == pytest.approx(float(wanted.total_energy_pj), rel=1e-3)
    charged = evaluate(
        network.workload, task.machine, design, measured, period_ns=DEADLINE_NS, tilings=task.space.tilings
    )
    assert float(live.log_cost[0]) == pytest.approx(np.log(float(charged.total_energy_pj)), abs=1e-4)
    assert float(live.log_cost[0]) < float(plain.log_cost[0]) - 0.1


def test_dead_channels_leave_before_the_descent_lands_and_the_function_stays(task):
    stage, begin = descent_stage(task, task.network.params, {}, limits(2e4), "live", None, 4.0)
    end, phase, _ = run_stage(task, dataclasses.replace(stage, steps=1), begin, None, None)
    soft = decode(task, end.knobs, phase)
    before = task.measure.accuracy(end.params, end.state, soft, task.data.x_val, task.data.y_val)
    # what one step has moved away from 0 is still below every threshold
    less, small, channels = living._smaller(task, end, phase, DEADLINE_NS, ())
    assert channels == {"a": (HIDDEN, LEFT)} and less.space.workload.macs == 74 * LEFT
    np.testing.assert_array_equal(small.params["a"], np.delete(np.asarray(end.params["a"]), DEAD, 1))
    np.testing.assert_array_equal(small.params["b"], np.delete(np.asarray(end.params["b"]), DEAD, 0))
    assert np.any(np.abs(small.params["a"]) < np.asarray(soft.threshold[0]))  # pruned weights may still come back
    for knob in ("weight_log2_step", "weight_log2_range", "log2_threshold", "input_log2_step", "input_log2_range"):
        np.testing.assert_array_equal(getattr(small.knobs, knob), getattr(end.knobs, knob))
    for moment in ("mu", "nu"):
        kept = np.delete(np.asarray(getattr(end.weight_moments, moment)["b"]), DEAD, 0)
        np.testing.assert_array_equal(getattr(small.weight_moments, moment)["b"], kept)
    assert int(small.weight_moments.count) == int(end.weight_moments.count) == 1
    np.testing.assert_array_equal(small.multipliers, end.multipliers)
    np.testing.assert_array_equal(small.key, end.key)
    after = less.measure.accuracy(small.params, small.state, decode(less, small.knobs, phase), *_val(less))
    assert after == pytest.approx(before, rel=1e-4)
    kept = living._smaller(task, end, phase, DEADLINE_NS, ["a"])
    assert kept[0] is task and kept[1].params is end.params


def test_scales_of_the_channels_that_leave_leave_the_knobs(task):
    plan = dataclasses.replace(task.plan, per_channel=True)
    scaled = build_task(task.network, task.machine, task.data, plan, 0, task.network.params, {})
    stage, begin = descent_stage(scaled, task.network.params, {}, limits(2e4), "live", 4)
    scales = (jnp.linspace(-1.0, 1.0, HIDDEN), jnp.linspace(0.0, 1.0, 10))
    begin = dataclasses.replace(begin, knobs=dataclasses.replace(begin.knobs, weight_log2_scale=scales))
    less, small, _ = living._smaller(scaled, begin, stage.phase, DEADLINE_NS, ())
    np.testing.assert_array_equal(small.knobs.weight_log2_scale[0], np.delete(np.asarray(scales[0]), DEAD))
    np.testing.assert_array_equal(small.knobs.weight_log2_scale[1], scales[1])
    assert less.space.channels(0) == LEFT


def test_no_width_starts_next_to_a_wider_one(task):
    stage, begin = descent_stage(task, task.network.params, {}, limits(2e4), "live", None, 3.0)
    inside = living._inside(task, begin.knobs, stage.phase)
    before, after = decode(task, begin.knobs, stage.phase), decode(task, inside, stage.phase)
    for field in ("weight_bits", "input_bits", "weight_range", "input_range"):
        np.testing.assert_array_equal(getattr(after, field), getattr(before, field))
    # signed weights of 3 b hold 3 steps, and 2^(2 - margin) - 1 is left of them
    reached = np.exp2(np.asarray(inside.weight_log2_range - inside.weight_log2_step))
    np.testing.assert_allclose(reached, 2 ** (2 - living._MARGIN_BITS) - 1, rtol=1e-5)
    for finer in (0.8, 0.6):  # of the margin: still the same width
        nudged = dataclasses.replace(inside, weight_log2_step=inside.weight_log2_step - finer * living._MARGIN_BITS)
        np.testing.assert_array_equal(decode(task, nudged, stage.phase).weight_bits, [3, 3])
    two = descent_stage(task, task.network.params, {}, limits(2e4), "live", None, 2.0)[1]
    kept = living._inside(task, two.knobs, stage.phase)  # none is coarser than two bits
    np.testing.assert_array_equal(kept.weight_log2_step, two.knobs.weight_log2_step)


def _val(task):
    return task.data.x_val, task.data.y_val


def test_a_live_descent_ends_in_a_legal_design_of_a_smaller_network_below_what_the_whole_takes(task, monkeypatch):
    left, leave = [], living._smaller

    def seen(task, now, phase, *rest):
        less = leave(task, now, phase, *rest)
        left.append((task.space.workload.macs, less[0].space.workload.macs, float(phase.frozen)))
        return less

    monkeypatch.setattr(living, "_smaller", seen)
    rates = []
    monkeypatch.setattr(living, "run_stage", lambda *args: rates.append(args[1].width_rate) or run_stage(*args))
    whole = descend(task, task.network.params, {}, limits(9e3), "joint", None, None, None, start_bits=4.0).final
    stages: list[tuple[str, int]] = []
    heard = SimpleNamespace(stage=lambda *stage: stages.append(stage), step=lambda *_, **__: None)
    found = live_descent(task, task.network.params, {}, limits(9e3), "live", None, heard, start_bits=4.0)
    assert stages == [("live", task.plan.steps), ("live-finetune0", 20)]  # its three parts are one stage
    one, less = found.descent.final, found.task
    assert found.channels["a"][0] == HIDDEN and found.channels["a"][1] <= LEFT
    assert one.params["a"].shape == (64, found.channels["a"][1])
    assert violations(less.space, one.design) == [] and float(one.report.total_latency_ns) <= DEADLINE_NS * (1 + 1e-6)
    again = evaluate(less.space.workload, less.machine, one.design, one.stats, period_ns=DEADLINE_NS)
    assert one.stats.live is None
    assert float(again.total_energy_pj) == pytest.approx(float(one.report.total_energy_pj), rel=1e-5)
    assert float(one.report.total_energy_pj) < 0.9 * float(whole.report.total_energy_pj)
    assert rates == [pytest.approx(task.plan.near_rate_share / 3)] * 3
    # half way, just before widths freeze, and at the end; each time the smaller network goes on
    assert [frozen for *_, frozen in left] == [0.0, 0.0, 1.0] and left[0][0] > left[0][1]
    assert [before for before, *_ in left[1:]] == [after for _, after, _ in left[:-1]]
    assert left[-1][1] == less.space.workload.macs
    seen = found.descent.history  # three parts of one stage
    np.testing.assert_array_equal(seen["step"][:-1], np.arange(0, task.plan.steps, 10))
    assert np.all(np.isfinite(seen["loss"][:-1]))


def test_a_live_descent_goes_on_from_a_design(task, monkeypatch):
    begun, inside = [], []

    def began(task, stage, state, *rest):
        begun.append(np.asarray(decode(task, state.knobs, stage.phase).weight_bits))
        inside.append(np.asarray(state.knobs.weight_log2_range - state.knobs.weight_log2_step))
        raise FloatingPointError

    monkeypatch.setattr(living, "run_stage", began)
    knobs = task.init(jnp.ones(2), jnp.ones(2), jnp.asarray([2.0, 5.0]), 4.0)
    design = decode(task, knobs, descent_stage(task, task.network.params, {}, limits(9e3), "live", None, 3.0)[0].phase)
    for known in (None, design):
        with pytest.raises(FloatingPointError):
            live_descent(task, task.network.params, {}, limits(9e3), "live", None, start_bits=3.0, design=known)
    np.testing.assert_array_equal(begun, [[3, 3], [2, 5]])
    reached = 2 ** (np.asarray([3.0, 3.0, 5.0]) - living._MARGIN_BITS - 1) - 1  # none starts next to a wider one
    np.testing.assert_allclose(np.exp2([*inside[0], inside[1][1]]), reached, rtol=1e-5)


def test_a_live_descent_prunes_at_the_widths_of_a_design(task, monkeypatch):
    knobs = task.init(jnp.full(2, 0.4), jnp.ones(2), jnp.asarray([3.0, 5.0]), 4.0)
    design = decode(task, knobs, free_phase(2))
    stages, run = [], living.run_stage

    def seen(task, stage, *rest):
        stages.append(stage)
        return run(task, stage, *rest)

    monkeypatch.setattr(living, "run_stage", seen)
    found = live_descent(task, task.network.params, {}, limits(2e4), "live", None, design=design, held=True)
    assert all(float(stage.phase.frozen) == 1.0 and "weight_log2_range" not in stage.moving for stage in stages)
    final = found.descent.final
    np.testing.assert_array_equal(final.design.weight_bits, [3, 5])
    np.testing.assert_array_equal(final.design.input_bits, [4, 4])
    assert found.channels["a"][1] <= LEFT


def test_widths_held_without_a_design_are_refused(task):
    with pytest.raises(ValueError, match="held=True keeps the widths of a design; pass design="):
        live_descent(task, task.network.params, {}, limits(2e4), "live", None, held=True)


class Landed(Exception):
    """What a descent lands with."""


@pytest.mark.parametrize(
    ("bits", "how", "ending"),
    [
        (None, {}, Ending.MOVES),
        (4, {}, Ending.HELD),
        (None, {"held": True}, Ending.HELD),
        (None, {"ending": Ending.ACCURATE}, Ending.ACCURATE),
    ],
)
def test_a_live_descent_moves_widths_that_are_learned_or_ends_as_asked(task, monkeypatch, bits, how, ending):
    def landing(task, end, phase, history, limits, name, ending, *rest):
        raise Landed(ending)

    monkeypatch.setattr(living, "run_stage", lambda task, stage, now, *_: (now, stage.phase, {}))
    monkeypatch.setattr(living, "_smaller", lambda task, now, *_: (task, now, {}))
    monkeypatch.setattr(living, "landed", landing)
    monkeypatch.setattr(descending, "run_stage", lambda task, stage, now, *_: (now, stage.phase, {}))
    monkeypatch.setattr(descending, "landed", landing)
    if how.get("held"):
        how = how | {"design": decode(task, task.init(jnp.ones(2), jnp.ones(2), 4.0, 4.0), free_phase(2))}
    with pytest.raises(Landed) as found:
        live_descent(task, task.network.params, {}, limits(2e4), "live", bits, **how)
    assert found.value.args == (ending,)
    if not how:
        with pytest.raises(Landed) as found:
            descend(task, task.network.params, {}, limits(2e4), "joint", bits, None, None)
        assert found.value.args == (ending,)


def test_a_function_that_counts_its_channels_is_refused_before_the_descent(task, monkeypatch):
    def counting(params, x):
        x = x.reshape(x.shape[0], -1)
        return jax.nn.relu(x @ params["a"]).reshape(-1, HIDDEN) @ params["b"]

    network = cooptim.trace(counting, task.network.params, task.data.x_train[:1])
    other = build_task(network, task.machine, task.data, task.plan, 0, network.params, {})
    monkeypatch.setattr(living, "run_stage", lambda *args: pytest.fail("it has descended"))
    with pytest.raises(UnshrinkableError, match="does not take fewer channels of a"):
        live_descent(other, network.params, {}, limits(9e3), "live", None, start_bits=4.0)
