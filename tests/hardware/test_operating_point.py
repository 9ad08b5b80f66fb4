"""DAS, DVAS and DVAFS at named widths: published anchors and hand arithmetic."""

import pytest

from cooptim.hardware import load_machine_file
from cooptim.hardware.circuit_file import load_multiplier
from cooptim.hardware.operating_point import TECHNIQUES, mode_for, multiplier_point, operating_point

FILE, PART = load_machine_file("envision"), load_multiplier("dvafs_multiplier_40nm")
MODES = FILE.machine.modes


def test_activity_clock_and_path_at_four_bits_by_hand():
    found = {t: operating_point(FILE, t, 4, 4) for t in TECHNIQUES}
    assert [float(found[t].activity) for t in TECHNIQUES] == pytest.approx([1 / 12.5, 1 / 12.5, 1 / 3.2])
    assert [float(found[t].freq_ghz) for t in TECHNIQUES] == pytest.approx([0.2, 0.2, 0.05])
    assert [float(found[t].path) for t in TECHNIQUES] == pytest.approx([1 - 0.7443 * 0.75] * 3)
    das, dvas, dvafs = (float(found[t].supply_v) for t in TECHNIQUES)
    assert das == pytest.approx(1.03) and 1.03 > dvas > dvafs > 0.59


def test_published_ratios_of_envision_within_three_percent():
    wide = operating_point(FILE, "DAS", 16, 16)
    das, dvas, dvafs = (float(operating_point(FILE, t, 4, 4).power_mw) for t in TECHNIQUES)
    assert float(wide.power_mw) == pytest.approx(300)
    assert float(wide.energy_pj) == pytest.approx(300 / 38.0)  # 76 GOPS are 38 MACs a nanosecond
    found = [300 / dvafs, das / dvafs, dvas / dvafs]
    assert found == pytest.approx([300 / 18, 6.9, 4.1], rel=0.03)


def test_each_operand_has_its_width():
    # W4A8: 2x8b under DVAFS; (8 / sqrt(4 * 8))^gating of its slot is left, and the wider operand sets the path.
    gating, subword = (FILE.numbers[f"datapath.{name}_exponent"].value for name in ("gating", "subword"))
    found = operating_point(FILE, "DVAFS", 4, 8)
    assert found.mode.name == "2x8b"
    assert float(found.activity) == pytest.approx(1 / (2**subword * (8 / 32**0.5) ** gating))
    assert float(found.path) == pytest.approx(1 - 0.7443 * 0.5)
    assert float(found.power_mw) == pytest.approx(float(operating_point(FILE, "DVAFS", 8, 4).power_mw))
    both, none = (float(operating_point(FILE, "DVAFS", bits, bits).power_mw) for bits in (4, 8))
    assert both < float(found.power_mw) < none


def test_each_technique_adds_to_the_one_before_at_every_width():
    for bits in range(1, 17):
        das, dvas, dvafs = (float(operating_point(FILE, t, bits, bits).energy_pj) for t in TECHNIQUES)
        assert das >= dvas * (1 - 1e-9) >= dvafs * (1 - 1e-8)


def test_the_multiplier_meets_its_published_supplies_and_energies():
    found = {t: multiplier_point(PART, MODES, t, 4, 4) for t in TECHNIQUES}
    assert float(found["DVAS"].supply_v) == pytest.approx(0.9, rel=0.03)
    assert float(found["DVAFS"].supply_v) == pytest.approx(0.75, rel=0.03)
    assert float(found["DAS"].energy_pj) == pytest.approx(2.63 / 12.5)
    volts = float(found["DVAFS"].supply_v)
    assert float(found["DVAFS"].energy_pj) == pytest.approx(2.63 / 12.8 * (volts / 1.1) ** 2)
    assert float(found["DAS"].power_mw) == pytest.approx(2.63 / 12.5 * 0.5)  # 500 million words a second


@pytest.mark.parametrize(
    ("technique", "bits", "message"),
    [
        ("DVS", (4, 4), r"machine envision: technique 'DVS'; legal: DAS, DVAS, DVAFS"),
        ("DVAFS", (17, 4), r"machine envision: weight width 17 bit; legal: 1 to 16, .*; narrow the operand"),
        ("DAS", (4, 0), r"machine envision: input width 0 bit; legal: 1 to 16"),
    ],
)
def test_what_the_machine_lacks_is_named_with_what_is_legal(technique, bits, message):
    with pytest.raises(ValueError, match=message):
        operating_point(FILE, technique, *bits)


def test_dvafs_takes_the_most_subwords_that_hold_the_operands():
    lanes = [mode_for(MODES, "DVAFS", bits, bits, 16, "envision").lanes for bits in (1, 4, 5, 8, 9, 16)]
    assert lanes == [4, 4, 2, 2, 1, 1]
    assert {mode_for(MODES, "DVAS", bits, bits, 16, "envision").lanes for bits in (1, 4, 16)} == {1}
