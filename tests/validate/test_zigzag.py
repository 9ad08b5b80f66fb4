import json
import math
import re

import pytest

from cooptim.validate import GoldenRow
from cooptim.validate.zigzag import cases_of
from cooptim.validate.zigzag_rows import case_rows
from tests.cli.conftest import run  # noqa: F401 - a fixture
from tests.validate.zigzag_case import changed, golden_file, leaves

CASE = ("cases", 0)
HARDWARE, MEMORY = (*CASE, "hardware"), (*CASE, "hardware", "memories", 0)
PORT, RESULTS = (*MEMORY, "ports", 0), (*CASE, "results")


@pytest.fixture
def written(tmp_path):
    """Writes a content, or text, as a golden file and returns its path."""

    def write(content):
        path = tmp_path / "cases.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write


def test_all_golden_cases_of_zigzag_are_equal(run, shared):  # noqa: F811
    code, out, err = run("validate", shared / "golden" / "zigzag" / "cases.json")
    assert (code, err) == (0, "")
    assert "30 cases, 7875 quantities checked, 0 differ" in out and "what differs" not in out
    expected = re.findall(r"energy pJ +(\S+) +(\S+) +(\S+)", out)
    assert len(expected) == 30 and all(theirs == ours for theirs, ours, _ in expected)


def test_every_number_of_the_results_is_compared(shared):
    file = json.loads((shared / "golden" / "zigzag" / "cases.json").read_text())
    for case, raw in zip(cases_of(file, "cases.json"), file["cases"], strict=True):
        given = {
            re.sub(r"\[(\d+)\]", r"[\1]", "".join(f"[{k}]" if isinstance(k, int) else f".{k}" for k in path)[1:])
            for path, value in leaves(raw["results"])
            if not isinstance(value, str) and not {"element_moves", "temporal_after_merge"} & set(path)
        }
        assert {row.quantity for row in case_rows(case)} == given


def test_a_case_worked_out_by_hand_holds(run, written):  # noqa: F811
    # 3 levels of 4 numbers, 7 of four directions and an energy; 3 tensors, 1 memory, 4 sums, 8 cycles and 1 port.
    code, out, _ = run("validate", written(golden_file()))
    assert code == 0 and "1 case, 116 quantities checked, 0 differ" in out


# Every number and truth of the results, whatever it is, one at a time.
ALTERED = [path for path, value in leaves(golden_file()["cases"][0]["results"]) if not isinstance(value, str)]


def test_one_altered_number_is_listed_wherever_it_stands():
    for path in ALTERED:
        value = golden_file()["cases"][0]["results"]
        for key in path:
            value = value[key]
        other = not value if isinstance(value, bool) else value + 1
        (case,) = cases_of(changed(golden_file(), (*RESULTS, *path), other), "cases.json")
        off = [row for row in case_rows(case) if not row.holds]
        assert len(off) == 1 and str(path[-1]) in off[0].quantity, path


def test_an_altered_count_of_a_golden_case_ends_with_exit_code_1(run, written, shared):  # noqa: F811
    file = json.loads((shared / "golden" / "zigzag" / "cases.json").read_text())
    file["cases"][11]["results"]["levels"]["O"][1]["accesses"]["write_from_low"] -= 1
    code, out, err = run("validate", written(file))
    assert (code, err) == (1, "") and "30 cases, 7875 quantities checked, 1 differ in 1 case" in out
    assert re.search(r"ws4x4_conv3x3_p4 +levels\.O\[1\]\.accesses\.write_from_low", out)


@pytest.mark.parametrize(("factor", "code"), [(1 + 5e-10, 0), (1 + 2e-9, 1), (1 - 2e-9, 1)])
def test_energies_hold_to_one_in_a_billion(run, written, factor, code):  # noqa: F811
    file = changed(golden_file(), (*RESULTS, "energy_total_pj"), 90.0 * factor)
    assert run("validate", written(file))[0] == code


