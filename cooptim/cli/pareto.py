"""`cooptim pareto`."""

import argparse
import dataclasses
import math
import re

import numpy as np
from rich.console import Console

from cooptim.cli.model import dataset, network
from cooptim.cli.optimize import completed, methods, plan
from cooptim.cli.quantity import positive
from cooptim.descent.faults import faults_of
from cooptim.descent.recipes import require_tables
from cooptim.descent.result import Budget
from cooptim.export import require_writable
from cooptim.hardware.load import load_machine
from cooptim.reporting import Progress
from cooptim.reporting.pareto import estimate_line, pareto, report_front

_MOST = 1000  # members of a sweep; more are a slip of the pen


def run(options: argparse.Namespace) -> int:
    """Runs the sweep and writes its directory; 0 also where members diverged, as long as one has a design."""
    goals, seeds, lengths = budgets(options), seeds_of(options.seeds), plan(options)
    if len(goals) * len(seeds) > _MOST:
        raise ValueError(f"sweep of {len(goals)} budgets x {len(seeds)} seeds: at most {_MOST} members")
    if options.halt and not options.member:
        raise ValueError("--halt: lands members where they stand; name them with --member")
    if options.floor is not None and not 0 < options.floor < 100:
        raise ValueError(f"--floor {options.floor}: write points of accuracy above 0 and below 100, such as 5")
    machine = load_machine(options.machine)
    require_tables(machine, methods(options)["label_bits"])  # refused before anything is written
    out, data = require_writable(options.out), dataset(options)
    lengths = completed(lengths, options, len(data.x_train))
    if lengths is not None:
        faults_of(machine, lengths)  # refused before anything is trained
    screen = Console(stderr=True)
    with Progress(screen) as progress:
        front = pareto(
            lambda seed: network(options, data.sample, seed), machine, data, goals, seeds, out=out, plan=lengths,
            resume=options.resume or bool(options.member), together=options.together, only=tuple(options.member or ()),
            halt=options.halt, floor_drop=None if options.floor is None else options.floor / 100.0, progress=progress,
            said=lambda found: screen.print(estimate_line(found), highlight=False, soft_wrap=True),
        )  # fmt: skip
    report_front(front, out)
    return 0 if front.on_front else 1


def budgets(options: argparse.Namespace) -> list[Budget]:
    """The budgets of the command line; ValueError names the option that cannot be read."""
    if options.energy is not None and options.ratio is not None:
        raise ValueError("--energy and --ratio both say what to spend; give one of them")
    if not (math.isfinite(options.drop) and 0 <= options.drop < 100):
        raise ValueError(f"--drop {options.drop}: write points of accuracy from 0 to 100, such as 0.5")
    common = Budget(
        latency_ns=None if options.latency is None else positive("--latency", options.latency, "time"),
        area_mm2=None if options.area is None else positive("--area", options.area, "area"),
        accuracy_drop=options.drop / 100.0,
    )
    if options.energy is not None:
        found = spread("--energy", options.energy, lambda text: positive("--energy", text, "energy"))
        return [dataclasses.replace(common, energy_pj=value) for value in found]
    found = spread("--ratio", options.ratio or options.default_ratio, _ratio)
    return [dataclasses.replace(common, energy_ratio=value) for value in found]


def spread(option: str, text: str, read) -> list[float]:  # type: ignore[no-untyped-def]
    """Values of 'a,b,c', or of 'a..b:n', n of them in equal ratios from a to b."""
    span = re.fullmatch(r"\s*([^.,\s][^,]*?)\s*\.\.\s*([^,:]+?)\s*:\s*(\d+)\s*", text)
    if span is None:
        if ".." in text:
            raise ValueError(f"{option} {text}: write a range as FROM..TO:COUNT, such as 100nJ..500nJ:8")
        return [read(part) for part in text.split(",")]
    first, last, count = read(span.group(1)), read(span.group(2)), int(span.group(3))
    if not 2 <= count <= _MOST or first == last:
        raise ValueError(f"{option} {text}: a range takes two ends that differ and 2 to {_MOST} values")
    return [float(value) for value in np.geomspace(first, last, count)]


def seeds_of(text: str) -> list[int]:
    """Seeds of '0,1,2' or '0..4' (both ends)."""
    span = re.fullmatch(r"\s*(\d+)\s*\.\.\s*(\d+)\s*", text)
    parts = re.fullmatch(r"\s*\d+(\s*,\s*\d+)*\s*", text)
    if span is None and parts is None:
        raise ValueError(f"--seeds {text}: write whole numbers such as 0,1,2, or a range such as 0..4")
    low, high = (int(span.group(1)), int(span.group(2))) if span else (0, 0)
    found = list(range(low, min(high, low + _MOST) + 1)) if span else [int(part) for part in text.split(",")]
    if not found or max(found) >= 2**31:
        raise ValueError(f"--seeds {text}: no seeds, or one beyond 2147483647; write the lower end first")
    return found


def _ratio(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ValueError(f"--ratio {text}: write how many times below the 16-bit reference, such as 20,25,30")
    return value
