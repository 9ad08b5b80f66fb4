"""Machine files: what is read, what is refused and how it says so."""

import importlib.resources
import math

import jax
import jax.numpy as jnp
import pytest

from cooptim.hardware import MachineError, load_machine, load_machine_file, machine_names

TEXT = (importlib.resources.files("cooptim.hardware") / "machines" / "envision.yaml").read_text()


def _line(start):
    return next(line for line in TEXT.splitlines() if line.strip().startswith(start))


def _changed(tmp_path, old, new):
    assert TEXT.count(old) == 1, old
    path = tmp_path / "mine.yaml"
    path.write_text(TEXT.replace(old, new))
    return path


def test_the_package_lists_its_machines_by_name():
    found = machine_names()
    assert list(found) == sorted(set(found)) and {"dvafs_sized", "envision", "yodann", "isaac"} <= set(found)


def test_envision_holds_the_published_constants_in_coherent_units():
    machine = load_machine("envision")
    assert (machine.datapath.rows, machine.datapath.cols, machine.datapath.width_bits) == (16, 16, 16)
    assert [(m.name, m.lanes, m.slot_bits) for m in machine.modes] == [("1x16b", 1, 16), ("2x8b", 2, 8), ("4x4b", 4, 4)]
    assert float(machine.buffer.size_bits) == 128 * 1024 * 8
    assert float(machine.supply.nominal_ghz) == pytest.approx(0.2)
    assert float(machine.dram.access_pj_per_bit) == pytest.approx(1300 / 64)
    area = machine.area.logic_mm2 + machine.area.memory_mm2_per_bit * machine.buffer.size_bits
    assert float(area) == pytest.approx(1.87)
    assert not machine.buffer.free


@pytest.mark.float32
def test_leaves_take_the_default_float_type():
    assert {leaf.dtype for leaf in jax.tree.leaves(load_machine("envision"))} == {jnp.dtype("float32")}


def test_a_machine_is_a_pytree_whose_leaves_can_be_swept():
    machine = load_machine("envision")
    doubled = jax.tree.map(lambda x: 2 * x, machine)
    assert float(doubled.supply.floor_v) == 2 * float(machine.supply.floor_v)
    assert doubled.modes == machine.modes


def test_every_number_has_a_source_and_every_assumption_an_interval():
    numbers = load_machine_file("envision").numbers
    assert len(numbers) > 30
    assert [path for path, q in numbers.items() if not q.source.strip()] == []
    fixed = {"reference.layer.K"}  # follows from the array
    without = {path for path, q in numbers.items() if q.assumed and q.interval is None}
    assert without == fixed


def test_numbers_stated_as_facts_are_verified_in_the_reference_data(shared):
    rows = (shared / "reference" / "envision_modes.csv").read_text().splitlines()
    verified = {line.split(",")[0] for line in rows if ",yes," in line}
    file = load_machine_file("envision")
    facts = {path: q.value for path, q in file.numbers.items() if not q.assumed}
    assert facts["datapath.rows"] == 16 and "env_array_rows" in verified
    assert facts["datapath.cols"] == 16 and "env_array_cols" in verified
    assert facts["buffer.size"] == 128 * 8192 and "env_sram_kb" in verified
    assert facts["area.total"] == 1.87 and "env_area_mm2" in verified
    assert facts["reference.power"] == 300 and "env_1x16_ct" in verified
    assert 4 ** facts["datapath.gating_exponent"] == pytest.approx(12.5) and "dvafs_k1_4b" in verified
    assert 4 ** facts["datapath.subword_exponent"] == pytest.approx(3.2) and "dvafs_k3_4b" in verified
    assert "supply.nominal_v" not in facts and "env_vdd_16b_200MHz" not in verified


def test_the_sized_machine_differs_from_envision_in_the_buffer_only():
    sized, made = (load_machine_file(name) for name in ("dvafs_sized", "envision"))
    differs = {path for path in made.numbers if made.numbers[path].value != sized.numbers[path].value}
    assert differs == {"buffer.min_size", "buffer.max_size"}
    assert sized.machine.buffer.free and sized.spec.illustrative and not made.spec.illustrative


