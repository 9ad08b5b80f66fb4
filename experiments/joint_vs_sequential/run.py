"""Does one joint descent beat the best sequence of steps, at equal energy and equal training?

For each seed, deadline and buffer, on Envision: (a) 16 b; (b) the best uniform width, and with learned pruning; (c)
the peers' proxy: widths trained on bit operations, then pruning trained on what is left of them, then the best mapping,
modes and supplies; (d) two orders of steps, each trained on the energy of the whole chip from where the last one ended;
(e) everything at once. Every way but (a) and the plain uniform width is trained towards the same few energies with the
same number of steps; a chain's first step is made alone, as cheap as it keeps the accuracy, its tries coming on top.
Usage:
    python experiments/joint_vs_sequential/run.py [--data digits] [--network NAME] [--seeds 5] [--first 200]
        [--deadlines 0.5 1 2] [--buffers 128 4] [--budgets 4.4 3.1 2.2] [--attempts 2] [--steps N] [--finetune N]
        [--bits B] [--distill SHARE] [--lean ROUNDS --near TIMES] [--ways WAY ...] [--ablate]
    python experiments/joint_vs_sequential/run.py --read experiments/joint_vs_sequential/digits_*.csv
Writes NAME_FIRST.csv beside this file, a row as soon as it is there, and prints the summary: accuracy and loss at each
budget, the energy at which the mean accuracy over the seeds is half a point below the float parent's, and the least
energy seed by seed of a design that loses no more, with intervals from resampling seeds.
"""

import argparse
import csv
import dataclasses
import functools
import math
import pathlib
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from chains import (
    ORDERS,
    PROXY,
    Cell,
    first_step,
    last_step,
    leaned,
    narrowest_pj,
    operations,
    uniform,
    unpruned,
    without,
)
from flax import nnx

import cooptim
from cooptim.cost.bound import energy_bound_pj
from cooptim.descent.plan import Plan, plan_for
from cooptim.descent.references import reference_16b
from cooptim.descent.result import Priced
from cooptim.descent.ring import InfeasibleDeadline
from cooptim.descent.run import float_parent
from cooptim.descent.task import Task, build_task, calibrated_knobs, float_design, with_teacher
from cooptim.network.examples import DigitsCNN, LeNet5, ResNet8

HERE = pathlib.Path(__file__).parent
DROP = 0.005  # of validation accuracy, as a fraction
NETWORKS: dict[str, Callable[[nnx.Rngs, int], Any]] = {  # of images of so many channels
    "digits": lambda rngs, channels: DigitsCNN(rngs),
    "lenet5": lambda rngs, channels: LeNet5(rngs),
    "resnet8": ResNet8,
}
FIELDS = ("seed", "deadline", "buffer_kb", "method", "asked", "energy_pj", "bound_pj", "own_bound_pj", "narrowest_pj",
          "val_drop", "val_loss", "test_drop", "cpu_s")  # fmt: skip
CHAINS = {"proxy": PROXY, **{f"sequential {name}": order for name, order in ORDERS.items()}}
WAYS = ("joint", "uniform+pruning", *CHAINS)
PROXY_SHARES = (0.6, 0.35, 0.2)  # of the bit operations that the first step left, asked of pruning


def machine_with(buffer_kb: float) -> Any:
    """Envision with another size of buffer: energy a word and leakage follow the size."""
    machine = cooptim.load_machine("envision")
    size = jax.numpy.asarray(buffer_kb * 8192.0, machine.buffer.size_bits.dtype)
    return dataclasses.replace(machine, buffer=dataclasses.replace(machine.buffer, size_bits=size))


