"""Words of the rivals of row stationary against a walk through their loops, and the search against all mappings."""

import dataclasses
import itertools

import numpy as np
import pytest

from cooptim.mapping.row_stationary import AccessCosts
from cooptim.mapping.stationary import DATAFLOWS, PlainArray, PlainMapping, best_plain_energy, plain_counts
from cooptim.workload import INPUT, Bounds, Layer

ARRAY = PlainArray(24, 150)
PLAIN = Layer("plain", "conv", Bounds(K=4, C=2, OY=5, OX=3, FY=3, FX=2), padding=((1, 1), (0, 1)), inputs=(INPUT,))
STRIDED = dataclasses.replace(
    PLAIN, name="strided", stride=(2, 2), bounds=Bounds(G=2, K=2, C=2, OY=3, OX=2, FY=3, FX=2)
)


def walk(layer, batch, g, dataflow, order):
    """Counts of one mapping by walking tiles and passes; an operand's tile comes in when it is another than before."""
    b, (sy, sx) = layer.bounds, layer.stride
    loops = {
        "X": list(itertools.product(range(0, batch, g.n), range(0, b.OY, g.e))),
        "K": list(range(0, b.K, g.k)),
        "C": list(range(0, b.C, g.c)),
    }
    found = dict.fromkeys(("pad_words", "array_words", "buffer_words", "buffer_filters", "link_words"), 0)
    held, known = {}, set()
    for tile in itertools.product(*(loops[name] for name in order)):
        at = dict(zip(order, tile, strict=True))
        (_, top), k, c = at["X"], at["K"], at["C"]
        rows = min(g.e, b.OY - top)
        real = range(max(0, top * sy - layer.padding[0][0]),
                     min(layer.input_extent(0), (top + rows - 1) * sy + b.FY - layer.padding[0][0]))  # fmt: skip
        new = {name: held.get(name) != key for name, key in (("W", (k, c)), ("I", (at["X"], c)), ("O", (at["X"], k)))}
        held = {"W": (k, c), "I": (at["X"], c), "O": (at["X"], k)}
        found["link_words"] += new["W"] * g.k * g.c * b.FY * b.FX
        found["link_words"] += new["I"] * g.n * g.c * len(real) * layer.input_extent(1)
        found["link_words"] += new["O"] * g.n * g.k * rows * b.OX * (2 if held["O"] in known else 1)
        known.add(held["O"])
        wide = sx * (b.OX - 1) + b.FX
        macs = g.n * g.k * g.c * rows * b.OX * b.FY * b.FX
        pixels = g.n * rows * b.OX
        for _ in range(0, g.k, g.filters):
            if dataflow == "weight":
                for _ in range(0, g.c, g.channels):
                    weights = g.filters * g.channels * b.FY * b.FX
                    found["buffer_filters"] += weights
                    found["buffer_words"] += g.n * g.channels * (sy * (rows - 1) + b.FY) * wide
                    found["buffer_words"] += 2 * pixels * g.filters  # a sum comes in and goes back
                    found["pad_words"] += weights * pixels
                    hops = g.channels * b.FY * b.FX - 1
                    found["array_words"] += weights + weights * pixels + pixels * g.filters * hops
            elif dataflow == "none":
                for _ in range(0, g.c, g.channels):
                    steps = pixels * b.FY * b.FX
                    found["buffer_filters"] += steps * g.filters * g.channels
                    found["buffer_words"] += steps * (g.channels + 2 * g.filters)
                    found["array_words"] += steps * g.filters * (2 * g.channels + g.channels - 1)
            else:
                for y, x in itertools.product(range(0, rows, g.down), range(0, b.OX, g.across)):
                    down, across = min(g.down, rows - y), min(g.across, b.OX - x)
                    seen = (sy * (down - 1) + b.FY) * (sx * (across - 1) + b.FX)
                    found["buffer_words"] += g.n * (b.C * seen + 2 * g.filters * down * across)
                    found["buffer_filters"] += g.n * g.filters * b.C * b.FY * b.FX
                    sums = g.n * g.filters * down * across
                    found["pad_words"] += 2 * sums * (b.C * b.FY * b.FX - 1)
        if dataflow.startswith("output"):
            found["array_words"] += 2 * macs
    return {name: b.G * value for name, value in found.items()}


