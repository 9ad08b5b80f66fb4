"""What do learned ranks save on Fashion-MNIST, against the same share of the rank in every layer?

LeNet-300-100 and LeNet-5 at 8 bit on Envision at nominal supply, nothing pruned (the energy that `learn_ranks` holds
down). Per seed one float parent; from it, at each energy ratio: ranks learned with the weights, and every layer split
at one share of its rank, the largest that meets the same energy, fine-tuned for as many steps at the same rates. The
ratio is chosen by nobody: all are reported; the test set is looked at once a design. Usage:
    python experiments/low_rank/run.py --data DIR [--networks lenet_300_100 lenet5] [--seeds 3] [--first 0]
        [--ratios 1.5 2 3]
DIR holds the four IDX files. Writes <network>.csv beside this file and prints the table of README.md.
"""

import argparse
import csv
import dataclasses
import pathlib
import time

import numpy as np
from flax import nnx

import cooptim
from cooptim.descent.compression import Compression, trained_parent
from cooptim.descent.ranks import plain_pj
from cooptim.descent.retrain import Lesson, Trainer, free_weights
from cooptim.network import examples
from cooptim.network.low_rank import low_rank, rank_limits

HERE = pathlib.Path(__file__).parent
FLOAT_STEPS, STEPS, RATE, BATCH, BITS = 3000, 1200, 1e-3, 64, 8.0


def measured(network: cooptim.Network, data: cooptim.Dataset) -> tuple[float, float]:
    """(validation, test) accuracy of the network's own weights in float."""
    trainer = Trainer(network, data, BATCH, 0)
    splits = ((data.x_val, data.y_val), (data.x_test, data.y_test))
    val, test = (trainer.accuracy(network.params, network.state, *split) for split in splits)
    return val, test


def one_share(network: cooptim.Network, machine: cooptim.Machine, most_pj: float) -> tuple[float, cooptim.Network]:
    """(share, network) with every layer that can be split at one share of its rank, the largest within the energy.

    A layer that costs less in one piece stays whole.
    """
    limits = rank_limits(network)
    found = None
    for share in np.geomspace(1.0, 0.02, 40):
        ranks = {name: max(1, round(share * limit)) for name, limit in limits.items()}
        kept = {}
        for name, rank in ranks.items():
            alone = low_rank(network, {name: rank})
            if plain_pj(alone.workload, machine, BITS) < plain_pj(network.workload, machine, BITS):
                kept[name] = rank
        made = low_rank(network, kept) if kept else network
        found = float(share), made
        if plain_pj(made.workload, machine, BITS) <= most_pj:
            break
    assert found is not None
    return found


def tuned(network: cooptim.Network, data: cooptim.Dataset, seed: int) -> cooptim.Network:
    """The network trained on for as long as ranks are learned."""
    trainer = Trainer(network, data, BATCH, seed)
    weights, state = trainer.train(free_weights(network.params), network.state, Lesson("tune", STEPS, RATE), None, None)
    return dataclasses.replace(network, params=weights.params, state=state)


def seed_rows(name: str, data: cooptim.Dataset, seed: int, ratios: list[float]) -> list[dict[str, object]]:
    """A row for each design of a seed."""
    machine = cooptim.load_machine("envision")
    network = cooptim.trace(getattr(examples, name)(nnx.Rngs(seed)), data.sample)
    plan = Compression(float_steps=FLOAT_STEPS)
    params, state = trained_parent(Trainer(network, data, BATCH, seed), plan)
    network = dataclasses.replace(network, params=params, state=state)
    parent_val, parent_test = measured(network, data)
    whole_pj = plain_pj(network.workload, machine, BITS)
    rows = []
    for ratio in ratios:
        begin = time.process_time()
        learned = cooptim.learn_ranks(
            network, machine, data, energy_ratio=ratio, bits=BITS, steps=STEPS, weight_rate=RATE, seed=seed
        )
        middle = time.process_time()
        share, split = one_share(network, machine, whole_pj / ratio)
        even = tuned(split, data, seed)
        for way, made, said, spent in (
            ("learned", learned.network, learned.ranks, middle - begin),
            ("one share", even, round(share, 3), time.process_time() - middle),
        ):
            val, test = measured(made, data)
            rows.append(
                {
                    "network": name,
                    "seed": seed,
                    "way": way,
                    "ratio": ratio,
                    "energy_ratio": whole_pj / plain_pj(made.workload, machine, BITS),
                    "ranks": said,
                    "val_drop": parent_val - val,
                    "test_drop": parent_test - test,
                    "cpu_s": spent,
                }  # fmt: skip
            )
            print({k: round(v, 4) if isinstance(v, float) else v for k, v in rows[-1].items()}, flush=True)
    return rows


def table_of(rows: list[dict[str, object]]) -> str:
    """Means over the seeds with standard errors, as README.md shows them."""
    lines = [
        "| network | asked | way | energy below | validation drop | test drop |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for key in dict.fromkeys((r["network"], r["ratio"], r["way"]) for r in rows):
        mine = [r for r in rows if (r["network"], r["ratio"], r["way"]) == key]
        cells = []
        for field in ("val_drop", "test_drop"):
            drops = 100 * np.asarray([float(r[field]) for r in mine])
            error = drops.std(ddof=1) / len(drops) ** 0.5 if len(drops) > 1 else float("nan")
            cells.append(f"{drops.mean():.2f} +- {error:.2f}")
        energy = np.mean([float(r["energy_ratio"]) for r in mine])
        lines.append(f"| {key[0]} | {float(key[1]):g} | {key[2]} | {energy:.2f} | {cells[0]} | {cells[1]} |")
    return "\n".join(lines)


def main() -> None:
    """Runs the seeds of each network and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--networks", nargs="+", default=["lenet_300_100", "lenet5"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--ratios", nargs="+", type=float, default=[1.5, 2.0, 3.0])
    args = parser.parse_args()
    data = cooptim.load_data(args.data)
    every = []
    for name in args.networks:
        rows = [
            row
            for seed in range(args.first, args.first + args.seeds)
            for row in seed_rows(name, data, seed, args.ratios)
        ]
        with (HERE / f"{name}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows({k: f"{v:.5g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)
        every += rows
    print(table_of(every))


if __name__ == "__main__":
    main()
