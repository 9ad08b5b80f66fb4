"""What the figures share: the published points with their status, and how points, tables and pictures are written."""

import csv
import dataclasses
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

HERE = pathlib.Path(__file__).parent
BLUE, GREEN, RED, ORANGE, GREY, BLACK = "#3b6fb6", "#1b7837", "#a50f15", "#e08214", "#777777", "#000000"
# Filled: read in a source; half filled: computed from such numbers; hollow and grey: recalled, read nowhere.
STATUS = {"yes": "published", "derived": "derived from published", "no": "recalled, not verified"}


@dataclasses.dataclass(frozen=True)
class Point:
    """One number of published.csv; x is None where the source does not state it."""

    series: str
    x: float | None
    y: float
    bits: float | None
    verified: str
    what: str


def published(figure: str) -> list[Point]:
    """The published points of a figure, in the order of the file."""
    with (HERE / "published.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["figure"] == figure]
    return [
        Point(row["series"], _number(row["x"]), float(row["y"]), _number(row["bits"]), row["verified"], row["what"])
        for row in rows
    ]


def mark(axis: Any, points: Iterable[tuple[float, float]], verified: str, colour: str, marker: str = "o") -> None:
    """Draws points as their status asks."""
    found = list(points)
    face = {"yes": colour, "derived": colour, "no": "white"}[verified]
    style = {"fillstyle": "left", "markerfacecoloralt": "white"} if verified == "derived" else {}
    edge = GREY if verified == "no" else colour
    axis.plot(
        *zip(*found, strict=True), linestyle="none", marker=marker, markersize=7, markerfacecolor=face,
        markeredgecolor=edge, zorder=5, **style,
    )  # fmt: skip


def status_legend(figure: Figure, used: Iterable[str], extra: Iterable[tuple[str, Any]] = ()) -> None:
    """One legend below all panels: what filled, half-filled and hollow points are, and whatever else is given."""
    from matplotlib.lines import Line2D

    seen = set(used)
    handles, labels = [], []
    for status, label in STATUS.items():
        if status in seen:
            face = {"yes": BLACK, "derived": BLACK, "no": "white"}[status]
            style = {"fillstyle": "left", "markerfacecoloralt": "white"} if status == "derived" else {}
            edge = GREY if status == "no" else BLACK
            handles.append(
                Line2D([], [], linestyle="none", marker="o", markersize=7, markerfacecolor=face,
                       markeredgecolor=edge, **style)
            )  # fmt: skip
            labels.append(label)
    for label, handle in extra:
        handles.append(handle)
        labels.append(label)
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=8, frameon=False)


def tidy(axis: Any, title: str, xlabel: str, ylabel: str) -> None:
    """Title on the left, units on both axes, no box."""
    axis.set_title(title, loc="left", fontsize=10)
    axis.set_xlabel(xlabel, fontsize=9)
    axis.set_ylabel(ylabel, fontsize=9)
    axis.tick_params(labelsize=8)
    axis.grid(True, alpha=0.25)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


def save(name: str, figure: Figure, rows: list[Mapping[str, Any]]) -> None:
    """Writes NAME.png and NAME.csv beside this file, numbers to five digits."""
    FigureCanvasAgg(figure).print_figure(HERE / f"{name}.png", dpi=120)
    with (HERE / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows([{key: _spell(value) for key, value in row.items()} for row in rows])


def _spell(value: Any) -> Any:
    if value is None:
        return ""
    return f"{value:.5g}" if isinstance(value, float) else value


def _number(text: str) -> float | None:
    return float(text) if text else None
