"""`cooptim map`."""

import argparse
import dataclasses

from rich.console import Console

from cooptim.cli.layers import BITS, bits_of, published, traced
from cooptim.cli.model import require_model_of_input
from cooptim.export.atomic import require_writable
from cooptim.export.mapping_file import MappedLayer, MappedNetwork, read_mappings, write_mappings
from cooptim.hardware.hierarchy import Hierarchy
from cooptim.hardware.hierarchy_file import load_hierarchy
from cooptim.mapping.even_best import frontier_sizes
from cooptim.mapping.even_frontier import Sizes
from cooptim.mapping.nest import LayerShape, Mapping, layer_shape, nest_of
from cooptim.mapping.network import best_network
from cooptim.mapping.price import price
from cooptim.mapping.resident_network import best_residency, residency_of
from cooptim.mapping.rules import HARDWARE, ZIGZAG, Rules
from cooptim.mapping.search import Certificate, Spatial, best_mapping, spatial_options, unrolled
from cooptim.reporting.mapping import Own, mapping_table, totals_line
from cooptim.reporting.residency import residency_lines, residency_table, sizes_table
from cooptim.workload import Workload

_RULES = {"hardware": HARDWARE, "zigzag": ZIGZAG}
_SOURCES = ("network", "model", "mapping")  # where layers come from
_SAID_BY_FILE = ("machine", *BITS)


@dataclasses.dataclass(frozen=True)
class Task:
    """What to search: layers with their shapes, and mappings to price beside the best."""

    network: str
    machine_file: str
    rules: str
    objective: str
    shapes: dict[str, LayerShape]
    repeats: dict[str, int]
    own: dict[str, Mapping]
    workload: Workload | None = None


def run(options: argparse.Namespace) -> int:
    """Prints, per layer, the best mapping's cost, the proven bound, the gap, the size of the space and the time."""
    _require_one_source(options)
    task = _written(options) if options.mapping is not None else _asked(options)
    machine, rules = load_hierarchy(task.machine_file), _RULES[task.rules]
    if options.out is not None:
        require_writable(options.out)
    found, bound = _searched(task, rules)
    own = None
    if task.own:
        own = {}
        for name, mapping in task.own.items():
            cost = price(nest_of(name, task.shapes[name], mapping, machine), task.shapes[name], machine, rules)
            own[name] = Own(mapping, float(cost.energy_pj), float(cost.cycles.total))
    console = Console()
    title = f"{task.network} on {machine.name}, {task.rules} rules"
    console.print(mapping_table(title, found, task.repeats, own))
    console.print(totals_line(found, task.repeats, bound, own))
    searched = {task.shapes[name]: one.cpu_s for name, one in found.items()}
    console.print(
        f"{len(searched)} different layers of {len(found)}, {sum(searched.values()):.1f} CPU s. The space: every order "
        "of the prime factors, every cut of each operand on its own, one loop per array dimension"
        + (" or as in the file." if own else ".")
    )
    if options.frontier:
        console.print(sizes_table(_sizes(task, found, machine, rules)))
    if options.residency is not None:
        _print_residency(console, task, found, machine, rules, options.residency == "joint")
    if options.out is not None:
        _write(console, options.out, task, machine, found, bound)
    return 0


def _sizes(task: Task, found: dict[str, Certificate], machine: Hierarchy, rules: Rules) -> dict[str, Sizes]:
    """Sizes of the exact sets of even mappings, at the unrolling that was chosen."""
    shapes = [task.shapes[name] for name in found]
    nests = [unrolled(n, s, c.mapping.spatial, machine) for (n, c), s in zip(found.items(), shapes, strict=True)]
    return frontier_sizes(list(found), shapes, machine, nests, rules)


def _print_residency(
    console: Console, task: Task, found: dict[str, Certificate], machine: Hierarchy, rules: Rules, joint: bool
) -> None:
    if task.workload is None:
        raise ValueError("--residency: a mapping file does not say which layer feeds which; give --network or --model")
    if joint:
        stays = best_residency(task.workload, task.shapes, machine, rules)
    else:
        mappings = {name: one.mapping for name, one in found.items()}
        stays = residency_of(task.workload, task.shapes, mappings, machine, rules)
    console.print(residency_table(stays, joint))
    for line in residency_lines(stays):
        console.print(line, highlight=False)


