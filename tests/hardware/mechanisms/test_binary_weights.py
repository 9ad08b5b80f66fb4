"""Weights of one bit: an adder's energy, twelve weights in a word, one width."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from cooptim.hardware.mechanisms import binary_weights
from cooptim.hardware.mechanisms.binary_weights import BinaryWeights, adder_share


@pytest.fixture
def binary():
    return BinaryWeights(jnp.array(1.0))


def test_half_the_input_bits_take_half_the_energy(binary, datapath, point):
    assert float(adder_share(binary, datapath(12), 6.0)) == 0.5
    assert float(binary_weights.effect(binary, datapath(12), point(1.0, 6.0)).datapath) == 0.5


def test_a_word_holds_as_many_weights_as_it_has_bits(binary, datapath, point):
    assert float(binary_weights.effect(binary, datapath(12), point(1.0, 12.0)).words_w) == pytest.approx(1 / 12)
    held_w, held_i = binary_weights.held_bits(binary, datapath(12))
    assert held_w.tolist() == [1.0] and held_i.tolist() == [12.0]


def test_weights_have_one_width_and_inputs_the_datapaths(binary, datapath):
    assert binary_weights.most_bits(binary, 12) == (1.0, 12.0)


def test_no_width_gates_a_multiplier_or_shortens_a_path(binary, datapath):
    found = binary_weights.array_bits(binary, datapath(12), jnp.array(1.0), jnp.array(3.0))
    assert [float(x) for x in found] == [12.0, 12.0]


def test_gradients_are_those_of_differences(binary, datapath, gradients):
    def share(bits, exponent):
        return adder_share(dataclasses.replace(binary, adder_exponent=exponent), datapath(12), bits)

    found, slopes = gradients(share, 7.0, 1.3)
    assert np.all(np.abs(slopes) > 1e-3) and found == pytest.approx(slopes, rel=1e-6)
