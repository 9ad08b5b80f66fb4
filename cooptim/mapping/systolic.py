"""Cycles of a weight-stationary systolic array, and the words that its buffer and accumulators move.

Rows add up products: input channels, with the filter taps beside them (im2col) or one tap after the other. Columns are
output channels. R x N weights are one set; a tile's outputs are computed column set by column set, in blocks of at most
as many pixels as a column has accumulators; the sets of one block add up in the accumulators. One image and one group
at a time.

A block of P pixels at L lanes streams for S = ceil(P / L) cycles. A set's weights shift in within R cycles, a row a
cycle. The last sum leaves the far corner R + N - 2 cycles after the last pixel entered: skew on the way in and out.

- serial: every set takes R + S + R + N - 2. Source: SCALE-Sim's 2R + N + S - 2 (Samajdar et al., ISPASS 2020).
- overlapped: weights are doubled in the MACs and change on the wave front, so that sets follow each other without
  draining and take max(S, R) each. Once in every execution of the layer the first weights shift in and the array
  drains, 2R + N - 2, and the last set takes S.

Words. Weights: each once a block, one a word. Inputs: each row reads its own stream, `lanes` pixels a word, once a
column set; rows without a product read nothing. Outputs: once, `lanes` to a word. Sums: each set writes one for every
output and it is read once again, by the next set or on its way out. Partial sums of an output tile that is left before
its last C tile go to the buffer, as in `cooptim.mapping.traffic`.

Transposed layers run over input positions and count as the sub-pixel convolutions they equal, their taps one after the
other. Tests run the array cycle by cycle and compare all counts and the product.
"""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

from cooptim.hardware.machine import Machine
from cooptim.mapping.tilings import pieces
from cooptim.workload import Layer


@dataclasses.dataclass(frozen=True)
class SystolicShape:
    """What the counts need of a systolic array beside rows and columns; static and hashable."""

    taps_on_rows: bool
    overlapped: bool
    accumulators: int


def systolic_shape(machine: Machine) -> SystolicShape | None:
    """The static part of a machine's systolic array; None where outputs stay in the array."""
    s = machine.datapath.systolic
    return None if s is None else SystolicShape(s.taps_on_rows, s.overlapped, s.accumulators)


def channel_quantum(layer: Layer, rows: int, shape: SystolicShape) -> int:
    """Input channels whose products fill the rows as far as whole channels can; tiles are multiples of it."""
    return max(1, rows // _beside(layer, shape))


def _beside(layer: Layer, shape: SystolicShape) -> int:
    """Products of an input channel that lie on rows at a time."""
    return layer.bounds.FY * layer.bounds.FX if shape.taps_on_rows and not layer.transposed else 1


def weight_sets(layer: Layer, channels: int, rows: int, shape: SystolicShape) -> int:
    """Sets of weights that follow each other to add up so many input channels."""
    beside = _beside(layer, shape)
    return (layer.bounds.FY * layer.bounds.FX // beside) * -(-channels * beside // rows)


@functools.lru_cache(maxsize=65536)
def _stream(layer: Layer, tile: tuple[int, int], lanes: int, least: int, accumulators: int) -> tuple[int, int, int]:
    """(blocks, cycles that a set streams in all of them, cycles of the last) over the spatial tiles of a layer.

    Args:
      tile: (OY, OX). least: cycles that every block takes.
    """
    blocks = cycles = last = 0
    for height, many_high in pieces(layer.bounds.OY, tile[0]):
        for width, many_wide in pieces(layer.bounds.OX, tile[1]):
            for pixels, many in pieces(height * width, accumulators):
                last = -(-pixels // lanes)
                blocks += many * many_high * many_wide
                cycles += max(last, least) * many * many_high * many_wide
    return blocks, cycles, last


def systolic_columns(
    layer: Layer, array: tuple[int, int], lanes: int, shape: SystolicShape, tiles: Int[np.ndarray, "row 4"]
) -> dict[str, Float[np.ndarray, "row"]]:
    """cycles, sram_w, sram_i and sums (accesses to accumulators) of each row of tiles (K, C, OY, OX) in one mode.

    Args:
      array: (rows, columns).
    """
    b, (rows, cols) = layer.bounds, array
    executions, products, pixels = b.B * b.G * layer.repeat, b.C * b.FY * b.FX, b.OY * b.OX
    column_sets = _over_tiles(b.K, tiles[:, 0], lambda size: -(-size // cols))
    row_sets = _over_tiles(b.C, tiles[:, 1], lambda size: weight_sets(layer, size, rows, shape))
    pairs, which = np.unique(tiles[:, 2:], axis=0, return_inverse=True)
    least = rows if shape.overlapped else 0
    found = [_stream(layer, (int(y), int(x)), lanes, least, shape.accumulators) for y, x in pairs]
    blocks, streamed, last = np.array(found, dtype=np.float64)[which.reshape(-1)].T
    drained = 2 * rows + cols - 2
    if shape.overlapped:
        cycles = executions * column_sets * row_sets * streamed
        cycles = cycles + layer.repeat * (drained - np.maximum(rows - last, 0.0))
    else:
        cycles = executions * column_sets * row_sets * (streamed + blocks * drained)
    return {
        "cycles": cycles,
        "sram_w": executions * b.K * products * blocks,
        "sram_i": executions * column_sets * products * pixels / lanes,
        "sums": 2.0 * executions * b.K * row_sets * pixels,
    }


def _over_tiles(bound: int, tiles: Int[np.ndarray, "row"], of: Callable[[int], int]) -> Float[np.ndarray, "row"]:
    """Sum of `of` (tile size) over the tiles of a bound, for each tile size."""
    sizes, which = np.unique(tiles, return_inverse=True)
    sums = [sum(of(size) * many for size, many in pieces(bound, int(tile))) for tile in sizes]
    return np.array(sums, dtype=np.float64)[which.reshape(-1)]
