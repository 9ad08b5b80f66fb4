import io
import sys

import pytest
from PIL import Image
from rich.console import Console

from cooptim.reporting import report
from cooptim.reporting.plots import energy_figure, trajectory_figure, widths_figure
from tests.reporting import fake_run


def _quiet():
    return Console(file=io.StringIO(), width=80)


def test_a_report_writes_figures_tables_and_pictures(tmp_path):
    console = _quiet()
    report(fake_run.result(), tmp_path / "run", console=console)
    assert sorted(file.name for file in (tmp_path / "run").iterdir()) == [
        "design.json", "energy.png", "layers.csv", "result.json", "trajectory.png", "weights.npz", "widths.png"
    ]  # fmt: skip
    for name in ("energy", "trajectory", "widths"):
        with Image.open(tmp_path / "run" / f"{name}.png") as picture:
            assert picture.width >= 500 and len(picture.convert("L").getcolors()) > 10  # not blank
    assert "joint" in console.file.getvalue()


def test_a_report_without_a_directory_only_prints(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    report(fake_run.result(), console=_quiet())
    assert list(tmp_path.iterdir()) == []


def test_bars_of_the_energy_picture_are_as_long_as_the_layers_cost():
    axes = energy_figure(fake_run.result()).axes
    assert len(axes) == 4
    joint = axes[-1]
    # Scale 40: layer i takes 45 (i + 1) * 40 pJ = 1.8 and 3.6 nJ.
    ends = {0: 0.0, 1: 0.0}
    for bar in joint.patches:
        layer = round(bar.get_y() + bar.get_height() / 2)
        assert bar.get_x() == pytest.approx(ends[layer])  # each part begins where the one before ends
        ends[layer] += bar.get_width()
    assert ends == pytest.approx({0: 1.8, 1: 3.6})


def test_the_trajectory_shows_relaxed_energy_budget_and_accuracy_recorded_now_and_then():
    loss, energy, accuracy = trajectory_figure(fake_run.result()).axes
    assert loss.lines[0].get_ydata()[0] == 2.0
    assert energy.lines[0].get_ydata()[0] == pytest.approx(150.0)
    labels = {line.get_label(): line for line in energy.lines}
    assert labels["budget"].get_ydata()[0] == 6.0 and labels["legal design"].get_ydata()[0] == pytest.approx(6.0)
    assert len(accuracy.lines[0].get_ydata()) == 5  # every second row was measured


def test_the_widths_picture_shows_both_operands():
    upper, lower = widths_figure(fake_run.result()).axes
    assert sorted(bar.get_height() for bar in upper.patches) == [4, 4, 6, 6]
    assert sorted(bar.get_height() for bar in lower.patches) == [0.25, 0.5, 0.75, 1.0]


def test_without_matplotlib_the_files_are_written_and_the_lack_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "cooptim.reporting.plots", None)
    console = _quiet()
    report(fake_run.result(), tmp_path, console=console)
    assert (tmp_path / "result.json").is_file() and "matplotlib is not installed" in console.file.getvalue()
