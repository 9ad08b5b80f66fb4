"""Tables for the terminal, readable in 80 columns; made from plain numbers, so that a run directory prints the same."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table

from cooptim.cost.report import CostReport
from cooptim.reporting.spell import digits, percent, spell, times
from cooptim.units import convert
from cooptim.workload import Workload

OVER = 1.0 + 1e-5  # times a budget above which it is missed
_TITLES: dict[str, str] = {
    "reference_16b": "16 b",
    "best_uniform": "best uniform",
    "best_uniform_pruned": "best uniform + pruning",
    "final": "joint",
}
# Columns of the cost table: every component of a CostReport in one of them.
_GROUPS: dict[str, tuple[str, ...]] = {
    "datapath": ("datapath",),
    "SRAM": ("sram_w", "sram_i", "sram_o"),
    "control": ("control",),
    "leakage": ("leakage",),
    "DRAM": ("dram_w", "dram_i", "dram_o"),
}


def summary_table(summary: Mapping[str, Any]) -> Table:
    """The designs of a run against the float network and the 16-bit reference; `summary` as in result.json."""
    energy, accuracy, latency = summary["energy_pj"], summary["accuracy"], summary["latency_ns"]
    network, machine = summary["workload"], summary["machine"]
    table = plain_table(f"{network['name']} on {machine}: {network['macs']:,} MACs, seed {summary['seed']}")
    table.add_column("design", overflow="fold")
    for heading in ("test", "energy", "vs 16 b", "unguarded", "latency", "of\nbound"):
        table.add_column(heading, justify="right")
    table.add_row("float network", percent(accuracy["float"]), "-", "-", "-", "-", "-")
    reference, dense = energy["reference_16b"], energy["reference_16b_dense"]
    for key, title in _TITLES.items():
        cost = energy[key]
        if cost is None:
            continue
        table.add_row(
            title,
            percent(accuracy[key]),
            spell(cost, "energy"),
            times(_ratio(reference, cost)),
            times(_ratio(dense, cost)),
            spell(latency.get(key), "time"),
            percent(summary["fraction_of_bound"][key], 0),
            style="bold" if key == "final" else "",
        )
    return table


def notes(summary: Mapping[str, Any]) -> list[str]:
    """What the table cannot show: budget, bound, gap, snap, local optimality; one line each."""
    energy, budget, factors = summary["energy_pj"], summary["budget"], summary.get("bound_factors")
    lines = [
        f"budget: energy {spell(budget['energy_pj'], 'energy')}, latency {spell(budget['latency_ns'], 'time')}, "
        f"accuracy drop {digits(100.0 * budget['accuracy_drop'])} points on validation"
    ]
    if budget.get("lifted"):
        lines.append("the default energy budget is beyond 0.85 of the bound, so 0.85 of the bound is the budget")
    lines += _missed(summary)
    if energy["bound"] is not None:
        gain = _ratio(energy["reference_16b"], energy["bound"])
        line = f"bound: {spell(energy['bound'], 'energy')}, {times(gain)} below 16 b"
        if factors:
            line += (
                f" = mode gain {digits(factors['mode_gain'])} x gating ceiling {digits(factors['gating_ceiling'])}"
                f" x DRAM share {digits(factors['dram_gain'])}"
            )
        lines.append(line)
    if summary["gap"] is not None:
        lines.append(
            f"gap: legal over relaxed energy {summary['gap']:.3f}; the snap cost {_points(summary['snap_drop'])} of "
            "accuracy before fine-tuning"
        )
    lines += _held(summary) + _channels(summary) + _exits(summary) + _errors(summary)
    lines += [f"relaxed: {part}" for part in summary["relaxed_parts"]]
    local = summary["local"]
    if local.get("moves") is not None:
        lines.append(
            f"local optimality: best of {int(local['moves'])} single moves saves {percent(local.get('best_saving'))} "
            f"({local.get('move', '-')})"
        )
    return lines


def _held(summary: Mapping[str, Any]) -> list[str]:
    """That no width was learned, or none of weights: then both searches are of thresholds, hardware and inputs."""
    if labels := summary.get("label_bits"):
        return [f"weights: labels of {labels} b in every design but 16 b; uniform and learned widths are the inputs'"]
    energies = summary["energy_pj"]
    uniform, pruned, final = energies["best_uniform"], energies["best_uniform_pruned"], energies["final"]
    if final is not None and uniform == pruned == final:
        return ["joint = best uniform, which no pruning that keeps the accuracy has beaten"]
    if not summary.get("widths_held"):
        if pruned is not None and pruned == final:
            return ["joint = uniform + pruning, which no search for widths of each layer has beaten"]
        return []
    if pruned is None or pruned == final:
        return ["widths held: joint = uniform + pruning"]
    return ["widths held: joint = uniform + pruning held to the energy that was asked for"]


def _channels(summary: Mapping[str, Any]) -> list[str]:
    """How many channels are left of each layer that lost any."""
    lost = {name: at for name, at in summary.get("channels", {}).items() if at[1] < at[0]}
    if not lost:
        return []
    said = ", ".join(f"{name} {before} to {after}" for name, (before, after) in lost.items())
    return [f"dead channels left the joint network ({said}); the bound is that of what is left"]


def _exits(summary: Mapping[str, Any]) -> list[str]:
    """Where inputs leave the joint design early, and how long they take on average."""
    if not summary.get("exits"):
        return []
    where = ", ".join(f"{percent(share)} leave at {name}" for name, share in summary["exits"].items())
    return [f"mean latency {spell(summary['latency_ns'].get('mean'), 'time')}; {where}"]


def _errors(summary: Mapping[str, Any]) -> list[str]:
    """What went wrong, and how far the accuracies of its draws lie apart."""
    errors = summary.get("errors")
    if not errors:
        return []
    spread = [
        f"{title} {percent(summary['accuracy'][key])} +- {_points(errors['accuracy_std'][key])}, lowest "
        f"{percent(errors['accuracy_min'][key])}"
        for key, title in _TITLES.items()
        if errors["accuracy_min"].get(key) is not None and errors["accuracy_std"].get(key) is not None
    ]
    draws = "1 draw" if errors["draws"] == 1 else f"{errors['draws']} draws"
    head = f"errors: {errors['injected']}, {errors['map']} maps, {draws} on the test set"
    return [": ".join([head, "; ".join(spread)]) if spread else head]


def _missed(summary: Mapping[str, Any]) -> list[str]:
    """One line a budget that the joint design breaks."""
    budget, lines = summary["budget"], []
    for what, quantity, cost, limit in (
        ("energy", "energy", summary["energy_pj"]["final"], budget["energy_pj"]),
        ("latency", "time", summary["latency_ns"].get("final"), budget["latency_ns"]),
        ("area", "area", summary["area_mm2"], budget["area_mm2"]),
    ):
        over = _ratio(cost, limit)
        if over is not None and over > OVER:
            lines.append(f"MISSED: the joint design takes {spell(cost, quantity)}, {times(over)} its {what} budget")
    parent, final = (summary["accuracy_val"].get(key) for key in ("float", "final"))
    if parent is not None and final is not None and parent - final > budget["accuracy_drop"] + 1e-6:
        lines.append(
            f"MISSED: the joint design loses {_points(parent - final)} on validation, "
            f"{digits(100.0 * budget['accuracy_drop'])} were allowed; give it more energy or more steps"
        )
    return lines


def layer_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """A design layer by layer; `rows` as in layers.csv (numbers or their text).

    Where inputs leave early energies are means over inputs, and a column says for how many a layer runs, in the place
    of its utilization: both do not fit 80 columns. A t behind the width of weights says that it is that of labels of a
    table.
    """
    early = any("reach" in row for row in rows)
    tables = ", t: labels of a table" if any(map(_shares, rows)) else ""
    unit = _unit(sum(float(row["energy_pj"]) for row in rows) / max(len(rows), 1))
    table = plain_table(f"the joint design, layer by layer{tables}")
    table.add_column("layer", overflow="fold", min_width=8)
    table.add_column("MACs", justify="right", no_wrap=True)
    for heading in ("bits\nW/I", "nonzero\nW/I"):
        table.add_column(heading, justify="center", no_wrap=True)
    table.add_column("mode", no_wrap=True)
    table.add_column("tile\nK,C,OY,OX", no_wrap=True)
    share = "reach" if early else "utilization"
    for heading in ("V", "MHz", "runs\n%" if early else "use\n%", f"energy\n{unit}"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        tile = ",".join(str(row[f"tile_{dim}"]) for dim in ("K", "C", "OY", "OX"))
        table.add_row(
            str(row["name"]),
            _count(int(row["macs"])),
            f"{int(row['weight_bits'])}{'t' if _shares(row) else ''}/{int(row['input_bits'])}",
            "/".join(f"{float(row[f'{o}_density']):.2f}".removeprefix("0") for o in ("weight", "input")),
            str(row["mode"]),
            f"{tile} {row['stationary']}",
            f"{float(row['supply_v']):.2f}",
            f"{1000.0 * float(row['freq_ghz']):.0f}",
            f"{100.0 * float(row[share]):.0f}",
            digits(float(row["energy_pj"]) / convert(1.0, unit, "energy")),
        )
    return table


def _shares(row: Mapping[str, Any]) -> bool:
    """Whether a layer's weights are labels of a table."""
    return int(row.get("table_values") or 0) > 0


