"""Methods in a design space: knobs, designs, their files, and what is refused."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cooptim.design.knobs import knob_names
from cooptim.design.legal import snap, violations
from cooptim.design.space import DesignSpace
from cooptim.export.design_file import load_design, save_design
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
        ({"weight_scale": [1.0, 2.0]}, "conv: 2 factors of output channels, its method asks for 48"),
        ({"weight_scale": [-1.0] * 48}, "conv: a factor of its output channels is not above 0"),
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
