"""Tables of comparisons with another tool: two lines a case, and every quantity that is off."""

import dataclasses
from collections.abc import Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cooptim.validate import GoldenRow


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The cases of one file.

    Attributes:
      source: the file and what made it, for the title.
      cases: (case, its rows), in order.
      energy, cycles: the quantities that stand for a case in the summary.
    """

    source: str
    cases: tuple[tuple[str, tuple[GoldenRow, ...]], ...]
    energy: str
    cycles: str

    @property
    def holds(self) -> bool:
        """Whether every checked row is within its tolerance."""
        return all(row.holds is not False for _, rows in self.cases for row in rows)


def comparison(found: Comparison, *, verbose: bool = False) -> RenderableType:
    """Energy and cycles of each case, then what differs (`verbose`: every quantity), then how much was compared."""
    parts: list[RenderableType] = [_summary(found)]
    off = [row for _, rows in found.cases for row in rows if row.holds is not True and row.relative_error != 0]
    if verbose:
        parts += [_details(case, rows, name_case=False) for case, rows in found.cases]
    elif off:
        parts.append(_details("what differs", off, name_case=True))
    parts.append(Text(totals(found)))
    return Group(*parts)


def totals(found: Comparison) -> str:
    """One line: cases, quantities, and how many are off."""
    rows = [row for _, rows in found.cases for row in rows]
    checked = [row for row in rows if row.holds is not None]
    off = [row for row in checked if not row.holds]
    line = f"{_cases(len(found.cases))}, {len(checked)} quantities checked, {len(off)} differ"
    if off:
        line += f" in {_cases(len({row.case for row in off}))}"
    informative = len(rows) - len(checked)
    return line + (f"; {informative} more not checked" if informative else "")


def _cases(count: int) -> str:
    return f"{count} case" if count == 1 else f"{count} cases"


def _summary(found: Comparison) -> Table:
    table = Table(
        title=found.source, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0)
    )
    table.add_column("case", overflow="fold")
    table.add_column("", no_wrap=True)
    for heading in ("expected", "ours", "rel. error", "differ"):
        table.add_column(heading, justify="right", no_wrap=True)
    for case, rows in found.cases:
        by_name = {row.quantity: row for row in rows}
        shown = [(name, by_name[key]) for name, key in (("energy pJ", found.energy), ("cycles", found.cycles))
                 if key in by_name]  # fmt: skip
        checked = [row for row in rows if row.holds is not None]
        off = sum(not row.holds for row in checked)
        table.add_row(
            case,
            "\n".join(name for name, _ in shown),
            "\n".join(number(row.expected) for _, row in shown),
            "\n".join(number(row.ours) for _, row in shown),
            "\n".join(_error(row) for _, row in shown),
            f"{off}/{len(checked)}",
            style="bold red" if off else "",
        )
    return table


def _details(title: str, rows: Sequence[GoldenRow], *, name_case: bool) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    if name_case:
        table.add_column("case", overflow="fold")
    table.add_column("quantity", overflow="fold")
    for heading in ("expected", "ours", "rel. error"):
        table.add_column(heading, justify="right", no_wrap=True)
    noted = any(row.note for row in rows)
    if noted:
        table.add_column("note", overflow="fold")
    for row in rows:
        cells = (*((row.case,) if name_case else ()), row.quantity, number(row.expected), number(row.ours), _error(row))
        table.add_row(*cells, *((row.note,) if noted else ()), style="bold red" if row.holds is False else "")
    return table


def number(value: float) -> str:
    """A count in full, anything else to twelve digits."""
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else f"{value:.12g}"


def _error(row: GoldenRow) -> str:
    return "0" if row.relative_error == 0 else f"{row.relative_error:+.1e}"
