"""`cooptim map` as a user runs it."""

import json
import pathlib
import re

import numpy as np
import pytest

from cooptim.cli.main import main
from cooptim.export.mapping_file import read_mappings
from cooptim.mapping.nest import nest_of
from cooptim.mapping.price import price
from cooptim.mapping.rules import HARDWARE

CSV = "layer,K,C,OY,OX,FY,FX\nconv1,8,4,6,6,3,3\nconv2,8,4,6,6,3,3\nfc,10,32,1,1,1,1\n"
NET = """
from flax import nnx
class Net(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(2, 8, (3, 3), padding="VALID", rngs=rngs)
        self.fc = nnx.Linear(8, 10, rngs=rngs)
    def __call__(self, x):
        return self.fc(nnx.relu(self.conv(x)).mean((1, 2)))
def net(rngs):
    return Net(rngs)
"""


@pytest.fixture
def table(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "net.csv"
    path.write_text(CSV)
    return str(path)


def _row(text, start):
    return next(line.split() for line in text.splitlines() if line.strip().startswith(start))


def test_every_layer_is_proven_and_equal_layers_are_searched_once(table, capsys):
    assert main(["map", "--network", table, "--machine", "eyeriss_like"]) == 0
    said = capsys.readouterr().out
    assert said.count("proven") == 4  # three layers, and their sum
    assert "2 different layers of 3" in said


def test_energy_delay_states_a_gap_over_the_bound_of_the_network(table, capsys):
    assert main(["map", "--network", table, "--objective", "edp", "--out", "best"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "least energy x cycles of the network" in said and re.search(
        r"% above its bound, [\d.e+,]+ pJ x cycle", said
    )
    # The totals are those of the mappings in the file, priced again.
    mapped, found = (
        read_mappings("best/mapping.json"),
        json.loads(pathlib.Path("best/mapping.json").read_text())["found"],
    )
    prices = [
        price(nest_of(x.name, x.shape, x.mapping, mapped.machine), x.shape, mapped.machine) for x in mapped.layers
    ]
    energy, cycles = sum(float(p.energy_pj) for p in prices), sum(float(p.cycles.total) for p in prices)
    assert (found["energy_pj"], found["cycles"]) == pytest.approx((energy, cycles), rel=1e-12)
    assert found["bound"] <= energy * cycles and mapped.objective == "edp"


def test_an_unknown_network_and_machine_are_named(table, capsys):
    assert main(["map", "--network", "resnet19"]) == 2
    assert "resnet18" in capsys.readouterr().err
    assert main(["map", "--network", table, "--machine", "tpu"]) == 2
    assert "tpu_like" in capsys.readouterr().err


def test_a_traced_model_is_mapped_like_the_same_layers_in_a_table(run, table, tmp_path):
    (tmp_path / "map_nets.py").write_text(NET)
    (tmp_path / "same.csv").write_text("layer,K,C,OY,OX,FY,FX\nconv,8,2,6,6,3,3\nfc,10,8,1,1,1,1\n")
    code, out, err = run("map", "--model", "map_nets:net", "--input-shape", "8x8x2")
    assert (code, err) == (0, "")
    same = run("map", "--network", "same.csv")[1]
    for traced, row in (("conv.kernel", "conv"), ("fc.kernel", "fc")):
        assert _row(out, traced)[1:-1] == _row(same, f"{row} ")[1:-1]  # all but the CPU-seconds


def test_what_is_written_is_read_back_and_costs_the_same(run, table):
    code, out, err = run("map", "--network", table, "--out", "best", "--psum-bits", "20")
    assert (code, err) == (0, "") and "mappings: best/mapping.json" in out
    mapped = read_mappings("best/mapping.json")
    content = json.loads(pathlib.Path("best/mapping.json").read_text())
    assert [x.name for x in mapped.layers] == ["conv1", "conv2", "fc"] and content["bits"]["psum"] == 20
    assert mapped.layers[0].shape.bounds == (1, 1, 8, 4, 6, 6, 3, 3) and mapped.layers[0].shape.input_size == (8, 8)
    for layer in mapped.layers:
        cost = price(nest_of("x", layer.shape, layer.mapping, mapped.machine), layer.shape, mapped.machine, HARDWARE)
        record = content["layers"][layer.name]["found"]
        assert record["energy_pj"] == pytest.approx(float(cost.energy_pj), rel=1e-12)
        assert record["cycles"] == float(cost.cycles.total)
        assert record["bound"] <= record["energy_pj"] * (1 + 1e-12) and record["gap"] < 1e-9
    code, out, err = run("map", "--mapping", "best/mapping.json")
    assert (code, err) == (0, "") and out.count("optimal") == 3
    assert "proven least" in " ".join(out.split())


def test_a_mapping_written_by_hand_is_priced_beside_the_best(run, table, tmp_path):
    """One MAC at a time, everything from DRAM: the weights and inputs stay nowhere."""
    content = {
        "format": "cooptim-mapping-1", "machine": "tpu_like", "bits": {"W": 8, "I": 8, "psum": 16, "O": 8},
        "layers": {
            "mine": {
                "bounds": "K4 C6", "repeat": 3, "loops": "K4 C6",
                "cuts": {"W": {"rf_128B": 0, "dram": 2}, "I": {"sram_2MB": 0, "dram": 2},
                         "O": {"rf_2B": 0, "sram_2MB": 0, "dram": 2}},
            }
        },
    }  # fmt: skip
    (tmp_path / "mine.json").write_text(json.dumps(content))
    code, out, err = run("map", "--mapping", "mine.json", "--out", "best")
    assert (code, err) == (0, "")
    mapped = read_mappings("mine.json")
    layer = mapped.layers[0]
    cost = price(nest_of("x", layer.shape, layer.mapping, mapped.machine), layer.shape, mapped.machine, HARDWARE)
    best = json.loads(pathlib.Path("best/mapping.json").read_text())["layers"]["mine"]["found"]
    gap = 100 * (float(cost.energy_pj) / best["bound"] - 1)
    row = _row(out, "mine x3")
    assert (
        gap > 10
        and f"{gap:.1f}" in row
        and row[2] == "-"
        and np.isclose(float(row[3].replace(",", "")), cost.energy_pj, rtol=5e-3)
    )
    assert f"{gap:.2f} % above its bound" in " ".join(out.split()) and "times that" in " ".join(out.split())


def test_units_outside_the_searched_space_count_among_it_when_a_file_has_them(run, table, tmp_path):
    """K4 C4 on one dimension is no unrolling of the search; the bound must hold for it all the same."""
    run("map", "--network", table, "--out", "best")
    content = json.loads((tmp_path / "best" / "mapping.json").read_text())
    layer = content["layers"]["conv1"]
    content["layers"] = {"conv1": layer}
    layer["spatial"], layer["loops"] = {"D1": "K4 C4", "D2": "FY3 FX3"}, "OX6 OY6 K2"
    layer["cuts"] = {"W": {"rf_128B": 3, "dram": 3}, "I": {"sram_2MB": 3, "dram": 3},
                     "O": {"rf_2B": 0, "sram_2MB": 3, "dram": 3}}  # fmt: skip
    (tmp_path / "mine.json").write_text(json.dumps(content))
    code, out, err = run("map", "--mapping", "mine.json", "--objective", "edp")
    assert (code, err) == (0, "") and float(_row(out, "conv1")[-3]) >= 0
    code, out, err = run("map", "--mapping", "mine.json")
    assert (code, err) == (0, "") and not re.search(r"-\d", out)


def test_a_machine_file_travels_with_the_mappings(run, table, tmp_path):
    import importlib.resources

    source = importlib.resources.files("cooptim.hardware") / "hierarchies" / "tpu_like.yaml"
    (tmp_path / "chip.yaml").write_bytes(source.read_bytes())
    assert run("map", "--network", table, "--machine", "chip.yaml", "--out", "best")[0] == 0
    (tmp_path / "best").rename(tmp_path / "moved")
    (tmp_path / "chip.yaml").unlink()
    assert sorted(path.name for path in (tmp_path / "moved").iterdir()) == ["machine.yaml", "mapping.json"]
    assert run("map", "--mapping", "moved/mapping.json")[0] == 0


def test_mappings_are_exported_whole_or_one_layer(run, table, tmp_path):
    run("map", "--network", table, "--out", "best")
    code, out, err = run("export", "zigzag", "best/mapping.json", "--out", "zz")
    assert (code, err) == (0, "") and "net (3 layers): zz/net" in out
    assert sorted(json.loads((tmp_path / "zz/net/temporal.json").read_text())["layers"]) == ["conv1", "conv2", "fc"]
    assert run("export", "zigzag", "best/mapping.json", "--case", "fc", "--out", "one")[0] == 0
    assert list(json.loads((tmp_path / "one/fc/temporal.json").read_text())["layers"]) == ["fc"]
    code, _, err = run("export", "zigzag", "best/mapping.json", "--case", "conv9", "--out", "zz")
    assert code == 2 and "--case conv9: not in best/mapping.json; it has conv1, conv2, fc" in err


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("mapping", [False, True])
def test_the_tables_fit_and_lose_nothing(run, table, monkeypatch, columns, mapping):
    monkeypatch.setenv("COLUMNS", str(columns))
    out = run("map", "--network", table, "--out", "best")[1]
    if mapping:
        out = run("map", "--mapping", "best/mapping.json")[1]
    assert max(len(line.rstrip()) for line in out.splitlines()) <= columns and "…" not in out
    headings = ["layer", "unrolled", *(["yours", "best"] if mapping else ["chosen"]), "bound", "gap", "cycles"]
    assert _row(out, "layer")[: len(headings)] == headings
