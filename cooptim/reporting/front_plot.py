"""The picture of a sweep: validation accuracy against energy, the front drawn as what it dominates."""

import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

_SEEDS = ("#3b6fb6", "#e08214", "#1b7837", "#a50f15", "#7a5195", "#777777")


def write_front_plot(out: str | os.PathLike[str], content: Mapping[str, Any]) -> pathlib.Path:
    """Writes front.png into a directory; ValueError when it cannot be written."""
    folder = pathlib.Path(out)
    path, temporary = folder / "front.png", folder / ".front.png"
    try:
        FigureCanvasAgg(front_figure(content)).print_png(temporary)
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise ValueError(f"{path}: cannot be written ({error.strerror}); choose another directory") from None
    return path


def front_figure(content: Mapping[str, Any]) -> Figure:
    """Members by seed, the front as a step, the references of each seed; `content` as in front.json."""
    figure = Figure(figsize=(7.5, 5.0), layout="constrained")
    ax = figure.subplots()
    made = [one for one in content["members"] if one["energy_pj"] is not None and one["val_accuracy"] is not None]
    seeds = sorted({one["seed"] for one in made})
    for number, seed in enumerate(seeds):
        colour, mine = _SEEDS[number % len(_SEEDS)], [one for one in made if one["seed"] == seed]
        _dots(ax, [one for one in mine if one["status"] == "finished"], "o", colour, f"seed {seed}")
        _dots(ax, [one for one in mine if one["status"] != "finished"], "x", colour, None)
        ax.axhline(100.0 * mine[0]["float_val_accuracy"], color=colour, linestyle=":", linewidth=0.8)
        if mine[0]["uniform_pj"] is not None:
            ax.plot(
                [mine[0]["uniform_pj"] / 1e3], [100.0 * mine[0]["uniform_val_accuracy"]], "s", color=colour,
                markerfacecolor="none", markersize=7,
            )  # fmt: skip
    _staircase(ax, sorted((one for one in made if one["on_front"]), key=lambda one: one["energy_pj"]))
    ax.plot([], [], "s", color="#444444", markerfacecolor="none", label="best uniform width")
    ax.plot([], [], ":", color="#444444", label="float parent")
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xlabel("energy per inference of the legal design [nJ]")
    ax.set_ylabel("validation accuracy [%]")
    share = content["hypervolume"]["share"]
    tail = "" if share is None else f", hypervolume {share:.4f}"
    ax.set_title(f"{content['workload']} on {content['machine']}{tail}", loc="left", fontsize=10)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    if seeds:
        figure.legend(loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    return figure


def _dots(ax: Any, members: list[Mapping[str, Any]], marker: str, colour: str, label: str | None) -> None:
    if members:
        x, y = (np.asarray([one[key] for one in members], float) for key in ("energy_pj", "val_accuracy"))
        ax.plot(x / 1e3, 100.0 * y, marker, color=colour, markersize=5, label=label)


def _staircase(ax: Any, front: list[Mapping[str, Any]]) -> None:
    """The edge of what the front dominates: an accuracy holds from its energy up to the next better one's."""
    if front:
        x, y = (np.asarray([one[key] for one in front], float) for key in ("energy_pj", "val_accuracy"))
        ax.plot(x / 1e3, 100.0 * y, drawstyle="steps-post", color="black", linewidth=1.2, label="front")
