"""Which quantizer keeps most accuracy at 2, 3 and 4 bits on digits, trained for as long, and what does its step cost?

Every recipe of `cooptim.descent.recipes` starts from the same float parents and is fine-tuned for as many steps at the
same rates; nothing is pruned, nothing is priced, and the test set is looked at once, at the end. Usage:
    python experiments/quantizers/run.py [--seeds 3] [--steps 400] [--only lsq pact]
Writes accuracy.csv and steps.csv beside this file, rows of recipes that did not run left as they are, and prints the
table of README.md.
"""

import argparse
import csv
import dataclasses
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import cooptim
from cooptim.descent.calibrate import calibrated_ranges
from cooptim.descent.plan import Plan
from cooptim.descent.recipes import RECIPES, methods_of
from cooptim.descent.task import build_task, calibrated_knobs
from cooptim.design.knobs import frozen_phase
from cooptim.design.operands import decoded_operands
from cooptim.network.examples import DigitsCNN

HERE = pathlib.Path(__file__).parent
BITS = (2, 3, 4)
BATCH, FLOAT_STEPS, SETTLE = 64, 900, 40
WEIGHT_RATE, KNOB_RATE = 4e-3, 2e-3  # of Adam, cosine to 5 %: those of `Plan` while widths are held
ENDS_BITS = 8.0  # of the layers that a recipe leaves out
NAMES = [name for name in RECIPES if name != "codebook"]  # Envision has no table of shared weights
CASES = [(name, per_channel) for name in NAMES for per_channel in ((False, True) if name != "binary" else (False,))]
ADAM = optax.scale_by_adam()


def cosine(step: int, steps: int) -> np.float32:
    """Share of the rate at a step."""
    return np.float32(0.05 + 0.475 * (1.0 + np.cos(np.pi * step / steps)))


def float_step(network):
    """The step of the float parent, jitted."""

    def step(params, state, moments, rate, x, labels):
        def loss(params):
            logits, after, _ = network.apply(params, state, x, train=True)
            return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels)), after

        (_, state_after), slope = jax.value_and_grad(loss, has_aux=True)(params)
        update, moments = ADAM.update(slope, moments)
        return jax.tree.map(lambda p, u: p - rate * u, params, update), state_after, moments

    return jax.jit(step)


def tuned_step(network, signed, methods):
    """The step of a recipe: weights and what its quantizers learn, the widths held by the phase."""

    def step(params, state, knobs, moments, phase, rates, x, labels):
        def loss(trained):
            params, knobs = trained
            design = decoded_operands(knobs, signed, 16.0, phase, methods)
            logits, after, _ = network.apply(params, state, x, design, train=True)
            return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels)), after

        (_, state_after), slope = jax.value_and_grad(loss, has_aux=True)((params, knobs))
        update, moments = ADAM.update(slope, moments)
        params = jax.tree.map(lambda p, u: p - rates[0] * u, params, update[0])
        knobs = jax.tree.map(lambda p, u: p - rates[1] * u, knobs, update[1])
        return params, state_after, knobs, moments

    return jax.jit(step)


@dataclasses.dataclass
class Programs:
    """What is compiled once for each recipe."""

    step: object
    settle: object
    predict: object


def programs(network, signed, methods) -> Programs:
    """Jitted step, batch statistics with everything held, and labels in evaluation mode."""

    def settle(params, state, design, x):
        return network.apply(params, state, x, design, train=True)[1]

    def predict(params, state, design, x):
        return jnp.argmax(network.apply(params, state, x, design)[0], axis=-1)

    return Programs(tuned_step(network, signed, methods), jax.jit(settle), jax.jit(predict))


def parent(network, data, seed, step):
    """(params, state) of a float network."""
    _, params, rest = nnx.split(DigitsCNN(rngs=nnx.Rngs(seed)), nnx.Param, ...)
    params, state = nnx.to_pure_dict(params), nnx.to_pure_dict(rest)
    params = jax.tree.unflatten(jax.tree.structure(network.params), jax.tree.leaves(params))
    state = jax.tree.unflatten(jax.tree.structure(network.state), jax.tree.leaves(state))
    moments = ADAM.init(params)
    for i in range(FLOAT_STEPS):
        params, state, moments = step(
            params, state, moments, np.float32(3e-3) * cosine(i, FLOAT_STEPS), *data.batch(seed, i, BATCH)
        )
    return params, state


