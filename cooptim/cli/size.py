"""`cooptim size`."""

import argparse
import math
import re
import time
from typing import Any

from rich.console import Console

from cooptim.cli.layers import bits_of, published, traced
from cooptim.cli.model import require_model_of_input
from cooptim.cli.quantity import positive
from cooptim.export.atomic import require_writable
from cooptim.export.chip_file import built_record, chip_numbers, write_chip
from cooptim.hardware.chip import chip_of, chip_ranges
from cooptim.hardware.hierarchy_file import load_hierarchy
from cooptim.mapping.chip_build import Bench, built_chip, given_chip
from cooptim.mapping.chip_descent import Goal, Load, descend_chips, log_cost, require_free, together
from cooptim.mapping.nest import layer_shape
from cooptim.mapping.rules import HARDWARE
from cooptim.reporting.chip import chip_lines, chip_table, network_table


def run(options: argparse.Namespace) -> int:
    """Sizes what a machine frees, and prints the chip beside the file's; 1 where a budget is broken."""
    machine = load_hierarchy(options.machine)
    require_free(machine)
    goal = Goal(
        options.objective,
        options.combine,
        None if options.area is None else positive("--area", options.area, "area"),
        None if options.latency is None else positive("--latency", options.latency, "time"),
    )
    for name in ("starts", "steps", "sweeps", "effort"):
        if getattr(options, name) < 1:
            raise ValueError(f"--{name} {getattr(options, name)}: legal: 1 or more")
    require_model_of_input(options)
    loads = _loads(options)
    if options.out is not None:
        require_writable(options.out)
    console, begin = Console(), time.process_time()

    def say(text: str) -> None:
        console.print(f"[dim]{time.process_time() - begin:6.0f} CPU s  {text}[/]", highlight=False)

    stacked = together(loads)
    say(f"{stacked.stack.layers} different layers; descending {options.starts} chips, {options.steps} steps")
    descended = descend_chips(stacked, machine, goal, HARDWARE, options.starts, options.steps, seed=options.seed)
    bench = Bench(stacked, machine, goal, HARDWARE)
    built, relaxed = built_chip(descended, bench, effort=options.effort, sweeps=options.sweeps, say=say)
    given = given_chip(Bench(stacked, machine, goal, HARDWARE))
    relaxed_cost = float(log_cost(relaxed.energy_pj, relaxed.latency_ns, stacked.weights, goal))
    title = f"{machine.name} sized for {', '.join(stacked.names)}"
    console.print(chip_table(title, chip_ranges(machine), chip_of(machine), relaxed.chip, built.chip))
    console.print(network_table(given, relaxed, built))
    for line in chip_lines(given, relaxed, relaxed_cost, built, goal):
        console.print(line, highlight=False)
    if options.out is not None:
        record: dict[str, Any] = {
            "given": built_record(given),
            "relaxed": {
                "numbers": chip_numbers(relaxed.chip),
                "area_mm2": float(relaxed.area_mm2),
                "log_cost": relaxed_cost,
                "networks": {
                    name: {"energy_pj": float(e), "latency_ns": float(t)}
                    for name, e, t in zip(stacked.names, relaxed.energy_pj, relaxed.latency_ns, strict=True)
                },
            },
            "left": None if math.isnan(built.left) else built.left,
            "seed": options.seed,
            "cpu_s": round(time.process_time() - begin, 1),
        }
        path = write_chip(options.out, options.machine, loads, goal, HARDWARE, built, record)
        mappings = f"{path.parent}/{stacked.names[0]}/mapping.json"
        console.print(f"chip: {path}; its mappings: cooptim map --mapping {mappings}", soft_wrap=True, highlight=False)
    return 0 if built.legal else 1


def _loads(options: argparse.Namespace) -> list[Load]:
    """The networks of --network and --model with their weights."""
    bits = bits_of(options)
    workloads = [published(name) for name in options.network or ([] if options.model else ["resnet18"])]
    if options.model is not None:
        workloads.append(traced(options))
    weights = _weights(options.weight or [], [w.name for w in workloads])
    return [
        Load(
            w.name,
            {layer.name: layer_shape(layer, *bits) for layer in w.layers},
            {layer.name: layer.repeat for layer in w.layers},
            weights.get(w.name, 1.0),
        )
        for w in workloads
    ]


def _weights(given: list[str], names: list[str]) -> dict[str, float]:
    found: dict[str, float] = {}
    for text in given:
        match = re.fullmatch(r"(.+)=(\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)", text)
        if match is None or match.group(1) not in names or not float(match.group(2)) > 0:
            raise ValueError(f"--weight {text}: write NETWORK=NUMBER above 0; the networks are {', '.join(names)}")
        found[match.group(1)] = float(match.group(2))
    return found
