"""What pricing needs of a workload and a tiling: static facts of the layers, and the words that the design moves."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from cooptim.mapping.tilings import Tilings
from cooptim.workload import INPUT, Workload

_PLAIN = ("dram_w", "dram_i", "dram_o", "dram_psum", "tile_w", "tile_i", "tile_o", "tile_psum")  # one number a row
_BY_MODE = ("cycles", "sram_w", "sram_i", "sram_o", "sram_psum")  # one number a row and mode


@dataclasses.dataclass(frozen=True, eq=False)
class Facts:
    """Numbers of a workload that no design changes; numpy constants of a jitted program.

    Attributes:
      stored_words: weight words that may stay on chip; 0 for activation products.
      map_words: words of the output feature map of one inference.
      produces: [producer, consumer], the consumer's I operand holds the producer's output.
      alive: [producer, layer], the producer's output exists while the layer runs, for later layers of the network.
      from_input, is_output: the layer reads the network's input; its output leaves the network.
    """

    macs: Float[np.ndarray, "layer"]
    stored_words: Float[np.ndarray, "layer"]
    map_words: Float[np.ndarray, "layer"]
    is_product: Bool[np.ndarray, "layer"]
    from_input: Bool[np.ndarray, "layer"]
    is_output: Bool[np.ndarray, "layer"]
    produces: Bool[np.ndarray, "layer layer"]
    alive: Bool[np.ndarray, "layer layer"]


@functools.lru_cache(maxsize=64)
def facts(workload: Workload) -> Facts:
    """The facts of a workload, cached.

    A layer whose output no other layer takes is an output of the network. Raises ValueError when an input or output
    names no layer.
    """
    layers = workload.layers
    n = len(layers)
    produces = np.zeros((n, n), dtype=bool)
    for consumer, layer in enumerate(layers):
        for name in layer.inputs:
            if name != INPUT:
                produces[workload.index(name), consumer] = True
    is_output = np.asarray(~produces.any(axis=1))
    for name in workload.outputs:
        is_output[workload.index(name)] = True
    alive = np.zeros((n, n), dtype=bool)
    for producer in range(n):
        ends = [producer, *np.flatnonzero(produces[producer])]
        if len(ends) > 1:
            alive[producer, min(ends) : max(ends) + 1] = True
    return Facts(
        macs=np.array([layer.macs for layer in layers], dtype=np.float64),
        stored_words=np.array([0 if x.kind == "matmul" else x.weight_words for x in layers], dtype=np.float64),
        map_words=np.array([x.output_words * x.repeat for x in layers], dtype=np.float64),
        is_product=np.array([x.kind == "matmul" for x in layers], dtype=bool),
        from_input=np.array([INPUT in x.inputs or not x.inputs for x in layers], dtype=bool),
        is_output=is_output,
        produces=produces,
        alive=alive,
    )


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


def expected_words(tilings: Tilings, shares: Float[Array, "layer row"]) -> Words:
    """Mean of the rows of the table, weighted by the shares of each layer: exact for a one-hot choice."""
    layers, rows, modes = tilings.cycles.shape
    plain = np.stack([np.asarray(getattr(tilings, name)) for name in _PLAIN], axis=-1)
    by_mode = np.stack([getattr(tilings, name) for name in _BY_MODE], axis=-2)
    table = np.concatenate([plain, by_mode.reshape(layers, rows, -1)], axis=-1)
    # The highest precision, for accelerators multiply in 10 bits of mantissa by default.
    mean = jnp.einsum("lr,lrc->lc", shares, jnp.asarray(table, shares.dtype), precision=jax.lax.Precision.HIGHEST)
    split = mean[:, len(_PLAIN) :].reshape(layers, len(_BY_MODE), modes)
    return Words(*(mean[:, i] for i in range(len(_PLAIN))), *(split[:, i] for i in range(len(_BY_MODE))))
