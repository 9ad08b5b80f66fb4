"""The fit behind envision.yaml, repeated."""

import importlib.util
import json

import pytest

from cooptim.hardware import load_machine_file


@pytest.fixture(scope="module")
def calibrate(root):
    spec = importlib.util.spec_from_file_location("calibrate_run", root / "experiments" / "calibrate" / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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
