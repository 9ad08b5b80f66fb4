"""The integers that leave the network: fine enough for the biases that are added to them."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cooptim.integer import outputs, predict
from cooptim.network.integer import IntegerOptions, require_float_path, rounded_values
from tests.integer.test_layer_kinds import lowered

pytestmark = pytest.mark.float32


class Head(nnx.Module):
    """Six words to five logits whose biases are small beside a step of the accumulators."""

    def __init__(self, bias):
        self.a = nnx.Linear(6, 5, use_bias=bias is not None, rngs=nnx.Rngs(0))
        if bias is not None:
            self.a.bias.set_value(jnp.asarray(bias, jnp.float32))

    def __call__(self, x):
        return self.a(x)


BIAS = (0.011, -0.003, 0.0, 0.007, -0.009)


def test_a_bias_below_half_a_step_of_the_accumulators_survives():
    """With words of 2 b a step of the accumulators is 1.0 x the largest weight: these biases would round to 0 of it."""
    network, design, x, integer = lowered(Head(BIAS), (6,), 2.0, 2.0, inputs=500)
    own = float(design.weight_step[0] * design.input_step[0])
    assert own > 10 * max(BIAS)
    y = np.asarray(network.apply(network.params, network.state, x, design)[0], np.float64)
    p = predict(integer, np.asarray(x))[0]
    assert np.abs(p - y).max() <= 0.51 * integer.outputs[0].step < 1e-4
    assert np.array_equal(p.argmax(1), y.argmax(1))  # ties of accumulators are told apart by their biases


def test_accumulators_stay_exact_behind_the_finer_step():
    """The step is that of the accumulators, halved; so without its bias each result is a multiple."""
    _, design, x, integer = lowered(Head(BIAS), (6,), 3.0, 4.0, inputs=500)
    own, step = float(design.weight_step[0] * design.input_step[0]), integer.outputs[0].step
    assert np.log2(own / step) == pytest.approx(round(np.log2(own / step)), abs=1e-6) and own / step > 2**8
    at_zero = outputs(integer, np.zeros((1, 6)))[0]
    found = (outputs(integer, np.asarray(x))[0] - at_zero) / round(own / step)
    assert np.array_equal(found, np.round(found))


def test_without_a_bias_the_accumulators_themselves_leave():
    _, design, _, integer = lowered(Head(None), (6,), 3.0, 4.0, inputs=8)
    assert integer.outputs[0].step == pytest.approx(float(design.weight_step[0] * design.input_step[0]))
    assert integer.nodes[integer.outputs[0].node].op == "dot"


@pytest.mark.parametrize("bits", [2, 8, 18])
def test_the_finer_step_fits_the_multiplier(bits):
    _, design, x, integer = lowered(Head(BIAS), (6,), 2.0, 2.0, inputs=50, options=IntegerOptions(multiplier_bits=bits))
    require_float_path(integer)
    ours = outputs(integer, np.asarray(x))[0]
    theirs = rounded_values(integer, x)[integer.outputs[0].node]
    assert np.array_equal(ours, np.asarray(theirs, np.float64))
    own = float(design.weight_step[0] * design.input_step[0])
    assert own / integer.outputs[0].step <= 1.0001 * 2 ** (bits - 1)


def test_a_bias_larger_than_every_product_is_kept():
    _, _, x, integer = lowered(Head([1e4 * b for b in BIAS]), (6,), 2.0, 2.0, inputs=8)
    p = predict(integer, np.zeros((1, 6)))[0][0]
    np.testing.assert_allclose(p, [1e4 * b for b in BIAS], rtol=1e-4, atol=1e-3)
