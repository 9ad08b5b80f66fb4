"""Weights of one bit: only where the machine's datapath takes nothing else."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cooptim.descent.moves import width_moves
from cooptim.design.knobs import free_phase
from cooptim.design.legal import snap, violations
from cooptim.design.operands import decoded_operands, init_operands, projected_operands
from cooptim.network import trace
from tests.design.cases import replace_at, space_of

SIGNED = (False, False)
ONE, EIGHT = (1.0, 12.0), (8.0, 8.0)


@pytest.fixture(scope="module")
def space():
    return space_of("yodann")


@pytest.fixture(scope="module")
def design(space):
    return snap(space, space.decode(space.init(jnp.array([0.7, 0.3]), jnp.ones(2), 1.0, 6.0), 0.05))


def test_weights_are_one_bit_unpruned_and_inputs_learn_their_width():
    knobs = init_operands(jnp.array([0.7, 0.3]), jnp.ones(2), SIGNED, 1.0, 6.0)
    found = decoded_operands(knobs, SIGNED, ONE)
    assert found.weight_bits.tolist() == [1, 1] and found.threshold.tolist() == [0, 0]
    np.testing.assert_allclose(found.weight_range, [0.7, 0.3])
    assert found.input_bits.tolist() == [6, 6]
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(projected_operands(knobs, SIGNED, ONE)))
    # The range goes on learning: it is the magnitude of both values.
    slope = jax.grad(lambda k: jnp.sum(decoded_operands(k, SIGNED, ONE).weight_range))(knobs).weight_log2_range
    np.testing.assert_allclose(slope, np.log(2) * np.array([0.7, 0.3]))


def test_other_machines_keep_two_bits_at_least():
    knobs = init_operands(jnp.ones(2), jnp.ones(2), SIGNED, 2.0, 2.0)
    coarse = dataclasses.replace(knobs, weight_log2_step=knobs.weight_log2_step + 5)
    assert decoded_operands(coarse, SIGNED, EIGHT).weight_bits.tolist() == [2, 2]


def test_a_legal_design_has_one_bit_and_no_other(space, design):
    assert violations(space, design) == [] and design.weight_bits.tolist() == [1, 1]
    assert violations(space, replace_at(design, "weight_bits", 0, 2.0)) == [
        "conv: weight width 2 b is not 1, as yodann asks"
    ]
    assert violations(space, replace_at(design, "threshold", 1, 0.1)) == [
        "dense: threshold 0.1 prunes weights of 1 b, which have no zero"
    ]
    again = snap(space, replace_at(design, "weight_bits", 0, 8.0))
    assert violations(space, again) == [] and again.weight_bits.tolist() == [1, 1]


def test_no_move_changes_the_width_of_the_weights(space, design):
    for delta in (-1, 1):
        assert all(" input " in move.name for move in width_moves(space, design, delta))


def test_a_network_runs_with_signs_for_weights_and_counts_no_zeros():
    params = {"a": jnp.array([[0.5, -0.2], [0.01, -3.0], [0.0, 1.0]])}
    x = jnp.array([[1.0, 2.0, 3.0]])
    network = trace(lambda p, x: x @ p["a"], params, x)
    knobs = init_operands(jnp.array([0.25]), jnp.array([4.0]), (False,), 1.0, 12.0)
    operands = decoded_operands(knobs, (False,), ONE, free_phase(1))
    out, _, stats = network.apply(network.params, network.state, x, operands, train=False)
    # By hand: signs (+, -), (+, -), (+, +), inputs close to 1, 2, 3 of 12 bits.
    np.testing.assert_allclose(out, 0.25 * np.array([[6.0, 0.0]]), atol=5e-3)
    assert stats.weight_density.tolist() == [1.0]
