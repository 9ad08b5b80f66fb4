"""Early exits in the price: a layer costs as often as it runs, and the deadline holds for inputs that run all."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cooptim.cost.bound import energy_bound_pj
from cooptim.cost.evaluate import evaluate
from cooptim.hardware import load_machine
from cooptim.hardware.machine import Switching
from cooptim.mapping.frontier import tilings
from cooptim.workload import Bounds, Layer, Workload
from cooptim.workload.graph import needed
from tests.cost.cases import as_design, conv, few_rows, random_choice

LAYERS = (
    conv("one", 16, 1, 8),
    Layer("end1", "dense", Bounds(K=10, C=64), inputs=("one",)),
    conv("two", 32, 16, 8, 3, "one"),
    Layer("end2", "dense", Bounds(K=10, C=128), inputs=("two",)),
    conv("three", 8, 32, 8, 1, "two"),
    Layer("head", "dense", Bounds(K=10, C=512), inputs=("three",)),
)
STAGED = Workload("staged", LAYERS, ("end1", "end2", "head"), 64, exits=("end1", "end2"))
PERIOD_NS = 1e8  # longer than any inference here


def machine(changing):
    envision = load_machine("envision")
    if not changing:
        return envision
    return dataclasses.replace(envision, switching=Switching(*(jnp.asarray(x) for x in (500.0, 20.0, 7.0))))


@functools.cache
def price(workload):
    """One compiled price a workload, with one tiling a layer."""
    table = few_rows(workload, load_machine("envision"), 1)
    return jax.jit(lambda on, d, stats: evaluate(workload, on, d, stats, period_ns=PERIOD_NS, tilings=table))


def priced(workload, on, choice, reach, rows):
    """Report of the rows of a choice that belong to a workload, on one tiling a layer."""
    table = few_rows(workload, load_machine("envision"), 1)
    picked = {k: [v[i] for i in rows] if isinstance(v, list) else v for k, v in choice.items()}
    design, stats = as_design(on, table, picked)
    stats = dataclasses.replace(stats, reach=None if reach is None else jnp.asarray(reach))
    return price(workload)(on, design, stats)


@pytest.fixture(scope="module")
def choice():
    table = few_rows(STAGED, machine(False), 1)
    return random_choice(STAGED, machine(False), table, np.random.default_rng(3))


def test_an_input_that_leaves_costs_the_network_cut_there_and_a_mix_costs_the_mean(choice):
    on, run = machine(True), needed(STAGED)
    shares = np.array([0.5, 0.2, 0.3])
    each = []
    for stage in range(3):
        rows = np.flatnonzero(run[stage]).tolist()
        layers = tuple(LAYERS[i] for i in rows)
        cut = Workload("cut", layers, tuple(n for n in STAGED.outputs if n in [x.name for x in layers]), 64)
        alone = priced(cut, on, choice, None, rows)
        inside = priced(STAGED, on, choice, run[stage].astype(float), range(6))
        np.testing.assert_allclose(inside.total_energy_pj, alone.total_energy_pj, rtol=1e-9)
        np.testing.assert_allclose(inside.mean_latency_ns, alone.total_latency_ns, rtol=1e-9)
        each.append(alone)
    whole = priced(STAGED, on, choice, None, range(6))
    mixed = priced(STAGED, on, choice, shares @ run, range(6))
    np.testing.assert_allclose(mixed.total_energy_pj, shares @ [float(r.total_energy_pj) for r in each], rtol=1e-9)
    np.testing.assert_allclose(mixed.mean_latency_ns, shares @ [float(r.total_latency_ns) for r in each], rtol=1e-9)
    np.testing.assert_allclose(jnp.sum(mixed.macs), shares @ [float(jnp.sum(r.macs)) for r in each], rtol=1e-12)
    assert float(mixed.total_latency_ns) == float(whole.total_latency_ns) == float(whole.mean_latency_ns)


def test_without_reach_nothing_changes_and_full_reach_is_the_same(choice):
    on = machine(False)
    none, ones = (priced(STAGED, on, choice, reach, range(6)) for reach in (None, np.ones(6)))
    assert none.reach is None and none.mean_busy_ns is None
    for name, pj in none.energy_pj.items():
        np.testing.assert_array_equal(pj, ones.energy_pj[name])


def test_weights_that_run_more_often_stay_on_chip_first():
    envision = load_machine("envision")
    wide = (
        Layer("often", "dense", Bounds(K=200, C=200)),
        Layer("end", "dense", Bounds(K=10, C=200), inputs=("often",)),
        Layer("seldom", "dense", Bounds(K=200, C=200), inputs=("often",)),
    )
    workload = Workload("wide", wide, ("end", "seldom"), 200, exits=("end",))
    picked = {
        "row": [0] * 3, "mode": [0] * 3, "weight_bits": [8.0] * 3, "input_bits": [8.0] * 3,
        "weight_density": [1.0] * 3, "input_density": [1.0] * 3, "supply_v": [1.03] * 3, "freq_ghz": [0.2] * 3,
        "buffer_bits": float(envision.buffer.size_bits),
    }  # fmt: skip
    # The largest tile, 40,000 words in slots of 16 b, leaves 408 kbit of 128 kB; each of the two stores 320 kbit.
    found = priced(workload, envision, picked, [0.2, 0.2, 1.0], range(3))
    assert float(found.resident_share[2]) == 1.0 and 0.0 < float(found.resident_share[0]) < 1.0
    found = priced(workload, envision, picked, [1.0, 1.0, 0.2], range(3))
    assert float(found.resident_share[0]) == 1.0 and 0.0 < float(found.resident_share[2]) < 1.0


def test_the_gradient_in_reach_is_that_of_finite_differences(choice):
    on, at = machine(True), np.array([1.0, 1.0, 0.6, 0.6, 0.25, 0.25])
    energy = jax.jit(lambda reach: priced(STAGED, on, choice, reach, range(6)).total_energy_pj)
    slope = jax.grad(energy)(jnp.asarray(at))
    for i in range(1, 6):
        step = np.zeros(6)
        step[i] = 1e-4
        if i in (3, 5):
            step[i - 1] = 2e-4  # the layers of one stage move together, and stay above the next
        want = (float(energy(at + step)) - float(energy(at - step))) / 2e-4
        np.testing.assert_allclose(float(slope @ step) / 1e-4, want, rtol=1e-5)


def test_the_bound_lets_every_input_leave_first_and_lies_below():
    envision = load_machine("envision")
    table = tilings(STAGED, envision)
    plain = dataclasses.replace(STAGED, exits=())
    early, whole = (
        energy_bound_pj(workload, envision, PERIOD_NS, tilings=table).bound_pj for workload in (STAGED, plain)
    )
    rows = [0, 1]
    cut = Workload("cut", tuple(LAYERS[i] for i in rows), ("end1",), 64)
    slow = energy_bound_pj(cut, envision, PERIOD_NS).bound_pj
    assert early < whole and early == pytest.approx(slow, rel=1e-3)
