"""How near is the differentiable size law to the encoder's bytes on real streams of more than 10 kB?

LeNet-300-100 of one float parent on Fashion-MNIST, pruned to shares of zeros from none to 95 %, labels of 4 and of 6
bits; rounds are short, because accuracy is not asked for here. Usage:
    python experiments/deep_compression/size_law.py --data DIR [--seed 0]
Writes size_law.csv beside this file, a row a stream, and prints the largest error above 10 kB.
"""

import argparse
import csv
import dataclasses
import pathlib
import tempfile

from flax import nnx

import cooptim
from cooptim.descent.compression import Compression, deep_compression, trained_parent
from cooptim.descent.retrain import Trainer
from cooptim.export.compressed_file import save_compressed
from cooptim.network.examples import LeNet300

HERE = pathlib.Path(__file__).parent
SPARSITIES = (0.0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95)
LABEL_BITS = (4, 6)
PLAN = Compression(accuracy_drop=0.9, float_steps=3000, round_steps=300, cluster_steps=300)
LONG_BYTES = 10_000


def main() -> None:
    """Compresses, compares and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    data = cooptim.load_data(args.data)
    network = cooptim.trace(LeNet300(nnx.Rngs(args.seed)), data.sample)
    params, state = trained_parent(Trainer(network, data, PLAN.batch, args.seed), PLAN)
    network = dataclasses.replace(network, params=params, state=state)
    rows = []
    for bits in LABEL_BITS:
        for sparsity in SPARSITIES:
            plan = dataclasses.replace(PLAN, float_steps=0, sparsities=(sparsity,), label_bits=bits)
            found = deep_compression(network, data, plan, seed=args.seed)
            with tempfile.TemporaryDirectory() as folder:
                size = save_compressed(pathlib.Path(folder) / "network.czf", found)
            for leaf in (leaf for leaf in size.leaves if leaf.table):
                rows.append(
                    {
                        "label_bits": bits,
                        "asked_zeros": sparsity,
                        "leaf": leaf.name,
                        "words": leaf.words,
                        "density": leaf.density,
                        "code": leaf.code,
                        "coded_bytes": leaf.coded,
                        "law_over_bytes": leaf.estimated / leaf.coded,
                        "by_density_over_bytes": leaf.by_density / leaf.coded,
                    }  # fmt: skip
                )
            print({key: rows[-3][key] for key in ("label_bits", "asked_zeros", "code", "coded_bytes")}, flush=True)
    with (HERE / "size_law.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    long = [row for row in rows if row["coded_bytes"] > LONG_BYTES]
    for name in ("law_over_bytes", "by_density_over_bytes"):
        worst = max(long, key=lambda row: abs(row[name] - 1.0))
        print(
            f"{name}: {len(long)} streams above {LONG_BYTES} bytes, off by at most {100 * (worst[name] - 1):+.3f} %",
            worst,
        )


if __name__ == "__main__":
    main()
