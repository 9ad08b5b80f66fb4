"""Row-stationary mappings: a filter row and an input row meet in one element; what a layer then moves, in words.

A set of FY x e elements convolves e output rows: filter rows run along its rows, input rows along its diagonals,
partial sums up its columns. r sets hold other channels and add up, t sets hold other filters; each element interleaves
q channels of p filters. So much is done in one pass, for n images one after the other. Passes follow in the order
filters within m, channels, images, strips of e output rows, groups of m filters: inputs of n images wait in the buffer
for all passes of m filters, partial sums of m filters for all channels.

Source: Chen, Krishna, Emer, Sze, Eyeriss, IEEE JSSC 52(1) 2017, secs. IV-A and V, whose letters these are. Not stated
there and assumed: zeros of the padding are held and read like other words; a layer's groups run one by one; as the
configuration is static within a layer, every pass has all its filters, channels and images, and only the last strip
may be shorter.
"""

import dataclasses
from typing import Protocol

import numpy as np
from jaxtyping import Bool, Int

from cooptim.hardware.row_array import RowArray
from cooptim.workload import Layer

Whole = int | np.integer | Int[np.ndarray, "*n"]


@dataclasses.dataclass(frozen=True)
class RowMapping:
    """One mapping, or arrays of them in every field but e.

    Attributes:
      m: filters whose partial sums the buffer holds. n: images of a pass. e: output rows of a pass.
      p: filters, q: channels that an element interleaves. r: sets of other channels, t: sets of other filters.
    """

    m: Whole
    n: Whole
    e: int
    p: Whole
    q: Whole
    r: Whole
    t: Whole

    def __str__(self) -> str:
        return " ".join(f"{field.name}{getattr(self, field.name)}" for field in dataclasses.fields(self))


@dataclasses.dataclass(frozen=True)
class RowCounts:
    """What the whole batch of a layer takes under a mapping, all groups together; words unless said otherwise.

    Attributes:
      active: elements that a full pass keeps busy. passes: processing passes.
      cycles: of all passes, each as long as its MACs or the bus that moves most.
      buffer_inputs: read by the array. buffer_psums: read and written by it; the first sum of an output reads a bias.
      buffer_filters: read by the array, from a buffer of their own.
      array_words: received by elements, inputs and filters from the network and sums from below.
      pad_words: read and written in the scratch pads by the MACs: an input, a filter word, and a sum twice, but for
        the first product of a row.
      link_inputs, link_outputs, link_filters: over the off-chip link, before any code.
    """

    active: Whole
    passes: Whole
    cycles: Whole
    buffer_inputs: Whole
    buffer_psums: Whole
    buffer_filters: Whole
    array_words: Whole
    pad_words: Whole
    link_inputs: Whole
    link_outputs: Whole
    link_filters: Whole

    @property
    def buffer_words(self) -> Whole:
        """Inputs and partial sums between the buffer and the array."""
        return self.buffer_inputs + self.buffer_psums

    @property
    def link_words(self) -> Whole:
        """All words over the link."""
        return self.link_inputs + self.link_outputs + self.link_filters


class AccessCounts(Protocol):
    """Words that a layer moves under any dataflow, by where; as in `RowCounts`."""

    @property
    def pad_words(self) -> Whole:
        """In the registers of the elements."""

    @property
    def array_words(self) -> Whole:
        """Received by elements."""

    @property
    def buffer_words(self) -> Whole:
        """Inputs and sums between buffer and array."""

    @property
    def buffer_filters(self) -> Whole:
        """Weights from the buffer."""

    @property
    def link_words(self) -> Whole:
        """Over the link."""


