"""Weight stationary, output stationary and no local reuse on a plain array: what a layer then moves, in words.

Rivals of the row-stationary dataflow with as many elements and as much storage: what they do not need as registers
is buffer. Tiles of n images, k filters, c channels and e output rows come into the buffer in any order of their loops.

- Weight stationary: each element keeps one weight; all taps of a filter lie side by side, for `filters` x `channels`
  of a tile. Inputs are broadcast; sums run through taps and channels and wait in the buffer.
- Output stationary: each element keeps one sum until it is complete, `down` x `across` pixels of `filters`; weights
  are broadcast to pixels, inputs to filters and along the window. Of one filter, of one pixel, or of both.
- No local reuse: `filters` x `channels` elements without a register; each weight comes from the buffer for each MAC.

Source: the taxonomy and the counts of an access at each level of Chen, Emer, Sze, ISCA 2016, secs. IV and VI-C. Not
stated there and assumed: the least energy over tiles and loop orders, no double buffering, zeros of the padding are
read like other words.
"""

import dataclasses
import itertools

import numpy as np
from jaxtyping import Bool, Int

from cooptim.hardware.row_array import RowArray
from cooptim.mapping.row_stationary import AccessCosts, Whole, divisors, rows_with_halo, window
from cooptim.workload import Layer

DATAFLOWS = ("weight", "output", "output of one filter", "output of one pixel", "none")


@dataclasses.dataclass(frozen=True)
class PlainArray:
    """Elements, and the words of all storage on chip: registers of the elements and the buffer."""

    units: int
    words: int

    @classmethod
    def like(cls, array: RowArray) -> "PlainArray":
        """As many elements and words as a row-stationary array has."""
        pads = array.filter_words + array.input_words + array.psum_words
        units = array.rows * array.cols
        return cls(units, units * pads + array.banks * array.bank_words + array.filter_bank_words)


@dataclasses.dataclass(frozen=True)
class PlainMapping:
    """One mapping, or arrays of them in every field; see the module for the letters."""

    n: Whole
    k: Whole
    c: Whole
    e: Whole
    filters: Whole
    channels: Whole
    down: Whole
    across: Whole


@dataclasses.dataclass(frozen=True)
class PlainCounts:
    """What the whole batch of a layer moves, all groups together, in words; as in `row_stationary.RowCounts`.

    Attributes:
      pad_words: read and written in the registers of the elements. array_words: received by elements from the network
        or from a neighbour. buffer_words: inputs and sums between buffer and array; buffer_filters: weights.
      link_words: over the off-chip link, before any code.
    """

    pad_words: Whole
    array_words: Whole
    buffer_words: Whole
    buffer_filters: Whole
    link_words: Whole


def best_plain_energy(
    layer: Layer, batch: int, array: PlainArray, dataflow: str, costs: AccessCosts | None = None
) -> tuple[float, PlainMapping]:
    """(least energy over that of a MAC, its mapping) of a convolution under one of DATAFLOWS; every mapping is priced.

    The elements left by channels or pixels go to filters, which only saves reads.

    Raises ValueError for another dataflow, for a layer that is no plain convolution, and where nothing fits.
    """
    if dataflow not in DATAFLOWS:
        raise ValueError(f"{layer.name}: dataflow '{dataflow}'; legal: {', '.join(DATAFLOWS)}")
    if layer.kind == "matmul" or layer.transposed or layer.dilation != (1, 1) or layer.bounds.B * layer.repeat > 1:
        found = f"{layer.kind}, transposed {layer.transposed}, dilation {layer.dilation}"
        raise ValueError(f"{layer.name}: {found}; a dataflow takes one run of a plain convolution")
    costs = AccessCosts() if costs is None else costs
    options = _options(layer, batch, array, dataflow)
    fits = _held(layer, options, dataflow) <= array.words - (0 if dataflow == "none" else array.units)
    if not fits.any():
        raise ValueError(f"{layer.name}, {dataflow} stationary: no tile fits {array.words} words; give more storage")
    options = PlainMapping(**{name: value[fits] for name, value in vars(options).items()})
    best: tuple[float, PlainMapping] | None = None
    for order in itertools.permutations("XKC"):
        counts = plain_counts(layer, batch, options, dataflow, "".join(order))
        energy = np.asarray(costs.energy(counts, float(layer.macs * batch)), float)
        i = int(energy.argmin())
        if best is None or energy[i] < best[0]:
            best = float(energy[i]), PlainMapping(**{name: int(value[i]) for name, value in vars(options).items()})
    assert best is not None
    return best


