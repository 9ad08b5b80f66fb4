"""What do early exits save on Fashion-MNIST at equal accuracy?

LeNet-5 at 8 bit on Envision, with exits behind its first two convolutions and without, same seeds, same training, same
deadline (the 16-bit latency of the network without exits, which an input that runs every layer must meet). Margins are
fitted to the validation images and the cheapest that keep the validation accuracy of the network without exits are
taken; the test images are looked at once. Usage:
    python experiments/early_exit/run.py --data DIR [--seeds 3] [--first 0] [--out experiments/early_exit]
DIR holds the four IDX files. Writes seeds.csv (one row a seed), front.csv and difficulty.csv.
"""

import argparse
import csv
import dataclasses
import pathlib
import time
import warnings

import jax
import numpy as np
from flax import nnx

import cooptim
from cooptim.descent.descend import train_uniform
from cooptim.descent.exits import Choice, best_choice, exit_choices
from cooptim.descent.finalize import Limits
from cooptim.descent.plan import Plan
from cooptim.descent.references import reference_16b
from cooptim.descent.run import float_parent
from cooptim.descent.stages import reach
from cooptim.descent.task import Task, build_task
from cooptim.network.examples import LeNet5
from cooptim.workload.graph import needed

AT, GRID, BITS = ("c1.kernel", "c3.kernel"), 7, 8


def trained(network: cooptim.Network, data: cooptim.Dataset, plan: Plan, seed: int, limits: Limits | None):  # type: ignore[no-untyped-def]
    """(task, the network trained in float and then at 8 bit, its limits: by default the 16-bit latency)."""
    task = build_task(network, cooptim.load_machine("envision"), data, plan, seed, network.params, network.state)
    params, state = float_parent(task, network.params, network.state, None, None)
    if limits is None:
        reference, _ = reference_16b(task, params, state)
        limits = Limits(None, float(reference.report.total_latency_ns), None, 0.0)
    return task, train_uniform(task, params, state, BITS, limits, None, None), limits


def tested(task: Task, one, margin: np.ndarray, deadline_ns: float):  # type: ignore[no-untyped-def]
    """(stage at which each test image leaves, whether each stage is right [stage, image], mean energy [pJ] there)."""
    logits = task.measure.logits(one.params, one.state, one.design, task.data.x_test).astype(np.float64)
    rest = logits[:-1] - logits[:-1].max(axis=-1, keepdims=True)
    odds = -np.log(np.exp(rest).sum(axis=-1) - 1.0 + 1e-300)
    leaves = np.concatenate([odds >= margin[:, None], np.ones((1, odds.shape[1]), bool)])
    stage = np.argmax(leaves, axis=0)
    shares = np.bincount(stage, minlength=len(logits)) / len(stage)
    stats = dataclasses.replace(one.stats, reach=reach(task.space.workload, jax.numpy.asarray(shares, np.float32)))
    energy_pj = float(task.pricer.report(one.design, stats, deadline_ns).total_energy_pj)
    return stage, np.argmax(logits, axis=-1) == task.data.y_test, energy_pj, odds[0]


