"""A sweep with its files, and its tables on the terminal."""

import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from cooptim.data import Dataset
from cooptim.descent.front import DIVERGED, FINISHED, Front, front_content
from cooptim.descent.loop import Progress
from cooptim.descent.memory import GIB, Estimate
from cooptim.descent.plan import Plan
from cooptim.descent.result import Budget
from cooptim.descent.sweep import Options, sweep
from cooptim.export.atomic import require_writable
from cooptim.export.front_file import forget_members, read_members, write_front, write_member
from cooptim.hardware.machine import Machine
from cooptim.network.trace import Network
from cooptim.reporting.spell import digits, percent, spell, times
from cooptim.reporting.table import OVER, plain_table


def pareto(
    network: Network | Callable[[int], Network],
    machine: Machine,
    data: Dataset,
    budgets: Sequence[Budget],
    seeds: Sequence[int] = (0,),
    *,
    out: str | os.PathLike[str],
    plan: Plan | None = None,
    resume: bool = False,
    together: int | None = None,
    only: Sequence[str] = (),
    halt: bool = False,
    floor_drop: float | None = None,
    progress: Progress | None = None,
    said: Callable[[Estimate], None] | None = None,
) -> Front:
    """Runs a sweep over energy budgets and seeds in one compile; every member ends as a run directory.

    Members of a seed share its float parent, 16-bit reference and best uniform width. A member that diverges is frozen
    at its last finite state and marked; it stops no other.

    Args:
      network: from `cooptim.trace`, the same for all seeds, or a function of the seed that returns it with weights of
        its own.
      budgets: different energies (or ratios to the 16-bit reference) at one deadline, area and drop of accuracy.
      out: directory: front.json, front.csv, and members/NAME as `optimize` writes one.
      plan: default is `plan_for` the training set.
      resume: go on from what is there; budgets and seeds may be added. Without it what is there is removed, once all
        has been checked.
      together: members in one call of the step; default 1 on a CPU, where that is cheapest, else all.
      only: names of members to work on; the others stay as they are, as with `resume`.
      halt: land them where their checkpoints stand.
      floor_drop: accuracy of the hypervolume's reference point, as a fraction below the float parents' mean; default:
        chance.
      said: is told the estimate of memory before anything trains.

    Raises ValueError when the sweep cannot be run, InfeasibleBudget when no member's budget can be met.
    """
    folder = require_writable(out)
    options = Options(
        pathlib.Path(folder), resume or bool(only), together, tuple(only), halt, floor_drop, progress,
        fresh=lambda: forget_members(folder),
    )  # fmt: skip
    front = sweep(
        network, machine, data, budgets, seeds, plan, options, read_members(folder) if options.resume else {},
        lambda point, result: write_member(folder, point, result), said or (lambda _: None),
    )  # fmt: skip
    write_front(folder, front)
    return front


def report_front(front: Front, out: str | os.PathLike[str], *, console: Console | None = None) -> None:
    """Prints a sweep's tables and draws front.png into its directory; without matplotlib it says that it did not."""
    screen = Console() if console is None else console
    content = front_content(front)
    print_front(screen, content)
    try:
        from cooptim.reporting.front_plot import write_front_plot
    except ImportError:
        screen.print("no picture: matplotlib is not installed; pip install 'cooptim[plots]'", highlight=False)
    else:
        write_front_plot(out, content)
    screen.print(f"written to {out}", highlight=False, soft_wrap=True)


def print_front(console: Console, content: Mapping[str, Any]) -> None:
    """Prints front.json: every member by energy, those on the front starred, and the notes."""
    console.print(front_table(content))
    for line in front_notes(content):
        console.print(line, highlight=False, markup=False)


