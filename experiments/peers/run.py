"""HGQ2's networks and ours on one chip: same network, split and seeds, both priced by our evaluate on Envision.

    python experiments/peers/environment.py --at runs/peers/environment
    python experiments/peers/run.py --task digits --first 400 --seeds 3
    python experiments/peers/run.py --task fashion --first 400 --seeds 1 --data DIR
    python experiments/peers/run.py --task digits --read
DIR holds the four IDX files of Fashion-MNIST. The split goes to HGQ2 as arrays; it trains in its own environment
(--python), its networks come back as arrays. Every choice is made on validation, the test set is looked at once a
network. Writes TASK.csv, TASK.json and TASK.png beside this file; --read prints the summary of what is there. Networks
of either side that runs/peers has already are not trained again.
"""

import argparse
import concurrent.futures
import csv
import dataclasses
import json
import os
import pathlib
import subprocess
import tempfile
import time
from typing import Any

import jax
import numpy as np
import summary
from ours import begun, designed, peers_cnn, priced_point, step_times, trained
from points import read_point

import cooptim
from cooptim.descent.plan import Plan, plan_for
from cooptim.network.examples import LeNet5

HERE = pathlib.Path(__file__).parent
CACHE = pathlib.Path(tempfile.gettempdir()) / "cooptim-experiments"  # compiled programs, of either side
PEERS_ENVIRONMENT = {
    "KERAS_BACKEND": "jax", "JAX_COMPILATION_CACHE_DIR": str(CACHE / "peers"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}  # fmt: skip
SPLITS = ("x_train", "y_train", "x_val", "y_val", "x_test", "y_test")
GRANULARITIES = ("tensor", "weight")


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is trained on a data set.

    Attributes:
      network: as `hgq_train.py` calls it. betas: HGQ2's loss a bit operation of each granularity, rising.
      epochs: of one beta; `looks` at validation end it, `look_epochs` apart. float_epochs: of HGQ2's float twin.
      ratios: our designs' energies, the 16-bit reference's over them. timed_images: training images of a timed epoch.
    """

    network: str
    betas: dict[str, tuple[float, ...]]
    rate: float
    epochs: int
    looks: int
    look_epochs: int
    float_epochs: int
    ratios: tuple[float, ...]
    timed_images: int


SETTINGS = {
    "digits": Setting(
        "peers_cnn", {"tensor": (1e-7, 3e-7, 1e-6, 3e-6, 1e-5), "weight": (3e-7, 1e-6, 3e-6, 1e-5, 3e-5)},
        5e-3, 100, 4, 5, 67, (3.75, 4.75, 6.0, 8.0, 10.0), 1151,
    ),
    "fashion": Setting(
        "lenet5", {"tensor": (3e-7, 1e-6), "weight": (1e-6, 3e-6)}, 3e-3, 3, 2, 1, 2, (16.0,), 3200
    ),
}  # fmt: skip


def short_plan(images: int, epochs: int) -> Plan:
    """Ours as long as one price of HGQ2: a descent of so many epochs, one round of fine-tuning of one and a half."""
    plan = plan_for(images)
    return dataclasses.replace(plan, steps=epochs * -(-images // plan.batch), finetune_tries=1)


def train_peers(python: str, setting: Setting, folder: pathlib.Path, seed: int) -> None:
    """HGQ2's points, its float twin and both step times, where they are not there yet."""
    for granularity in ("float", *GRANULARITIES):
        if (folder / f"{granularity}_time.npz").is_file():
            continue
        epochs = setting.float_epochs if granularity == "float" else setting.epochs
        betas = () if granularity == "float" else setting.betas[granularity]
        command = [
            python, str(HERE / "hgq_train.py"), "--data", str(folder.parent / "data.npz"), "--network", setting.network,
            "--granularity", granularity, "--betas", *map(str, betas), "--epochs", str(epochs), "--looks",
            str(setting.looks), "--look-epochs", str(setting.look_epochs), "--rate", str(setting.rate), "--seed",
            str(seed), "--timed-images", str(setting.timed_images), "--out", str(folder),
        ]  # fmt: skip
        subprocess.run(command, check=True, env=os.environ | PEERS_ENVIRONMENT)


def peer_rows(task, deadline_ns: float, folder: pathlib.Path, seed: int) -> list[dict[str, object]]:
    """One row a point of HGQ2, priced."""
    rows = []
    for granularity in GRANULARITIES:
        for path in sorted(folder.glob(f"{granularity}_[0-9].npz")):
            point = read_point(path)
            energy_pj, bits, ran = priced_point(task, deadline_ns, point)
            rows.append(summary.counted({
                "seed": seed, "kind": f"hgq2 {granularity}", "setting": point.figures["beta"], "energy_pj": energy_pj,
                "val": point.figures["val_accuracy"], "test": point.figures["test_accuracy"],
                "val_in_our_executor": ran, "ebops": point.figures["ebops"],
                "widths": " ".join(f"{b:g}" for b in bits),
                "weight_density": " ".join(f"{np.mean(point.arrays[n]['kernel'] != 0):.3f}" for n in point.layers),
                "input_density": " ".join(f"{float(point.arrays[n]['input_density']):.3f}" for n in point.layers),
                "cpu_s": point.figures["cpu_s"],
            }, summary.macs(task.space.workload)))  # fmt: skip
    return rows


def our_row(ours, ratio: float, seed: int) -> dict[str, object]:
    """The row of one joint design."""
    one, cpu_s = designed(ours, ratio)
    weight_bits, input_bits = np.asarray(one.design.weight_bits), np.asarray(one.design.input_bits)
    density, inputs = np.asarray(one.stats.weight_density), np.asarray(one.stats.input_density)
    row = {
        "seed": seed, "kind": "ours", "setting": ratio, "energy_pj": float(one.report.total_energy_pj),
        "val": one.val_accuracy, "test": one.test_accuracy, "val_in_our_executor": one.val_accuracy, "ebops": "",
        "widths": " ".join(f"{b:g}" for b in (*weight_bits, *input_bits)),
        "weight_density": " ".join(f"{d:.3f}" for d in density), "input_density": " ".join(f"{d:.3f}" for d in inputs),
        "cpu_s": cpu_s,
    }  # fmt: skip
    return summary.counted(row, summary.macs(ours.task.space.workload))


def our_side(task, folder: pathlib.Path, ratios: tuple[float, ...], seed: int) -> dict[str, Any]:
    """Figures of the float parent and rows by ratio, kept in folder/ours.json; only what is missing is trained."""
    path = folder / "ours.json"
    known = json.loads(path.read_text()) if path.is_file() else {"rows": {}}
    missing = [ratio for ratio in ratios if f"{ratio:g}" not in known["rows"]]
    if not missing:
        return known
    begin_s = time.process_time()
    ours = trained(task)
    known |= {
        "reference_pj": float(ours.reference.report.total_energy_pj), "deadline_ns": ours.deadline_ns,
        "val": ours.float_accuracy[0], "test": ours.float_accuracy[1], "cpu_s": time.process_time() - begin_s,
    }  # fmt: skip
    for ratio in missing:
        row = known["rows"][f"{ratio:g}"] = our_row(ours, ratio, seed)
        print({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}, flush=True)
        path.write_text(json.dumps(known, indent=1) + "\n")
    return known


def float_rows(known: dict[str, Any], folder: pathlib.Path, seed: int) -> list[dict[str, object]]:
    """Rows of the two float networks, ours priced as the 16-bit reference."""
    with np.load(folder / "float_time.npz", allow_pickle=False) as found:
        theirs = {name: float(found[f"{name}_accuracy"]) for name in ("val", "test")}
    mine = {"energy_pj": known["reference_pj"]} | {name: known[name] for name in ("val", "test", "cpu_s")}
    return [
        {"seed": seed, "kind": "ours float", "setting": 1.0} | mine,
        {"seed": seed, "kind": "hgq2 float", "setting": 0.0, "energy_pj": ""} | theirs,
    ]


def peer_times(folder: pathlib.Path) -> dict[str, float]:
    """CPU-seconds a step of HGQ2 and its float twin."""
    found = {}
    for granularity in ("float", *GRANULARITIES):
        with np.load(folder / f"{granularity}_time.npz", allow_pickle=False) as stored:
            found[f"hgq2_{granularity}_step_s"] = float(stored["step_s"])
    return found


def one_seed(args, setting: Setting, module, data, plan: Plan, seed: int, rows: list) -> dict[str, float]:
    """Appends the rows of a seed; returns the step times. HGQ2 trains while ours does."""
    folder = args.points / args.task / f"seed{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    task, ratios = begun(module, data, plan, seed), tuple(args.ratios or setting.ratios)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        theirs = pool.submit(train_peers, args.python, setting, folder, seed)
        known = our_side(task, folder, ratios, seed)
        theirs.result()
    rows += float_rows(known, folder, seed) + peer_rows(task, known["deadline_ns"], folder, seed)
    rows += [known["rows"][f"{ratio:g}"] for ratio in ratios]
    summary.write_rows(HERE / f"{args.task}.csv", rows)
    return peer_times(folder) | step_times(module, task, known["reference_pj"] / ratios[0], known["deadline_ns"])


def ours_again(args, module, data, plan: Plan) -> None:
    """Trains our designs anew; the table keeps every other row."""
    path = HERE / f"{args.task}.csv"
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    ratios = tuple(args.ratios or SETTINGS[args.task].ratios)
    for seed in range(args.first, args.first + args.seeds):
        ours = trained(begun(module, data, plan, seed))
        print(f"seed {seed}: float {ours.float_accuracy}, uniform {ours.uniform_bits} b", flush=True)
        for ratio in ratios:
            row = our_row(ours, ratio, seed)
            print({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}, flush=True)
            same = ("ours", str(seed), f"{ratio:g}")
            rows = [r for r in rows if (r["kind"], r["seed"], f"{float(r['setting']):g}") != same] + [row]
        rows.sort(key=lambda r: int(r["seed"]))
        summary.write_rows(path, rows)


def main() -> None:
    """Runs the seeds and prints the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=SETTINGS, default="digits")
    parser.add_argument("--data", help="folder with Fashion-MNIST's IDX files, for --task fashion")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=400, help="first seed; 101 served for choosing betas")
    parser.add_argument("--ratios", type=float, nargs="+", help="instead of the setting's own")
    parser.add_argument("--python", default="runs/peers/environment/bin/python", help="that has HGQ2")
    parser.add_argument("--points", type=pathlib.Path, default=pathlib.Path("runs/peers"))
    parser.add_argument("--ours-again", action="store_true", help="train our designs anew, keep HGQ2's rows")
    parser.add_argument("--read", action="store_true", help="print the summary of the file that is there")
    args = parser.parse_args()
    record = HERE / f"{args.task}.json"
    if args.read:
        with (HERE / f"{args.task}.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        summary.report(args.task, rows, json.loads(record.read_text()))
        return
    if args.task == "fashion" and not args.data:
        parser.error("--task fashion needs --data, the folder of its IDX files")
    jax.config.update("jax_compilation_cache_dir", str(CACHE))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    setting = SETTINGS[args.task]
    data = cooptim.load_data("digits" if args.task == "digits" else args.data)
    module = peers_cnn() if args.task == "digits" else LeNet5
    plan = Plan() if args.task == "digits" else short_plan(len(data.x_train), setting.epochs)
    if args.ours_again:
        ours_again(args, module, data, plan)
        return
    (args.points / args.task).mkdir(parents=True, exist_ok=True)
    np.savez(args.points / args.task / "data.npz", **{name: getattr(data, name) for name in SPLITS})
    rows: list[dict[str, object]] = []
    times: list[dict[str, float]] = []
    for seed in range(args.first, args.first + args.seeds):
        times.append(one_seed(args, setting, module, data, plan, seed, rows))
    found = {name: float(np.median([one[name] for one in times])) for name in times[0]}
    record.write_text(json.dumps(found, indent=1) + "\n")
    summary.report(args.task, rows, found)


if __name__ == "__main__":
    main()
