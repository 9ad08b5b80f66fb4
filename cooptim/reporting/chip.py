"""A sized chip as tables: its numbers and what networks cost on it, beside the chip of the file and the relaxed one."""

import math

from rich import box
from rich.table import Table

from cooptim.hardware.chip import Chip, Ranges
from cooptim.mapping.chip_build import BuiltChip
from cooptim.mapping.chip_descent import Goal, RelaxedChip
from cooptim.reporting.spell import digits, percent, spell


def _table(title: str, *headings: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column(headings[0], overflow="fold")
    for heading in headings[1:]:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def chip_table(title: str, ranges: Ranges, given: Chip, relaxed: Chip, built: Chip) -> Table:
    """One row a number that is free: the file's, what the descent ended at, what is built, and what can be."""
    table = _table(title, "number", "in the file", "relaxed", "built", "can be built")
    for what, quantity in (("sides", None), ("size_bits", "size"), ("width_bits", None)):
        for key, kind in getattr(ranges, what).items():
            name = key if isinstance(key, str) else ".".join(key)
            unit = " bit" if what == "width_bits" else ""
            values = [float(getattr(chip, what)[key]) for chip in (given, relaxed, built)]
            spelled = [spell(v, quantity) if quantity else f"{digits(v)}{unit}" for v in values]
            ends = [spell(v, quantity) if quantity else digits(v) for v in (kind.low, kind.high)]
            table.add_row(name, *spelled, f"{ends[0]} to {ends[1]}")
    return table


def network_table(given: BuiltChip, relaxed: RelaxedChip, built: BuiltChip) -> Table:
    """One row a network and chip: energy, latency and their product of one inference, leakage included."""
    table = _table("One inference, leakage included", "network", "chip", "energy", "latency", "energy x delay")
    for n, network in enumerate(built.networks):
        rows = (
            ("in the file", given.networks[n].energy_pj, given.networks[n].latency_ns),
            ("relaxed", float(relaxed.energy_pj[n]), float(relaxed.latency_ns[n])),
            ("built", network.energy_pj, network.latency_ns),
        )
        for i, (chip, energy, latency) in enumerate(rows):
            product = f"{digits(energy * latency)} pJ ns"
            table.add_row("" if i else network.name, chip, spell(energy, "energy"), spell(latency, "time"), product)
    return table


def chip_lines(given: BuiltChip, relaxed: RelaxedChip, relaxed_cost: float, built: BuiltChip, goal: Goal) -> list[str]:
    """Area and leakage; the goal beside the file's chip; the gap; budgets; what a single move would still save."""
    better = math.exp(given.log_cost - built.log_cost)
    what = {"energy": "energy", "edp": "energy x delay", "latency": "latency"}[goal.objective]
    over = "" if len(built.networks) == 1 else {"sum": ", added up", "worst": ", of the worst network"}[goal.combine]
    lines = [
        f"Area {spell(built.area_mm2, 'area')} (in the file {spell(given.area_mm2, 'area')}, relaxed "
        f"{spell(float(relaxed.area_mm2), 'area')}), leakage {digits(built.leakage_mw)} mW "
        f"(in the file {digits(given.leakage_mw)}).",
        f"The goal, {what}{over}, is {better:.3g} times lower than on the chip of the file"
        + ("" if given.legal else ", which breaks a budget")
        + f"; built over relaxed {math.exp(built.log_cost - relaxed_cost):.3f}.",
    ]
    for name, excess in built.excess.items():
        state = "holds" if excess <= 1e-9 else "BROKEN"
        lines.append(f"Budget of {name}: {percent(math.exp(excess))} used, {state}.")
    if math.isnan(built.left):
        lines.append("Moves were still made in the last sweep; more --sweeps may find a better chip.")
    else:
        lines.append(f"No single number moved by a step, a quarter or half saves more than {percent(built.left, 2)}.")
    return lines
