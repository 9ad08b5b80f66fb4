"""How many words of weights and inputs are zero, against their width?

Figure 11a of Verhelst & Moons (IEEE Solid-State Circuits Magazine, fall 2017), on the float parents of figure 10a: all
layers quantized at one width without training, nothing pruned, zeros counted on 512 training images.

    python experiments/survey_figures/fig11a.py [--data DIR]
Writes fig11a.png and fig11a.csv beside this file; rows of the network that did not run stay as they are.
"""

import argparse
import pathlib
import sys
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from experiments.survey_figures import drawing as draw  # noqa: E402
from experiments.survey_figures.trained import (  # noqa: E402
    CALIBRATION_IMAGES,
    WIDTHS,
    calibrated,
    kept,
    trained,
)

OPERANDS = ("weights", "inputs")
COLOURS = (draw.BLUE, draw.GREEN, draw.RED, draw.ORANGE, draw.GREY)  # by layer


def rows(spec: str) -> list[dict[str, Any]]:
    """Share of zero words, for each width, operand and layer of one network."""
    task, params, state = trained(spec)
    designs, data = calibrated(task, params, state), task.data
    x, y = data.x_train[:CALIBRATION_IMAGES], data.y_train[:CALIBRATION_IMAGES]
    names, found = [layer.name for layer in task.space.workload.layers], []
    for bits in WIDTHS:
        same = (bits,) * task.layers
        stats = task.measure.stats(params, state, designs.design(same, same), x, y)
        for operand, density in zip(OPERANDS, (stats.weight_density, stats.input_density), strict=True):
            found += [
                {"network": data.name, "operand": operand, "layer": name, "bits": bits,
                 "zeros_percent": 100.0 * (1.0 - float(share))}
                for name, share in zip(names, density, strict=True)
            ]  # fmt: skip
    return found


def figure(found: list[dict[str, Any]]) -> Figure:
    """A row of panels a network, weights left, inputs right; the published zeros are those of AlexNet's inputs."""
    networks = list(dict.fromkeys(row["network"] for row in found))
    picture = Figure(figsize=(10.5, 3.6 * len(networks) + 0.5), layout="constrained")
    used: set[str] = set()
    for axes, network in zip(picture.subplots(len(networks), 2, squeeze=False), networks, strict=True):
        for axis, operand in zip(axes, OPERANDS, strict=True):
            mine = [row for row in found if (row["network"], row["operand"]) == (network, operand)]
            for colour, layer in zip(COLOURS, dict.fromkeys(row["layer"] for row in mine), strict=False):
                line = [row for row in mine if row["layer"] == layer]
                axis.plot(
                    [r["bits"] for r in line], [r["zeros_percent"] for r in line], ".-", color=colour, label=layer
                )
            if operand == "inputs":
                for place, point in enumerate(draw.published("fig11a")):
                    if point.x is None:
                        axis.axhline(point.y, color=draw.BLACK, linestyle=":", linewidth=1)
                        continue
                    used.add(point.verified)
                    draw.mark(axis, [(point.x, point.y)], point.verified, draw.BLACK)
                    name = point.series.split(" ")[-1]
                    axis.annotate(
                        name, (point.x, point.y), (6, 0 - 7 * (place % 2)), textcoords="offset points", fontsize=7
                    )
            axis.set_ylim(-2, 102)
            axis.set_xlim(1.5, 18.0)
            axis.set_xticks(range(2, 17, 2))
            draw.tidy(axis, f"{network}: {operand}", "width [bit]", "zero words [%]")
            axis.legend(fontsize=8, frameon=False, loc="upper right", bbox_to_anchor=(0.85, 1.0))
    dotted = Line2D([], [], color=draw.BLACK, linestyle=":", linewidth=1)
    draw.status_legend(picture, used, [("published: AlexNet's activations exceed it even at large widths", dotted)])
    return picture


def main() -> None:
    """Writes picture and table, prints zeros at some widths."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="digits", help="'digits', or a folder with the four IDX files")
    new = rows(parser.parse_args().data)
    found = [*kept("fig11a", new[0]["network"]), *new]
    draw.save("fig11a", figure(found), sorted(found, key=lambda row: row["network"]))
    for operand in OPERANDS:
        for bits in (2, 4, 8, 16):
            mine = [row for row in new if (row["operand"], row["bits"]) == (operand, bits)]
            print(operand, bits, [round(row["zeros_percent"], 1) for row in mine])


if __name__ == "__main__":
    main()