CASES = [
    (PLAIN, "weight", PlainMapping(1, 2, 1, 2, 2, 1, 1, 1)), (PLAIN, "weight", PlainMapping(2, 4, 2, 5, 2, 2, 1, 1)),
    (STRIDED, "weight", PlainMapping(2, 1, 2, 2, 1, 1, 1, 1)), (PLAIN, "none", PlainMapping(1, 4, 2, 3, 4, 2, 1, 1)),
    (STRIDED, "none", PlainMapping(2, 2, 1, 1, 1, 1, 1, 1)), (PLAIN, "output", PlainMapping(1, 4, 2, 3, 2, 1, 2, 2)),
    (STRIDED, "output", PlainMapping(2, 2, 2, 2, 1, 1, 2, 2)),
    (PLAIN, "output of one filter", PlainMapping(1, 2, 2, 5, 1, 1, 5, 3)),
    (PLAIN, "output of one pixel", PlainMapping(2, 4, 2, 2, 4, 1, 1, 1)),
]  # fmt: skip


@pytest.mark.parametrize(("layer", "dataflow", "mapping"), CASES)
@pytest.mark.parametrize("order", ["XKC", "CKX", "KCX", "XCK"])
def test_words_are_those_of_a_walk_through_the_loops(layer, dataflow, mapping, order):
    found = plain_counts(layer, 2, mapping, dataflow, order)
    assert {name: int(value) for name, value in vars(found).items()} == walk(layer, 2, mapping, dataflow, order)


def all_mappings(layer, batch, dataflow):
    """Every mapping whose tile fits, the least that any order of loops makes of it."""
    b, one = layer.bounds, 0 if dataflow == "none" else ARRAY.units
    for n, k, e in itertools.product((1, 2), range(1, b.K + 1), range(1, b.OY + 1)):
        for c, filters, channels in itertools.product(range(1, b.C + 1), range(1, k + 1), range(1, b.C + 1)):
            for down, across in itertools.product(range(1, e + 1), range(1, b.OX + 1)):
                output = dataflow.startswith("output")
                used = filters * channels * down * across * (b.FY * b.FX if dataflow == "weight" else 1)
                free = {"output": True, "output of one filter": filters == 1, "output of one pixel": down * across == 1}
                legal = free.get(dataflow, down * across == 1) and used <= ARRAY.units and b.K % k == 0 == b.C % c
                legal = legal and k % filters == 0 == c % channels and (not output or (c == b.C and channels == 1))
                room = n * c * (layer.stride[0] * (e - 1) + b.FY) * (layer.stride[1] * (b.OX - 1) + b.FX)
                room += k * c * b.FY * b.FX + (0 if output else n * k * e * b.OX)
                if legal and room <= ARRAY.words - one:
                    yield PlainMapping(n, k, c, e, filters, channels, down, across)


@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_no_mapping_takes_less_than_the_one_found(dataflow):
    found, mapping = best_plain_energy(STRIDED, 2, ARRAY, dataflow)
    costs, macs = AccessCosts(), STRIDED.macs * 2
    every = {
        one: min(costs.energy(plain_counts(STRIDED, 2, one, dataflow, "".join(order)), macs)
                 for order in itertools.permutations("XKC"))
        for one in all_mappings(STRIDED, 2, dataflow)
    }  # fmt: skip
    assert found == min(every.values()) and every[mapping] == found
    assert isinstance(found, float) and np.isfinite(found)


def test_what_no_dataflow_takes_is_refused():
    with pytest.raises(ValueError, match="plain: dataflow 'row'; legal: weight, output, .* none"):
        best_plain_energy(PLAIN, 2, ARRAY, "row")
    with pytest.raises(ValueError, match="plain: conv, transposed False, dilation .2, 1.; a dataflow takes one run"):
        best_plain_energy(dataclasses.replace(PLAIN, dilation=(2, 1)), 2, ARRAY, "weight")
    with pytest.raises(ValueError, match="plain, weight stationary: no tile fits 30 words; give more storage"):
        best_plain_energy(PLAIN, 2, PlainArray(24, 30), "weight")
