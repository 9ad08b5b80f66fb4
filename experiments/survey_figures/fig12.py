"""Where do published processors stand in throughput and efficiency, and where do the machine files put theirs?

Figure 12 of Verhelst & Moons, "Embedded Deep Neural Network Processing" (IEEE Solid-State Circuits Magazine, fall
2017). Published: ISSCC 2016 and 2017 as in processors.csv. Model: operations a second that each machine file does at
its reference duty and nominal clock, over the power of the chip without DRAM: its reference power in the widest mode,
the power law at the lowest supply in subword modes.

    python experiments/survey_figures/fig12.py
Writes fig12.png and fig12.csv beside this file.
"""

import csv
import pathlib
import sys
from typing import Any

import jax
import jax.numpy as jnp
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from cooptim.hardware.dvafs import critical_path, supply_for_clock  # noqa: E402
from cooptim.hardware.load import MachineFile, load_machine_file, machine_names  # noqa: E402
from cooptim.hardware.machine import Mode  # noqa: E402
from cooptim.hardware.reference import operating_power_mw, peak_gops  # noqa: E402
from experiments.survey_figures import drawing as draw  # noqa: E402

GOAL_GOPS, GOAL_TOPS_W = 100.0, 1.0
FITTED_LANES = 4  # the published ratios to which Envision's file was fitted are at four lanes
SUBWORDS = ("envision", "dvafs_sized", "simd_40nm")  # files that the power law of DVAFS prices in every mode
COLOURS = {
    "published": draw.BLACK, "input": draw.BLUE, "fitted": draw.GREEN, "predicted": draw.ORANGE, "assumed": draw.GREY,
}  # fmt: skip
KINDS = {
    "input": "model: power and peak published, inputs", "fitted": "model: fitted to published ratios",
    "predicted": "model: predicted", "assumed": "model: throughput or power recalled or chosen",
}  # fmt: skip
PAPER = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}  # behind a label
LABELS = {  # text, offset in points and side of each label
    "Eyeriss (AlexNet)": ("Eyeriss, AlexNet", (-7, -12), "right"),
    "STMicro DCNN SoC (Desoli)": ("ST DCNN SoC\n(each at its peak)", (8, 2), "left"),
    "Envision 16b": ("Envision 16 b", (-9, -6), "right"),
    "Envision 4b sparse": ("Envision 4 b, sparse", (-9, 4), "right"),
    "KAIST IoE (Sim)": ("KAIST IoE", (10, -3), "left"),
    "KAIST ADAS (Lee)": ("KAIST ADAS", (0, 11), "center"),
    "DNPU (Shin)": ("DNPU", (10, -3), "left"),
    "envision 1x16b": ("envision, dvafs_sized 1x16b", (6, -14), "left"),
    "envision 2x8b": ("2x8b", (-9, 2), "right"),
    "envision 4x4b": ("4x4b", (8, -4), "left"),
    "dvas_40nm 1x16b": ("dvas_40nm", (-8, 3), "right"),
    "dnn_engine 1x16b": ("dnn_engine", (-8, -3), "right"),
    "dnpu 1x16b": ("dnpu, 16 b", (8, -8), "left"),
    "isaac 1x16b": ("isaac, one tile", (8, -10), "left"),
    "rd_sec 1x8b": ("rd_sec", (-8, -3), "right"),
    "cnvlutin 1x16b": ("cnvlutin", (-8, -3), "right"),
    "zena 1x16b": ("zena", (8, 2), "left"),
    "systolic 1x8b": ("systolic, 32x32", (8, -4), "left"),
    "gemmini 1x8b": ("gemmini", (8, 5), "left"),
    "tpu_v1 1x8b": ("tpu_v1", (-8, -4), "right"),
    "eie 1x16b": ("eie, on compressed weights", (8, -4), "left"),
    "simd_40nm 1x16b": ("simd_40nm 1x16b", (8, -6), "left"),
    "simd_40nm 2x8b": ("2x8b", (8, 2), "left"),
    "simd_40nm 4x4b": ("4x4b", (8, -6), "left"),
    "yodann 1x12b": ("yodann", (-9, -3), "right"),
}


def published_rows() -> list[dict[str, Any]]:
    """The published processors; a figure that was not read is None."""
    with (draw.HERE / "processors.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [
        {"kind": "published", "series": row["name"], "point": row["point"], "gops": _number(row["throughput_gops"]),
         "power_mw": _number(row["power_mw"]), "tops_w": _number(row["efficiency_tops_w"]), "source": row["source"]}
        for row in rows
    ]  # fmt: skip


