"""`cooptim report`."""

import argparse
import pathlib

from rich.console import Console

from cooptim.export import read_result
from cooptim.export.front_file import read_front
from cooptim.reporting.pareto import print_front
from cooptim.reporting.run import print_run


def run(options: argparse.Namespace) -> int:
    """Prints the tables of a directory, of a run or of a sweep."""
    if (pathlib.Path(options.directory) / "front.json").is_file():
        print_front(Console(), read_front(options.directory))
        return 0
    content, rows = read_result(options.directory)
    print_run(Console(), content, rows)
    return 0
