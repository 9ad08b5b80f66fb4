"""Counts of a systolic array against the array run cycle by cycle, and SCALE-Sim's formula."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cooptim.mapping import frontier, traffic
from cooptim.mapping.systolic import SystolicShape, systolic_columns
from cooptim.workload import Bounds, Layer
from tests.oracle import systolic_array

ORDERS = (("K", "C", "OY", "OX"), ("OY", "OX", "C", "K"), ("OY", "OX", "K", "C"))  # stationarity W, I, O


@st.composite
def cases(draw):
    size = lambda most: draw(st.integers(1, most))  # noqa: E731
    transposed = draw(st.integers(0, 4)) == 0
    bounds = Bounds(size(2), size(2), size(6), size(5), size(4), size(4), size(3), size(2))
    stride, dilation = (size(2), size(2)), (size(2), size(2))
    tiles = [size(n) for n in (bounds.K, bounds.C, bounds.OY, bounds.OX)]
    if transposed:
        stride, dilation, tiles[2:] = (min(stride[0], bounds.FY), min(stride[1], bounds.FX)), (1, 1), bounds[4:6]
    array = size(5), size(4)
    shape = SystolicShape(draw(st.booleans()), draw(st.booleans()), size(9))
    fields = ("l", "conv", bounds, stride, dilation, ((0, 0), (0, 0)), size(2))
    factors = [*tiles, draw(st.integers(0, 2))]
    return fields, transposed, factors, array, draw(st.sampled_from((1, 2, 4))), shape


@settings(max_examples=60, deadline=None, derandomize=True)
@given(cases())
def test_every_count_equals_the_stepped_array_which_computes_the_convolution(case):
    fields, transposed, factors, (rows, cols), lanes, shape = case
    layer = Layer(*fields, transposed=transposed)
    conv = systolic_array.Conv(
        **layer.bounds._asdict(), stride=layer.stride, dilation=layer.dilation, transposed=transposed,
        tile=tuple(factors[:4]), order=ORDERS[factors[4]],
    )  # fmt: skip
    out, counts = systolic_array.run(conv, rows, cols, lanes, shape.overlapped, shape.taps_on_rows, shape.accumulators)
    np.testing.assert_array_equal(out, systolic_array.expected(conv, *conv.data(0)))
    whole = traffic.ArrayShape(rows, cols, (lanes,), 16, 40, False, shape)
    table = traffic.columns(layer, whole, np.array([factors]))
    for name, value in systolic_array.words(counts, lanes, Fraction(40, 16)).items():
        if name == "sram_psum" and transposed:
            continue  # its outputs overlap: `test_traffic` has them
        assert table[name][0, 0] == value * layer.repeat, name


@pytest.mark.parametrize("pixels, products, outputs", [(100, 16, 8), (7, 40, 20), (1, 16, 9)])
def test_serial_cycles_are_those_of_scale_sim(pixels, products, outputs):
    # (2 R + N + S - 2) ceil(products / R) ceil(outputs / N) for 16 x 8 MACs
    layer = Layer("l", "dense", Bounds(K=outputs, C=products, OX=pixels))
    found = systolic_columns(
        layer, (16, 8), 1, SystolicShape(True, False, 1000), np.array([[outputs, products, 1, pixels]])
    )
    assert found["cycles"][0] == (2 * 16 + 8 + pixels - 2) * -(-products // 16) * -(-outputs // 8)


def test_overlapped_cycles_by_hand():
    # 16 x 8 MACs; 40 products in 3 sets, 20 outputs in 3; blocks of 64 and 36 pixels, at 2 lanes 32 and 18 cycles
    layer = Layer("l", "dense", Bounds(K=20, C=40, OX=100))
    found = systolic_columns(layer, (16, 8), 2, SystolicShape(True, True, 64), np.array([[20, 40, 1, 100]]))
    assert found["cycles"][0] == 16 + 9 * (32 + 18) + (16 + 8 - 2)
    assert found["sram_w"][0] == 2 * 800 and found["sram_i"][0] == 3 * 40 * 50 and found["sums"][0] == 2 * 3 * 2000
    # blocks of 10 pixels stream for 5 cycles while weights shift in for 16; the last one hides nothing
    short = systolic_columns(layer, (16, 8), 2, SystolicShape(True, True, 10), np.array([[20, 40, 1, 100]]))
    assert short["cycles"][0] == 16 + (9 * 10 - 1) * 16 + 5 + (16 + 8 - 2)


def test_taps_on_rows_fill_an_array_that_few_channels_leave_empty():
    layer = Layer("l", "conv", Bounds(K=8, C=3, OY=10, OX=10, FY=3, FX=3))
    folded, alone = (
        systolic_columns(layer, (32, 8), 1, SystolicShape(on_rows, True, 1000), np.array([[8, 3, 10, 10]]))
        for on_rows in (True, False)
    )
    assert folded["cycles"][0] == 100 + 2 * 32 + 8 - 2 and alone["cycles"][0] == 9 * 100 + 2 * 32 + 8 - 2
    assert folded["sums"][0] * 9 == alone["sums"][0]  # each tap's sums go through the accumulators
    assert folded["sram_w"][0] == alone["sram_w"][0] == 216


@pytest.mark.parametrize("on_rows, channels", [(True, {64, 33, 18, 9, 6, 3}), (False, {64, 32})])
def test_tiles_fill_rows_and_columns(on_rows, channels):
    # of 32 rows 9 taps of 3 channels fill 27: multiples of three, 22 of them, halved; without taps 32 channels fill all
    layer = Layer("l", "conv", Bounds(K=40, C=64, FY=3, FX=3))
    shape = traffic.ArrayShape(32, 8, (1,), 8, 32, False, SystolicShape(on_rows, True, 64))
    rows = frontier.candidates(layer, shape)
    assert {int(k) for k in rows[:, 0]} == {40, 24, 16, 8} and {int(c) for c in rows[:, 1]} == channels


def test_the_frontier_weighs_sums_in_accumulators():
    layer = Layer("l", "conv", Bounds(K=16, C=24, OY=6, OX=6, FY=3, FX=3), padding=((1, 1), (1, 1)))
    shape = traffic.ArrayShape(16, 8, (1,), 8, 32, False, SystolicShape(True, True, 64))
    rows = frontier.candidates(layer, shape)
    every = traffic.columns(layer, shape, rows)
    kept, _ = frontier._layer_table(layer, shape, frontier.TILE_SIZES)
    assert kept["sums"].min() == every["sums"].min() and len(kept["sums"]) < len(rows)
    rng = np.random.default_rng(0)
    names = [name for name in frontier.CRITERIA if name in every]
    for _ in range(20):
        price = {name: rng.exponential() ** 3 / (every[name].mean() + 1) for name in names}
        cost = [sum(price[n] * t[n].reshape(len(t[n]), -1)[:, 0] for n in names) for t in (every, kept)]
        assert cost[1].min() == pytest.approx(cost[0].min(), rel=1e-12)


def test_a_machine_without_accumulators_has_no_such_column():
    layer = Layer("l", "dense", Bounds(K=4, C=4))
    plain = traffic.columns(layer, traffic.ArrayShape(2, 2, (1,), 8, 32, False), np.array([[4, 4, 1, 1, 0]]))
    assert "sums" not in plain