@dataclasses.dataclass(frozen=True)
class AccessCosts:
    """Energy of one access over that of a MAC.

    Source: Chen, Emer, Sze, ISCA 2016, eqs. 3 and 4, sec. VI-C: each access at each level at a fixed cost, the mapping
    the one of least sum; the costs as in stanford-mast/nn_dataflow (nn_dataflow_search.py).
    """

    mac: float = 1.0
    pad: float = 1.0
    array: float = 2.0
    buffer: float = 6.0
    link: float = 200.0

    def energy(self, counts: AccessCounts, macs: float) -> float | np.ndarray:
        """Energy of a layer over that of a MAC, every word at its full width and none coded."""
        buffer = counts.buffer_words + counts.buffer_filters
        chip = self.mac * macs + self.pad * counts.pad_words + self.array * counts.array_words + self.buffer * buffer
        return chip + self.link * counts.link_words


OBJECTIVES = ("energy", "cycles", "edp")


def require_mappable(layer: Layer, array: RowArray) -> None:
    """Raises ValueError for a layer that no row-stationary mapping covers, with what is legal."""
    b = layer.bounds
    if layer.kind == "matmul" or layer.transposed or layer.dilation != (1, 1) or b.B * layer.repeat > 1:
        found = f"{layer.kind}, transposed {layer.transposed}, dilation {layer.dilation}, {b.B * layer.repeat} runs"
        raise ValueError(f"{layer.name}: {found}; a row-stationary mapping takes one run of a plain convolution")
    if b.FY > array.rows or b.FX > min(array.input_words, array.filter_words):
        legal = f"{array.rows} rows and {min(array.input_words, array.filter_words)} columns at most"
        raise ValueError(f"{layer.name}: a filter of {b.FY} x {b.FX}; legal: {legal}; split the filter")
    if layer.stride[0] > b.FY or layer.stride[1] > b.FX:
        found = f"strides {layer.stride} skip rows or columns of the input of a filter of {b.FY} x {b.FX}"
        raise ValueError(f"{layer.name}: {found}; legal: strides up to the filter; leave out what is skipped first")


