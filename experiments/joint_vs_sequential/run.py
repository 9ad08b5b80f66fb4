"""Does one joint descent beat the best sequence of steps, at equal accuracy and equal training?

For each seed, deadline and buffer, on Envision: (a) 16 b; (b) the best uniform width, and with learned pruning; (c)
the peers' proxy: widths trained on bit operations, then pruning trained on what is left of them, then the best mapping,
modes and supplies; (d) the best of several orders of steps, each trained on the energy of the whole chip from where
the last one ended; (e) everything at once. (b) to (e) look for the least energy that keeps the validation accuracy,
with the same number of training steps; (d) gets as many for each order, and the best order of each cell is taken.
Usage:
    python experiments/joint_vs_sequential/run.py [--data digits] [--seeds 5] [--first 200] [--deadlines 0.5 1 2]
        [--buffers 128 4] [--attempts 3] [--steps N] [--ablate]
    python experiments/joint_vs_sequential/run.py --read experiments/joint_vs_sequential/digits_*.csv
Writes NAME_FIRST.csv beside this file, a row as soon as it is there, and prints the summary.
"""

import argparse
import csv
import dataclasses
import math
import pathlib
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from chains import ORDERS, PROXY, Cell, joint, sequential, uniform, unpruned, without
from flax import nnx
from scipy import stats

import cooptim
from cooptim.cost.bound import energy_bound_pj
from cooptim.descent.plan import Plan, plan_for
from cooptim.descent.references import reference_16b
from cooptim.descent.result import Priced
from cooptim.descent.run import float_parent
from cooptim.descent.task import Task, build_task, calibrated_knobs, float_design
from cooptim.network.examples import DigitsCNN, LeNet5

HERE = pathlib.Path(__file__).parent
DROP = 0.005  # of validation accuracy, as a fraction
NETWORKS: dict[str, Callable[..., Any]] = {"digits": DigitsCNN}  # any other data set takes LeNet-5
FIELDS = ("seed", "deadline", "buffer_kb", "method", "energy_pj", "bound_pj", "val_drop", "test_drop", "cpu_s")


def machine_with(buffer_kb: float) -> Any:
    """Envision with another size of buffer: energy a word and leakage follow the size."""
    machine = cooptim.load_machine("envision")
    size = jax.numpy.asarray(buffer_kb * 8192.0, machine.buffer.size_bits.dtype)
    return dataclasses.replace(machine, buffer=dataclasses.replace(machine.buffer, size_bits=size))


def parents(args: argparse.Namespace, plan: Plan, data: Any, seed: int) -> tuple[Task, Any, Any, Any]:
    """(task on the chip as it is, float parent, its state, the 16-bit reference)."""
    network = cooptim.trace(NETWORKS.get(args.data, LeNet5)(rngs=nnx.Rngs(seed)), data.x_train[:1])
    task = build_task(network, machine_with(128), data, plan, seed, network.params, network.state)
    params, state = float_parent(task, network.params, network.state, None, None)
    task = build_task(network, machine_with(128), data, plan, seed, params, state)
    return task, params, state, reference_16b(task, params, state)[0]


def rows_of(args: argparse.Namespace, plan: Plan, data: Any, seed: int) -> Any:
    """One row a method, for every deadline and buffer."""
    first, params, state, reference = parents(args, plan, data, seed)
    plain = float_design(first, calibrated_knobs(first, params, state, plan.start_bits))
    parent_val = first.measure.accuracy(params, state, plain, data.x_val, data.y_val)[0]
    parent_test = first.measure.accuracy(params, state, plain, data.x_test, data.y_test)[0]
    for buffer_kb in args.buffers:
        task = build_task(first.network, machine_with(buffer_kb), data, plan, seed, params, state)
        for factor in args.deadlines:
            deadline_ns = factor * float(reference.report.total_latency_ns)
            bound = energy_bound_pj(task.network.workload, task.machine, deadline_ns, tilings=task.space.tilings)
            cell = Cell(task, params, state, deadline_ns, float(bound.bound_pj), parent_val - DROP, args.attempts)
            known = {"seed": seed, "deadline": factor, "buffer_kb": buffer_kb, "bound_pj": cell.bound_pj}
            for method, one, seconds in methods(cell, args):
                test = task.measure.accuracy(one.params, one.state, one.design, data.x_test, data.y_test)[0]
                yield known | {
                    "method": method,
                    "energy_pj": float(one.report.total_energy_pj),
                    "val_drop": parent_val - one.val_accuracy,
                    "test_drop": parent_test - test,
                    "cpu_s": seconds,
                }


