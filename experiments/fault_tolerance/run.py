"""Does a supply learned among its errors take less energy than the lowest that makes none, at the same accuracy?

Digits on the machine `dnn_engine`, whose error rates are assumptions that no silicon checks, within twice the latency
of the 16-bit reference; words of 4 bits, nothing pruned, so that the ways differ by the supply alone. From one float
parent and with equal steps:
  error_free: trained without errors; no supply below the lowest at which less than 1e-3 wrong words are expected in an
    inference (`error_free_supply_v`).
  lowered: that network, the supply of all layers lowered after training as far as its accuracy lasts under the errors.
  learned: bits misread and products late at the rate of each layer's supply, in training and in measuring; the supplies
    learned under an energy budget of the first design's energy over `--ratio`.
Usage:
    python experiments/fault_tolerance/run.py [--seeds 10 11 101] [--ratio 1.4] [--steps 600] [--slack 2]
Writes digits.csv beside this file (digits_R.csv at another ratio R) and prints the summary; --read prints that of
files.
"""

import argparse
import csv
import dataclasses
import math
import pathlib
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import cooptim
from cooptim.descent.descend import Ending, descent_stage, landed, train_uniform
from cooptim.descent.finalize import Limits
from cooptim.descent.loop import run_stage
from cooptim.descent.plan import KnobRates, Plan
from cooptim.descent.references import reference_16b, uniform_phase
from cooptim.descent.run import float_parent, tested
from cooptim.descent.task import build_task, calibrated_knobs, float_design
from cooptim.design.legal import grid_clock_ghz
from cooptim.hardware.dvafs import critical_path, max_clock_ghz, speed, supply_at_speed, supply_grid
from cooptim.hardware.mechanisms.error_prone_supply import bit_error_rate, wrong_result_rate
from cooptim.network.examples import DigitsCNN

HERE = pathlib.Path(__file__).parent
WRONG_WORDS = 1e-3  # expected in an inference: what counts as none
DROP = 0.005
BITS = 4


def error_free_supply_v(machine, workload, deadline_ns: float, nominal_ns: float) -> float:
    """Lowest supply on the grid with fewer than WRONG_WORDS wrong words an inference, all layers at it [V].

    The easiest case for it: words of 2 bits, so that paths are shortest, and the clock lowered until the deadline
    binds, so that each operation has all the time there is (`nominal_ns` is the latency at the nominal clock).
    """
    s, mechanism = machine.supply, machine.mechanisms.error_prone_supply
    path = critical_path(s, float(machine.datapath.width_bits), 2.0)
    clock = s.nominal_ghz * nominal_ns / deadline_ns
    target = clock * path / s.nominal_ghz * speed(s, s.nominal_v)
    needed = supply_at_speed(target, s.threshold_v, s.alpha, 4.0 * s.ceiling_v)
    words = sum(layer.weight_words for layer in workload.layers) + workload.input_words
    words += sum(layer.output_words for layer in workload.layers)
    for v in supply_grid(s):
        late = workload.macs * wrong_result_rate(mechanism, v, needed)
        misread = 2.0 * words * bit_error_rate(mechanism, v)
        if float(late + misread) < WRONG_WORDS and float(max_clock_ghz(s, v, path)) >= float(clock):
            return float(v)
    raise SystemExit(f"{machine.name}: no supply is free of errors; the highest is {float(s.ceiling_v):g} V")


def floored(machine, floor_v: float):
    """The machine without supplies below this one."""
    floor = jnp.asarray(floor_v, machine.supply.floor_v.dtype)
    return dataclasses.replace(machine, supply=dataclasses.replace(machine.supply, floor_v=floor))


def lowered(task, one, val_accuracy: float, deadline_ns: float):
    """`one`, trained without errors, at the lowest supply of all layers whose validation accuracy lasts under them."""
    best = None
    for v in supply_grid(task.machine.supply)[-1::-2]:  # every second one
        volts = np.full(task.layers, v, np.float32)
        clock = np.asarray(grid_clock_ghz(task.space, one.design, volts), np.float32)
        design = dataclasses.replace(one.design, supply_v=volts, freq_ghz=clock)
        x, labels = task.data.x_val, task.data.y_val
        if task.measure.accuracy(one.params, one.state, design, x, labels)[0] < val_accuracy:
            break
        report = task.pricer.report(design, one.stats, deadline_ns)
        if float(report.total_latency_ns) > deadline_ns * (1 + 1e-6):
            break
        best = dataclasses.replace(one, design=design, report=report)
    return best


def learned(task, params, state, limits):
    """The network trained among its errors at words of BITS, its supplies learned under the energy budget."""
    stage, begin = descent_stage(task, params, state, limits, "learned", BITS)
    moving = tuple(name for name in stage.moving if name != "log2_threshold")
    stage = dataclasses.replace(stage, phase=uniform_phase(task, BITS, prune=False), moving=moving)
    end, phase, history = run_stage(task, stage, begin, None, None)
    # The supply was what the budget moved; without one nothing is pruned to meet it afterwards.
    free = dataclasses.replace(limits, energy_pj=None)
    return landed(task, end, phase, history, free, "learned", Ending.HELD, None, None).final


