import csv

import pytest

from cooptim.hardware.load import load_machine_file
from cooptim.validate import envision_rows


@pytest.fixture(scope="module")
def rows():
    return {row.name: row for row in envision_rows()}


def test_every_checked_figure_of_envision_holds(rows):
    checked = [row for row in rows.values() if row.tolerance is not None]
    assert len(checked) == 6 and [row.name for row in checked if not row.holds] == []
    assert all(row.tolerance <= 0.05 and row.source and row.unit for row in checked)


def test_published_ratios_are_those_of_the_reference_table(rows, shared):
    with open(shared / "reference" / "envision_modes.csv", newline="") as file:
        table = {row["id"]: row for row in csv.DictReader(file)}
    wide, narrow = table["env_1x16_ct"], table["env_4x4_ct"]
    assert wide["verified"] == narrow["verified"] == "yes"
    ratio = float(wide["power_mw"]) / float(narrow["power_mw"])
    assert rows["1x16b over 4x4b power at 76 GOPS"].published == pytest.approx(ratio)
    for name, key in (
        ("DAS over DVAFS power, 4 bit at 76 GOPS", "env_gain_DVAFS_over_DAS_4x4b"),
        ("DVAS over DVAFS power, 4 bit at 76 GOPS", "env_gain_DVAFS_over_DVAS_4x4b"),
    ):
        assert table[key]["verified"] == "yes" and rows[name].published == float(table[key]["value"])


def test_what_was_not_published_is_an_interval_and_not_checked(rows):
    row = rows["power of 2x8b at 100 MHz"]
    assert row.published is None and row.holds is None
    assert row.low < row.model <= row.high
    # Two lanes of 8 bit at half the clock lie between the published powers of one and four lanes.
    assert 18.0 < row.low and row.high < 300.0


def test_a_machine_that_is_off_does_not_hold():
    file = load_machine_file("envision").with_values(reference__shares__datapath=0.4)
    assert [row.name for row in envision_rows(file) if row.holds is False]
