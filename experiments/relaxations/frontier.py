"""The frontier relaxation: sizes of the exact sets, its cost and growth with depth, and its gap to brute force.

Usage:
    python experiments/relaxations/frontier.py [--spaces 200] [--skip gap speed pareto]
Prints the figures of README.md and writes frontier_gaps.csv (one small space a row) and frontier_sizes.csv (one layer a
row) beside this file.
"""

import argparse
import csv
import dataclasses
import itertools
import math
import pathlib
import random
import resource
import sys
import time

import continuous as shared  # the small spaces and ResNet-50's layers; switches float64 on
import jax
import jax.numpy as jnp
import numpy as np

from cooptim.mapping.even import even_price
from cooptim.mapping.even_best import best_rows, frontier_sizes
from cooptim.mapping.even_box import box_around
from cooptim.mapping.row_price import stack_frontiers
from cooptim.mapping.rules import HARDWARE
from cooptim.mapping.search import spatial_options, unrolled
from cooptim.mapping.soft_frontier import soft_price
from cooptim.mapping.tiers import tier_count

HERE = pathlib.Path(__file__).resolve().parent
PLAIN = dataclasses.replace(HARDWARE, pack="none")
BOX = {"w_bits": (2, 8), "i_bits": (2, 8), "o_bits": (2, 8), "psum_bits": (32, 32), "size_factor": 2.0}
TEMPERATURE = 0.05


def brute_force(shape, nest, chip, rules) -> float:
    """Least energy of all legal even mappings."""
    slots = tier_count(chip)
    bounds = [round(b / math.prod(row[i] for row in nest.unroll)) for i, b in enumerate(shape.bounds)]
    rows = np.array([np.array(c).T for c in itertools.product(*(shared.splits(b, slots) for b in bounds))])
    rows, best = np.moveaxis(rows, 0, -1), math.inf
    for stay in itertools.product(range(3), repeat=slots):
        chosen = np.tile(np.array(stay)[:, None], (1, rows.shape[-1]))
        best = min(best, float(even_price(rows, chosen, nest, shape, chip, rules).cost("energy").min()))
    return best


def gaps(spaces: int) -> None:
    """Energy of the frontier's winner over the optimum of the space: packing off, in full, and in full with proof."""
    rows, seed = [], 0
    while len(rows) < spaces:
        rng = random.Random(seed)
        seed += 1
        chip, shape = shared.machine(rng), shared.layer(rng)
        spatial = rng.choice(spatial_options(shape, chip))
        nest = unrolled("small", shape, spatial, chip)
        if tier_count(chip) > 3:
            continue
        plain, full = (brute_force(shape, nest, chip, rules) for rules in (PLAIN, HARDWARE))
        if min(plain, full) > 1e149:
            continue  # nothing fits
        layer = ["small"], [shape], chip, [nest], [spatial]
        (few,) = best_rows(*layer)
        (proven,) = best_rows(*layer, proven=True)
        assert best_rows(*layer) == (few,)
        sizes = few.sizes
        rows.append([seed - 1, tier_count(chip), sizes.mappings, sizes.distinct, sizes.kept, plain, full,
                     few.relaxed_pj / plain - 1, few.energy_pj / full - 1, proven.energy_pj / full - 1])  # fmt: skip
    with (HERE / "frontier_gaps.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["seed", "tiers", "mappings", "distinct", "kept", "optimum_plain_pj", "optimum_full_pj",
                         "gap_plain", "gap_full_of_16", "gap_full_proven"])  # fmt: skip
        writer.writerows([*row[:5], *(f"{x:.8g}" for x in row[5:7]), *(f"{x:.2e}" for x in row[7:])] for row in rows)
    table = np.array(rows, dtype=float)
    for label, column in (("packing off", 7), ("in full, best of 16 rows", 8), ("in full, proven", 9)):
        gap = table[:, column]
        print(f"{label:>26}: gap median {np.median(gap):.1e}, p95 {np.quantile(gap, 0.95):.1e}, max {gap.max():.1e}, "
              f"equal {np.mean(np.abs(gap) < 1e-9):.3f}")  # fmt: skip
    print(f"{len(rows)} spaces ({np.sum(table[:, 1] == 2):.0f} of two tiers) of {table[:, 2].min():.0f} to "
          f"{table[:, 2].max():.0f} mappings, {table[:, 4].min():.0f} to {table[:, 4].max():.0f} kept")  # fmt: skip


