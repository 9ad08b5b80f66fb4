"""What does a word cost at each level of the memories that the package knows, beside the published energies?

Figure 9 of Verhelst & Moons, "Embedded Deep Neural Network Processing" (IEEE Solid-State Circuits Magazine, fall 2017).
Every memory of every hierarchy file: energy of reading one 16-bit word at the file's size and port width, in pJ and
over that of the file's DRAM; lines where the file frees the size. Published: Horowitz (45 nm) and Eyeriss's ratios.

    python experiments/survey_figures/fig09.py
Writes fig09.png and fig09.csv beside this file.
"""

import dataclasses
import pathlib
import sys
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from cooptim.hardware.hierarchy import Memory  # noqa: E402
from cooptim.hardware.hierarchy_file import hierarchy_names, load_hierarchy, load_hierarchy_file  # noqa: E402
from experiments.survey_figures import drawing as draw  # noqa: E402

WORD_BITS = 16
BITS_PER_KB = 8 * 1024
COLOURS = {
    "edge_45nm": draw.GREEN, "envision": draw.BLUE, "eyeriss_like": draw.ORANGE, "gemmini": draw.RED,
    "meta_prototype": "#8e6bb0", "tpu_like": draw.GREY,
}  # fmt: skip
OUTSIDE = 2.5  # where DRAM stands, in largest sizes on chip


def word_pj(memory: Memory) -> float:
    """Energy of reading 16 bit towards the MACs, at the file's size and port."""
    operand = memory.operands[0]
    port = memory.port(operand, "read_to_low")
    return float(memory.access_pj(operand, "read_to_low") / port.bw_max_bits * WORD_BITS)


def rows() -> list[dict[str, Any]]:
    """One row a memory of each file; kB empty off chip."""
    found = []
    for name in hierarchy_names():
        chip, checked = load_hierarchy(name), not load_hierarchy_file(name).illustrative
        dram = word_pj(chip.memories[-1])
        for memory in chip.memories:
            energy = word_pj(memory)
            size = None if memory is chip.memories[-1] else float(memory.size_bits) / BITS_PER_KB
            found.append({
                "kind": "model", "series": name, "silicon": "yes" if checked else "no silicon check",
                "memory": memory.name, "kb": size,
                "word_pj": energy, "over_mac": energy / float(chip.mac_pj), "over_dram": energy / dram,
            })  # fmt: skip
    return found


def curves() -> list[tuple[str, np.ndarray, np.ndarray, float]]:
    """(file, kB, pJ a word, pJ of its DRAM) of every memory whose size is free, each law once."""
    found: dict[tuple[str, float, float], tuple[str, np.ndarray, np.ndarray, float]] = {}
    for name in hierarchy_names():
        chip = load_hierarchy(name)
        for memory in chip.memories[:-1]:
            least, most = float(memory.min_bits), float(memory.max_bits)
            if least < most:
                sizes = np.geomspace(least, most, 40)
                energy = np.array([word_pj(dataclasses.replace(memory, size_bits=float(size))) for size in sizes])
                key = (name, round(float(np.log(energy[0])), 6), round(float(np.log(energy[-1])), 6))
                found.setdefault(key, (name, sizes / BITS_PER_KB, energy, word_pj(chip.memories[-1])))
    return list(found.values())


def published_rows() -> list[dict[str, Any]]:
    """The published energies of a 16-bit word: in pJ, or over a MAC and over DRAM where only ratios are published."""
    points = draw.published("fig09")
    ratio_dram = next(p.y for p in points if p.series == "Eyeriss ratios" and p.what == "DRAM")
    horowitz_dram = min(p.y / p.bits for p in points if p.series == "Horowitz DRAM" and p.bits) * WORD_BITS
    found = []
    for point in points:
        assert point.bits is not None
        word, ratio = point.y / point.bits * WORD_BITS, point.series == "Eyeriss ratios"
        found.append({
            "kind": "published" if point.verified == "yes" else point.verified, "series": point.series, "silicon": "",
            "memory": point.what, "kb": point.x,
            "word_pj": None if ratio else word, "over_mac": word if ratio else None,
            "over_dram": word / (ratio_dram if ratio else horowitz_dram),
        })  # fmt: skip
    return found


def figure(model: list[dict[str, Any]], measured: list[dict[str, Any]]) -> Figure:
    """Energy of a word against size: absolute on the left, over DRAM on the right."""
    found = Figure(figsize=(11.0, 5.0), layout="constrained")
    axes = found.subplots(1, 2)
    outside = OUTSIDE * max(row["kb"] for row in model if row["kb"])
    for axis, key in zip(axes, ("word_pj", "over_dram"), strict=True):
        for name, sizes, energy, dram in curves():
            axis.plot(sizes, energy / (dram if key == "over_dram" else 1.0), color=COLOURS[name], linewidth=1.2)
        for row in model:
            if row[key] > 0:
                face = COLOURS[row["series"]] if row["silicon"] == "yes" else "white"
                axis.plot(row["kb"] or outside, row[key], "s", markersize=6, color=COLOURS[row["series"]],
                          markerfacecolor=face)  # fmt: skip
        for series, marker in (("Horowitz", "D"), ("Eyeriss", "*")):
            some = [row for row in measured if row["series"].startswith(series) and row[key] is not None]
            on_figure = [row for row in some if row["kb"] or "DRAM" in row["series"] or row["memory"] == "DRAM"]
            if on_figure:
                axis.plot([row["kb"] or outside for row in on_figure], [row[key] for row in on_figure], marker,
                          color=draw.BLACK, markersize=11 if marker == "*" else 7, zorder=6,
                          markerfacecolor="white" if marker == "*" else draw.BLACK)  # fmt: skip
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.axvline(outside / OUTSIDE**0.5, color=draw.GREY, linewidth=0.8, linestyle=":")
        ticks = [10.0**power for power in range(-3, 4)]
        axis.set_xticks([*ticks, outside], [*(f"{tick:g}" for tick in ticks), "DRAM"])
        axis.minorticks_off()
    draw.tidy(axes[0], "Energy of reading a 16-bit word", "capacity [kB]", "energy [pJ a word]")
    draw.tidy(axes[1], "The same over the file's own DRAM", "capacity [kB]", "energy over that of DRAM [1]")
    handles, labels = [], []
    checked = {row["series"]: row["silicon"] for row in model}
    for name, colour in COLOURS.items():
        yes = checked[name] == "yes"
        handles.append(Line2D([], [], marker="s", color=colour, linestyle="none",
                              markerfacecolor=colour if yes else "white"))  # fmt: skip
        labels.append(f"{name} ({'chip checked, memory assumed' if yes else 'no silicon check'})")
    for marker, label in (("D", "published: Horowitz, 45 nm"), ("*", "Eyeriss: ratios published, sizes recalled")):
        handles.append(Line2D([], [], marker=marker, color=draw.BLACK, linestyle="none", markersize=8,
                              markerfacecolor="white" if marker == "*" else draw.BLACK))  # fmt: skip
        labels.append(label)
    found.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    return found


def main() -> None:
    """Writes picture and table, prints the table."""
    jax.config.update("jax_enable_x64", True)
    model, measured = rows(), published_rows()
    draw.save("fig09", figure(model, measured), [*model, *measured])
    for row in (*model, *measured):
        print("  ".join("" if v is None else f"{v:.4g}" if isinstance(v, float) else str(v) for v in row.values()))


if __name__ == "__main__":
    main()
