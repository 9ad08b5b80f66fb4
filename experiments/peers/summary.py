"""The comparison in figures: which points of a peer's fronts ours dominates, by seed and in the mean; the picture."""

import csv
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from points import undominated

from cooptim.descent.front import non_dominated
from cooptim.workload import Workload
from cooptim.workload.graph import facts

_SHOWN = 8.0  # points below float that the picture reaches
HERE = pathlib.Path(__file__).parent
Row = Mapping[str, Any]
COLUMNS = (
    "seed", "kind", "setting", "energy_pj", "val", "test", "val_in_our_executor", "ebops", "dense_bit_operations",
    "bit_operations", "widths", "weight_density", "input_density", "cpu_s",
)  # fmt: skip
_STYLES = {"ours": ("o", "#3b6fb6"), "hgq2 tensor": ("s", "#e08214"), "hgq2 weight": ("^", "#1b7837")}


def macs(workload: Workload) -> np.ndarray:
    """MACs [layer] of one inference."""
    return np.asarray(facts(workload).macs, np.float64)


def counted(row: Row, macs_of: np.ndarray) -> dict[str, Any]:
    """The row with MACs x weight bits x input bits at one width a layer: of all weights, and of those that are not 0.

    The same count for every side; HGQ2's own (EBOPs) leaves signs out, takes each weight's width and adds biases.
    """
    bits = np.asarray([float(b) for b in row["widths"].split()]).reshape(2, -1)
    dense = macs_of * bits[0] * bits[1]
    density = np.asarray([float(d) for d in row["weight_density"].split()])
    return {**row, "dense_bit_operations": float(np.sum(dense)), "bit_operations": float(np.sum(dense * density))}


def write_rows(path: pathlib.Path, rows: Sequence[Row]) -> None:
    """All rows as CSV; figures that a row lacks stay empty."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def plane(rows: Sequence[Row], accuracy: str) -> list[tuple[float, float]]:
    """(energy [pJ], accuracy) of each row."""
    return [(float(row["energy_pj"]), float(row[accuracy])) for row in rows]


def front(rows: Sequence[Row]) -> list[Row]:
    """The rows that no other one dominates on validation, by energy."""
    if not rows:
        return []
    energy, accuracy = (np.asarray(column) for column in zip(*plane(rows, "val"), strict=True))
    kept = [row for row, keep in zip(rows, non_dominated(energy, accuracy), strict=True) if keep]
    return sorted(kept, key=lambda row: float(row["energy_pj"]))


def means(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """One row a kind and setting: figures averaged over seeds, the number of seeds, the test accuracy's deviation."""
    found: dict[tuple[str, float], list[Row]] = {}
    for row in rows:
        if row["energy_pj"] != "":
            found.setdefault((row["kind"], float(row["setting"])), []).append(row)
    out = []
    for (kind, setting), some in found.items():
        mean: dict[str, Any] = {"kind": kind, "setting": setting, "seeds": len(some)}
        for name in ("energy_pj", "val", "test", "bit_operations", "dense_bit_operations", "cpu_s"):
            values = [float(row[name]) for row in some if row.get(name, "") != ""]
            mean[name] = float(np.mean(values)) if values else float("nan")
        tests = [float(row["test"]) for row in some]
        mean["test_deviation"] = float(np.std(tests, ddof=1)) if len(tests) > 1 else float("nan")
        out.append(mean)
    return out


def verdicts(rows: Sequence[Row], accuracy: str) -> list[tuple[Row, bool]]:
    """(point, whether ours dominates it) of each peer's front; every front, ours too, is chosen on validation.

    All rows are of one seed, or means.
    """
    ours = plane(front([row for row in rows if row["kind"] == "ours"]), accuracy)
    found: list[tuple[Row, bool]] = []
    for kind in ("hgq2 tensor", "hgq2 weight"):
        points = front([row for row in rows if row["kind"] == kind])
        left = undominated(plane(points, accuracy), ours)
        found += [(row, i not in left) for i, row in enumerate(points)]
    return found


