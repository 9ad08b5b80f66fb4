"""Chips sized by gradient against random ones at equal CPU time, and one chip for several networks.

Usage:
    python experiments/chip/run.py [--area 2] [--seeds 3] [--parts random together]
Prints the tables of README.md and writes random.csv and together.csv beside this file.
"""

import argparse
import csv
import math
import pathlib
import time

import numpy as np

from cooptim.hardware.chip import Chip, chip_area_mm2, chip_ranges, with_chip
from cooptim.hardware.hierarchy_file import load_hierarchy
from cooptim.mapping.chip_build import Bench, built_chip, given_chip, moved_chip, start_chip
from cooptim.mapping.chip_descent import Goal, Load, descend_chips, log_cost, together
from cooptim.mapping.nest import layer_shape
from cooptim.workload import zoo

HERE = pathlib.Path(__file__).resolve().parent
MACHINE = "edge_45nm"


def load(name: str, weight: float = 1.0) -> Load:
    """A published network at 8 bit; partial sums of 24 bit."""
    layers = zoo.network(name).layers
    shapes = {x.name: layer_shape(x, 8.0, 8.0, 24.0, 8.0) for x in layers}
    return Load(name, shapes, {x.name: x.repeat for x in layers}, weight)


def random_chip(rng: np.random.Generator, machine, area_mm2: float) -> Chip:
    """Every number evenly in logs over its range; drawn again until the area is met."""
    ranges = chip_ranges(machine)

    def draw(kinds):
        return {k: r.nearest(r.low * (r.high / r.low) ** rng.uniform()) for k, r in kinds.items()}

    while True:
        chip = Chip(*(draw(getattr(ranges, f)) for f in ("sides", "size_bits", "width_bits")))
        if 0.5 * area_mm2 < float(chip_area_mm2(with_chip(machine, chip))) <= area_mm2:
            return chip


def sized(loads, machine, goal, seed):
    """(built chip, log cost of its relaxed one, that of the best start before moves, CPU-s)."""
    begin = time.process_time()
    stacked = together(loads)
    ends = descend_chips(stacked, machine, goal, starts=8, steps=400, seed=seed)
    bench, said = Bench(stacked, machine, goal), []
    built, relaxed = built_chip(ends, bench, say=said.append)
    cost = float(log_cost(relaxed.energy_pj, relaxed.latency_ns, stacked.weights, goal))
    first = min(float(line.split("built ")[1].split()[0]) for line in said if line.startswith("start"))
    return built, cost, first, time.process_time() - begin


def against_random(area_mm2: float, seeds: int) -> None:
    """ResNet-18, energy x delay: gradient and moves; random chips for as long; moves from the best of three of them."""
    machine, goal = load_hierarchy(MACHINE), Goal("edp", area_mm2=area_mm2)
    loads = [load("resnet18")]
    given = given_chip(Bench(together(loads), machine, goal))
    rows = []
    for seed in range(seeds):
        built, relaxed, first, cpu_s = sized(loads, machine, goal, seed)
        rng, begin = np.random.default_rng(seed), time.process_time()
        best, tried = math.inf, 0
        while time.process_time() - begin < cpu_s:
            found = start_chip(Bench(together(loads), machine, goal), random_chip(rng, machine, area_mm2), None)
            best, tried = min(best, found.log_cost if found.legal else math.inf), tried + 1
        rng, begin = np.random.default_rng(seed), time.process_time()
        bench, start = None, None
        for _ in range(3):  # as many as the descent's ends that are searched
            other = Bench(together(loads), machine, goal)
            found = start_chip(other, random_chip(rng, machine, area_mm2), None)
            if start is None or found.rank < start.rank:
                bench, start = other, found
        walked = moved_chip(bench, start)
        rows.append([seed, given.log_cost, relaxed, first, built.log_cost, built.area_mm2, cpu_s, best, tried,
                     walked.log_cost, time.process_time() - begin])  # fmt: skip
        print(dict(zip(RANDOM, rows[-1], strict=True)), flush=True)
        write("random.csv", RANDOM, rows)
    table = np.array(rows)
    base = table[:, 4]
    for name, column in (("file's chip", 1), ("relaxed", 2), ("built, before moves", 3), ("random, equal CPU", 7),
                         ("random, then moves", 9)):  # fmt: skip
        print(f"{name:>20} over built: {np.round(np.exp(table[:, column] - base), 3)}")


RANDOM = ["seed", "file", "relaxed", "built_before_moves", "built", "area_mm2", "cpu_s", "random", "random_chips",
          "random_moved", "random_moved_cpu_s"]  # fmt: skip


def write(name, header, rows):
    """One table as CSV."""
    with (HERE / name).open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows([f"{x:.6g}" if isinstance(x, float) else x for x in row] for row in rows)


def several(area_mm2: float, names=("resnet18", "ds_cnn")) -> None:
    """A chip of its own for each network; one for all by the sum and by the worst, weights 1 / cost on its own chip."""
    machine, rows, own = load_hierarchy(MACHINE), [], {}
    goal = Goal("edp", area_mm2=area_mm2)
    for name in names:
        built, *_ = sized([load(name)], machine, goal, 0)
        own[name] = built.networks[0].energy_pj * built.networks[0].latency_ns
        rows.append([f"own chip of {name}", name, 1.0, built.area_mm2])
    for combine in ("sum", "worst"):
        loads = [load(name, 1.0 / own[name]) for name in names]
        built, *_ = sized(loads, machine, Goal("edp", combine, area_mm2=area_mm2), 0)
        for network in built.networks:
            ratio = network.energy_pj * network.latency_ns / own[network.name]
            rows.append([f"one chip, {combine}", network.name, ratio, built.area_mm2])
        write("together.csv", ["chip", "network", "edp_over_own", "area_mm2"], rows)
    for row in rows:
        print(row)


def main() -> None:
    """Runs the parts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--area", type=float, default=2.0, help="mm2")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--parts", nargs="+", choices=("random", "together"), default=["random", "together"])
    args = parser.parse_args()
    if "random" in args.parts:
        against_random(args.area, args.seeds)
    if "together" in args.parts:
        several(args.area)


if __name__ == "__main__":
    main()
