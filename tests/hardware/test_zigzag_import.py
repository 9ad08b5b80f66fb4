import importlib.util
import os
import pathlib
import re
import subprocess
import sys

import pytest

from cooptim.hardware.hierarchy_file import load_hierarchy
from cooptim.hardware.load import MachineError
from cooptim.hardware.strict_yaml import read_strict, read_strict_list
from cooptim.hardware.zigzag import read_zigzag

# In the format of ZigZag's presets, oddities included: a key twice, Python's False, one direction on two ports.
TEXT = """
name: small

memories:
  reg_W:
    size: 64
    r_cost: 0.5
    w_cost: 1   # a comment
    area: 0
    latency: 1
    auto_cost_extraction: False
    operands: [I2]
    ports:
      - name: r_port_1
        type: read
        bandwidth_min: 8
        bandwidth_max: 8
        allocation:
          - I2, tl
      - name: w_port_1
        type: write
        bandwidth_min: 4
        bandwidth_max: 8
        allocation:
          - I2, fh
    served_dimensions: []

  sram:
    size: 8192
    r_cost: 10.5
    w_cost: 11.5
    area: 0
    latency: 1
    operands: [I1, O]
    ports:
      - fh: w_port_1
        tl: r_port_1
    ports:
      - name: r_port_1
        type: read
        bandwidth_min: 64
        bandwidth_max: 256
        allocation: ["I1, tl", "O, tl", "O, th"]
      - name: r_port_2
        type: read
        bandwidth_min: 64
        bandwidth_max: 128
        allocation: ["O, tl"]
      - name: w_port_1
        type: write
        bandwidth_min: 64
        bandwidth_max: 256
        allocation: ["O, fl", "I1, fh", "O, fh"]
    served_dimensions: [D1, D2]
    force_double_buffering: True

  dram:
    size: 10000000000
    r_cost: 700
    w_cost: 750
    area: 0
    latency: 1
    operands: [I1, I2, O]
    ports:
      - name: rw_port_1
        type: read_write
        bandwidth_min: 64
        bandwidth_max: 64
        allocation: ["I1, tl", "I2, tl", "O, tl", "O, fl"]
    served_dimensions: [D1, D2]

operational_array:
  input_precision: [8, 8]
  unit_energy: 0.04 # pJ
  unit_area: 1
  dimensions: [D1, D2]
  sizes: [4, 8]
  systolic_dimensions: [D2]
"""


@pytest.fixture
def written(tmp_path):
    """Writes a text as a hardware file."""

    def write(text=TEXT):
        path = tmp_path / "small.yaml"
        path.write_text(text)
        return path

    return write


def test_every_number_of_a_file_arrives(written):
    machine = read_zigzag(written())
    assert (machine.name, machine.array, machine.systolic_dims) == ("small", (("D1", 4), ("D2", 8)), ("D2",))
    assert (machine.mac_pj, machine.units) == (0.04, 32)
    register, sram, dram = machine.memories
    assert [memory.operands for memory in machine.memories] == [("W",), ("I", "O"), ("I", "W", "O")]
    assert [memory.served_dims for memory in machine.memories] == [(), ("D1", "D2"), ("D1", "D2")]
    assert [memory.size_bits for memory in machine.memories] == [64.0, 8192.0, 1e10]
    assert [(memory.read_pj, memory.write_pj) for memory in machine.memories] == [(0.5, 1), (10.5, 11.5), (700, 750)]
    assert [memory.double_buffered for memory in machine.memories] == ["room", "always", "room"]
    assert [float(memory.access_scale()) for memory in machine.memories] == [1.0, 1.0, 1.0]
    assert [(p.name, p.kind, p.bw_max_bits, p.bw_min_bits) for p in register.ports] == [
        ("r_port_1", "read", 8.0, 8.0), ("w_port_1", "write", 8.0, 4.0),
    ]  # fmt: skip
    assert dram.ports[0].serves == (
        ("I", "read_to_low"), ("W", "read_to_low"), ("O", "read_to_low"), ("O", "write_from_low"),
    )  # fmt: skip


def test_the_last_port_has_a_direction_and_operands_come_in_order(written):
    sram = read_zigzag(written()).memories[1]
    assert {port.name: port.serves for port in sram.ports} == {
        "r_port_1": (("I", "read_to_low"), ("O", "read_to_high")),
        "r_port_2": (("O", "read_to_low"),),
        "w_port_1": (("I", "write_from_high"), ("O", "write_from_low"), ("O", "write_from_high")),
    }
    assert sram.port("O", "read_to_low").bw_max_bits == 128.0


def test_a_port_that_another_leaves_without_work_is_none(written):
    text = TEXT.replace('allocation: ["I1, tl", "O, tl", "O, th"]', 'allocation: ["O, tl"]').replace(
        'allocation: ["O, tl"]\n      - name: w', 'allocation: ["I1, tl", "O, tl", "O, th"]\n      - name: w'
    )
    assert [port.name for port in read_zigzag(written(text)).memories[1].ports] == ["r_port_2", "w_port_1"]


def test_a_machine_by_path_may_be_a_file_of_zigzag(written):
    assert load_hierarchy(written()) == read_zigzag(written())


