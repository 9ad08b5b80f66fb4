"""EIE as published: dense layers priced legally from its own memory, the power of its reference point, its figures."""

import csv

import numpy as np
import pytest

from cooptim.cost.report import COMPONENTS
from cooptim.design.legal import violations
from cooptim.design.space import DesignSpace
from cooptim.hardware.load import load_machine_file
from cooptim.mapping.frontier import tilings
from cooptim.validate.eie import alexnet_inputs, dense_layers, eie_rows, priced
from cooptim.workload import Workload

FILE = load_machine_file("eie")


@pytest.fixture(scope="module")
def alexnet():
    """Design and report of AlexNet's three layers at the data of the file's reference point."""
    return priced(FILE, dense_layers("alexnet"), 0.11, 0.29)


def test_figures_are_those_of_the_reference_table_and_hold(shared):
    rows = {row.name: row for row in eie_rows(FILE)}
    with open(shared / "reference" / "accelerators.csv", newline="") as file:
        (chip,) = [row for row in csv.DictReader(file) if row["name"] == "EIE 64PE"]
    with open(shared / "reference" / "claims.csv", newline="") as file:
        claims = {row["claim"]: row for row in csv.DictReader(file) if row["system"] == "EIE"}
    assert chip["verified"] == "yes" == claims["AlexNet FC frame rate"]["verified"]
    published = {name.split(", ")[1]: row.published for name, row in rows.items()}
    assert published["power"] == float(chip["power_mw"]) and published["area"] == float(chip["area_mm2"])
    assert published["throughput on the compressed network"] == float(chip["throughput_gops"])
    assert published["frames/s of AlexNet's dense layers"] == float(claims["AlexNet FC frame rate"]["value"])
    assert f"{published['frames/J of AlexNet FC7']:,.0f} frames/J" in chip["note"]
    assert all(row.holds for row in rows.values()) and FILE.spec.illustrative
    # What the counted times and the power say already is no second evidence.
    followed = [name for name, row in rows.items() if "follows from counted claims; not counted" in row.note]
    assert followed == ["EIE, frames/s of AlexNet's dense layers", "EIE, frames/J of AlexNet FC7"]


def test_the_reference_layer_draws_the_published_power_in_its_published_shares(alexnet):
    design, report = alexnet
    power = {name: float(report.energy_pj[name][1] / report.latency_ns[1]) for name in COMPONENTS}  # FC7
    on_chip = {name: value for name, value in power.items() if not name.startswith("dram")}
    assert sum(on_chip.values()) == pytest.approx(590, rel=1e-3)
    assert on_chip["sram_w"] + on_chip["sram_i"] + on_chip["sram_o"] == pytest.approx(0.5915 * 590, rel=2e-3)
    assert on_chip["datapath"] == pytest.approx(0.2038 * 590, rel=1e-3)
    assert on_chip["control"] + on_chip["leakage"] == pytest.approx(0.2047 * 590, rel=1e-3)


def test_alexnets_dense_layers_are_legal_and_stay_on_chip(alexnet):
    design, report = alexnet
    workload = dense_layers("alexnet")
    space = DesignSpace(workload, FILE.machine, tilings(workload, FILE.machine), (False,) * 3)
    assert violations(space, design) == [] and design.weight_bits.tolist() == [4.0] * 3
    assert report.resident_share.tolist() == [1.0] * 3 and not np.any(report.energy_pj["dram_w"])
    # Dense weights of eight bits, run and index, are 59 million bytes: no room.
    full = priced(FILE, workload, 1.0, 1.0)[1]
    assert np.all(full.resident_share[:2] < 0.5) and full.total_latency_ns > 50 * report.total_latency_ns


def test_the_largest_dense_layer_of_vgg16_is_legal_and_fits_by_itself():
    # The others have the shapes of AlexNet's. 103 million words at 0.04 are 6.4 million entries and 3.2 MB of pointers.
    whole = dense_layers("vgg16")
    assert [layer.bounds for layer in whole.layers[1:]] == [
        layer.bounds for layer in dense_layers("alexnet").layers[1:]
    ]
    alone = Workload("fc6", whole.layers[:1], ("fc6",), whole.input_words)
    design, report = priced(FILE, alone, 0.04, 0.2)
    space = DesignSpace(alone, FILE.machine, tilings(alone, FILE.machine), (False,))
    assert violations(space, design) == [] and float(report.resident_share[0]) == 1.0
    entries = 25088 * 64 * 0.04 * (64 + 0.96**16 * 48 + 0.96**32 * 32 + 0.96**48 * 16)
    assert 1.05 < float(report.latency_ns[0]) / (0.2 * entries / 64 / 0.8) < 1.12  # lanes wait


def test_inputs_are_as_many_as_the_theoretical_times_need():
    # 11.7 us of 64 lanes at 0.8 GHz over all entries of FC7 at 0.11, fillers after 16, 32 and 48 zeros.
    entries = 4096 * 64 * 0.11 * (64 + 0.89**16 * 48 + 0.89**32 * 32 + 0.89**48 * 16)
    assert alexnet_inputs(FILE, 0.11)[1] == pytest.approx(11.7e3 * 0.8 * 64 / entries)
    assert alexnet_inputs(FILE, 0.11)[2] == 1.0  # 1000 outputs at 0.11 have 1 % too few
    assert alexnet_inputs(FILE, 0.25)[2] == pytest.approx(8.9e3 * 0.8 * 64 / (4096 * 1000 * 0.25), rel=1e-6)
    # Runs of five bits: fillers after 32 zeros alone, so as many cycles take more inputs.
    longer = 4096 * 64 * 0.11 * (64 + 0.89**32 * 32)
    other = alexnet_inputs(FILE.with_values(mechanisms__link__run=5.0), 0.11)[1]
    assert other == pytest.approx(11.7e3 * 0.8 * 64 / longer)


def test_a_file_that_says_nothing_of_data_or_code_is_refused():
    with pytest.raises(ValueError, match=r"machine envision: without reference.data or mechanisms.link; legal: a var"):
        eie_rows(load_machine_file("envision"))
