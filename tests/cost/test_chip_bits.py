"""Learned widths and masks as words of a chip that is sized: by hand, merged and kept apart, and their gradients."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cooptim.cost.chip_bits import WordBits, flagged_bits, stack_under, word_bits
from cooptim.design.knobs import OperandKnobs, frozen_phase
from cooptim.design.operands import decoded_operands, init_operands, projected_operands
from cooptim.hardware.hierarchy_file import load_hierarchy
from cooptim.mapping.chip_descent import Goal, Load, log_cost, random_chip, relaxed_chip, together
from cooptim.mapping.nest import layer_shape
from cooptim.network.stats import Stats
from cooptim.workload import Bounds, Layer, Workload

PAD = ((1, 1), (1, 1))
WORK = Workload(
    "three",
    (
        Layer("first", "conv", Bounds(K=8, C=3, OY=8, OX=8, FY=3, FX=3), padding=PAD),
        Layer("twin", "conv", Bounds(K=8, C=8, OY=8, OX=8, FY=3, FX=3), padding=PAD, inputs=("first",)),
        Layer("twin2", "conv", Bounds(K=8, C=8, OY=8, OX=8, FY=3, FX=3), padding=PAD, inputs=("first", "twin")),
        Layer("head", "dense", Bounds(K=10, C=512), inputs=("twin2",)),
    ),
    ("head",),
    192,
)
SIGNED = (True, False, False, False)
WIDTHS = np.array([4.0, 5.0, 3.0, 6.0]), np.array([8.0, 2.0, 6.0, 4.0])  # of weights, of inputs
SHARES = np.array([0.5, 0.25, 0.9, 1.0]), np.array([1.0, 0.5, 0.25, 0.125])
EDGE = load_hierarchy("edge_45nm")
GOAL = Goal("edp", area_mm2=0.15)
FAST = {"xla_backend_optimization_level": 0}  # to compile


def _operands(w=WIDTHS[0], i=WIDTHS[1]):
    knobs = init_operands(jnp.ones(4), jnp.ones(4), SIGNED, w, i)
    return decoded_operands(knobs, SIGNED, phase=frozen_phase(jnp.asarray(w), jnp.asarray(i)))


def _stats(w=SHARES[0], i=SHARES[1]):
    return Stats(jnp.asarray(w), jnp.asarray(i))


def _load(name="three"):
    return Load(name, {layer.name: layer_shape(layer, 8, 8, 24, 8) for layer in WORK.layers})


@pytest.fixture(scope="module")
def apart():
    return together([_load()], merge=False)


def test_bits_of_words_by_hand():
    """Flag and share of the width; sums by w + i + carries of 27, 72, 72 and 512; outputs as their takers want them."""
    found = word_bits(WORK, _operands(), _stats())
    np.testing.assert_allclose(found.w_bits, [1 + 2, 1 + 1.25, 1 + 2.7, 1 + 6])
    np.testing.assert_allclose(found.i_bits, [1 + 8, 1 + 1, 1 + 1.5, 1 + 0.5])
    np.testing.assert_allclose(found.psum_bits, [12 + 5, 7 + 7, 9 + 7, 10 + 9])
    np.testing.assert_allclose(found.o_bits, [(2 + 2.5) / 2, 2.5, 1.5, 8])
    narrow = word_bits(WORK, _operands(), _stats(), most_sum_bits=16.0)
    np.testing.assert_allclose(narrow.psum_bits, [16, 14, 16, 16])  # the rest saturates


def test_flags_stand_only_where_they_shorten_a_tensor_that_is_built():
    found = word_bits(WORK, _operands(), _stats(), shorter=True, output_bits=16.0)
    np.testing.assert_allclose(found.w_bits, [3, 2.25, 3, 6])
    np.testing.assert_allclose(found.i_bits, [8, 2, 2.5, 1.5])
    np.testing.assert_allclose(found.o_bits, [2.25, 2.5, 1.5, 16])
    plain = word_bits(WORK, _operands())
    np.testing.assert_allclose([plain.w_bits, plain.i_bits], WIDTHS)


def test_flagged_bits_are_those_of_a_stream_written_out():
    words = np.random.default_rng(0).integers(0, 2, 1000) * 5
    stream = "".join("0" if w == 0 else "1" + format(w, "06b") for w in words)
    assert float(flagged_bits(6.0, np.mean(words != 0))) == pytest.approx(len(stream) / len(words))


def test_equal_layers_stay_apart_for_bits_of_their_own(apart):
    assert apart.members == (("first",), ("twin",), ("twin2",), ("head",))
    assert apart.share.tolist() == [[1.0, 1.0, 1.0, 1.0]]
    stack = stack_under(apart, {"three": word_bits(WORK, _operands(), _stats())})
    np.testing.assert_allclose(stack.shape.w_bits, [3, 2.25, 3.7, 7])
    np.testing.assert_allclose(stack.shape.o_bits, [2.25, 2.5, 1.5, 8])
    assert stack.shape.bounds is apart.stack.shape.bounds


def test_networks_that_are_not_named_keep_their_bits():
    other = Load("other", {"head": layer_shape(WORK.layers[3], 7, 6, 24, 5)})
    loads = together([other, _load()], merge=False)
    bits = word_bits(WORK, _operands(), _stats())
    order = [3, 1, 0, 2]  # bits stand by name, not by place
    turned = WordBits(
        tuple(WORK.names[k] for k in order),
        *(getattr(bits, f)[np.array(order)] for f in ("w_bits", "i_bits", "psum_bits", "o_bits")),
    )
    stack = stack_under(loads, {"three": turned})
    np.testing.assert_allclose(stack.shape.w_bits, [7, 3, 2.25, 3.7, 7])
    np.testing.assert_allclose(stack.shape.psum_bits, [24, 17, 14, 16, 19])
    np.testing.assert_allclose(stack.shape.i_bits, [6, 9, 2, 2.5, 1.5])


def test_what_does_not_fit_is_refused_by_name(apart):
    bits = word_bits(WORK, _operands(), _stats())
    with pytest.raises(ValueError, match=r"bits of four: the loads hold three"):
        stack_under(apart, {"four": bits})
    with pytest.raises(ValueError, match=r"three: layers twin, twin2 are equal and share an entry.*merge=False"):
        stack_under(together([_load()]), {"three": bits})
    renamed = dataclasses.replace(bits, names=("first", "twin", "third", "head"))
    with pytest.raises(ValueError, match=r"three: layer twin2 has no bits; they are of first, twin, third, head"):
        stack_under(apart, {"three": renamed})
    fewer = Workload("two", WORK.layers[:2])
    with pytest.raises(ValueError, match=r"two: weight_bits has shape \(4,\), its layers ask for \(2,\)"):
        word_bits(fewer, _operands())


def test_the_cost_of_a_chip_has_the_gradient_of_central_differences_in_every_width_and_density(apart):
    """Each term along weight widths, input widths and both densities of every layer in float64; the product of energy
    and latency feels them all."""
    knobs = random_chip(jax.random.key(3), apart, EDGE, spread=0.5)

    def terms(x):
        weight_bits, input_bits, w_share, i_share = x.reshape(4, 4)
        operands = dataclasses.replace(_operands(), weight_bits=weight_bits, input_bits=input_bits)
        stack = stack_under(apart, {"three": word_bits(WORK, operands, _stats(w_share, i_share))})
        found = relaxed_chip(knobs, apart, EDGE, GOAL, sharpness=20.0, stack=stack)
        edp = log_cost(found.energy_pj, found.latency_ns, apart.weights, GOAL)
        return jnp.stack([edp, found.energy_pj[0], found.latency_ns[0], found.area_mm2, found.leakage_mw])

    at, step = np.concatenate([*WIDTHS, SHARES[0] * 0.9, SHARES[1] * 0.9]), 1e-5
    slopes = np.asarray(jax.jit(jax.jacrev(terms), compiler_options=FAST)(at))
    value = jax.jit(jax.vmap(terms), compiler_options=FAST)
    shifts = step * np.eye(16)
    differences = (np.asarray(value(at + shifts)) - np.asarray(value(at - shifts))).T / (2 * step)
    size = np.abs(np.asarray(value(at[None])))[0][:, None]
    np.testing.assert_allclose(slopes / size, differences / size, rtol=1e-4, atol=1e-8)
    assert np.all(slopes[:2] > 0)  # wider or fuller words never cost less, and each of the 16 costs something


def test_knobs_of_operands_reach_the_cost_of_the_chip(apart):
    """Steps and ranges of weights and inputs of every layer, through whole widths; masks through measured shares."""
    chip = random_chip(jax.random.key(3), apart, EDGE, spread=0.5)
    knobs = init_operands(jnp.ones(4), jnp.ones(4), SIGNED, *WIDTHS)

    def cost(knobs):
        operands = decoded_operands(knobs, SIGNED)
        share = 1.0 / (1.0 + operands.threshold)  # stands for a network: fewer words the higher the threshold
        stack = stack_under(apart, {"three": word_bits(WORK, operands, _stats(share))})
        return jnp.sum(relaxed_chip(chip, apart, EDGE, GOAL, stack=stack).energy_pj)

    slopes: OperandKnobs = jax.jit(jax.grad(cost), compiler_options=FAST)(knobs)
    assert np.all(np.asarray(slopes.weight_log2_step) < 0) and np.all(np.asarray(slopes.weight_log2_range) > 0)
    assert np.all(np.asarray(slopes.input_log2_step) < 0) and np.all(np.asarray(slopes.input_log2_range) > 0)
    assert np.all(np.asarray(slopes.log2_threshold) < 0)


def test_projected_knobs_stay_where_they_decode_to_themselves():
    knobs = init_operands(jnp.ones(4), jnp.ones(4), SIGNED, 4.0, 5.0)
    pairs = zip(jax.tree.leaves(projected_operands(knobs, SIGNED)), jax.tree.leaves(knobs), strict=True)
    assert all(np.allclose(held, given, rtol=1e-12) for held, given in pairs)
    far = jnp.full(4, 30.0)
    wild = dataclasses.replace(knobs, weight_log2_step=-far, input_log2_step=far, log2_threshold=-far)
    held = projected_operands(wild, SIGNED, 7.0)
    found = decoded_operands(held, SIGNED, 7.0)
    assert found.weight_bits.tolist() == [7.0] * 4 and found.input_bits.tolist() == [2.0] * 4
    np.testing.assert_allclose(2.0**held.weight_log2_step, 1 / (2.0**6 - 1))  # the finest step of a signed 7-bit word
    np.testing.assert_allclose(found.threshold, 0.5 / 63)