def parents(args: argparse.Namespace, plan: Plan, data: Any, seed: int) -> tuple[Task, Any, Any, Any]:
    """(task on the chip as it is, float parent, its state, the 16-bit reference)."""
    model = NETWORKS[args.network](nnx.Rngs(seed), data.x_train.shape[-1])
    network = cooptim.trace(model, data.x_train[:1])
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
        task = with_teacher(task, params, state)
        for factor in args.deadlines:
            deadline_ns = factor * float(reference.report.total_latency_ns)
            bound = energy_bound_pj(task.network.workload, task.machine, deadline_ns, tilings=task.space.tilings)
            cell = Cell(task, params, state, deadline_ns, float(bound.bound_pj), parent_val - DROP, args.attempts)
            known = {"seed": seed, "deadline": factor, "buffer_kb": buffer_kb, "bound_pj": cell.bound_pj}
            for method, asked, (at, one), seconds in methods(cell, args):
                measure = at.task.measure
                test = measure.accuracy(one.params, one.state, one.design, data.x_test, data.y_test)[0]
                yield known | {
                    "method": method,
                    "asked": asked,
                    "energy_pj": float(one.report.total_energy_pj),
                    "own_bound_pj": at.own_bound_pj,
                    "narrowest_pj": narrowest_pj(at, one),
                    "val_drop": parent_val - one.val_accuracy,
                    "val_loss": one.val_loss,
                    "test_drop": parent_test - test,
                    "cpu_s": seconds,
                }


def methods(cell: Cell, args: argparse.Namespace) -> Any:
    """(name, times the bound that was asked, (cell, legal design), CPU-seconds) of each way to each design."""

    def timed(find: Callable[[], Any]) -> tuple[tuple[Cell, Priced], float]:
        begin = time.process_time()
        found = find()
        return found if isinstance(found, tuple) else (cell, found), time.process_time() - begin

    def towards(name: str, find: Callable[[float], Priced], asked: Any) -> Any:
        for share, target in asked:
            try:
                yield name, share, *timed(lambda target=target: find(target))
            except (FloatingPointError, InfeasibleDeadline) as error:  # the training ran away, or nothing is in time
                print(f"{name} at {share:g}: {error}", flush=True)

    budgets = [(share, share * cell.bound_pj) for share in args.budgets]
    if cell.deadline_ns >= cell.reference_ns * (1.0 - 1e-6):
        yield "16b", math.nan, *timed(cell.reference)
    bits = args.bits
    if bits is None:
        (_, plain), seconds = timed(lambda: uniform(cell))
        yield "uniform", math.nan, (cell, plain), seconds
        bits = int(np.max(np.asarray(plain.design.weight_bits)))
    live = args.lean > 0
    everything = {"joint": {"start_bits": bits}, "uniform+pruning": {"bits": bits}}
    for name, widths in everything.items():
        if name in args.ways:
            find = functools.partial(leaned, cell, rounds=args.lean, near=args.near, **widths)
            yield from towards(name, find, budgets)
    for name, order in CHAINS.items():
        if name not in args.ways:
            continue
        top_pj = float(plain.report.total_energy_pj)
        begin, seconds = timed(lambda order=order, top_pj=top_pj: first_step(cell, order[0], top_pj, live))
        yield f"{name}, first step", math.nan, begin, seconds
        asked = budgets
        if name == "proxy":
            asked = [(share, share * operations(cell.task, begin[1])) for share in PROXY_SHARES]
        yield from towards(name, lambda to, b=begin, order=order: last_step(b, order[1], to, live), asked)
    if args.ablate:
        yield from towards("joint without pruning", lambda pj: unpruned(cell, pj, live), budgets)
        for held in ("modes", "supply"):
            task = cell.task
            less = build_task(
                task.network, without(task.machine, held), task.data, task.plan, task.seed, cell.params, cell.state
            )
            less = with_teacher(less, cell.params, cell.state)
            small = dataclasses.replace(cell, task=less)
            find = functools.partial(leaned, small, rounds=args.lean, near=args.near, start_bits=bits)
            yield from towards(f"joint without {held}", find, budgets)


