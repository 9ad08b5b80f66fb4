"""Hierarchy files: the packaged ones, and one message for each fault of a user's."""

import math

import pytest

from cooptim.hardware.hierarchy_file import hierarchy_names, load_hierarchy, load_hierarchy_file
from cooptim.hardware.load import MachineError

ASSUMED = 'assumed: true, source: "a test"'
SMALL = f"""\
schema_version: 1
name: small
title: "two levels"
illustrative: true
array:
  dims:
    - {{name: D1, size: {{value: 4, unit: "1", {ASSUMED}}}}}
  systolic: [D1]
  mac: {{value: 500, unit: fJ, {ASSUMED}}}
  clock: {{value: 200, unit: MHz, {ASSUMED}}}
memories:
  - name: sram
    operands: [W, I, O]
    serves: [D1]
    size: {{value: 2, unit: kB, {ASSUMED}}}
    at: {{value: 8, unit: kB, {ASSUMED}}}
    read: {{value: 4, unit: pJ, {ASSUMED}}}
    write: {{value: 6, unit: pJ, {ASSUMED}}}
    ports: &ports
      - name: rw
        kind: read_write
        width: {{value: 64, unit: bit, {ASSUMED}}}
        granule: {{value: 16, unit: bit, {ASSUMED}}}
        serves: [[W, read_to_low], [W, write_from_high], [I, read_to_low], [I, write_from_high],
                 [O, read_to_low], [O, write_from_low], [O, read_to_high], [O, write_from_high]]
  - name: dram
    operands: [W, I, O]
    serves: [D1]
    read: {{value: 1, unit: nJ, {ASSUMED}}}
    write: {{value: 1, unit: nJ, {ASSUMED}}}
    ports:
      - name: rw
        kind: read_write
        width: {{value: 64, unit: bit, {ASSUMED}}}
        granule: {{value: 64, unit: bit, {ASSUMED}}}
        serves: [[W, read_to_low], [I, read_to_low], [O, read_to_low], [O, write_from_low]]
""".replace("&ports", "")


@pytest.fixture
def written(tmp_path):
    def write(text):
        path = tmp_path / "small.yaml"
        path.write_text(text)
        return path

    return write


def test_numbers_come_in_coherent_units_and_energy_follows_the_square_root_of_size(written):
    machine = load_hierarchy(written(SMALL))
    sram, dram = machine.memories
    assert machine.mac_pj == 0.5
    assert machine.clock_ghz == pytest.approx(0.2)
    assert machine.units == 4
    assert machine.levels("O") == (0, 1)
    assert sram.size_bits == 2 * 8192
    assert sram.access_scale() == pytest.approx(0.5)  # a quarter of the size at which 4 pJ holds
    assert math.isinf(dram.size_bits)
    assert dram.read_pj == 1000.0
    assert dram.access_scale() == 1.0


@pytest.mark.parametrize("name", ["eyeriss_like", "meta_prototype", "tpu_like"])
def test_packaged_hierarchies_load_with_a_source_for_every_number(name):
    assert name in hierarchy_names()
    machine, spec = load_hierarchy(name), load_hierarchy_file(name)
    assert [m.name for m in machine.memories] == [m.name for m in spec.memories]
    assert all(m.read.source for m in spec.memories)
    assert machine.units == {"tpu_like": 1024, "eyeriss_like": 168, "meta_prototype": 1024}[name]


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("kind: read_write", "kind: read", "port rw is a read port and serves write_from_high; legal: a write port"),
        ("serves: [D1]", "serves: [D2]", "array dimension 'D2' is unknown; legal: D1"),
        ("value: 2, unit: kB", "value: -2, unit: kB", "memories[0].size: .*legal: a finite number above 0"),
        ("unit: fJ", "unit: bit", "array.mac: .*legal: fJ, pJ"),
        ("name: small", "name: small\nname: twice", "name"),
        ("title:", "titel:", "title"),
        ("[W, read_to_low], [W, write", "[X, read_to_low], [W, write", r"serves \[X, read_to_low\]; legal: W, I or O"),
        ("value: 16, unit: bit", "value: 128, unit: bit", "granule 128 bit above its width 64 bit"),
    ],
)
def test_a_fault_is_one_message_with_file_field_and_what_is_legal(written, old, new, says):
    assert old in SMALL
    with pytest.raises(MachineError, match=says.replace("[0]", r"\[0\]")) as caught:
        load_hierarchy(written(SMALL.replace(old, new, 1)))
    assert "small.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_operand_without_a_path_to_the_outermost_memory_is_refused(written):
    head, tail = SMALL.split("  - name: dram")
    tail = tail.replace("operands: [W, I, O]", "operands: [I, O]").replace("[W, read_to_low], ", "")
    with pytest.raises(MachineError, match="operand W has no path to the outermost memory; it lives in sram; list W"):
        load_hierarchy(written(head + "  - name: dram" + tail))


def test_a_port_that_is_missing_on_the_path_is_named(written):
    with pytest.raises(MachineError, match="memory sram: no port serves O write_from_high"):
        load_hierarchy(written(SMALL.replace(", [O, write_from_high]]", "]", 1)))


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(MachineError, match=r"'nowhere'.*eyeriss_like, meta_prototype, tpu_like"):
        load_hierarchy("nowhere")
