"""`cooptim validate`."""

import argparse
import dataclasses
import sys
from collections.abc import Callable

from rich import box
from rich.console import Console
from rich.table import Table

from cooptim.cli.golden import golden
from cooptim.hardware.load import MachineFile, array_of_name, load_machine_file, machine_names
from cooptim.reporting.golden import Comparison, comparison
from cooptim.reporting.spell import digits
from cooptim.validate import (
    Row,
    dvas_rows,
    eie_rows,
    envision_rows,
    eyeriss_rows,
    mapping_rows,
    multiplier_rows,
    simd_rows,
    yodann_rows,
)

_CHIPS: dict[str, Callable[[MachineFile], list[Row]]] = {
    "envision": envision_rows,
    "dvas_40nm": dvas_rows,
    "simd_40nm": simd_rows,
    "yodann": yodann_rows,
    "eie": eie_rows,
}
_LIMITS = ("below", "above")
_EXACT = 1e-4  # a smaller tolerance is that of rounding
_SIGNS = {"equal": "", "below": "< ", "above": "> ", "inside": "", "range": ""}


def run(options: argparse.Namespace) -> int:
    """Prints what is published or golden beside the model's; 1 when a checked figure is out of tolerance."""
    if options.tool is not None:
        return _show(_replayed(options), options.verbose)
    if options.files:
        return _show([golden(path) for path in options.files], options.verbose)
    if options.claims:
        return _claims()
    if options.machine is not None:
        return _print(_rows_of(options.machine))
    chips = [*dvas_rows(), *simd_rows(), *yodann_rows(), *eie_rows()]
    return _print([*envision_rows(), *multiplier_rows(), *eyeriss_rows(), *mapping_rows(), *chips])


def _rows_of(machine: str) -> list[Row]:
    """Rows of one machine: those of the chip it is named after; of a file with a name of its own, Envision's."""
    file = load_machine_file(machine)
    found = _CHIPS.get(file.stated.name)
    if found is None and array_of_name(machine)[0] in machine_names():
        raise ValueError(
            f"--machine {machine}: no figures of this chip are held; legal: {', '.join(_CHIPS)}, or a file of your own "
            "to hold against Envision's figures; `cooptim validate` without --machine prints the rows of all chips"
        )
    return (found or envision_rows)(file)


def _replayed(options: argparse.Namespace) -> list[Comparison]:
    if not options.files:
        raise ValueError(
            f"--with {options.tool}: nothing to replay; give a golden file or a folder of `cooptim export`"
        )
    from cooptim.cli.replay import replayed

    return replayed(options.files, options.python or sys.executable)


def _show(found: list[Comparison], verbose: bool) -> int:
    console = Console()
    for one in found:
        console.print(comparison(one, verbose=verbose))
    return 0 if all(one.holds for one in found) else 1


def _claims() -> int:
    from cooptim.validate.predictions import not_yet_modelled, predicted_rows

    rows, later = predicted_rows(), not_yet_modelled()
    found = _print([dataclasses.replace(row, source=row.note, note="") for row in rows], "from")
    inside, vague = sum(row.holds is True for row in rows), sum(not row.informative for row in rows)
    text = f"{len(rows) + len(later)} claims are predicted: {inside} inside their tolerance, "
    text += f"{len(rows) - inside - vague} outside, {vague} uninformative (ends more than 3 times apart)"
    Console().print(f"{text}, {len(later)} not yet modelled:" if later else f"{text}.")
    for claim in later:
        Console().print(f"  {claim.system}: {claim.claim} ({claim.value} {claim.unit})")
    return found


def _print(rows: list[Row], why: str = "source") -> int:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("figure", overflow="fold")
    for heading in ("published", "model", "off"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("verdict")
    table.add_column(why, overflow="fold")
    for row in rows:
        unit = "" if row.unit == "1" else f" {row.unit}"
        ends = [digits(end) for end in (row.low, row.high)]
        span = digits(row.model) if ends[0] == ends[1] else "-".join(ends)
        off = "" if row.error is None or row.relation in _LIMITS else f"{100 * row.error:+.1f} %"
        source = f"{row.source}; {row.note}" if row.note else row.source
        table.add_row(
            row.name,
            "" if row.published is None else f"{_SIGNS[row.relation]}{_figure(row)}{unit}",
            f"{span}{unit}",
            off,
            _verdict(row),
            source,
        )
    Console().print(table)
    return 1 if any(row.holds is False for row in rows) else 0


def _figure(row: Row) -> str:
    """The published figure, or both ends of a published range."""
    ends = [end for end in (row.published, row.published_high) if end is not None]
    return "-".join(digits(end) for end in ends)


def _verdict(row: Row) -> str:
    if not row.informative:
        return "uninformative"
    if row.holds is None:
        return "not checked"
    if row.tolerance is None or row.tolerance < _EXACT:
        return "holds" if row.holds else "does NOT hold"
    return f"within {100 * (row.tolerance or 0):g} %" if row.holds else f"NOT within {100 * (row.tolerance or 0):g} %"
