"""What a sweep prints and draws, from a front.json made by hand."""

import io

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from rich.console import Console

from cooptim.descent.front import DIVERGED, FINISHED, INFEASIBLE, Front, Point, front_content
from cooptim.descent.memory import Estimate
from cooptim.reporting.front_plot import front_figure, write_front_plot
from cooptim.reporting.pareto import estimate_line, front_notes, front_table, print_front

GIB = 2**30


def _member(name, seed, energy, accuracy, status=FINISHED, **more):
    return Point(
        name, seed, status, 1800, 50_000.0, 20.0, reference_pj=1e6, float_val_accuracy=0.98, float_test_accuracy=0.97,
        uniform_bits=4, uniform_pj=80_000.0, uniform_val_accuracy=0.975, uniform_test_accuracy=0.96, bound_pj=1e4,
        energy_pj=energy, val_accuracy=accuracy, test_accuracy=accuracy and accuracy - 0.01,
        latency_ns=2000.0 if energy else None, area_mm2=1.87 if energy else None, **more,
    )  # fmt: skip


@pytest.fixture(scope="module")
def content():
    points = (
        _member("r20-s0", 0, 50_000.0, 0.97),
        _member("r40-s0", 0, 25_000.0, 0.93),
        _member("r30-s0", 0, 60_000.0, 0.96),
        _member("r20-s1", 1, None, None, DIVERGED, note="not finite after step 7 of 1800"),
        Point("r400-s1", 1, INFEASIBLE, 0, None, 400.0, note="energy budget 2.5 nJ is below the bound 10 nJ"),
    )  # fmt: skip
    memory = {"estimated": GIB, "peak": 3 * GIB // 2}
    return front_content(Front("toy", "envision", points, 10, 0.1, "chance, 1 of 10", memory, {}))


def _text(width, *parts):
    file = io.StringIO()
    console = Console(file=file, width=width)
    for part in parts:
        console.print(part)
    return file.getvalue()


@pytest.mark.parametrize("width", [80, 120])
def test_members_are_listed_by_energy_with_the_front_starred(content, width):
    text = _text(width, front_table(content))
    assert max(map(len, text.splitlines())) <= width and "…" not in text
    rows = [line.split() for line in text.splitlines() if "-s" in line]
    assert [row[:2] for row in rows[:2]] == [["*", "r40-s0"], ["*", "r20-s0"]] and rows[2][0] == "r30-s0"
    # 1 uJ over 25 nJ; 98 - 93 points.
    assert rows[0][2:] == ["50", "nJ", "25", "nJ", "40x", "93.0", "%", "5.00", "92.0", "%", "2", "us"]
    assert rows[3][:4] == ["r20-s1", "50", "nJ", "diverged"] and rows[4][:3] == ["r400-s1", "1/400", "infeasible"]


def test_notes_say_volume_reference_point_references_reasons_and_memory(content):
    text = "\n".join(front_notes(content))
    # Of two decades log10(20) = 1.3010 and log10(40) = 1.6021 are saved; accuracy from 0.1: 0.87/0.9 and 0.83/0.9.
    assert (
        "hypervolume 0.7676 (seed 0 0.7676)" in text and "from 1 uJ (16 b)" in text and "10.0 % (chance, 1 of" in text
    )
    assert "seed 0: float 98.0 % val, 97.0 % test; 16 b 1 uJ; uniform 4 b 80 nJ, 97.5 % val, 96.0 % test" in text
    assert "MISSED, more energy than asked: r30-s0 1.2x\n" in text  # 60 of 50 nJ; 50 and 25 nJ are within
    assert "r20-s1: diverged: not finite after step 7 of 1800" in text and "--member NAME" in text
    assert "r400-s1: infeasible: energy budget" in text and "1.00 GiB estimated, 1.50 GiB at the peak" in text


def test_a_sweep_without_any_design_prints_and_draws(content, tmp_path):
    lost = Point("a-s0", 0, DIVERGED, 0, 1.0, None)
    empty = front_content(Front("toy", "envision", (lost,), 10, 0.1, "chance", {}, {}))
    said = io.StringIO()
    print_front(Console(file=said, width=80), empty)
    assert "a-s0" in said.getvalue() and "diverged" in said.getvalue()
    picture = front_figure(empty)
    FigureCanvasAgg(picture).draw()
    assert all(len(line.get_xdata()) == 0 for line in picture.axes[0].get_lines())


def test_the_picture_has_every_design_and_the_front_as_a_staircase(content, tmp_path):
    (ax,) = front_figure(content).axes
    lines = {line.get_label(): line.get_xydata().tolist() for line in ax.get_lines()}
    assert lines["seed 0"] == [[50.0, 97.0], [25.0, 93.0], [60.0, 96.0]]
    assert lines["front"] == [[25.0, 93.0], [50.0, 97.0]]
    assert write_front_plot(tmp_path, content).read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="choose another directory"):
        write_front_plot(tmp_path / "nowhere", content)


def test_the_estimate_names_total_members_and_room():
    found = Estimate(resident=GIB, held=0, call=GIB // 2, total=3 * GIB // 2, available=GIB, members=32, together=8)
    line = estimate_line(found)
    assert "about 1.50 GiB" in line and "32 members, 8 in a call" in line and "2.00 GiB can be had" in line
