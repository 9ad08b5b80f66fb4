"""Words moved by a two-level tiling (buffer, DRAM) of one layer, and the cycles of the MAC array: one closed form.

Loop nest, outermost first: repeat, B, G, then the tile loops over K, C, OY, OX in the order of the stationarity; inside
a tile, in the buffer, one image and one group with tK x tC x tOY x tOX and all of FY x FX. Tiles need not divide: a
bound N in tiles of t has ceil(N/t) tiles and the last one is smaller; sums over the tiles are exact.

| stationarity | tile loops, outermost first | what stays |
|---|---|---|
| W | K C OY OX | the weight tile, while the pixels run |
| I | OY OX C K | the input tile, while the output channels run |
| O | OY OX K C | the output tile, while the input channels run: no partial sum leaves the chip |

With OY and OX kept together, every other order moves the same words as one of these three (a test tries all).

DRAM. An operand tile is fetched when its index differs from that of the step before; hence each pass over the relevant
loops moves the operand once, times the irrelevant loops outside the innermost relevant loop that turns at all. An input
tile is the set of input positions it touches (stride, dilation, gaps), clipped to the unpadded input; neighbouring
tiles fetch their common halo twice. The unpadded input is the smallest that the loops can see: Layer keeps no size, so
a last row that the stride skips is not counted. Outputs are written once. When an output tile is left before its last
C tile, its partial sums go to DRAM and come back; the first visit reads nothing, so (visits - 1) x outputs are written
and as many read.

Buffer, array side (the other side follows from the DRAM words). The array is output-stationary (a weight-stationary
systolic one: `cooptim.mapping.systolic`): it unrolls K over `rows` and a run of pixels of the tile, row by row, over
cols x lanes; the accumulators of one such pass stay in the array over tC, FY, FX. Padding positions are read like
others.
- weights: one word per used K lane and cycle; inputs: per pass, channel and filter row the distinct positions that the
  pass touches in each image row if lanes shift inputs along FX, else FX a pixel; `lanes` of them share a word.
- outputs: once, `lanes` to a word. Partial sums: once per C tile beyond the first the array writes them and reads them
  back at accumulator width, unpacked: accumulator_bits / word_bits words each, whether they sit in the buffer or go on
  to DRAM. The tile's accumulators are then held in the buffer (`tile_psum`).

Transposed layers run over input positions; they are not tiled in space, an input pixel stays in its lane over a row of
taps, and they count as the sub-pixel convolutions they equal, whose outputs accumulate in the array like any other's.

Source: the closed form of the reuse over irrelevant loops and of windowed input tiles is the common one of loop-nest
cost models (Timeloop, ISPASS 2019; ZigZag, IEEE TC 2021); first-read elision as in Timeloop.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np
from jaxtyping import Array, Float, Int

from cooptim.hardware.machine import Machine
from cooptim.mapping.systolic import SystolicShape, channel_quantum, systolic_columns, systolic_shape
from cooptim.mapping.tilings import pieces
from cooptim.workload import RELEVANT, Layer

ORDERS: tuple[tuple[str, ...], ...] = (  # tile loops of stationarity W, I, O; outermost first
    ("B", "G", "K", "C", "OY", "OX"),
    ("B", "G", "OY", "OX", "C", "K"),
    ("B", "G", "OY", "OX", "K", "C"),
)
TILED: tuple[str, ...] = ("K", "C", "OY", "OX")


@dataclasses.dataclass(frozen=True)
class ArrayShape:
    """What the counts need of a machine; static and hashable, so tables can be cached on it."""

    rows: int
    cols: int
    lanes: tuple[int, ...]  # of each mode
    word_bits: int
    accumulator_bits: int
    input_shift: bool
    systolic: SystolicShape | None = None


def array_shape(machine: Machine) -> ArrayShape:
    """The static part of a machine that fixes its counts; its leaves may be traced."""
    path, buffer = machine.datapath, machine.buffer
    lanes = tuple(mode.lanes for mode in path.modes)
    words = buffer.word_bits, path.accumulator_bits
    return ArrayShape(path.rows, path.cols, lanes, *words, buffer.input_shift, systolic_shape(machine))


def quanta(layer: Layer, shape: ArrayShape) -> tuple[int, int]:
    """(output channels, input channels) that fill the array; tiles of others leave a part of it empty."""
    if shape.systolic is None:
        return shape.rows, 1
    return shape.cols, channel_quantum(layer, shape.rows, shape.systolic)


def relevant_loops(layer: Layer, operand: str) -> tuple[str, ...]:
    """Loops that move this operand's tile; a 'matmul' has other weights for every image."""
    return (*RELEVANT["W"], "B") if operand == "W" and layer.kind == "matmul" else RELEVANT[operand]