def methods(cell: Cell, args: argparse.Namespace) -> Any:
    """(name, legal design, CPU-seconds) of each way to a design."""

    def timed(name: str, find: Callable[[], Priced]) -> tuple[str, Priced, float]:
        begin = time.process_time()
        return name, find(), time.process_time() - begin

    if cell.deadline_ns >= cell.reference_ns * (1.0 - 1e-6):
        yield timed("16b", cell.reference)
    plain = timed("uniform", lambda: uniform(cell))
    yield plain
    bits = int(np.max(np.asarray(plain[1].design.weight_bits)))
    top = float(plain[1].report.total_energy_pj)
    yield timed("uniform+pruning", lambda: joint(cell, top, bits=bits))
    yield timed("proxy", lambda: sequential(cell, top, PROXY))
    for name, order in ORDERS.items():
        yield timed(f"sequential {name}", lambda order=order: sequential(cell, top, order))
    yield timed("joint", lambda: joint(cell, top))
    if args.ablate:
        yield timed("joint without pruning", lambda: unpruned(cell, top))
        for held in ("modes", "supply"):
            task = cell.task
            chip = without(task.machine, held)
            less = build_task(task.network, chip, task.data, task.plan, task.seed, cell.params, cell.state)
            small = dataclasses.replace(cell, task=less)
            yield timed(f"joint without {held}", lambda small=small: joint(small, 4.0 * top))


def summary(rows: list[dict[str, str]]) -> str:
    """Ratios over the joint design, paired by seed, with 95 % intervals, a line a cell and method."""
    cells = sorted({(float(r["deadline"]), float(r["buffer_kb"])) for r in rows})
    lines = []
    for deadline, buffer_kb in cells:
        here = [r for r in rows if (float(r["deadline"]), float(r["buffer_kb"])) == (deadline, buffer_kb)]
        by = {name: {r["seed"]: r for r in here if r["method"] == name} for name in {r["method"] for r in here}}
        by["best sequential"] = best_of([by[f"sequential {name}"] for name in ORDERS if f"sequential {name}" in by])
        lines.append(f"deadline x {deadline:g}, buffer {buffer_kb:g} kB, {len(by.get('joint', {}))} seeds")
        for name in sorted(by):
            lines.append(f"  {name:28s} {_line(by[name], by.get('joint', {}))}")
    return "\n".join(lines)


def best_of(orders: list[dict[str, dict[str, str]]]) -> dict[str, dict[str, str]]:
    """The cheapest design of each seed among those that keep the accuracy; the most accurate where none does."""
    out = {}
    for seed in {seed for found in orders for seed in found}:
        have = [found[seed] for found in orders if seed in found]
        keeping = [r for r in have if float(r["val_drop"]) <= DROP + 1e-9]
        out[seed] = (
            min(keeping, key=lambda r: float(r["energy_pj"]))
            if keeping
            else min(have, key=lambda r: float(r["val_drop"]))
        )
    return out


def _line(found: dict[str, dict[str, str]], joint_rows: dict[str, dict[str, str]]) -> str:
    share = [float(r["bound_pj"]) / float(r["energy_pj"]) for r in found.values()]
    drop = [100 * float(r["val_drop"]) for r in found.values()]
    test = [100 * float(r["test_drop"]) for r in found.values()]
    text = f"{np.mean(share):.3f} of the bound, drop {np.mean(drop):5.2f} (validation) {np.mean(test):5.2f} (test)"
    paired = [
        math.log(float(r["energy_pj"]) / float(joint_rows[seed]["energy_pj"]))
        for seed, r in found.items()
        if seed in joint_rows
    ]
    if len(paired) < 2 or found is joint_rows:
        return text
    half = stats.t.ppf(0.975, len(paired) - 1) * np.std(paired, ddof=1) / math.sqrt(len(paired))
    low, mean, high = (math.exp(np.mean(paired) + d) for d in (-half, 0.0, half))
    return f"{text}; over joint {mean:.3f} [{low:.3f}, {high:.3f}]"


def main() -> None:
    """Runs the cells, or prints the summary of files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits", help="digits, or a folder of IDX files (LeNet-5)")
    parser.add_argument("--name", help="of the CSV; default is the last part of --data")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, default=200)
    parser.add_argument("--deadlines", type=float, nargs="+", default=[0.5, 1.0, 2.0], help="over the reference's")
    parser.add_argument("--buffers", type=float, nargs="+", default=[128.0, 4.0], help="sizes [kB]")
    parser.add_argument("--attempts", type=int, default=3, help="energy targets tried by each method")
    parser.add_argument("--steps", type=int, help="of one descent")
    parser.add_argument(
        "--ablate",
        action="store_true",
        help="also joint without pruning, subwords, low supplies",
    )
    parser.add_argument("--read", nargs="+", type=pathlib.Path, help="print the summary of these files")
    args = parser.parse_args()
    if args.read:
        print(summary([row for path in args.read for row in csv.DictReader(path.open())]))
        return
    jax.config.update("jax_compilation_cache_dir", str(pathlib.Path(tempfile.gettempdir()) / "cooptim-experiments"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    data = cooptim.load_data(args.data)
    plan = plan_for(len(data.x_train))
    plan = dataclasses.replace(plan, steps=args.steps or plan.steps)
    path = HERE / f"{args.name or pathlib.Path(args.data).name}_{args.first}.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        for seed in range(args.first, args.first + args.seeds):
            for row in rows_of(args, plan, data, seed):
                writer.writerow(row)
                file.flush()
                print({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}, flush=True)
    print(summary(list(csv.DictReader(path.open()))))


if __name__ == "__main__":
    main()
