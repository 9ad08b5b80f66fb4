"""The figures of a report are the sums of its terms, standby included."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from cooptim.cost.evaluate import evaluate
from cooptim.cost.report import COMPONENTS, CostReport
from cooptim.mapping.frontier import tilings
from tests.cost.cases import DIGITS, MACHINES, as_design, random_choice


def test_a_report_adds_up_every_component_and_the_standby():
    layers = np.arange(1.0, 4.0)
    vectors = {f.name: jnp.ones(3) for f in dataclasses.fields(CostReport)}
    vectors |= {"switching_pj": 0.01 * layers, "switching_ns": 0.1 * layers}
    # powers of two: every subset has a sum of its own
    energy = {name: jnp.asarray(2.0**i * layers) for i, name in enumerate(COMPONENTS)}
    scalars = {"standby_pj": jnp.asarray(0.5), "area_mm2": jnp.asarray(1.0), "buffer_bits": jnp.asarray(1.0)}
    report = CostReport(**{**vectors, **scalars, "layer_names": ("a", "b", "c"), "energy_pj": energy})
    whole = 2.0 ** len(COMPONENTS) - 1
    np.testing.assert_allclose(report.layer_energy_pj, whole * layers)
    np.testing.assert_allclose(report.total_energy_pj, 6 * whole + 0.5 + 0.06, rtol=1e-12)
    np.testing.assert_allclose(report.total_latency_ns, 3 + 0.6, rtol=1e-12)
    free = dataclasses.replace(report, switching_pj=None, switching_ns=None)
    np.testing.assert_allclose([free.total_energy_pj, free.total_latency_ns], [6 * whole + 0.5, 3], rtol=1e-12)


def test_a_design_at_rest_and_at_work_spends_energy_in_every_term():
    machine = MACHINES["envision"]
    table = tilings(DIGITS, machine)
    choice = random_choice(DIGITS, machine, table, np.random.default_rng(3))
    dense = {"weight_density": [0.5] * 3, "input_density": [0.5] * 3}
    small = {**choice, **dense}
    report = evaluate(DIGITS, machine, *as_design(machine, table, small), period_ns=1e7)
    spent = {name: float(jnp.sum(report.energy_pj[name])) for name in COMPONENTS if not name.startswith("dram_w")}
    assert {name for name, energy in spent.items() if energy <= 0} == set()
    assert float(report.standby_pj) > 0  # 10 ms between inferences, far more than they take
