"""Row-stationary mappings against a walk of every pass, against all mappings, and against what JSSC 2017 states."""

import dataclasses
import itertools
import random

import pytest

from cooptim.hardware.circuit_file import GatedArrayFile, load_circuit_file
from cooptim.mapping.row_stationary import (
    AccessCosts,
    RowMapping,
    best_row_mapping,
    broken_rules,
    row_counts,
    sets_that_fit,
)
from cooptim.workload import Layer, zoo
from cooptim.workload.dims import Bounds
from tests.oracle import row_walk

FILE = load_circuit_file("eyeriss")
assert isinstance(FILE, GatedArrayFile)
EYERISS = FILE.row_array
COUNTS = ("passes", "cycles", "buffer_inputs", "buffer_psums", "buffer_filters", "array_words", "pad_words",
          "link_inputs", "link_outputs", "link_filters", "active")  # fmt: skip


def divisors(bound):
    return [n for n in range(1, bound + 1) if bound % n == 0]


def conv(rng):
    """A small convolution as a layer and as the oracle's; its input is as large as its windows reach."""
    fy, fx = rng.randint(1, 3), rng.randint(1, 3)
    stride = (rng.randint(1, fy), rng.randint(1, fx))
    out = (rng.randint(1, 6), rng.randint(1, 5))
    reach = tuple((o - 1) * s + f for o, s, f in zip(out, stride, (fy, fx), strict=True))
    pads = tuple(
        tuple(rng.randint(0, min(1, size - 1, r - 1)) for _ in "ab") for size, r in zip((fy, fx), reach, strict=True)
    )
    size = tuple(r - sum(pad) for r, pad in zip(reach, pads, strict=True))
    if min(size) < 1:
        return conv(rng)
    groups, k, c = rng.choice((1, 1, 2)), rng.choice((1, 2, 4, 6)), rng.choice((1, 2, 3, 4))
    layer = Layer("layer", "conv", Bounds(1, groups, k, c, *out, fy, fx), stride, padding=pads)
    batch = rng.choice((1, 2, 4))
    top_left = (pads[0][0], pads[1][0])
    return layer, row_walk.Conv(groups, k, c, *out, fy, fx, stride, top_left, *size, batch)


