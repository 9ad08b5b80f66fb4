"""`evaluate` against plain Python on random legal designs."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from cooptim.compile import compiled_once
from cooptim.cost.evaluate import evaluate
from cooptim.cost.report import COMPONENTS
from cooptim.hardware import Switching, load_machine
from cooptim.mapping.frontier import tilings
from tests.cost.cases import CROWDED, MACHINES, SYSTOLIC, WORKLOADS, as_design, random_choice
from tests.oracle import cost_oracle

GATED = dataclasses.replace(
    MACHINES["envision"],
    name="gated",
    supply=dataclasses.replace(MACHINES["envision"].supply, retention_v=jnp.array(0.0), fixed_share=jnp.array(0.2)),
    buffer=dataclasses.replace(MACHINES["envision"].buffer, double_buffered=True),
    dram=dataclasses.replace(MACHINES["envision"].dram, coded=False),
)  # power-gated between inferences, two rails, double buffers, raw link
RAILS = dataclasses.replace(
    MACHINES["dvafs_sized"],
    name="rails",
    supply=dataclasses.replace(
        MACHINES["dvafs_sized"].supply,
        fixed_share=jnp.array(0.3), fixed_v=jnp.array(0.9), fixed_leakage_share=jnp.array(0.4),
    ),
    switching=Switching(jnp.array(500.0), jnp.array(70.0), jnp.array(3.0)),
)  # fmt: skip


CASES = [(workload, machine) for workload in WORKLOADS for machine in (*MACHINES.values(), GATED)]
CASES += [(WORKLOADS[0], RAILS), (WORKLOADS[0], SYSTOLIC)]


@pytest.mark.parametrize(("workload", "machine"), CASES, ids=lambda x: x.name)
def test_random_legal_designs_cost_what_the_oracle_says(workload, machine):
    table = tilings(workload, machine)
    rng = np.random.default_rng(11)
    priced = compiled_once(lambda d, s, period: evaluate(workload, machine, d, s, period_ns=period))
    partly = {"resident": 0, "kept": 0}
    for i in range(60):
        choice = random_choice(workload, machine, table, rng)
        design, stats = as_design(machine, table, choice)
        busy = sum(cost_oracle.price(workload, machine, table, choice)["latency_ns"])
        period = busy * (0.9, 1.0, 1.7)[i % 3]
        report, expected = priced(design, stats, period), cost_oracle.price(workload, machine, table, choice, period)
        for name in COMPONENTS:
            np.testing.assert_allclose(report.energy_pj[name], expected["energy_pj"][name], rtol=1e-9, err_msg=name)
        np.testing.assert_allclose(report.latency_ns, expected["latency_ns"], rtol=1e-9)
        np.testing.assert_allclose(report.standby_pj, expected["standby_pj"], rtol=1e-6, atol=1e-6)
        if machine.switching is not None:
            made = np.stack([report.switching_pj, report.switching_ns], axis=1)
            np.testing.assert_allclose(made, expected["switching"], rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(report.resident_share, expected["resident"], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(report.kept_share, expected["kept"], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(report.buffer_demand_bits, expected["demand"], rtol=1e-9)
        for name in partly:
            partly[name] += any(0 < x < 1 for x in expected[name])
    if workload is CROWDED and machine is not GATED:
        assert partly["resident"] > 3 and partly["kept"] > 3, "the cases no longer crowd the buffer"


def test_without_a_period_nothing_is_charged_for_standing_by():
    workload, machine = WORKLOADS[0], MACHINES["envision"]
    table = tilings(workload, machine)
    choice = random_choice(workload, machine, table, np.random.default_rng(0))
    assert float(evaluate(workload, machine, *as_design(machine, table, choice)).standby_pj) == 0.0


@pytest.mark.float32
def test_float32_agrees_with_the_oracle_to_its_precision():
    workload, machine = CROWDED, load_machine("dvafs_sized")
    table = tilings(workload, machine)
    choice = random_choice(workload, machine, table, np.random.default_rng(5))
    report = compiled_once(lambda d, s: evaluate(workload, machine, d, s))(*as_design(machine, table, choice))
    expected = cost_oracle.price(workload, machine, table, choice)
    assert report.total_energy_pj.dtype == jnp.float32
    np.testing.assert_allclose(report.total_energy_pj, sum(map(sum, expected["energy_pj"].values())), rtol=1e-5)
    np.testing.assert_allclose(report.latency_ns, expected["latency_ns"], rtol=1e-5)


def test_a_design_of_another_table_is_refused_with_both_shapes():
    workload, machine = WORKLOADS[0], MACHINES["envision"]
    table = tilings(workload, machine)
    choice = random_choice(workload, machine, table, np.random.default_rng(0))
    design, stats = as_design(machine, table, choice)
    short = dataclasses.replace(design, tiling=design.tiling[:, :2])
    with pytest.raises(ValueError, match=r"tiling has shape \(3, 2\)"):
        evaluate(workload, machine, short, stats)