def sets_that_fit(filter_rows: int, e: int, array: RowArray) -> int:
    """Sets of filter_rows x e elements that the array holds at once; a set wider than the array lies in segments.

    Full segments take a band of `filter_rows` rows each; what is left of the sets shares bands side by side.
    """
    bands, (full, rest) = array.rows // filter_rows, divmod(e, array.cols)
    if not rest:
        return bands // full
    sets, beside = 0, array.cols // rest
    while full * (sets + 1) + -(-(sets + 1) // beside) <= bands:
        sets += 1
    return sets


def broken_rules(layer: Layer, batch: int, mapping: RowMapping, array: RowArray) -> dict[str, Bool[np.ndarray, "..."]]:
    """Of each rule of a legal mapping, by what it asks for, whether the mapping breaks it."""
    b, g = layer.bounds, mapping
    rows, cols = window(layer, g.e)
    banks = _banks(g.n * g.q * g.r * rows * cols, array) + _banks(g.n * g.m * g.e * b.OX, array)
    holds = {
        f"p q FX <= {array.filter_words} words of filters in a pad": g.p * g.q * b.FX <= array.filter_words,
        f"q FX <= {array.input_words} words of inputs in a pad": g.q * b.FX <= array.input_words,
        f"p <= {array.psum_words} sums in a pad": g.p <= array.psum_words,
        f"filters of a pass <= {array.filter_bank_words} words": (
            g.p * g.t * g.q * g.r * b.FY * b.FX <= array.filter_bank_words
        ),
        f"inputs and sums in {array.banks} banks": banks <= array.banks,
        "m a divisor of K, p t of m": (b.K % g.m == 0) & (g.m % (g.p * g.t) == 0),
        "q r a divisor of C": b.C % (g.q * g.r) == 0,
        "n a divisor of the batch": batch % g.n == 0,
        "e <= OY": g.e <= b.OY,
        f"at most {array.diagonals} input rows on the diagonals": (
            g.e - 1 + -(-b.FY // layer.stride[0]) <= array.diagonals
        ),
        f"r t sets in {array.rows} x {array.cols} elements": g.r * g.t <= sets_that_fit(b.FY, g.e, array),
    }
    return {rule: np.asarray(np.logical_not(held)) for rule, held in holds.items()}


def row_counts(layer: Layer, batch: int, mapping: RowMapping, array: RowArray) -> RowCounts:
    """Passes, cycles and words of a layer's batch under one mapping, exact.

    Raises ValueError for a layer that no mapping covers, and names the rules that a mapping breaks.
    """
    require_mappable(layer, array)
    broken = [rule for rule, found in broken_rules(layer, batch, mapping, array).items() if np.any(found)]
    if broken:
        raise ValueError(f"{layer.name}: mapping {mapping}; legal: {'; '.join(broken)}")
    return _counts(layer, batch, mapping, array)


def best_row_mapping(
    layer: Layer, batch: int, array: RowArray, objective: str = "energy", costs: AccessCosts | None = None
) -> RowMapping:
    """The best of all legal mappings of a layer; every one is priced, but m is the largest that the buffer holds.

    Larger m only saves fetches of inputs.

    Args:
      objective: 'energy' (of `costs`; ties go to fewer cycles), 'cycles' (ties to less energy) or 'edp', their product.
      costs: default 1, 1, 2, 6, 200.

    Raises ValueError for a layer that no mapping covers, and for another objective.
    """
    if objective not in OBJECTIVES:
        raise ValueError(f"{layer.name}: objective '{objective}'; legal: {', '.join(OBJECTIVES)}")
    require_mappable(layer, array)
    costs = AccessCosts() if costs is None else costs
    best: tuple[tuple[float, float], RowMapping] | None = None
    for e in range(1, layer.bounds.OY + 1):
        options = _options(layer, batch, e, array)
        if options is None:
            continue
        counts = _counts(layer, batch, options, array)
        energy, cycles = np.asarray(costs.energy(counts, float(layer.macs * batch))), np.asarray(counts.cycles, float)
        keys = {"energy": (energy, cycles), "cycles": (cycles, energy), "edp": (energy * cycles, cycles)}[objective]
        i = int(np.lexsort(keys[::-1])[0])
        key = (float(keys[0][i]), float(keys[1][i]))
        if best is None or key < best[0]:
            best = key, RowMapping(e=e, **{name: int(getattr(options, name)[i]) for name in "mnpqrt"})
    if best is None:
        raise ValueError(f"{layer.name}: nothing fits, not even one output row; give the buffer more than its banks")
    return best[1]


def _options(layer: Layer, batch: int, e: int, array: RowArray) -> RowMapping | None:
    """All legal mappings of strips of e rows, m the largest; None where there is none."""
    b, sets = layer.bounds, sets_that_fit(layer.bounds.FY, e, array)
    beside = [(r, t) for r in range(1, min(sets, b.C) + 1) for t in range(1, min(sets // r, b.K) + 1)]
    if not beside:
        return None
    filters, channels, images = divisors(b.K), divisors(b.C), divisors(batch)
    grid = np.meshgrid(
        np.arange(len(beside)), filters[filters <= array.psum_words], channels[channels <= array.input_words], images
    )
    at, p, q, n = (axis.ravel() for axis in grid)
    r, t = (np.array(column)[at] for column in zip(*beside, strict=True))
    rows, cols = window(layer, e)
    free = array.banks - _banks(n * q * r * rows * cols, array)
    held = np.maximum(free, 0) * array.bank_words // (n * e * b.OX)
    m = np.max(np.where((filters <= held[:, None]) & (filters % (p * t)[:, None] == 0), filters, 0), axis=1)
    fields = {"m": m, "n": n, "p": p, "q": q, "r": r, "t": t}
    some = RowMapping(e=e, **{name: values[m > 0] for name, values in fields.items()})
    legal = ~np.any(np.broadcast_arrays(*broken_rules(layer, batch, some, array).values()), axis=0)
    if not np.any(legal):
        return None
    return RowMapping(e=e, **{name: getattr(some, name)[legal] for name in fields})


def _counts(layer: Layer, batch: int, mapping: RowMapping, array: RowArray) -> RowCounts:
    """Counts of legal mappings.

    Every input of a pass is read from the buffer once and multicast; sums enter and leave the array once a pass;
    filters come over the link for every n images and e rows, inputs for every m filters with the rows that strips
    share, outputs once.
    """
    b, g = layer.bounds, mapping
    strips, images = -(-b.OY // g.e), batch // g.n
    filter_passes, channel_passes = b.K // (g.p * g.t), b.C // (g.q * g.r)
    cols = window(layer, g.e)[1]
    outputs = b.G * batch * b.K * b.OY * b.OX
    filters = b.G * b.K * b.C * b.FY * b.FX * images
    channel_rows = b.G * batch * b.C * cols  # times rows: words of the padded input
    strip_rows = layer.stride[0] * (b.OY - strips) + strips * b.FY
    chains = b.FY * (b.C // g.q)  # elements that one sum passes, in all passes
    arrived = channel_rows * b.FY * b.OY * (b.K // g.p) + filters * b.OY + outputs * (chains - channel_passes)
    return RowCounts(
        active=b.FY * g.e * g.r * g.t,
        passes=b.G * strips * images * filter_passes * channel_passes,
        cycles=b.G * filter_passes * channel_passes * images * _pass_cycles(layer, mapping, array),
        buffer_inputs=channel_rows * strip_rows * filter_passes,
        buffer_psums=2 * outputs * channel_passes,
        buffer_filters=filters * strips,
        array_words=arrived,
        pad_words=4 * layer.macs * batch - 2 * outputs * chains,
        link_inputs=b.G * batch * b.C * rows_with_halo(layer, g.e) * layer.input_extent(1) * (b.K // g.m),
        link_outputs=outputs,
        link_filters=filters * strips,
    )


def _pass_cycles(layer: Layer, mapping: RowMapping, array: RowArray) -> Whole:
    """Cycles of one pass of each strip: its MACs, or the words of the busiest bus between buffer and array."""
    b, g = layer.bounds, mapping
    macs = g.n * b.OX * b.FX * g.p * g.q
    filters = -(-g.p * g.t * g.q * g.r * b.FY * b.FX // array.filter_bus)
    full = -(-b.OY // g.e) - 1
    total: Whole = 0
    for rows, count in ((g.e, full), (b.OY - full * g.e, 1)):
        down, across = window(layer, rows)
        inputs = -(-g.n * g.q * g.r * down * across // array.input_bus)
        psums = -(-g.n * g.p * g.t * rows * b.OX // array.psum_bus)
        total = total + count * np.maximum(np.maximum(macs, inputs), np.maximum(psums, filters))
    return total


def _banks(words: Whole, array: RowArray) -> Whole:
    return -(-words // array.bank_words)


def divisors(bound: int) -> Int[np.ndarray, "n"]:
    """Whole numbers that divide a bound, rising."""
    return np.array([n for n in range(1, bound + 1) if bound % n == 0])


def window(layer: Layer, e: int) -> tuple[int, int]:
    """Rows and columns of the padded input behind e output rows."""
    b, (down, across) = layer.bounds, layer.stride
    return down * (e - 1) + b.FY, across * (b.OX - 1) + b.FX


def rows_with_halo(layer: Layer, e: int) -> int:
    """Rows of the unpadded input that strips of e output rows fetch, shared ones for each strip."""
    b, extent, above = layer.bounds, layer.input_extent(0), max(0, layer.padding[0][0])
    found = 0
    for first in range(0, b.OY, e):
        last = min(first + e, b.OY) - 1
        low, high = first * layer.stride[0] - above, last * layer.stride[0] + b.FY - above
        found += max(0, min(high, extent) - max(low, 0))
    return found
