"""A finished run made by hand: two layers on Envision, every energy a number one can add up in one's head."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from cooptim.cost.bound import EnergyBound
from cooptim.cost.report import COMPONENTS, CostReport
from cooptim.descent.result import Budget, Priced, Result
from cooptim.design.design import Design
from cooptim.design.legal import snap
from cooptim.design.space import DesignSpace
from cooptim.hardware.load import load_machine
from cooptim.mapping.frontier import tilings
from cooptim.network.stats import Stats
from cooptim.workload import Bounds, Layer, Workload

LAYERS = ("conv1.kernel", "fc.kernel")
TITLES = {
    "reference_16b": "16 b",
    "best_uniform": "best uniform",
    "best_uniform_pruned": "best uniform + pruning",
    "final": "joint",
}


def workload():
    """conv 3x3x16 on 8x8 (9,216 MACs) and dense 64 -> 10 (640)."""
    conv = Layer(LAYERS[0], "conv", Bounds(K=16, C=1, OY=8, OX=8, FY=3, FX=3), padding=((1, 1), (1, 1)))
    dense = Layer(LAYERS[1], "dense", Bounds(K=10, C=64), inputs=(LAYERS[0],))
    return Workload("toy", (conv, dense), outputs=(LAYERS[1],), input_words=64)


def machine():
    """The Envision of the package."""
    return load_machine("envision")


def design(weight_bits=(4, 6), input_bits=(3, 5)):
    """A legal design at these widths; layer 0 takes the narrowest mode that holds them."""
    network, chip = workload(), machine()
    table = tilings(network, chip)
    slots = np.array([mode.slot_bits for mode in chip.modes])
    widest = np.maximum(weight_bits, input_bits)
    modes = np.array([np.where(slots >= w, 1.0 / slots, 0.0) for w in widest])
    raw = Design(
        input_signed=(False, True),
        weight_bits=jnp.asarray(weight_bits, float),
        weight_step=jnp.array([0.125, 0.0625]),
        weight_range=jnp.array([0.5, 0.5]),
        threshold=jnp.array([0.0, 0.25]),
        input_bits=jnp.asarray(input_bits, float),
        input_step=jnp.array([0.25, 0.5]),
        input_range=jnp.array([1.0, 2.0]),
        mode=jnp.asarray(modes),
        tiling=jnp.asarray(table.valid) / jnp.arange(1, table.rows + 1),
        supply_v=jnp.array([0.7, 0.8]),
        freq_ghz=jnp.array([0.05, 0.1]),
        buffer_bits=jnp.asarray(float(chip.buffer.size_bits)),
    )
    return snap(DesignSpace(network, chip, table, raw.input_signed), raw)


def cost(scale):
    """Component j of layer i costs scale * (j + 1) * (i + 1) pJ: 45 and 90 times scale a layer, and 15 of standby."""
    ones = jnp.array([1.0, 2.0])
    return CostReport(
        layer_names=LAYERS,
        energy_pj={name: scale * (j + 1) * ones for j, name in enumerate(COMPONENTS)},
        standby_pj=jnp.asarray(scale * 15.0),
        latency_ns=1000.0 * ones,
        cycles=36.0 * ones,
        macs=jnp.array([9216.0, 640.0]),
        utilization=jnp.array([0.75, 0.5]),
        area_mm2=jnp.asarray(1.87),
        buffer_demand_bits=1024.0 * ones,
        buffer_bits=jnp.asarray(1048576.0),
        resident_share=jnp.array([1.0, 0.25]),
        kept_share=jnp.array([1.0, 0.0]),
    )


def priced(key, scale, accuracy):
    """One design of the run; its energy is 150 * scale pJ."""
    params = {"conv1": {"kernel": jnp.arange(4.0)}, "fc": {"kernel": jnp.ones((2, 2))}}
    state = {"bn": {"mean": jnp.zeros(3)}}
    stats = Stats(jnp.array([0.5, 0.25]), jnp.array([0.75, 1.0]))
    bits = (16, 16) if key == "reference_16b" else (4, 6)
    return Priced(TITLES[key], params, state, design(bits, bits), stats, cost(scale), accuracy - 0.01, accuracy)


def result(**changes):
    """Reference 150 nJ (dense 240), best uniform 15, with pruning 7.5, joint 6, relaxed 5.7 and bound 5 nJ."""
    designs = {
        "reference_16b": priced("reference_16b", 1000.0, 0.980),
        "best_uniform": priced("best_uniform", 100.0, 0.975),
        "best_uniform_pruned": priced("best_uniform_pruned", 50.0, 0.972),
        "final": priced("final", 40.0, 0.9725),
    }
    steps = np.arange(0, 100, 10)
    run = Result(
        workload=workload(),
        machine=machine(),
        budget=Budget(6000.0, 25.0, 3000.0, None, 0.005),
        seed=3,
        float_test_accuracy=0.9805,
        float_val_accuracy=0.9825,
        designs=designs,
        dense_16b_pj=240000.0,
        relaxed=cost(38.0),
        bound_pj=5000.0,
        bound=EnergyBound(5000.0, 4000.0, 1000.0, 8000.0, {}, 3000.0, 0.0),
        history={
            "step": steps,
            "loss": 2.0 / (1 + steps),
            "energy_pj": 150000.0 * 0.96**steps,
            "val_accuracy": np.where(steps % 20 == 0, 0.9, np.nan),
        },
        local={"best_saving": 0.011, "moves": 240, "move": "fc.kernel: weight width 6 -> 5"},
        relaxed_parts=("tiling: softmax-weighted mean of the table",),
        snap_drop=0.002,
        versions={"jax": "0.10.1", "cooptim": "0.1.0"},
    )
    return dataclasses.replace(run, **changes)
