"""The continuous relaxation of tilings: its cost, its growth with depth, and how near its rounded designs come.

Usage:
    python experiments/relaxations/continuous.py [--spaces 200] [--starts 8] [--steps 200] [--skip gap speed]
Prints the figures of README.md and writes gaps.csv (one small space a row) beside this file.
"""

import argparse
import csv
import itertools
import math
import pathlib
import random
import resource
import sys
import time

import jax

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

from cooptim.hardware.hierarchy import DIRECTIONS, Hierarchy, Memory, Port  # noqa: E402
from cooptim.hardware.hierarchy_file import load_hierarchy  # noqa: E402
from cooptim.mapping.continuous import relaxed_price  # noqa: E402
from cooptim.mapping.even import even_price, rounded  # noqa: E402
from cooptim.mapping.lattice import prime_factors  # noqa: E402
from cooptim.mapping.nest import LayerShape, layer_shape  # noqa: E402
from cooptim.mapping.rules import HARDWARE  # noqa: E402
from cooptim.mapping.search import spatial_options, unrolled  # noqa: E402
from cooptim.mapping.stack import random_knobs, stack_layers, tiling  # noqa: E402
from cooptim.mapping.tiers import tier_count  # noqa: E402
from cooptim.mapping.tile_descent import descend_tilings  # noqa: E402
from cooptim.workload import zoo  # noqa: E402
from cooptim.workload.dims import DIMS  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent


def memory(name, operands, size, cost, served, width=16.0, granule=8.0):
    """One read-write port; energy of a write 1.3 times that of a read."""
    port = Port("rw", "read_write", tuple((o, d) for o in operands for d in DIRECTIONS), width, granule)
    return Memory(name, operands, served, "room", (port,), float(size), cost, 1.3 * cost, float(size), 0.0, 0.0, 1e12,
                  1.0, 0.0, 0.0)  # fmt: skip


def machine(rng: random.Random) -> Hierarchy:
    """Two to four levels, operands that pass levels by, memories small enough to bind."""
    levels, dims = rng.choice([2, 3, 4]), ("D1", "D2")
    found = [
        memory("reg_w", ("W",), rng.choice([8, 16, 64]), 0.1, ()),
        memory("reg_o", ("O",), rng.choice([24, 48, 96]), 0.2, rng.choice([(), ("D2",)]), 24.0, 24.0),
    ]
    if levels == 4:
        found.append(memory("small", ("W", "I"), rng.choice([96, 160, 300]), 0.9, dims))
    if levels >= 3:
        found.append(memory("big", ("W", "I", "O")[rng.choice([0, 1]) :], rng.choice([200, 400, 900]), 5.0, dims, 32.0))
    found.append(memory("dram", ("W", "I", "O"), 1e12, 60.0, dims, 64.0, 64.0))
    return Hierarchy("random", (("D1", rng.choice([1, 2])), ("D2", rng.choice([1, 3]))), (), tuple(found), 0.3, 1.0)


def layer(rng: random.Random) -> LayerShape:
    """Four to six prime factors over the loops."""
    bounds = [1] * len(DIMS)
    for _ in range(rng.choice([4, 5, 6])):
        bounds[rng.randrange(len(DIMS))] *= rng.choice([2, 3])
    stride = rng.choice([1, 1, 2])
    size = tuple((bounds[o] - 1) * stride + bounds[f] for o, f in ((4, 6), (5, 7)))
    return LayerShape(tuple(bounds), (stride, stride), (1, 1), size, 8, 8, 24, 8)


def splits(n: int, slots: int) -> list[tuple[int, ...]]:
    """Every way to share the prime factors of n out over the slots."""
    found = set()
    for places in itertools.product(range(slots), repeat=len(prime_factors(n))):
        factors = [1] * slots
        for prime, k in zip(prime_factors(n), places, strict=True):
            factors[k] *= prime
        found.add(tuple(factors))
    return sorted(found)


def brute_force(shape, nest, chip) -> tuple[float, int]:
    """(least energy of all legal even mappings, how many there are), each priced in full."""
    slots = tier_count(chip)
    bounds = [round(b / math.prod(row[i] for row in nest.unroll)) for i, b in enumerate(shape.bounds)]
    rows = np.array([np.array(c).T for c in itertools.product(*(splits(b, slots) for b in bounds))])
    rows = np.moveaxis(rows, 0, -1)
    best = math.inf
    for stay in itertools.product(range(3), repeat=slots):
        chosen = np.tile(np.array(stay)[:, None], (1, rows.shape[-1]))
        best = min(best, float(even_price(rows, chosen, nest, shape, chip, HARDWARE).cost("energy").min()))
    return best, rows.shape[-1] * 3**slots