def _write(
    console: Console, out: str, task: Task, machine: Hierarchy, found: dict[str, Certificate], bound: float
) -> None:
    layers = tuple(MappedLayer(n, task.shapes[n], one.mapping, task.repeats[n]) for n, one in found.items())
    mapped = MappedNetwork(task.network, machine, task.machine_file, task.rules, task.objective, layers)
    totals = {
        "energy_pj": sum(task.repeats[n] * one.energy_pj for n, one in found.items()),
        "cycles": sum(task.repeats[n] * one.cycles for n, one in found.items()),
        "bound": bound,
    }
    console.print(f"mappings: {write_mappings(out, mapped, list(found.values()), totals)}", soft_wrap=True)


def _require_one_source(options: argparse.Namespace) -> None:
    given = [name for name in _SOURCES if getattr(options, name) is not None]
    if len(given) > 1:
        named = " and ".join(f"--{name}" for name in given)
        raise ValueError(f"{named}: each says which layers to map; give one of --network, --model, --mapping")
    require_model_of_input(options)
    if options.mapping is not None:
        for name in _SAID_BY_FILE:
            if getattr(options, name) is not None:
                option = f"--{name.replace('_', '-')}"
                raise ValueError(f"{option}: {options.mapping} says that itself; leave {option} out, or edit the file")


def _written(options: argparse.Namespace) -> Task:
    """What a mapping file asks for."""
    mapped = read_mappings(options.mapping)
    return Task(
        mapped.network,
        mapped.machine_file,
        options.rules or mapped.rules,
        options.objective or mapped.objective,
        {layer.name: layer.shape for layer in mapped.layers},
        {layer.name: layer.repeat for layer in mapped.layers},
        {layer.name: layer.mapping for layer in mapped.layers},
    )


def _asked(options: argparse.Namespace) -> Task:
    """What the options ask for."""
    bits = bits_of(options)
    load_hierarchy(options.machine or "tpu_like")  # before a model is traced
    workload = traced(options) if options.model is not None else published(options.network or "resnet18")
    return Task(
        workload.name,
        options.machine or "tpu_like",
        options.rules or "hardware",
        options.objective or "energy",
        {layer.name: layer_shape(layer, *bits) for layer in workload.layers},
        {layer.name: layer.repeat for layer in workload.layers},
        {},
        workload,
    )


def _searched(task: Task, rules: Rules) -> tuple[dict[str, Certificate], float]:
    """(certificate of each layer, bound of the network): sum of the layers' for energy, of the product for edp."""
    machine = load_hierarchy(task.machine_file)
    spatial: dict[str, list[Spatial]] = {}
    for name, shape in task.shapes.items():
        options: list[Spatial] = list(spatial_options(shape, machine))
        own = _unrolled(task.own[name]) if name in task.own else {}
        spatial[name] = options if own in options or name not in task.own else [*options, own]
    if task.objective == "edp":
        chosen = best_network(task.shapes, machine, rules, spatial, repeats=task.repeats)
        return chosen.certificates, chosen.bound
    known: dict[object, Certificate] = {}
    found = {}
    for name, shape in task.shapes.items():
        key = (shape, repr(spatial[name]))
        if key not in known:
            known[key] = best_mapping(name, shape, machine, rules, "energy", spatial[name])
        found[name] = dataclasses.replace(known[key], layer=name)
    return found, sum(task.repeats[name] * one.bound for name, one in found.items())


def _unrolled(mapping: Mapping) -> dict[str, tuple[tuple[str, int], ...]]:
    """The unrolling of a mapping without what it leaves at one unit."""
    turning = {axis: tuple((d, n) for d, n in pairs if n > 1) for axis, pairs in mapping.spatial.items()}
    return {axis: pairs for axis, pairs in turning.items() if pairs}
