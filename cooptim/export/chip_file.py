"""A sized chip as files: a machine of its own (chip.yaml), what it costs (chip.json), and the mappings of each network.

chip.yaml is the machine's file with other numbers in place of the free ones: it loads like any hierarchy, keeps the
range of every number, and states where the law of each energy holds, so that it prices as the chip was priced.
"""

import json
import os
import pathlib
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import yaml

from cooptim.export.atomic import require_writable, write_bytes
from cooptim.export.mapping_file import MappedLayer, MappedNetwork, write_mappings
from cooptim.hardware.chip import Chip, chip_ranges
from cooptim.hardware.hierarchy_file import hierarchy_source, load_hierarchy
from cooptim.hardware.strict_yaml import read_strict
from cooptim.mapping.chip_build import BuiltChip, BuiltNetwork
from cooptim.mapping.chip_descent import Goal, Load
from cooptim.mapping.nest import nest_of
from cooptim.mapping.price import price
from cooptim.mapping.rules import Rules
from cooptim.mapping.search import Option, candidates, certificate

SOURCE = "chosen by cooptim size"


def sized_file(machine_file: str, chip: Chip) -> str:
    """The text of a machine file with the numbers of a chip.

    Args:
      machine_file: name of a packaged hierarchy or a path; it loads.
      chip: every number that the file frees.
    """
    content: dict[str, Any] = read_strict(hierarchy_source(machine_file))
    for row in content["array"]["dims"]:
        if row["name"] in chip.sides:
            row["size"] = _number(float(chip.sides[row["name"]]), "1")
    for memory in content["memories"]:
        if memory["name"] in chip.size_bits:
            memory.setdefault("at", memory["size"])  # where its energies hold stays where it was
            memory["size"] = _number(float(chip.size_bits[memory["name"]]), "bit")
        for port in memory["ports"]:
            key = (memory["name"], port["name"])
            if key in chip.width_bits:
                port.setdefault("at", port["width"])
                port["width"] = _number(float(chip.width_bits[key]), "bit")
    text: str = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=200)
    return f"# {content['name']} as sized; the numbers that were free say so by their source.\n{text}"


def _number(value: float, unit: str) -> dict[str, Any]:
    whole = int(value) if value == int(value) else value
    return {"value": whole, "unit": unit, "assumed": True, "source": SOURCE}


def chip_numbers(chip: Chip) -> dict[str, float]:
    """The numbers of a chip by name: array dimensions, memories [bit], and ports as 'memory.port' [bit]."""
    found = {**chip.sides, **chip.size_bits, **{".".join(key): value for key, value in chip.width_bits.items()}}
    return {name: float(value) for name, value in found.items()}


def write_chip(
    folder: str | os.PathLike[str],
    machine_file: str,
    loads: Sequence[Load],
    goal: Goal,
    rules: Rules,
    built: BuiltChip,
    record: dict[str, Any],
) -> pathlib.Path:
    """Writes chip.yaml, chip.json and, for each network, NETWORK/mapping.json; the path of chip.yaml.

    Args:
      record: what chip.json says besides (the chip of the file, the relaxed one, settings).

    Raises ValueError when the folder cannot be written; no file is ever half-written.
    """
    path = require_writable(folder)
    write_bytes(path / "chip.yaml", sized_file(machine_file, built.chip).encode())
    ranges = chip_ranges(load_hierarchy(machine_file))
    content = {
        "format": "cooptim-chip-1",
        "version": version("cooptim"),
        "machine": machine_file,
        "goal": {"objective": goal.objective, "combine": goal.combine, "area_mm2": goal.area_mm2,
                 "latency_ns": goal.latency_ns},
        "built": built_record(built),
        "ranges": {
            **{name: [k.low, k.high, k.step] for name, k in {**ranges.sides, **ranges.size_bits}.items()},
            **{".".join(key): [k.low, k.high, k.step] for key, k in ranges.width_bits.items()},
        },
        **record,
    }  # fmt: skip
    write_bytes(path / "chip.json", (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())
    for load, network in zip(loads, built.networks, strict=True):
        _write_network(path, load, network, goal, rules)
    return path / "chip.yaml"


def built_record(built: BuiltChip) -> dict[str, Any]:
    """A priced chip as plain numbers."""
    return {
        "numbers": chip_numbers(built.chip),
        "area_mm2": built.area_mm2,
        "leakage_mw": built.leakage_mw,
        "log_cost": built.log_cost,
        "excess": dict(built.excess),
        "networks": {n.name: {"energy_pj": n.energy_pj, "latency_ns": n.latency_ns} for n in built.networks},
    }


def _write_network(path: pathlib.Path, load: Load, network: BuiltNetwork, goal: Goal, rules: Rules) -> None:
    """Its mappings with what is proven of each at its unrolling."""
    file = str(path / "chip.yaml")
    machine, found = load_hierarchy(file), []
    objective = "edp" if goal.objective == "edp" else "energy"
    for layer, mapping in network.mappings.items():
        shape = load.shapes[layer]
        cost = price(nest_of(layer, shape, mapping, machine), shape, machine, rules)
        chosen = Option(mapping, float(cost.energy_pj), float(cost.cycles.total))
        offers = candidates(layer, shape, machine, rules, mapping.spatial)
        found.append(certificate(layer, objective, chosen, offers, 0.0))
    order = [name for name in load.shapes if name in network.mappings]
    found.sort(key=lambda one: order.index(one.layer))
    layers = tuple(MappedLayer(n, load.shapes[n], network.mappings[n], load.repeat(n)) for n in order)
    totals = {"energy_pj": network.energy_pj, "latency_ns": network.latency_ns}
    mapped = MappedNetwork(load.name, machine, file, rules.name, objective, layers)
    write_mappings(path / load.name, mapped, found, totals)