def seed_rows(data: cooptim.Dataset, plan: Plan, seed: int):  # type: ignore[no-untyped-def]
    """(row of seeds.csv, rows of front.csv, rows of difficulty.csv) of one seed."""
    begin = time.process_time()
    plain = cooptim.trace(LeNet5(rngs=nnx.Rngs(seed)), data.sample)
    early = cooptim.with_exits(plain, AT, key=jax.random.key(seed), grid=GRID)
    alone, one, limits = trained(plain, data, plan, seed, None)
    limits = dataclasses.replace(limits, val_accuracy=one.val_accuracy)
    task, staged, _ = trained(early, data, plan, seed, limits)
    choices = exit_choices(task, staged.params, staged.state, staged.design, limits.latency_ns)
    best = best_choice(choices, limits)
    stage, right, energy_pj, odds = tested(task, staged, best.margin, limits.latency_ns)
    plain_right = (
        np.argmax(alone.measure.logits(one.params, one.state, one.design, data.x_test), axis=-1) == data.y_test
    )
    plain_pj, here = float(one.report.total_energy_pj), right[stage, np.arange(len(stage))]
    row = {
        "seed": seed,
        "plain_val": one.val_accuracy, "early_val": best.accuracy,
        "plain_test": float(plain_right.mean()), "early_test": float(here.mean()),
        "plain_nj": plain_pj / 1e3, "early_nj": energy_pj / 1e3, "ratio": plain_pj / energy_pj,
        **{f"leave_{n}": float(np.mean(stage == n)) for n in range(len(right))},
        **{f"stage_{n}_test": float(right[n].mean()) for n in range(len(right))},
        **{f"margin_{n}": float(m) for n, m in enumerate(best.margin)},
        "longest_us": float(staged.report.total_latency_ns) / 1e3, "deadline_us": limits.latency_ns / 1e3,
        "cpu_s": time.process_time() - begin,
    }  # fmt: skip
    front = [
        {"seed": seed, "energy_nj": c.energy_pj / 1e3, "val_accuracy": c.accuracy,
         **{f"leave_{n}": float(s) for n, s in enumerate(c.shares)}} for c in [*choices, *_cuts(task, staged, limits)]
    ]  # fmt: skip
    return row, front, difficulty(task, staged, limits.latency_ns, seed, odds, stage, right, plain_right)


def _cuts(task: Task, staged, limits: Limits) -> list[Choice]:  # type: ignore[no-untyped-def]
    """Networks cut at each exit, through which every input leaves: what one gets without any decision."""
    logits = task.measure.logits(staged.params, staged.state, staged.design, task.data.x_val)
    found = []
    for n, runs in enumerate(needed(task.space.workload)[:-1]):
        stats = dataclasses.replace(staged.stats, reach=jax.numpy.asarray(runs, np.float32))
        energy_pj = float(task.pricer.report(staged.design, stats, limits.latency_ns).total_energy_pj)
        shares = np.eye(len(logits))[n]
        found.append(
            Choice(shares[:-1], shares, float(np.mean(np.argmax(logits[n], -1) == task.data.y_val)), energy_pj)
        )
    return found


def difficulty(task, staged, deadline_ns, seed, odds, stage, right, plain_right):  # type: ignore[no-untyped-def]
    """Fifths of the test images by their confidence at the first exit, the most confident first."""
    each = []
    for runs in needed(task.space.workload):
        stats = dataclasses.replace(staged.stats, reach=jax.numpy.asarray(runs, np.float32))
        each.append(float(task.pricer.report(staged.design, stats, deadline_ns).total_energy_pj))
    rows = []
    for n, images in enumerate(np.array_split(np.argsort(-odds), 5)):
        here = right[stage[images], images]
        rows.append({
            "seed": seed, "fifth": n,
            "plain_accuracy": float(plain_right[images].mean()), "early_accuracy": float(here.mean()),
            "energy_nj": float(np.asarray(each)[stage[images]].mean()) / 1e3,
            **{f"leave_{k}": float(np.mean(stage[images] == k)) for k in range(len(right))},
        })  # fmt: skip
    return rows


def record(path: pathlib.Path, rows: list[dict]) -> None:
    """Rows of one seed in a table, in the place of those that it has of this seed."""
    others = list(csv.DictReader(path.open())) if path.is_file() else []
    others = [row for row in others if row["seed"] != str(rows[0]["seed"])]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        for row in [*others, *rows]:
            writer.writerow({k: f"{v:.5g}" if isinstance(v, float) else v for k, v in row.items()})


def main() -> None:
    """Trains both networks for each seed; prints and writes one row each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--steps", type=int, default=2000, help="of float training; a quarter of it at 8 bit")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parent)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    data = cooptim.load_data(args.data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # widths do not travel here
        plan = Plan(float_steps=args.steps, steps=args.steps // 4, finetune_steps=args.steps // 12, finetune_tries=1)
    for seed in range(args.first, args.first + args.seeds):
        row, front, hard = seed_rows(data, plan, seed)
        for name, rows in (("seeds", [row]), ("front", front), ("difficulty", hard)):
            record(args.out / f"{name}.csv", rows)
        print({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}, flush=True)
        for one in hard:
            print({k: round(float(v), 4) for k, v in one.items()}, flush=True)


if __name__ == "__main__":
    main()
