"""`cooptim trace`."""

import argparse

from rich.console import Console

from cooptim.cli.model import network, sample
from cooptim.reporting import network_table


def run(options: argparse.Namespace) -> int:
    """Prints the layer table."""
    Console().print(network_table(network(options, sample(options)).workload))
    return 0