def summary(rows: list[dict[str, str]]) -> str:
    """For each cell: every method at every budget, then energies at equal accuracy, over the joint one."""
    cells = sorted({(float(r["deadline"]), float(r["buffer_kb"])) for r in rows})
    lines = []
    for deadline, buffer_kb in cells:
        here = [r for r in rows if (float(r["deadline"]), float(r["buffer_kb"])) == (deadline, buffer_kb)]
        seeds = sorted({r["seed"] for r in here})
        lines.append(
            f"deadline x {deadline:g}, buffer {buffer_kb:g} kB, {len(seeds)} seeds, bound {_bound(here):.1f} nJ"
        )
        by: dict[tuple[str, str], list[dict[str, str]]] = {}
        for r in here:
            by.setdefault((r["method"], r["asked"]), []).append(r)
        for (name, asked), found in by.items():
            times, drop, loss, test = (
                _spread([k * float(r[field]) / (float(r["bound_pj"]) if field == "energy_pj" else 1.0) for r in found])
                for field, k in (("energy_pj", 1), ("val_drop", 100), ("val_loss", 1), ("test_drop", 100))
            )
            said = f"{float(asked):5.2f}" if asked != "nan" else "     "
            lines.append(f"  {name:28s} {said} energy {times}  drop {drop}  loss {loss}  test {test}")
            own = [float(r["own_bound_pj"]) / float(r["energy_pj"]) for r in found if r.get("own_bound_pj")]
            if any(r.get("own_bound_pj", r["bound_pj"]) != r["bound_pj"] for r in found):  # channels have left
                lines[-1] += f"  of its own bound {_spread(own)}"
        lines += at_equal_accuracy(here, seeds) + at_kept_accuracy(here, seeds)
    return "\n".join(lines)


def at_equal_accuracy(rows: list[dict[str, str]], seeds: list[str], draws: int = 2000) -> list[str]:
    """Energy over the bound at which each method's mean drop reaches DROP, and its ratio to the joint one's."""
    names = sorted({r["method"] for r in rows if r["asked"] != "nan"})
    rng = np.random.default_rng(0)
    samples = [seeds, *([seeds[i] for i in rng.integers(0, len(seeds), len(seeds))] for _ in range(draws))]
    joint_at = np.array([crossing(rows, "joint", sample) for sample in samples])
    lines = []
    for name in names:
        at = np.array([crossing(rows, name, sample) for sample in samples])
        if math.isnan(at[0]):
            lines.append(f"  {name:28s} drop {100 * DROP:g} reached at none of its budgets")
            continue
        said = f"  {name:28s} drop {100 * DROP:g} at {at[0]:.2f} x bound"
        if not math.isnan(joint_at[0]):
            low, high = np.nanquantile(at / joint_at, [0.025, 0.975])
            said += f"; over joint {at[0] / joint_at[0]:.3f} [{low:.3f}, {high:.3f}]"
        lines.append(said)
    return lines


def at_kept_accuracy(rows: list[dict[str, str]], seeds: list[str], draws: int = 2000) -> list[str]:
    """For each way the least energy of its designs that lose at most DROP, seed by seed, over the joint one's.

    What a person who tries these budgets takes home; a chain's first step is a design of that chain.
    """
    least: dict[str, dict[str, float]] = {}
    for row in rows:
        found = least.setdefault(row["method"].removesuffix(", first step"), {})
        if float(row["val_drop"]) <= DROP + 1e-9:
            over = math.log(float(row["energy_pj"]) / float(row["bound_pj"]))
            found[row["seed"]] = min(over, found.get(row["seed"], math.inf))
    rng, ours = np.random.default_rng(0), least.get("joint", {})
    lines = []
    for name, found in least.items():
        said = f"  {name:28s} keeps the accuracy in {len(found)} of {len(seeds)} seeds"
        if found:
            said += f", at {math.exp(np.mean(list(found.values()))):.2f} x bound"
        both = [found[seed] - ours[seed] for seed in seeds if seed in found and seed in ours]
        if both:
            means = [np.mean(rng.choice(both, len(both))) for _ in range(draws)]
            low, high = np.exp(np.quantile(means, [0.025, 0.975]))
            said += f"; over joint {math.exp(np.mean(both)):.3f} [{low:.3f}, {high:.3f}]"
        lines.append(said)
    return lines


