"""`cooptim report`."""

import argparse

from rich.console import Console

from cooptim.export import read_result
from cooptim.reporting.run import print_run


def run(options: argparse.Namespace) -> int:
    """Prints the tables of a run's directory."""
    content, rows = read_result(options.directory)
    print_run(Console(), content, rows)
    return 0
