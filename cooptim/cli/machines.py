"""`cooptim machines`."""

import argparse
import pathlib
import re

from rich.console import Console
from rich.table import Table

from cooptim.hardware.circuit_file import circuit_names, load_circuit_file
from cooptim.hardware.hierarchy_file import hierarchy_names, hierarchy_source, load_hierarchy, load_hierarchy_file
from cooptim.hardware.load import array_of_name, load_machine_file, machine_names
from cooptim.reporting.machines import law_table, machine_lists, machine_title, number_table
from cooptim.reporting.schema import schema_markdown


def run(options: argparse.Namespace) -> int:
    """Lists the machines, shows every number of one, or describes the files."""
    if options.action == "schema":
        print(schema_markdown(), end="")
        return 0
    console = Console()
    if options.action == "check":
        return _check(console, options.name)
    for table in machine_lists() if options.action is None else _one(options.name):
        console.print(table)
    return 0


def _check(console: Console, name: str) -> int:
    """Prints the laws of every kind that has this name; 1 when one is broken."""
    import jax

    jax.config.update("jax_enable_x64", True)  # laws to the last digits
    from cooptim.validate.conformance import machine_laws
    from cooptim.validate.conformance_small import circuit_laws, hierarchy_laws

    holds = True
    for kind in kinds_of(name):
        if kind == "processor":
            laws = machine_laws(load_machine_file(name))
        else:
            laws = (
                hierarchy_laws(load_hierarchy(name)) if kind == "hierarchy" else circuit_laws(load_circuit_file(name))
            )
        broken = sum(not law.holds for law in laws)
        console.print(law_table(f"{name}, {kind}: {broken or 'none'} of {len(laws)} laws broken", laws))
        holds = holds and not broken
    return 0 if holds else 1


def kinds_of(name: str) -> tuple[str, ...]:
    """Kinds of the machine of this name ('processor', 'hierarchy', 'circuit'), or the kind of this file.

    Raises ValueError that lists all names for one that is none, and is no file.
    """
    plain, size = array_of_name(name)
    if size is not None:
        kinds_of(plain)
        return ("processor",)
    known = {"processor": machine_names(), "hierarchy": hierarchy_names(), "circuit": circuit_names()}
    found = tuple(kind for kind, names in known.items() if name in names)
    if found:
        return found
    if not pathlib.Path(name).is_file():
        every = dict.fromkeys(one for names in known.values() for one in names)
        raise ValueError(f"machine '{name}': neither a file nor a known name; use one of {', '.join(every)}")
    source = hierarchy_source(name)
    if re.search(rb"^(memories|operational_array):", source, re.MULTILINE):
        return ("hierarchy",)
    return ("circuit",) if re.search(rb"^kind:", source, re.MULTILINE) else ("processor",)


def _one(name: str) -> list[Table]:
    """Every number of a machine; a name that several kinds have shows each."""
    return [_table(kind, name) for kind in kinds_of(name)]


def _table(kind: str, name: str) -> Table:
    if kind == "processor":
        machine = load_machine_file(name).spec
        return number_table(machine_title(machine.name, machine.title, machine.illustrative, machine.chip), machine)
    if kind == "hierarchy":
        spec = load_hierarchy_file(name)
        return number_table(machine_title(spec.name, spec.title, spec.illustrative), spec)
    circuit = load_circuit_file(name)
    return number_table(machine_title(circuit.name, circuit.title, False), circuit)
