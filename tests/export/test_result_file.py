import json

import pytest

from cooptim.cost.report import COMPONENTS
from cooptim.export import read_result, require_writable, write_result
from tests.reporting import fake_run


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "demo"
    write_result(out, fake_run.result())
    return out


def test_a_run_leaves_its_four_files_and_nothing_else(written):
    found = sorted(file.name for file in written.iterdir())
    assert found == ["design.json", "layers.csv", "result.json", "weights.npz"]


def test_result_json_holds_the_figures_of_the_run(written):
    content, _ = read_result(written)
    assert content["schema"] == "cooptim-result/1"
    assert content["accuracy"] == {
        "float": 0.9805, "reference_16b": 0.98, "best_uniform": 0.975, "best_uniform_pruned": 0.972, "final": 0.9725
    }  # fmt: skip
    assert content["energy_pj"] == {
        "reference_16b": 150000.0, "best_uniform": 15000.0, "best_uniform_pruned": 7500.0, "final": 6000.0,
        "reference_16b_dense": 240000.0, "relaxed": 5700.0, "bound": 5000.0,
    }  # fmt: skip
    assert content["latency_ns"]["final"] == 3000.0 and content["latency_ns"]["reference_16b"] == 3000.0
    assert content["area_mm2"] == pytest.approx(1.87) and content["seed"] == 3
    assert content["gap"] == pytest.approx(6000 / 5700)
    assert content["fraction_of_bound"]["final"] == pytest.approx(5 / 6)
    assert content["budget"]["energy_pj"] == 6000.0 and content["budget"]["accuracy_drop"] == 0.005
    assert content["local"]["moves"] == 240 and content["versions"]["jax"] == "0.10.1"


def test_a_design_that_was_not_made_is_null_and_no_key_is_missing(tmp_path):
    designs = {key: fake_run.result().designs[key] for key in ("reference_16b", "final")}
    write_result(tmp_path, fake_run.result(designs=designs, snap_drop=float("nan"), bound_pj=float("inf")))
    content, _ = read_result(tmp_path)
    assert content["accuracy"]["best_uniform"] is None and content["energy_pj"]["best_uniform_pruned"] is None
    assert content["snap_drop"] is None and content["energy_pj"]["bound"] is None
    assert "NaN" not in (tmp_path / "result.json").read_text()


def test_layers_csv_has_a_row_a_layer_whose_components_add_up(written):
    _, rows = read_result(written)
    assert [row["name"] for row in rows] == list(fake_run.LAYERS)
    assert [int(row["macs"]) for row in rows] == [9216, 640]
    assert [(row["weight_bits"], row["mode"], row["tile_OX"], row["stationary"]) for row in rows] == [
        ("4", "4x4b", "8", rows[0]["stationary"]), ("6", "2x8b", "1", rows[1]["stationary"])
    ]  # fmt: skip
    for row, energy in zip(rows, (1800.0, 3600.0), strict=True):  # 40 * 45 and twice that
        assert sum(float(row[f"{name}_pj"]) for name in COMPONENTS) == pytest.approx(energy)
        assert float(row["energy_pj"]) == pytest.approx(energy)


def test_a_failed_write_leaves_the_old_file(written, monkeypatch):
    before = (written / "result.json").read_text()
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(ValueError, match="No space left on device"):
        write_result(written, fake_run.result(seed=9))
    monkeypatch.undo()
    assert (written / "result.json").read_text() == before
    assert not [file for file in written.iterdir() if file.name.startswith(".")]


def test_an_unwritable_directory_gives_one_message(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ValueError, match="output directory .*cannot be written .*--out"):
        require_writable(tmp_path / "file" / "run")


@pytest.mark.parametrize("content", [None, "{", json.dumps({"schema": "other"})])
def test_a_directory_without_a_run_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "result.json").write_text(content)
    with pytest.raises(ValueError, match="no finished run|no JSON|schema 'other'"):
        read_result(tmp_path)
