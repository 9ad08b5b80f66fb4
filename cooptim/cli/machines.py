"""`cooptim machines`."""

import argparse

from rich import box
from rich.console import Console
from rich.table import Table

from cooptim.hardware.load import load_machine_file, machine_names


def run(options: argparse.Namespace) -> int:
    """Lists the machines, or every number of one."""
    console = Console()
    if options.action is None:
        console.print(_all())
        return 0
    file = load_machine_file(options.name)
    title = f"{file.name}: {file.spec.title}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("number", no_wrap=True)
    for heading in ("value", "interval"):
        table.add_column(heading, justify="right")
    table.add_column("source", overflow="fold")
    for name, number in file.numbers.items():
        scale = number.value / number.stated if number.stated else 1.0
        span = "" if number.interval is None else " to ".join(f"{end / scale:g}" for end in number.interval)
        unit = "" if number.unit == "1" else f" {number.unit}"
        source = f"assumed: {number.source}" if number.assumed else number.source
        table.add_row(name, f"{number.stated:g}{unit}", span, source)
    console.print(table)
    return 0


def _all() -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("machine")
    table.add_column("what it is", overflow="fold")
    for name in machine_names():
        spec = load_machine_file(name).spec
        table.add_row(name, spec.title + (" (illustrative)" if spec.illustrative else ""))
    return table
