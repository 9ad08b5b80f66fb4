"""Does any valid design, corners included, give a NaN or an infinity in the price or in its gradient?

100,000 random designs of the three-layer digits CNN and 1,000 of ResNet-8, relaxed and legal, on four machines (made
and sized, retention on and off), in float32 as a descent runs. Usage:
    python experiments/random_designs/run.py [--count 100000] [--block 2500] [--seed 0]
"""

import argparse
import dataclasses
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import cooptim
from cooptim.design.design import Design
from cooptim.hardware.dvafs import critical_path, max_clock_ghz
from cooptim.hardware.machine import Machine
from cooptim.mapping.tilings import Tilings
from cooptim.network import examples
from cooptim.network.stats import Stats
from cooptim.workload import Workload

OFF_BITS = 32.0  # what a descent prices while it trains in float


def machines() -> list[Machine]:
    """The made and the sized machine; the same without retention, with a raw link and double buffers."""
    out = []
    for name in ("envision", "dvafs_sized"):
        plain = cooptim.load_machine(name)
        bare = dataclasses.replace(
            plain,
            name=f"{name}, no retention",
            supply=dataclasses.replace(plain.supply, retention_v=jnp.zeros_like(plain.supply.retention_v)),
            dram=dataclasses.replace(plain.dram, coded=False),
            buffer=dataclasses.replace(plain.buffer, double_buffered=True),
        )
        out += [plain, bare]
    return out


def mixed(rng, inner: np.ndarray, corners: tuple[float, ...], share: float = 0.4) -> np.ndarray:
    """The inner values, a share of them replaced by corners."""
    return np.where(rng.random(inner.shape) < share, rng.choice(np.asarray(corners), inner.shape), inner)


def shares(rng, allowed: np.ndarray, count: int) -> np.ndarray:
    """[count, *allowed.shape] shares over the allowed places of the last axis: half one-hot, half random."""
    weight = rng.exponential(1.0, (count, *allowed.shape)) ** rng.choice([1.0, 8.0], (count, 1, 1)) * allowed
    soft = weight / weight.sum(axis=-1, keepdims=True)
    hard = np.arange(allowed.shape[-1]) == np.argmax(weight, axis=-1, keepdims=True)
    return np.where(rng.random((count, 1, 1)) < 0.5, hard, soft)


def random_designs(
    workload: Workload, machine: Machine, table: Tilings, count: int, rng: np.random.Generator
) -> tuple[Design, Stats, np.ndarray]:
    """(designs, stats, periods [ns]) with a leading axis; where the mode is one-hot the widths fit its slots."""
    n, s, b = len(workload.layers), machine.supply, machine.buffer
    mode = shares(rng, np.ones((n, len(machine.modes))), count)
    tiling = shares(rng, np.asarray(table.valid, float), count)
    slots = np.where(mode.max(-1) == 1.0, mode @ np.array([float(m.slot_bits) for m in machine.modes]), np.inf)
    bits = [mixed(rng, rng.uniform(2.0, 16.0, (count, n)), (2.0, 4.0, 8.0, 16.0)) for _ in range(2)]
    held = [np.minimum(x, slots) for x in bits]
    floating = rng.random((count, 1)) < 0.02
    held = [np.where(floating, OFF_BITS, x) for x in held]
    floor, ceiling = float(s.floor_v), float(s.ceiling_v)
    volts = mixed(rng, rng.uniform(floor, ceiling, (count, n)), (floor, ceiling))
    fastest = np.asarray(max_clock_ghz(s, volts, critical_path(s, machine.datapath.width_bits, np.maximum(*held))))
    clock = np.maximum(fastest * mixed(rng, rng.random((count, n)), (1.0,)), float(s.step_ghz))
    low, high = float(b.min_bits), float(b.max_bits)
    size = mixed(rng, low * (high / low) ** rng.random(count), (low, high))
    densities = [mixed(rng, rng.random((count, n)), (0.0, 1.0)) for _ in range(2)]
    wide = jnp.result_type(float)
    place = np.ones((count, n))
    fields = (held[0], place, place, 0 * place, held[1], place, place, mode, tiling, volts, clock, size)
    design = Design((True,) * n, *(jnp.asarray(x, wide) for x in fields))
    periods = rng.choice([0.0, 1e3, 1e6, 1e9], count)
    return design, Stats(*(jnp.asarray(x, wide) for x in densities)), jnp.asarray(periods, wide)


def sound(workload: Workload, machine: Machine, table: Tilings):
    """Jitted (designs, stats, periods) -> True where the whole report and all slopes are finite."""

    def one(design, stats, period):
        def cost(design, stats):
            report = cooptim.evaluate(workload, machine, design, stats, period_ns=period, tilings=table)
            logs = jnp.log(report.total_energy_pj) + jnp.log(report.total_latency_ns) + jnp.log(report.area_mm2)
            return logs, report

        (logs, report), slopes = jax.value_and_grad(cost, argnums=(0, 1), has_aux=True)(design, stats)
        return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves((logs, report, slopes))]))

    return jax.jit(jax.vmap(one))


def count_sound(workload: Workload, machine: Machine, count: int, block: int, rng: np.random.Generator) -> int:
    """How many of `count` random designs are sound; prints the first that is not."""
    table = cooptim.tilings(workload, machine)
    check, good = sound(workload, machine, table), 0
    for start in range(0, count, block):
        designs = random_designs(workload, machine, table, block, rng)
        fine = np.asarray(check(*designs))[: count - start]
        good += int(fine.sum())
        if not fine.all():
            worst = int(np.argmin(fine))
            print(f"{workload.name} on {machine.name}, design {start + worst}:")
            print(jax.tree.map(lambda leaf, i=worst: np.asarray(leaf)[i].tolist(), designs))
    return good


def main() -> int:
    """Prints how many designs are sound; 1 when one is not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--block", type=int, default=2_500)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng, begin, all_sound = np.random.default_rng(args.seed), time.process_time(), True
    for name, model, count in (("digits_cnn", examples.digits_cnn, args.count), ("resnet8", examples.resnet8, 1_000)):
        workload = cooptim.trace(model(nnx.Rngs(0)), examples.example_input(name)).workload
        each = count // 4
        good = sum(count_sound(workload, m, each, min(args.block, each), rng) for m in machines())
        all_sound &= good == 4 * each
        cpu = time.process_time() - begin
        print(f"{name}: {good} of {4 * each} designs without NaN or infinity ({cpu:.0f} CPU-s)", flush=True)
    return int(not all_sound)


if __name__ == "__main__":
    sys.exit(main())
