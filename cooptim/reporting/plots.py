"""Pictures of a run as PNG; drawn without pyplot, so that no global state is touched."""

import os
import pathlib
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from cooptim.cost.report import COMPONENTS
from cooptim.descent.result import Priced, Result
from cooptim.descent.summary import DESIGNS
from cooptim.reporting.spell import spell, times

# Hues by where the energy goes: datapath blue, buffer greens, overhead greys, DRAM reds.
_COLOURS: dict[str, str] = {
    "datapath": "#3b6fb6",
    "sram_w": "#1b7837", "sram_i": "#5aae61", "sram_o": "#a6dba0",
    "control": "#777777", "leakage": "#bbbbbb",
    "dram_w": "#a50f15", "dram_i": "#de2d26", "dram_o": "#fc9272",
}  # fmt: skip


def write_plots(out: str | os.PathLike[str], result: Result) -> list[pathlib.Path]:
    """Writes energy.png, widths.png and trajectory.png into a directory; returns their paths."""
    folder = pathlib.Path(out)
    figures = {"energy": energy_figure(result), "trajectory": trajectory_figure(result)}
    if "final" in result.designs:
        figures["widths"] = widths_figure(result)
    paths = []
    for name, figure in figures.items():
        path, temporary = folder / f"{name}.png", folder / f".{name}.png"
        try:
            FigureCanvasAgg(figure).print_png(temporary)
            os.replace(temporary, path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise ValueError(f"{path}: cannot be written ({error.strerror}); choose another directory") from None
        paths.append(path)
    return paths


def energy_figure(result: Result) -> Figure:
    """Energy by layer and component, a panel a design, each with its own scale."""
    found = [(key, result.designs[key]) for key in DESIGNS if key in result.designs]
    names = result.workload.names
    height = max(2.2, 0.34 * len(names) + 1.2)
    figure = Figure(figsize=(9.0, height * len(found) + 0.6), layout="constrained")
    axes = figure.subplots(len(found), 1, squeeze=False)[:, 0]
    reference = result.designs.get("reference_16b")
    for ax, (key, priced) in zip(axes, found, strict=True):
        _stack(ax, priced)
        total = float(priced.report.total_energy_pj)
        gain = ""
        if reference is not None and key != "reference_16b":
            gain = f", {times(float(reference.report.total_energy_pj) / total)} below 16 b"
        ax.set_title(f"{priced.title}: {spell(total, 'energy')}{gain}", loc="left", fontsize=10)
        ax.set_yticks(range(len(names)), names, fontsize=8)
        ax.invert_yaxis()
        ax.set_xlabel("energy per inference [nJ]", fontsize=8)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, fontsize=8, frameon=False)
    return figure


def _stack(ax: Any, priced: Priced) -> None:
    """Stacked horizontal bars, a bar a layer."""
    rows = np.arange(len(priced.report.layer_names))
    left = np.zeros(len(rows))
    for name in COMPONENTS:
        part = np.asarray(priced.report.energy_pj[name], float) / 1e3
        ax.barh(rows, part, left=left, color=_COLOURS[name], label=name.replace("_", " "), height=0.7)
        left += part
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)


def widths_figure(result: Result) -> Figure:
    """Widths and shares of non-zero words by layer of the joint design, the best uniform width beside them."""
    final, uniform = result.designs["final"], result.designs.get("best_uniform")
    names = result.workload.names
    rows = np.arange(len(names))
    figure = Figure(figsize=(max(6.0, 0.45 * len(names) + 3.0), 5.6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    upper.bar(rows - 0.2, np.asarray(final.design.weight_bits), 0.4, color="#3b6fb6", label="weights")
    upper.bar(rows + 0.2, np.asarray(final.design.input_bits), 0.4, color="#e08214", label="inputs")
    if uniform is not None:
        width = float(np.max(np.asarray(uniform.design.weight_bits)))
        upper.axhline(width, color="#444444", linestyle="--", linewidth=1, label="best uniform")
    upper.set_ylabel("width [bit]")
    upper.set_ylim(0, None)
    lower.bar(rows - 0.2, np.asarray(final.stats.weight_density), 0.4, color="#3b6fb6")
    lower.bar(rows + 0.2, np.asarray(final.stats.input_density), 0.4, color="#e08214")
    lower.set_ylabel("non-zero share")
    lower.set_ylim(0, 1)
    lower.set_xticks(rows, names, rotation=30 if len(names) < 12 else 90, ha="right", fontsize=8)
    figure.legend(*upper.get_legend_handles_labels(), loc="outside upper right", ncols=3, fontsize=8, frameon=False)
    figure.suptitle(f"{result.workload.name} on {result.machine.name}", x=0.01, ha="left", fontsize=10)
    return figure


def trajectory_figure(result: Result) -> Figure:
    """Loss, energy and accuracy over the steps of the joint descent, with budget, bound and legal design."""
    history = result.history
    steps = np.asarray(history["step"], float)
    figure = Figure(figsize=(7.5, 7.0), layout="constrained")
    loss, energy, accuracy = figure.subplots(3, 1, sharex=True)
    _line(loss, steps, history.get("loss"), "#3b6fb6", None)
    loss.set_ylabel("loss")
    loss.set_yscale("log")
    _line(energy, steps, _energy_nj(history), "#a50f15", "relaxed design")
    end = float(np.nanmax(steps)) if np.isfinite(steps).any() else 0.0
    if "final" in result.designs:
        final_nj = float(result.designs["final"].report.total_energy_pj) / 1e3
        energy.plot([end], [final_nj], "o", color="black", markersize=5, label="legal design")
    if result.budget.energy_pj is not None:
        energy.axhline(result.budget.energy_pj / 1e3, color="#444444", linestyle="--", linewidth=1, label="budget")
    energy.axhline(result.bound_pj / 1e3, color="#999999", linestyle=":", linewidth=1, label="bound")
    energy.set_ylabel("energy [nJ]")
    energy.set_yscale("log")
    energy.legend(fontsize=8, frameon=False)
    for key, label in (("accuracy", "batch"), ("val_accuracy", "validation")):
        values = history.get(key)
        _line(accuracy, steps, None if values is None else 100.0 * np.asarray(values, float), None, label)
    floor = 100.0 * (result.float_val_accuracy - result.budget.accuracy_drop)
    accuracy.axhline(floor, color="#444444", linestyle="--", linewidth=1, label="lowest allowed")
    accuracy.set_ylabel("accuracy [%]")
    accuracy.set_xlabel("step of the joint descent")
    accuracy.legend(fontsize=8, frameon=False, loc="lower right")
    return figure


def _line(ax: Any, steps: np.ndarray, values: Any, colour: str | None, label: str | None) -> None:
    """A curve through what was recorded; nothing where nothing was."""
    if values is None:
        return
    values = np.asarray(values, float)
    seen = np.isfinite(values) & np.isfinite(steps)
    ax.plot(steps[seen], values[seen], color=colour, label=label, linewidth=1.2)


def _energy_nj(history: dict[str, np.ndarray]) -> np.ndarray | None:
    """The energy curve [nJ], whether recorded as such or as its logarithm."""
    if "energy_pj" in history:
        return np.asarray(history["energy_pj"], float) / 1e3
    return np.exp(np.asarray(history["log_energy"], float)) / 1e3 if "log_energy" in history else None