def cost_table(report: CostReport) -> Table:
    """A CostReport by layer and component."""
    total, unit = float(report.total_energy_pj), _unit(float(report.total_energy_pj) / len(report.layer_names))
    scale = convert(1.0, unit, "energy")
    table = plain_table(
        f"{spell(total, 'energy')} an inference, {spell(float(report.total_latency_ns), 'time')}, "
        f"{digits(float(report.tops_per_w))} TOPS/W, {digits(float(report.area_mm2))} mm2; energies in {unit}"
    )
    table.add_column("layer", overflow="fold", min_width=8)
    for heading in (*_GROUPS, "sum", "latency", "used %"):
        table.add_column(heading, justify="right", no_wrap=True)
    for i, name in enumerate(report.layer_names):
        parts = [sum(float(report.energy_pj[part][i]) for part in members) for members in _GROUPS.values()]
        table.add_row(
            name,
            *(digits(part / scale) for part in (*parts, sum(parts))),
            spell(float(report.latency_ns[i]), "time"),
            f"{100.0 * float(report.utilization[i]):.0f}",
        )
    table.add_section()
    standby = float(report.standby_pj)
    if standby > 0:
        table.add_row("standby", "", "", "", digits(standby / scale), "", digits(standby / scale), "", "")
    if report.switching_pj is not None and report.switching_ns is not None:
        spent, waited = float(report.switching_pj.sum()), float(report.switching_ns.sum())
        table.add_row("switching", *[""] * len(_GROUPS), digits(spent / scale), spell(waited, "time"), "")
    sums = [sum(float(report.energy_pj[part].sum()) for part in members) for members in _GROUPS.values()]
    sums[list(_GROUPS).index("leakage")] += standby
    table.add_row("all", *(digits(part / scale) for part in (*sums, total)), "", "", style="bold")
    return table


