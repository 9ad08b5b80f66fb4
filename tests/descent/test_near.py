"""Where a joint descent starts: at the best uniform width, from which widths move slowly, or far above it."""

import dataclasses
import inspect

import jax.numpy as jnp
import numpy as np
import pytest

import cooptim
from cooptim.descent import sweep
from cooptim.descent.descend import descent_stage
from cooptim.descent.finalize import Limits
from cooptim.descent.loop import Stage, control_at
from cooptim.descent.plan import Plan, quick_plan
from cooptim.descent.references import reference_16b, with_deadline
from cooptim.descent.run import float_parent
from cooptim.descent.task import build_task, decode
from cooptim.design.knobs import free_phase, frozen_phase, knob_names
from tests.descent.two_layers import traced

_WIDTHS = {"weight_log2_step", "weight_log2_range", "input_log2_step", "input_log2_range"}


@pytest.fixture(scope="module")
def task():
    network, params, data = traced()
    return build_task(network, cooptim.load_machine("envision"), data, quick_plan(), 0, params, network.state)


def test_a_chip_that_skips_zeros_has_until_the_reference_without_a_zero(task):
    network, params, data = traced()
    eie = build_task(network, cooptim.load_machine("eie"), data, quick_plan(), 0, params, network.state)
    found = []
    for one in (task, eie):
        reference = reference_16b(one, params, network.state)[0]
        budget = with_deadline(one, cooptim.Budget(), reference)
        dense = one.pricer.report(reference.design, cooptim.dense_stats(2), 0.0)
        found.append((budget.latency_ns, reference.report.total_latency_ns, float(dense.total_latency_ns)))
        given = cooptim.Budget(latency_ns=5.0)
        assert with_deadline(one, given, reference) is given
    assert found[0][0] is None and found[0][1] == pytest.approx(found[0][2])  # Envision takes the cycles of zeros
    assert found[1][0] == found[1][2] > 1.2 * found[1][1]


def test_a_loss_that_is_none_from_the_first_step_is_no_matter_of_rates(task):
    network, params, data = traced()
    broken = build_task(network, task.machine, data, task.plan, 0, params, network.state)
    with pytest.raises(
        FloatingPointError, match="float: the loss is not a number at its first step, .*; look for weights"
    ):
        float_parent(broken, dict(params) | {"b": params["b"] / 0.0}, network.state, None, None)


@pytest.mark.parametrize(
    ("held", "start", "bits", "rate"), [(None, None, 8.0, 1.0), (None, 3, 3.0, 0.3), (4, None, 4.0, 1.0)]
)
def test_widths_start_where_they_are_told_to_and_move_slowly_from_there(task, held, start, bits, rate):
    limits = Limits(None, 1e9, None, 0.0)
    stage, begin = descent_stage(task, task.network.params, task.network.state, limits, "joint0", held, start)
    design = decode(task, begin.knobs, stage.phase)
    np.testing.assert_allclose(np.asarray(design.weight_bits), bits, atol=0.02)
    np.testing.assert_allclose(np.asarray(design.input_bits), bits, atol=0.02)
    assert stage.width_rate == pytest.approx(rate if rate == 1.0 else task.plan.near_rate_share)


def test_a_descent_goes_on_from_a_design(task):
    limits = Limits(None, 1e9, None, 0.0)
    knobs = task.init(jnp.asarray([0.5, 0.25]), jnp.ones(2), jnp.asarray([2.0, 4.0]), jnp.asarray([5.0, 3.0]))
    cut = jnp.asarray([0.7, 0.2]) * jnp.asarray([0.5, 0.25])
    design = dataclasses.replace(decode(task, knobs, free_phase(2)), threshold=cut)
    params = task.network.params, task.network.state
    stage, begin = descent_stage(task, *params, limits, "live", None, 3, design)
    found, plain = decode(task, begin.knobs, stage.phase), descent_stage(task, *params, limits, "live", None, 3)[1]
    np.testing.assert_array_equal(found.weight_bits, [2, 4])
    np.testing.assert_array_equal(found.input_bits, [5, 3])
    for field in ("threshold", "weight_step", "input_step"):
        np.testing.assert_allclose(getattr(found, field), getattr(design, field), rtol=1e-6, err_msg=field)
    # modes start as open as ever, for narrower ones may become legal
    np.testing.assert_array_equal(begin.knobs.mode_logits, plain.knobs.mode_logits)
    assert stage.width_rate == task.plan.near_rate_share
    alone = descent_stage(task, *params, limits, "live", None, design=design)[0]
    assert alone.width_rate == task.plan.near_rate_share


def test_slow_widths_slow_nothing_else_and_are_no_slower_once_frozen(task):
    plan, knobs = Plan(), task.init(jnp.ones(2), jnp.ones(2))
    three = jnp.full(2, 3.0)
    for phase, slow in ((free_phase(2), 0.25), (frozen_phase(three, three), 1.0)):
        whole, slowed = (
            control_at(plan, Stage("joint0", 100, 1e-3, knob_names(knobs), phase, width_rate=rate), knobs, 0, phase)
            for rate in (1.0, 0.25)
        )
        for name in knob_names(knobs):
            a, b = (np.asarray(getattr(one.knob_rates, name), float) for one in (whole, slowed))
            np.testing.assert_allclose(b, a * (slow if name in _WIDTHS else 1.0), rtol=1e-6, err_msg=name)
            assert np.all(a > 0.0), name


def test_members_of_a_sweep_start_at_the_uniform_width_of_their_seed():
    lost = FloatingPointError("the training ran away")
    widths = inspect.unwrap(sweep._widths)  # past the type checks of the tests, which know stand-ins from designs
    assert widths(Plan(), ("design", 3)) == (None, 3.0)
    assert widths(Plan(quantizer="lsq"), ("design", 3)) == (3, None)
    assert widths(Plan(), lost) == (None, None)
    with pytest.raises(FloatingPointError, match="ran away"):
        widths(Plan(quantizer="lsq"), lost)
