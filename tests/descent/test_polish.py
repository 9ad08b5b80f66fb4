"""Hardware for the whole network: single changes until none saves, against every combination there is."""

import dataclasses
import itertools

import jax.numpy as jnp
import numpy as np
import pytest

import cooptim
from cooptim.descent.assign import assign_hardware
from cooptim.descent.finalize import _cheaper_of, finalize
from cooptim.descent.moves import hardware_moves
from cooptim.descent.plan import quick_plan
from cooptim.descent.polish import polished
from cooptim.descent.references import reference_16b, uniform_phase
from cooptim.descent.task import build_task, calibrated_knobs, decode, rates
from cooptim.design.legal import grid_clock_ghz, snap, violations
from tests.descent.two_layers import traced


def _task(buffer_kb):
    """Two layers on Envision with a buffer that both want, and two supplies."""
    machine = cooptim.load_machine("envision")
    buffer = dataclasses.replace(machine.buffer, size_bits=jnp.asarray(buffer_kb * 8192.0))
    supply = dataclasses.replace(machine.supply, floor_v=machine.supply.nominal_v - machine.supply.step_v)
    network, params, data = traced()
    machine = dataclasses.replace(machine, buffer=buffer, supply=supply)
    return build_task(network, machine, data, quick_plan(), 0, params, network.state)


@pytest.fixture(scope="module", params=[0.15, 0.2, 0.25, 0.3])
def case(request):
    """(task, design at 3 b as a descent leaves it, its zero rates, deadline, cheapest of all combinations [pJ])."""
    task = _task(request.param)
    soft, stats, deadline_ns = _soft(task)
    return task, soft, stats, deadline_ns, _brute_force(task, soft, stats, deadline_ns)


def _soft(task):
    """(design at 3 b before any hardware is chosen, its zero rates, the deadline [ns])."""
    params, state = task.network.params, task.network.state
    deadline_ns = float(reference_16b(task, params, state)[0].report.total_latency_ns)
    soft = decode(task, calibrated_knobs(task, params, state, 3), uniform_phase(task, 3, prune=True))
    stats = rates(task, params, state, soft)
    return soft, stats, deadline_ns


def _brute_force(task, soft, stats, deadline_ns):
    """Least energy over every mode, tiling and supply of both layers within the deadline."""
    space, start = task.space, snap(task.space, assign_hardware(task.space, task.pricer, soft, stats, deadline_ns))
    modes, rows = np.eye(len(space.machine.modes)), np.eye(np.shape(start.tiling)[1])
    volts = np.unique(np.concatenate([[float(space.machine.supply.nominal_v)], np.asarray(start.supply_v)]))
    valid = np.asarray(space.tilings.valid) > 0
    each = [itertools.product(modes, [row for row, ok in zip(rows, some, strict=True) if ok], volts) for some in valid]
    designs = []
    for pick in itertools.product(*each):
        mode, tiling, supply_v = (np.asarray(column) for column in zip(*pick, strict=True))
        clock = np.asarray(grid_clock_ghz(space, start, supply_v), np.asarray(start.freq_ghz).dtype)
        designs.append(dataclasses.replace(start, mode=mode, tiling=tiling, supply_v=supply_v, freq_ghz=clock))
    prices = task.pricer.many(designs, stats, deadline_ns)
    for i in np.argsort(np.where(prices.latency_ns <= deadline_ns, prices.energy_pj, np.inf)):
        if not violations(space, designs[i]):
            return float(prices.energy_pj[i])
    raise AssertionError("no combination is legal")


def _energy_pj(task, design, stats, deadline_ns):
    return float(task.pricer.report(design, stats, deadline_ns).total_energy_pj)


def test_no_single_change_saves_and_the_best_combination_is_near(case):
    task, soft, stats, deadline_ns, least_pj = case
    assigned = snap(task.space, assign_hardware(task.space, task.pricer, soft, stats, deadline_ns))
    best = polished(task.space, task.pricer, assigned, stats, deadline_ns)
    found = _energy_pj(task, best, stats, deadline_ns)
    assert violations(task.space, best) == []
    assert least_pj * (1 - 1e-6) <= found <= min(1.05 * least_pj, _energy_pj(task, assigned, stats, deadline_ns))
    report = task.pricer.report(best, stats, deadline_ns)
    assert float(report.total_latency_ns) <= deadline_ns * (1 + 1e-6)
    for move in hardware_moves(task.space, best):
        if not violations(task.space, move.design):
            moved = task.pricer.report(move.design, stats, deadline_ns)
            if float(moved.total_latency_ns) <= deadline_ns:
                assert float(moved.total_energy_pj) >= found * (1 - 2e-4), move.name