def visits(counts: Mapping[str, Any], order: Sequence[str], relevant: Sequence[str], xp: ModuleType = np) -> Any:
    """How often each tile of an operand is brought in: irrelevant loops outside the innermost relevant one that turns.

    Args:
      counts: tiles per dim (numbers or arrays that broadcast, real when relaxed); order: loops, outermost first.
      xp: numpy or jax.numpy, whichever holds the counts.
    """
    moved: Any = False
    times: Any = 1
    for dim in reversed(order):
        if dim in relevant:
            moved = moved | (xp.asarray(counts[dim]) > 1)
        else:
            times = times * xp.where(moved, counts[dim], 1)
    return times


def dram_words(
    layer: Layer, counts: Mapping[str, Any], input_positions: Any, stationarity: int, xp: ModuleType = np
) -> dict[str, Any]:
    """DRAM words of one inference: dram_w, dram_i, dram_o and dram_psum, exact on integers, differentiable on reals.

    Args:
      counts: tiles of K, C, OY, OX; input_positions: positions of one channel summed over the spatial tiles.
      stationarity: 0 = W, 1 = I, 2 = O.
    """
    bounds, order = layer.bounds, ORDERS[stationarity]
    counts = {**counts, "B": bounds.B, "G": bounds.G}
    times = {o: visits(counts, order, relevant_loops(layer, o), xp) for o in "WIO"}
    outputs = layer.output_words * layer.repeat
    return {
        "dram_w": layer.weight_words * layer.repeat * times["W"],
        "dram_i": bounds.B * bounds.G * bounds.C * layer.repeat * input_positions * times["I"],
        "dram_o": outputs + 0 * times["O"],
        "dram_psum": outputs * (times["O"] - 1),
    }


