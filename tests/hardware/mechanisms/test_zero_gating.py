"""Zero gating of both operands, one or none, against arithmetic by hand."""

import numpy as np
import pytest

from cooptim.cost.bound import energy_bound_pj
from cooptim.cost.evaluate import evaluate
from cooptim.hardware import load_machine
from cooptim.mapping.frontier import tilings
from tests.cost.cases import DIGITS, as_design, random_choice
from tests.hardware.mechanisms.files import choice, with_mechanisms


def fixed(machine):
    """(table, choice) of one design."""
    table = tilings(DIGITS, machine)
    return table, random_choice(DIGITS, machine, table, np.random.default_rng(3))


def priced(machine, density_w, density_i):
    """The report of that design at these densities."""
    table, chosen = fixed(machine)
    densities = {"weight_density": [density_w] * 3, "input_density": [density_i] * 3}
    return evaluate(DIGITS, machine, *as_design(machine, table, chosen | densities), period_ns=1e7)


@pytest.fixture
def machines(tmp_path):
    def of(operands):
        return load_machine(with_mechanisms(tmp_path, {"zero_gating": {"operands": choice(operands)}}))

    return {operands: of(operands) for operands in ("both", "W", "I", "none")} | {"silent": load_machine("envision")}


def test_gating_both_is_what_a_silent_file_means(machines):
    said, silent = (priced(machines[name], 0.3, 0.6) for name in ("both", "silent"))
    for name, energy in silent.energy_pj.items():
        np.testing.assert_allclose(said.energy_pj[name], energy, rtol=1e-12, err_msg=name)
    assert float(said.total_latency_ns) == float(silent.total_latency_ns)


@pytest.mark.parametrize(("operands", "seen_w", "seen_i"), [("W", 0.3, 1.0), ("I", 1.0, 0.6), ("none", 1.0, 1.0)])
def test_zeros_of_an_operand_without_flags_cost_what_other_words_cost(machines, operands, seen_w, seen_i):
    # As if the operand had no zeros, on the array and on its side of the buffer; the link still codes them.
    found, dense = priced(machines[operands], 0.3, 0.6), priced(machines["silent"], seen_w, seen_i)
    np.testing.assert_allclose(found.energy_pj["datapath"], dense.energy_pj["datapath"], rtol=1e-12)
    gated = priced(machines["silent"], 0.3, 0.6)
    gated, machine = priced(machines["silent"], 0.3, 0.6), machines["silent"]
    table, chosen = fixed(machine)
    for operand, seen, density in (("w", seen_w, 0.3), ("i", seen_i, 0.6)):
        reads = getattr(table, f"sram_{operand}")[np.arange(3), chosen["row"], chosen["mode"]]
        scale = (np.array(chosen["supply_v"]) / float(machine.supply.nominal_v)) ** 2
        more = (seen - density if seen == 1.0 else 0.0) * reads * float(machine.buffer.access_pj) * scale
        name = f"sram_{operand}"
        np.testing.assert_allclose(found.energy_pj[name], gated.energy_pj[name] + more, rtol=1e-9)
        np.testing.assert_allclose(found.energy_pj[f"dram_{operand}"], gated.energy_pj[f"dram_{operand}"], rtol=1e-12)


@pytest.mark.parametrize("operands", ["both", "W", "I", "none"])
def test_the_bound_stays_below_at_every_density(machines, operands):
    machine = machines[operands]
    for density in (0.0, 0.5, 1.0):
        report = priced(machine, density, density)
        assert energy_bound_pj(DIGITS, machine, 1e7).bound_pj <= float(report.total_energy_pj)
