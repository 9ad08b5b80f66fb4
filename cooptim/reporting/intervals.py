"""What intervals do to a price and to a ranking, for the terminal; readable in 80 columns."""

import math
from collections.abc import Sequence

import numpy as np
from rich import box
from rich.table import Table

from cooptim.cost.intervals import Influence, Ranking, Spread
from cooptim.hardware.intervals import Draws, drawn_numbers
from cooptim.hardware.load import MachineFile
from cooptim.reporting.machines import interval_text
from cooptim.reporting.spell import digits, percent, spell

SURVIVES = 0.95  # share of the samples that must rank two designs as the stated numbers do


def spread_table(names: Sequence[str], spreads: Sequence[Spread]) -> Table:
    """Energy, latency and efficiency of each design: stated, median, 5 to 95 % of the samples."""
    table = _table(f"{len(spreads[0].energy_pj)} draws of every assumption at once")
    table.add_column("design", overflow="fold")
    table.add_column("result", no_wrap=True)
    for heading in ("stated", "median", "5 %", "95 %"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, one in zip(names, spreads, strict=True):
        rows = (
            ("energy", one.stated_pj, one.energy_pj, "energy"),
            ("latency", one.stated_ns, one.latency_ns, "time"),
            ("TOPS/W", one.stated_tops_per_w, one.tops_per_w, ""),
        )
        for place, (what, stated, values, quantity) in enumerate(rows):
            numbers = (stated, *np.percentile(values, [50.0, 5.0, 95.0]))
            cells = [spell(float(x), quantity) if quantity else digits(float(x)) for x in numbers]
            table.add_row("" if place else name, what, *cells)
    return table


def influence_table(title: str, found: Sequence[Influence], file: MachineFile, quantity: str) -> Table:
    """The numbers that move a result most: rank correlation, and its median in the lowest and highest fifth of each."""
    table = _table(title)
    table.add_column("number", overflow="fold")
    for heading in ("interval", "rank corr.", "when low", "when high"):
        table.add_column(heading, justify="right", no_wrap=True)
    for one in found:
        number = file.stated_numbers[one.path]
        unit = "" if number.unit == "1" else f" {number.unit}"
        ends = [spell(x, quantity) if quantity else f"{digits(x)}x" for x in (one.low, one.high)]
        table.add_row(one.path, f"{interval_text(number)}{unit}", f"{one.correlation:+.2f}", *ends)
    return table


def chance(samples: int) -> float:
    """Rank correlation that unrelated numbers reach in one of twenty draws: two standard deviations."""
    return 2.0 / math.sqrt(samples)


def ranking_line(what: str, names: tuple[str, str], found: Ranking) -> str:
    """One sentence: which is better as stated, in how many samples, by how much, and whether that survives."""
    better, other = names if found.stated else names[::-1]
    ratio = found.ratio if found.stated else 1.0 / found.ratio
    stated = found.stated_ratio if found.stated else 1.0 / found.stated_ratio
    low, high = (digits(float(x)) for x in np.percentile(ratio, [5.0, 95.0]))
    if stated == 1.0 and np.all(ratio == 1.0):
        return f"{what}: the same in every sample"
    verdict = "survives" if found.agreeing >= SURVIVES else "does NOT survive"
    return (
        f"{what}: {better} is better, {digits(stated)}x as stated and {low} to {high}x in 5 to 95 % of the samples; "
        f"{better} wins in {percent(found.agreeing)} of them: the ranking {verdict} ({other} otherwise)"
    )


def draw_notes(draws: Draws, names: Sequence[str], spreads: Sequence[Spread]) -> list[str]:
    """How the samples were made, what was held, and what the drawn machines could not do."""
    lines = [
        f"Each number is drawn evenly from its interval (Latin hypercube); the control share completes the reference "
        f"power. {percent(draws.refused, 0)} of the draws broke a rule of the schema and were drawn again. Rank "
        f"correlations below {chance(draws.samples):.2f} are within chance and left out."
    ]
    if len(draws.each) > 1:
        own = sorted({path for draw in draws.each for path in drawn_numbers(draw.file)} - set(draws.shared))
        shown = ", ".join(own[:6]) + (f" and {len(own) - 6} more" if len(own) > 6 else "")
        lines.append(
            f"{len(draws.shared)} assumptions that both files state alike are drawn once for both"
            + (f"; each has its own {shown}." if own else ".")
        )
    for draw in draws.each:
        if draw.held:
            lines.append(f"Held in {draw.file.name}, for they change the table of tilings: {', '.join(draw.held)}.")
    for name, one in zip(names, spreads, strict=True):
        if one.slowed:
            share = percent(one.slowed / len(one.energy_pj))
            lines.append(f"{name}: in {share} of the samples the ceiling is too low for its clock, which falls.")
    return lines


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
