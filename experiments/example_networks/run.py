"""Whole descents of the eight example networks at small size on digits: does each end in a legal design that it has to?

Each network is trained in float, then brought down to the least energy at which it loses at most a point on validation,
on Envision, within the latency of its own 16-bit reference; the references (best uniform width, the same with pruning)
are trained as long. LeNet-5, ResNet-8 and DS-CNN keep their own channels, on digits scaled up; the others are
narrower than the factories of `cooptim.network.examples`. Usage:
    python experiments/example_networks/run.py [--only xception lstm] [--seed 0] [--machine envision] [--steps N]
Writes a row for each network to results.csv beside this file, rows of networks that did not run left as they are, and
prints the table of README.md.
"""

import argparse
import csv
import dataclasses
import pathlib
import time
from collections.abc import Callable

import numpy as np
from flax import nnx

import cooptim
from cooptim.data.dataset import Dataset
from cooptim.descent.plan import Plan
from cooptim.design.legal import violations
from cooptim.design.space import DesignSpace
from cooptim.mapping.frontier import tilings
from cooptim.network.examples import (
    DSCNN,
    DenseNet,
    InceptionNet,
    LeNet5,
    LSTMClassifier,
    ResNet8,
    VisionTransformer,
    XceptionNet,
)

HERE = pathlib.Path(__file__).parent
DROP = 0.01  # of validation accuracy that may be lost: three of 286 images
PLAN = Plan(uniform_bits=(8, 6, 4, 3, 2), attempts=2)

# Name: network of a seed, times that the 8x8 digits are enlarged, their channels.
CASES: dict[str, tuple[Callable[[nnx.Rngs], nnx.Module], int, int]] = {
    "densenet": (lambda r: DenseNet(r, 6, (2, 2), 1, 10), 1, 1),
    "inception": (lambda r: InceptionNet(r, (4, 8), 8, 1, 10), 1, 1),
    "xception": (lambda r: XceptionNet(r, (8, 16), 1, 10), 1, 1),
    "lstm": (lambda r: LSTMClassifier(r, 8, 24, 10), 1, 1),
    "vit": (lambda r: VisionTransformer(r, 8, 2, 16, 2, 2, 1, 10), 1, 1),
    "lenet5": (LeNet5, 4, 1),
    "ds_cnn": (DSCNN, 2, 1),
    "resnet8": (ResNet8, 1, 3),
}


def enlarged(data: Dataset, times: int, channels: int) -> Dataset:
    """The same digits with every pixel `times` times on both sides, 28x28 where that is 32x32, and more channels."""

    def grown(x: np.ndarray) -> np.ndarray:
        x = np.repeat(np.repeat(np.repeat(x, times, axis=1), times, axis=2), channels, axis=3)
        return x[:, 2:-2, 2:-2] if times == 4 else x

    return dataclasses.replace(data, x_train=grown(data.x_train), x_val=grown(data.x_val), x_test=grown(data.x_test))


def one_network(name: str, seed: int, machine_name: str, plan: Plan) -> dict[str, object]:
    """A whole run, as a flat row."""
    make, times, channels = CASES[name]
    data = enlarged(cooptim.load_data("digits"), times, channels)
    network, machine = cooptim.trace(make(nnx.Rngs(seed)), data.sample), cooptim.load_machine(machine_name)
    begin = time.process_time()
    run = cooptim.optimize(network, machine, data, cooptim.Budget(accuracy_drop=DROP), seed=seed, plan=plan)
    cpu_s = time.process_time() - begin
    table = tilings(network.workload, machine)
    for label, one in run.designs.items():
        found = violations(DesignSpace(network.workload, machine, table, one.design.input_signed), one.design)
        if found:
            raise SystemExit(f"{name}, {label}: {found}")
    energy = {label: float(one.report.total_energy_pj) for label, one in run.designs.items()}
    final = run.designs["final"]
    bits = np.asarray(final.design.weight_bits)
    return {
        "network": name,
        "seed": seed,
        "steps": plan.steps,
        "layers": len(network.workload.layers),
        "macs": network.workload.macs,
        "float_test": run.float_test_accuracy,
        "float_val": run.float_val_accuracy,
        "test": final.test_accuracy,
        "val": final.val_accuracy,
        "uniform_bits": float(np.max(np.asarray(run.designs["best_uniform"].design.weight_bits))),
        "weight_bits": f"{bits.min():g} to {bits.max():g}",
        "energy_nj": energy["final"] / 1e3,
        "over_16b": energy["reference_16b"] / energy["final"],
        "over_uniform": energy["best_uniform"] / energy["final"],
        "over_pruned": energy["best_uniform_pruned"] / energy["final"],
        "pruned_val": run.designs["best_uniform_pruned"].val_accuracy,
        "of_bound": run.bound_pj / energy["final"],
        "gap": run.gap,
        "late": float(final.report.total_latency_ns) / run.budget.latency_ns,
        "best_saving": run.local["best_saving"],
        "cpu_s": cpu_s,
    }


def table_of(rows: list[dict[str, str]]) -> str:
    """The rows as README.md shows them."""
    lines = [
        "| network | MACs, layers | float | joint | weights [b] | energy [nJ] | times below 16 b, uniform, + pruning | "
        "of the bound | CPU-s |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        value = {key: float(text) for key, text in row.items() if key not in ("network", "weight_bits")}
        lines.append(
            f"| {row['network']} | {value['macs']:,.0f}, {row['layers']} | {100 * value['float_test']:.1f} % | "
            f"{100 * value['test']:.1f} % | {row['weight_bits']} (uniform {value['uniform_bits']:g}) | "
            f"{value['energy_nj']:.3g} | {value['over_16b']:.1f}, {value['over_uniform']:.2f}, "
            f"{value['over_pruned']:.2f} | {value['of_bound']:.2f} | {value['cpu_s']:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Runs the networks and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--machine", default="envision", help="a machine of the package, or a file")
    parser.add_argument("--steps", type=int, help="of float training and of each descent, a quarter of fine-tuning")
    args = parser.parse_args()
    plan = PLAN
    if args.steps is not None:
        plan = dataclasses.replace(
            PLAN, float_steps=args.steps, steps=args.steps, finetune_steps=args.steps // 4, settle_steps=50
        )
    path = HERE / "results.csv"
    kept = {row["network"]: row for row in csv.DictReader(path.open())} if path.exists() else {}
    for name in args.only:
        row = one_network(name, args.seed, args.machine, plan)
        kept[name] = {key: f"{value:.6g}" if isinstance(value, float) else str(value) for key, value in row.items()}
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(kept[name]))
            writer.writeheader()
            writer.writerows([kept[one] for one in CASES if one in kept])
        print(kept[name], flush=True)
    print(table_of([kept[one] for one in CASES if one in kept]))


if __name__ == "__main__":
    main()
