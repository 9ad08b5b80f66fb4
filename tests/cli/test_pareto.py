"""Options of `cooptim pareto`, and what it passes on; the sweep itself is tested in tests/descent/test_sweep.py."""

import dataclasses
import re
import types

import numpy as np
import pytest

from cooptim.cli.pareto import seeds_of, spread
from cooptim.descent.front import DIVERGED, FINISHED, Front, Point
from cooptim.descent.plan import Plan
from cooptim.descent.result import Budget
from cooptim.export.front_file import write_front


def _front(status=FINISHED):
    energy, accuracy = (5e4, 0.9) if status == FINISHED else (None, None)
    point = Point(
        "r20-s0", 0, status, 10, 5e4, 20.0, reference_pj=1e6, bound_pj=1e4, float_val_accuracy=0.95, energy_pj=energy,
        val_accuracy=accuracy,
    )  # fmt: skip
    return Front("toy", "envision", (point,), 10, 0.1, "chance, 1 of 10", {}, {})


@pytest.fixture
def swept(monkeypatch, tmp_path):
    """What the command passed to the sweep, which ends at once."""
    given = {"front": _front()}

    def pareto(network, machine, data, budgets, seeds, **options):
        given.update(network=network, machine=machine.name, data=data.name, budgets=budgets, seeds=seeds, **options)
        return given["front"]

    images = np.zeros((4, 8, 8, 1), np.float32)
    data = types.SimpleNamespace(name="digits", sample=images[:1], x_train=images)
    monkeypatch.setattr("cooptim.cli.pareto.dataset", lambda _: data)
    monkeypatch.setattr("cooptim.cli.pareto.pareto", pareto)
    monkeypatch.chdir(tmp_path)
    return given


def test_options_reach_the_sweep(run, swept):
    code, out, _ = run(
        "pareto", "--energy", "100nJ..400nJ:3", "--latency", "2ms", "--drop", "1", "--seeds", "3..5", "--floor", "5",
        "--together", "2", "--steps", "900", "--out", "sweep",
    )  # fmt: skip
    common = {"latency_ns": 2e6, "accuracy_drop": 0.01}
    energies = [budget.energy_pj for budget in swept["budgets"]]
    assert energies == pytest.approx([100e3, 200e3, 400e3])  # equal ratios
    assert swept["budgets"][0] == Budget(energy_pj=energies[0], **common)
    assert (swept["seeds"], swept["together"], swept["floor_drop"], swept["plan"].steps) == ([3, 4, 5], 2, 0.05, 900)
    assert (swept["resume"], swept["only"], swept["halt"]) == (False, (), False)
    assert code == 0 and "r20-s0" in out and "written to sweep" in out
    assert swept["network"](1).workload.name == "DigitsCNN"


def test_a_member_alone_goes_on_with_what_is_there(run, swept):
    run("pareto", "--ratio", "20,25", "--member", "r20-s0", "--halt", "--quantizer", "lsq", "--out", "sweep")
    assert swept["budgets"] == [Budget(energy_ratio=20.0), Budget(energy_ratio=25.0)]
    assert (swept["resume"], swept["only"], swept["halt"]) == (True, ("r20-s0",), True)
    assert swept["plan"] == dataclasses.replace(Plan(), quantizer="lsq")  # the lengths are those of a default run


def test_tables_that_the_machine_lacks_are_said_before_anything_is_made(run, swept, tmp_path):
    given = ("pareto", "--quantizer", "codebook", "--out", "sweep")
    code, out, err = run(*given)
    assert (code, out) == (2, "") and "a codebook of 4 label bits on envision; legal are none" in err
    assert "budgets" not in swept and not (tmp_path / "sweep").exists()
    assert run(*given, "--machine", "eie", "--label-bits", "3")[0] == 0
    assert swept["plan"] == dataclasses.replace(Plan(), quantizer="codebook", label_bits=3)


def test_a_sweep_without_a_design_ends_with_1(run, swept):
    swept["front"] = _front(DIVERGED)
    assert run("pareto", "--out", "sweep")[0] == 1


def test_report_prints_a_sweep_again(run, tmp_path):
    write_front(tmp_path, _front())
    code, out, err = run("report", tmp_path)
    assert (code, err) == (0, "") and "r20-s0" in out and "hypervolume" in out


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("--energy", "100nJ", "--ratio", "20"), "--energy and --ratio both say what to spend"),
        (("--energy", "100nJ..500nJ"), "write a range as FROM..TO:COUNT"),
        (("--energy", "100nJ..100nJ:4"), "two ends that differ"),
        (("--ratio", "10..20:1"), "2 to 1000 values"),
        (("--energy", "100,200nJ"), "--energy: .*100"),
        (("--ratio", "20,,30"), "times below the 16-bit reference, such as 20,25,30"),
        (("--ratio", "-3"), "--ratio -3"),
        (("--seeds", "0..x"), "--seeds 0..x: write whole numbers such as 0,1,2"),
        (("--seeds", "4..2"), "write the lower end first"),
        (("--seeds", "0..300", "--ratio", "10..20:8"), "301 seeds: at most 1000 members"),
        (("--floor", "0"), "--floor 0.0: write points"),
        (("--drop", "nan"), "--drop nan"),
        (("--halt",), "name them with --member"),
        (("--steps", "0"), "--steps 0: at least 1"),
    ],
)
def test_bad_options_are_one_message_before_any_work(run, swept, argv, words):
    code, out, err = run("pareto", *argv)
    assert (code, out, err.count("\n")) == (2, "", 1) and re.search(words, err) and "budgets" not in swept


def test_ranges_and_lists():
    assert spread("--ratio", "10..40:3", float) == pytest.approx([10.0, 20.0, 40.0])
    assert spread("--ratio", "0.5 .. 2.5:2", float) == pytest.approx([0.5, 2.5])
    assert spread("--ratio", "10,12.5", float) == [10.0, 12.5]
    ratios = np.diff(np.log(spread("--ratio", "3..300:7", float)))
    np.testing.assert_allclose(ratios, np.log(100.0) / 6)
    assert seeds_of("2") == [2] and seeds_of("1, 3") == [1, 3] and seeds_of("0..2") == [0, 1, 2]
