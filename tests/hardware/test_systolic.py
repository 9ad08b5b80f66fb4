"""Systolic arrays as machine files: energies of the sources, what excludes them, other sizes by name."""

import importlib.resources

import pytest

from cooptim.hardware import MachineError, load_machine, load_machine_file
from cooptim.hardware.reference import peak_gops
from cooptim.hardware.schema import MachineSchema
from cooptim.hardware.written import as_written

TEXT = (importlib.resources.files("cooptim.hardware") / "machines" / "systolic.yaml").read_text()


def energies(machine):
    """Energy of a MAC, a buffer word, a sum in the accumulators, and of control for a MAC and cycle [pJ]."""
    d, macs = machine.datapath, machine.datapath.rows * machine.datapath.cols
    found = d.busy_pj / macs, machine.buffer.access_pj, d.systolic.sum_pj, d.control_pj / macs
    return [float(x) for x in found]


def test_gemmini_has_the_energies_of_dosa():
    # energy_model.py: MAC 0.5608, register 0.48746172; 0.49 + 0.02513 x 256 kB a word; 1.94 + 0.1005 x 64 kB / 16 a sum
    *found, _ = energies(load_machine("gemmini"))
    assert found == pytest.approx([0.5608 + 0.48746172, 0.49 + 0.02513 * 256, 1.94 + 0.1005 * 4], rel=1e-9)


def test_the_systolic_array_has_the_energies_of_single_operations():
    # Horowitz: product of 8 bit 0.2, sum of 32 bit 0.1; 64 bit of 1 MB for 100, of 8 kB for 10
    *found, _ = energies(load_machine("systolic"))
    assert found == pytest.approx([0.2 + 0.1, 100 / 8, 10 / 2], rel=1e-9)


def test_tpu_has_the_peak_of_its_paper():
    file = load_machine_file("tpu_v1")
    assert file.machine.datapath.rows * file.machine.datapath.cols == 65536
    assert peak_gops(file.machine)["1x8b"] == pytest.approx(92e3, rel=0.005)
    held = file.machine.buffer.size_bits + 256 * file.machine.datapath.systolic.accumulators * 32
    assert float(held) == 28 * 2**20 * 8 and file.spec.illustrative


@pytest.mark.parametrize("size", [(256, 64), (3, 5), (1, 1)])
def test_another_size_costs_the_same_a_mac_a_word_and_a_sum(size):
    own, file = load_machine("systolic"), load_machine_file(f"systolic@{size[0]}x{size[1]}")
    other = file.machine
    assert (other.datapath.rows, other.datapath.cols, other.name) == (*size, "systolic_{}x{}".format(*size))
    assert energies(other) == pytest.approx(energies(own), rel=1e-9)
    macs = size[0] * size[1] / 1024
    # 6 mm2 of which 0.7 are memory; 0.9 of the leakage is the memory's
    assert float(other.area.logic_mm2) == pytest.approx(6 * 0.3 * macs)
    assert float(other.area.memory_mm2_per_bit) == pytest.approx(6 * 0.7 / 2**23)
    assert float(other.supply.leakage_mw / own.supply.leakage_mw) == pytest.approx(0.9 + 0.1 * macs)
    assert float(other.supply.leakage_mw * other.supply.memory_leakage_share) == pytest.approx(
        0.9 * float(own.supply.leakage_mw)
    )
    MachineSchema.model_validate(as_written(file.spec))  # every check of a file, the shares' among them


def test_a_chip_of_another_size_is_checked_by_no_silicon():
    file = load_machine_file("envision@8x32")
    own = load_machine("envision")
    assert file.spec.illustrative and file.spec.chip.peak is None
    assert float(file.machine.datapath.busy_pj) == pytest.approx(float(own.datapath.busy_pj))  # 256 MACs again
    assert float(file.machine.buffer.access_pj) == pytest.approx(float(own.buffer.access_pj))
    assert file.numbers["datapath.rows"].assumed and "scaled from 16x16" in file.numbers["reference.power"].source


@pytest.mark.parametrize("name", ["systolic@0x4", "systolic@4", "nobody@4x4"])
def test_a_size_or_name_that_is_none_is_refused(name):
    with pytest.raises(MachineError, match="NAME@ROWSxCOLS for another array, or one of cnvlutin.* systolic"):
        load_machine(name)


REFUSED = {
    "a stream": ("input_shift: {value: false", "input_shift: {value: true", "buffer.input_shift: true .*legal: false"),
    "a layer": (
        "C: {value: 64",
        "C: {value: 65",
        "reference.layer: .*C x FY x FX multiple of 32, K of 32, OX at most 2048",
    ),
    "depth": ("OX: {value: 256", "OX: {value: 2049", "OX at most 2048"),
    "taps": ("taps: {value: rows", "taps: {value: both", "datapath.systolic.taps.*'both'; legal: rows, steps"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_what_an_array_cannot_have_is_named_with_its_path(tmp_path, fault):
    old, new, message = REFUSED[fault]
    assert TEXT.count(old) == 1
    path = tmp_path / "mine.yaml"
    path.write_text(TEXT.replace(old, new).replace("interval: [64, 2048]", "interval: [64, 4096]"))
    with pytest.raises(MachineError, match=message):
        load_machine(path)


def test_mechanisms_that_break_the_lock_step_are_named(tmp_path):
    skipping = """
mechanisms:
  zero_gating:
    operands: {value: both, assumed: true, source: test}
  zero_skipping:
    operands: {value: I, assumed: true, source: test}
    common: {value: none, assumed: true, source: test}
    lanes: {value: 4, unit: "1", assumed: true, source: test}
    words: {value: 4, unit: "1", assumed: true, source: test}
    offset: {value: 4, unit: bit, assumed: true, source: test}
"""
    path = tmp_path / "mine.yaml"
    path.write_text(TEXT + skipping)
    with pytest.raises(
        MachineError, match=r"mechanisms.zero_skipping together with datapath.systolic; legal: one of them"
    ):
        load_machine(path)
