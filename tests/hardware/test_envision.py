"""Envision against its published powers."""

import csv

import numpy as np
import pytest

from cooptim.hardware import load_machine_file
from cooptim.hardware.reference import PUBLISHED, dvafs_ratios, operating_power_mw, sparse_gain

FILE = load_machine_file("envision")
MACHINE, POINT = FILE.machine, FILE.reference


def test_the_components_add_up_to_the_published_power_by_hand():
    # 300 mW at 200 MHz are 1500 pJ a cycle; 76 of 102.4 GOPS keep the lanes busy in 0.7421875 of the cycles.
    busy = 76 / 102.4
    lanes = float(MACHINE.datapath.busy_pj) * (busy + (1 - busy) * 0.1)
    words = 16 + (16 + 2) / 3 + 256 / (32 * 9)  # weights, inputs shifted along 3 taps, outputs after 288 cycles
    sram = float(MACHINE.buffer.access_pj) * words * busy
    control = float(MACHINE.datapath.control_pj)
    leakage = float(MACHINE.supply.leakage_mw)
    assert 0.2 * (lanes + sram + control) + leakage == pytest.approx(300, rel=1e-9)
    assert 0.2 * lanes == pytest.approx(0.6436 * 300) and 0.2 * sram == pytest.approx(87)
    power = operating_power_mw(MACHINE, POINT, MACHINE.modes[0], 16.0, 0.2, MACHINE.supply.nominal_v)
    assert float(power) == pytest.approx(300, rel=1e-9)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_dvafs_ratios_are_met_within_three_percent(name):
    assert float(dvafs_ratios(MACHINE, POINT)[name]) == pytest.approx(PUBLISHED[name], rel=0.03)


def test_published_ratios_are_those_of_the_reference_data(shared):
    rows = {r["id"]: r for r in csv.DictReader((shared / "reference" / "envision_modes.csv").open())}
    asserted = (
        "env_1x16_ct",
        "env_4x4_ct",
        "env_4x4_cf",
        "env_gain_DVAFS_over_DAS_4x4b",
        "env_gain_DVAFS_over_DVAS_4x4b",
    )
    assert all(rows[name]["verified"] == "yes" for name in asserted)
    full, low, fast = (float(rows[name]["power_mw"]) for name in asserted[:3])
    assert PUBLISHED["dvafs_over_16b"] == pytest.approx(full / low)
    assert PUBLISHED["dvafs_200_over_50_mhz"] == pytest.approx(fast / low, rel=0.01)
    assert PUBLISHED["dvafs_over_das"] == float(rows[asserted[3]]["value"])
    assert PUBLISHED["dvafs_over_dvas"] == float(rows[asserted[4]]["value"])


def test_the_published_sparse_gain_is_within_reach_of_the_gated_share():
    # 18 to 7.6 mW needs a gated share of 1 - 7.6/18 = 0.58 of the dense power when every operand is zero.
    gated = 1 - 1 / float(sparse_gain(MACHINE, POINT, 0.0, 0.0))
    assert gated > 1 - 7.6 / 18


def test_a_denser_network_never_gains_more():
    gains = [float(sparse_gain(MACHINE, POINT, d, d)) for d in np.linspace(0, 1, 11)]
    assert gains == sorted(gains, reverse=True) and gains[-1] == pytest.approx(1.0)


def test_two_subwords_lie_between_one_and_four():
    # 2x8b has no published power: only its order is claimed.
    one, two, four = (
        float(operating_power_mw(MACHINE, POINT, mode, mode.slot_bits, 0.2 / mode.lanes, 0.8)) for mode in MACHINE.modes
    )
    assert four < two < one
