"""Does it help the main job to learn from the float parent's softened outputs? Validation images only.

Usage:
    python experiments/digits/distill.py [--ratio 28.5] [--seeds 101 102] [--settings 0:1 0.5:4] [--designs joint 3]
A setting is weight:temperature, a design 'joint' or a uniform width. Each seed cuts the training images anew into 70 %
training, 15 % validation, which decides when fine-tuning ends, and 15 % held out, which nothing looks at; the test set
stays untouched. Settings of one seed share one float parent. Prints one row a design.
"""

import argparse
import dataclasses
import time

import numpy as np
from flax import nnx

import cooptim
from cooptim.data import Dataset
from cooptim.data.dataset import split_dataset, validation_mask
from cooptim.descent.descend import descend, train_uniform
from cooptim.descent.finalize import Limits
from cooptim.descent.plan import Plan
from cooptim.descent.references import reference_16b
from cooptim.descent.run import float_parent
from cooptim.descent.task import build_task, calibrated_knobs, float_design, with_teacher
from cooptim.network.examples import DigitsCNN

_OUT, _VAL = 0.15, 0.18  # share of the training images held out, and of what is left that is validation


def cut(seed: int) -> Dataset:
    """The training images of digits in three parts; x_test is the part held out."""
    whole = cooptim.load_data("digits")
    x, y = np.concatenate([whole.x_train, whole.x_val]), np.concatenate([whole.y_train, whole.y_val])
    out = validation_mask(y, _OUT, 1000 + seed)
    return split_dataset("digits", (x[~out], y[~out]), (x[out], y[out]), _VAL, seed)


def one_seed(seed: int, ratio: float, settings: list[tuple[float, float]], designs: list[str]) -> None:
    """Trains the parent, then every design at every setting."""
    data = cut(seed)
    network, base = cooptim.trace(DigitsCNN(rngs=nnx.Rngs(seed)), data.sample), Plan()
    machine = cooptim.load_machine("envision")
    task = build_task(network, machine, data, base, seed, network.params, network.state)
    params, state = float_parent(task, network.params, network.state, None, None)
    reference = reference_16b(task, params, state)[0].report
    deadline_ns, wide_pj = float(reference.total_latency_ns), float(reference.total_energy_pj)
    plain = float_design(task, calibrated_knobs(task, params, state, base.start_bits))
    parent = task.measure.accuracy(params, state, plain, data.x_val, data.y_val)[0]
    parent_out = task.measure.accuracy(params, state, plain, data.x_test, data.y_test)[0]
    print(f"seed {seed}: float parent {parent:.4f} on validation, {parent_out:.4f} held out", flush=True)
    for weight, temperature in settings:
        plan = dataclasses.replace(base, distill_weight=weight, distill_temperature=temperature)
        pupil = with_teacher(build_task(network, machine, data, plan, seed, params, state), params, state)
        for kind in designs:
            begin = time.process_time()
            limits = Limits(wide_pj / ratio if kind == "joint" else None, deadline_ns, None, parent - 0.005)
            if kind == "joint":
                one = descend(pupil, params, state, limits, "joint0", None, None, None).final
            else:
                one = train_uniform(pupil, params, state, int(kind), limits, None, None)
            out, out_loss = pupil.measure.accuracy(one.params, one.state, one.design, data.x_test, data.y_test)
            ratio_wide = wide_pj / float(one.report.total_energy_pj)
            print(
                f"  {kind:5s} weight {weight:g} temperature {temperature:g}: {ratio_wide:.2f} times below 16 b, "
                f"drop {100 * (parent - one.val_accuracy):.2f} points on validation (loss {one.val_loss:.4f}), "
                f"{100 * (parent_out - out):.2f} held out (loss {out_loss:.4f}), "
                f"{time.process_time() - begin:.0f} CPU-s",
                flush=True,
            )


def main() -> None:
    """Runs the seeds one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ratio", type=float, default=28.5)
    parser.add_argument("--seeds", type=int, nargs="+", default=[101, 102])
    parser.add_argument("--settings", nargs="+", default=["0:1", "0.5:4"], metavar="WEIGHT:TEMPERATURE")
    parser.add_argument("--designs", nargs="+", default=["joint"])
    args = parser.parse_args()
    settings = [(float(weight), float(temperature)) for weight, temperature in (s.split(":") for s in args.settings)]
    for seed in args.seeds:
        one_seed(seed, args.ratio, settings, args.designs)


if __name__ == "__main__":
    main()
