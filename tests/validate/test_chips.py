"""Chips of a few points: figures against the reference data, the model's by hand arithmetic."""

import csv

import pytest

from cooptim.hardware.load import load_machine_file
from cooptim.validate.chips import dvas_rows, simd_rows, yodann_rows


@pytest.fixture(scope="module")
def rows():
    return {row.name: row for row in (*yodann_rows(), *dvas_rows(), *simd_rows())}


def _verified(shared, table, /, **match):
    with open(shared / "reference" / table, newline="") as file:
        (row,) = [r for r in csv.DictReader(file) if all(r[k] == v for k, v in match.items())]
    assert row["verified"] == "yes"
    return row


def test_every_checked_figure_holds_and_has_a_source(rows):
    checked = [row for row in rows.values() if row.holds is not None]
    assert len(checked) == 9 and [row.name for row in checked if not row.holds] == []
    assert all(row.source and row.unit and row.note for row in rows.values())


def test_figures_of_yodann_are_those_of_the_reference_table(rows, shared):
    claims = {"peak throughput at 1.2 V": 1510, "power at 1.2 V": 153, "power at 0.6 V": 0.895}
    for claim, value in claims.items():
        assert float(_verified(shared, "claims.csv", system="YodaNN", claim=claim)["value"]) == value
        assert rows[f"YodaNN, {claim}"].published == value
    slow = _verified(shared, "accelerators.csv", name="YodaNN 0.6 V")
    assert float(slow["throughput_gops"]) == pytest.approx(rows["YodaNN, peak throughput at 0.6 V"].published, abs=0.05)
    assert float(slow["efficiency_tops_w"]) == rows["YodaNN, efficiency at 0.6 V"].published
    assert float(slow["area_mm2"]) == rows["YodaNN, core area"].published


def test_yodanns_power_falls_further_than_f_v_squared_and_the_row_says_so(rows):
    # By hand: 54.8 of 1510 GOPS at a quarter of V^2 is 110 times less, and 153 mW / 0.895 mW is 171.
    row = rows["YodaNN, power at 1.2 over 0.6 V"]
    assert row.published == pytest.approx(171, abs=0.1) and 1510 / 54.77 * 4 == pytest.approx(110, abs=0.5)
    assert 100 < row.model < 111 and row.error < -0.35 and row.holds is None and "not reproduced" in row.note
    # What leakage is left at 0.6 V comes on top of f V^2.
    file = load_machine_file("yodann").with_values(reference__shares__leakage=0.0)
    bare = next(row for row in yodann_rows(file) if row.name == "YodaNN, power at 1.2 over 0.6 V")
    clocks = rows["YodaNN, peak throughput at 1.2 V"].model / rows["YodaNN, peak throughput at 0.6 V"].model
    assert bare.model == pytest.approx(4 * clocks, rel=1e-5) and bare.model > row.model


def test_figures_of_the_dvas_processor_are_those_of_the_reference_table(rows, shared):
    span = _verified(shared, "vlsi16_layers.csv", layer="range (JSSC)")
    low, high = (float(x) for x in span["power_mw"].split("-"))
    least, most = (float(x) for x in span["efficiency_tops_w"].split("-"))
    assert rows["DVAS processor, lowest power"].published == low
    assert rows["DVAS processor, highest power"].published == high
    assert rows["DVAS processor, lowest efficiency"].published == least
    assert rows["DVAS processor, highest efficiency"].published == most
    peak = _verified(shared, "vlsi16_layers.csv", layer="peak")
    assert (float(peak["vdd_v"]), float(peak["f_mhz"])) == (1.1, 204.0)
    assert rows["DVAS processor, peak throughput"].model == pytest.approx(2 * 256 * 0.204)


def test_ends_at_unpublished_widths_hold_the_figure_and_are_called_uninformative(rows):
    for name in ("DVAS processor, lowest power", "DVAS processor, highest efficiency"):
        row = rows[name]
        assert row.low < row.published < row.high and row.high > 3 * row.low
        assert not row.informative and row.holds is None


def test_the_simd_processor_saves_what_its_split_allows(rows, shared):
    row = rows["SIMD processor, saving of 4x4b over 1x16b"]
    assert row.published == float(_verified(shared, "envision_modes.csv", id="simd_4x4")["value"])
    assert row.low < 85 < row.high and row.holds is None
    # By hand, all on one rail without leakage: a quarter of the clock, activity 3.2 times lower, V^2.
    volts = rows["SIMD processor, supply of 4x4b at 125 MHz"].model
    file = load_machine_file("simd_40nm").with_values(
        supply__fixed_share=0.0, reference__shares__leakage=0.0, reference__shares__datapath=0.5
    )
    found = next(row for row in simd_rows(file) if row.unit == "%")
    by_hand = (0.5 / 3.2 + 0.5) / 4 * (volts / 1.1) ** 2
    assert found.model == pytest.approx(100 * (1 - by_hand), rel=1e-6)


def test_supplies_of_the_simd_processor_are_the_published_ones_of_its_multiplier(rows, shared):
    for name, key in (("1x4b at 500 MHz", "mul_dvas_4"), ("4x4b at 125 MHz", "mul_dvafs_4")):
        published = float(_verified(shared, "envision_modes.csv", id=key)["vdd_v"])
        assert rows[f"SIMD processor, supply of {name}"].published == published
