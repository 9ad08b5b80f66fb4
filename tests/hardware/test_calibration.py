"""The fit behind envision.yaml, repeated."""

import csv
import importlib.util
import json
import sys

import pytest

from cooptim.hardware import load_machine_file
from cooptim.hardware.circuit_file import load_multiplier


@pytest.fixture(scope="module")
def calibrate(root):
    folder = root / "experiments" / "calibrate"
    spec = importlib.util.spec_from_file_location("calibrate_run", folder / "run.py")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(folder))
    spec.loader.exec_module(module)
    sys.path.remove(str(folder))
    yield module
    del sys.modules["six_rows"]


@pytest.fixture(scope="module")
def six(calibrate):
    return calibrate.Calibration(load_machine_file("envision"), load_multiplier("dvafs_multiplier_40nm"))


@pytest.fixture(scope="module")
def profiles(root):
    return json.loads((root / "experiments" / "calibrate" / "profiles.json").read_text())


def test_a_fresh_fit_gives_the_values_that_the_machine_file_carries(calibrate):
    file = load_machine_file("envision")
    assert len(calibrate.FITTED) == 3
    for path, value in calibrate.fit(file).items():
        assert file.numbers[path].value == pytest.approx(value, abs=2e-4), path


def test_three_parameters_close_the_ratios_at_both_ends_of_every_assumed_interval(calibrate, root):
    recorded = json.loads((root / "experiments" / "calibrate" / "expected.json").read_text())
    titles = [row["variant"] for row in recorded["rows"]]
    assert titles == [title for title, _ in calibrate.variants(load_machine_file("envision"))]
    assert max(abs(e) for row in recorded["rows"] for e in row["errors"]) <= 0.05
    assert max(abs(e) for e in recorded["rows"][0]["errors"]) <= 0.03


def test_the_record_is_of_the_machine_file_as_it_is(calibrate, root):
    recorded = json.loads((root / "experiments" / "calibrate" / "expected.json").read_text())
    file = load_machine_file("envision")
    assert recorded["carried"] == {path: file.numbers[path].value for path in calibrate.FITTED}
    final = calibrate.with_numbers(file, recorded["rows"][2]["fitted"] | {"reference.shares.leakage": 0.15})
    assert calibrate.ratios(final) / calibrate.TARGETS - 1 == pytest.approx(recorded["rows"][2]["errors"], abs=1e-6)


def test_recorded_zero_rates_give_the_published_sparse_gains(calibrate):
    file = load_machine_file("envision")
    for gain in (1.6, 2.4):
        zeros = calibrate.zero_rate_for(file, gain)
        assert 0 < zeros < 1
        found = calibrate.sparse_gain(file.machine, file.reference, 1 - zeros, 1 - zeros)
        assert float(found) == pytest.approx(gain, rel=1e-4)


def test_four_parameters_meet_all_six_rows_within_three_percent(six, profiles):
    assert len(profiles["fitted"]) == 4 and len(profiles["rows"]) == 6
    for parameters in (six.carried, six.fit()):
        assert abs(six.errors(parameters)).max() <= 0.03


def test_the_two_supplies_are_the_published_ones(six, shared):
    with open(shared / "reference" / "envision_modes.csv", newline="") as file:
        table = {row["id"]: row for row in csv.DictReader(file)}
    for name, row in (("4b_at_500_mhz", "mul_dvas_4"), ("4x4b_at_125_mhz", "mul_dvafs_4")):
        bits, freq, volts = sys.modules["six_rows"].SUPPLIES[name]
        assert table[row]["verified"] == "yes"
        assert [bits, 1e3 * freq, volts] == [float(table[row][key]) for key in ("bits", "f_mhz", "vdd_v")]


def test_a_fresh_fit_gives_the_multipliers_threshold(six, profiles):
    found = six.fit()
    assert six.carried["threshold_40nm"] == pytest.approx(found["threshold_40nm"], abs=1e-3)
    assert profiles["fitted"] == pytest.approx({name: found[name] for name in profiles["fitted"]}, abs=1e-5)
    assert profiles["carried"] == pytest.approx({name: six.carried[name] for name in profiles["carried"]})
    # The ratios alone put Envision's path share at 0.744, the six rows at 0.740: one number serves both chips.
    assert float(six.multiplier.path_share) == six.carried["path_share"]


@pytest.mark.parametrize("name", ["share", "path_share", "threshold_28nm", "threshold_40nm"])
def test_beyond_a_recorded_interval_no_refit_keeps_the_six_rows(six, profiles, name):
    free = tuple(other for other in profiles["fitted"] if other != name)
    interval = profiles["profiles"][name]
    assert interval["identified"] and interval["low"] < six.carried[name] < interval["high"]
    width = interval["high"] - interval["low"]
    for end, out in ((interval["low"], -1), (interval["high"], 1)):
        start = six.fit()
        assert six.least_worst({name: end - 0.02 * out * width}, free, start)[1] <= 0.05
        assert six.least_worst({name: end + 0.02 * out * width}, free, start)[1] > 0.05


def test_what_the_rows_do_not_bound_is_said_so(profiles, calibrate, capsys):
    for name in ("alpha", "leakage", "leakage_exponent", "fixed_share", "gating_exponent", "subword_exponent"):
        assert not profiles["profiles_assumed"][name]["identified"], name
    calibrate.show(profiles)
    printed = capsys.readouterr().out
    assert printed.count("not identified") >= 9 and "alpha              not identified (all of" in printed


def test_a_parameter_out_of_reach_shows_as_no_value(six, calibrate, monkeypatch):
    monkeypatch.setattr(sys.modules["six_rows"], "TOLERANCE", 1e-4)
    assert six.profile("share", ("share", "path_share")) == {"low": None, "high": None, "identified": False}
