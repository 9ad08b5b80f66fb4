"""`cooptim size`, and what `cooptim map` says of residency and of the sets of even mappings."""

import json

import numpy as np
import pytest

from cooptim.export.chip_file import sized_file
from cooptim.export.mapping_file import read_mappings
from cooptim.hardware.chip import Chip, chip_area_mm2, chip_of, chip_ranges, with_chip
from cooptim.hardware.hierarchy_file import load_hierarchy, load_hierarchy_file
from cooptim.mapping.nest import nest_of
from cooptim.mapping.price import price

CSV = "layer,K,C,OY,OX,FY,FX\nconv1,8,4,6,6,3,3\nconv2,8,4,6,6,3,3\nfc,10,32,1,1,1,1\n"
SMALL = ("--machine", "gemmini", "--psum-bits", "32", "--starts", "2", "--steps", "30", "--sweeps", "1")


@pytest.fixture
def table(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.csv").write_text(CSV)
    return tmp_path


def test_a_chip_is_sized_written_and_read_back(run, table):
    """Energies and latencies are those of the written mappings on the written machine, leakage included."""
    code, said, _ = run("size", "--network", "net.csv", *SMALL, "--objective", "energy", "--out", "best")
    assert code == 0 and "times lower than on the chip of the file" in " ".join(said.split())
    record = json.loads((table / "best" / "chip.json").read_text())
    machine, numbers = load_hierarchy("best/chip.yaml"), record["built"]["numbers"]
    assert {m.name: m.size_bits for m in machine.memories if m.name in numbers} == numbers
    assert numbers["scratchpad"] < 256 * 8192  # smaller than in the file: cheaper an access
    mapped = read_mappings("best/net/mapping.json")
    energy = cycles = 0.0
    for layer in mapped.layers:
        found = price(nest_of(layer.name, layer.shape, layer.mapping, machine), layer.shape, machine)
        energy += layer.repeat * float(found.energy_pj)
        cycles += layer.repeat * float(found.cycles.total)
    network = record["built"]["networks"]["net"]
    assert network["latency_ns"] == pytest.approx(cycles, rel=1e-12)  # 1 GHz
    assert network["energy_pj"] == pytest.approx(energy + record["built"]["leakage_mw"] * cycles, rel=1e-12)
    assert record["built"]["log_cost"] == pytest.approx(np.log(network["energy_pj"]))
    assert record["built"]["log_cost"] < record["given"]["log_cost"]
    code, said, _ = run("map", "--mapping", "best/net/mapping.json")
    assert code == 0 and "your mappings beside the least" in said


def test_every_free_number_of_a_machine_file_is_replaced_and_keeps_its_law(tmp_path):
    """Energies of an access at the new sizes and widths are those of the machine with that chip."""
    edge = load_hierarchy("edge_45nm")
    ranges, chip = chip_ranges(edge), chip_of(edge)
    sized = Chip(
        {k: r.nearest(1.3 * chip.sides[k]) for k, r in ranges.sides.items()},
        {k: r.nearest(0.4 * chip.size_bits[k]) for k, r in ranges.size_bits.items()},
        {k: r.nearest(1.7 * chip.width_bits[k]) for k, r in ranges.width_bits.items()},
    )
    assert not set(sized.size_bits.values()) & set(chip.size_bits.values())
    path = tmp_path / "chip.yaml"
    path.write_text(sized_file("edge_45nm", sized))
    again, expected = load_hierarchy(path), with_chip(edge, sized)
    assert chip_of(again) == sized and chip_ranges(again) == ranges
    assert float(chip_area_mm2(again)) == pytest.approx(float(chip_area_mm2(expected)), rel=1e-12)
    for a, b in zip(again.memories, expected.memories, strict=True):
        for operand in a.operands:
            assert float(a.access_pj(operand, "read_to_low")) == float(b.access_pj(operand, "read_to_low"))
    sources = [m.size.source for m in load_hierarchy_file(path).memories if m.size is not None]
    assert set(sources) == {"chosen by cooptim size"}


def test_a_budget_that_no_chip_meets_ends_with_one(run, table):
    code, said, _ = run("size", "--network", "net.csv", *SMALL, "--latency", "1ns")
    assert code == 1 and "Budget of latency of net" in said and "BROKEN" in said


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--machine", "tpu_like"), "machine tpu_like: its file frees no number"),
        (("--network", "lenet5", "--weight", "resnet18=2"), "--weight resnet18=2: write NETWORK=NUMBER above 0; the"),
        (("--network", "lenet5", "--weight", "lenet5=0"), "--weight lenet5=0: write NETWORK=NUMBER above 0"),
        (("--area", "2mm"), "--area: "),
        (("--area", "0mm2"), "--area 0mm2: not above 0"),
        (("--starts", "0"), "--starts 0: legal: 1 or more"),
        (("--network", "lenet5", "--network", "lenet5"), "networks lenet5, lenet5: legal: one or more, each name once"),
        (("--network", "nothing"), "network 'nothing' is not known; legal are"),
        (("--weight-bits", "0"), "--weight-bits 0: not above 0"),
        (("--network", "lenet5", "--data", "digits"), "--data is the input of --model; give --model, or leave it out"),
        (("--input-shape", "8x8x1"), "--input-shape is the input of --model"),
    ],
)
def test_what_cannot_be_sized_is_refused_in_one_message(run, table, options, says):
    code, said, error = run("size", *options)
    assert (code, said) == (2, "") and error.count("\n") == 1
    assert error.startswith("cooptim size: ") and says in error


def test_residency_is_printed_beside_the_mappings_and_together_with_them(run, table):
    code, said, _ = run("map", "--network", "lenet5", "--machine", "tpu_like", "--residency")
    text = " ".join(said.split())
    assert code == 0 and "What stays on chip, beside these mappings" in text
    assert "maps stay in sram_2MB (2 MB), weights in rf_128B (128 B" in text
    row = next(line.split() for line in said.splitlines()[::-1] if line.strip().startswith("c3"))
    assert row[1:5] == ["100", "%", "100", "%"]  # input and output
    (table / "fc.csv").write_text("layer,K,C,OY,OX,FY,FX\nfc,10,32,1,1,1,1\n")
    code, said, _ = run("map", "--network", "fc.csv", "--machine", "gemmini", "--residency", "joint")
    assert code == 0 and "chosen together with the mappings" in said


def test_residency_of_a_mapping_file_is_refused(run, table):
    assert run("map", "--network", "net.csv", "--machine", "tpu_like", "--out", "best")[0] == 0
    code, _, error = run("map", "--mapping", "best/mapping.json", "--residency")
    assert code == 2 and "a mapping file does not say which layer feeds which; give --network or --model" in error


def test_sizes_of_the_sets_of_even_mappings(run, table):
    """The dense layer by hand: C 32 on 16 rows and 2 columns; K 10, two primes, over three slots; 27 stationarities."""
    code, said, _ = run("map", "--network", "net.csv", "--machine", "gemmini", "--psum-bits", "32", "--frontier")
    assert code == 0
    rows = [line.split() for line in said.splitlines() if line.strip().startswith("fc")]
    assert rows[0][1:3] == ["C16", "C2"]
    assert int(rows[1][1]) == 3 * 3 * 27 and 1 <= int(rows[1][3]) <= int(rows[1][2]) <= 243