def report(task: str, rows: Sequence[Row], times: Mapping[str, float]) -> None:
    """Prints the table and the verdicts, draws TASK.png."""
    averaged = means(rows)
    for row in averaged:
        print(
            f"{row['kind']:12s} {row['setting']:8.3g}  {row['energy_pj'] / 1e3:8.2f} nJ  validation "
            f"{100 * row['val']:6.2f}  test {100 * row['test']:6.2f} +- {100 * row['test_deviation']:.2f}  "
            f"bit operations {row['dense_bit_operations']:9.0f}, of non-zero weights {row['bit_operations']:9.0f}  "
            f"{row['cpu_s']:6.1f} CPU-s  ({row['seeds']} seeds)"
        )
    seeds = sorted({int(row["seed"]) for row in rows})
    for accuracy in ("test", "val"):
        each = [found for seed in seeds for found in verdicts([r for r in rows if int(r["seed"]) == seed], accuracy)]
        print(f"dominated points of HGQ2's fronts, {accuracy}, seed by seed: {sum(d for _, d in each)} of {len(each)}")
        found = verdicts([row for row in averaged if row["seeds"] == len(seeds)], accuracy)
        print(f"  in the mean over seeds: {sum(d for _, d in found)} of {len(found)}")
        for row, done in found:
            if not done:
                print(
                    f"    left: {row['kind']} {row['setting']:g}, {row['energy_pj'] / 1e3:.2f} nJ, "
                    f"{100 * row[accuracy]:.2f} %"
                )
    for side, plain, names in (
        ("HGQ2", "hgq2_float_step_s", ("hgq2_tensor_step_s", "hgq2_weight_step_s")),
        ("ours", "our_float_step_s", ("our_joint_step_s",)),
    ):
        for name in names:
            print(
                f"step of {side}: {name} {1e3 * times[name]:.2f} ms CPU, over float {times[name] / times[plain]:.2f} "
                f"({1e3 * times[plain]:.2f} ms)"
            )
    for side in ("ours", "hgq2"):
        spent = [float(row["cpu_s"]) for row in rows if row["kind"].startswith(side) and row.get("cpu_s", "") != ""]
        print(f"CPU of the networks of {side}: {sum(spent):.0f} s")
    draw(task, rows, averaged)


def draw(task: str, rows: Sequence[Row], averaged: Sequence[Row]) -> None:
    """Test accuracy against energy: every network faint, means over seeds solid; far below float at the lower edge."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    (plain,) = (100 * row["test"] for row in averaged if row["kind"] == "ours float")
    floor = plain - _SHOWN
    figure = Figure(figsize=(7.0, 4.5), layout="constrained")
    axis = figure.subplots()
    for kind, (marker, colour) in _STYLES.items():
        for some, faint in (([r for r in rows if r["kind"] == kind], True), (averaged, False)):
            points = sorted(plane([row for row in some if row["kind"] == kind], "test"))
            energy = [pj / 1e3 for pj, _ in points]
            test = [max(100 * accuracy, floor) for _, accuracy in points]
            style = {"alpha": 0.3, "markersize": 4} if faint else {"label": kind.replace("hgq2", "HGQ2, a width a")}
            axis.plot(energy, test, marker, color=colour, **style)
    axis.axhline(plain, color="gray", linestyle=":", linewidth=0.8, label="float (ours)")
    axis.set(xscale="log", xlabel="energy an inference on Envision [nJ]", ylabel="test accuracy [%]")
    axis.set_ylim(floor - 0.3, plain + 1.5)
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    axis.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    seeds = max(row["seeds"] for row in averaged)
    axis.set_title(
        f"{task}, {seeds} seed{'s' * (seeds > 1)}; lower edge: {floor:.1f} % or less", loc="left", fontsize=10
    )
    axis.grid(True, alpha=0.3)
    axis.legend(fontsize=8)
    FigureCanvasAgg(figure).print_png(HERE / f"{task}.png")
