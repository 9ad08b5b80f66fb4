"""What does co-optimization cost over plain training? CPU time of a step, compilation, peak memory; LeNet-5, batch 128.

The float step is what a user writes: nnx.split, jax.jit, nnx.merge(copy=True), optax.adam. The joint step is the whole
step of the package: fake quantization and pruning, measured densities, pricing, both optimizers, multipliers. Usage:
    python experiments/overhead/run.py [--repeats 40] [--skip memory compile step]
Prints the figures that experiments/README.md records and writes them to expected.json beside this file.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import time

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from cooptim.data.dataset import split_dataset
from cooptim.network.examples import LeNet5

HERE = pathlib.Path(__file__).parent
BATCH, IMAGES, STEPS = 128, 6_000, 60


def made_up_data():
    """Random images in the shape of Fashion-MNIST; their values change no cost."""
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (IMAGES, 28, 28), np.uint8), rng.integers(0, 10, IMAGES)
    return split_dataset("noise", (x, y), (x[:1000], y[:1000]), 0.2, 0)


def float_step():
    """(jitted step, its state): what a user of nnx writes."""
    graph, params, rest = nnx.split(LeNet5(nnx.Rngs(0)), nnx.Param, ...)
    adam = optax.adam(1e-3)

    def loss(params, rest, x, labels):
        module = nnx.merge(graph, params, rest, copy=True)
        logits = module(x)
        task = jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))
        hits = jnp.mean((jnp.argmax(logits, axis=-1) == labels).astype(task.dtype))
        return task, (nnx.state(module, nnx.Not(nnx.Param)), hits)

    def step(state, x, labels):
        params, rest, moments = state
        (task, (rest, hits)), slope = jax.value_and_grad(loss, has_aux=True)(params, rest, x, labels)
        update, moments = adam.update(slope, moments)
        return (optax.apply_updates(params, update), rest, moments), (task, hits)

    return jax.jit(step, donate_argnums=0), (params, rest, adam.init(params))


def joint_step(data=None):
    """(jitted step, its state, controls of every phase, accuracy): the package's own, under three budgets.

    What it needs is imported here, so that a process of the float step holds none of it.
    """
    import cooptim
    from cooptim.descent.loop import Stage, control_at
    from cooptim.descent.plan import Plan
    from cooptim.descent.step import init_state
    from cooptim.descent.task import build_task, calibrated_knobs
    from cooptim.design.knobs import float_phase, free_phase, frozen_phase, knob_names

    data, plan = made_up_data() if data is None else data, Plan()
    network = cooptim.trace(LeNet5(nnx.Rngs(0)), data.sample)
    task = build_task(network, cooptim.load_machine("envision"), data, plan, 0, network.params, network.state)
    knobs = calibrated_knobs(task, network.params, network.state, 8.0)
    bits = jnp.full(task.layers, 8.0)
    phases = (free_phase(task.layers), float_phase(task.layers), frozen_phase(bits, bits))
    ends = np.log([1e6, 1e5, 2.0])
    controls = [
        control_at(
            plan, Stage("joint", 100, 1e-3, knob_names(knobs), p, 1.1 * ends, ends, np.ones(3), period_ns=1e5),
            knobs, 30 + i, p,
        )
        for i, p in enumerate(phases)
    ]  # fmt: skip
    copy = jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), (network.params, network.state))

    def accuracy(state, x, labels):
        design = task.decode(state.knobs, plan.end_temperature, phases[0])
        return task.measure.accuracy(state.params, state.state, design, x, labels)

    return task.step, init_state(*copy, knobs, 0), controls, accuracy


def batch():
    """One batch of images and labels."""
    rng = np.random.default_rng(1)
    return rng.random((BATCH, 28, 28, 1), np.float32), rng.integers(0, 10, BATCH)


def cpu_of(call, state, count):
    """(state, CPU seconds a call), all of its threads."""
    begin = time.process_time()
    for _ in range(count):
        state, seen = call(state)
    jax.block_until_ready((state, seen))
    return state, (time.process_time() - begin) / count


def step_cost(repeats: int) -> dict[str, float]:
    """CPU time of both steps in alternating blocks of ten, after a warm-up; the ratio is that of the medians."""
    x, labels = (jnp.asarray(a) for a in batch())
    plain, plain_state = float_step()
    joint, joint_state, controls, _ = joint_step()
    blocks = {"float": [], "joint": []}
    for i in range(repeats + 2):
        plain_state, a = cpu_of(lambda s: plain(s, x, labels), plain_state, 10)
        joint_state, b = cpu_of(lambda s: joint(s, controls[0], x, labels), joint_state, 10)
        if i >= 2:
            blocks["float"].append(a)
            blocks["joint"].append(b)
    medians = {name: 1e3 * float(np.median(values)) for name, values in blocks.items()}
    pairs = np.asarray(blocks["joint"]) / np.asarray(blocks["float"])
    low, high = np.quantile(pairs, [0.25, 0.75])
    return {
        "float_ms": medians["float"], "joint_ms": medians["joint"], "ratio": medians["joint"] / medians["float"],
        "ratio_quartile_low": float(low), "ratio_quartile_high": float(high),
    }  # fmt: skip


def compile_cost(kind: str) -> float:
    """CPU seconds from Python to machine code of one step, nothing cached (run it in a fresh process)."""
    jax.config.update("jax_enable_compilation_cache", False)
    x, labels = batch()
    if kind == "float":
        step, state = float_step()
        args = (state, x, labels)
    else:
        step, state, controls, _ = joint_step()
        args = (state, controls[0], x, labels)
    begin = time.process_time()
    step.lower(*args).compile()
    return time.process_time() - begin


def traces() -> int:
    """Traces of the joint step over all phases; raises AssertionError beyond one."""
    x, labels = batch()
    step, state, controls, _ = joint_step()
    once = jax.jit(chex.assert_max_traces(step.__wrapped__, n=1))
    for control in controls:
        state, _ = once(state, control, x, labels)
    return 1


def peak_mib() -> float:
    """Peak resident memory of this process [MiB]; Linux.

    Not `ru_maxrss`, which a process inherits from the one that started it, so that every child would report ours.
    """
    status = pathlib.Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024


def train(kind: str, steps: int) -> float:
    """Peak resident memory [MiB] of a process that trains LeNet-5 for so many steps and measures its accuracy.

    Kinds: float, joint, and for information optimize, which runs the float parent, all references and the repair.
    """
    data = made_up_data()
    if kind == "optimize":  # the whole run: float parent, references, descent, repair
        import cooptim
        from cooptim.descent.plan import Plan

        network = cooptim.trace(LeNet5(nnx.Rngs(0)), data.sample)
        plan = Plan(
            float_steps=steps, steps=steps, finetune_steps=steps // 4, batch=BATCH, uniform_bits=(4,), attempts=1,
        )  # fmt: skip
        budget = cooptim.Budget(energy_ratio=4.0)  # labels are noise: there is nothing to learn, and no reason to prune
        cooptim.optimize(network, cooptim.load_machine("envision"), data, budget, plan=plan)
    else:
        if kind == "float":
            step, state = float_step()
            call = step
        else:
            step, state, controls, accuracy = joint_step(data)
            call = lambda s, x, y: step(s, controls[0], x, y)  # noqa: E731
        rng = np.random.default_rng(2)
        for _ in range(steps):
            index = rng.integers(0, len(data.x_train), BATCH)
            state, seen = call(state, data.x_train[index], data.y_train[index])
        jax.block_until_ready(seen)
        if kind == "joint":
            accuracy(state, data.x_val, data.y_val)
        else:
            module = LeNet5(nnx.Rngs(0))
            nnx.update(module, state[0])
            graph, rest = nnx.split(module)
            predict = jax.jit(lambda rest, x: nnx.merge(graph, rest, copy=True)(x))
            for start in range(0, len(data.x_val), 256):
                predict(rest, data.x_val[start : start + 256]).block_until_ready()
    return peak_mib()


def child(*arguments: str) -> float:
    """The number that this script prints in a fresh process."""
    command = [sys.executable, "-W", "ignore", __file__, "--child", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.splitlines()[-1])


def main() -> int:
    """Measures and prints; 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--skip", nargs="*", default=[], choices=["step", "compile", "memory"])
    parser.add_argument("--child", nargs=2, help="what, which: for the processes that this script starts")
    args = parser.parse_args()
    if args.child:
        what, which = args.child
        print(compile_cost(which) if what == "compile" else train(which, STEPS))
        return 0
    found: dict[str, float] = {}
    if "step" not in args.skip:
        found |= step_cost(args.repeats)
    if "compile" not in args.skip:
        found |= {f"{kind}_compile_s": min(child("compile", kind) for _ in range(3)) for kind in ("float", "joint")}
        found |= {"compile_ratio": found["joint_compile_s"] / found["float_compile_s"], "traces": traces()}
    if "memory" not in args.skip:
        for kind, runs in (("float", 3), ("joint", 3), ("optimize", 1)):
            found[f"{kind}_rss_mib"] = float(np.median([child("memory", kind) for _ in range(runs)]))
        found |= {
            f"{kind}_rss_ratio": found[f"{kind}_rss_mib"] / found["float_rss_mib"] for kind in ("joint", "optimize")
        }
    for name, value in found.items():
        print(f"{name:22s} {value:10.3f}")
    limits = {"ratio": 1.5, "joint_compile_s": 15.0, "compile_ratio": 5.0, "joint_rss_ratio": 1.3}
    missed = [name for name, limit in limits.items() if found.get(name, 0.0) > limit]
    record = HERE / "expected.json"
    known = json.loads(record.read_text()) if record.exists() else {}
    record.write_text(json.dumps(known | found, indent=1) + "\n")
    print("every target is met" if not missed else f"missed: {', '.join(missed)}")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
