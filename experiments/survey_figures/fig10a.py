"""How few bits does each layer need at 99 % of its float accuracy, one width for all against one for each?

Figure 10a of Verhelst & Moons (IEEE Solid-State Circuits Magazine, fall 2017), on networks trained here:
1. alone: the least width of one operand of one layer while all else has 16 bits.
2. uniform: the least width of all operands of all layers.
3. together: widths lowered one by one from the uniform one, until none can be lowered. 1 to 3 without training.
4. descent: the widths of one short joint descent from the same parent to a share of the energy bound, weights trained
   and pruned; hollow where its legal design is below 99 %.

    python experiments/survey_figures/fig10a.py [--data DIR] [--share 0.72]
Writes fig10a.png and fig10a.csv beside this file; rows of the network that did not run stay as they are.
"""

import argparse
import pathlib
import sys
from collections.abc import Callable
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from cooptim.cost.bound import energy_bound_pj  # noqa: E402
from cooptim.descent.descend import descend  # noqa: E402
from cooptim.descent.finalize import Limits  # noqa: E402
from cooptim.descent.references import reference_16b  # noqa: E402
from cooptim.descent.task import Task  # noqa: E402
from experiments.survey_figures import drawing as draw  # noqa: E402
from experiments.survey_figures.trained import WIDTHS, calibrated, kept, trained  # noqa: E402

RELATIVE = 0.99  # of the float parent's accuracy
OPERANDS = ("weights", "inputs")
METHODS = {  # colour and marker
    "alone": (draw.GREY, "s"), "together": (draw.BLUE, "o"), "descent": (draw.GREEN, "^"), "uniform": (draw.BLACK, "_"),
}  # fmt: skip
Widths = tuple[int, ...]
Keeps = Callable[[Widths], bool]


def least(keeps: Callable[[int], bool], start: int, low: int = WIDTHS[0], high: int = WIDTHS[-1]) -> int | None:
    """The least width down to which all from `start` keep it; above `start` where that fails; None where `high` does.

    Going step by step assumes no more than that no width above the first that keeps it is worse.
    """
    if keeps(start):
        while start > low and keeps(start - 1):
            start -= 1
        return start
    return next((bits for bits in range(start + 1, high + 1) if keeps(bits)), None)


def lowered(widths: Widths, keeps: Keeps, low: int = WIDTHS[0]) -> Widths:
    """These widths, each in turn a bit lower while it is kept, until none can be lowered by itself."""
    moved = True
    while moved:
        moved = False
        for at, bits in enumerate(widths):
            trial = (*widths[:at], bits - 1, *widths[at + 1 :])
            if bits > low and keeps(trial):
                widths, moved = trial, True
    return widths


def rows(spec: str, share: float) -> list[dict[str, Any]]:
    """All four of one network, one row an operand of a layer; the descent goes to this share of the energy bound."""
    task, params, state = trained(spec)
    designs, data, layers = calibrated(task, params, state), task.data, task.layers
    float_val, float_test = (
        task.measure.accuracy(params, state, None, x, y)[0]
        for x, y in ((data.x_val, data.y_val), (data.x_test, data.y_test))
    )
    print(f"{data.name}: float {float_val:.4f} validation, {float_test:.4f} test", flush=True)

    def relative(widths: Widths, test: bool = False) -> float:
        design = designs.design(widths[:layers], widths[layers:])
        x, y, whole = (data.x_test, data.y_test, float_test) if test else (data.x_val, data.y_val, float_val)
        return task.measure.accuracy(params, state, design, x, y)[0] / whole

    def keeps(widths: Widths) -> bool:
        return relative(widths) >= RELATIVE

    def only(at: int, bits: int) -> Widths:
        return tuple(bits if i == at else WIDTHS[-1] for i in range(2 * layers))

    alone = [least(lambda bits, at=at: keeps(only(at, bits)), 4) for at in range(2 * layers)]  # type: ignore[misc]
    uniform = least(lambda bits: keeps((bits,) * 2 * layers), 6)
    if uniform is None or None in alone:
        raise ValueError(f"fig10a: 16 bits lose over 1 % of {data.name}'s accuracy; the ranges do not fit the network")
    same = (uniform,) * 2 * layers
    together = lowered(same, keeps)
    found = []
    for at, bits in enumerate(alone):
        widths = only(at, int(bits or 0))
        found += table(task, "alone", widths, relative(widths), relative(widths, True))[at : at + 1]
    for name, widths in (("uniform", same), ("together", together)):
        found += table(task, name, widths, relative(widths), relative(widths, True))
    return [*found, *descent_rows(task, params, state, share, (float_val, float_test))]


