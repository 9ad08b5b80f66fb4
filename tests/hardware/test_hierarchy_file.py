"""Hierarchy files: the packaged ones, and one message for each fault of a user's."""

import dataclasses
import json
import math
import re

import jax
import jax.numpy as jnp
import pytest

from cooptim.hardware.hierarchy_file import (
    hierarchy_names,
    hierarchy_numbers,
    load_hierarchy,
    load_hierarchy_file,
)
from cooptim.hardware.load import MachineError, load_machine_file
from cooptim.hardware.reference import derived_energies

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


UNITS = {
    "edge_45nm": 256,
    "envision": 256,
    "eyeriss_like": 168,
    "gemmini": 256,
    "meta_prototype": 1024,
    "tpu_like": 1024,
}


@pytest.mark.parametrize("name", UNITS)
def test_packaged_hierarchies_load_with_a_source_for_every_number(name):
    assert hierarchy_names() == tuple(UNITS)
    machine, spec = load_hierarchy(name), load_hierarchy_file(name)
    numbers = hierarchy_numbers(spec)
    assert [m.name for m in machine.memories] == [m.name for m in spec.memories]
    assert machine.units == UNITS[name]
    assert sum(path.endswith(".width") for path in numbers) == sum(len(m.ports) for m in machine.memories)
    assert [path for path, q in numbers.items() if len(q.source) < 6] == []
    assert {"array.mac", f"memories.{machine.memories[0].name}.read"} < set(numbers)


def test_presets_are_those_of_the_golden_cases(shared):
    """ZigZag wrote the hardware of two golden cases; the packaged files state the same numbers."""
    cases = json.loads((shared / "golden" / "zigzag" / "cases.json").read_text())["cases"]
    for name in ("tpu_like", "eyeriss_like"):
        stated = next(c["hardware"] for c in cases if c["id"].startswith(name))
        machine = load_hierarchy(name)
        assert dict(machine.array) == stated["array_dims"]
        assert machine.mac_pj == stated["mac_energy_pj"]
        for memory, row in zip(machine.memories, stated["memories"], strict=True):
            stated_here = (memory.size_bits, memory.read_pj, memory.write_pj, set(memory.operands))
            assert stated_here == (
                *(row[k] for k in ("size_bits", "read_energy_pj", "write_energy_pj")),
                set(row["operands"]),
            )
            assert set(memory.served_dims) == set(row["served_dims"])
            for port, other in zip(memory.ports, row["ports"], strict=True):
                assert (port.bw_max_bits, port.bw_min_bits, set(port.serves)) == (
                    other["bw_max_bits"], other["bw_min_bits"], {tuple(pair) for pair in other["serves"]}
                )  # fmt: skip


def test_gemmini_has_the_word_energies_of_dosa_at_any_size(shared):
    model = json.loads((shared / "reference" / "dosa_baseline.json").read_text())["hardware_model"]
    words = model["energy_pJ_per_word_access"]
    machine = load_hierarchy("gemmini")
    register, bank, pad, dram = machine.memories
    assert machine.mac_pj == words["mac"]
    assert register.read_pj == register.write_pj == words["weight_register"]
    assert dram.read_pj == words["dram"] * dram.ports[0].bw_max_bits / 8
    for memory, name, word in ((bank, "accumulator", 32), (pad, "scratchpad", 8)):
        fixed, slope = (float(x) for x in re.findall(r"\d+\.\d+", words[name]))
        for size_kb in (1.0, 7.0, 128.0):
            sized = dataclasses.replace(memory, size_bits=size_kb * 8192)
            a_word = sized.read_pj * sized.access_scale() * word / memory.ports[0].bw_max_bits
            assert a_word == pytest.approx(fixed + slope * size_kb, rel=1e-8)


def test_envision_follows_from_the_machine_file():
    file, machine = load_machine_file("envision"), load_hierarchy("envision")
    energies, (_, _, sram, dram) = derived_energies(file.spec), machine.memories
    d, b = file.spec.datapath, file.spec.buffer
    assert machine.array == (("rows", d.rows.value), ("cols", d.cols.value))
    assert machine.clock_ghz == pytest.approx(file.reference.freq_ghz)
    assert machine.mac_pj * machine.units == pytest.approx(energies.busy_pj, rel=1e-9)
    words = sram.ports[0].bw_max_bits / b.word.value
    assert sram.read_pj == sram.write_pj == pytest.approx(words * energies.access_pj, rel=1e-9)
    assert sram.size_bits == b.size.value
    area = file.spec.area.total.value * file.spec.area.memory_share.value
    assert sram.area_mm2_per_bit * sram.size_bits == pytest.approx(area)
    leaks = energies.leakage_mw * file.spec.supply.memory_leakage_share.value
    assert sram.leakage_mw_per_bit * sram.size_bits == pytest.approx(leaks)
    link = dram.ports[0].bw_max_bits
    assert link * machine.clock_ghz == pytest.approx(file.spec.dram.bandwidth.value)
    assert dram.read_pj == pytest.approx(link * file.spec.dram.access.value)