def rows() -> list[dict[str, Any]]:
    """One row a machine file and mode."""
    found = []
    for name in machine_names():
        file = load_machine_file(name)
        modes = file.machine.modes if name in SUBWORDS else file.machine.modes[:1]
        for mode in modes:
            gops = peak_gops(file.machine)[mode.name] * file.reference.busy_fraction
            power = file.reference.power_mw if mode.lanes == 1 else _power_mw(file, mode)
            found.append({
                "kind": kind_of(file, mode), "series": f"{name} {mode.name}", "point": "one",
                "gops": gops, "power_mw": power, "tops_w": gops / power, "source": file.spec.reference.power.source,
            })  # fmt: skip
    return found


def kind_of(file: MachineFile, mode: Mode) -> str:
    """What the model's point is worth: a key of KINDS."""
    chip = file.spec.chip
    if file.spec.reference.power.assumed or chip is None or chip.peak is None:
        return "assumed"
    if mode.lanes == 1:
        return "input"
    return "fitted" if mode.lanes == FITTED_LANES else "predicted"


def _power_mw(file: MachineFile, mode: Mode) -> float:
    """Power in a mode at the nominal clock, full slots and the lowest supply that reaches it [mW]."""
    supply, bits = file.machine.supply, float(mode.slot_bits)
    path = critical_path(supply, file.machine.datapath.width_bits, jnp.asarray(bits, jnp.result_type(float)))
    volts = supply_for_clock(supply, supply.nominal_ghz, path)
    return float(operating_power_mw(file.machine, file.reference, mode, bits, supply.nominal_ghz, volts))


def _number(text: str) -> float | None:
    return float(text) if text else None


def figure(model: list[dict[str, Any]], measured: list[dict[str, Any]]) -> Figure:
    """Efficiency against throughput; what has only one of them stands at the edge."""
    found = Figure(figsize=(9.0, 6.2), layout="constrained")
    axis = found.subplots()
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlim(1.5, 200000)
    axis.set_ylim(0.1, 20)
    axis.axhline(GOAL_TOPS_W, color=draw.GREY, linewidth=0.8, linestyle="--")
    axis.axvline(GOAL_GOPS, color=draw.GREY, linewidth=0.8, linestyle="--")
    for name in SUBWORDS:
        line = [row for row in model if row["series"].startswith(name)]
        axis.plot([r["gops"] for r in line], [r["tops_w"] for r in line], color=draw.GREY, linewidth=0.8)
    for row in [*measured, *model]:
        text = LABELS.get(row["series"])
        if text is None:
            continue
        x, y, (marker, size, above) = row["gops"], row["tops_w"], ("s", 8, 5) if row["kind"] in KINDS else ("o", 6, 6)
        colour, transform = COLOURS[row["kind"]], axis.transData
        if y is None:
            y, marker, transform = 0.0, "^", axis.get_xaxis_transform()
        elif x is None:
            x, marker, transform = 0.0, ">", axis.get_yaxis_transform()
        face = "white" if row["point"] == "two peaks" else colour
        axis.plot(x, y, marker, color=colour, markersize=size, markerfacecolor=face, transform=transform, zorder=above,
                  clip_on=False)  # fmt: skip
        axis.annotate(text[0], (x, y), xycoords=transform, xytext=text[1], textcoords="offset points", ha=text[2],
                      fontsize=8, color=colour, bbox=PAPER)  # fmt: skip
    axis.set_xticks([10.0, 100.0, 1000.0, 10000.0, 100000.0], ["10", "100", "1000", "10000", "100000"])
    axis.set_yticks([0.1, 1.0, 10.0], ["0.1", "1", "10"])
    draw.tidy(axis, "Efficiency against throughput", "throughput [GOPS]", "efficiency [TOPS/W]")
    _legend(found)
    return found


def _legend(figure: Figure) -> None:
    entries = [
        ("o", draw.BLACK, draw.BLACK, "published, one point"),
        ("o", draw.BLACK, "white", "published, perhaps two points"),
        ("^", draw.BLACK, draw.BLACK, "published, one figure only (at the edge)"),
        *(("s", COLOURS[kind], COLOURS[kind], label) for kind, label in KINDS.items()),
    ]
    handles = [
        Line2D([], [], linestyle="none", marker=marker, color=colour, markerfacecolor=face)
        for marker, colour, face, _ in entries
    ]
    figure.legend(handles, [one[3] for one in entries], loc="outside lower center", ncols=3, fontsize=8, frameon=False)


def main() -> None:
    """Writes picture and table, prints the table."""
    jax.config.update("jax_enable_x64", True)
    model, measured = rows(), published_rows()
    draw.save("fig12", figure(model, measured), [*model, *measured])
    for row in (*model, *measured):
        print("  ".join("" if v is None else f"{v:.4g}" if isinstance(v, float) else str(v) for v in row.values()))


if __name__ == "__main__":
    main()
