"""Each snap lands on the nearest thing that can be built, and a legal design stays where it is."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cooptim
from cooptim.design import legal
from cooptim.design.design import Design
from cooptim.design.space import DesignSpace
from cooptim.workload import Bounds, Layer, Workload

SAME = ((1, 1), (1, 1))
WORK = Workload(
    "two",
    (
        Layer("conv", "conv", Bounds(1, 1, 48, 8, 8, 8, 3, 3), padding=SAME),
        Layer("dense", "dense", Bounds(1, 1, 10, 48), inputs=("conv",)),
    ),
    ("dense",),
    512,
)


@pytest.fixture
def space() -> DesignSpace:
    machine = cooptim.load_machine("dvafs_sized")
    return DesignSpace(WORK, machine, cooptim.tilings(WORK, machine, most=3), (True, False))


def relaxed(space: DesignSpace) -> Design:
    """Shares, widths and sizes between the legal values; the most wanted mode and row are known."""
    table, machine = space.tilings, space.machine
    row = np.zeros(table.valid.shape)
    row[0, 5], row[0, 2], row[1, 1], row[1, 0] = 0.7, 0.3, 0.6, 0.4
    s, b = machine.supply, machine.buffer
    one = jnp.ones(2)
    return Design(
        input_signed=(True, False),
        weight_bits=jnp.array([4.4, 7.6]),
        weight_step=0.01 * one,
        weight_range=0.05 * one,
        threshold=0.002 * one,
        input_bits=jnp.array([6.6, 3.2]),
        input_step=0.01 * one,
        input_range=0.03 * one,
        mode=jnp.array([[0.3, 0.6, 0.1], [0.1, 0.5, 0.4]]),
        tiling=jnp.asarray(row),
        supply_v=s.floor_v + s.step_v * jnp.array([10.3, 4.6]),
        freq_ghz=0.02 * one,
        buffer_bits=b.min_bits + 7.3 * b.step_bits,
    )


def test_widths_go_to_the_nearest_whole_bit(space):
    design = legal.snap_widths(space, relaxed(space))
    np.testing.assert_array_equal(design.weight_bits, [4, 8])
    np.testing.assert_array_equal(design.input_bits, [7, 3])


def test_a_range_too_wide_for_its_bits_is_cut_to_the_levels_they_hold(space):
    wide = dataclasses.replace(relaxed(space), weight_range=jnp.array([1.0, 1.0]))
    design = legal.snap_widths(space, wide)
    np.testing.assert_allclose(design.weight_range, [0.01 * 7, 1.0])  # signed 4 bit: 7 steps; 8 bit: 127, enough


def test_the_most_wanted_mode_that_holds_both_widths_is_taken(space):
    design = legal.snap_mode(space, legal.snap_widths(space, relaxed(space)))
    np.testing.assert_array_equal(design.mode, [[0, 1, 0], [0, 1, 0]])  # 7 and 8 bit: 2x8b
    wider = legal.snap_mode(space, dataclasses.replace(relaxed(space), weight_bits=jnp.array([9.0, 2.0])))
    np.testing.assert_array_equal(wider.mode, [[1, 0, 0], [0, 1, 0]])  # 9 bit fit 1x16b alone


def test_the_buffer_grows_to_the_next_size_that_can_be_built(space):
    b = space.machine.buffer
    assert float(legal.snap_buffer(space, relaxed(space)).buffer_bits) == float(b.min_bits + 8 * b.step_bits)


def test_the_most_wanted_tiling_that_fits_is_taken(space):
    design = dataclasses.replace(relaxed(space), mode=jnp.array([[0.0, 1, 0], [0, 1, 0]]))
    np.testing.assert_array_equal(np.argmax(legal.snap_tiling(space, design).tiling, axis=1), [5, 1])
    need = np.asarray(space.working_set_bits(design.mode))[0]
    if need[2] < need[5]:
        tight = dataclasses.replace(design, buffer_bits=jnp.asarray((need[2] + need[5]) / 2))
        np.testing.assert_array_equal(np.argmax(legal.snap_tiling(space, tight).tiling, axis=1)[0], 2)


def test_supplies_rise_to_the_grid_and_clocks_fall_to_it(space):
    s = space.machine.supply
    design = legal.snap_supply(space, legal.snap_widths(space, relaxed(space)))
    np.testing.assert_allclose(design.supply_v, np.asarray(s.floor_v) + np.asarray(s.step_v) * [11, 5], rtol=1e-6)
    # alpha-power law (V - Vt)^alpha / V, a critical path shorter by path_share for unused bits; 7 and 8 bit are in use
    law = lambda v: (v - float(s.threshold_v)) ** float(s.alpha) / v  # noqa: E731
    for volts, bits, clock in zip(design.supply_v.tolist(), (7, 8), design.freq_ghz.tolist(), strict=True):
        path = 1 - float(s.path_share) * (1 - bits / 16)
        fastest = float(s.nominal_ghz) * law(volts) / law(float(s.nominal_v)) / path
        steps = math.floor(fastest / float(s.step_ghz))
        assert clock / float(s.step_ghz) == pytest.approx(steps, abs=1e-3)


def test_a_snapped_design_is_legal_and_snaps_to_itself(space):
    once = legal.snap(space, relaxed(space))
    assert legal.violations(space, once) == []
    for before, after in zip(jax.tree.leaves(once), jax.tree.leaves(legal.snap(space, once)), strict=True):
        np.testing.assert_array_equal(before, after)
