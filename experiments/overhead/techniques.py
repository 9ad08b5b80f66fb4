"""What does a training step cost with each technique switched on, and with all that combine? LeNet-5, batch 128.

Every line is the package's whole step under three budgets on `dnn_engine` (the chip with error rates), over the float
step that a user of nnx writes, both from one process in alternating blocks. Usage:
    python experiments/overhead/techniques.py [--repeats 8] [--only joint "all, errors of all"]
Prints the table of experiments/README.md and writes techniques.csv beside this file.
"""

import argparse
import csv
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from run import BATCH, batch, cpu_of, float_step, made_up_data

import cooptim
from cooptim.descent.loop import Stage, control_at
from cooptim.descent.plan import Plan
from cooptim.descent.step import init_state
from cooptim.descent.task import build_task, calibrated_knobs, with_teacher
from cooptim.design.knobs import free_phase, knob_names
from cooptim.network.examples import LeNet5

HERE = pathlib.Path(__file__).parent
BLOCK = 5  # steps
ALL = {"per_channel": True, "pattern": (2, 4), "distill_weight": 0.5}
CASES: dict[str, tuple[bool, dict]] = {  # name: (an early exit, options of the plan)
    "joint": (False, {}),
    "a step a channel": (False, {"per_channel": True}),
    "2:4": (False, {"pattern": (2, 4)}),
    "neighbour blend": (False, {"quantizer": "blend"}),
    "blend, a step a channel": (False, {"quantizer": "blend", "per_channel": True}),
    "LSQ": (False, {"quantizer": "lsq"}),
    "early exit": (True, {}),
    "distillation": (False, {"distill_weight": 0.5}),
    "errors of weights": (False, {"errors": "weights"}),
    "errors of inputs": (False, {"errors": "inputs"}),
    "errors of accumulators": (False, {"errors": "accumulators"}),
    "errors of all": (False, {"errors": "all"}),
    "all, no errors": (True, ALL),
    "all, errors of weights": (True, {**ALL, "errors": "weights"}),
    "all, errors of all": (True, {**ALL, "errors": "all"}),
}


def step_of(exits: bool, options: dict):
    """(call of a state, its first state): the step under a plan with these options."""
    data, plan = made_up_data(), Plan(batch=BATCH, **options)
    network = cooptim.trace(LeNet5(nnx.Rngs(0)), data.sample)
    if exits:
        network = cooptim.with_exits(network, ("c1.kernel",), key=jax.random.key(0), grid=7)
    machine = cooptim.load_machine("dnn_engine")
    task = build_task(network, machine, data, plan, 0, network.params, network.state)
    task = with_teacher(task, network.params, network.state)
    knobs = calibrated_knobs(task, network.params, network.state, 8.0)
    ends = np.log([1e6, 1e5, 2.0])
    phase = free_phase(task.layers)
    stage = Stage("joint", 100, 1e-3, knob_names(knobs), phase, 1.1 * ends, ends, np.ones(3), period_ns=1e5)
    control = control_at(plan, stage, knobs, 30, phase)
    lesson = () if task.teacher is None else (jnp.asarray(task.teacher.lesson(0, 0, BATCH)),)
    x, labels = (jnp.asarray(a) for a in batch())
    copy = jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), (network.params, network.state))
    return lambda state: task.step(state, control, x, labels, *lesson), init_state(*copy, knobs, 0)


def main() -> None:
    """Measures every case beside the float step and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=8)
    parser.add_argument("--only", nargs="+", choices=list(CASES), default=list(CASES))
    args = parser.parse_args()
    plain, plain_state = float_step()
    x, labels = (jnp.asarray(a) for a in batch())
    rows = []
    for name in args.only:
        call, state = step_of(*CASES[name])
        floats, steps = [], []
        for i in range(args.repeats + 1):
            plain_state, one = cpu_of(lambda s: plain(s, x, labels), plain_state, BLOCK)
            state, other = cpu_of(call, state, BLOCK)
            if i:
                floats.append(one)
                steps.append(other)
        ratio = np.median(steps) / np.median(floats)
        rows.append({"technique": name, "float_ms": 1e3 * np.median(floats), "step_ms": 1e3 * np.median(steps),
                     "ratio": ratio})  # fmt: skip
        print(f"{name:26s} {rows[-1]['step_ms']:7.1f} ms {ratio:6.2f}", flush=True)
    if args.only == list(CASES):
        with (HERE / "techniques.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows({k: v if k == "technique" else f"{v:.4g}" for k, v in row.items()} for row in rows)


if __name__ == "__main__":
    main()
