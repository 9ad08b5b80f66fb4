"""The report of a run: tables on the terminal, files and pictures in a directory."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from cooptim.descent.result import Result
from cooptim.descent.summary import layer_rows, summary
from cooptim.export import require_writable, write_result
from cooptim.mapping.frontier import tilings
from cooptim.reporting.table import layer_table, notes, summary_table


def report(result: Result, out: str | os.PathLike[str] | None = None, *, console: Console | None = None) -> None:
    """Prints the tables of a run and, with `out`, writes result.json, layers.csv, design.json, weights and pictures.

    Raises ValueError when the directory cannot be written. Without matplotlib the pictures are left out, and said so.
    """
    screen = Console() if console is None else console
    table = tilings(result.workload, result.machine)
    print_run(screen, summary(result), layer_rows(result, table) if "final" in result.designs else [])
    if out is None:
        return
    folder = require_writable(out)
    write_result(folder, result, tilings=table)
    try:
        from cooptim.reporting.plots import write_plots
    except ImportError:
        screen.print("no pictures: matplotlib is not installed; pip install 'cooptim[plots]'", highlight=False)
    else:
        write_plots(folder, result)
    screen.print(f"written to {folder}", highlight=False, soft_wrap=True)


def print_run(console: Console, content: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
    """Prints result.json and layers.csv as tables."""
    console.print(summary_table(content))
    for line in notes(content):
        console.print(line, highlight=False, markup=False)
    if rows:
        console.print()
        console.print(layer_table(rows))
