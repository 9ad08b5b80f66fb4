"""`cooptim validate`."""

import argparse

from rich import box
from rich.console import Console
from rich.table import Table

from cooptim.hardware.load import load_machine_file
from cooptim.reporting.spell import digits
from cooptim.validate import Row, envision_rows


def run(options: argparse.Namespace) -> int:
    """Prints published and modelled figures; 1 when a checked one is out of tolerance."""
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