def widths(methods, name, bits, layers):
    """Frozen widths: those of the recipe's layers, and 8 bits of the layers that it leaves out."""
    held = np.full(layers, float(bits))
    if name in ("ternary", "xnor", "binary"):
        held[[0, -1]] = ENDS_BITS
    return jnp.asarray(held, jnp.float32)


def tuned(case, bits, start, data, plan_task, compiled, steps, seed):
    """Test accuracy of a recipe at a width, after fine-tuning."""
    (name, _), (params, state) = case, start
    task = plan_task
    held = widths(task.space.methods, name, bits, task.layers)
    phase = dataclasses.replace(frozen_phase(held, held), prune=jnp.zeros(()))
    knobs = _operand_knobs(task, params, state, bits)
    moments = ADAM.init((params, knobs))
    for i in range(steps):
        share = cosine(i, steps)
        rates = (np.float32(WEIGHT_RATE) * share, np.float32(KNOB_RATE) * share)
        batch = data.batch(seed + 1000, i, BATCH)
        params, state, knobs, moments = compiled.step(params, state, knobs, moments, phase, rates, *batch)
    design = decoded_operands(knobs, task.space.input_signed, 16.0, phase, task.space.methods)
    for i in range(SETTLE):
        state = compiled.settle(params, state, design, data.batch(seed + 2000, i, BATCH)[0])
    return float(np.mean(np.asarray(compiled.predict(params, state, design, data.x_test)) == data.y_test))


def _operand_knobs(task, params, state, bits):
    """The knobs of weights and inputs alone, as a run would start them."""
    from cooptim.design.knobs import OperandKnobs

    knobs = calibrated_knobs(task, params, state, float(bits))
    return OperandKnobs(**{f.name: getattr(knobs, f.name) for f in dataclasses.fields(OperandKnobs)})


def step_ratio(network, data, start, task, compiled, plain, blocks=7, each=12):
    """CPU time of a recipe's step over the float step's: medians of alternating blocks, after a warm-up."""
    params, state = start
    x, labels = data.batch(0, 0, BATCH)
    held = jnp.full(task.layers, 3.0)
    phase, knobs = frozen_phase(held, held), _operand_knobs(task, params, state, 3)
    rates = (np.float32(1e-4), np.float32(1e-4))
    moments, both = ADAM.init(params), ADAM.init((params, knobs))
    spent = {"float": [], "tuned": []}
    for block in range(blocks + 1):
        for kind in spent:
            begin = time.process_time()
            for _ in range(each):
                out = (
                    plain(params, state, moments, rates[0], x, labels)
                    if kind == "float"
                    else compiled.step(params, state, knobs, both, phase, rates, x, labels)
                )
            jax.block_until_ready(out)
            if block:
                spent[kind].append((time.process_time() - begin) / each)
    return float(np.median(spent["tuned"]) / np.median(spent["float"])), 1e3 * float(np.median(spent["tuned"]))


def calibrated(network, data, machine, start, compiled_by_channel, bits):
    """Test accuracy without training, by (ranges, per channel)."""
    params, state = start
    found = {}
    for per_channel, compiled in compiled_by_channel.items():
        for ranges in ("minmax", "mse"):
            _, design = calibrated_ranges(
                network, params, state, data.x_train[:512], machine, bits, ranges=ranges, per_channel=per_channel
            )
            operands = _operands(design)
            hits = np.asarray(compiled.predict(params, state, operands, data.x_test)) == data.y_test
            found[ranges, per_channel] = float(np.mean(hits))
    return found