def front_table(content: Mapping[str, Any]) -> Table:
    """Members by energy; `content` as in front.json."""
    table = plain_table(f"{content['workload']} on {content['machine']}: {len(content['members'])} members")
    table.add_column("", no_wrap=True)
    table.add_column("member", overflow="fold", min_width=9)
    for heading in ("asked", "energy", "vs 16 b", "val", "drop", "test", "latency"):
        table.add_column(heading, justify="right", no_wrap=True)
    for one in sorted(content["members"], key=_by_energy):
        reference, energy = one["reference_pj"], one["energy_pj"]
        lost = _less(one["float_val_accuracy"], one["val_accuracy"])
        table.add_row(
            "*" if one["on_front"] else "",
            one["name"],
            spell(one["budget_pj"], "energy") if one["budget_pj"] else f"1/{digits(one['budget_ratio'])}",
            one["status"] if energy is None else spell(energy, "energy"),
            times(reference / energy if reference and energy else None),
            percent(one["val_accuracy"]),
            "-" if lost is None else f"{100.0 * lost:.2f}",
            percent(one["test_accuracy"]),
            spell(one["latency_ns"], "time"),
            style="bold" if one["on_front"] else "",
        )
    return table


def front_notes(content: Mapping[str, Any]) -> list[str]:
    """Hypervolume with its reference point, the references by seed, budgets missed, why members have no design."""
    volume = content["hypervolume"]
    point, lines = volume["reference_point"], ["* no member has less energy and a higher validation accuracy"]
    if volume["share"] is not None:
        each = ", ".join(f"seed {seed} {share:.4f}" for seed, share in volume["by_seed"].items())
        lines.append(
            f"hypervolume {volume['share']:.4f} ({each}) of log energy from {spell(point['energy_pj'], 'energy')} "
            f"(16 b) to the bound x validation accuracy from {percent(point['val_accuracy'])} "
            f"({point['accuracy_is']}) to 100 %"
        )
    seeds = {one["seed"]: one for one in content["members"] if one["reference_pj"] is not None}
    for seed, one in sorted(seeds.items()):
        line = (
            f"seed {seed}: float {percent(one['float_val_accuracy'])} val, {percent(one['float_test_accuracy'])} test; "
            f"16 b {spell(one['reference_pj'], 'energy')}"
        )
        if one["uniform_pj"] is not None:
            line += (
                f"; uniform {one['uniform_bits']} b {spell(one['uniform_pj'], 'energy')}, "
                f"{percent(one['uniform_val_accuracy'])} val, {percent(one['uniform_test_accuracy'])} test"
            )
        lines.append(line)
    asked = ((one, _asked_pj(one)) for one in content["members"] if one["energy_pj"])
    over = [f"{one['name']} {times(one['energy_pj'] / pj)}" for one, pj in asked if pj and one["energy_pj"] > pj * OVER]
    if over:
        lines.append(f"MISSED, more energy than asked: {', '.join(over)}")
    for one in content["members"]:
        if one["status"] != FINISHED or one["note"]:
            lines.append(f"{one['name']}: {'' if one['status'] == FINISHED else one['status'] + ': '}{one['note']}")
    if any(one["status"] == DIVERGED for one in content["members"]):
        lines.append("a diverged member stands at its last finite state: land it with --resume --member NAME")
    memory = content["memory_bytes"]
    if memory.get("estimated"):
        lines.append(
            f"memory: {memory['estimated'] / GIB:.2f} GiB estimated, {memory['peak'] / GIB:.2f} GiB at the peak"
        )
    return lines


def estimate_line(found: Estimate) -> str:
    """The estimate of a sweep's memory, for before it starts."""
    room = "" if found.available is None else f"; {(found.available + found.resident) / GIB:.2f} GiB can be had"
    return (
        f"memory: about {found.total / GIB:.2f} GiB at the peak for {found.members} members, {found.together} in a "
        f"call ({found.resident / GIB:.2f} GiB are taken, a call takes {found.call / GIB:.2f} GiB){room}"
    )


def _by_energy(one: Mapping[str, Any]) -> tuple[float, str]:
    return (one["energy_pj"] if one["energy_pj"] is not None else float("inf")), one["name"]


def _asked_pj(one: Mapping[str, Any]) -> float | None:
    if one["budget_pj"] is not None:
        return float(one["budget_pj"])
    return one["reference_pj"] / one["budget_ratio"] if one["reference_pj"] and one["budget_ratio"] else None


def _less(over: float | None, under: float | None) -> float | None:
    return over - under if over is not None and under is not None else None
