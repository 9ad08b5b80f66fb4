"""How near to its bound does LeNet-5 come on Fashion-MNIST, and at which loss of accuracy?

One float parent; one joint descent for each share of the bound asked for, with the default plan. Validation only: the
test set stays untouched. Usage:
    python experiments/fashion_mnist/run.py --data DIR [--shares 0.72 0.76 0.8] [--steps N] [--finetune N]
        [--batch 64] [--distill 0.5] [--temperature 4] [--per-channel]
DIR holds the four IDX files. Prints one row a share.
"""

import argparse
import dataclasses
import math
import time

from flax import nnx

import cooptim
from cooptim.cost.bound import energy_bound_pj
from cooptim.descent.descend import descend
from cooptim.descent.finalize import Limits
from cooptim.descent.plan import plan_for
from cooptim.descent.references import reference_16b
from cooptim.descent.run import float_parent
from cooptim.descent.task import build_task, calibrated_knobs, float_design, with_teacher
from cooptim.network.examples import LeNet5


def main() -> None:
    """Trains the parent, then one design a share."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.72, 0.76, 0.8])
    parser.add_argument("--steps", type=int)
    parser.add_argument("--finetune", type=int, help="steps of a round of fine-tuning")
    parser.add_argument("--per-channel", action="store_true")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--distill", type=float, default=0.0, help="weight of the parent's softened outputs in the loss"
    )
    parser.add_argument("--temperature", type=float, default=4.0, help="of those outputs")
    args = parser.parse_args()
    data = cooptim.load_data(args.data)
    machine = cooptim.load_machine("envision")
    network = cooptim.trace(LeNet5(rngs=nnx.Rngs(args.seed)), data.x_train[:1])
    plan = plan_for(len(data.x_train))
    lengths = {"steps": args.steps or plan.steps, "finetune_steps": args.finetune or plan.finetune_steps}
    plan = dataclasses.replace(plan, batch=args.batch, per_channel=args.per_channel, **lengths)
    plan = dataclasses.replace(plan, distill_weight=args.distill, distill_temperature=args.temperature)
    task = build_task(network, machine, data, plan, args.seed, network.params, network.state)
    params, state = float_parent(task, task.network.params, task.network.state, None, None)
    task = with_teacher(task, params, state)
    reference, _ = reference_16b(task, params, state)
    deadline_ns = float(reference.report.total_latency_ns)
    bound_pj = energy_bound_pj(network.workload, machine, deadline_ns, tilings=task.space.tilings).bound_pj
    plain = float_design(task, calibrated_knobs(task, params, state, plan.start_bits))
    parent, loss = task.measure.accuracy(params, state, plain, data.x_val, data.y_val)
    times = float(reference.report.total_energy_pj) / bound_pj
    print(
        f"float parent {100 * parent:.2f} % (loss {loss:.3f}), bound {bound_pj / 1e3:.1f} nJ, {times:.1f}x below 16 b"
    )
    for share in args.shares:
        begin = time.process_time()
        limits = Limits(bound_pj / share, deadline_ns, None, parent - 0.005)
        found = descend(task, params, state, limits, f"joint{share:g}", None, None, None)
        one = found.final
        energy_pj = float(one.report.total_energy_pj)
        gap = math.log(energy_pj / float(found.relaxed.total_energy_pj))
        print(
            f"asked {share:.2f} of the bound: {bound_pj / energy_pj:.3f} ({energy_pj / 1e3:.1f} nJ), validation drop "
            f"{100 * (parent - one.val_accuracy):.2f} points, loss {one.val_loss:.3f}, log gap {gap:.3f}, "
            f"W {[int(b) for b in one.design.weight_bits]} I {[int(b) for b in one.design.input_bits]} "
            f"non-zero weights {[round(float(d), 3) for d in one.stats.weight_density]}, "
            f"{time.process_time() - begin:.0f} CPU-s",
            flush=True,
        )


if __name__ == "__main__":
    main()
