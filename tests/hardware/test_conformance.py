"""Every machine that comes with the package keeps the laws, and machines that break one are caught."""

import dataclasses

import jax.numpy as jnp
import pytest

from cooptim.hardware.circuit_file import circuit_names, load_circuit_file
from cooptim.hardware.hierarchy_file import load_hierarchy
from cooptim.hardware.load import load_machine_file, machine_names
from cooptim.hardware.quantity import coherent_unit
from cooptim.units import quantities
from cooptim.validate import conformance
from cooptim.validate.conformance import machine_laws
from cooptim.validate.conformance_small import circuit_laws, hierarchy_laws

SEARCHED = ("tpu_like",)  # one search of a small layer takes seconds; `machines check` holds any other


def broken(laws):
    return [f"{law.name}: {law.found}" for law in laws if not law.holds]


@pytest.mark.parametrize("name", machine_names())
def test_a_processor_keeps_every_law(name):
    laws = machine_laws(load_machine_file(name))
    assert len(laws) == 11 and broken(laws) == []


@pytest.mark.parametrize("name", SEARCHED)
def test_a_hierarchy_keeps_its_laws(name):
    assert broken(hierarchy_laws(load_hierarchy(name))) == []


@pytest.mark.parametrize("name", circuit_names())
def test_a_circuit_keeps_its_laws(name):
    assert broken(circuit_laws(load_circuit_file(name))) == []


def test_every_quantity_has_a_unit_that_changes_nothing():
    assert all(coherent_unit(name) for name in quantities())


def broken_of_envision(monkeypatch):
    """Names of the laws that Envision breaks; its legal designs, which no price changes, are not asked for again."""
    monkeypatch.setattr(conformance, "_legal_designs", lambda machine: conformance.Law("legal designs", True, ""))
    return {law.name for law in machine_laws(load_machine_file("envision")) if not law.holds}


def faulty(monkeypatch, change):
    """Laws that a faulty price breaks, by name; `change` maps a report and its arguments to another report."""
    right = conformance.evaluate

    def wrong(workload, machine, design, stats=None, **options):
        report = right(workload, machine, design, stats, **options)
        return dataclasses.replace(report, **change(report, machine, design))

    monkeypatch.setattr(conformance, "evaluate", wrong)
    return broken_of_envision(monkeypatch)


def test_a_price_that_falls_with_weight_bits_is_caught(monkeypatch):
    def cheaper(report, machine, design):
        return {"energy_pj": {name: part / design.weight_bits for name, part in report.energy_pj.items()}}

    assert faulty(monkeypatch, cheaper) == {"more weight bits never costs less"}


def test_zeros_that_save_nothing_are_caught_where_the_chip_gates_them(monkeypatch):
    right = conformance.evaluate
    monkeypatch.setattr(conformance, "evaluate", lambda w, m, d, stats=None, **options: right(w, m, d, **options))
    assert broken_of_envision(monkeypatch) == {
        "more weight density never costs less", "more input density never costs less",
        "every knob and energy has a gradient",
    }  # fmt: skip


def test_a_constant_that_no_energy_scales_and_a_dead_knob_are_caught(monkeypatch):
    def constant(report, machine, design):
        control = jnp.full_like(report.energy_pj["control"], 100.0)
        return {"energy_pj": {**report.energy_pj, "control": control}}

    assert faulty(monkeypatch, constant) == {
        "twice the energies is twice the report", "every knob and energy has a gradient"
    }  # fmt: skip


def test_a_gradient_that_is_no_number_is_caught(monkeypatch):
    def broken_root(report, machine, design):
        return {"area_mm2": report.area_mm2 + jnp.sqrt(jnp.maximum(report.area_mm2 - 1e9, 0.0))}

    assert "no gradient is NaN or infinite" in faulty(monkeypatch, broken_root)


def test_a_buffer_that_holds_no_tile_has_no_legal_design():
    file = load_machine_file("envision")
    tiny = {f"buffer__{name}": 64.0 for name in ("size", "min_size", "max_size")}
    law = conformance._legal_designs(file.with_values(**tiny).machine)
    assert law.name == "legal designs exist, and snapping is idempotent"
    assert not law.holds and "the buffer has 64" in law.found
