"""Batch statistics catch up with a network that stands still."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import cooptim
from cooptim.descent.measure import Measure
from cooptim.design.knobs import float_phase
from cooptim.design.space import DesignSpace


class OneNorm(nnx.Module):
    """A dense layer behind one batch normalization."""

    def __init__(self, rngs):
        self.norm = nnx.BatchNorm(3, momentum=0.9, rngs=rngs)
        self.dense = nnx.Linear(3, 2, rngs=rngs)

    def __call__(self, x):
        return self.dense(self.norm(x))


@pytest.mark.float32
def test_statistics_move_towards_the_batch_by_their_momentum():
    x = np.random.default_rng(0).normal(2.0, 1.0, (16, 3)).astype(np.float32)
    network = cooptim.trace(OneNorm(nnx.Rngs(0)), x[:1])
    machine = cooptim.load_machine("envision")
    space = DesignSpace(network.workload, machine, cooptim.tilings(network.workload, machine), (True,))
    design = space.decode(space.init(jnp.ones(1), jnp.ones(1)), 1.0, float_phase(1))
    state = Measure(network, 16).settled(network.params, network.state, design, [x] * 7)
    mean = jax.tree.leaves({"m": state["norm"]["mean"]})[0]
    # from 0, seven passes at momentum 0.9 over the same batch: (1 - 0.9^7) of its mean
    np.testing.assert_allclose(mean, (1 - 0.9**7) * x.mean(axis=0), rtol=1e-5)
    np.testing.assert_array_equal(jax.tree.leaves(network.state)[0], 0.0)  # the caller's own is untouched