def gaps(spaces: int, starts: int, steps: int) -> None:
    """Energy of the best rounded start over the optimum of the space, on random small layers and machines."""
    rows, seed = [], 0
    while len(rows) < spaces:
        rng = random.Random(seed)
        seed += 1
        chip, shape = machine(rng), layer(rng)
        spatial = rng.choice(spatial_options(shape, chip))
        nest = unrolled("small", shape, spatial, chip)
        optimum, size = brute_force(shape, nest, chip)
        if optimum > 1e149:
            continue  # nothing fits
        stack = stack_layers(["small"], [shape], [1.0], [nest])
        ended = descend_tilings(stack, chip, starts=starts, steps=steps, seed=seed)
        found, moves = [], []
        for i in range(starts):
            real, shares = np.asarray(ended.temporal[i, ..., 0]), np.asarray(ended.stay[i, ..., 0])
            try:
                one = rounded("small", real, shares, nest, spatial, shape, chip, HARDWARE)
            except ValueError:
                found.append(math.inf)  # this start's repair met no legal mapping
                continue
            found.append(one.energy_pj)
            moves.append(one.moves)
        relaxed = float(np.median(ended.energy_pj[:, 0]))
        rows.append([seed - 1, size, optimum, min(found), found[0], relaxed, sum(map(math.isinf, found)),
                     float(np.mean(moves)) if moves else 0.0])  # fmt: skip
    with (HERE / "gaps.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["seed", "mappings", "optimum_pj", "best_pj", "first_start_pj", "relaxed_median_pj",
                         "starts_without", "mean_moves"])  # fmt: skip
        writer.writerows([*row[:2], *(f"{x:.6g}" for x in row[2:6]), row[6], f"{row[7]:.2f}"] for row in rows)
    table = np.array(rows, dtype=float)
    for label, column in ((f"best of {starts} starts", 3), ("first start", 4), ("relaxed (median start)", 5)):
        gap = table[:, column] / table[:, 2] - 1
        print(f"{label:>24}: gap median {np.median(gap):.4f}, p95 {np.quantile(gap, 0.95):.4f}, max {gap.max():.4f}, "
              f"equal {np.mean(np.abs(gap) < 1e-9):.3f}")  # fmt: skip
    print(f"{len(rows)} spaces of {table[:, 1].min():.0f} to {table[:, 1].max():.0f} mappings")


def resnet50(copies: int):
    """ResNet-50's 54 layers on gemmini, C and K unrolled, so many times over."""
    chip, network = load_hierarchy("gemmini"), zoo.network("resnet50")
    names, shapes, nests = [], [], []
    for item in network.layers:
        shape = layer_shape(item, 8, 8, 32, 8)
        spatial = {"rows": (("C", min(16, shape.bounds[3])),), "cols": (("K", min(16, shape.bounds[2])),)}
        nest = unrolled(item.name, shape, spatial, chip)
        for _ in range(copies * int(item.repeat)):
            names.append(item.name)
            shapes.append(shape)
            nests.append(nest)
    return chip, names, shapes, nests


def speed() -> None:
    """CPU ms of value and gradient of energy and latency; at ten times the layers compile and run against one time."""
    for free in (False, True):
        figures = []
        for copies in (1, 10):
            chip, names, shapes, nests = resnet50(copies)
            stack = stack_layers(names, shapes, [1.0] * len(names), None if free else nests)
            knobs = random_knobs(jax.random.key(0), stack, chip)

            def cost(knobs, stack=stack, chip=chip):
                found = relaxed_price(tiling(knobs, stack, chip), stack, chip)
                return jnp.log(jnp.sum(found.energy_pj)) + jnp.log(jnp.sum(found.cycles))

            both = jax.jit(jax.value_and_grad(cost))
            begin = time.process_time()
            lowered = both.lower(knobs).compile()
            compiled = time.process_time() - begin
            jax.block_until_ready(lowered(knobs))
            samples = []
            for _ in range(7):
                begin = time.process_time()
                for _ in range(100):
                    jax.block_until_ready(lowered(knobs))
                samples.append((time.process_time() - begin) * 10)
            figures.append((len(names), compiled, float(np.median(samples))))
        (n, first, one), (m, second, ten) = figures
        print(f"unrolling {'free' if free else 'given'}: {n} layers {one:.3f} CPU-ms, compile {first:.1f} CPU-s")
        print(f"  {m} layers {ten:.3f} CPU-ms ({ten / one:.1f} x), compile {second:.1f} CPU-s ({second / first:.2f} x)")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


def main() -> int:
    """Runs both parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spaces", type=int, default=200)
    parser.add_argument("--starts", type=int, default=8)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--skip", nargs="*", default=[], choices=["gap", "speed"])
    args = parser.parse_args()
    begin = time.process_time()
    if "speed" not in args.skip:
        speed()
    if "gap" not in args.skip:
        gaps(args.spaces, args.starts, args.steps)
    print(f"{time.process_time() - begin:.0f} CPU-s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