VOLT = _line("floor_v").strip()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("floor_v: {value: 0.59, unit: V", "floor_v: {value: 0.59, unit: pJ", ("supply.floor_v", "pJ", "mV, V")),
        ("floor_v: {value: 0.59, unit: V", "floor_v: {value: -0.59, unit: V", ("supply.floor_v", "-0.59", "above 0")),
        ("floor_v: {value: 0.59, unit: V", "floor_v: {value: .nan, unit: V", ("floor_v", "'.nan' (text)", "number")),
        ("floor_v: {value: 0.59, unit: V", "floor_v: {value: 010, unit: V", ("floor_v", "'010' (text)", "number")),
        ("floor_v: {value: 0.59, unit: V", "floor_v: {value: true, unit: V", ("supply.floor_v", "True", "number")),
        ("floor_v: {value: 0.59, unit: V", "floor_v: {value: '0.59', unit: V", ("supply.floor_v", "'0.59' (text)")),
        ("floor_v: {value: 0.59,", "floor_v: {value: 0.5,", ("supply.floor_v", "0.5", "interval")),
        ("floor_v: {value: 0.59,", "floor_v: {valu: 0.59,", ("supply.floor_v",)),
        ("  " + VOLT + "\n", "", ("supply.floor_v", "missing")),
        ("area:\n", "regions:\n", ("area", "missing")),
        ("supply:\n", "supply:\n  colour: {value: 1}\n", ("supply.colour", "unknown field")),
        ("leakage: {value: 0.01,", "leakage: {value: 0.02,", ("reference.shares", "1.01", "exactly 1")),
        ("lanes: {value: [1, 2, 4]", "lanes: {value: [1, 3]", ("lanes [1, 3]", "divisors")),
        ("retention_v: {value: 0.59, unit: V, interval: [0, 0.59]", "retention_v: {value: 0.9, unit: V",
         ("retention_v",)),
        ("threshold_v: {value: 0.5880, unit: V, interval: [0.46, 0.61]", "threshold_v: {value: 0.6, unit: V",
         ("supply", "threshold_v < floor_v")),
        ("schema_version: 1", "schema_version: 7", ("schema_version 7", "legal: 1")),
        ("rows: {value: 16,", "rows: {value: 16.5,", ("datapath.rows", "16.5", "whole")),
        ("  OX: {value: 64, unit: \"1\", interval: [16, 224]", "  OX: {value: 65, unit: \"1\"", ("does not fill",)),
        ("word: {value: 16,", "word: {value: 32,", ("buffer.word", "16 bit")),
    ],
)  # fmt: skip
def test_a_fault_names_file_field_finding_and_what_is_legal(tmp_path, old, new, said):
    path = _changed(tmp_path, old, new)
    with pytest.raises(MachineError) as caught:
        load_machine(path)
    message = str(caught.value)
    assert "mine.yaml" in message and "\n" not in message
    assert [part for part in said if part not in message] == [], message


def test_a_duplicate_key_is_refused(tmp_path):
    path = _changed(tmp_path, "title: Envision", "name: other\ntitle: Envision")
    with pytest.raises(MachineError, match="'name' a second time"):
        load_machine(path)


def test_an_unknown_machine_lists_the_known_ones():
    with pytest.raises(MachineError, match="dvafs_sized, dvas_40nm,.* envision"):
        load_machine("envison")


def test_a_sweep_moves_one_number_and_completes_the_shares():
    file = load_machine_file("envision").with_values(reference__shares__leakage=0.05, supply__alpha=1.2)
    assert float(file.machine.supply.alpha) == pytest.approx(1.2)
    assert float(file.machine.supply.leakage_mw) == pytest.approx(15.0)  # 0.05 of 300 mW
    shares = file.spec.reference.shares
    assert math.isclose(shares.control.value, 0.0564 - 0.04, abs_tol=1e-12)
    with pytest.raises(MachineError, match="no number 'supply.beta'"):
        file.with_values(supply__beta=1.0)