def timed(calls, rounds: int = 9) -> list[np.ndarray]:
    """CPU-ms of (compiled, arguments, repeats), [round] each; measured in turns, so that all meet the same load."""
    samples = [[] for _ in calls]
    for _ in range(rounds):
        for own, (call, args, repeats) in zip(samples, calls, strict=True):
            begin = time.process_time()
            for _ in range(repeats):
                jax.block_until_ready(call(*args))
            own.append((time.process_time() - begin) * 1e3 / repeats)
    return [np.array(own) for own in samples]


def leaves(chip):
    """(the finite numbers of a machine, how to put them back): unlimited sizes stay constants of the program."""
    flat, structure = jax.tree.flatten(chip)
    traced = [i for i, x in enumerate(flat) if not math.isinf(x)]

    def whole(values):
        found = list(flat)
        for i, value in zip(traced, values, strict=True):
            found[i] = value
        return jax.tree.unflatten(structure, found)

    return [jnp.asarray(float(flat[i])) for i in traced], whole


def price_call(copies: int, box):
    """(compiled value and gradient, its arguments, CPU-s of compiling, blocks of rows) of so many ResNet-50."""
    chip, names, shapes, nests = shared.resnet50(copies)
    names = [f"{name}.{i}" for i, name in enumerate(names)]
    stack = jax.tree.map(jnp.asarray, stack_frontiers(names, shapes, chip, nests, box=box))
    numbers, whole = leaves(chip)

    def cost(bits, numbers, stack):
        found = soft_price(dataclasses.replace(stack, bits=bits), whole(numbers), TEMPERATURE)
        return jnp.log(jnp.sum(found.energy_pj)) + jnp.log(jnp.sum(found.cycles))

    both = jax.jit(jax.value_and_grad(cost, argnums=(0, 1)))
    begin = time.process_time()
    compiled = both.lower(stack.bits, numbers, stack).compile()
    spent = time.process_time() - begin
    value, slopes = compiled(stack.bits, numbers, stack)
    assert math.isfinite(value) and all(np.all(np.isfinite(s)) for s in jax.tree.leaves(slopes))
    return compiled, (stack.bits, numbers, stack), spent, stack


def speed(pareto: bool) -> None:
    """Sizes of the sets, CPU ms of value and gradient of energy and latency, and growth at ten times the layers."""
    chip, names, shapes, nests = shared.resnet50(1)
    sets = {"box": box_around(chip, **BOX)} | ({"pareto": None} if pareto else {})
    found = {}
    for label, box in sets.items():
        begin = time.process_time()
        found[label] = frontier_sizes(names, shapes, chip, nests, box=box)
        print(f"{label}: {len(names)} layers enumerated in {time.process_time() - begin:.1f} CPU-s")
    if pareto:
        with (HERE / "frontier_sizes.csv").open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            parts = (f"{part}_{label}" for label in sets for part in ("distinct", "kept"))
            writer.writerow(["layer", "mappings", *parts])
            for name in dict.fromkeys(names):
                sizes = [found[label][name] for label in sets]
                writer.writerow([name, sizes[0].mappings, *(x for s in sizes for x in (s.distinct, s.kept))])
    for label, box in sets.items():
        made = [price_call(copies, box) for copies in ((1, 10) if label == "box" else (1,))]
        measured = timed([(call, args, 20 // (1 + 4 * i)) for i, (call, args, _, _) in enumerate(made)])
        for (_, _, spent, stack), ms in zip(made, measured, strict=True):
            real = stack.real[stack.block_of]
            print(f"{label}: {stack.layers} layers, {real.sum()} rows ({real.size} padded), compile {spent:.1f} CPU-s")
            print(f"  CPU-ms: best {ms.min():.1f}, median {np.median(ms):.1f} of {len(ms)}")
        if len(made) > 1:
            by, best = measured[1] / measured[0], measured[1].min() / measured[0].min()
            print(f"  x {best:.1f} by the best, {np.median(by):.1f} by the median ({by.min():.1f} to {by.max():.1f})")
            print(f"  compile x {made[1][2] / made[0][2]:.2f}")
        print(f"  peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


def main() -> int:
    """Runs both parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spaces", type=int, default=200)
    parser.add_argument("--skip", nargs="*", default=[], choices=["gap", "speed", "pareto"])
    args = parser.parse_args()
    begin = time.process_time()
    if "speed" not in args.skip:
        speed("pareto" not in args.skip)
    if "gap" not in args.skip:
        gaps(args.spaces)
    print(f"{time.process_time() - begin:.0f} CPU-s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