def one_seed(seed: int, plan: Plan, slack: float, ratio: float) -> dict[str, float]:
    """All ways from one float parent, as a flat row."""
    begin = time.process_time()
    data = cooptim.load_data("digits")
    network = cooptim.trace(DigitsCNN(rngs=nnx.Rngs(seed)), data.x_train[:1])
    machine = cooptim.load_machine("dnn_engine")
    plain = build_task(network, machine, data, plan, seed, network.params, network.state)
    params, state = float_parent(plain, network.params, network.state, None, None)
    reference, _ = reference_16b(plain, params, state)
    nominal_ns = float(reference.report.total_latency_ns)
    deadline_ns = slack * nominal_ns
    least_v = error_free_supply_v(machine, network.workload, deadline_ns, nominal_ns)
    design = float_design(plain, calibrated_knobs(plain, params, state, plan.start_bits))
    float_val = plain.measure.accuracy(params, state, design, data.x_val, data.y_val)[0]
    float_test = plain.measure.accuracy(params, state, design, data.x_test, data.y_test)[0]
    limits = Limits(None, deadline_ns, None, float_val - DROP)
    if least_v > float(plain.machine.supply.floor_v) + 1e-6:
        plain = build_task(network, floored(machine, least_v), data, plan, seed, params, state)
    found = {"error_free": tested(plain, train_uniform(plain, params, state, BITS, limits, None, None))}
    task = build_task(network, machine, data, dataclasses.replace(plan, errors="all"), seed, params, state)
    aimed = float(found["error_free"].report.total_energy_pj) / ratio
    among = learned(task, params, state, dataclasses.replace(limits, energy_pj=aimed))
    found["learned"] = tested(task, among)
    after = lowered(task, found["error_free"], limits.val_accuracy, deadline_ns)
    found["lowered"] = found["error_free"] if after is None else tested(task, after)
    row = {"seed": seed, "float": float_test, "float_val": float_val, "error_free_v": least_v}
    row |= {"deadline_ns": deadline_ns, "reference_16b_pj": float(reference.report.total_energy_pj)}
    for name, one in found.items():
        draws = one.test_draws or (one.test_accuracy,)
        row |= {
            f"{name}_pj": float(one.report.total_energy_pj),
            f"{name}_ns": float(one.report.total_latency_ns),
            f"{name}_acc": one.test_accuracy,
            f"{name}_val": one.val_accuracy,
            f"{name}_std": float(np.std(draws, ddof=1)) if len(draws) > 1 else 0.0,
            f"{name}_min": min(draws),
            f"{name}_draws": len(draws),
        }
        row |= {f"{name}_v{i}": float(v) for i, v in enumerate(one.design.supply_v)}
    return row | {"cpu_s": time.process_time() - begin}


def interval(values: np.ndarray) -> str:
    """Mean, standard error, smallest and largest."""
    error = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else float("nan")
    return f"{values.mean():.3f} (standard error {error:.3f}, min {values.min():.3f}, max {values.max():.3f})"


def summarize(rows: list[dict[str, float]]) -> None:
    """Prints what the README records."""
    col = {name: np.asarray([row[name] for row in rows]) for name in rows[0]}
    print("seeds:", len(rows), " error-free supply [V]:", interval(col["error_free_v"]))
    for name in ("error_free", "lowered", "learned"):
        print(f"{name}:")
        print("  test drop [points]:      ", interval(100 * (col["float"] - col[f"{name}_acc"])))
        print("  below error_free [points]:", interval(100 * (col["error_free_acc"] - col[f"{name}_acc"])))
        print("  validation drop [points]:", interval(100 * (col["float_val"] - col[f"{name}_val"])))
        print("  spread over draws, lowest:", interval(100 * col[f"{name}_std"]), 100 * col[f"{name}_min"].min())
        volts = np.stack([col[f"{name}_v{i}"] for i in range(3)])
        print("  supplies of each layer [V]:", *(interval(v) for v in volts))
        print("  energy of error_free over it:", interval(col["error_free_pj"] / col[f"{name}_pj"]))
    print("CPU [s]:", interval(col["cpu_s"]))


def main() -> None:
    """Runs the seeds and prints the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[10, 11, 101])
    parser.add_argument("--ratio", type=float, default=1.4, help="energy without errors over the budget among them")
    parser.add_argument("--steps", type=int, default=600, help="of each descent")
    parser.add_argument("--slack", type=float, default=2.0, help="deadline over the latency of the 16-bit reference")
    parser.add_argument("--read", nargs="+", type=pathlib.Path, help="print the summary of these files")
    parser.add_argument("--out", type=pathlib.Path, help="default: beside this file, named by the ratio")
    args = parser.parse_args()
    out = args.out or HERE / ("digits.csv" if args.ratio == 1.4 else f"digits_{args.ratio:g}.csv")
    if args.read:
        rows = [row for path in args.read for row in csv.DictReader(path.open())]
        summarize([{name: float(value) for name, value in row.items()} for row in rows])
        return
    jax.config.update("jax_compilation_cache_dir", str(pathlib.Path(tempfile.gettempdir()) / "cooptim-experiments"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    # Widths are held, so that they need no way to travel.
    rates = KnobRates(weight_log2_step=2e-2, input_log2_step=2e-2)
    plan = Plan(
        float_steps=600, steps=args.steps, finetune_steps=args.steps // 3, finetune_tries=2, settle_steps=60,
        knob_rates=rates,
    )  # fmt: skip
    rows = []
    for seed in args.seeds:
        rows.append(one_seed(seed, plan, args.slack, args.ratio))
        print({name: round(value, 4) for name, value in rows[-1].items()}, flush=True)
        with open(out, "w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    summarize(rows)


if __name__ == "__main__":
    main()