def descent_rows(
    task: Task, params: Any, state: Any, share: float, float_accuracy: tuple[float, float]
) -> list[dict[str, Any]]:
    """The widths of one joint descent and the accuracy of its legal design, over the float one (validation, test)."""
    data, (float_val, float_test) = task.data, float_accuracy
    deadline_ns = float(reference_16b(task, params, state)[0].report.total_latency_ns)
    bound = energy_bound_pj(task.network.workload, task.machine, deadline_ns, tilings=task.space.tilings)
    limits = Limits(bound.bound_pj / share, deadline_ns, None, RELATIVE * float_val)
    one = descend(task, params, state, limits, "joint", None, None, None).final
    test = task.measure.accuracy(one.params, one.state, one.design, data.x_test, data.y_test)[0]
    widths = tuple(round(float(bits)) for bits in (*one.design.weight_bits, *one.design.input_bits))
    return table(task, "descent", widths, one.val_accuracy / float_val, test / float_test)


def table(task: Task, method: str, widths: Widths, val: float, test: float) -> list[dict[str, Any]]:
    """Rows of one choice of widths, weights first."""
    names = [layer.name for layer in task.space.workload.layers]
    places = [(layer, operand) for operand in OPERANDS for layer in names]
    return [
        {"network": task.data.name, "method": method, "layer": layer, "operand": operand, "bits": bits,
         "relative_val": val, "relative_test": test}
        for (layer, operand), bits in zip(places, widths, strict=True)
    ]  # fmt: skip


def figure(found: list[dict[str, Any]]) -> Figure:
    """A row of panels a network, weights left, inputs right; the published ranges stand beside the layers."""
    networks = list(dict.fromkeys(row["network"] for row in found))
    picture = Figure(figsize=(10.5, 3.4 * len(networks) + 0.5), layout="constrained")
    points = draw.published("fig10a")
    for axes, network in zip(picture.subplots(len(networks), 2, squeeze=False), networks, strict=True):
        for axis, operand in zip(axes, OPERANDS, strict=True):
            mine = [row for row in found if (row["network"], row["operand"]) == (network, operand)]
            layers = list(dict.fromkeys(row["layer"] for row in mine))
            for shift, (method, (colour, marker)) in zip((-0.2, 0.0, 0.2, 0.0), METHODS.items(), strict=True):
                bits = {row["layer"]: row["bits"] for row in mine if row["method"] == method}
                if method == "uniform":
                    axis.plot([-0.4, len(layers) - 0.6], [bits[layers[0]]] * 2, "--", color=colour, linewidth=1)
                    continue
                axis.vlines([i + shift for i in range(len(layers))], 0, [bits[n] for n in layers], colour, linewidth=3)
                missed = min(row["relative_val"] for row in mine if row["method"] == method) < RELATIVE
                face = "white" if missed else colour
                axis.plot(
                    [i + shift for i in range(len(layers))], [bits[n] for n in layers], marker, color=colour,
                    markerfacecolor=face,
                )  # fmt: skip
            for place, name in enumerate(("LeNet-5", "AlexNet"), start=len(layers)):
                ends = [point.y for point in points if point.series == f"{name} range"]
                axis.plot([place] * len(ends), ends, "-", color=draw.RED, linewidth=1.5)
                for point in points:
                    if point.series.startswith(name):
                        marker = "_" if point.series.endswith("range") else "D"
                        draw.mark(axis, [(place, point.y)], point.verified, draw.RED, marker)
            short = [name.removesuffix(".kernel") for name in layers]
            axis.set_xticks(range(len(layers) + 2), [*short, "LeNet-5,\npublished", "AlexNet,\npublished"])
            axis.set_ylim(0, 10)
            draw.tidy(axis, f"{network}: {operand}", "", "width [bit]")
            axis.grid(False, axis="x")
    labels = {
        "alone": "alone, all else 16 b",
        "together": "all layers together",
        "descent": "by descent (hollow: below 99 %)",
    }
    extra = [
        (label, Line2D([], [], color=METHODS[name][0], marker=METHODS[name][1], linewidth=3))
        for name, label in labels.items()
    ]
    extra += [
        ("least uniform", Line2D([], [], color=draw.BLACK, linestyle="--", linewidth=1)),
        ("published: range over layers", Line2D([], [], color=draw.RED)),
        ("published: uniform", Line2D([], [], color=draw.RED, marker="D", linestyle="none")),
    ]
    draw.status_legend(picture, (), extra)
    return picture


def main() -> None:
    """Writes picture and table, prints the widths."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="digits", help="'digits', or a folder with the four IDX files")
    parser.add_argument("--share", type=float, default=0.72, help="of the energy bound, asked of the descent")
    options = parser.parse_args()
    new = rows(options.data, options.share)
    found = [*kept("fig10a", new[0]["network"]), *new]
    draw.save("fig10a", figure(found), sorted(found, key=lambda row: row["network"]))
    for method in METHODS:
        mine = [row for row in new if row["method"] == method]
        print(f"{method}: {[row['bits'] for row in mine]}, {min(row['relative_val'] for row in mine):.4f} validation, "
              f"{min(row['relative_test'] for row in mine):.4f} test")  # fmt: skip


if __name__ == "__main__":
    main()
