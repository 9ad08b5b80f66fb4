"""`cooptim evaluate --intervals`: a price over the intervals of the machine file, and rankings of two designs."""

import argparse
import dataclasses
import json
import pathlib

import numpy as np
from rich.console import Console

from cooptim.cost.intervals import influences, ranking, spread
from cooptim.descent.wide import wide
from cooptim.design.design import Design
from cooptim.export import load_design, load_stats
from cooptim.hardware.intervals import draw_machines
from cooptim.hardware.load import MachineFile, load_machine_file
from cooptim.network.stats import Stats
from cooptim.reporting.intervals import chance, draw_notes, influence_table, ranking_line, spread_table
from cooptim.workload import Workload

_SHOWN = 8  # numbers of most influence


@dataclasses.dataclass(frozen=True)
class Contender:
    """One design on one machine."""

    name: str
    file: MachineFile
    design: Design
    stats: Stats


def show_intervals(
    console: Console, options: argparse.Namespace, workload: Workload, first: Contender, period_ns: float | None
) -> None:
    """Prints what the intervals do to the design, and to its ranking against --against or the full-width design.

    Raises ValueError for a number of samples or an opponent that cannot be.
    """
    contenders = [first, *_opponent(options, workload, first)]
    files = list({one.file.name: one.file for one in contenders}.values())
    draws = draw_machines(files, options.samples, options.seed)
    by_name = {draw.file.name: draw for draw in draws.each}
    spreads = [
        spread(workload, by_name[one.file.name], one.design, one.stats, period_ns=period_ns) for one in contenders
    ]
    names = [one.name for one in contenders]
    console.print(spread_table(names, spreads))
    values = by_name[first.file.name].values

    def show_influences(title: str, result: np.ndarray, quantity: str) -> None:
        found = [one for one in influences(values, result) if abs(one.correlation) >= chance(draws.samples)]
        if found:
            console.print(influence_table(title, found[:_SHOWN], first.file, quantity))

    show_influences(f"what moves the energy of {first.name} most", spreads[0].energy_pj, "energy")
    if len(contenders) == 2:
        a, b = spreads
        energy = ranking(a.energy_pj, b.energy_pj, (a.stated_pj, b.stated_pj))
        time = ranking(a.latency_ns, b.latency_ns, (a.stated_ns, b.stated_ns))
        show_influences(f"what moves the energy of {names[1]} over {names[0]} most", energy.ratio, "")
        for what, found in (("energy", energy), ("latency", time)):
            console.print(ranking_line(what, (names[0], names[1]), found), highlight=False)
    for line in draw_notes(draws, names, spreads):
        console.print(line, highlight=False)


def _opponent(options: argparse.Namespace, workload: Workload, first: Contender) -> list[Contender]:
    """What the design is held against: a design file on the same machine, another machine, or the full-width design."""
    against = options.against
    if against is None:
        if options.design is None:
            return []
        return [Contender(full_width(first.file), first.file, *wide(workload, first.file.machine))]
    if _is_design(against):
        machine = first.file.machine
        design, stats = load_design(against, workload, machine), load_stats(against, workload)
        return [Contender(against if against != first.name else f"{against} (again)", first.file, design, stats)]
    other = load_machine_file(against)
    if other.name == first.file.name and other.spec != first.file.spec:
        raise ValueError(f"--against {against}: named {other.name} as --machine is; give one of them another name")
    return [Contender(f"{full_width(other)} on {other.name}", other, *wide(workload, other.machine))]


def full_width(file: MachineFile) -> str:
    """Name of the design whose operands all have the datapath's width: '16 b' on Envision."""
    return f"{file.machine.datapath.width_bits} b"


def _is_design(path: str) -> bool:
    """Whether a file is JSON, which machines are not."""
    file = pathlib.Path(path)
    try:
        return file.is_file() and isinstance(json.loads(file.read_text(encoding="utf-8")), dict)
    except (ValueError, OSError):
        return False
