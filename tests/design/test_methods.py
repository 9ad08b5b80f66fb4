"""Methods in a design space: knobs, designs, their files, and what is refused."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cooptim.descent.budget import _narrowest_bits
from cooptim.descent.moves import width_moves
from cooptim.design.knobs import frozen_phase, knob_names
from cooptim.design.legal import snap, violations
from cooptim.design.operands import held_ranges, projected_operands
from cooptim.design.space import DesignSpace
from cooptim.export.design_file import load_design, save_design
from cooptim.hardware.mechanisms import Mechanisms, least_bits
from cooptim.hardware.mechanisms.bit_serial import BitSerial
from cooptim.relax.method import Method
from tests.design.cases import SIGNED, WORK, space_of

METHODS = (Method(per_channel=True, pattern=(2, 4)), Method())
MOST = jnp.array([0.5, 1.0])
CHANNELS = (np.linspace(0.1, 0.5, 48), np.ones(10))


@pytest.fixture(scope="module")
def space():
    plain = space_of()
    return DesignSpace(WORK, plain.machine, plain.tilings, SIGNED, METHODS)


@pytest.fixture(scope="module")
def knobs(space):
    return space.init(MOST, MOST, 4.0, 4.0, CHANNELS)


@pytest.fixture(scope="module")
def legal(space, knobs):
    return snap(space, space.decode(knobs, 0.05))


def test_a_channel_starts_at_its_own_range_and_a_layer_without_has_no_factor(space, knobs):
    assert "weight_log2_scale" in knob_names(knobs) and "codebook" not in knob_names(knobs)
    found = space.decode(knobs, 1.0)
    np.testing.assert_allclose(found.weight_scale[0] * found.weight_range[0], CHANNELS[0])
    assert found.weight_scale[1].shape == (0,) and found.methods == METHODS
    assert np.array_equal(space.init(MOST, MOST).weight_log2_scale[0], np.zeros(48))
    both = dataclasses.replace(space, methods=(METHODS[0], Method(per_channel=True)))
    assert both.init(MOST, MOST, 4.0, 4.0, CHANNELS).weight_log2_scale[1].tolist() == [0.0] * 10  # 1.0 of 1.0
    zero = space.init(MOST, MOST, 4.0, 4.0, (np.zeros(48), np.ones(10)))
    assert np.array_equal(zero.weight_log2_scale[0], np.zeros(48))  # an empty channel has no range of its own


def test_the_factor_of_a_channel_has_a_gradient(space, knobs):
    slope = jax.grad(lambda k: jnp.sum(space.decode(k, 1.0).weight_scale[0] ** 2))(knobs).weight_log2_scale
    np.testing.assert_allclose(slope[0], 2 * np.log(2) * (CHANNELS[0] / 0.5) ** 2, rtol=1e-9)
    back = space.decode(space.encode(space.decode(knobs, 1.0)), 1.0)
    np.testing.assert_allclose(back.weight_scale[0], CHANNELS[0] / 0.5, rtol=1e-9)


def test_a_design_file_brings_methods_and_factors_back(space, legal, tmp_path):
    assert violations(space, legal) == []
    path = tmp_path / "design.json"
    save_design(path, WORK, space.machine, legal, tilings=space.tilings)
    layers = json.loads(path.read_text())["layers"]
    assert layers["conv"]["method"] == {"per_channel": True, "pattern": [2, 4]} and "method" not in layers["dense"]
    back = load_design(path, WORK, space.machine, tilings=space.tilings)
    assert back.methods == METHODS
    assert np.array_equal(back.weight_scale[0], legal.weight_scale[0]) and back.weight_scale[1].shape == (0,)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"method": {"pattern": [4, 2]}}, "layer conv: method: pattern"),
        ({"method": {"pattern": "2:4"}}, "layer conv: method is .*a pattern as .N, M."),
        ({"method": {"per_channel": 1}}, "layer conv: method is .*true or false"),
        ({"method": {"width": 2}}, "layer conv: method is .*fields of weights, inputs, per_channel, pattern"),
        ({"weight_scale": [1.0, "a"]}, "layer conv: weight_scale is"),
        ({"weight_scale": [1.0, 2.0]}, r"conv\.weight_scale: 2 factors of output channels, its method asks for 48"),
        ({"weight_scale": [-1.0] * 48}, r"conv\.weight_scale: a factor of its output channels is not above 0"),
    ],
)
def test_a_spoiled_method_in_a_file_is_refused_by_layer(space, legal, tmp_path, change, words):
    path = tmp_path / "design.json"
    save_design(path, WORK, space.machine, legal, tilings=space.tilings)
    content = json.loads(path.read_text())
    content["layers"]["conv"] |= change
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=words):
        load_design(path, WORK, space.machine, tilings=space.tilings)


def test_a_design_of_other_methods_is_not_legal_here(space, legal):
    other = dataclasses.replace(legal, methods=(), weight_scale=None)
    assert "are not those of the design space" in violations(space, other)[0]


@pytest.mark.parametrize(
    ("methods", "words"),
    [
        ((Method(),), "design space of two: 1 methods for 2 layers"),
        ((Method(pattern=(2, 16)), Method()), "conv: pattern 2 of 16 does not divide its 72 weights"),
    ],
)
def test_a_space_refuses_methods_that_do_not_fit(space, methods, words):
    with pytest.raises(ValueError, match=words):
        DesignSpace(WORK, space.machine, space.tilings, SIGNED, methods)


@pytest.mark.parametrize("name", ["sign", "dorefa", "ternary"])
def test_data_on_both_sides_has_no_scale_of_a_channel_or_of_a_batch(space, name):
    product = dataclasses.replace(WORK, layers=(WORK.layers[0], dataclasses.replace(WORK.layers[1], kind="matmul")))
    with pytest.raises(ValueError, match="dense: both of its operands are data.*those of a batch"):
        DesignSpace(product, space.machine, space.tilings, SIGNED, (Method(), Method(name)))


def space_with(machine, *methods):
    plain = space_of(machine)
    return DesignSpace(WORK, plain.machine, plain.tilings, SIGNED, methods)


def test_signs_cost_one_bit_where_the_datapath_takes_one_and_two_elsewhere():
    methods = (Method("sign", "sign"), Method("ternary"))
    wide = space_with("envision", *methods)
    knobs = wide.init(MOST, MOST, 8.0, 8.0)
    found = wide.decode(knobs, 1.0)
    assert found.weight_bits.tolist() == [2, 2] and found.input_bits.tolist() == [2, 8]
    assert found.threshold[0] == 0 and found.threshold[1] > 0  # a sign has no zero to prune
    held = wide.decode(knobs, 1.0, frozen_phase(jnp.full(2, 5.0), jnp.full(2, 5.0)))
    assert held.weight_bits.tolist() == [2, 2] and held.input_bits.tolist() == [2, 5]
    legal = snap(wide, wide.decode(knobs, 0.05))
    assert violations(wide, legal) == []
    assert violations(wide, dataclasses.replace(legal, weight_bits=legal.weight_bits.at[0].set(1.0))) == [
        "conv: weight width 1 b is not a whole number in 2..16, as envision asks"
    ]
    cut = dataclasses.replace(legal, threshold=legal.threshold.at[0].set(0.1))
    assert violations(wide, cut) == ["conv: threshold 0.1 prunes weights of 2 b, which have no zero"]
    assert float(snap(wide, cut).threshold[0]) == 0
    narrower = [move.name for move in width_moves(wide, legal, +1)]
    assert narrower == ["dense input 8 -> 9 b"]  # all other widths come with their method
    adder = space_with("yodann", Method("sign"), Method("sign"))
    assert adder.decode(adder.init(MOST, MOST, 1.0, 6.0), 1.0).weight_bits.tolist() == [1, 1]
    serial = Mechanisms(bit_serial=BitSerial("W", *(jnp.ones(()) for _ in range(3))))
    assert least_bits(serial) == (1.0, 2.0)
    steps = dataclasses.replace(wide, machine=dataclasses.replace(wide.machine, mechanisms=serial))
    one = steps.decode(knobs, 1.0)
    assert one.weight_bits.tolist() == [1, 2] and one.input_bits.tolist() == [2, 8]
    # The bound must not be that of two bits there.
    assert (_narrowest_bits(steps), _narrowest_bits(wide)) == (1.0, 2.0)
    with pytest.raises(ValueError, match="conv: yodann takes weights of 1 b, their sign alone, which ternary"):
        space_with("yodann", Method("ternary"), Method("sign"))


def test_a_blend_has_any_width_until_it_is_frozen_and_keeps_its_range_then():
    space = space_with("envision", Method("blend", "blend"), Method())
    knobs = space.init(MOST, MOST, 5.4, 5.4)
    found = space.decode(knobs, 1.0)
    np.testing.assert_allclose(found.weight_bits, [5.39, 6], rtol=1e-6)
    np.testing.assert_allclose(found.input_bits, [5.39, 6], rtol=1e-6)
    slope = jax.grad(lambda k: space.decode(k, 1.0).weight_bits[0])(knobs).weight_log2_step
    np.testing.assert_allclose(slope[0], -1.0, rtol=0.06)  # of log2(range/step + 1)
    phase = frozen_phase(jnp.round(found.weight_bits), jnp.round(found.input_bits))
    held = space.decode(held_ranges(knobs, phase, SIGNED, space.methods), 1.0, phase)
    assert held.weight_bits.tolist() == [5, 6]
    np.testing.assert_allclose(held.weight_range[0], 0.5)
    np.testing.assert_allclose(held.input_range[0], 0.5)
    np.testing.assert_allclose(
        held.weight_step,
        space.decode(knobs, 1.0, phase).weight_step
        * np.array([0.5 / 15, 1])
        / np.array([float(found.weight_step[0]), 1]),
    )


def test_a_step_leaves_the_threshold_of_a_ternary_design_where_it_is():
    """Its step is its range, so that half a step would be a threshold that prunes all but the largest weights."""
    ternary = space_with("envision", Method("ternary"), Method())
    found = ternary.decode(ternary.init(MOST, MOST, 4.0, 4.0), 0.05)
    design = dataclasses.replace(found, threshold=jnp.array([0.03, 0.2]))
    assert design.weight_step[0] == design.weight_range[0] == 0.5
    phase = frozen_phase(design.weight_bits, design.input_bits)

    def after(design):
        held = projected_operands(ternary.encode(design), SIGNED, ternary.most_bits, ternary.methods)
        return ternary.decode(held, 0.05, phase).threshold

    np.testing.assert_allclose(after(design), [0.03, 0.2], rtol=1e-6)
    half = 0.5 * float(design.weight_step[1])
    low = after(dataclasses.replace(design, threshold=jnp.array([1e-6, 1e-6])))
    np.testing.assert_allclose(low, [0.5 / 256, half], rtol=1e-5)  # within reach of the ramp, and half a step
