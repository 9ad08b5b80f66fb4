"""`--quantizer codebook` from training to integers, on a machine with tables, and what is said on one without."""

import csv
import json
import re
from importlib import resources

import numpy as np
import pytest

from cooptim.integer import load_integer
from tests.cli.two_layers import MODEL


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A directory with a network, and EIE with values of 8 bits and accumulators that hold every sum, or few."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sharing.py").write_text(MODEL)
    text = (resources.files("cooptim.hardware") / "machines" / "eie.yaml").read_text()
    for old, new in (
        ("accumulator: {value: 16,", "accumulator: {value: 32,"),
        ("decoded: {value: 16, unit: bit, interval: [16, 16],", "decoded: {value: 8, unit: bit, interval: [8, 16],"),
    ):
        assert text.count(old) == 1
        text = text.replace(old, new)
    (tmp_path / "wide.yaml").write_text(text)
    few = re.sub(
        r"accumulator: {value: 32, unit: bit, interval: \[[^]]*]",
        "accumulator: {value: 12, unit: bit, interval: [12, 32]",
        text,
    )
    assert few != text
    (tmp_path / "narrow.yaml").write_text(few)
    return tmp_path


@pytest.mark.float32
def test_a_run_with_tables_ends_in_integers(run, here):
    common = ("--model", "sharing:make", "--machine", "wide.yaml")
    lengths = ("--steps", 30, "--quick", "--energy", "1/1.2", "--latency", "1us")
    asked = ("optimize", *common, "--quantizer", "codebook", "--label-bits", 3, *lengths)
    code, out, err = run(*asked, "--out", "made")
    assert code == 0 and "written to made" in out
    assert re.search(r"\n a +1024 +3t/", out) and "weights: labels of 3 b in every design but 16 b" in out
    layers = json.loads((here / "made" / "design.json").read_text())["layers"]
    for layer in layers.values():
        assert layer["method"] == {"weights": "codebook", "label_bits": 3} and layer["weight_bits"] == 3.0
        # Values of 8 bits: whole multiples of a 127th of the largest, eight of them, 0 among them.
        units = np.asarray(layer["codebook"]) / layer["weight_step"]
        assert len(units) == 8 and 0.0 in units and np.abs(units).max() == pytest.approx(127)
        np.testing.assert_allclose(units, np.round(units), atol=1e-3)
    with (here / "made" / "layers.csv").open() as file:
        assert [row["table_values"] for row in csv.DictReader(file)] == ["8", "8"]
    assert "3t/" in run("report", "made")[1]

    code, out, err = run("evaluate", *common, "--design", "made/design.json")
    assert (code, err) == (0, "") and "TOPS/W" in out

    code, out, err = run(*asked, "--label-bits", 2, "--out", "made", "--resume")
    assert code == 2 and "of another run: plan.label_bits 3 there, 2 here" in err

    code, out, err = run("export", "integer", "made", *common, "--out", "whole")
    assert code == 0 and "3 of 8" in out and "same prediction 100.00 %" in out
    whole = load_integer(here / "whole")
    assert [(layer.weight_bits, layer.table_bits) for layer in whole.layers] == [(3, 8), (3, 8)]
    for layer, design in zip(whole.layers, layers.values(), strict=True):
        table = whole.nodes[layer.node].arrays["table"]
        np.testing.assert_allclose(table * design["weight_step"], design["codebook"], rtol=1e-5, atol=1e-9)

    # Accumulators of 12 bits hold no sum of these, and the message says what would.
    code, out, err = run("export", "integer", "made", *common[:-1], "narrow.yaml", "--out", "narrow")
    assert (code, out) == (2, "") and not (here / "narrow" / "integer.json").exists()
    assert re.search(
        r"[ab]: 3 b labels of 8 b values and \d+ b inputs accumulate to at most .*accumulators have 12", err
    )
    assert "mechanisms.shared_weights.decoded" in err


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            ("--quantizer", "codebook"),
            "a codebook of 4 label bits on envision; legal are none: it has no table of shared ",
        ),
        (
            ("--quantizer", "codebook", "--label-bits", 5, "--machine", "eie"),
            "5 label bits on eie; legal are 1 to 4; take",
        ),
        (
            ("--quantizer", "codebook", "--label-bits", 9, "--machine", "eie"),
            "label_bits 9; legal are whole numbers from",
        ),
        (("--quantizer", "lsq", "--label-bits", 4), "--label-bits 4: says how large the tables of a codebook are; add"),
    ],
)
def test_labels_that_cannot_be_are_said_before_anything_is_written(run, here, given, words):
    code, out, err = run("optimize", *given, "--steps", 400, "--out", "none")
    assert (code, out) == (2, "") and err.startswith("cooptim optimize: ") and err.count("\n") == 1
    assert words in err and not (here / "none").exists()
