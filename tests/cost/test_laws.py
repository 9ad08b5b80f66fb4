"""Laws that any honest cost obeys, whatever its constants."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cooptim.compile import compiled_once
from cooptim.cost.evaluate import evaluate
from cooptim.cost.report import COMPONENTS
from cooptim.mapping.frontier import tilings
from cooptim.network.stats import Stats
from cooptim.workload import Workload
from tests.cost.cases import CROWDED, MACHINES, WORKLOADS, as_design, random_choice

ENVISION = MACHINES["envision"]


@functools.cache
def _priced(workload):
    return compiled_once(lambda design, stats: evaluate(workload, ENVISION, design, stats))


def _totals(workload, choice):
    report = _priced(workload)(*as_design(ENVISION, tilings(workload, ENVISION), choice))
    return float(report.total_energy_pj), float(report.total_latency_ns)


def _raised(choice, name, index, by, top):
    values = list(choice[name])
    values[index] = min(values[index] + by, top)
    return choice | {name: values}


@pytest.mark.parametrize(
    ("name", "by", "top"),
    [
        ("weight_bits", 1.0, 16.0), ("input_bits", 1.0, 16.0), ("weight_density", 0.1, 1.0),
        ("input_density", 0.1, 1.0), ("supply_v", 0.02, 1.03),
    ],
)  # fmt: skip
@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda w: w.name)
def test_more_bits_density_or_supply_never_cost_less(workload, name, by, top):
    rng = np.random.default_rng(9)
    for _ in range(8):
        choice = random_choice(workload, ENVISION, tilings(workload, ENVISION), rng)
        index = int(rng.integers(0, len(workload.layers)))
        before, after = (_totals(workload, c) for c in (choice, _raised(choice, name, index, by, top)))
        assert after[0] >= before[0] * (1 - 1e-12) and after[1] >= before[1] * (1 - 1e-12)


def test_more_output_channels_never_cost_less():
    def wider(k):
        layers = list(CROWDED.layers)
        layers[-1] = dataclasses.replace(layers[-1], bounds=layers[-1].bounds._replace(K=k))
        return Workload("wider", tuple(layers), CROWDED.outputs, CROWDED.input_words)

    rng = np.random.default_rng(1)
    choice = random_choice(CROWDED, ENVISION, tilings(CROWDED, ENVISION), rng) | {"row": [0] * 5}
    totals = [_totals(wider(k), choice) for k in (10, 20, 100, 101)]
    assert totals == sorted(totals)


def test_a_faster_clock_shortens_the_compute_and_never_costs_energy_at_the_same_supply():
    rng = np.random.default_rng(3)
    choice = random_choice(CROWDED, ENVISION, tilings(CROWDED, ENVISION), rng)
    slow = _totals(CROWDED, choice)
    fast = _totals(CROWDED, choice | {"freq_ghz": [2 * f for f in choice["freq_ghz"]]})
    assert fast[0] <= slow[0] and fast[1] <= slow[1]


def test_doubling_every_energy_doubles_the_report():
    m = ENVISION
    doubled = dataclasses.replace(
        m,
        datapath=dataclasses.replace(m.datapath, busy_pj=2 * m.datapath.busy_pj, control_pj=2 * m.datapath.control_pj),
        supply=dataclasses.replace(m.supply, leakage_mw=2 * m.supply.leakage_mw),
        buffer=dataclasses.replace(m.buffer, access_pj=2 * m.buffer.access_pj),
        dram=dataclasses.replace(m.dram, access_pj_per_bit=2 * m.dram.access_pj_per_bit),
    )
    table = tilings(CROWDED, m)
    design, stats = as_design(m, table, random_choice(CROWDED, m, table, np.random.default_rng(2)))
    once, twice = (evaluate(CROWDED, machine, design, stats, period_ns=1e8) for machine in (m, doubled))
    for name in COMPONENTS:
        np.testing.assert_allclose(twice.energy_pj[name], 2 * once.energy_pj[name], rtol=1e-12)
    np.testing.assert_allclose(twice.standby_pj, 2 * once.standby_pj, rtol=1e-12)
    np.testing.assert_allclose(twice.latency_ns, once.latency_ns)


def test_every_energy_of_the_machine_reaches_the_report():
    table = tilings(CROWDED, ENVISION)
    design, stats = as_design(ENVISION, table, random_choice(CROWDED, ENVISION, table, np.random.default_rng(2)))
    slopes = jax.grad(lambda m: evaluate(CROWDED, m, design, stats, period_ns=1e9).total_energy_pj)(ENVISION)
    pricing = {
        "busy": slopes.datapath.busy_pj, "control": slopes.datapath.control_pj, "idle": slopes.datapath.idle_share,
        "guarded": slopes.datapath.guarded_share, "access": slopes.buffer.access_pj,
        "dram": slopes.dram.access_pj_per_bit, "leakage": slopes.supply.leakage_mw,
    }  # fmt: skip
    assert {name for name, slope in pricing.items() if not slope > 0} == set()


def test_a_relaxed_report_between_two_rows_is_their_mean_when_everything_fits():
    workload, table = WORKLOADS[0], tilings(WORKLOADS[0], ENVISION)
    rng = np.random.default_rng(6)
    choice = random_choice(workload, ENVISION, table, rng)
    rows = [[0, 0, 0], [3, 5, 2]]
    designs = [as_design(ENVISION, table, choice | {"row": r}) for r in rows]
    stats = designs[0][1]
    mean = dataclasses.replace(designs[0][0], tiling=0.5 * (designs[0][0].tiling + designs[1][0].tiling))
    ends = [evaluate(workload, ENVISION, d, stats) for d, _ in designs]
    middle = evaluate(workload, ENVISION, mean, stats)
    for name in ("datapath", "sram_w", "sram_i", "sram_o", "control"):
        np.testing.assert_allclose(
            middle.energy_pj[name], 0.5 * (ends[0].energy_pj[name] + ends[1].energy_pj[name]), rtol=1e-12
        )


def test_pricing_compiles_once_for_all_designs_and_densities():
    traces = []
    table = tilings(CROWDED, ENVISION)

    @compiled_once
    def energy(design, stats):
        traces.append(1)
        return evaluate(CROWDED, ENVISION, design, stats).total_energy_pj

    rng = np.random.default_rng(8)
    for _ in range(3):
        energy(*as_design(ENVISION, table, random_choice(CROWDED, ENVISION, table, rng)))
    assert len(traces) == 1


def test_compile_time_does_not_grow_with_depth():
    def equations(layers):
        names = [f"l{i}" for i in range(layers)]
        inputs = [("input",)] + [(name,) for name in names[:-1]]
        chain = [dataclasses.replace(CROWDED.layers[1], name=n, inputs=i) for n, i in zip(names, inputs, strict=True)]
        workload = Workload("chain", tuple(chain), (names[-1],))
        table = tilings(workload, ENVISION)
        choice = random_choice(workload, ENVISION, table, np.random.default_rng(0))
        design, stats = as_design(ENVISION, table, choice)
        return len(jax.make_jaxpr(lambda d, s: evaluate(workload, ENVISION, d, s))(design, stats).eqns)

    assert equations(3) == equations(12)


def test_densities_default_to_one():
    table = tilings(CROWDED, ENVISION)
    design, _ = as_design(ENVISION, table, random_choice(CROWDED, ENVISION, table, np.random.default_rng(2)))
    ones = Stats(jnp.ones(5), jnp.ones(5))
    assert float(evaluate(CROWDED, ENVISION, design).total_energy_pj) == float(
        evaluate(CROWDED, ENVISION, design, ones).total_energy_pj
    )