@pytest.mark.parametrize("columns", ["80", "120"])
def test_verbose_lists_every_quantity_and_no_number_is_cut(run, written, monkeypatch, columns):  # noqa: F811
    monkeypatch.setenv("COLUMNS", columns)
    code, out, _ = run("validate", "--verbose", written(golden_file()))
    assert code == 0 and max(map(len, out.splitlines())) <= int(columns) and "…" not in out
    flat = re.sub(r"\s+", "", out)
    (case,) = cases_of(golden_file(), "cases.json")
    assert all(row.quantity in flat or columns == "80" for row in case_rows(case))
    assert out.count("accesses") == 12


BAD = {
    "a field is missing": (changed(golden_file(), (*PORT, "bw_max_bits"), ...),
                           ("case by_hand", r"hardware\.memories\[0\]\.ports\[0\]\.bw_max_bits: missing")),
    "a result is missing": (changed(golden_file(), (*RESULTS, "levels", "W", 0, "energy_pj"), ...),
                            ("case by_hand", r"results\.levels\.W\[0\]\.energy_pj: missing")),
    "a direction is missing": (changed(golden_file(), (*RESULTS, "levels", "W", 0, "accesses", "read_to_high"), ...),
                               ("case by_hand", r"results\.levels\.W\[0\]\.accesses", "read_to_high missing")),
    "a case has no id": (changed(golden_file(), (*CASE, "id"), ...), (r"cases\[0\]: id: missing",)),
    "the top lacks a field": (changed(golden_file(), ("zigzag_settings",), ...), ("zigzag_settings: missing",)),
    "another setting": (changed(golden_file(), ("zigzag_settings", "cycles_per_op"), 2),
                        (r"zigzag_settings\.cycles_per_op: found int 2", "legal: 1")),
    "another format": (changed(golden_file(), ("format",), "cooptim-zigzag-golden-2"),
                       ("found cooptim-zigzag-golden-2", "legal: cooptim-zigzag-golden-1")),
    "no case": (changed(golden_file(), ("cases",), []), ("cases: found none", "at least one case")),
    "two cases of one id": (changed(golden_file(), ("cases",), golden_file()["cases"] * 2),
                            ("case by_hand: id: used by two cases",)),
    "an unknown field": (changed(golden_file(), (*MEMORY, "latency"), 1),
                         (r"hardware\.memories\[0\]\.latency: unknown field",)),
    "text for a number": (changed(golden_file(), (*MEMORY, "size_bits"), "128"),
                          (r"size_bits: found '128' \(text\)", "legal: a valid integer")),
    "a negative energy": (changed(golden_file(), (*MEMORY, "read_energy_pj"), -1.0),
                          ("read_energy_pj: found float -1.0", "greater than or equal to 0")),
    "a granule above the width": (changed(golden_file(), (*PORT, "bw_min_bits"), 16),
                                  ("bw_min_bits 16 above bw_max_bits 8",)),
    "an operand that is not there": (changed(golden_file(), (*MEMORY, "operands"), ["W", "I"]),
                                     ("O is not held here", "legal: W, I")),
    "no path to the MACs": (changed(golden_file(), (*PORT, "serves"), [["W", "read_to_low"], ["I", "read_to_low"]]),
                            ("memory buf: no port serves O read_to_low",)),
    "a write on a read port": (changed(golden_file(), (*PORT, "type"), "read"), ("O write_from_low on a read port",)),
    "an unknown array dimension": (changed(golden_file(), (*MEMORY, "served_dims"), ["D2"]),
                                   ("'D2' is no array dimension; legal: D1",)),
    "a systolic dimension of no array": (changed(golden_file(), (*HARDWARE, "systolic_dims"), ["D3"]),
                                         ("systolic_dims: 'D3'",)),
    "a loop bound that is missing": (changed(golden_file(), (*CASE, "layer", "dims", "FX"), ...),
                                     (r"layer\.dims: FX missing",)),
    "factors that do not make the bound": (changed(golden_file(), (*CASE, "layer", "dims", "K"), 5),
                                           ("loop K has temporal factors of 2", "bound 5")),
    "unrolling beyond the array": (changed(golden_file(), (*CASE, "mapping", "spatial"), {"D1": {"K": 2}}),
                                   ("D1 unrolls K 2 = 2 units beyond the array's 1",)),
    "an unknown loop": (changed(golden_file(), (*CASE, "mapping", "temporal", "W"), [[["Q", 2]]]),
                        (r"mapping\.temporal\.W\[0\]\[0\]\[0\]: found 'Q'", "legal: 'B', 'G', 'K'")),
    "a level too many": (changed(golden_file(), (*CASE, "mapping", "temporal", "W"), [[], [["C", 3], ["K", 2]]]),
                         (r"temporal\.W: 2 levels; one holds W in 1: buf",)),
    "another order": (changed(golden_file(), (*CASE, "mapping", "temporal", "I"), [[["K", 2], ["C", 3]]]),
                      (r"temporal\.I: loops K2 C3; W has C3 K2",)),
    "results of another memory": (changed(golden_file(), (*RESULTS, "levels", "W", 0, "memory"), "sram"),
                                  (r"results\.levels\.W: memories sram; the hardware has buf",)),
    "a port that is not there": (changed(golden_file(), (*RESULTS, "latency", "stall_per_port"), {"buf/x": 0}),
                                 ("stall_per_port: unknown buf/x", "buf/rw_port_1")),
    "not a number": (json.dumps(golden_file()).replace("0.6875", "NaN"), ("the number NaN", "finite numbers")),
    "a key twice": (json.dumps(golden_file()).replace('"id"', '"tags": [], "id"'), ("the key 'tags' a second time",)),
    "no JSON": (json.dumps(golden_file())[:-1], ("no JSON at line 1", "correct the file")),
    "an unknown list": ("[1, 2]", ("found list, which is no golden format", "ZigZag", "Timeloop")),
    "an unknown object": ('{"a": 1}', ("an object without `format`", "legal: ")),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_a_faulty_file_ends_with_exit_code_2_and_one_message(run, written, what):  # noqa: F811
    content, parts = BAD[what]
    code, out, err = run("validate", written(content))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("cooptim validate: ") and "cases.json: " in err
    assert [part for part in parts if not re.search(part, err)] == [], err


def test_a_file_that_is_not_there_or_no_text_is_named(run, tmp_path):  # noqa: F811
    (tmp_path / "bytes.json").write_bytes(b'{"format": "\xff"}')
    for name, part in (("none.json", "cannot be read (No such file"), ("bytes.json", "byte 0xff"), (".", "Is a dir")):
        code, out, err = run("validate", tmp_path / name)
        assert (code, out) == (2, "") and part in err


def test_dilation_is_one_number_or_one_an_axis():
    (plain,) = cases_of(changed(golden_file(), (*CASE, "layer", "dilation"), 2), "cases.json")
    (apart,) = cases_of(changed(golden_file(), (*CASE, "layer", "dilation"), {"OY": 2, "OX": 3}), "cases.json")
    assert (plain.shape.dilation, apart.shape.dilation) == ((2, 2), (2, 3))


def test_relative_errors_have_a_sign_and_know_zero_and_nan():
    def row(expected, ours, tolerance=1e-9):
        return GoldenRow("case", "quantity", expected, ours, tolerance)

    assert row(4.0, 3.0).relative_error == -0.25 and row(-4.0, -3.0).relative_error == 0.25
    assert (row(0.0, 0.0).relative_error, row(0.0, 0.0, 0.0).holds) == (0.0, True)
    assert (row(0.0, 1e-30).relative_error, row(0.0, 1e-30).holds) == (math.inf, False)
    assert row(1.0, math.nan).holds is False
    assert row(1.0, 2.0, None).holds is None


def test_without_a_file_the_published_figures_are_printed(run):  # noqa: F811
    code, out, _ = run("validate")
    assert code == 0 and "published" in out and "1x16b over 4x4b" in out
