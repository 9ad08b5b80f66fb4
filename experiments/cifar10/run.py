"""How much energy does co-optimization save on CIFAR-10 with ResNet-8, and at which accuracy?

A sweep over energy budgets (`cooptim.pareto`) for each seed: float parent, 16-bit reference, best uniform width, one
joint design a budget. Choices on validation images; the test set is looked at once a design. Usage:
    python experiments/cifar10/run.py --data PATH [--ratios 50 80 110] [--seeds 0] [--float-steps 2400] [--steps 1200]
        [--finetune 400] [--work runs/cifar10] [--resume] [--out experiments/cifar10/front.csv]
PATH is CIFAR-10's binary version or an .npz with x_train, y_train, x_test, y_test. Prints the sweep's table and writes
--out, a row for each member in --work.
"""

import argparse
import csv
import dataclasses
import pathlib
import time
import warnings

from flax import nnx
from rich.console import Console

import cooptim
from cooptim.descent.plan import Plan
from cooptim.network.examples import ResNet8
from cooptim.reporting import Progress
from cooptim.reporting.pareto import estimate_line, pareto, report_front

HERE = pathlib.Path(__file__).parent


def plan_of(args: argparse.Namespace) -> Plan:
    """Lengths of the command line, images cut at random and mirrored, and widths that can travel 6 b all the same."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # rates are raised below
        plan = Plan(
            float_steps=args.float_steps, steps=args.steps, finetune_steps=args.finetune, finetune_tries=1,
            augment="crop_flip", uniform_bits=(8, 6, 4, 3),
        )  # fmt: skip
    rate = max(plan.knob_rates.weight_log2_step, 6.5 / (plan.steps * plan.freeze_share))
    widths = ("weight_log2_step", "weight_log2_range", "input_log2_step", "input_log2_range")
    return dataclasses.replace(plan, knob_rates=dataclasses.replace(plan.knob_rates, **dict.fromkeys(widths, rate)))


def record(path: pathlib.Path, rows: list[dict]) -> None:
    """The sweep's members as a table."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: f"{v:.5g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)


def main() -> None:
    """Runs the sweep; prints its table and writes its members."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--ratios", type=float, nargs="+", default=[50.0, 80.0, 110.0], help="times below 16 b")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--float-steps", type=int, default=2400)
    parser.add_argument("--steps", type=int, default=1200, help="of every descent")
    parser.add_argument("--finetune", type=int, default=400)
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path("runs/cifar10"), help="checkpoints, designs")
    parser.add_argument("--resume", action="store_true", help="go on from --work")
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "front.csv", help="the table of members")
    args = parser.parse_args()
    data = cooptim.load_data(args.data)
    budgets = [cooptim.Budget(energy_ratio=ratio, accuracy_drop=0.01) for ratio in args.ratios]
    screen = Console(stderr=True)
    with Progress(screen) as progress:
        front = pareto(
            lambda seed: cooptim.trace(ResNet8(rngs=nnx.Rngs(seed)), data.sample),
            cooptim.load_machine("envision"), data, budgets, args.seeds, out=args.work, plan=plan_of(args),
            resume=args.resume, progress=progress,
            said=lambda found: screen.print(estimate_line(found), highlight=False, soft_wrap=True),
        )  # fmt: skip
    report_front(front, args.work, console=Console(width=120))
    kept = ("seed", "budget_ratio", "status", "reference_pj", "bound_pj", "energy_pj", "float_val_accuracy",
            "float_test_accuracy", "val_accuracy", "test_accuracy", "uniform_bits", "uniform_pj",
            "uniform_val_accuracy", "uniform_test_accuracy", "latency_ns")  # fmt: skip
    rows = [{name: getattr(point, name) for name in kept} for point in front.points]
    record(args.out, rows)
    print(f"{time.process_time():.0f} CPU-s")


if __name__ == "__main__":
    main()
