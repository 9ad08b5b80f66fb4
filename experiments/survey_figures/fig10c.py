"""How do switching activity and critical path fall with precision, and what supply does that allow?

Figure 10c of Verhelst & Moons (IEEE Solid-State Circuits Magazine, fall 2017), for the 40 nm multiplier of the DVAFS
paper: activity a cycle over that of 16 bit, critical path over that of 16 bit, and the lowest supply at 500 million
words a second, which is how the path was published. Laws: `hardware/dvafs.py`, `hardware/multiplier.py`.

    python experiments/survey_figures/fig10c.py
Writes fig10c.png and fig10c.csv beside this file.
"""

import pathlib
import sys
from typing import Any

import jax
from matplotlib.figure import Figure

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from cooptim.hardware.circuit_file import load_multiplier  # noqa: E402
from cooptim.hardware.dvafs import gate_speed  # noqa: E402
from cooptim.hardware.load import load_machine  # noqa: E402
from cooptim.hardware.machine import Mode  # noqa: E402
from cooptim.hardware.multiplier import ScalableMultiplier  # noqa: E402
from cooptim.hardware.operating_point import mode_for, multiplier_point  # noqa: E402
from experiments.survey_figures import drawing as draw  # noqa: E402
from experiments.survey_figures.fig10b import TECHNIQUES  # noqa: E402

QUANTITIES = {
    "activity": ("Switching activity a cycle", "activity over that of 16 bit [1]"),
    "path": ("Critical path", "path over that of 16 bit [1]"),
    "supply": ("Lowest supply, 500 million words a second", "supply [V]"),
}


def path_at(part: ScalableMultiplier, supply_v: float, freq_ghz: float) -> float:
    """Longest path that keeps this clock at this supply, over that of the full width."""
    speed, nominal = (gate_speed(v, part.threshold_v, part.alpha) for v in (supply_v, part.supply_v))
    return float(speed / nominal * part.clock_ghz / freq_ghz)


def model_row(part: ScalableMultiplier, modes: tuple[Mode, ...], technique: str, bits: int) -> dict[str, Any]:
    """Activity, path and supply at a width."""
    point = multiplier_point(part, modes, technique, bits, bits)
    lanes, activity = point.mode.lanes, float(point.activity)
    return {
        "kind": "model", "technique": technique, "bits": bits, "lanes": lanes, "activity": activity,
        "activity_a_word": activity / lanes, "path": float(point.path), "supply": float(point.supply_v),
    }  # fmt: skip


def rows() -> list[dict[str, Any]]:
    """Three techniques, 1 to 16 bits."""
    part, modes = load_multiplier("dvafs_multiplier_40nm"), load_machine("envision").modes
    return [model_row(part, modes, name, bits) for name in TECHNIQUES for bits in range(1, part.width_bits + 1)]


def published_rows() -> list[dict[str, Any]]:
    """The published activities and supplies; a path follows from each verified supply by the model's V-f law."""
    part, modes = load_multiplier("dvafs_multiplier_40nm"), load_machine("envision").modes
    found = []
    for point in draw.published("fig10c"):
        assert point.x is not None
        technique = point.series.removeprefix("supply ")
        row: dict[str, Any] = {
            "kind": {"yes": "published", "no": "recalled, not verified"}[point.verified], "technique": technique,
            "bits": int(point.x), "lanes": None,
            "activity": None, "activity_a_word": None, "path": None, "supply": None,
        }  # fmt: skip
        if point.series.startswith("supply"):
            width, name = int(point.x), technique if technique in TECHNIQUES else "DAS"  # 16 b: one lane, as in all
            lanes = mode_for(modes, name, width, width, part.width_bits, part.name).lanes
            path = path_at(part, point.y, float(part.clock_ghz) / lanes)
            found.append(row | {"kind": "derived: V-f law of the model", "path": path})
            row |= {"supply": point.y}
        else:
            row |= {"activity": 1.0 / point.y}
        found.append(row)
    return found


def figure(model: list[dict[str, Any]], measured: list[dict[str, Any]]) -> Figure:
    """A panel a quantity; the path is one line, for all techniques share it."""
    found = Figure(figsize=(12.5, 4.4), layout="constrained")
    used = set()
    for axis, (key, (title, label)) in zip(found.subplots(1, 3), QUANTITIES.items(), strict=True):
        for technique, colour in TECHNIQUES.items():
            line = [row for row in model if row["technique"] == technique]
            if key == "path" and technique != "DVAFS":
                continue
            names = {("activity", "DAS"): "DAS and DVAS", ("path", "DVAFS"): "all techniques"}
            if (key, technique) != ("activity", "DVAS"):
                axis.plot([r["bits"] for r in line], [r[key] for r in line], ".-", color=colour,
                          label=names.get((key, technique), technique))  # fmt: skip
        for row in measured:
            if row[key] is not None:
                status = {"published": "yes", "recalled, not verified": "no"}.get(row["kind"], "derived")
                used.add(status)
                technique = "DAS" if row["technique"] == "DAS and DVAS" else row["technique"]
                draw.mark(axis, [(row["bits"], row[key])], status, TECHNIQUES.get(technique, draw.BLACK))
        axis.set_ylim(0.0, 1.2 if key == "supply" else 1.05)
        axis.set_xticks(range(0, 17, 2))
        draw.tidy(axis, title, "precision of both operands [bit]", label)
        axis.legend(fontsize=8, frameon=False, loc="lower right")
    draw.status_legend(found, used)
    return found


def main() -> None:
    """Writes picture and table, prints the published points beside the model's."""
    jax.config.update("jax_enable_x64", True)
    model, measured = rows(), published_rows()
    draw.save("fig10c", figure(model, measured), [*model, *measured])
    for row in measured:
        technique = "DVAS" if row["technique"] in ("DAS and DVAS", "16 b") else row["technique"]
        ours = next(r for r in model if r["technique"] == technique and r["bits"] == row["bits"])
        for key in QUANTITIES:
            if row[key] is not None:
                print(f"{row['kind']:30s} {row['technique']:14s} {row['bits']:3d} bit  {key:9s} {row[key]:.4g}  "
                      f"model {ours[key]:.4g}  {ours[key] / row[key] - 1.0:+.1%}")  # fmt: skip


if __name__ == "__main__":
    main()
