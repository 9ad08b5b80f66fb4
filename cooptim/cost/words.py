"""The words that a design moves: expectations over the shares of its tilings."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from cooptim.mapping.tilings import Tilings
from cooptim.network.stats import Live
from cooptim.relax.rounding import replace_gradient

Bounds = tuple[np.ndarray, np.ndarray]  # of output and of input channels [layer]

_PLAIN = ("dram_w", "dram_i", "dram_o", "dram_psum", "tile_w", "tile_i", "tile_o", "tile_psum")  # one number a row
_BY_MODE = ("cycles", "sram_w", "sram_i", "sram_o", "sram_psum", "sums")  # one number a row and mode


class Words(NamedTuple):
    """Words of one inference, [layer] or [layer, mode]: expectation over the shares of the tilings.

    The fields are those of `cooptim.mapping.tilings.Tilings`.
    """

    dram_w: Any
    dram_i: Any
    dram_o: Any
    dram_psum: Any
    tile_w: Any
    tile_i: Any
    tile_o: Any
    tile_psum: Any
    cycles: Any
    sram_w: Any
    sram_i: Any
    sram_o: Any
    sram_psum: Any
    sums: Any = None


def expected_words(tilings: Tilings, shares: Float[Array, "layer row"]) -> Words:
    """Mean of the rows of the table, weighted by the shares of each layer: exact for a one-hot choice."""
    layers, rows, modes = tilings.cycles.shape
    plain = np.stack([np.asarray(getattr(tilings, name)) for name in _PLAIN], axis=-1)
    names = _BY_MODE if tilings.sums is not None else _BY_MODE[:-1]
    by_mode = np.stack([getattr(tilings, name) for name in names], axis=-2)
    table = np.concatenate([plain, by_mode.reshape(layers, rows, -1)], axis=-1)
    # The highest precision, for accelerators multiply in 10 bits of mantissa by default.
    mean = jnp.einsum("lr,lrc->lc", shares, jnp.asarray(table, shares.dtype), precision=jax.lax.Precision.HIGHEST)
    split = mean[:, len(_PLAIN) :].reshape(layers, len(names), modes)
    return Words(*(mean[:, i] for i in range(len(_PLAIN))), *(split[:, i] for i in range(len(names))))


def live_words(words: Words, live: Live, channels: Bounds, quantum: Bounds) -> Words:
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
