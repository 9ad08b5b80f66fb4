"""The 40 nm multiplier by hand arithmetic and against what was published of it."""

import csv
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cooptim.hardware.circuit_file import load_multiplier
from cooptim.hardware.multiplier import lowest_supply_v, word_energy_pj
from cooptim.validate.multiplier import four_bit_supply_v, four_by_four_saving, multiplier_rows

PART = load_multiplier("dvafs_multiplier_40nm")


def test_energy_of_a_word_by_hand():
    # 2.63 pJ over 12.5 at 1x4b, over 3.2 x 4 at 4x4b, times the square of the supply over 1.1 V.
    assert float(word_energy_pj(PART, 1.0, 16.0, 1.1)) == pytest.approx(2.63)
    assert float(word_energy_pj(PART, 1.0, 4.0, 0.9)) == pytest.approx(2.63 / 12.5 * (0.9 / 1.1) ** 2)
    assert float(word_energy_pj(PART, 4.0, 4.0, 0.75)) == pytest.approx(2.63 / 12.8 * (0.75 / 1.1) ** 2)


def test_the_supply_reaches_its_clock_and_no_more():
    # Speed (V - Vt)^1.5 / V at the supply found, over that at 1.1 V, is the clock times the path left at 4 bit.
    volts, threshold = np.asarray(lowest_supply_v(PART, 4.0, np.array([0.5, 0.125]))), float(PART.threshold_v)
    speed = (volts - threshold) ** 1.5 / volts / ((1.1 - threshold) ** 1.5 / 1.1)
    path = 1 - 0.7443 * (1 - 4 / 16)
    assert speed == pytest.approx(np.array([1.0, 0.25]) * path)
    assert float(lowest_supply_v(PART, 16.0, 0.5)) == pytest.approx(1.1)


def test_published_supplies_are_met_within_three_percent():
    assert four_bit_supply_v(PART, 1) == pytest.approx(0.9, rel=0.03)
    assert four_bit_supply_v(PART, 4) == pytest.approx(0.75, rel=0.03)


def test_the_saving_exceeds_95_percent_as_printed():
    # At the published 0.75 V itself: 1 - 2.63 / 12.8 (0.75 / 1.1)^2 / 2.16 = 95.6 %.
    assert 95.0 < four_by_four_saving(PART) == pytest.approx(95.58, abs=0.1)


def test_rows_hold_and_are_those_of_the_reference_data(shared):
    with open(shared / "reference" / "envision_modes.csv", newline="") as file:
        table = {row["id"]: row for row in csv.DictReader(file)}
    rows = multiplier_rows()
    assert [row.holds for row in rows] == [True] * 5
    assert [row.note for row in rows] == ["input", "input", "fitted", "fitted", "predicted"]
    names = ("mul_nonscalable_16", "mul_dvafs_16", "mul_dvas_4", "mul_dvafs_4")
    keys = ("energy_pj_per_word", "energy_pj_per_word", "vdd_v", "vdd_v")
    for row, name, key in zip(rows[:4], names, keys, strict=True):
        assert table[name]["verified"] == "yes" and row.published == float(table[name][key])


def test_a_multiplier_without_shorter_paths_misses_its_supply():
    stiff = dataclasses.replace(PART, path_share=jnp.asarray(0.0))
    rows = {row.name: row for row in multiplier_rows(stiff)}
    assert rows["40 nm multiplier, supply of 1x4b at 500 MHz"].holds is False


@pytest.mark.parametrize("name", ["threshold_v", "alpha", "path_share", "supply_v", "clock_ghz", "bits", "freq"])
def test_the_gradient_of_the_supply_is_that_of_differences(name):
    start = {"bits": 6.0, "freq": 0.3} | {
        key: float(getattr(PART, key)) for key in ("threshold_v", "alpha", "path_share", "supply_v", "clock_ghz")
    }

    def volts(value):
        x = start | {name: value}
        fields = {key: jnp.asarray(x[key]) for key in x if key not in ("bits", "freq")}
        return lowest_supply_v(dataclasses.replace(PART, **fields), x["bits"], x["freq"])

    step = 1e-5 * start[name]
    slope = float((volts(start[name] + step) - volts(start[name] - step)) / (2 * step))
    assert slope != 0 and float(jax.jacfwd(volts)(start[name])) == pytest.approx(slope, rel=1e-6)


@pytest.mark.parametrize("name", ["gating_exponent", "subword_exponent", "word_pj", "supply_v", "bits", "volts"])
def test_the_gradient_of_the_energy_is_that_of_differences(name):
    start = {"bits": 5.0, "volts": 0.8} | {
        key: float(getattr(PART, key)) for key in ("gating_exponent", "subword_exponent", "word_pj", "supply_v")
    }

    def energy(value):
        x = start | {name: value}
        fields = {key: jnp.asarray(x[key]) for key in x if key not in ("bits", "volts")}
        return word_energy_pj(dataclasses.replace(PART, **fields), 2.0, x["bits"], x["volts"])

    step = 1e-5 * start[name]
    slope = float((energy(start[name] + step) - energy(start[name] - step)) / (2 * step))
    assert slope != 0 and float(jax.jacfwd(energy)(start[name])) == pytest.approx(slope, rel=1e-6)
