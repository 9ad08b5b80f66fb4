"""Multipliers by table: the published savings, the line between them, tables to write, gradients."""

import csv
import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from cooptim.hardware.mechanisms import lut_multiplier
from cooptim.hardware.mechanisms.lut_multiplier import LutMultiplier, rebuild_word_pj, table_share

SAVINGS = {1: 0.536, 4: 0.41, 8: 0.272, 16: 0.231}


@pytest.fixture
def lut():
    return LutMultiplier(16, True, jnp.array([0.536, 0.41, 0.272, 0.231]), jnp.array(6.0), jnp.array(3.0))


def test_the_stated_widths_save_what_is_stated(lut):
    found = [float(1.0 - table_share(lut, float(bits))) for bits in SAVINGS]
    assert found == pytest.approx(list(SAVINGS.values()), abs=1e-12)


def test_savings_are_the_verified_row_of_the_reference_table(shared):
    with open(shared / "reference" / "memory_energy.csv", newline="") as file:
        (row,) = [row for row in csv.DictReader(file) if row["model"] == "DNPU/UNPU"]
    assert row["verified"] == "yes" and row["unit"] == "percent saved"
    widths = [int(x.removesuffix("b")) for x in row["size_or_width"].split("/")]
    assert dict(zip(widths, [float(x) / 100 for x in row["energy"].split("/")], strict=True)) == pytest.approx(SAVINGS)


def test_two_bits_are_half_way_from_one_to_four(lut):
    assert float(table_share(lut, 2.0)) == pytest.approx(1 - (0.536 + 0.41) / 2)
    assert float(table_share(lut, 32.0)) == pytest.approx(1 - 0.231)


def test_a_product_by_table_costs_more_the_wider_the_weight(lut):
    shares = np.asarray(table_share(lut, jnp.linspace(1.0, 16.0, 61)))
    assert np.all(np.diff(shares) > 0) and shares[-1] < 1


def test_a_table_is_shared_by_its_group(lut):
    assert float(rebuild_word_pj(lut)) == pytest.approx(2.0)


def test_the_effect_is_neutral_at_full_width_where_the_reference_has_tables(lut, datapath, point):
    measured = dataclasses.replace(lut, replaces=False)
    assert float(lut_multiplier.effect(measured, datapath(16), point(16.0, 16.0)).datapath) == pytest.approx(1.0)
    both = [lut_multiplier.effect(x, datapath(16), point(4.0, 16.0)) for x in (lut, measured)]
    assert float(both[0].datapath) == pytest.approx(0.59)
    assert float(both[1].datapath) == pytest.approx(0.59 / 0.769)
    assert float(both[0].entry_datapath_pj) == pytest.approx(2.0)


def test_gradients_are_those_of_differences(lut, gradients):
    def share(bits, saving_4b, saving_8b):
        saving = jnp.stack([lut.saving[0], saving_4b, saving_8b, lut.saving[3]])
        return table_share(dataclasses.replace(lut, saving=saving), bits)

    found, slopes = gradients(share, 5.3, 0.41, 0.272)
    assert np.all(np.abs(slopes) > 1e-3) and found == pytest.approx(slopes, rel=1e-6)
    cost = gradients(lambda pj, n: rebuild_word_pj(dataclasses.replace(lut, rebuild_pj=pj, group=n)), 6.0, 3.0)
    assert cost[0] == pytest.approx([1 / 3, -2 / 3]) and cost[1] == pytest.approx(cost[0], rel=1e-6)
