"""How small do LeNet-5 and LeNet-300-100 become on Fashion-MNIST at half a point, in bytes on disk?

Each seed trains its own float parent, and every figure of the compressed network is that of the weights read back from
the file. Sparsity is chosen on validation, the test set is touched once. Usage:
    python experiments/deep_compression/run.py --data DIR [--networks lenet5 lenet_300_100] [--seeds 3] [--first 0]
        [--keep FOLDER]
DIR holds the four IDX files. Writes <network>.csv, one row a seed, and <network>_leaves.csv, one a leaf of each seed's
file, beside this script.
"""

import argparse
import csv
import pathlib
import statistics
import tempfile
import time

from flax import nnx

import cooptim
from cooptim.descent.compression import Compression, deep_compression
from cooptim.descent.measure import Measure
from cooptim.export.compressed_file import load_compressed, save_compressed
from cooptim.network import examples

HERE = pathlib.Path(__file__).parent
# The first and the last layer have few weights, so that a bit more costs nothing.
SETTINGS = {
    "lenet5": Compression(
        accuracy_drop=0.004,
        sparsities=(0.7, 0.85, 0.885),
        label_bits={"c1.kernel": 4, "out.kernel": 4, "": 3},
        float_steps=4500,
        round_steps=1500,
        cluster_steps=1500,
    ),
    "lenet_300_100": Compression(
        accuracy_drop=0.004,
        sparsities=(0.7, 0.85, 0.88, 0.9, 0.92, 0.94),
        label_bits={"out.kernel": 4, "": 3},
        float_steps=6000,
        round_steps=1200,
        cluster_steps=2250,
    ),
}


def one_seed(
    name: str, data: cooptim.Dataset, seed: int, folder: pathlib.Path
) -> tuple[dict[str, float], list[dict[str, float]]]:
    """(figures of one seed, figures of each leaf of its file)."""
    network = cooptim.trace(getattr(examples, name)(nnx.Rngs(seed)), data.sample)
    begin = time.process_time()
    found = deep_compression(network, data, SETTINGS[name], seed=seed)
    spent = time.process_time() - begin
    file = folder / f"{name}_{seed}.czf"
    size = save_compressed(file, found)
    params, state = load_compressed(file, network)
    test = Measure(network, 250).accuracy(params, state, None, data.x_test, data.y_test)[0]
    coded = sum(leaf.coded for leaf in size.leaves if leaf.table)
    estimated = sum(leaf.estimated for leaf in size.leaves if leaf.table)
    by_density = sum(leaf.by_density for leaf in size.leaves if leaf.table)
    row = {
        "seed": seed,
        "cpu_s": round(spent, 1),
        "parent_val": found.parent_val_accuracy,
        "parent_test": found.parent_test_accuracy,
        "val": found.val_accuracy,
        "test": test,
        "test_drop_points": round(100 * (found.parent_test_accuracy - test), 3),
        "met": int(found.met),
        "sparsity": round(found.sparsity, 4),
        "float_bytes": found.float_bytes,
        "file_bytes": size.total,
        "header_bytes": size.header,
        "ratio": round(size.ratio, 2),
        "coded_bytes": coded,
        "estimated_over_coded": round(estimated / coded, 4),
        "by_density_over_coded": round(by_density / coded, 4),
    }
    leaves = [{"seed": seed} | vars(leaf) for leaf in size.leaves]
    return row, leaves


def main() -> None:
    """Runs the seeds of each network and prints the summary."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--networks", nargs="+", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--keep", type=pathlib.Path, help="folder for the files; default: none is kept")
    args = parser.parse_args()
    data = cooptim.load_data(args.data)
    folder = args.keep or pathlib.Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    for name in args.networks:
        rows, leaves = [], []
        for seed in range(args.first, args.first + args.seeds):
            row, parts = one_seed(name, data, seed, folder)
            rows.append(row)
            leaves += parts
            print(name, row, flush=True)
            for path, table in ((HERE / f"{name}.csv", rows), (HERE / f"{name}_leaves.csv", leaves)):
                with path.open("w", newline="") as file:
                    writer = csv.DictWriter(file, list(table[0]), lineterminator="\n")
                    writer.writeheader()
                    writer.writerows(table)
        ratios, drops = ([row[key] for row in rows] for key in ("ratio", "test_drop_points"))
        print(
            f"{name}: {statistics.mean(ratios):.1f}x smaller ({min(ratios):.1f} to {max(ratios):.1f}), test drop "
            f"{statistics.mean(drops):.2f} points ({min(drops):.2f} to {max(drops):.2f}), {len(rows)} seeds"
        )


if __name__ == "__main__":
    main()