def mapping(rng, layer, batch):
    m, n, qr = (rng.choice(divisors(bound)) for bound in (layer.bounds.K, batch, layer.bounds.C))
    pt = rng.choice(divisors(m))
    t, r = rng.choice(divisors(pt)), rng.choice(divisors(qr))
    return RowMapping(m, n, rng.randint(1, layer.bounds.OY), pt // t, qr // r, r, t)


def walked(case, g, array):
    return row_walk.walk(case, g.m, g.n, g.e, g.p, g.q, g.r, g.t, (array.filter_bus, array.input_bus, array.psum_bus))


def test_counts_are_those_of_a_walk_over_every_pass_and_element():
    rng = random.Random(0)
    seen = {"ragged strip": 0, "halo": 0, "padding": 0, "stride": 0, "groups": 0, "bus": 0}
    for _ in range(150):
        layer, case = conv(rng)
        g = mapping(rng, layer, case.batch)
        buses = {"filter_bus": rng.randint(1, 4), "input_bus": rng.randint(1, 3), "psum_bus": rng.randint(1, 4)}
        array = dataclasses.replace(EYERISS, rows=40, cols=40, banks=1000, **buses)
        want, counts = walked(case, g, array), row_counts(layer, case.batch, g, array)
        assert want["macs"] == layer.macs * case.batch
        assert {name: int(getattr(counts, name)) for name in COUNTS} == {name: want[name] for name in COUNTS}, g
        seen["ragged strip"] += case.out_rows % g.e > 0
        seen["halo"] += case.out_rows > g.e and case.filter_rows > case.stride[0]
        seen["padding"] += any(case.pad)
        seen["stride"] += max(case.stride) > 1
        seen["groups"] += case.groups > 1
        seen["bus"] += want["cycles"] * case.filter_rows * g.r * g.t * g.e > want["macs"]
    assert min(seen.values()) > 20, seen


def legal(case, g, array):
    """The rules of a legal mapping, said again."""
    rows = case.stride[0] * (g.e - 1) + case.filter_rows
    cols = case.stride[1] * (case.out_cols - 1) + case.filter_cols
    banks = sum(
        -(-words // array.bank_words) for words in (g.n * g.q * g.r * rows * cols, g.n * g.m * g.e * case.out_cols)
    )
    return (
        g.p * g.q * case.filter_cols <= array.filter_words
        and g.q * case.filter_cols <= array.input_words
        and g.p <= array.psum_words
        and g.p * g.q * g.r * g.t * case.filter_rows * case.filter_cols <= array.filter_bank_words
        and banks <= array.banks
        and g.e - 1 + -(-case.filter_rows // case.stride[0]) <= array.diagonals
        and row_walk.placed(g.r * g.t, array.rows, array.cols, case.filter_rows, g.e)
    )


@pytest.mark.parametrize("objective", ["energy", "cycles", "edp"])
def test_the_search_finds_the_best_of_all_mappings(objective):
    rng, costs, tight = random.Random(objective), AccessCosts(), 0
    for _ in range(12):
        layer, case = conv(rng)
        array = dataclasses.replace(
            EYERISS, rows=6, cols=4, filter_words=9, input_words=6, psum_words=3, banks=6, bank_words=12, diagonals=5,
            filter_bank_words=40, filter_bus=2, psum_bus=2,
        )  # fmt: skip
        prices, all_of_them = [], 0
        for m, n, e in itertools.product(divisors(case.filters), divisors(case.batch), range(1, case.out_rows + 1)):
            for pt, qr in itertools.product(divisors(m), divisors(case.channels)):
                for t, r in itertools.product(divisors(pt), divisors(qr)):
                    g = RowMapping(m, n, e, pt // t, qr // r, r, t)
                    all_of_them += 1
                    if legal(case, g, array):
                        counts = walked(case, g, array)
                        words = {1: "pad_words", 2: "array_words", 6: "buffer_inputs buffer_psums buffer_filters",
                                 200: "link_inputs link_outputs link_filters"}  # fmt: skip
                        energy = counts["macs"] + sum(
                            cost * counts[x] for cost, names in words.items() for x in names.split()
                        )
                        value = {"energy": (energy, counts["cycles"]), "cycles": (counts["cycles"], energy)}
                        prices.append(value.get(objective, (energy * counts["cycles"],)))
        tight += len(prices) < all_of_them
        if not prices:
            with pytest.raises(ValueError, match="nothing fits"):
                best_row_mapping(layer, case.batch, array, objective)
            continue
        best = best_row_mapping(layer, case.batch, array, objective)
        counts = row_counts(layer, case.batch, best, array)
        energy, cycles = costs.energy(counts, layer.macs * case.batch), counts.cycles
        value = {"energy": (energy, cycles), "cycles": (cycles, energy), "edp": (energy * cycles,)}[objective]
        assert value == min(prices), best
    assert tight > 6


@pytest.mark.parametrize(
    ("rows", "e", "sets"),
    [(11, 7, 2), (5, 27, 1), (3, 13, 4), (3, 14, 4), (3, 7, 8), (3, 28, 2), (12, 14, 1), (3, 15, 3), (7, 28, 0)],
)
def test_sets_find_their_place_in_12_by_14(rows, e, sets):
    # As JSSC 2017 describes AlexNet's layers: two sets of 11x7, one of 5x27 in two segments, four of 3x13.
    assert sets_that_fit(rows, e, EYERISS) == sets
    assert row_walk.placed(sets, 12, 14, rows, e) and not row_walk.placed(sets + 1, 12, 14, rows, e)


def test_the_layer_of_the_papers_figure_takes_eight_passes_and_reads_each_filter_word_twice():
    # JSSC 2017, Fig. 7: 6 channels in passes of 3, 8 filters in passes of 4 of which the buffer holds 8, 4 images by 2.
    layer = Layer("figure", "conv", Bounds(1, 1, 8, 6, 3, 3, 3, 3))
    counts = row_counts(layer, 4, RowMapping(m=8, n=2, e=3, p=4, q=3, r=1, t=1), EYERISS)
    assert counts.passes == 8 and counts.active == 9
    assert counts.link_filters == 2 * layer.weight_words and counts.link_inputs == 4 * layer.input_words
    assert counts.buffer_inputs == 2 * 4 * layer.input_words  # two groups of filters
    assert counts.buffer_psums == 2 * 2 * 4 * layer.output_words  # two of channels, in and out


def test_a_mapping_that_breaks_rules_is_refused_with_each_of_them():
    net = zoo.network("alexnet")
    layer = net.layers[net.index("conv3")]
    good = RowMapping(m=64, n=4, e=13, p=16, q=4, r=1, t=4)
    assert not any(broken_rules(layer, 4, good, EYERISS).values())
    for change, rule in (
        ({"q": 8}, "q FX <= 12 words of inputs"),
        ({"q": 4, "p": 32, "t": 2}, "p <= 24 sums"),
        ({"t": 8, "p": 8}, "r t sets in 12 x 14"),
        ({"m": 96}, "p t of m"),
        ({"m": 384}, "inputs and sums in 25 banks"),
        ({"n": 3}, "n a divisor of the batch"),
        ({"q": 3}, "q r a divisor of C"),
    ):
        with pytest.raises(ValueError, match=f"conv3: mapping .*legal: .*{rule}"):
            row_counts(layer, 4, dataclasses.replace(good, **change), EYERISS)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (Layer("l", "conv", Bounds(FY=13, FX=3)), "l: a filter of 13 x 3; legal: 12 rows and 12 columns at most"),
        (Layer("l", "conv", Bounds(OY=4, OX=4), stride=(2, 2)), r"l: strides \(2, 2\) skip"),
        (Layer("l", "conv", Bounds(FY=3, FX=3), dilation=(2, 2)), "l: conv, .*dilation.*one run of a plain"),
    ],
)
def test_a_layer_without_a_row_stationary_mapping_is_refused(layer, message):
    with pytest.raises(ValueError, match=message):
        best_row_mapping(layer, 1, EYERISS)


def test_an_unknown_objective_and_a_buffer_too_small_are_refused():
    layer = Layer("l", "conv", Bounds(OY=4, OX=4, FY=3, FX=3))
    with pytest.raises(ValueError, match="objective 'delay'; legal: energy, cycles, edp"):
        best_row_mapping(layer, 1, EYERISS, "delay")
    with pytest.raises(ValueError, match="nothing fits"):
        best_row_mapping(layer, 1, dataclasses.replace(EYERISS, banks=1))
