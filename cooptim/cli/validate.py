"""`cooptim validate`."""

import argparse
import sys

from rich import box
from rich.console import Console
from rich.table import Table

from cooptim.cli.golden import golden
from cooptim.hardware.load import load_machine_file
from cooptim.reporting.golden import Comparison, comparison
from cooptim.reporting.spell import digits
from cooptim.validate import Row, envision_rows


def run(options: argparse.Namespace) -> int:
    """Prints what is published or golden beside the model's; 1 when a checked figure is out of tolerance."""
    if options.tool is not None:
        return _show(_replayed(options), options.verbose)
    if options.files:
        return _show([golden(path) for path in options.files], options.verbose)
    return _machine(options)


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


def _machine(options: argparse.Namespace) -> int:
    rows = envision_rows(load_machine_file(options.machine))
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("figure", overflow="fold")
    for heading in ("published", "model", "off"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("verdict")
    table.add_column("source", overflow="fold")
    for row in rows:
        unit = "" if row.unit == "1" else f" {row.unit}"
        span = digits(row.model) if row.low == row.high else f"{digits(row.low)}-{digits(row.high)}"
        off = "" if row.published is None else f"{100 * (row.model / row.published - 1):+.1f} %"
        source = f"{row.source}; {row.note}" if row.note else row.source
        table.add_row(
            row.name,
            "" if row.published is None else f"{digits(row.published)}{unit}",
            f"{span}{unit}",
            off,
            _verdict(row),
            source,
        )
    Console().print(table)
    return 1 if any(row.holds is False for row in rows) else 0


def _verdict(row: Row) -> str:
    if row.holds is None:
        return "not checked"
    return f"within {100 * (row.tolerance or 0):g} %" if row.holds else f"NOT within {100 * (row.tolerance or 0):g} %"
