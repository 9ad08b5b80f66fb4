"""How does power fall with precision under DAS, DVAS and DVAFS, on Envision and on the 40 nm multiplier?

Figure 10b of Verhelst & Moons (IEEE Solid-State Circuits Magazine, fall 2017). All at constant throughput: DAS gates
low bits, DVAS also lowers the supply as far as the shorter path allows, DVAFS also splits the datapath into subwords
and divides the clock by their number: `hardware/operating_point.py` and the machine files.

    python experiments/survey_figures/fig10b.py
Writes fig10b.png and fig10b.csv beside this file.
"""

import pathlib
import sys
from typing import Any

import jax
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from cooptim.hardware.circuit_file import load_multiplier  # noqa: E402
from cooptim.hardware.load import MachineFile, load_machine_file  # noqa: E402
from cooptim.hardware.machine import Mode  # noqa: E402
from cooptim.hardware.multiplier import ScalableMultiplier  # noqa: E402
from cooptim.hardware.operating_point import multiplier_point, operating_point  # noqa: E402
from experiments.survey_figures import drawing as draw  # noqa: E402

TECHNIQUES = {"DAS": draw.GREY, "DVAS": draw.ORANGE, "DVAFS": draw.BLUE}
PANELS = {  # name in published.csv and in the table: (title, axis)
    "Envision": ("Envision, 28 nm: the whole chip, 76 GOPS", "power [mW]"),
    "multiplier": ("Multiplier, 40 nm, 500 million words a second", "energy [pJ a word]"),
}


def envision_point(file: MachineFile, technique: str, bits: int) -> dict[str, Any]:
    """Power of the chip at the throughput of one lane at nominal clock."""
    p = operating_point(file, technique, bits, bits)
    return _row("Envision", technique, bits, p.mode.lanes, *map(float, (p.freq_ghz, p.supply_v, p.power_mw)), "mW")


def word_point(part: ScalableMultiplier, modes: tuple[Mode, ...], technique: str, bits: int) -> dict[str, Any]:
    """Energy a word of the multiplier by itself; its subwords are those of the processor that it was made for."""
    p = multiplier_point(part, modes, technique, bits, bits)
    values = map(float, (p.freq_ghz, p.supply_v, p.energy_pj))
    return _row("multiplier", technique, bits, p.mode.lanes, *values, "pJ a word")


def rows() -> list[dict[str, Any]]:
    """Both circuits, three techniques, 1 to 16 bits."""
    file, part = load_machine_file("envision"), load_multiplier("dvafs_multiplier_40nm")
    modes = file.machine.modes
    widths = range(1, file.machine.datapath.width_bits + 1)
    found = [envision_point(file, technique, bits) for technique in TECHNIQUES for bits in widths]
    return found + [word_point(part, modes, technique, bits) for technique in TECHNIQUES for bits in widths]


def compared(model: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The published points, each with the model's value at its width and technique and the error of the model."""
    found = []
    for point in draw.published("fig10b"):
        circuit, technique = point.series.split(" ", 1)
        same = [
            row for row in model
            if row["circuit"] == circuit and row["bits"] == point.x and row["technique"] in (technique, "DAS")
        ]  # fmt: skip
        ours = None if "fixed" in technique else same[-1]["value"]  # DAS at 16 bit is the 16-bit point of all three
        found.append(
            _row(circuit, technique, int(point.x or 0), None, None, None, point.y, model_unit(circuit))
            | {"kind": "published" if point.verified == "yes" else point.verified}
            | {"model": ours, "error_percent": None if ours is None else 100.0 * (ours / point.y - 1.0)}
        )
    return found


def model_unit(circuit: str) -> str:
    """The unit of a circuit's values."""
    return "mW" if circuit == "Envision" else "pJ a word"


def figure(model: list[dict[str, Any]]) -> Figure:
    """A panel a circuit, a line a technique."""
    found = Figure(figsize=(10.5, 4.6), layout="constrained")
    used = set()
    for axis, (circuit, (title, label)) in zip(found.subplots(1, 2), PANELS.items(), strict=True):
        for technique, colour in TECHNIQUES.items():
            line = [row for row in model if row["circuit"] == circuit and row["technique"] == technique]
            axis.plot([r["bits"] for r in line], [r["value"] for r in line], ".-", color=colour, label=technique)
        for point in draw.published("fig10b"):
            if point.series.startswith(circuit) and point.x is not None:
                used.add(point.verified)
                fixed = "fixed" in point.series
                technique = point.series.split(" ", 1)[1]
                colour = TECHNIQUES.get(technique, draw.BLACK)
                draw.mark(axis, [(point.x, point.y)], point.verified, colour, "v" if fixed else "o")
        axis.set_yscale("log")
        axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.minorticks_off()
        axis.set_xticks(range(0, 17, 2))
        draw.tidy(axis, title, "precision of both operands [bit]", label)
        axis.legend(fontsize=8, frameon=False, loc="lower right")
    triangle = Line2D([], [], linestyle="none", marker="v", markersize=7, color=draw.BLACK)
    draw.status_legend(found, used, [("published: a 16-bit multiplier that cannot scale", triangle)])
    return found


def _row(
    circuit: str, technique: str, bits: int, lanes: int | None, freq: float | None, volts: float | None, value: float,
    unit: str,
) -> dict[str, Any]:  # fmt: skip
    return {
        "kind": "model", "circuit": circuit, "technique": technique, "bits": bits, "lanes": lanes, "clock_ghz": freq,
        "supply_v": volts, "value": value, "unit": unit, "model": None, "error_percent": None,
    }  # fmt: skip


def main() -> None:
    """Writes picture and table, prints the published points beside the model's."""
    jax.config.update("jax_enable_x64", True)
    model = rows()
    beside = compared(model)
    draw.save("fig10b", figure(model), [*model, *beside])
    for row in beside:
        print("  ".join("" if v is None else f"{v:.4g}" if isinstance(v, float) else str(v) for v in row.values()))


if __name__ == "__main__":
    main()