def plain_counts(layer: Layer, batch: int, mapping: PlainMapping, dataflow: str, order: str) -> PlainCounts:
    """Words that a layer's batch moves under one mapping.

    Args:
      order: of the loops over tiles, from outside in: X pixels of all images, K filters, C channels.
    """
    b, g, macs = layer.bounds, mapping, layer.macs * batch
    taps = b.FY * b.FX
    weights, outputs = b.G * b.K * b.C * taps, b.G * batch * b.K * b.OY * b.OX
    strips = -(-b.OY // g.e)
    tiles = {"X": batch // g.n * strips, "K": b.K // g.k, "C": b.C // g.c}
    fetched = {name: _fetches(tiles, order, of) for name, of in (("W", "KC"), ("I", "XC"), ("O", "XK"))}
    halo = np.array([0, *(rows_with_halo(layer, e) for e in range(1, b.OY + 1))])[g.e]
    inputs = b.G * batch * b.C * halo * layer.input_extent(1)  # once a strip
    linked = (
        weights * fetched["W"] // (tiles["K"] * tiles["C"])
        + inputs * fetched["I"] // (tiles["X"] * tiles["C"])
        + outputs * (2 * fetched["O"] // (tiles["X"] * tiles["K"]) - 1)
    )
    groups = tiles["K"] * -(-g.k // g.filters)  # of filters that the array takes at once
    wide = window(layer, 1)[1]
    if dataflow == "weight":
        strip_rows = layer.stride[0] * (b.OY - strips) + strips * b.FY
        run = taps * g.channels  # MACs that a sum passes in the array
        return PlainCounts(
            pad_words=macs,
            array_words=macs + weights * tiles["X"] + macs - macs // run,
            buffer_words=b.G * batch * b.C * strip_rows * wide * groups + 2 * macs // run,
            buffer_filters=weights * tiles["X"],
            link_words=linked,
        )
    if dataflow == "none":
        return PlainCounts(
            pad_words=0,
            array_words=2 * macs + macs - macs // g.channels,
            buffer_words=macs // g.filters + 2 * macs // g.channels,
            buffer_filters=macs,
            link_words=linked,
        )
    last = b.OY - (strips - 1) * g.e
    high, broad = (strips - 1) * -(-g.e // g.down) + -(-last // g.down), -(-b.OX // g.across)  # regions of an image
    seen = (layer.stride[0] * (b.OY - high) + high * b.FY) * (layer.stride[1] * (b.OX - broad) + broad * b.FX)
    return PlainCounts(
        pad_words=2 * (macs - outputs),
        array_words=2 * macs,
        buffer_words=b.G * batch * b.C * seen * groups + 2 * outputs,
        buffer_filters=weights * batch * high * broad,
        link_words=linked,
    )


def _fetches(tiles: dict[str, Whole], order: str, relevant: str) -> Whole:
    """Times that a tile of an operand comes in: all loops, but the innermost ones that leave the tile as it is."""
    found: Whole = 1
    inside: Bool[np.ndarray, "*n"] | bool = False  # whether a loop further in changes the tile
    for loop in reversed(order):
        changes = (loop in relevant) & (np.asarray(tiles[loop]) > 1)
        inside = inside | changes
        found = found * np.where(inside, tiles[loop], 1)
    return found


def _held(layer: Layer, mapping: PlainMapping, dataflow: str) -> Int[np.ndarray, "n"]:
    """Words of a tile's inputs, weights and waiting sums; complete sums leave at once."""
    b, g = layer.bounds, mapping
    rows = layer.stride[0] * (g.e - 1) + b.FY
    inputs, weights = g.n * g.c * rows * window(layer, 1)[1], g.k * g.c * b.FY * b.FX
    sums = 0 if dataflow.startswith("output") else g.n * g.k * g.e * b.OX
    return np.asarray(inputs + weights + sums)


def _options(layer: Layer, batch: int, array: PlainArray, dataflow: str) -> PlainMapping:
    """Every tile and unrolling; the most filters that the elements left by the others hold."""
    b = layer.bounds
    strips = sorted({-(-b.OY // parts) for parts in range(1, b.OY + 1)})
    keeps_sums = dataflow.startswith("output")
    channels = [b.C] if keeps_sums else list(divisors(b.C))
    if keeps_sums and dataflow != "output of one pixel":
        sides = [sorted({-(-bound // parts) for parts in range(1, bound + 1)}) for bound in (b.OY, b.OX)]
        placed = [(1, down, across) for down in sides[0] for across in sides[1] if down * across <= array.units]
    elif keeps_sums:
        placed = [(1, 1, 1)]
    else:
        each = b.FY * b.FX if dataflow == "weight" else 1
        placed = [(c, 1, 1) for c in divisors(b.C) if c * each <= array.units]
    axes = np.meshgrid(divisors(batch), divisors(b.K), channels, strips, np.arange(len(placed)), indexing="ij")
    n, k, c, e, at = (axis.ravel() for axis in axes)
    side, down, across = (np.array(column)[at] for column in zip(*placed, strict=True))
    legal = (c % side == 0) & (down <= e)
    n, k, c, e, side, down, across = (x[legal] for x in (n, k, c, e, side, down, across))
    used = side * down * across * (b.FY * b.FX if dataflow == "weight" else 1)
    most = np.ones_like(used) if dataflow == "output of one filter" else array.units // used
    filters = np.max(np.where((k[:, None] % divisors(b.K) == 0) & (divisors(b.K) <= most[:, None]),
                              divisors(b.K), 0), axis=1)  # fmt: skip
    return PlainMapping(n, k, c, e, filters, side, down, across)