def network_table(workload: Workload) -> Table:
    """The layers of a network as the hardware sees them."""
    counts = f"{workload.macs:,} MACs, {workload.weights:,} weights, {len(workload.layers)} layers"
    table = plain_table(f"{workload.name}: {counts}")
    table.add_column("layer", overflow="fold", min_width=8)
    table.add_column("kind")
    table.add_column("loop bounds", overflow="fold")
    for heading in ("MACs", "weights"):
        table.add_column(heading, justify="right")
    table.add_column("note", overflow="fold")
    for layer in workload.layers:
        bounds = " ".join(f"{dim}{n}" for dim, n in layer.bounds._asdict().items() if n > 1)
        extras = [f"stride {layer.stride[0]}x{layer.stride[1]}"] if layer.stride != (1, 1) else []
        extras += [f"x{layer.repeat}"] if layer.repeat > 1 else []
        extras += [layer.note] if layer.note else []
        table.add_row(
            layer.name, layer.kind, bounds or "1", f"{layer.macs:,}", f"{layer.weight_words:,}", "; ".join(extras)
        )
    return table


def plain_table(title: str) -> Table:
    """An empty table in the style of all others."""
    style: dict[str, Any] = {"title_justify": "left", "title_style": "bold", "box": box.SIMPLE_HEAD}
    return Table(title=title, padding=(0, 1, 0, 0), **style)


def _points(fraction: float | None) -> str:
    return "-" if fraction is None else f"{100.0 * fraction:.2f} points"


def _ratio(over: float | None, under: float | None) -> float | None:
    return over / under if over is not None and under else None


def _unit(value_pj: float) -> str:
    """The unit of energy that reads best for a typical value."""
    return spell(value_pj, "energy").split()[-1]


def _count(n: int) -> str:
    """A count in thousands or millions where it is long."""
    for scale, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if n >= 10 * scale:
            return f"{digits(n / scale)}{letter}"
    return str(n)
