"""Designs, comparisons and small functions for the network tests."""

import types

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

KNOBS = ("weight_bits", "weight_step", "weight_range", "threshold", "input_bits", "input_step", "input_range")


class Recurrent(nnx.Module):
    """An LSTM with dropout before it, and a head."""

    def __init__(self, rngs):
        self.drop = nnx.Dropout(0.3, rngs=rngs)
        self.rnn = nnx.RNN(nnx.OptimizedLSTMCell(5, 8, rngs=rngs))
        self.head = nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, x):
        return self.head(self.rnn(self.drop(x))[:, -1])


def design(layers, signed=True, **fields):
    """A design of the operands; every field one number or one a layer."""
    values = dict(
        weight_bits=4.0,
        weight_step=0.125,
        weight_range=0.875,
        threshold=0.0,
        input_bits=4.0,
        input_step=0.25,
        input_range=1.75,
    )
    arrays = {name: jnp.broadcast_to(jnp.asarray(value, float), (layers,)) for name, value in (values | fields).items()}
    return types.SimpleNamespace(input_signed=(signed,) * layers, **arrays)


def equal_bits(a, b):
    """Whether two pytrees hold the same bits, random keys included."""

    def raw(x):
        return jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x

    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.array_equal(np.asarray(raw(x)), np.asarray(raw(y))) for x, y in pairs)


def quantized(x, step, range_, signed=True):
    """x in levels, by numpy: an independent quantizer."""
    low = -range_ if signed else 0.0
    return np.round(np.clip(np.asarray(x), low, range_) / step) * step


def normal(seed, *shape):
    """Fixed random numbers."""
    return jax.random.normal(jax.random.key(seed), shape)


def layer_of(net, name):
    """A layer of a network by name."""
    return net.workload.layers[net.workload.index(name)]
