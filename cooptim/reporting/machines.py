"""Machines for the terminal: the list of those that come with the package, and every number of one."""

from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel
from rich import box
from rich.table import Table

from cooptim.hardware.chip import chip_ranges
from cooptim.hardware.circuit_file import GatedArrayFile, circuit_names, load_circuit_file
from cooptim.hardware.hierarchy import Hierarchy
from cooptim.hardware.hierarchy_file import hierarchy_names, load_hierarchy, load_hierarchy_file
from cooptim.hardware.load import MachineFile, load_machine_file, machine_names
from cooptim.hardware.quantity import Choice, Flag, Quantity
from cooptim.hardware.reference import peak_gops
from cooptim.hardware.schema import ChipSection, Lanes
from cooptim.reporting.spell import spell
from cooptim.validate.conformance import Law

UNCHECKED = "no silicon check"


def machine_lists() -> list[Table]:
    """Machines, hierarchies and circuits that come with the package, each with the commands that take it."""
    machines = _listing("Processors: optimize, evaluate", "node", "peak", "source")
    for name in machine_names():
        machines.add_row(*_processor(load_machine_file(name)))
    hierarchies = _listing("Memory hierarchies: map, export; size where numbers are free", "peak")
    for name in hierarchy_names():
        spec, machine = load_hierarchy_file(name), load_hierarchy(name)
        free = chip_ranges(machine)
        count = len(free.sides) + len(free.size_bits) + len(free.width_bits)
        notes = [_size(machine), *([UNCHECKED] if spec.illustrative else [])]
        notes += [f"{count} numbers free"] if count else []
        peak = spell(2.0 * machine.units * float(machine.clock_ghz), "throughput")
        hierarchies.add_row(name, peak, f"{spec.title} ({', '.join(notes)})")
    circuits = _listing("Circuits that validate reproduces", "peak", "source")
    for name in circuit_names():
        file = load_circuit_file(name)
        array = isinstance(file, GatedArrayFile)
        most = 2.0 * file.rows.value * file.cols.value * file.clock.value if array else None  # type: ignore[union-attr]
        circuits.add_row(name, spell(most, "throughput"), file.supply.source.split(":")[0], file.title)
    return [machines, hierarchies, circuits]


def number_table(title: str, section: BaseModel) -> Table:
    """Every number, count and switch of a file by its path, with unit, interval and source, in its order."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("number", no_wrap=True)
    for heading in ("value", "interval"):
        table.add_column(heading, justify="right")
    table.add_column("source", overflow="fold")
    for path, found in _stated(section, ""):
        source = f"assumed: {found.source}" if found.assumed else found.source
        table.add_row(path, *_value_and_interval(found), source)
    return table


def machine_title(name: str, title: str, illustrative: bool, chip: ChipSection | None = None) -> str:
    """What heads a machine's numbers: name, title, venue, and whether silicon checks it."""
    parts = [title, *([chip.venue] if chip is not None else [])]
    parts += [UNCHECKED] if illustrative else []
    return f"{name}: {'; '.join(parts)}"


def interval_text(found: Quantity) -> str:
    """'0.55 to 0.62' in the unit of the file; nothing without an interval."""
    scale = found.value / found.stated if found.stated else 1.0
    return "" if found.interval is None else " to ".join(f"{end / scale:g}" for end in found.interval)


def _value_and_interval(found: Quantity | Lanes | Flag | Choice) -> tuple[str, str]:
    if isinstance(found, Quantity):
        unit = "" if found.unit == "1" else f" {found.unit}"
        return f"{found.stated:g}{unit}", interval_text(found)
    if isinstance(found, Choice):
        return found.value, ""
    value = ", ".join(map(str, found.value)) if isinstance(found, Lanes) else "yes" if found.value else "no"
    return value, ""


def _stated(node: Any, path: str) -> Iterator[tuple[str, Quantity | Lanes | Flag | Choice]]:
    if isinstance(node, Quantity | Lanes | Flag | Choice):
        yield path, node
    elif isinstance(node, BaseModel):
        for name in type(node).model_fields:
            yield from _stated(getattr(node, name), f"{path}.{name}".removeprefix("."))
    elif isinstance(node, list | tuple):
        for place, item in enumerate(node):
            yield from _stated(item, f"{path}.{getattr(item, 'name', place)}")


def _processor(file: MachineFile) -> Sequence[str]:
    chip = file.spec.chip
    node = f"{chip.node.stated:g} {chip.node.unit}" if chip is not None else ""
    title = file.spec.title + (f" ({UNCHECKED})" if file.spec.illustrative else "")
    peak = max(peak_gops(file.machine).values())
    return file.name, node, spell(peak, "throughput"), chip.venue if chip is not None else "", title


def _size(machine: Hierarchy) -> str:
    """MACs and levels, in words; the last memory is outside the chip."""
    return f"{machine.units} MACs, {len(machine.memories) - 1} memories on chip"


def _listing(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("name", no_wrap=True)
    for heading in columns:
        wide = heading == "source"
        table.add_column(
            heading, no_wrap=not wide, overflow="fold", max_width=22 if wide else None,
            justify="right" if heading == "peak" else "left",
        )  # fmt: skip
    table.add_column("what it is", overflow="fold")
    return table


def law_table(title: str, laws: Sequence[Law]) -> Table:
    """Every law with its verdict and the numbers that decide."""
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("law", overflow="fold", ratio=2)
    table.add_column("verdict", no_wrap=True)
    table.add_column("found", overflow="fold", ratio=3)
    for law in laws:
        table.add_row(law.name, "holds" if law.holds else "BROKEN", law.found, style="" if law.holds else "bold red")
    return table
