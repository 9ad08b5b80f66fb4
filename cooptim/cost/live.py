"""A network without its dead channels, in the tilings of the whole one: what its layers move, hold and multiply.

Exact where a layer is not tiled, but for the fill and drain of a systolic array, and for mechanisms that count loops
(analog arrays, compressed columns, the lanes of zero skipping): these see the whole layer.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from cooptim.cost.words import Words
from cooptim.hardware.machine import Machine
from cooptim.mapping.traffic import array_shape, quanta
from cooptim.network.stats import Live, Stats
from cooptim.relax.rounding import replace_gradient
from cooptim.workload import Workload
from cooptim.workload.graph import Facts

Pair = tuple[np.ndarray, np.ndarray]  # of output and of input channels [layer]


def live_network(
    workload: Workload, machine: Machine, known: Facts, words: Words, stats: Stats
) -> tuple[Facts, Words, Stats]:
    """Facts, words and densities of what `stats.live` leaves; all as they came where it is None."""
    live, shape = stats.live, array_shape(machine)
    if live is None:
        return known, words, stats
    bounds = np.array([(layer.bounds.K, layer.bounds.C) for layer in workload.layers])
    filled = np.array([quanta(layer, shape) for layer in workload.layers])
    words = live_words(words, live, (bounds[:, 0], bounds[:, 1]), (filled[:, 0], filled[:, 1]))
    both = live.outputs * live.inputs
    known = dataclasses.replace(
        known, macs=known.macs * both, stored_words=known.stored_words * both, map_words=known.map_words * live.outputs,
        outputs=known.outputs * live.outputs,
    )  # fmt: skip
    # One pair of channels at least, so that a layer without any has a slope: a product of shares has none below.
    least = jnp.asarray(1.0 / np.prod(bounds, axis=1), both.dtype)
    dense = stats.weight_density * live.weights / jnp.maximum(both, least)
    return known, words, dataclasses.replace(stats, weight_density=jnp.minimum(dense, 1.0), live=None)


def live_words(words: Words, live: Live, channels: Pair, quantum: Pair) -> Words:
    """The words of a network without its dead channels, in the tiles of the whole one.

    Weights go with output and with input channels, inputs and outputs with their own, sums with outputs. Cycles take
    what the array takes at once as a whole: forward exact, backward linear beyond the first such step, flat within.

    Args:
      channels: (output, input) channels of each layer. quantum: those that fill the array.
    """
    share_o, share_i = live.outputs, live.inputs
    steps_o, steps_i = (
        _steps(share, np.asarray(all_), np.asarray(step))
        for share, all_, step in zip((share_o, share_i), channels, quantum, strict=True)
    )
    by = {
        "dram_w": share_o * share_i, "tile_w": share_o * share_i, "sram_w": share_o * share_i,
        "dram_i": share_i, "tile_i": share_i, "sram_i": steps_o * share_i,
        "dram_o": share_o, "tile_o": share_o, "sram_o": share_o,
        "dram_psum": share_o, "tile_psum": share_o, "sram_psum": share_o, "sums": steps_o * steps_i,
        "cycles": steps_o * steps_i,
    }  # fmt: skip
    scaled = {
        name: None if (found := getattr(words, name)) is None else found * by[name].reshape(-1, *[1] * (found.ndim - 1))
        for name in Words._fields
    }
    return Words(**scaled)


def _steps(share: Float[Array, "layer"], channels: np.ndarray, quantum: np.ndarray) -> Float[Array, "layer"]:
    """Steps of the array for this share of the channels, over those for all."""
    whole = np.ceil(channels / quantum)
    left = share * channels / quantum
    return replace_gradient(jnp.maximum(jnp.ceil(left - 1e-4), 1.0), jnp.where(left > 1.0, left, 1.0)) / whole
