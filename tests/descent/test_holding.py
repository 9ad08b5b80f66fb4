"""What stands still in which stage: pruned weights in late rounds of fine-tuning, channel factors while widths move."""

import dataclasses
import inspect
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import cooptim
from cooptim.data.dataset import split_dataset
from cooptim.descent import descend, finalize
from cooptim.descent.finalize import Limits
from cooptim.descent.loop import Stage, control_at
from cooptim.descent.measure import Measure
from cooptim.descent.plan import Plan, quick_plan
from cooptim.descent.step import init_state, without_pruned
from cooptim.descent.task import build_task, decode
from cooptim.design.knobs import free_phase, frozen_phase, knob_names


class Two(nnx.Module):
    """Two dense layers of 4 x 4 and 4 x 3."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.a, self.b = nnx.Linear(4, 4, rngs=rngs), nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x):
        """Logits of [image, 4]."""
        return self.b(nnx.relu(self.a(x)))


@pytest.fixture(scope="module")
def task():
    rng = np.random.default_rng(0)
    x, y = rng.uniform(size=(60, 4)).astype(np.float32), rng.integers(0, 3, 60)
    data = split_dataset("noise", (x, y), (x[:20], y[:20]), 0.2, 0)
    network = cooptim.trace(Two(nnx.Rngs(0)), data.sample)
    plan = dataclasses.replace(quick_plan(), per_channel=True)
    return build_task(network, cooptim.load_machine("envision"), data, plan, 0, network.params, network.state)


def _with_zeros(params):
    """The parameters with three weights and a bias of layer a at zero."""
    kernel = params["a"]["kernel"].at[0, :3].set(0.0)
    return {**params, "a": {"kernel": kernel, "bias": params["a"]["bias"].at[0].set(0.0)}}


def test_an_update_leaves_out_zero_weights_and_nothing_else(task):
    params = _with_zeros(task.network.params)
    update = jax.tree.map(jnp.ones_like, params)
    held = without_pruned(task.network, params, update, jnp.asarray(1.0))
    expected = np.ones((4, 4))
    expected[0, :3] = 0.0
    np.testing.assert_array_equal(held["a"]["kernel"], expected)
    # Biases start at zero and have no threshold: they go on.
    assert all(np.all(np.asarray(leaf) == 1.0) for leaf in (held["a"]["bias"], held["b"]["bias"], held["b"]["kernel"]))
    free = without_pruned(task.network, params, update, jnp.asarray(0.0))
    assert all(np.all(np.asarray(leaf) == 1.0) for leaf in jax.tree.leaves(free))


@pytest.mark.parametrize("hold", [True, False])
def test_a_step_keeps_what_is_pruned_where_its_stage_says_so(task, hold):
    params = _with_zeros(task.network.params)
    knobs = task.init(2.0 * jnp.ones(2), 2.0 * jnp.ones(2), 4.0, 4.0)
    phase = frozen_phase(jnp.full(2, 4.0), jnp.full(2, 4.0))
    stage = Stage("round", 10, 1e-2, (), phase, period_ns=1e6, hold=hold)
    state = init_state(jax.tree.map(jnp.array, params), task.network.state, knobs, 0)
    for step in range(3):  # Adam goes on by its moments, too
        control = control_at(task.plan, stage, state.knobs, step, phase)
        state, _ = task.step(state, control, *task.data.batch(0, step, 16))
    kernel = np.asarray(state.params["a"]["kernel"])
    assert np.all(kernel[0, :3] == 0.0) == hold
    moved = kernel != np.asarray(params["a"]["kernel"])
    assert moved[1:].sum() >= 8  # a rectifier that is off, or a weight beyond its range, moves none of its own


def test_rounds_at_the_budget_hold_what_is_pruned_once_the_budget_was_met(monkeypatch):
    held = []

    def pretend(task, end, design, limits, name, attempt, *rest):
        held.append((limits.energy_pj, rest[-1]))
        report = SimpleNamespace(total_energy_pj=1.0)
        return end, SimpleNamespace(val_accuracy=0.9, val_loss=0.1, design=design, report=report)

    monkeypatch.setattr(descend, "_finetune", pretend)
    monkeypatch.setattr(descend, "_merit", inspect.unwrap(descend._merit))
    finetuned = inspect.unwrap(descend._finetuned)
    for energies, expected in (
        ((60.0, 50.0, 50.0, 50.0), [False, False, True, True]),  # on the way down weights may still return
        ((50.0, 50.0), [False, True]),
        ((None, None), [False, False]),  # a uniform width prunes nothing
    ):
        held.clear()
        aims = [Limits(energy, 1e3, None, 0.98) for energy in energies]
        finetuned(None, "end", "design", aims, "joint0", None, None, descend.Ending.MOVES)
        assert held == list(zip(energies, expected, strict=True))


@pytest.mark.parametrize(("first", "rounds", "taken"), [(0.97, (0.93, 0.95), 0.97), (0.97, (0.93, 0.975), 0.975)])
def test_what_stands_before_fine_tuning_is_taken_where_no_round_is_better(monkeypatch, first, rounds, taken):
    def one(accuracy):
        return SimpleNamespace(
            val_accuracy=accuracy, val_loss=1.0 - accuracy, design="d", report=SimpleNamespace(total_energy_pj=50.0)
        )

    left = list(rounds)
    monkeypatch.setattr(descend, "_finetune", lambda task, end, *rest: (end, one(left.pop(0))))
    monkeypatch.setattr(descend, "_merit", inspect.unwrap(descend._merit))
    finetuned = inspect.unwrap(descend._finetuned)
    aims = [Limits(50.0, 1e3, None, 0.98)] * len(rounds)
    best = finetuned(None, "end", "design", aims, "joint0", None, None, descend.Ending.MOVES, first=one(first))
    assert best.val_accuracy == taken and not left


def test_a_round_of_fine_tuning_ends_with_the_budget_bound_on_the_best_hardware(monkeypatch, task):
    """A round that trains nothing hands its own legal design and limits to `fitted`, and takes what comes back."""
    params, state = task.network.params, task.network.state
    limits, given = Limits(1e9, 1e9, None, 0.0), []
    _, end = descend.descent_stage(task, params, state, limits, "joint0", 4)
    phase = frozen_phase(jnp.full(2, 4.0), jnp.full(2, 4.0))
    design = finalize.finalize(task, decode(task, end.knobs, phase), params, state, limits.latency_ns)

    def fitted(task, params, state, design, limits):
        given.append(limits)
        return dataclasses.replace(design, threshold=design.threshold + 1.0), state

    monkeypatch.setattr(descend, "run_stage", lambda task, stage, begin, *_: (begin, stage.phase, {}))
    monkeypatch.setattr(descend, "fitted", fitted)
    _, one = descend._finetune(task, end, design, limits, "joint0", 0, None, None, descend.Ending.HELD)
    assert given == [limits]
    np.testing.assert_allclose(one.design.threshold, np.asarray(design.threshold) + 1.0, rtol=1e-5)


@pytest.mark.parametrize(("reached", "spent"), [(0.8, True), (0.7, False)])  # 0.8 before it is spent
def test_where_accuracy_is_all_that_counts_the_budget_is_spent_unless_that_does_harm(monkeypatch, task, reached, spent):
    params, state = task.network.params, task.network.state
    limits, moved = Limits(1e9, 1e9, None, 0.0), []
    _, end = descend.descent_stage(task, params, state, limits, "joint0", 4)
    phase = frozen_phase(jnp.full(2, 4.0), jnp.full(2, 4.0))
    design = finalize.finalize(task, decode(task, end.knobs, phase), params, state, limits.latency_ns)
    more = dataclasses.replace(design, threshold=design.threshold + 1.0)
    accuracy = lambda p, s, one, *_: ((reached if one is more else 0.8), 0.1)  # noqa: E731
    monkeypatch.setattr(descend, "run_stage", lambda task, stage, begin, *_: (begin, stage.phase, {}))
    monkeypatch.setattr(descend, "fitted", lambda task, params, state, design, limits: (more, state))
    monkeypatch.setattr(descend, "improve", lambda *rest: moved.append(rest))
    monkeypatch.setattr(Measure, "accuracy", lambda self, *rest: accuracy(*rest))
    monkeypatch.setattr(descend, "settled", lambda task, params, state, design: state)
    monkeypatch.setattr(descend, "_as_it_is", lambda task, params, state, design, *_: design)
    accurate = descend.Ending.ACCURATE
    _, found = descend._finetune(task, end, design, limits, "joint0", 0, None, None, accurate)
    assert (float(found.threshold[0]) == pytest.approx(float(more.threshold[0]))) == spent
    assert not moved


@pytest.mark.parametrize(("now_pj", "first"), [(51.0, "as it is"), (90.0, None)])  # 90 is cut to 50 in grades
def test_a_descent_hands_over_what_stands_at_its_budget(monkeypatch, task, now_pj, first):
    seen = {}
    stand_ins = {
        "decode": lambda *_: "soft", "settled": lambda *_: "state", "finalize": lambda *_: "design",
        "price": lambda *_: (SimpleNamespace(total_energy_pj=now_pj), None), "fitted": lambda *_: ("design", "state"),
        "improve": lambda *_: ("design", "state"), "_as_it_is": lambda *_: "as it is", "Descent": lambda *parts: parts,
        "_finetuned": lambda *_, **how: seen.update(how) or "tuned",
        "_spent_well": inspect.unwrap(descend._spent_well),
    }  # fmt: skip
    for name, stand_in in stand_ins.items():
        monkeypatch.setattr(descend, name, stand_in)
    measure = SimpleNamespace(accuracy=lambda *_: (0.9, 0.1))
    quiet = SimpleNamespace(plan=Plan(), measure=measure, data=SimpleNamespace(x_val=None, y_val=None))
    end = init_state(task.network.params, task.network.state, task.init(jnp.ones(2), jnp.ones(2)), 0)
    landed = inspect.unwrap(descend.landed)
    parts = landed(quiet, end, None, {}, Limits(50.0, 1e3, None, 0.98), "joint0", descend.Ending.MOVES, None, None)
    assert parts[0] == "tuned" and seen["first"] == first


@pytest.mark.parametrize(
    ("cheaper", "budget_pj", "calls"),
    [
        ((0.9, 0.95, 1.0), 100.0, ["bind", "finalize", "bind", "finalize", "bind", "finalize"]),
        ((1.0,), 100.0, ["bind", "finalize"]),  # nothing was freed
        ((0.9, 0.9, 0.9), 100.0, ["bind", "finalize"] * 3 + ["bind"]),  # not for ever
        ((), None, ["bind"]),
    ],
)
def test_what_better_hardware_frees_is_spent_on_weights(monkeypatch, cheaper, budget_pj, calls):
    done, shares = [], list(cheaper)

    def bind(task, params, state, design, limits):
        done.append("bind")
        return limits.energy_pj or design, "settled"

    def best(task, design, params, state, deadline_ns):
        done.append("finalize")
        return design * shares.pop(0)

    monkeypatch.setattr(finalize, "bind", bind)
    monkeypatch.setattr(finalize, "finalize", best)
    monkeypatch.setattr(
        finalize, "price", lambda task, params, state, design, period: (SimpleNamespace(total_energy_pj=design), None)
    )
    design, state = inspect.unwrap(finalize.fitted)(None, None, "old", 120.0, Limits(budget_pj, 1e3, None, 0.9))
    assert done == calls and state == "settled"
    assert design == (100.0 if budget_pj else 120.0)


def test_channel_factors_stand_while_a_descent_learns_widths(task):
    knobs = task.init(jnp.ones(2), jnp.ones(2))
    free, frozen = free_phase(2), frozen_phase(jnp.full(2, 4.0), jnp.full(2, 4.0))

    def rates(phase, freeze):
        stage = Stage("descent", 10, 1e-2, knob_names(knobs), phase, freeze=freeze)
        return control_at(Plan(), stage, knobs, 0, phase).knob_rates

    assert all(rate == 0.0 for rate in rates(free, True).weight_log2_scale)
    assert rates(free, True).weight_log2_step == np.float32(Plan().knob_rates.weight_log2_step)
    slow = Plan().frozen_rate_share * Plan().knob_rates.weight_log2_scale
    assert all(rate == np.float32(slow) for rate in rates(frozen, True).weight_log2_scale)
    assert all(rate == np.float32(slow) for rate in rates(frozen, False).weight_log2_scale)


def test_channel_factors_start_alike_where_widths_are_learned_and_calibrated_where_they_are_held(task):
    params, state = task.network.params, task.network.state
    limits = Limits(None, 1e9, None, 0.0)
    begun = {bits: descend.descent_stage(task, params, state, limits, "joint0", bits)[1] for bits in (None, 4)}
    assert all(np.all(np.asarray(scale) == 0.0) for scale in begun[None].knobs.weight_log2_scale)
    columns = np.max(np.abs(np.asarray(params["a"]["kernel"])), axis=0)
    np.testing.assert_allclose(
        begun[4].knobs.weight_log2_scale[0] - np.max(begun[4].knobs.weight_log2_scale[0]),
        np.log2(columns / columns.max()), atol=1e-5,
    )  # fmt: skip
