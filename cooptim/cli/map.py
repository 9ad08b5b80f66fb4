"""`cooptim map`."""

import argparse
import os

from rich import box
from rich.console import Console
from rich.table import Table

from cooptim.hardware.hierarchy import Hierarchy
from cooptim.hardware.hierarchy_file import load_hierarchy
from cooptim.mapping.nest import layer_shape
from cooptim.mapping.rules import HARDWARE, ZIGZAG
from cooptim.mapping.search import Certificate, best_mapping
from cooptim.reporting.spell import digits
from cooptim.workload import Layer, Workload, zoo

_RULES = {"hardware": HARDWARE, "zigzag": ZIGZAG}


def run(options: argparse.Namespace) -> int:
    """Prints, per layer, the best mapping's cost, the proven bound, the gap, the size of the space and the time."""
    workload = _workload(options)
    machine = load_hierarchy(options.machine)
    bits = (options.weight_bits, options.input_bits, options.psum_bits, options.output_bits)
    known: dict[object, Certificate] = {}
    found = []
    for layer in workload.layers:
        shape = layer_shape(layer, *bits)
        if shape not in known:
            known[shape] = best_mapping(layer.name, shape, machine, _RULES[options.rules], options.objective)
        found.append(known[shape])
    console = Console()
    console.print(_table(workload, machine, found))
    _totals(console, workload, found, sum(c.cpu_s for c in known.values()), len(known))
    return 0


def _workload(options: argparse.Namespace) -> Workload:
    given = options.network
    if given in zoo.names():
        return zoo.network(given)
    if given.endswith(".csv") or os.path.sep in given:
        return zoo.read_csv(given)
    return zoo.network(given)  # names the legal ones


def _unit(objective: str) -> str:
    return "pJ" if objective == "energy" else "pJ x cycle"


def _table(workload: Workload, machine: Hierarchy, found: list[Certificate]) -> Table:
    objective = found[0].objective
    title = f"{workload.name} on {machine.name}: least {objective} of each layer, in {_unit(objective)}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("layer", overflow="fold")
    table.add_column("unrolled", overflow="fold")
    for heading in ("chosen", "bound", "gap", "cycles", "space", "CPU s"):
        table.add_column(heading, justify="right", no_wrap=True)
    for layer, c in zip(workload.layers, found, strict=True):
        table.add_row(
            _name(layer),
            " ".join(f"{d}{n}" for pairs in c.mapping.spatial.values() for d, n in pairs) or "-",
            digits(c.value),
            digits(c.bound),
            "proven" if c.gap < 1e-9 else f"{100 * c.gap:.1f} %",
            digits(c.cycles),
            f"1e{c.space_log10:.0f}",
            f"{c.cpu_s:.2f}",
        )
    return table


def _name(layer: Layer) -> str:
    return layer.name if layer.repeat == 1 else f"{layer.name} x{layer.repeat}"


def _totals(console: Console, workload: Workload, found: list[Certificate], cpu_s: float, searched: int) -> None:
    repeats = [layer.repeat for layer in workload.layers]
    energy = sum(r * c.energy_pj for r, c in zip(repeats, found, strict=True))
    cycles = sum(r * c.cycles for r, c in zip(repeats, found, strict=True))
    least = sum(r * c.bound for r, c in zip(repeats, found, strict=True))
    value = sum(r * c.value for r, c in zip(repeats, found, strict=True))
    console.print(
        f"Together {digits(energy)} pJ, {digits(cycles)} cycles, energy x cycles {digits(energy * cycles)} pJ x cycle; "
        f"the sum of the layers' {found[0].objective} is {100 * (value / least - 1):.2f} % above its bound."
    )
    console.print(
        f"{searched} different layers of {len(found)}, {cpu_s:.1f} CPU s. The space: every order of the prime factors, "
        "every cut of each operand on its own, one loop per array dimension."
    )
