"""A small workload, its spaces and a legal design for the tests of knobs and legality."""

import dataclasses

import jax.numpy as jnp
import numpy as np

import cooptim
from cooptim.design.design import Design
from cooptim.design.legal import snap_supply
from cooptim.design.space import DesignSpace
from cooptim.workload import Bounds, Layer, Workload

WORK = Workload(
    "two",
    (
        Layer("conv", "conv", Bounds(K=48, C=8, OY=8, OX=8, FY=3, FX=3), padding=((1, 1), (1, 1))),
        Layer("dense", "dense", Bounds(K=10, C=48), inputs=("conv",)),
    ),
    ("dense",),
    512,
)
SIGNED = (True, False)


def space_of(name: str = "dvafs_sized") -> DesignSpace:
    """The two layers on a machine of the package; the input of the first is signed."""
    machine = cooptim.load_machine(name)
    return DesignSpace(WORK, machine, cooptim.tilings(WORK, machine, most=3), SIGNED)


def levels(bits: int, signed: bool) -> int:
    """Largest multiple of the step that so many bits hold: a signed word spends one bit on the sign."""
    return 2 ** (bits - int(signed)) - 1


def legal_design(space: DesignSpace, weight_bits=(4, 8), input_bits=(3, 5), modes=(2, 1), rows=(1, 0)) -> Design:
    """4 and 3 bits in 4-bit subwords, 8 and 5 in 8-bit ones; supplies at the third and fifth step above the floor."""
    s, b = space.machine.supply, space.machine.buffer
    design = Design(
        input_signed=SIGNED,
        weight_bits=jnp.asarray(weight_bits, float),
        weight_step=jnp.array([0.01, 0.02]),
        weight_range=jnp.array([0.01 * levels(weight_bits[0], True), 0.02 * levels(weight_bits[1], True)]),
        threshold=jnp.array([0.015, 0.03]),
        input_bits=jnp.asarray(input_bits, float),
        input_step=jnp.array([0.1, 0.05]),
        input_range=jnp.array([0.1 * levels(input_bits[0], True), 0.05 * levels(input_bits[1], False)]),
        mode=jnp.asarray(np.eye(len(space.machine.modes))[list(modes)]),
        tiling=jnp.asarray(np.eye(space.tilings.rows)[list(rows)]),
        supply_v=s.floor_v + s.step_v * jnp.array([3.0, 5.0]),
        freq_ghz=jnp.zeros(2),
        buffer_bits=b.min_bits + 4 * b.step_bits if b.free else b.size_bits,
    )
    return snap_supply(space, design)  # clocks: the fastest that the V-f law allows at these supplies


def replace_at(design: Design, field: str, layer: int, value) -> Design:
    """The design with one layer's entry of one field changed."""
    return dataclasses.replace(design, **{field: getattr(design, field).at[layer].set(value)})