IMC = "  is_imc: True\n  imc_type: analog\n  adc_resolution: 8\n  bit_serial_precision: 2\n"
ODD = {
    "an analog in-memory array": (
        TEXT + IMC, (r"operational_array\.is_imc", r"in-memory-computing arrays \(analog\) are not supported")),
    "a bit-serial array": (TEXT + "  bit_serial_precision: 1\n", ("bit_serial_precision", "not supported")),
    "costs by CACTI": (TEXT.replace("extraction: False", "extraction: True"),
                       (r"memories\.reg_W\.auto_cost_extraction", "CACTI are not supported", "r_cost and w_cost")),
    "dataflows": (TEXT + "dataflows:\n  D1: [\"K, 4\"]\n", ("dataflows", "not supported", "remove")),
    "no cost": (TEXT.replace("    r_cost: 0.5\n", ""), (r"memories\.reg_W\.r_cost: missing", "pJ")),
    "no MAC energy": (TEXT.replace("  unit_energy: 0.04 # pJ\n", ""), (r"operational_array\.unit_energy: missing",)),
    "no size": (TEXT.replace("    size: 64\n", ""), (r"memories\.reg_W\.size: missing",)),
    "a size of a half": (TEXT.replace("size: 64\n", "size: 64.5\n"), (r"reg_W\.size: found float 64.5", "integer")),
    "an unknown field": (TEXT.replace("size: 64\n", "size: 64\n    banks: 2\n"), (r"reg_W\.banks: unknown field",)),
    "an unknown operand": (TEXT.replace("operands: [I2]", "operands: [W]"),
                           (r"operands\[0\]: found 'W'", "'I1', 'I2'")),
    "an operand that is not held": (TEXT.replace("- I2, tl", "- O, tl"),
                                    (r"reg_W\.r_port_1: 'O, tl'; legal: operands held here, I2",)),
    "a write on a read port": (TEXT.replace("- I2, tl", "- I2, fh"), ("'I2, fh' on a read port", "a write port")),
    "no port towards the MACs": (TEXT.replace("- I2, tl", "- I2, th"), ("reg_W: no port serves W read_to_low",)),
    "a granule above the width": (TEXT.replace("bandwidth_min: 4", "bandwidth_min: 16"),
                                  (r"reg_W\.w_port_1: bandwidth_min 16; legal: at most bandwidth_max 8",)),
    "an unknown dimension": (TEXT.replace("systolic_dimensions: [D2]", "systolic_dimensions: [D3]"),
                             ("systolic_dimensions: 'D3'", "D1, D2")),
    "a size too few": (TEXT.replace("sizes: [4, 8]", "sizes: [4]"),
                       ("dimensions D1, D2 of sizes", "one size for each")),
    "ports of one name": (TEXT.replace("name: r_port_2", "name: r_port_1"), ("ports: names r_port_1, r_port_1",)),
    "no YAML": ("name: [", ("not YAML",)),
    "an anchor": (TEXT.replace("[I2]", "&a [I2]"), ("anchor or alias",)),
}  # fmt: skip


@pytest.mark.parametrize("what", ODD)
def test_what_cannot_be_read_is_refused_by_name(written, what):
    text, parts = ODD[what]
    path = written(text)
    with pytest.raises(MachineError) as error:
        read_zigzag(path)
    assert str(error.value).startswith(f"{path}: ")
    assert [part for part in parts if not re.search(part, str(error.value))] == [], error.value


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(MachineError, match=r"none\.yaml: cannot be read \(No such file"):
        read_zigzag(tmp_path / "none.yaml")


def test_only_files_of_other_programs_may_have_a_key_twice():
    data = b"a: 1\na: 2\n"
    assert read_strict(data, last_of_equal_keys=True) == {"a": 2}
    with pytest.raises(ValueError, match="the key 'a' a second time"):
        read_strict(data)
    with pytest.raises(ValueError, match="the key 'a' a second time"):
        read_strict_list(b"- a: 1\n  a: 2\n")
    assert read_strict_list(b"- a: 1\n- b\n") == [{"a": 1}, "b"]
    with pytest.raises(ValueError, match="found dict at the top; this file is a list"):
        read_strict_list(data[:5])


def test_every_preset_of_zigzag_is_read_or_refused_by_name():
    python = sys.executable if importlib.util.find_spec("zigzag") else os.environ.get("COOPTIM_ZIGZAG_PYTHON")
    if python is None:
        pytest.skip("no zigzag-dse here; COOPTIM_ZIGZAG_PYTHON may name a Python that has it")
    where = "import importlib.util as u; print(u.find_spec('zigzag').origin)"
    origin = subprocess.run([python, "-c", where], capture_output=True, text=True, check=True).stdout.strip()
    files = sorted((pathlib.Path(origin).parent / "inputs" / "hardware").glob("*.yaml"))
    refused = []
    for path in files:
        try:
            assert read_zigzag(path).memories
        except MachineError as error:
            assert "not supported" in str(error)
            refused.append(path.stem)
    assert len(files) >= 11 and refused == ["aimc", "dimc"]
