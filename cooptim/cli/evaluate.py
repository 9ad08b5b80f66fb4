"""`cooptim evaluate`."""

import argparse

import jax.numpy as jnp
from rich.console import Console

from cooptim.cli.model import network, sample
from cooptim.cli.quantity import positive
from cooptim.cost.evaluate import evaluate
from cooptim.descent.assign import assign_hardware
from cooptim.descent.price import Pricer
from cooptim.descent.references import wide_design
from cooptim.design.design import Design
from cooptim.design.space import DesignSpace
from cooptim.export import load_design, load_stats
from cooptim.hardware.load import load_machine
from cooptim.hardware.machine import Machine
from cooptim.mapping.frontier import tilings
from cooptim.network.stats import Stats, dense_stats
from cooptim.reporting import cost_table
from cooptim.workload import Workload


def run(options: argparse.Namespace) -> int:
    """Prints the cost of a design by layer and component."""
    machine = load_machine(options.machine)
    period = None if options.period is None else positive("--period", options.period, "time")
    workload = network(options, sample(options)).workload
    if options.design is None:
        design, stats = wide(workload, machine)
    else:
        design, stats = load_design(options.design, workload, machine), load_stats(options.design, workload)
    Console().print(cost_table(evaluate(workload, machine, design, stats, period_ns=period)))
    return 0


def wide(workload: Workload, machine: Machine) -> tuple[Design, Stats]:
    """Full width everywhere at nominal clock and supply, best tilings, not a zero anywhere."""
    layers = len(workload.layers)
    space = DesignSpace(workload, machine, tilings(workload, machine), (True,) * layers)
    stats = dense_stats(layers)
    design = wide_design(space, jnp.ones(layers), jnp.ones(layers))
    return assign_hardware(space, Pricer(space), design, stats, float("inf"), nominal=True), stats
