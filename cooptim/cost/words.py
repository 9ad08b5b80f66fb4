"""The words that a design moves: expectations over the shares of its tilings."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from cooptim.mapping.tilings import Tilings

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
