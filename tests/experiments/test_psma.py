"""The subword exponent on the PSMA arrays."""

import csv
import importlib.util
import json
import subprocess
import sys

import numpy as np
import pytest


@pytest.fixture(scope="module")
def psma(root):
    spec = importlib.util.spec_from_file_location("psma_run", root / "experiments" / "psma" / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_table(path, family, rows):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["", "", "top", "mac"])
        writer.writerows([mode, design, top, top / 2] for mode, design, top in rows)


def test_an_exact_power_law_is_found_and_leaves_no_error(psma, tmp_path):
    # Energy a cycle of 100, 100 / 2^0.7 and 100 / 4^0.7 mW on two designs.
    rows = [
        (mode, design, scale * lanes**-0.7)
        for design, scale in (("a", 100.0), ("b", 37.0))
        for mode, lanes in (("8x8", 1), ("4x4", 2), ("2x2", 4))
    ]
    for period in ("1.00ns", "5.00ns"):
        write_table(tmp_path / f"SWU_{period}_power.csv", "SWU", rows)
    found = psma.study(tmp_path, psma.FAMILIES[0], "top")
    assert found["exponent"] == pytest.approx(0.7) and found["exponent_95"] == pytest.approx([0.7, 0.7])
    assert found["200 MHz"]["p90"] < 1e-9 and found["200 MHz"]["rows"] == 4


def test_errors_are_relative_to_the_measured_power(psma):
    family = psma.FAMILIES[0]
    ratios = {"4x4": np.array([0.5, 0.25]), "2x2": np.array([0.25, 0.25])}
    found = psma.errors(ratios, family, 1.0)
    assert found["4x4"].tolist() == pytest.approx([0.0, 1.0]) and found["2x2"].tolist() == pytest.approx([0.0, 0.0])


def test_a_table_that_lacks_a_mode_is_refused(psma, tmp_path):
    write_table(tmp_path / "SWU_1.00ns_power.csv", "SWU", [("8x8", "a", 1.0), ("4x4", "a", 0.6)])
    with pytest.raises(ValueError, match="2 rows of SWU for 1 designs; each needs all modes"):
        psma.read_ratios(tmp_path, psma.FAMILIES[0], "1 GHz", "top")


def test_without_data_it_says_so_and_stops(psma, root, tmp_path):
    command = [sys.executable, str(root / "experiments" / "psma" / "run.py"), "--data", str(tmp_path / "none")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "no folder 'none'" in done.stdout and "--data" in done.stdout


def test_the_whole_array_is_the_sum_of_its_parts(shared):
    # 'top' counts all: multipliers and trees (L4), accumulators, input and output registers.
    for path in sorted((shared / "reference" / "psma").glob("*power.csv")):
        with path.open(newline="") as file:
            head, *rows = csv.reader(file)
        column = {name: np.array([float(row[i]) for row in rows]) for i, name in enumerate(head) if i > 1}
        parts = sum(column[name] for name in ("L4", "out_reg", "in_reg", "accum"))
        assert column["top"] == pytest.approx(parts, rel=1e-6)


def test_one_exponent_of_the_subword_family_holds_at_the_other_clock(psma, shared, root):
    folder = shared / "reference" / "psma"
    counts = {}
    for family in psma.FAMILIES:
        found = psma.study(folder, family, "top")
        counts[family.name] = sum(found[clock]["rows"] for clock in psma.CLOCKS)
        recorded = json.loads((root / "experiments" / "psma" / "result.json").read_text())[family.name]["top"]
        assert found["exponent"] == pytest.approx(recorded["exponent"])
        assert found["200 MHz"]["median"] == pytest.approx(recorded["200 MHz"]["median"])
        if family.name == "SWU":
            assert found["200 MHz"]["median"] <= 0.12 and found["200 MHz"]["p90"] <= 0.30
            assert 0.5 < found["exponent"] < 0.84
    # 108 and 540 rows less the 36 and 108 at 8x8 that are references.
    assert counts == {"SWU": 72, "FU": 432}
