"""What does a sweep cost: CPU of a member's step by members in a call, and peak memory against the estimate; LeNet-5.

    python experiments/pareto/run.py [--parts step memory] [--together 1 32]
Images are random (their values change no cost), batch 64 as in the default plan. `memory` runs whole sweeps of 32
members (8 budgets x 4 seeds: parents, references, descents, legal designs, files) in processes of their own, with few
steps, because no step takes more memory than the one before. Writes result.json beside this file.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import warnings

import jax
import numpy as np
from flax import nnx

import cooptim
from cooptim.data.dataset import split_dataset
from cooptim.descent.descend import descent_stage
from cooptim.descent.finalize import Limits
from cooptim.descent.loop import control_at
from cooptim.descent.member import begun
from cooptim.descent.memory import GIB
from cooptim.descent.plan import Plan
from cooptim.descent.task import build_task
from cooptim.descent.together import step_program
from cooptim.network.examples import LeNet5
from cooptim.reporting.pareto import estimate_line

HERE = pathlib.Path(__file__).parent
IMAGES, BUDGETS, SEEDS = 2_000, 8, 4


def noise():
    """Random images in the shape of Fashion-MNIST."""
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (IMAGES, 28, 28), np.uint8), rng.integers(0, 10, IMAGES)
    return split_dataset("noise", (x, y), (x[:500], y[:500]), 0.2, 0)


def network(seed: int):
    """LeNet-5 with weights of its own."""
    return cooptim.trace(LeNet5(nnx.Rngs(seed)), noise().sample)


def step_costs(widths: list[int], blocks: int = 5) -> dict[str, float]:
    """CPU-ms of a member's step: plain, and in calls of so many members; medians of alternating blocks of 32 steps."""
    plan, net = Plan(), network(0)
    task = build_task(net, cooptim.load_machine("envision"), noise(), plan, 0, net.params, net.state)
    limits = Limits(None, 1e6, None, 0.0)
    stage, begin = descent_stage(task, net.params, net.state, limits, "joint0", None)
    control, batch = control_at(plan, stage, begin.knobs, 0, stage.phase), task.data.batch(0, 0, plan.batch)
    copy = lambda: jax.tree.map(lambda leaf: jax.numpy.array(leaf, copy=True), begin)  # noqa: E731
    calls = {"plain": (1, lambda state: task.step(state, control, *batch), copy())}
    for width in widths:
        program = step_program(task, width, stage, begin)
        on, given = np.ones(width, bool), ([control] * width, [batch] * width)
        members = program.stacked([begun(copy()) for _ in range(width)])
        call = lambda m, p=program, on=on, given=given: p(m, given[0], on, given[1])  # noqa: E731
        calls[f"together_{width}"] = (width, call, members)
    found: dict[str, list[float]] = {name: [] for name in calls}
    for block in range(blocks + 1):
        for name, (width, call, state) in calls.items():
            begin_s, count = time.process_time(), max(1, 32 // width)
            for _ in range(count):
                state, seen = call(state)
            jax.block_until_ready((state, seen))
            calls[name] = (width, call, state)
            if block > 0:  # the first warms up
                found[name].append(1e3 * (time.process_time() - begin_s) / count / width)
    return {f"{name}_ms": float(np.median(values)) for name, values in found.items()}


def sweep(together: int) -> dict[str, float]:
    """Estimate and peak [GiB] of a process that runs a whole sweep of 32 members."""
    warnings.simplefilter("ignore")
    plan = Plan(
        float_steps=8, steps=8, finetune_steps=2, finetune_tries=1, uniform_bits=(4,), attempts=1, settle_steps=4,
        stats_images=256, save_seconds=1.0,
    )  # fmt: skip
    ratios = np.geomspace(4.0, 8.0, BUDGETS)  # labels are noise: there is nothing to keep
    budgets = [cooptim.Budget(energy_ratio=float(ratio), accuracy_drop=0.9) for ratio in ratios]
    begin = time.process_time()
    with tempfile.TemporaryDirectory() as out:
        front = cooptim.pareto(
            network, cooptim.load_machine("envision"), noise(), budgets, tuple(range(SEEDS)), out=out, plan=plan,
            together=together, said=lambda found: print(estimate_line(found), flush=True),
        )  # fmt: skip
    done = sum(point.stands for point in front.points)
    estimated, peak = front.estimate["estimated"] / GIB, front.estimate["peak"] / GIB
    return {
        "members": done, "estimated_gib": estimated, "peak_gib": peak, "estimate_over_peak": estimated / peak,
        "cpu_s": time.process_time() - begin,
    }  # fmt: skip


def main() -> int:
    """Measures and prints; 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", nargs="*", default=["step", "memory"], choices=["step", "memory"])
    parser.add_argument("--together", nargs="*", type=int, default=[1, 32])
    parser.add_argument("--child", type=int, help="for the processes that this script starts")
    args = parser.parse_args()
    if args.child:
        print(json.dumps(sweep(args.child)))
        return 0
    record = HERE / "result.json"
    found = json.loads(record.read_text()) if record.exists() else {}
    if "step" in args.parts:
        found["step"] = step_costs([1, 8, 32])
    if "memory" in args.parts:
        for together in args.together:
            command = [sys.executable, "-W", "ignore", __file__, "--child", str(together)]
            environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
            print(done.stdout, flush=True)
            found[f"sweep_together_{together}"] = json.loads(done.stdout.splitlines()[-1])
            record.write_text(json.dumps(found, indent=1) + "\n")
    record.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))
    sweeps = [value for name, value in found.items() if name.startswith("sweep")]
    missed = any(one["peak_gib"] > 4 or not 0.8 <= one["estimate_over_peak"] <= 1.2 for one in sweeps)
    missed |= any(one["members"] < BUDGETS * SEEDS for one in sweeps)
    return int(missed or found.get("step", {}).get("together_1_ms", 0) > 2 * found.get("step", {}).get("plain_ms", 1))


if __name__ == "__main__":
    sys.exit(main())
