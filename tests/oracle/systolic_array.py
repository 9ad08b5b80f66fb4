"""Slow oracle: a weight-stationary systolic array run cycle by cycle on whole numbers.

Every MAC is a few registers that know their neighbours only: a pixel comes from the left, sums and weights from above.
Nothing here knows how many cycles a set of weights takes; the array runs until it is empty. Shares no code with the
package.
"""

import dataclasses
import itertools
from fractions import Fraction

import numpy as np


@dataclasses.dataclass
class Counts:
    """What the array has done so far."""

    cycles: int = 0
    weights: int = 0  # read from the buffer
    pixels: int = 0
    sums: int = 0  # accumulators written or read
    spilled: int = 0  # sums written to the buffer or read back


class Array:
    """rows x cols MACs; registers hold (set, ...) tuples or None."""

    def __init__(self, rows, cols, lanes, overlapped):
        self.rows, self.cols, self.lanes, self.overlapped = rows, cols, lanes, overlapped

    def run(self, sets, counts):
        """Sums [pixel, column] of each (weights [row, column], pixels [pixel, row]), which follow each other."""
        rows, cols, lanes = self.rows, self.cols, self.lanes
        grid = list(itertools.product(range(rows), range(cols)))
        pixel, total, passing, next_weight, weight = (dict.fromkeys(grid) for _ in range(5))
        feeds, loads = {}, {}  # what enters at (cycle, row) and at (cycle, column)
        outputs = [np.zeros((len(x), w.shape[1]), int) for w, x in sets]
        loaded = started = cycle = busy_until = 0
        while True:
            moving = [regs[i, j] for regs in (pixel, passing) for i, j in grid if j < cols - 1 or regs is passing]
            empty = not (any(moving) or any(total.values()) or feeds or loads)
            if empty and started == len(sets):
                break
            # The controller loads a set when the one before starts, or when the array is empty; it starts a set when
            # the first MAC has its weight and the pixels before have entered.
            if loaded == started < len(sets) and (empty if not self.overlapped else loaded == 0):
                self._load(loads, sets[loaded][0], loaded, cycle, counts)
                loaded += 1
            ready = next_weight[0, 0] is not None and next_weight[0, 0][0] == started
            if started < loaded and ready and cycle >= busy_until:
                busy_until = cycle + self._feed(feeds, sets[started][1], started, cycle, counts)
                started += 1
                if self.overlapped and loaded < len(sets):
                    self._load(loads, sets[loaded][0], loaded, cycle, counts)
                    loaded += 1
            came = {}
            for i, j in grid:
                x = feeds.pop((cycle, i), None) if j == 0 else pixel[i, j - 1]
                w = loads.pop((cycle, j), None) if i == 0 else passing[i - 1, j]
                came[i, j] = x, total[i - 1, j] if i else None, w
            for (i, j), (x, y, w) in came.items():
                if x is not None:
                    number, step, values, first = x
                    if first:
                        weight[i, j] = next_weight[i, j]
                    assert weight[i, j][:2] == (number, i), "a pixel meets the weight of another set"
                    assert i == 0 or y[:2] == (number, step), "a pixel meets the sum of another"
                    above = y[2] if i else np.zeros(lanes, int)
                    y = (number, step, above + weight[i, j][2] * values)
                pixel[i, j], total[i, j] = x, y if x is not None else None
                mine = w is not None and w[1] == i
                passing[i, j] = None if mine else w
                if mine:
                    next_weight[i, j] = w
            for j in range(cols):
                if total[rows - 1, j] is None:
                    continue
                number, step, values = total[rows - 1, j]
                kept = outputs[number][step * lanes : (step + 1) * lanes]
                if j < kept.shape[1]:
                    kept[:, j] = values[: len(kept)]
                total[rows - 1, j] = None  # it is in the accumulators now
            cycle += 1
        counts.cycles += cycle
        return outputs

    def _load(self, loads, weights, number, cycle, counts):
        """The word of the last row goes first; each column starts a cycle after the one on its left."""
        for m, j in itertools.product(range(self.rows), range(self.cols)):
            i = self.rows - 1 - m
            held = i < weights.shape[0] and j < weights.shape[1]
            counts.weights += held
            loads[cycle + m + j, j] = (number, i, int(weights[i, j]) if held else 0)

    def _feed(self, feeds, pixels, number, cycle, counts):
        """Pixels enter row i so many cycles later than row 0; returns the cycles that row 0 is busy."""
        steps = -(-len(pixels) // self.lanes)
        counts.pixels += pixels.size
        for step, i in itertools.product(range(steps), range(self.rows)):
            some = pixels[step * self.lanes : (step + 1) * self.lanes]
            values = np.zeros(self.lanes, int)
            if i < pixels.shape[1]:
                values[: len(some)] = some[:, i]
            feeds[cycle + step + i, i] = (number, step, values, step == 0)
        return steps


def _pieces(bound, tile):
    return [range(start, min(start + tile, bound)) for start in range(0, bound, tile)]


@dataclasses.dataclass(frozen=True)
class Conv:
    """One layer with its tiles, loop order over them and array; as `loop_nest.Nest`."""

    B: int
    G: int
    K: int
    C: int
    OY: int
    OX: int
    FY: int
    FX: int
    stride: tuple[int, int]
    dilation: tuple[int, int]
    transposed: bool
    tile: tuple[int, int, int, int]  # of K, C, OY, OX
    order: tuple[str, ...]

    def data(self, seed):
        """(inputs [B, G, C, y, x] with padding, weights [G, K, C, FY, FX])."""
        rng = np.random.default_rng(seed)
        size = [(n - 1) * s + (f - 1) * d + 1 for n, s, f, d in
                zip((self.OY, self.OX), self.stride, (self.FY, self.FX), self.dilation, strict=True)]  # fmt: skip
        size = [self.OY, self.OX] if self.transposed else size
        weights = rng.integers(-4, 5, (self.G, self.K, self.C, self.FY, self.FX))
        return rng.integers(-4, 5, (self.B, self.G, self.C, *size)), weights

    def place(self, y, x, fy, fx):
        """(input position, output position) of a pixel of the loops at a tap."""
        if self.transposed:
            return (y, x), (y * self.stride[0] + fy, x * self.stride[1] + fx)
        return (y * self.stride[0] + fy * self.dilation[0], x * self.stride[1] + fx * self.dilation[1]), (y, x)

    def output_size(self):
        return (
            ((self.OY - 1) * self.stride[0] + self.FY, (self.OX - 1) * self.stride[1] + self.FX)
            if self.transposed
            else (self.OY, self.OX)
        )


def expected(conv, inputs, weights):
    """The convolution by its definition."""
    out = np.zeros((conv.B, conv.G, conv.K, *conv.output_size()), int)
    loops = itertools.product(range(conv.OY), range(conv.OX), range(conv.FY), range(conv.FX))
    for y, x, fy, fx in loops:
        (iy, ix), (oy, ox) = conv.place(y, x, fy, fx)
        out[:, :, :, oy, ox] += np.einsum("bgc,gkc->bgk", inputs[:, :, :, iy, ix], weights[:, :, :, fy, fx])
    return out


def run(conv, rows, cols, lanes, overlapped, taps_on_rows, accumulators, seed=0):
    """(outputs, Counts) of one execution of the layer."""
    inputs, weights = conv.data(seed)
    counts, work = Counts(), []  # of each set: weights, pixels, where its sums belong
    loops = dict(zip(("K", "C", "OY", "OX"), map(_pieces, (conv.K, conv.C, conv.OY, conv.OX), conv.tile), strict=True))
    for b, g in itertools.product(range(conv.B), range(conv.G)):
        for chosen in itertools.product(*(loops[name] for name in conv.order)):
            at = dict(zip(conv.order, chosen, strict=True))
            work += _tile_sets(conv, inputs[b, g], weights[g], at, (b, g), (rows, cols), taps_on_rows, accumulators)
            pixels = len(at["K"]) * len(at["OY"]) * len(at["OX"])
            counts.spilled += pixels * ((at["C"][0] != 0) + (at["C"][-1] != conv.C - 1))
    sums = Array(rows, cols, lanes, overlapped).run([one[:2] for one in work], counts)
    out = np.zeros((conv.B, conv.G, conv.K, *conv.output_size()), int)
    for (_, _, places), found in zip(work, sums, strict=True):
        counts.sums += 2 * found.size  # written, and read once again
        assert len(found) <= accumulators
        for (p, k), place in places.items():
            out[place] += found[p, k]
    return out, counts


def _tile_sets(conv, inputs, weights, at, image, array, taps_on_rows, accumulators):
    """Sets of one tile, in order: column sets, blocks of pixels, then what adds up."""
    rows, cols = array
    taps = list(itertools.product(range(conv.FY), range(conv.FX)))
    together = [taps] if taps_on_rows and not conv.transposed else [[tap] for tap in taps]
    pixels = list(itertools.product(at["OY"], at["OX"]))
    for ks in _pieces(len(at["K"]), cols):
        channels = [at["K"][k] for k in ks]
        for start in range(0, len(pixels), accumulators):
            block = pixels[start : start + accumulators]
            for some in together:
                products = [(c, *tap) for c in at["C"] for tap in some]
                for first in range(0, len(products), rows):
                    chunk = products[first : first + rows]
                    w = np.array([[weights[k, c, fy, fx] for k in channels] for c, fy, fx in chunk])
                    x = np.array([
                        [inputs[(c, *conv.place(*p, fy, fx)[0])] for c, fy, fx in chunk] for p in block
                    ])  # fmt: skip
                    spot = {
                        (n, k): (*image, channel, *conv.place(*p, *some[0])[1])
                        for (n, p), (k, channel) in itertools.product(enumerate(block), enumerate(channels))
                    }
                    yield w, x, spot


def words(counts, lanes, accumulator_words: Fraction):
    """Counts in the words of the package's table."""
    return {
        "cycles": counts.cycles, "sram_w": counts.weights, "sram_i": Fraction(counts.pixels, lanes),
        "sums": counts.sums, "sram_psum": counts.spilled * accumulator_words,
    }  # fmt: skip