def test_a_table_of_energies_is_followed_linearly_and_has_a_gradient(written):
    rows = "".join(
        f"      - {{size: {{value: {kb}, unit: kB, {ASSUMED}}}, read: {{value: {pj}, unit: pJ, {ASSUMED}}}}}\n"
        for kb, pj in ((1, 3), (4, 9), (16, 21))
    )
    sram = load_hierarchy(written(SMALL.replace("    ports:", f"    table:\n{rows}    ports:", 1))).memories[0]
    # 2 kB lies a third of the way from 3 to 9 pJ: 5; `at` 8 kB a third of the way from 9 to 21: 13.
    assert sram.access_scale() == pytest.approx(5 / 13)

    def scale(size_bits):
        return dataclasses.replace(sram, size_bits=size_bits).access_scale()

    slope = jax.grad(scale)(jnp.asarray(2 * 8192.0))
    assert float(slope) == pytest.approx(6 / (3 * 8192) / 13)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("kind: read_write", "kind: read", "port rw is a read port and serves write_from_high; legal: a write port"),
        ("serves: [D1]", "serves: [D2]", "array dimension 'D2' is unknown; legal: D1"),
        ("value: 2, unit: kB", "value: -2, unit: kB", "memories[0].size: .*legal: a finite number above 0"),
        ("unit: fJ", "unit: bit", "array.mac: .*legal: fJ, pJ"),
        ("name: small", "name: small\nname: twice", "name"),
        ("title:", "titel:", "title"),
        ("[W, read_to_low], [W, write", "[X, read_to_low], [W, write", "X, read_to_low.; legal: W, I or O"),
        ("value: 16, unit: bit", "value: 128, unit: bit", "granule 128 bit above its width 64 bit"),
        ("value: 16, unit: bit", "value: 0.5, unit: bit", r"memories[0].ports[0].granule: .*legal: a whole number"),
        ("kind: read_write", "kind: readwrite", r"memories[0].ports[0].kind: .*legal: 'read', 'write' or 'read_write'"),
        (
            "[W, read_to_low], [W, write_from_high]",
            "[W, read_to_low], [W, read_to_high]",
            "W moves only towards the MACs",
        ),
        (
            "[[W, read_to_low], ",
            "[[W, read_to_low], [W, read_to_low], ",
            r"[W, read_to_low] more than once; legal: each",
        ),
        ("operands: [W, I, O]", "operands: [W, I]", "port rw serves O, which it does not hold; legal: W, I"),
        ("operands: [W, I, O]", "operands: [W, I, O, O]", "operands: O more than once"),
        ("operands: [W, I, O]", "operands: [W, I, P]", r"memories[0].operands[2]: found 'P'"),
        ("serves: [D1]", "serves: [D1, D1]", "memory sram: serves: D1 more than once"),
        ("systolic: [D1]", "systolic: [D2]", "array.systolic: array dimension 'D2' is unknown; legal: D1"),
        ('value: 4, unit: "1"', 'value: 4.5, unit: "1"', r"array.dims[0].size: .*whole"),
        (
            "    size: {value: 2, unit: kB",
            "    min_size: {value: 3, unit: kB, assumed: true, source: s}\n    size: {value: 2, unit: kB",
            "min_size, size, max_size 24576, 16384 bit; legal: min <= size <= max",
        ),
        ("    size:", "    kilobytes:", r"memories[0].kilobytes: unknown field"),
        (f"    size: {{value: 2, unit: kB, {ASSUMED}}}\n", "", "memory sram: at without size; legal: a size, or none"),
        ("name: dram", "name: sram", "memories: sram more than once"),
        ("schema_version: 1", "schema_version: 2", "schema_version 2; legal: 1"),
        ("value: 4, unit: pJ, assumed: true", "value: 4, unit: pJ", r"memories[0].read.assumed: missing"),
        ('source: "a test"', 'source: ""', "array.dims[0].size.source"),
    ],
)
def test_a_fault_is_one_message_with_file_field_and_what_is_legal(written, old, new, says):
    assert old in SMALL
    with pytest.raises(MachineError, match=re.sub(r"\[(\d|W, \w+)\]", r"\\[\1\\]", says)) as caught:
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
    with pytest.raises(MachineError, match=r"'nowhere'.*envision, eyeriss_like, gemmini, meta_prototype, tpu_like"):
        load_hierarchy("nowhere")


def _with_table(rows, **more):
    body = "".join(
        f"      - {{size: {{value: {kb}, unit: kB, {ASSUMED}}}, read: {{value: 1, unit: pJ, {ASSUMED}}}}}\n"
        for kb in rows
    )
    extra = "".join(
        f"    {name}: {{value: {value}, unit: {unit}, {ASSUMED}}}\n" for name, (value, unit) in more.items()
    )
    return SMALL.replace("    ports:", f"{extra}    table:\n{body}    ports:", 1)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (_with_table((8, 1)), "memory sram: table sizes 65536, 8192 bit; legal: rising"),
        (
            _with_table((4, 16)),
            "memory sram: size 16384 bit outside its table; legal: 32768 to 131072 bit, or more rows",
        ),
        (_with_table((1, 16), max_size=(32, "kB")), "memory sram: max_size 262144 bit outside its table"),
        (_with_table((1, 16), size_exponent=(0.5, '"1"')), "size_exponent beside table; legal: one law"),
        (_with_table((1,)), "table.*at least 2"),
    ],
)
def test_a_table_that_cannot_be_followed_is_refused(written, text, says):
    with pytest.raises(MachineError, match=says) as caught:
        load_hierarchy(written(text))
    assert "small.yaml" in str(caught.value)
