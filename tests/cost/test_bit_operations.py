"""Bit operations by hand, and that a step can bring them down."""

import jax
import jax.numpy as jnp
import numpy as np

from cooptim.cost.bit_operations import bit_operations, bit_operations_price
from cooptim.design.design import Operands
from cooptim.network.stats import Stats
from cooptim.workload import zoo

WORKLOAD = zoo.network("lenet5")


def _operands(weight_bits, input_bits):
    n = len(WORKLOAD.layers)
    ones = jnp.ones(n)
    return Operands((False,) * n, weight_bits, ones, ones, 0 * ones, input_bits, ones, ones)


def test_products_of_bits_and_macs():
    macs = np.array([layer.macs for layer in WORKLOAD.layers], float)
    bits = jnp.arange(2.0, 2.0 + len(macs))
    found = bit_operations(WORKLOAD, _operands(bits, 3.0 + 0 * bits))
    assert np.allclose(found, macs * np.arange(2, 2 + len(macs)) * 3, rtol=1e-12)


def test_zero_weights_do_not_count_where_they_are_known():
    bits = 4.0 * jnp.ones(len(WORKLOAD.layers))
    shares = jnp.linspace(0.1, 0.9, len(WORKLOAD.layers))
    dense = bit_operations(WORKLOAD, _operands(bits, bits))
    left = bit_operations(WORKLOAD, _operands(bits, bits), Stats(shares, 0 * shares))
    assert np.allclose(left, 16 * np.array([layer.macs for layer in WORKLOAD.layers]) * shares, rtol=1e-12)
    assert np.all(left < dense)


def test_layers_that_inputs_leave_before_count_as_often_as_they_run():
    bits, shares = 4.0 * jnp.ones(len(WORKLOAD.layers)), jnp.linspace(0.1, 0.9, len(WORKLOAD.layers))
    runs = jnp.linspace(1.0, 0.2, len(WORKLOAD.layers))
    left = bit_operations(WORKLOAD, _operands(bits, bits), Stats(shares, 0 * shares, runs))
    macs = np.array([layer.macs for layer in WORKLOAD.layers])
    assert np.allclose(left, 16 * macs * np.asarray(shares) * np.asarray(runs), rtol=1e-12)


def test_the_price_moves_with_every_width_and_density():
    bits = 4.0 * jnp.ones(len(WORKLOAD.layers))

    def price(weight_bits, input_bits, shares):
        stats = Stats(shares, shares)
        return bit_operations_price(WORKLOAD, None, _operands(weight_bits, input_bits), stats).total_energy_pj

    shares = 0.5 * jnp.ones(len(WORKLOAD.layers))
    macs = np.array([layer.macs for layer in WORKLOAD.layers], float)
    by_weight, by_input, by_share = jax.grad(price, (0, 1, 2))(bits, bits, shares)
    assert np.allclose(by_weight, 4 * 0.5 * macs) and np.allclose(by_input, 4 * 0.5 * macs)
    assert np.allclose(by_share, 16 * macs)
