"""The survey's hardware figures: published points as in the reference data, curves by hand, tables as recorded."""

import csv
import importlib

import numpy as np
import pytest

FOLDER = "experiments.survey_figures"
KEYS = {  # columns that name a row of a reference file
    "alexnet_precision.csv": ("network", "layer"),
    "envision_modes.csv": ("id",),
    "memory_energy.csv": ("model", "item", "size_or_width"),
    "vlsi16_layers.csv": ("network", "layer"),
    "claims.csv": ("system", "claim"),
}


@pytest.fixture(scope="module")
def figs():
    """The scripts by name."""
    names = ("drawing", "fig09", "fig10a", "fig10b", "fig10c", "fig11b", "fig12")
    return {name: importlib.import_module(f"{FOLDER}.{name}") for name in names}


def read(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def same_as_recorded(rows, recorded):
    assert [list(row) for row in rows] == [list(row) for row in recorded]
    for row, old in zip(rows, recorded, strict=True):
        for key, value in row.items():
            if isinstance(value, float):
                assert value == pytest.approx(float(old[key]), rel=1e-4, abs=1e-9), (row, old)
            else:
                assert old[key] == ("" if value is None else str(value))


def test_every_published_point_is_a_row_of_the_reference_data(root, shared):
    tables = {name: read(shared / "reference" / name) for name in KEYS}
    for point in read(root / "experiments" / "survey_figures" / "published.csv"):
        keys = KEYS[point["file"]]
        named = [one for one in tables[point["file"]] if [one[k] for k in keys] == point["row"].split("|")]
        rows = [
            one for one in named if float(point["y"]) in [float(x) for x in one[point["column"]].strip(">").split("-")]
        ]
        assert len(rows) == 1, point  # a low and a high end have one name
        row = rows[0]
        assert point["verified"] == row["verified"], point
        if point["file"] == "envision_modes.csv" and point["x_unit"] == "bit":
            assert point["x"] == row["bits"]
        if point["file"] == "vlsi16_layers.csv":
            assert 100 * float(point["x"]) == pytest.approx(float(row["i_sparsity_pct"]))
        if point["x_unit"] == "kB":
            assert f"{float(point['x']):g} KB" in point["row"].replace("1 MB", "1024 KB") or "recalled" in point["what"]


def test_word_energies_by_hand_and_as_recorded(figs, root):
    rows = figs["fig09"].rows()
    by_name = {(row["series"], row["memory"]): row for row in rows}
    assert by_name["envision", "sram"]["word_pj"] == pytest.approx(819.4092999 / 512 * 16)
    assert by_name["envision", "dram"]["word_pj"] == pytest.approx(1300 / 64 * 16)
    assert by_name["eyeriss_like", "sram_1M"]["over_dram"] == pytest.approx((100 / 384) / (1000 / 64))
    assert by_name["edge_45nm", "w_reg"]["over_mac"] == pytest.approx(2 * 0.078125 / 0.3)
    assert {row["series"] for row in rows if row["silicon"] == "yes"} == {"envision"}
    same_as_recorded([*rows, *figs["fig09"].published_rows()], read(root / "experiments/survey_figures/fig09.csv"))


def test_the_square_root_law_meets_horowitz_where_it_was_put_and_exceeds_him_at_a_megabyte(figs):
    _, sizes, energy, _ = next(one for one in figs["fig09"].curves() if one[0] == "edge_45nm" and one[1][-1] > 1000)
    points = {p.x: p.y * 16 / p.bits for p in figs["drawing"].published("fig09") if p.series == "Horowitz SRAM"}
    found = {kb: float(np.exp(np.interp(np.log(kb), np.log(sizes), np.log(energy)))) for kb in points}
    assert [found[8] / points[8], found[32] / points[32]] == pytest.approx([1.0, 1.0])
    assert found[1024] / points[1024] == pytest.approx(2.5 * 128**0.5 / 25)  # 8 kB to 1 MB is 128 times


def test_least_widths_by_hand(figs):
    asked = []

    def from_five(bits):
        asked.append(bits)
        return bits >= 5

    assert figs["fig10a"].least(from_five, 6) == 5 and asked == [6, 5, 4]
    assert figs["fig10a"].least(from_five, 3) == 5 and asked[3:] == [3, 4, 5]
    assert figs["fig10a"].least(lambda bits: True, 4) == 2  # never below what calibration takes
    assert figs["fig10a"].least(lambda bits: False, 4) is None


def test_widths_are_lowered_in_turn_until_none_can_be(figs):
    # 15 bits in all may go to 10, the first not below 4: 5 5 5 -> 4 4 4 -> 4 3 3, and no bit more.
    assert figs["fig10a"].lowered((5, 5, 5), lambda b: sum(b) >= 10 and b[0] >= 4) == (4, 3, 3)
    # The second must stay above the third, so that it can only go after it, in the next round.
    assert figs["fig10a"].lowered((2, 3, 3), lambda b: b[1] >= b[2]) == (2, 2, 2)
    assert figs["fig10a"].lowered((3, 2), lambda b: False) == (3, 2)


def test_recorded_widths_at_99_percent_are_consistent(figs, root):
    recorded = read(root / "experiments/survey_figures/fig10a.csv")
    for network in ("digits", "fashion-mnist"):
        mine = [row for row in recorded if row["network"] == network]
        alone, uniform, together, descent = (
            {(r["layer"], r["operand"]): int(r["bits"]) for r in mine if r["method"] == method}
            for method in ("alone", "uniform", "together", "descent")
        )
        assert alone.keys() == uniform.keys() == together.keys() == descent.keys()
        assert len(set(uniform.values())) == 1
        assert all(2 <= alone[at] <= together[at] <= uniform[at] for at in alone)
        assert sum(together.values()) < sum(uniform.values())
        assert all(float(r["relative_val"]) >= 0.99 for r in mine if r["method"] != "descent")


def test_a_layers_design_is_that_of_its_own_width(figs):
    import jax.numpy as jnp

    import cooptim
    from cooptim.descent.calibrate import calibrated_ranges
    from experiments.survey_figures.trained import Calibrated

    rng = np.random.default_rng(0)
    x, a, b = (jnp.asarray(rng.normal(size=shape)) for shape in ((16, 6), (6, 5), (5, 3)))
    params = {"a": a, "b": b}
    network = cooptim.trace(lambda p, x: jnp.maximum(x @ p["a"], 0) @ p["b"], params, x)

    def alone(where, bits):
        return calibrated_ranges(network, params, {}, x, where, bits, ranges="mse", per_channel=False)

    space = alone(cooptim.load_machine("envision"), 4)[0]
    found = Calibrated(network, params, {}, x, space, widths=(3, 4)).design((3, 4), (4, 3))
    expected = alone(space, ((3, 4), (4, 3)))[1]
    for name in ("weight_bits", "input_bits", "weight_range", "input_range", "weight_step", "input_step"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)


def test_power_against_precision_meets_the_published_points(figs, root):
    model = figs["fig10b"].rows()
    beside = figs["fig10b"].compared(model)
    checked = [row for row in beside if row["kind"] in ("published", "derived") and row["model"] is not None]
    assert len(checked) == 8
    assert all(abs(row["error_percent"]) < 3.0 for row in checked)
    das = next(r for r in model if (r["circuit"], r["technique"], r["bits"]) == ("multiplier", "DAS", 4))
    assert das["value"] == pytest.approx(2.63 / 12.5)
    for circuit in ("Envision", "multiplier"):  # each technique adds to the one before, at every width
        mine = [row for row in model if row["circuit"] == circuit]
        found = {t: [row["value"] for row in mine if row["technique"] == t] for t in ("DAS", "DVAS", "DVAFS")}
        assert all(a >= b * (1 - 1e-9) >= c * (1 - 2e-9) for a, b, c in zip(*found.values(), strict=True))
        assert all(np.all(np.diff(line) > 0) for line in found.values())
    same_as_recorded([*model, *beside], read(root / "experiments/survey_figures/fig10b.csv"))


def test_activity_path_and_supply_against_precision(figs, root):
    model, measured = figs["fig10c"].rows(), figs["fig10c"].published_rows()
    at = {(row["technique"], row["bits"]): row for row in model}
    assert [at[t, 4]["activity"] for t in ("DAS", "DVAS", "DVAFS")] == pytest.approx([1 / 12.5, 1 / 12.5, 1 / 3.2])
    assert at["DVAFS", 4]["activity_a_word"] == pytest.approx(1 / 12.8)
    assert [at[t, 4]["path"] for t in ("DAS", "DVAS", "DVAFS")] == pytest.approx([1 - 0.7443 * 0.75] * 3)
    assert at["DVAS", 4]["supply"] == pytest.approx(0.9, rel=0.03)
    assert at["DVAFS", 4]["supply"] == pytest.approx(0.75, rel=0.03)
    # The path behind a supply, by hand: (V - 0.678)^1.5 / V at 0.75 V and a quarter of the clock over that at 1.1 V.
    path = next(row["path"] for row in measured if row["technique"] == "DVAFS" and row["path"])
    assert path == pytest.approx(4 * (0.072**1.5 / 0.75) / (0.422**1.5 / 1.1))
    assert not [row for row in measured if row["path"] and row["kind"] == "published"]
    same_as_recorded([*model, *measured], read(root / "experiments/survey_figures/fig10c.csv"))


def test_savings_against_zeros_by_hand(figs, monkeypatch):
    fig = figs["fig11b"]
    monkeypatch.setattr(fig, "ZEROS", np.array([0.0, 0.5, 0.89, 1.0]))
    found = {(r["panel"], r["series"], r["zeros"]): r["value"] for r in [*fig.eyeriss_rows(), *fig.link_rows()]}
    assert all(abs(value) < 1e-3 for (panel, _, zeros), value in found.items() if zeros == 0.0 and panel == "Eyeriss")
    # The flag and a sixteenth of words that are left: 1 - (1 + 0.11 * 16) / 16; Huffman's floor of a bit in four.
    assert found["link", "16 b, bit mask", 0.89] == pytest.approx(100 * (1 - 2.76 / 16))
    assert found["link", "4 b, Huffman of words", 1.0] == pytest.approx(75.0)
    assert found["link", "16 b, run length", 1.0] == pytest.approx(100 * (1 - 21 / 32 / 16))
    assert found["link", "4 b, entropy", 1.0] == pytest.approx(100.0)
    # All inputs zero: gating leaves 210.4 mW, over a time that MACs bound in all five layers (1.096 cycles each on the
    # active units, 0.2 GHz) with the link's 5.64 bit/ns on top, and 0.201 of 6.092 pJ a MAC.
    layers = [layer for layer in fig.published_layers() if layer.network == "alexnet"]
    time = sum(1.096 * x.macs / (0.2 * x.active_units) + x.link_bits / 5.64 for x in layers)
    macs = sum(layer.macs for layer in layers)
    saved = (6.092 - 0.201) * macs / (210.4 * time + 6.092 * macs)
    assert found["Eyeriss", fig.GATING, 1.0] == pytest.approx(100 * saved)
    assert found["Eyeriss", fig.GATING, 0.5] == pytest.approx(50 * saved)
    # Gating leaves time as it is, and all that skipping leaves out costs nothing: always at least as much saved.
    assert all(found["Eyeriss", fig.OUTPUT, z] >= found["Eyeriss", fig.GATING, z] - 1e-3 for z in fig.ZEROS)


def test_measured_layers_are_saved_what_their_power_says(figs):
    from cooptim.validate.eyeriss import columns, eyeriss_file, published_layers

    array, column, rows = eyeriss_file().model, columns(published_layers()), figs["fig11b"].eyeriss_measured()
    assert [row["kind"] for row in rows] == ["derived"] * 18 + ["model at measured latency"] * 18
    dense = float(array.always_on_mw) + float(array.busy_mac_pj) * column["macs"] / column["total_ns"]
    assert [row["value"] for row in rows[:18]] == pytest.approx((100 * (1 - column["power_mw"] / dense)).tolist())


def test_envision_saves_by_gating_what_its_sparse_gain_says_and_by_skipping_control_too(figs, monkeypatch):
    from cooptim.hardware.load import load_machine_file
    from cooptim.hardware.reference import sparse_gain

    fig, file = figs["fig11b"], load_machine_file("envision")
    monkeypatch.setattr(fig, "ZEROS", np.array([0.0, 0.6, 1.0]))
    found = {(r["series"], r["zeros"]): r["value"] for r in fig.envision_rows(file)}
    gain = float(sparse_gain(file.machine, file.reference, 0.4, 0.4))
    assert found[fig.GATING, 0.6] == pytest.approx(100 * (1 - 1 / gain))
    assert found[fig.OUTPUT, 0.0] == pytest.approx(0.0, abs=1e-3)
    # Nothing but zeros: what is left of skipping are the outputs' words and lanes that idle at the reference duty.
    chip, point = file.machine, file.reference
    path = 1 - float(chip.supply.path_share) * 0.75
    volts = float(fig.supply_for_clock(chip.supply, chip.supply.nominal_ghz / 4, path))
    lanes = float(chip.datapath.busy_pj * chip.datapath.idle_share) * (1 - point.busy_fraction) / 3.2
    words = float(chip.buffer.access_pj) * point.sram_o * point.busy_fraction
    left = (lanes + words) * 0.05 * (volts / 1.03) ** 2
    dense = float(fig.operating_power_mw(chip, point, chip.modes[-1], 4.0, 0.05, volts))
    assert found[fig.OUTPUT, 1.0] == pytest.approx(100 * (1 - left / dense), abs=1e-3)
    assert found[fig.TAPS, 0.6] < found[fig.OUTPUT, 0.6]


def test_published_processors_are_verified_rows_of_the_reference_data(figs, shared):
    listed = {row["name"]: row for row in read(shared / "reference" / "accelerators.csv")}
    for row in read(figs["drawing"].HERE / "processors.csv"):
        source = listed[row["name"]]
        assert source["verified"] == "yes" and "ISSCC'1" in source["venue"]
        for key in ("throughput_gops", "throughput_kind", "power_mw", "efficiency_tops_w", "efficiency_kind"):
            assert row[key] == source[key], row["name"]
        both = bool(row["throughput_gops"] and row["efficiency_tops_w"])
        assert both == (row["point"] in ("one", "two peaks")), row["name"]


def test_efficiency_against_throughput_by_hand_and_as_recorded(figs, root):
    fig = figs["fig12"]
    model, measured = fig.rows(), fig.published_rows()
    at = {row["series"]: row for row in model}
    # MACs x 2 x GHz x duty over mW; the published 104 mW at four lanes, the published power at one.
    assert at["envision 1x16b"]["tops_w"] == pytest.approx(76 / 300)
    assert at["envision 2x8b"]["gops"] == pytest.approx(2 * 76)
    assert at["envision 4x4b"]["tops_w"] == pytest.approx(4 * 76 / 104, rel=0.03)
    assert at["dvas_40nm 1x16b"]["gops"] == pytest.approx(256 * 2 * 0.204 * 0.8)
    assert at["dnpu 1x16b"]["tops_w"] == pytest.approx(768 * 2 * 0.2 * 0.8 / 279)
    assert at["yodann 1x12b"]["tops_w"] == pytest.approx(1510 / 153, rel=1e-4)
    kinds = {name: row["kind"] for name, row in at.items()}
    assert {name for name, kind in kinds.items() if kind == "predicted"} == {"envision 2x8b", "dvafs_sized 2x8b"}
    assert {name for name, kind in kinds.items() if kind == "fitted"} == {"envision 4x4b", "dvafs_sized 4x4b"}
    inputs = {"envision 1x16b", "dvafs_sized 1x16b", "dvas_40nm 1x16b", "eie 1x16b", "yodann 1x12b"}
    assert {name for name, kind in kinds.items() if kind == "input"} == inputs
    assert fig.LABELS.keys() <= {row["series"] for row in [*model, *measured]}
    same_as_recorded([*model, *measured], read(root / "experiments/survey_figures/fig12.csv"))


def test_unverified_points_are_never_drawn_as_published(figs):
    from matplotlib.figure import Figure

    axis = Figure().subplots()
    for status in ("yes", "derived", "no"):
        figs["drawing"].mark(axis, [(1.0, 1.0)], status, "#3b6fb6")
    faces = [(line.get_markerfacecolor(), line.get_fillstyle()) for line in axis.lines]
    assert faces == [("#3b6fb6", "full"), ("#3b6fb6", "left"), ("white", "full")]


def test_narrower_words_have_no_fewer_zeros_and_published_ones_stand_beside_inputs(figs, root):
    rows = read(root / "experiments/survey_figures/fig11a.csv")
    lines: dict[tuple[str, ...], list[tuple[int, float]]] = {}
    for row in rows:
        key = (row["network"], row["operand"], row["layer"])
        lines.setdefault(key, []).append((int(row["bits"]), float(row["zeros_percent"])))
    for key, line in lines.items():
        zeros = [share for _, share in sorted(line)]
        assert len(zeros) == 15 and all(a >= b - 1.0 for a, b in zip(zeros, zeros[1:], strict=False)), key
        assert zeros[0] - zeros[-1] > (30.0 if key[1] == "weights" else 1.0), key
