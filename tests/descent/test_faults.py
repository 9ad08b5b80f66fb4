"""Errors of a low supply in a descent: what is safe, what learns from them, what is measured, what lowers a supply."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cooptim
from cooptim.descent import finalize
from cooptim.descent.assign import assign_hardware
from cooptim.descent.calibrate import calibrated_ranges
from cooptim.descent.constraint import Budgets
from cooptim.descent.descend import _begin
from cooptim.descent.faults import Faults, faults_of, safe_machine, safe_supply_v
from cooptim.descent.measure import Measure
from cooptim.descent.moves import Move, hardware_moves
from cooptim.descent.plan import Plan
from cooptim.descent.price import Pricer
from cooptim.descent.step import Control, init_state, make_loss
from cooptim.descent.summary import summary
from cooptim.descent.task import signed_task
from cooptim.design.knobs import frozen_phase
from cooptim.design.legal import snap, violations
from cooptim.network.stats import Stats
from cooptim.reporting.table import notes
from tests.descent.test_spending import LIMITS, START, TwoLayers, energy_pj
from tests.descent.two_layers import traced
from tests.reporting import fake_run

BITS = jnp.full(2, 4.0)


@pytest.fixture(scope="module")
def parts():
    """A network, the machine, a legal design at 4 bits and its task, errors of everything on."""
    network, params, data = traced()
    machine = cooptim.load_machine("dnn_engine")
    task = signed_task(network, machine, data, Plan(errors="all", chunk=64, float_steps=0), 0, (False, False))
    knobs = task.space.init(jnp.full(2, 0.5), jnp.full(2, 2.0), 4.0, 4.0)
    return types.SimpleNamespace(
        network=network,
        machine=machine,
        data=data,
        task=task,
        knobs=knobs,
        params=params,
        phase=frozen_phase(BITS, BITS),
    )


def at(parts, volts):
    """The legal design with both layers at this supply."""
    design = parts.task.space.decode(parts.knobs, 0.05, parts.phase)
    return snap(parts.task.space, dataclasses.replace(design, supply_v=jnp.full(2, volts)))


def test_a_machine_that_states_errors_has_no_supply_below_the_safe_one_without_them(parts):
    machine = parts.machine  # safe at 0.8 V, its memory at 0.7 V, floor 0.65 V in steps of 10 mV
    assert safe_supply_v(machine) == pytest.approx(0.80)
    assert float(safe_machine(machine).supply.floor_v) == pytest.approx(0.80)
    mechanism = dataclasses.replace(machine.mechanisms.error_prone_supply, memory_safe_v=jnp.asarray(0.823))
    other = dataclasses.replace(
        machine, mechanisms=dataclasses.replace(machine.mechanisms, error_prone_supply=mechanism)
    )
    assert safe_supply_v(other) == pytest.approx(0.83)
    envision = cooptim.load_machine("envision")
    assert safe_machine(envision) is envision
    plain = signed_task(parts.network, machine, parts.data, Plan(), 0, (False, False))
    assert plain.faults is None and violations(plain.space, at(parts, 0.7)) != []
    assert violations(parts.task.space, at(parts, 0.7)) == []


def test_errors_are_refused_where_a_machine_states_none_and_by_unknown_names():
    with pytest.raises(ValueError, match=r"errors 'memory', and machine envision has no mechanisms.error_prone_supply"):
        faults_of(cooptim.load_machine("envision"), Plan(errors="memory"))
    assert faults_of(cooptim.load_machine("envision"), Plan()) is None
    for given, found in (({"errors": "some"}, "errors 'some'"), ({"error_map": "odd"}, "error_map 'odd'")):
        with pytest.raises(ValueError, match=f"plan: {found} is not known; use one of "):
            Plan(**given)
    for kind in ("none", "accumulators"):  # what comes too late differs on one chip too
        with pytest.raises(ValueError, match=f"'{kind}' has none; use errors weights, inputs, memory, all, or"):
            Plan(error_map="fixed", errors=kind)
    for quantizer, kind in (("dorefa", "all"), ("pact", "weights")):
        said = f"quantizer '{quantizer}' has dorefa weights, .* '{kind}' cannot misread; use errors none, inputs, accum"
        with pytest.raises(ValueError, match=said):
            Plan(quantizer=quantizer, errors=kind)
    assert Plan(quantizer="pact", errors="inputs").errors == "inputs"
    with pytest.raises(ValueError, match="plan: error_draws 0: at least 1"):
        Plan(error_draws=0)


def test_rates_are_those_of_the_machine_and_keys_those_of_the_map(parts):
    volts, key = jnp.asarray([0.65, 0.8]), jax.random.key(5)
    found = parts.task.faults.in_step(volts, key)
    # 1e-6 * 10^(30 * (0.7 - V)) of the bits; 1e-4 * 10^(20 * (0.8 - V)) of the operations, at least one late of them
    np.testing.assert_allclose(found.weight, [10**-4.5, 1e-9], rtol=1e-4)
    np.testing.assert_allclose(found.input, found.weight)
    np.testing.assert_allclose(found.accumulator, [1 - np.exp(-0.1), 1e-4], rtol=1e-4)
    only = faults_of(parts.machine, Plan(errors="weights", error_map="fixed"))
    steps = [only.in_step(volts, jax.random.key(k)) for k in (1, 2)]
    assert steps[0].input is None and steps[0].accumulator is None

    def keys(faults, *draws):
        drawn = [faults.in_draw(volts, *(jnp.asarray(n, jnp.uint32) for n in draw)) for draw in draws]
        return [[str(jax.random.key_data(k)) for k in (e.cells, e.timing)] for e in [*steps, *drawn]]

    one, other, same = keys(only, (0, 0))
    assert one[0] == other[0] == same[0] and one[1] != other[1]  # one chip, trained for and measured; other late ones
    _, _, first, second, part = keys(parts.task.faults, (0, 0), (1, 0), (0, 64))
    assert first[0] != second[0] and first[0] == part[0] and len({first[1], second[1], part[1]}) == 3


def _task_loss(parts, faults):
    """Loss of two images without budgets, as a function of the supply knobs."""
    one, none = jnp.asarray(1.0), jnp.zeros(3)
    control = Control(
        parts.phase, jnp.asarray(0.05), one, parts.knobs, Budgets(none, none), one, one, jnp.asarray(1e6), 0.0 * one
    )
    state = init_state(parts.params, {}, parts.knobs, 0)
    loss = make_loss(parts.network, parts.task.space, faults=faults)
    x, labels = jnp.asarray(parts.data.x_train[:2], float), jnp.asarray(parts.data.y_train[:2])

    def of(supply):
        knobs = dataclasses.replace(parts.knobs, supply=supply)
        return loss(parts.params, knobs, state, control, x, labels, jax.random.key(3), None)[0]

    return of


def test_the_loss_moves_the_supplies_just_where_errors_are_injected(parts):
    supply = jnp.asarray([-2.0, -1.0])  # 0.68 and 0.72 V
    assert np.all(jax.jit(jax.grad(_task_loss(parts, None)))(supply) == 0.0)
    late = Faults(parts.machine.mechanisms.error_prone_supply, ("accumulator",), False)
    # What comes too late is a smooth function of the rate once it is drawn, so one key has an exact difference where
    # no quantizer follows; before one, the slope is straight through it.
    run = jax.jit(jax.value_and_grad(_task_loss(parts, late)))
    _, slope = run(supply)
    h = jnp.asarray([0.0, 1e-5])
    difference = (run(supply + h)[0] - run(supply - h)[0]) / 2e-5
    assert slope[1] == pytest.approx(float(difference), rel=1e-4) and abs(difference) > 1e-6
    assert abs(slope[0]) > 1e-6


def test_a_descent_with_errors_begins_at_the_safe_supply(parts):
    begin = _begin(parts.task, parts.params, {}, 4.0)
    np.testing.assert_allclose(parts.task.decode(begin.knobs, 0.05, parts.phase).supply_v, 0.80, rtol=1e-4)


def test_no_supply_falls_below_the_learned_one_rounded_up(parts):
    space, pricer = parts.task.space, Pricer(parts.task.space)
    stats, design = Stats(jnp.ones(2), jnp.ones(2)), at(parts, 0.9)
    free = assign_hardware(space, pricer, design, stats, 1e9)
    np.testing.assert_allclose(free.supply_v, 0.65, rtol=1e-6)
    for learned, held in (([0.7012, 0.65], [0.71, 0.65]), ([0.7, 0.7508], [0.70, 0.75])):  # 0.8 mV: the same step
        found = assign_hardware(space, pricer, design, stats, 1e9, lowest_v=np.asarray(learned))
        np.testing.assert_allclose(found.supply_v, held, rtol=1e-6)
        assert violations(space, snap(space, found)) == []


@pytest.mark.parametrize("faults", [None, True])
def test_finalizing_holds_the_learned_supplies_where_errors_are_injected(monkeypatch, faults):
    asked = {}

    def assigned(space, pricer, design, stats, deadline_ns, *, lowest_v):
        asked["v"] = lowest_v
        return design

    for name, found in (("assign_hardware", assigned), ("snap", lambda space, d: d), ("violations", lambda *_: [])):
        monkeypatch.setattr(finalize, name, found)
    monkeypatch.setattr(finalize, "_built_size", lambda task, design: design.buffer_bits)
    monkeypatch.setattr(finalize, "_cheaper_of", lambda task, legal, *_: legal)

    def polished(space, pricer, design, stats, deadline_ns, kinds):
        asked["kinds"] = kinds
        return design

    monkeypatch.setattr(finalize, "polished", polished)
    task = TwoLayers(types.SimpleNamespace(stats=lambda *_: Stats(jnp.ones(2), jnp.ones(2))))
    task.data.x_train = task.data.y_train = np.zeros(1)
    for name, value in (("space", None), ("pricer", None), ("faults", faults), ("plan", Plan())):
        object.__setattr__(task, name, value)
    finalize.finalize(task, START, None, None, 1.0)
    assert (asked["v"] is None) == (faults is None)
    assert asked["kinds"] == (("mode", "tiling", "supply") if faults is None else ("mode", "tiling"))
    if faults:
        np.testing.assert_array_equal(asked["v"], START.supply_v)


def test_accuracies_are_drawn_and_the_search_sees_other_draws(parts):
    data, params = parts.data, parts.params
    x, labels = data.x_val[:100], data.y_val[:100]
    low, high = at(parts, 0.65), at(parts, 0.9)
    loud = dataclasses.replace(
        parts.machine.mechanisms.error_prone_supply, memory_safe_rate=jnp.asarray(1e-3), safe_rate=jnp.asarray(1e-6)
    )
    random, fixed = (Measure(parts.network, 64, Faults(loud, ("weight",), same)) for same in (False, True))
    plain = Measure(parts.network, 64).accuracy(params, {}, high, x, labels)
    each = random.accuracies(params, {}, low, x, labels, 5)
    assert len(each) == 5 and len(set(each)) > 1 and each == random.accuracies(params, {}, low, x, labels, 5)
    few = random.accuracy(params, {}, low, x, labels)[0]
    assert few == pytest.approx(np.mean([random._over(params, {}, low, x, labels, d)[0] for d in range(4)]))
    assert each == tuple(random._over(params, {}, low, x, labels, d)[0] for d in range(4, 9))
    one = fixed.accuracies(params, {}, low, x, labels, 3)
    assert one == (fixed._over(params, {}, low, x, labels, 9)[0],)  # one chip, nothing late: each draw is the same
    assert fixed.accuracy(params, {}, low, x, labels)[0] == one[0] and len(fixed.few) == 1 and len(random.few) == 4
    late = Measure(parts.network, 64, Faults(loud, ("weight", "accumulator"), True))
    assert len(late.few) == 4 and Measure(parts.network, 64).few == range(1)
    np.testing.assert_allclose(random.accuracies(params, {}, high, x, labels, 2), plain[0])
    assert Measure(parts.network, 64).accuracies(params, {}, high, x, labels, 20) == (plain[0],)


@pytest.mark.parametrize(
    ("faults", "accurate", "taken"), [(None, False, True), (True, True, True), (True, False, False)]
)
def test_a_step_of_the_supply_is_measured_where_errors_are_injected(monkeypatch, faults, accurate, taken):
    lower = dataclasses.replace(START, supply_v=START.supply_v - 0.1)
    measured = []

    def accuracy(params, state, design, *_):
        measured.append(bool(design.supply_v[0] < 1.0))
        return (1.0 if accurate or design.supply_v[0] == 1.0 else 0.0), 0.0

    task = TwoLayers(types.SimpleNamespace(accuracy=accuracy))
    found = types.SimpleNamespace(energy_pj=np.asarray([50.0]), latency_ns=np.ones(1))
    for name, value in (("space", None), ("faults", faults), ("pricer", types.SimpleNamespace(many=lambda *_: found))):
        object.__setattr__(task, name, value)

    def priced(task, params, state, design, period_ns):
        cost = energy_pj(design) * float(design.supply_v[0])
        return types.SimpleNamespace(total_energy_pj=cost, total_latency_ns=1.0), None

    monkeypatch.setattr(finalize, "price", priced)
    monkeypatch.setattr(finalize, "foreseen", lambda *_: lambda design: priced(None, None, None, design, 1.0)[0])
    monkeypatch.setattr(finalize, "hardware_moves", lambda *_: [Move("lower", lower, False, True)])
    monkeypatch.setattr(finalize, "violations", lambda *_: [])
    for kind in ("width_moves", "mode_moves"):
        monkeypatch.setattr(finalize, kind, lambda *_: [])
    monkeypatch.setattr(finalize, "legal_moves", lambda space, moves: moves)
    move, saving, count = finalize.best_move(task, None, None, START, LIMITS)
    assert (move is not None, count) == (taken, 1) and any(measured) == bool(faults)
    if taken:
        assert move.retrains == bool(faults) and saving > 0


def test_a_calibrated_design_stays_at_safe_supplies_in_a_space_that_has_lower_ones(parts):
    x = parts.data.x_train[:64]
    given = (parts.network, parts.params, {}, x, parts.task.space, 8)
    space, _ = calibrated_ranges(*given, ranges="minmax", per_channel=False)
    assert float(parts.task.space.machine.supply.floor_v) == pytest.approx(0.65)
    assert float(space.machine.supply.floor_v) == pytest.approx(0.80) and space.tilings is parts.task.space.tilings


def test_supply_moves_say_so(parts):
    moves = hardware_moves(parts.task.space, jax.tree.map(np.asarray, at(parts, 0.8)))
    assert {m.supply for m in moves if "supply" in m.name} == {True}
    assert {m.supply for m in moves if "supply" not in m.name} <= {False}


def test_result_and_report_tell_draws_and_spread():
    run = fake_run.result()
    assert summary(run)["errors"] is None
    final = dataclasses.replace(run.designs["final"], test_draws=(0.96, 0.97, 0.98))
    told = summary(dataclasses.replace(run, errors=("all", "random"), designs=run.designs | {"final": final}))
    errors = told["errors"]
    assert (errors["injected"], errors["map"], errors["draws"]) == ("all", "random", 3)
    assert errors["accuracy_std"]["final"] == pytest.approx(0.01) and errors["accuracy_min"]["final"] == 0.96
    assert errors["accuracy_std"]["best_uniform"] is None
    line = next(line for line in notes(told) if line.startswith("errors: "))
    assert line.startswith("errors: all, random maps, 3 draws on the test set: joint ")
    assert "+- 1.00 points, lowest 96.0" in line
    alone = dataclasses.replace(final, test_draws=(0.97,))
    told = summary(dataclasses.replace(run, errors=("weights", "fixed"), designs=run.designs | {"final": alone}))
    assert "errors: weights, fixed maps, 1 draw on the test set" in notes(told)  # no spread of one number
