"""`cooptim machines`."""

import argparse
import pathlib
import re
from collections.abc import Mapping as AbstractMapping

from rich import box
from rich.console import Console
from rich.table import Table

from cooptim.hardware.chip import chip_ranges
from cooptim.hardware.circuit_file import circuit_names, load_circuit_file
from cooptim.hardware.hierarchy import Hierarchy
from cooptim.hardware.hierarchy_file import (
    hierarchy_names,
    hierarchy_numbers,
    hierarchy_source,
    load_hierarchy,
    load_hierarchy_file,
)
from cooptim.hardware.load import load_machine_file, machine_names
from cooptim.hardware.schema import Quantity


def run(options: argparse.Namespace) -> int:
    """Lists the machines, or every number of one."""
    console = Console()
    if options.action is None:
        for table in _all():
            console.print(table)
        return 0
    for table in _one(options.name):
        console.print(table)
    return 0


def _one(name: str) -> list[Table]:
    """Every number of a machine; a name that several kinds have shows each.

    Raises ValueError that lists all names for one that is none, and is no file.
    """
    found = []
    if name in machine_names():
        machine = load_machine_file(name)
        found.append(_numbers(f"{machine.name}: {machine.spec.title}", machine.numbers))
    if name in hierarchy_names():
        found.append(_hierarchy(name))
    if name in circuit_names():
        circuit = load_circuit_file(name)
        found.append(_numbers(f"{circuit.name}: {circuit.title}", circuit.numbers))
    return found or [_file(name)]


def _file(path: str) -> Table:
    """A user's file of either kind."""
    if not pathlib.Path(path).is_file():
        known = dict.fromkeys((*machine_names(), *hierarchy_names(), *circuit_names()))
        raise ValueError(f"machine '{path}': neither a file nor a known name; use one of {', '.join(known)}")
    if re.search(rb"^memories:", hierarchy_source(path), re.MULTILINE):
        return _hierarchy(path)
    machine = load_machine_file(path)
    return _numbers(f"{machine.name}: {machine.spec.title}", machine.numbers)


def _hierarchy(name: str) -> Table:
    spec = load_hierarchy_file(name)
    return _numbers(f"{spec.name}: {spec.title}", hierarchy_numbers(spec))


def _numbers(title: str, numbers: AbstractMapping[str, Quantity]) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("number", no_wrap=True)
    for heading in ("value", "interval"):
        table.add_column(heading, justify="right")
    table.add_column("source", overflow="fold")
    for name, number in numbers.items():
        scale = number.value / number.stated if number.stated else 1.0
        span = "" if number.interval is None else " to ".join(f"{end / scale:g}" for end in number.interval)
        unit = "" if number.unit == "1" else f" {number.unit}"
        source = f"assumed: {number.source}" if number.assumed else number.source
        table.add_row(name, f"{number.stated:g}{unit}", span, source)
    return table


def _all() -> list[Table]:
    """Machines, hierarchies and circuits that come with the package, each with the commands that take it."""
    machines = _listing("Processors: optimize, evaluate")
    for name in machine_names():
        spec = load_machine_file(name).spec
        machines.add_row(name, spec.title + (" (illustrative)" if spec.illustrative else ""))
    hierarchies = _listing("Memory hierarchies: map, export; size where numbers are free")
    for name in hierarchy_names():
        spec_of, machine = load_hierarchy_file(name), load_hierarchy(name)
        notes = [_size(machine), *(["illustrative"] if spec_of.illustrative else [])]
        free = chip_ranges(machine)
        count = len(free.sides) + len(free.size_bits) + len(free.width_bits)
        notes += [f"{count} numbers free"] if count else []
        hierarchies.add_row(name, f"{spec_of.title} ({', '.join(notes)})")
    circuits = _listing("Silicon that validate reproduces")
    for name in circuit_names():
        circuits.add_row(name, load_circuit_file(name).title)
    return [machines, hierarchies, circuits]


def _size(machine: Hierarchy) -> str:
    """MACs and levels, in words; the last memory is outside the chip."""
    return f"{machine.units} MACs, {len(machine.memories) - 1} memories on chip"


def _listing(title: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("name", no_wrap=True)
    table.add_column("what it is", overflow="fold")
    return table