def crossing(rows: list[dict[str, str]], name: str, sample: list[str]) -> float:
    """Energy over the bound at which the mean drop of these seeds is DROP, linear in the logarithm between budgets.

    Means are made to fall with energy (pooling neighbours that do not). NaN where none is so small; the least energy
    where all are smaller.
    """
    asked = sorted({float(r["asked"]) for r in rows if r["method"] == name and r["asked"] != "nan"})
    points = []
    for share in asked:
        found = {
            r["seed"]: r for r in rows if r["method"] == name and r["asked"] != "nan" and float(r["asked"]) == share
        }
        chosen = [found[seed] for seed in sample if seed in found]
        if chosen:
            energy = np.mean([math.log(float(r["energy_pj"]) / float(r["bound_pj"])) for r in chosen])
            points.append([energy, np.mean([float(r["val_drop"]) for r in chosen]), 1.0])
    if not points:  # none of these seeds has a design of this method
        return math.nan
    pooled: list[list[float]] = []
    for point in points:
        pooled.append(list(point))
        while len(pooled) > 1 and pooled[-1][1] > pooled[-2][1]:
            b, a = pooled.pop(), pooled.pop()
            n = a[2] + b[2]
            pooled.append([(a[0] * a[2] + b[0] * b[2]) / n, (a[1] * a[2] + b[1] * b[2]) / n, n])
    energies, drops = (np.array([p[i] for p in pooled])[::-1] for i in (0, 1))
    return float(math.exp(np.interp(DROP, drops, energies))) if drops[0] <= DROP else math.nan


def _bound(rows: list[dict[str, str]]) -> float:
    return float(rows[0]["bound_pj"]) / 1e3


def _spread(values: list[float]) -> str:
    error = np.std(values, ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return f"{np.mean(values):6.3f} +- {error:5.3f}"


def main() -> None:
    """Runs the cells, or prints the summary of files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits", help="digits, a folder of IDX files, ...")
    parser.add_argument("--network", choices=NETWORKS, help="default is digits for digits, LeNet-5 for anything else")
    parser.add_argument("--name", help="of the CSV; default is the last part of --data")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, default=200)
    parser.add_argument("--deadlines", type=float, nargs="+", default=[0.5, 1.0, 2.0], help="over the reference's")
    parser.add_argument("--buffers", type=float, nargs="+", default=[128.0, 4.0], help="sizes [kB]")
    parser.add_argument("--budgets", type=float, nargs="+", default=[4.4, 3.1, 2.2], help="energies over the bound")
    parser.add_argument("--attempts", type=int, default=2, help="tries of a chain's first step")
    parser.add_argument("--steps", type=int, help="of one descent")
    parser.add_argument("--finetune", type=int, help="steps of one round of fine-tuning")
    parser.add_argument("--bits", type=int, help="best uniform width where it is known; without chains it can be given")
    parser.add_argument("--distill", type=float, default=0.0, help="share of the float parent's outputs in the loss")
    parser.add_argument("--lean", type=int, default=0, help="descents one after the other from which channels leave")
    parser.add_argument("--near", type=float, default=1.0, help="least energy of one descent over its network's bound")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS, help="to a design, beside the uniform width")
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
    if args.bits is not None and set(args.ways) & set(CHAINS):
        parser.error("--bits: a chain starts at the energy of the trained uniform width; leave --bits out")
    args.network = args.network or ("digits" if args.data == "digits" else "lenet5")
    data = cooptim.load_data(args.data)
    plan = plan_for(len(data.x_train))
    plan = dataclasses.replace(
        plan, steps=args.steps or plan.steps, finetune_steps=args.finetune or plan.finetune_steps, finetune_tries=2,
        distill_weight=args.distill,
    )  # fmt: skip
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
