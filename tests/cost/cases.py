"""Small workloads, tables and random designs that the cost tests share."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from cooptim.design.design import Design
from cooptim.hardware import load_machine
from cooptim.hardware.datapath import Systolic
from cooptim.mapping.frontier import tilings
from cooptim.network.stats import Stats
from cooptim.workload import INPUT, Bounds, Layer, Workload

PAD = ((1, 1), (1, 1))


def conv(name, k, c, size, taps=3, *inputs, **more):
    """A square convolution that keeps its size."""
    pad = PAD if taps == 3 else ((0, 0), (0, 0))
    bounds = Bounds(K=k, C=c, OY=size, OX=size, FY=taps, FX=taps)
    return Layer(name, "conv", bounds, padding=pad, inputs=inputs or (INPUT,), **more)


DIGITS = Workload(
    "digits",
    (
        conv("conv1", 16, 1, 8),
        conv("conv2", 32, 16, 8, 3, "conv1"),
        Layer("head", "dense", Bounds(K=10, C=32), inputs=("conv2",)),
    ),
    ("head",),
    64,
)
# Maps of 64 kB at 16 bit crowd the buffer, weights exceed what is left; one output leaves and is used again.
CROWDED = Workload(
    "crowded",
    (
        conv("stem", 32, 3, 32),
        conv("left", 32, 32, 32, 3, "stem"),
        conv("right", 48, 32, 32, 1, "left", "stem"),
        Layer("fat", "dense", Bounds(K=64, C=4096), inputs=("right",)),
        Layer("head", "dense", Bounds(K=100, C=64), inputs=("fat",)),
    ),
    ("left", "head"),
    3072,
)
# Attention and a recurrence: an activation product, constant weights used in every trip, a layer that feeds itself.
ATTENTION = Workload(
    "attention",
    (
        Layer("embed", "dense", Bounds(K=96, C=64, OX=32)),
        Layer("matmul", "matmul", Bounds(G=4, K=32, C=24, OX=32), inputs=("embed",)),
        Layer("cell", "dense", Bounds(K=128, C=128), repeat=32, inputs=("matmul", "cell")),
        Layer("head", "dense", Bounds(K=20, C=128), inputs=("cell", "embed")),
    ),
    ("head",),
    2048,
)
WORKLOADS = (DIGITS, CROWDED, ATTENTION)
MACHINES = {name: load_machine(name) for name in ("envision", "dvafs_sized")}
ENVISION = MACHINES["envision"]
SYSTOLIC = dataclasses.replace(
    ENVISION,
    name="weights_stay",
    datapath=dataclasses.replace(ENVISION.datapath, systolic=Systolic(True, True, 40, jnp.array(3.0))),
    buffer=dataclasses.replace(ENVISION.buffer, input_shift=False),
)  # Envision's lanes as a systolic array


def few_rows(workload, machine, rows):
    """A table of evenly chosen rows of the frontier, the untiled one first."""
    table = tilings(workload, machine)
    valid = table.valid.sum(axis=1).astype(int)
    pick = np.stack([np.linspace(0, n - 1, rows).astype(int) for n in valid])
    few = {name: np.stack([x[i][pick[i]] for i in range(len(pick))]) for name, x in table.columns.items()}
    return type(table)(**few)


def design_of(machine, mode, tiling, weight_bits, input_bits, supply_v, freq_ghz, buffer_bits):
    """A Design whose quantizer fields, which cost nothing, are placeholders."""
    one = jnp.ones_like(weight_bits)
    return Design(
        (True,) * len(weight_bits), weight_bits, one, one, 0 * one, input_bits, one, one, mode, tiling,
        supply_v, freq_ghz, buffer_bits,
    )  # fmt: skip


def random_choice(workload, machine, table, rng):
    """A legal design as the oracle takes it, corners included."""
    n, s, b = len(workload.layers), machine.supply, machine.buffer
    mode = rng.integers(0, len(machine.modes), n)
    slot = np.array([machine.modes[m].slot_bits for m in mode])
    grid = np.arange(float(s.floor_v), float(s.ceiling_v) + 1e-9, float(s.step_v))
    volts = rng.choice(grid, n)
    widths = [np.minimum(rng.integers(2, 17, n), slot).astype(float) for _ in range(2)]
    path = 1 - float(s.path_share) * (1 - np.maximum(*widths) / 16)
    vt, a, v0 = float(s.threshold_v), float(s.alpha), float(s.nominal_v)
    clock = float(s.nominal_ghz) * ((volts - vt) / (v0 - vt)) ** a * v0 / volts / path
    densities = [np.where(rng.random(n) < 0.2, rng.integers(0, 2, n), rng.random(n)) for _ in range(2)]
    size = rng.uniform(float(b.min_bits), float(b.max_bits)) if b.free else float(b.size_bits)
    return {
        "row": [int(rng.integers(0, table.valid[i].sum())) for i in range(n)],
        "mode": [int(m) for m in mode],
        "weight_bits": widths[0].tolist(),
        "input_bits": widths[1].tolist(),
        "weight_density": densities[0].tolist(),
        "input_density": densities[1].tolist(),
        "supply_v": volts.tolist(),
        "freq_ghz": (clock * rng.uniform(0.5, 1.0, n)).tolist(),
        "buffer_bits": float(size),
    }


def as_design(machine, table, choice):
    """(Design, Stats) of an oracle's choice."""
    modes = jnp.eye(len(machine.modes))[jnp.asarray(choice["mode"])]
    rows = jnp.eye(table.rows)[jnp.asarray(choice["row"])]
    vectors = {k: jnp.asarray(choice[k]) for k in ("weight_bits", "input_bits", "supply_v", "freq_ghz")}
    design = design_of(
        machine, modes, rows, vectors["weight_bits"], vectors["input_bits"], vectors["supply_v"], vectors["freq_ghz"],
        jnp.asarray(choice["buffer_bits"]),
    )  # fmt: skip
    return design, Stats(jnp.asarray(choice["weight_density"]), jnp.asarray(choice["input_density"]))
