"""`cooptim evaluate`."""

import argparse
import contextlib
import pathlib

from rich.console import Console

from cooptim.cli.intervals import Contender, full_width, show_intervals
from cooptim.cli.model import as_saved, network, sample
from cooptim.cli.quantity import positive
from cooptim.cost.evaluate import evaluate
from cooptim.descent.wide import wide
from cooptim.export import load_design, load_stats
from cooptim.hardware.load import load_machine_file
from cooptim.reporting import cost_table


def run(options: argparse.Namespace) -> int:
    """Prints the cost of a design by layer and component, and with --intervals what the assumptions do to it."""
    if not options.intervals and options.against is not None:
        raise ValueError(f"--against {options.against}: compares over intervals only; add --intervals")
    file = load_machine_file(options.machine)
    machine = file.machine
    period = None if options.period is None else positive("--period", options.period, "time")
    x = sample(options)
    traced = network(options, x)
    weights = None if options.design is None else pathlib.Path(options.design).parent / "weights.npz"
    if weights is not None and weights.is_file():  # of the same run, whose network may have lost channels
        with contextlib.suppress(ValueError):  # or of another, which says nothing of this design
            traced = as_saved(traced, weights, x)[0]
    workload = traced.workload
    if options.design is None:
        design, stats = wide(workload, machine)
    else:
        design, stats = load_design(options.design, workload, machine), load_stats(options.design, workload)
    console = Console()
    console.print(cost_table(evaluate(workload, machine, design, stats, period_ns=period)))
    if options.intervals:
        wide_name = full_width(file)
        name = options.design or (wide_name if options.against is None else f"{wide_name} on {file.name}")
        show_intervals(console, options, workload, Contender(name, file, design, stats), period)
    return 0