def test_a_cheaper_design_that_is_late_is_not_taken(case):
    task, soft, stats, deadline_ns, _ = case
    space, pricer = task.space, task.pricer

    def best(deadline_ns):
        assigned = snap(space, assign_hardware(space, pricer, soft, stats, deadline_ns))
        report = pricer.report(polished(space, pricer, assigned, stats, deadline_ns), stats, 0.0)
        return float(report.total_latency_ns), float(report.total_energy_pj)

    late_ns, cheap_pj = best(deadline_ns)
    in_time_ns, dear_pj = best(0.999 * late_ns)
    assert in_time_ns <= 0.999 * late_ns and dear_pj > cheap_pj


def test_supplies_stay_where_they_are_no_choice_of_the_hardware(case):
    task, soft, stats, deadline_ns, _ = case
    assigned = snap(task.space, assign_hardware(task.space, task.pricer, soft, stats, deadline_ns))
    best = polished(task.space, task.pricer, assigned, stats, deadline_ns, ("mode", "tiling"))
    np.testing.assert_array_equal(best.supply_v, assigned.supply_v)
    np.testing.assert_array_equal(best.freq_ghz, assigned.freq_ghz)


def test_the_reference_has_the_best_tilings_of_the_whole_network_and_nothing_else_changed(case):
    task, *_ = case
    reference, _ = reference_16b(task, task.network.params, task.network.state)
    design, period_ns = reference.design, float(reference.report.total_latency_ns)
    assert float(np.min(np.asarray(design.supply_v))) == float(task.machine.supply.nominal_v)
    np.testing.assert_array_equal(np.argmax(np.asarray(design.mode), axis=1), 0)
    valid, least_pj = np.asarray(task.space.tilings.valid) > 0, np.inf
    rows = np.eye(valid.shape[1])
    for pick in itertools.product(*([row for row, ok in zip(rows, some, strict=True) if ok] for some in valid)):
        other = dataclasses.replace(design, tiling=np.asarray(pick))
        if not violations(task.space, other):
            least_pj = min(least_pj, float(task.pricer.report(other, reference.stats, 0.0).total_energy_pj))
    now_pj = float(task.pricer.report(design, reference.stats, 0.0).total_energy_pj)
    assert least_pj * (1 - 1e-6) <= now_pj <= 1.02 * least_pj and period_ns > 0.0


def test_a_legal_design_is_its_own_best_hardware(case):
    task, soft, stats, deadline_ns, least_pj = case
    params, state = task.network.params, task.network.state
    once = finalize(task, soft, params, state, deadline_ns)
    twice = finalize(task, once, params, state, deadline_ns)
    for name in ("mode", "tiling", "supply_v", "freq_ghz"):
        np.testing.assert_array_equal(getattr(twice, name), getattr(once, name), err_msg=name)
    assert _energy_pj(task, once, rates(task, params, state, once), deadline_ns) <= 1.05 * least_pj


def test_the_start_is_the_cheaper_of_two_that_is_legal_and_in_time():
    task = _task(0.25)
    soft, stats, deadline_ns = _soft(task)
    dear = snap(task.space, assign_hardware(task.space, task.pricer, soft, stats, deadline_ns))
    cheap = polished(task.space, task.pricer, dear, stats, deadline_ns)
    assert _cheaper_of(task, dear, cheap, stats, deadline_ns) is cheap
    assert _cheaper_of(task, cheap, dear, stats, deadline_ns) is cheap
    takes_ns = float(task.pricer.report(cheap, stats, deadline_ns).total_latency_ns)
    assert _cheaper_of(task, dear, cheap, stats, 0.9 * takes_ns) is dear
    broken = dataclasses.replace(cheap, supply_v=np.asarray(cheap.supply_v) + 0.003)  # off the grid
    assert violations(task.space, broken) and _cheaper_of(task, dear, broken, stats, deadline_ns) is dear


def test_hardware_that_is_cheaper_than_what_is_found_layer_by_layer_stays():
    """At 0.25 kB the assignment alone takes over twice the energy; a design that came with better hardware keeps it."""
    task = _task(0.25)
    soft, stats, deadline_ns = _soft(task)
    assigned = snap(task.space, assign_hardware(task.space, task.pricer, soft, stats, deadline_ns))
    legal = finalize(task, soft, task.network.params, task.network.state, deadline_ns)
    saved = 1.0 - _energy_pj(task, legal, stats, deadline_ns) / _energy_pj(task, assigned, stats, deadline_ns)
    assert saved > 0.1