def _operands(design):
    from cooptim.design.design import Operands

    return Operands(**{f.name: getattr(design, f.name) for f in dataclasses.fields(Operands)})


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--only", nargs="*", default=NAMES)
    options = parser.parse_args()
    begin = time.process_time()
    data, machine = cooptim.load_data("digits"), cooptim.load_machine("envision")
    network = cooptim.trace(DigitsCNN(rngs=nnx.Rngs(0)), data.x_train[:1])
    plain = float_step(network)
    starts = [parent(network, data, seed, plain) for seed in range(options.seeds)]
    exact = jax.jit(lambda p, s, x: jnp.argmax(network.apply(p, s, x)[0], axis=-1))
    rows = [
        ("float", False, 32, seed, "trained", float(np.mean(np.asarray(exact(*start, data.x_test)) == data.y_test)))
        for seed, start in enumerate(starts)
    ]
    cost, by_channel = [], {}
    for name, per_channel in CASES:
        if name not in options.only or (per_channel and name in ("dorefa", "pact", "xnor")):
            continue  # whose weights have no factor a channel to learn
        plan = Plan(quantizer=name, per_channel=per_channel, chunk=256)
        task = build_task(network, machine, data, plan, 0, *starts[0])
        compiled = programs(network, task.space.input_signed, methods_of(network.workload, name, per_channel))
        for seed, start in enumerate(starts):
            for bits in BITS if name != "binary" else (1,):
                reached = tuned((name, per_channel), bits, start, data, task, compiled, options.steps, seed)
                rows.append((name, per_channel, bits, seed, "tuned", reached))
        ratio, ms = step_ratio(network, data, starts[0], task, compiled, plain)
        cost.append((name, per_channel, ratio, ms))
        print(
            f"{name} {per_channel}: step {ratio:.2f} of float, {time.process_time() - begin:.0f} CPU-s so far",
            flush=True,
        )
        if name == "step_range":
            by_channel[per_channel] = compiled
    for seed, start in enumerate(starts if by_channel else []):
        for bits in BITS + (8,):
            for (ranges, per_channel), reached in calibrated(network, data, machine, start, by_channel, bits).items():
                rows.append((f"calibrated {ranges}", per_channel, bits, seed, "untrained", reached))
    ran = {name for name, *_ in rows}
    rows = [*kept("accuracy.csv", ran, (str, flag, int, int, str, float)), *rows]
    cost = [*kept("steps.csv", ran, (str, flag, float, float)), *cost]
    write("accuracy.csv", ("recipe", "per_channel", "bits", "seed", "how", "test_accuracy"), rows)
    write("steps.csv", ("recipe", "per_channel", "step_over_float", "cpu_ms"), cost)
    tables(rows, cost)
    print(f"{time.process_time() - begin:.0f} CPU-s")


def flag(text):
    """A truth value as `csv` writes it."""
    return text == "True"


def kept(name, ran, kinds):
    """Rows that an earlier run left of recipes that did not run now."""
    path = HERE / name
    rows = list(csv.reader(path.open(newline="")))[1:] if path.exists() else []
    return [tuple(kind(cell) for kind, cell in zip(kinds, row, strict=True)) for row in rows if row[0] not in ran]


def write(name, header, rows):
    """A CSV beside this file."""
    with (HERE / name).open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def tables(rows, cost):
    """Mean and standard deviation over seeds, in percent."""
    groups: dict = {}
    for name, per_channel, bits, _, _, reached in rows:
        groups.setdefault((name, per_channel), {}).setdefault(bits, []).append(100 * reached)
    steps = {(name, per_channel): ratio for name, per_channel, ratio, _ in cost}
    widths = sorted({bits for found in groups.values() for bits in found})
    print("| recipe | " + " | ".join(f"{b} b" for b in widths) + " | step over float |")
    print("| --- |" + " --- |" * (len(widths) + 1))
    for (name, per_channel), found in groups.items():
        cells = [f"{np.mean(found[b]):.1f} +- {np.std(found[b]):.1f}" if b in found else "" for b in widths]
        ratio = f"{steps[name, per_channel]:.2f}" if (name, per_channel) in steps else ""
        print(f"| {name}{', per channel' if per_channel else ''} | " + " | ".join(cells) + f" | {ratio} |")


if __name__ == "__main__":
    main()
