"""Knobs to designs and back."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cooptim.design.knobs import Knobs, float_phase, free_phase, frozen_phase, knob_names
from cooptim.design.space import DesignSpace
from cooptim.relax.bitwidth import OFF_BITS
from tests.design.cases import SIGNED, WORK, legal_design, levels, space_of

COLD = 0.05  # a temperature at which a choice that is made is made


@pytest.fixture(scope="module")
def space():
    return space_of("dvafs_sized")


def _init(space, bits):
    return space.init(jnp.array([0.5, 2.0]), jnp.array([1.0, 8.0]), bits, bits)


@pytest.mark.parametrize("bits", range(2, 17))
def test_initial_knobs_decode_to_the_widths_and_ranges_asked_for(space, bits):
    design = space.decode(_init(space, float(bits)), COLD)
    assert design.weight_bits.tolist() == [bits, bits] and design.input_bits.tolist() == [bits, bits]
    np.testing.assert_allclose(design.weight_range, [0.5, 2.0])
    np.testing.assert_allclose(design.input_range, [1.0, 8.0])
    # range over step is the number of levels, short of it by the 0.01 bit that keeps the first moves from a flip;
    # at 2 bits, the least, there is no room for that
    short = 0.01 if bits > 2 else 0.0
    np.testing.assert_allclose(design.weight_range / design.weight_step + 1, 2.0 ** (bits - 1 - short))
    unsigned = 2.0 ** (bits - short)
    np.testing.assert_allclose(design.input_range / design.input_step + 1, [unsigned / 2, unsigned])
    np.testing.assert_allclose(design.threshold, 0.5 * np.asarray(design.weight_step), rtol=2 * short + 0.015)


@pytest.mark.parametrize("machine", ["envision", "dvafs_sized"])
@pytest.mark.parametrize(("bits", "mode"), [(2, "4x4b"), (4, "4x4b"), (5, "2x8b"), (8, "2x8b"), (9, "1x16b")])
def test_the_narrowest_mode_that_holds_both_widths_is_the_default(machine, bits, mode):
    space = space_of(machine)
    knobs = space.init(jnp.ones(2), jnp.ones(2), jnp.array([2.0, bits]), jnp.array([bits, 2.0]))
    chosen = np.argmax(space.decode(knobs, 1.0).mode, axis=1)
    assert [space.machine.modes[i].name for i in chosen] == [mode, mode]


@pytest.mark.parametrize("temperature", [1.0, COLD])
def test_a_width_feels_the_next_mode_most_where_its_own_last_bit_costs_it(space, temperature):
    """At 5 bits one bit less buys the 4-bit subword, at 9 the 8-bit one; at 4, 6 and 7 it buys nothing yet."""
    slot = jnp.asarray(space.slot_bits)

    def slot_bits(log2_step, knobs):
        return space.decode(dataclasses.replace(knobs, weight_log2_step=log2_step), temperature).mode[0] @ slot

    pull = {}
    for bits in range(3, 12):
        knobs = _init(space, jnp.array([float(bits), 2.0]))
        knobs = dataclasses.replace(knobs, mode_logits=jnp.broadcast_to(2.0 * jnp.log2(16 / slot), (2, 3)))
        pull[bits] = -float(jax.grad(slot_bits)(knobs.weight_log2_step, knobs)[0])
    # one bit away a logistic of width 1/2 has 0.42 of its slope, two bits away 0.07; 7 is also two below the next step
    assert max(pull[b] for b in (4, 6)) < 0.5 * pull[5] and pull[7] < 0.3 * pull[5]
    assert max(pull[b] for b in (8, 10)) < 0.5 * pull[9] and pull[11] < 0.1 * pull[9]
    assert all(p > 0 for p in pull.values())


@pytest.mark.parametrize("temperature", [0.01, 0.3, 3.0])
def test_random_knobs_decode_into_the_physical_range_with_one_legal_mode_a_layer(space, temperature):
    rng = np.random.default_rng(7)
    start, s, b = _init(space, 8.0), space.machine.supply, space.machine.buffer
    decode = jax.jit(space.decode)
    for _ in range(50):
        knobs = jax.tree.map(lambda leaf: leaf + jnp.asarray(rng.normal(0.0, 4.0, leaf.shape)), start)
        design = decode(knobs, temperature)
        for bits in (design.weight_bits, design.input_bits):
            assert np.array_equal(bits, np.round(bits)) and (bits >= 2).all() and (bits <= 16).all()
        assert np.isin(design.mode, [0.0, 1.0]).all() and np.array_equal(design.mode.sum(axis=1), [1, 1])
        slot = np.asarray(design.mode) @ space.slot_bits
        assert (slot >= np.maximum(design.weight_bits, design.input_bits)).all()
        np.testing.assert_allclose(design.tiling.sum(axis=1), 1.0)
        assert (np.asarray(design.tiling)[space.tilings.valid == 0] == 0).all()
        assert (design.supply_v >= s.floor_v).all() and (design.supply_v <= s.ceiling_v).all()
        assert b.min_bits <= design.buffer_bits <= b.max_bits


@pytest.mark.parametrize("machine", ["envision", "dvafs_sized"])
def test_a_legal_design_comes_back_from_its_knobs(machine):
    space = space_of(machine)
    wanted = legal_design(space)
    back = space.decode(space.encode(wanted), COLD, frozen_phase(wanted.weight_bits, wanted.input_bits))
    exact = ("weight_bits", "input_bits", "mode")
    for name in exact:
        np.testing.assert_array_equal(getattr(back, name), getattr(wanted, name))
    close = ("weight_step", "weight_range", "threshold", "input_step", "input_range", "tiling", "supply_v")
    for name in (*close, "buffer_bits"):
        np.testing.assert_allclose(getattr(back, name), getattr(wanted, name), rtol=1e-9, atol=1e-9, err_msg=name)


def test_supplies_and_sizes_at_the_end_of_their_range_come_back_within_a_quarter_percent_of_it(space):
    s, b = space.machine.supply, space.machine.buffer
    wanted = dataclasses.replace(
        legal_design(space), supply_v=jnp.stack([s.floor_v, s.ceiling_v]), buffer_bits=b.max_bits
    )
    knobs = space.encode(wanted)
    back = space.decode(knobs, COLD, frozen_phase(wanted.weight_bits, wanted.input_bits))
    off = np.abs(np.asarray(back.supply_v - wanted.supply_v)) / float(s.ceiling_v - s.floor_v)
    assert (off <= 0.0025 + 1e-9).all() and np.isfinite(knobs.supply).all()
    assert float(b.max_bits - back.buffer_bits) <= 0.0025 * float(b.max_bits - b.min_bits) * (1 + 1e-6)


def test_a_pruning_threshold_of_zero_has_a_finite_knob(space):
    knobs = space.encode(dataclasses.replace(legal_design(space), threshold=jnp.zeros(2)))
    assert np.isfinite(knobs.log2_threshold).all()


def test_frozen_widths_stay_whatever_the_knobs_say_and_ranges_follow_the_steps(space):
    rng = np.random.default_rng(3)
    weight_bits, input_bits = jnp.array([3.0, 7.0]), jnp.array([6.0, 2.0])
    phase = frozen_phase(weight_bits, input_bits)
    for _ in range(20):
        knobs = jax.tree.map(lambda leaf: leaf + jnp.asarray(rng.normal(0.0, 3.0, leaf.shape)), _init(space, 8.0))
        design = space.decode(knobs, 1.0, phase)
        np.testing.assert_array_equal(design.weight_bits, weight_bits)
        np.testing.assert_array_equal(design.input_bits, input_bits)
        np.testing.assert_allclose(design.weight_step, 2.0**knobs.weight_log2_step)
        held = [levels(3, True), levels(7, True)]
        np.testing.assert_allclose(design.weight_range, np.asarray(design.weight_step) * held)
        held = [levels(6, SIGNED[0]), levels(2, SIGNED[1])]
        np.testing.assert_allclose(design.input_range, np.asarray(design.input_step) * held)


def test_frozen_widths_get_no_gradient_and_free_ones_do(space):
    def width(knobs, phase):
        design = space.decode(knobs, 1.0, phase)
        return jnp.sum(design.weight_bits + design.input_bits)

    frozen = jax.grad(width)(_init(space, 8.0), frozen_phase(jnp.full(2, 8.0), jnp.full(2, 8.0)))
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(frozen))
    free = jax.grad(width)(_init(space, 8.0), free_phase(2))
    for name in ("weight_log2_step", "weight_log2_range", "input_log2_step", "input_log2_range"):
        assert np.all(getattr(free, name) != 0), name


def test_a_frozen_phase_without_pruning_prunes_nothing(space):
    knobs, eight = _init(space, 8.0), jnp.full(2, 8.0)
    assert space.decode(knobs, 1.0, frozen_phase(eight, eight, prune=False)).threshold.tolist() == [0, 0]
    assert (space.decode(knobs, 1.0, frozen_phase(eight, eight)).threshold > 0).all()


def test_the_float_phase_leaves_32_bits_and_prunes_nothing(space):
    design = space.decode(_init(space, 4.0), 1.0, float_phase(2))
    assert OFF_BITS == 32.0
    assert design.weight_bits.tolist() == design.input_bits.tolist() == [32, 32]
    assert design.threshold.tolist() == [0, 0]


def test_knobs_have_a_buffer_leaf_only_where_the_machine_frees_its_size():
    free, made = (_init(space_of(name), 8.0) for name in ("dvafs_sized", "envision"))
    asked = ("weight_log2_scale", "codebook", "exit_margin")  # by methods and early exits, and none is here
    names = [field.name for field in dataclasses.fields(Knobs) if field.name not in asked]
    assert knob_names(free) == tuple(names) and knob_names(made) == tuple(n for n in names if n != "buffer")
    space = space_of("envision")
    assert float(space.decode(made, 1.0).buffer_bits) == 128 * 1024 * 8


def test_a_knob_one_bit_beyond_its_bound_decodes_to_the_bound_and_still_has_a_gradient(space):
    knobs = _init(space, 16.0)
    finer = dataclasses.replace(knobs, weight_log2_step=knobs.weight_log2_step - 1.0)
    width = lambda k: jnp.sum(space.decode(k, 1.0).weight_bits)  # noqa: E731
    assert float(width(finer)) == 32.0  # two layers of 16
    # A coarser step would be fewer bits: the bound is straight-through (at half the slope, as the step is half).
    np.testing.assert_allclose(jax.grad(width)(finer).weight_log2_step, -0.5, rtol=0.02)


def test_colder_tilings_are_nearer_to_one_row(space):
    rng = np.random.default_rng(5)
    start = _init(space, 4.0)
    knobs = dataclasses.replace(start, tiling_logits=jnp.asarray(rng.normal(size=start.tiling_logits.shape)))
    best = [np.max(space.decode(knobs, t).tiling, axis=1) for t in (2.0, 0.5, 0.02)]
    assert (best[0] < best[1]).all() and (best[1] < best[2]).all()


def test_a_space_without_one_sign_a_layer_says_how_many_it_needs(space):
    with pytest.raises(ValueError, match="design space of two: 3 signs for 2 layers; give one a layer"):
        DesignSpace(WORK, space.machine, space.tilings, (True, False, True))