def touched(outputs: Any, taps: int, stride: int, dilation: int, xp: ModuleType = np) -> Any:
    """Distinct positions that `outputs` neighbouring outputs touch along one axis, padding included.

    Of outputs x taps accesses, those repeat that (output + dilation/g, tap - stride/g) names too, g = gcd.
    """
    g = math.gcd(stride, dilation)
    return outputs * taps - xp.maximum(0, outputs - dilation // g) * max(0, taps - stride // g)


@functools.lru_cache(maxsize=4096)
def axis_positions(
    outputs: int, taps: int, stride: int, dilation: int, padding: tuple[int, int], tile: int
) -> tuple[int, int]:
    """(sum, largest) over the tiles of one axis of the distinct input positions touched, padding not counted."""
    low = max(0, padding[0])
    high = (outputs - 1) * stride + (taps - 1) * dilation + 1 - max(0, padding[1])
    output = np.arange(outputs)[:, None]
    position = output * stride + np.arange(taps)[None, :] * dilation
    inside = (position >= low) & (position < high)
    span = int(position[-1, -1]) + 1
    keys = np.unique(((output // tile) * span + position)[inside])
    per_tile = np.bincount(keys // span, minlength=1)
    return int(per_tile.sum()), int(per_tile.max())


@functools.lru_cache(maxsize=65536)
def _passes(rows: int, cols: int, pixels: int, taps: int, stride: int, dilation: int, shift: bool) -> tuple[int, int]:
    """(passes, input positions read for one row of taps) of a rows x cols tile at `pixels` a pass."""
    total = rows * cols
    passes = -(-total // pixels)
    if not shift:
        return passes, total * taps
    cuts = np.union1d(np.arange(0, total, cols), np.arange(0, total, pixels))
    runs = np.diff(np.append(cuts, total))
    return passes, int(touched(runs, taps, stride, dilation).sum())


def _spatial_sums(layer: Layer, tile: tuple[int, int], pixels: int, shift: bool) -> tuple[int, int]:
    """(passes, input positions of a row of taps) summed over the spatial tiles of one channel."""
    b = layer.bounds
    stride, dilation = (1, 1) if layer.transposed else (layer.stride[1], layer.dilation[1])
    taps = 1 if layer.transposed and shift else b.FX
    passes = positions = 0
    for rows, many_rows in pieces(b.OY, tile[0]):
        for cols, many_cols in pieces(b.OX, tile[1]):
            p, w = _passes(rows, cols, pixels, taps, stride, dilation, shift)
            passes += p * many_rows * many_cols
            positions += w * many_rows * many_cols
    return passes, positions


def _array_columns(
    layer: Layer, shape: ArrayShape, tiles: Int[np.ndarray, "row 4"], counts: Mapping[str, np.ndarray]
) -> dict[str, Float[np.ndarray, "row mode"]]:
    """cycles and sram_*, and sums of a systolic array: the array side, per mode."""
    outputs = layer.output_words * layer.repeat
    psum_words = 2.0 * (counts["C"] - 1) * outputs * shape.accumulator_bits / shape.word_bits
    found: list[dict[str, np.ndarray]] = []
    for lanes in shape.lanes:
        if shape.systolic is None:
            here = _passes_columns(layer, shape, lanes, tiles)
        else:
            here = systolic_columns(layer, (shape.rows, shape.cols), lanes, shape.systolic, tiles)
        found.append({**here, "sram_o": np.full(len(tiles), outputs / lanes), "sram_psum": psum_words})
    return {name: np.stack([here[name] for here in found], axis=1) for name in found[0]}


def _passes_columns(
    layer: Layer, shape: ArrayShape, lanes: int, tiles: Int[np.ndarray, "row 4"]
) -> dict[str, Float[np.ndarray, "row"]]:
    """cycles, sram_w and sram_i of an output-stationary array in one mode."""
    b, executions = layer.bounds, layer.bounds.B * layer.bounds.G * layer.repeat
    steps = np.array([sum(-(-t // shape.rows) * n for t, n in pieces(b.K, int(k))) for k in tiles[:, 0]])
    pairs, which = np.unique(tiles[:, 2:], axis=0, return_inverse=True)
    sums = [_spatial_sums(layer, (int(y), int(x)), shape.cols * lanes, shape.input_shift) for y, x in pairs]
    passes, positions = np.array(sums, dtype=np.float64)[which.reshape(-1)].T
    return {
        "cycles": executions * steps * b.C * b.FY * b.FX * passes,
        "sram_w": executions * b.K * b.C * b.FY * b.FX * passes,
        "sram_i": executions * steps * b.C * b.FY * positions / lanes,
    }


def columns(
    layer: Layer, shape: ArrayShape, factors: Int[np.ndarray, "row 5"]
) -> dict[str, Float[np.ndarray, "row"] | Float[np.ndarray, "row mode"]]:
    """Every column of `Tilings` for these rows of one layer, exact (float64 of integers or of quotients by words).

    Args:
      factors: tile sizes (K, C, OY, OX) and stationarity, as in `Tilings.factors`.

    Raises ValueError when a tile is outside 1..bound or a transposed layer is tiled in space.
    """
    b = layer.bounds
    tiles, stationarity = factors[:, :4].astype(np.int64), factors[:, 4]
    require_legal_factors(layer, factors)
    counts = {dim: -(-getattr(b, dim) // tiles[:, i]) for i, dim in enumerate(TILED)}
    sums, largest = _input_columns(layer, tiles)
    by_order = [dram_words(layer, {d: c.astype(np.float64) for d, c in counts.items()}, sums, s) for s in range(3)]
    dram = {name: np.choose(stationarity, [words[name] for words in by_order]) for name in by_order[0]}
    tile_o = tiles[:, 0] * tiles[:, 2] * tiles[:, 3]
    if layer.transposed:
        tile_o = tiles[:, 0] * (layer.output_words // (b.B * b.G * b.K))
    tile = {
        "tile_w": tiles[:, 0] * tiles[:, 1] * b.FY * b.FX,
        "tile_i": tiles[:, 1] * largest,
        "tile_o": tile_o,
        "tile_psum": np.where(counts["C"] > 1, tile_o, 0),
    }
    table = {**dram, **tile, **_array_columns(layer, shape, tiles, counts)}
    return {name: np.asarray(column, dtype=np.float64) for name, column in table.items()}


def _input_columns(
    layer: Layer, tiles: Int[np.ndarray, "row 4"]
) -> tuple[Float[np.ndarray, "row"], Float[np.ndarray, "row"]]:
    """Input positions of one channel (summed over the spatial tiles, of the largest tile)."""
    b = layer.bounds
    if layer.transposed:
        whole = np.full(len(tiles), float(b.OY * b.OX))
        return whole, whole
    sums, largest = np.ones(len(tiles)), np.ones(len(tiles))
    for axis, (outputs, taps) in enumerate(((b.OY, b.FY), (b.OX, b.FX))):
        geometry = (outputs, taps, layer.stride[axis], layer.dilation[axis], layer.padding[axis])
        found = np.array([axis_positions(*geometry, int(t)) for t in tiles[:, 2 + axis]], dtype=np.float64)
        sums, largest = sums * found[:, 0], largest * found[:, 1]
    return sums, largest


def require_legal_factors(layer: Layer, factors: Int[np.ndarray, "row 5"]) -> None:
    """Raises ValueError unless every row is a tiling of this layer."""
    bounds = [getattr(layer.bounds, dim) for dim in TILED]
    bad = np.any((factors[:, :4] < 1) | (factors[:, :4] > bounds), axis=1) | ~np.isin(factors[:, 4], (0, 1, 2))
    if layer.transposed:
        bad |= np.any(factors[:, 2:4] != bounds[2:], axis=1)
    if bad.any():
        row = factors[int(np.argmax(bad))].tolist()
        space = "; a transposed layer is not tiled in space: tOY = OY, tOX = OX" if layer.transposed else ""
        raise ValueError(
            f"{layer.name}: {row} is no tiling (tK, tC, tOY, tOX, stationarity); legal are tiles of 1 to "
            f"{bounds} and stationarity 0 (W), 1 (I) or 2 (O){space}; take a row of the layer's table"
        )


def relaxed_columns(
    layer: Layer, tiles: Float[Array, "4"] | Float[np.ndarray, "4"], stationarity: int, xp: ModuleType = np
) -> dict[str, Any]:
    """DRAM words and tile sizes as functions of real tile sizes (K, C, OY, OX): the seam for continuous tilings.

    Equal to `columns` where tiles divide their bounds, dilation is 1 and no stride exceeds its filter; between such
    points smooth but for kinks where a tile reaches its bound, where a halo ends in the padding, and at gaps.
    """
    b = layer.bounds
    counts = {dim: getattr(b, dim) / tiles[i] for i, dim in enumerate(TILED)}
    sums: Any = 1.0
    largest: Any = 1.0
    for axis, (outputs, taps) in enumerate(((b.OY, b.FY), (b.OX, b.FX))):
        if layer.transposed:
            sums, largest = sums * outputs, largest * outputs
            continue
        stride, tile, count = layer.stride[axis], tiles[2 + axis], counts[TILED[2 + axis]]
        window = touched(tile, taps, stride, layer.dilation[axis], xp)
        lost: Any = 0.0  # padding that the first, second, ... tile from either end reaches
        for pad in layer.padding[axis]:
            for j in range(-(-max(0, pad) // stride)):
                lost = lost + xp.clip(count - j, 0.0, 1.0) * xp.maximum(0.0, pad - j * tile * stride)
        inner = xp.minimum(window, layer.input_extent(axis))
        sums, largest = sums * (count * window - lost), largest * inner
    outputs_held = tiles[0] * (layer.output_words // (b.B * b.G * b.K) if layer.transposed else tiles[2] * tiles[3])
    return {
        **dram_words(layer, counts, sums, stationarity, xp),
        "tile_w": tiles[0] * tiles[1] * b.FY * b.FX,
        "tile_i": tiles[1] * largest,
        "tile_o": outputs_held,
        "tile_psum": xp.where(counts["C"] > 1, outputs_held, 0.0),
    }
