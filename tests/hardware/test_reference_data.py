"""The reference point on stated data: coded words and waiting lanes count, and nothing moves without the statement."""

import importlib.resources

import pytest

from cooptim.hardware.load import MachineError, load_machine_file
from cooptim.hardware.load_imbalance import queued_cycles
from cooptim.hardware.reference import derived_energies, operating_power_mw, reference_point

FOLDER = importlib.resources.files("cooptim.hardware") / "machines"


def with_data(folder, name, section):
    before, after = (FOLDER / f"{name}.yaml").read_text().split("  shares:")
    (folder / "mine.yaml").write_text(f"{before}{section}  shares:{after}")
    return load_machine_file(folder / "mine.yaml")


def data(**values):
    lines = ["  data:"]
    for name, value in values.items():
        unit = "bit" if name.endswith("bits") else '"1"'
        lines.append(f'    {name}: {{value: {value}, unit: {unit}, assumed: false, source: "for a test"}}')
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("name", ["envision", "dvas_40nm"])
def test_dense_data_at_full_width_derive_what_a_file_without_data_does(tmp_path, name):
    file = with_data(tmp_path, name, data(weight_bits=16, input_bits=16, weight_density=1, input_density=1))
    own = load_machine_file(name)
    assert vars(derived_energies(file.spec)) == pytest.approx(vars(derived_energies(own.spec)), rel=1e-9)
    assert vars(file.reference) == pytest.approx(vars(own.reference), rel=1e-9)


def test_zeros_and_narrow_operands_at_the_reference_point_by_hand(tmp_path):
    # Envision gates zeros of both at 0.05; a quarter of the weights and half of the inputs are there, four bits wide.
    sparse = data(weight_bits=4, input_bits=4, weight_density=0.25, input_density=0.5)
    file = with_data(tmp_path, "envision", sparse)
    point, energies = file.reference, derived_energies(file.spec)
    assert point.active == pytest.approx(0.05 + 0.95 * 0.125) and point.waiting == pytest.approx(0.0)
    assert (point.sram_w, point.sram_i) == pytest.approx((16 * 0.25, 6 * 0.5)) and point.divisor == pytest.approx(12.5)
    busy = 76 / 102.4
    lanes = busy * point.active + (1 - busy) * 0.1
    assert energies.busy_pj == pytest.approx(0.6436 * 300 / 0.2 / lanes * 12.5)
    assert energies.access_pj == pytest.approx(0.29 * 1500 / (busy * (4 + 3 + 16 * 16 / 288)))
    mode = file.machine.modes[0]
    assert float(operating_power_mw(file.machine, point, mode, 4.0, 0.2, 1.03)) == pytest.approx(300, rel=1e-5)


def test_eie_counts_entries_pointers_and_waiting_lanes():
    file = load_machine_file("eie")
    point = reference_point(file.spec)
    # A column of 64 rows a lane at 0.11: entries with fillers, cycles of the slowest by the closed form (tested apart).
    d = 0.11
    entries = d * (64 + 0.89**16 * 48 + 0.89**32 * 32 + 0.89**48 * 16)
    cycles = float(queued_cycles(entries / 64, 64.0, 64, 8.0))
    assert point.active == pytest.approx(64 * d / cycles, rel=1e-5) and point.waiting == pytest.approx(1 - point.active)
    assert point.sram_w == pytest.approx(64 * (entries / 2 + 1) / cycles, rel=1e-5)  # half a word each, a pointer
    assert point.sram_i == pytest.approx(1 / cycles, rel=1e-5) and point.sram_o == pytest.approx(
        64 / 4096 / (0.29 * cycles / 64), rel=1e-5
    )
    assert point.extra_pj == pytest.approx(0.05 * 64 * entries / cycles, rel=1e-5)  # a look-up an entry, pointers none


def test_what_no_chip_can_have_worked_on_is_refused(tmp_path):
    wide = data(weight_bits=32, input_bits=16, weight_density=1, input_density=1)
    with pytest.raises(MachineError, match="reference.data.weight_bits: 32 bit; legal: at most the 16 bit"):
        with_data(tmp_path, "envision", wide)
    text = (FOLDER / "eie.yaml").read_text()  # indices of 4 bit, in a datapath of 16
    before = "weight_bits: {value: 4, unit: bit, interval: [4, 4]"
    assert text.count(before) == 1
    (tmp_path / "wide.yaml").write_text(text.replace(before, "weight_bits: {value: 5, unit: bit, interval: [4, 5]"))
    with pytest.raises(MachineError, match="data.weight_bits: 5 bit; legal: at most the 4 bit .*; state the width"):
        load_machine_file(tmp_path / "wide.yaml")
    nothing = data(weight_bits=16, input_bits=16, weight_density=0, input_density=1)
    with pytest.raises(MachineError, match="reference.data.weight_density: found .*0"):
        with_data(tmp_path, "envision", nothing)
    file = load_machine_file("eie").with_values(mechanisms__shared_weights__lookup=5.0)
    with pytest.raises(ValueError, match="eie: reference.shares.datapath: 0.2038 .* take .* legal: at least as much"):
        derived_energies(file.spec)
