"""Words moved and array cycles against the walked loop nest, hand arithmetic and Timeloop."""

import itertools
import json
import math
from fractions import Fraction

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cooptim.mapping import traffic
from cooptim.workload import Bounds, Layer
from tests.oracle import loop_nest

SHAPE = traffic.ArrayShape(rows=3, cols=2, lanes=(1, 2, 4), word_bits=16, accumulator_bits=40, input_shift=True)
ENVISION = traffic.ArrayShape(rows=16, cols=16, lanes=(1, 2, 4), word_bits=16, accumulator_bits=48, input_shift=True)
TILE_LOOPS = (("K", "C", "OY", "OX"), ("OY", "OX", "C", "K"), ("OY", "OX", "K", "C"))  # stationarity W, I, O


def nest_of(layer: Layer, factors, order=None) -> loop_nest.Nest:
    return loop_nest.Nest(
        **layer.bounds._asdict(),
        stride=layer.stride,
        dilation=layer.dilation,
        padding=layer.padding,
        weights_per_image=layer.kind == "matmul",
        transposed=layer.transposed,
        repeat=layer.repeat,
        tile=tuple(int(t) for t in factors[:4]),
        order=order or TILE_LOOPS[int(factors[4])],
    )


@st.composite
def small_layers(draw, transposed=False):
    """What `layer_of` takes: a Layer is built outside the strategy, for its type check draws random numbers."""
    size = lambda most: draw(st.integers(1, most))  # noqa: E731
    bounds = Bounds(size(2), size(2), size(7), size(4), size(6), size(6), size(3), size(3))
    stride = (size(3), size(3))
    dilation = (size(3), size(3))
    if transposed:  # Layer counts the outputs of gap-free scatters
        stride, dilation = (min(stride[0], bounds.FY), min(stride[1], bounds.FX)), (1, 1)
    pad = st.integers(-1, 3)
    padding = ((draw(pad), draw(pad)), (draw(pad), draw(pad)))
    kind = draw(st.sampled_from(["conv", "dense", "matmul"]))
    return ("l", kind, bounds, stride, dilation, padding, size(2)), transposed


@st.composite
def tiled_layers(draw, transposed=False):
    parts = draw(small_layers(transposed))
    b = parts[0][2]
    tiles = [draw(st.integers(1, n)) for n in (b.K, b.C, b.OY, b.OX)]
    if transposed:
        tiles[2:] = [b.OY, b.OX]
    return parts, np.array([[*tiles, draw(st.integers(0, 2))]])


def layer_of(parts) -> Layer:
    fields, transposed = parts
    return Layer(*fields, transposed=transposed)


def assert_counts_equal_the_walk(parts, factors, shift):
    layer = layer_of(parts)
    shape = traffic.ArrayShape(3, 2, (1, 2, 4), 16, 40, shift)
    table = traffic.columns(layer, shape, factors)
    nest = nest_of(layer, factors[0])
    walked = loop_nest.dram(nest)
    assert walked["psum_read"] == walked["dram_psum"]
    for name in ("dram_w", "dram_i", "dram_o", "dram_psum", "tile_w", "tile_i", "tile_o", "tile_psum"):
        assert table[name][0] == walked[name], name
    for mode, lanes in enumerate(shape.lanes):
        stepped = loop_nest.array(nest, 3, 2, lanes, shift, Fraction(40, 16))
        assert stepped["macs"] == layer.macs
        for name in ("cycles", "sram_w", "sram_i", "sram_o", "sram_psum"):
            assert table[name][0, mode] == stepped[name], (name, lanes)


@settings(max_examples=120, deadline=None, derandomize=True)
@given(tiled_layers(), st.booleans())
def test_every_count_equals_the_walked_loop_nest(case, shift):
    assert_counts_equal_the_walk(*case, shift)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(tiled_layers(transposed=True), st.booleans())
def test_transposed_counts_equal_the_walked_loop_nest(case, shift):
    assert_counts_equal_the_walk(*case, shift)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(tiled_layers())
def test_three_stationarities_cover_every_order_of_the_tile_loops(case):
    layer, factors = layer_of(case[0]), case[1]
    names = ("dram_w", "dram_i", "dram_psum")
    ours = [[loop_nest.dram(nest_of(layer, factors[0], order))[n] for n in names] for order in TILE_LOOPS]
    for loops in itertools.permutations(("K", "C", "S")):
        order = tuple(x for loop in loops for x in (("OY", "OX") if loop == "S" else (loop,)))
        other = [loop_nest.dram(nest_of(layer, factors[0], order))[n] for n in names]
        assert any(all(a <= b for a, b in zip(own, other, strict=True)) for own in ours), order


def digits_conv2() -> Layer:
    return Layer("conv2", "conv", Bounds(1, 1, 32, 16, 8, 8, 3, 3), padding=((1, 1), (1, 1)))


def test_untiled_digits_convolution_moves_each_word_once():
    table = traffic.columns(digits_conv2(), ENVISION, np.array([[32, 16, 8, 8, 2]]))
    assert (table["dram_w"], table["dram_i"], table["dram_o"], table["dram_psum"]) == (4608, 1024, 2048, 0)
    # 2 groups of 16 channels x 16 inputs x 9 taps x 4, 2, 1 runs of 16, 32, 64 pixels
    np.testing.assert_array_equal(table["cycles"], [[1152, 576, 288]])
    np.testing.assert_array_equal(table["sram_w"], [[18432, 9216, 4608]])
    # a run of 16 pixels is two image rows of 8, read as 8 + 2 for three taps: 2 x 16 x 3 x 4 x 20; N pixels a word
    np.testing.assert_array_equal(table["sram_i"], [[7680, 3840, 1920]])
    np.testing.assert_array_equal(table["sram_o"], [[2048, 1024, 512]])
    np.testing.assert_array_equal(table["sram_psum"], [[0, 0, 0]])


def test_tiled_digits_convolution_by_hand():
    # tiles of 16 K, 8 C, 4 rows; weight-stationary order K, C, OY
    table = traffic.columns(digits_conv2(), ENVISION, np.array([[16, 8, 4, 8, 0], [16, 8, 4, 8, 1], [16, 8, 4, 8, 2]]))
    np.testing.assert_array_equal(table["dram_w"], [4608, 2 * 4608, 2 * 4608])  # refetched by each of 2 row tiles
    # a tile of 4 rows reads 5 (one row of its halo is padding): 10 rows of 8 for 16 channels, per K tile
    np.testing.assert_array_equal(table["dram_i"], [2 * 1280, 1280, 2 * 1280])
    np.testing.assert_array_equal(table["dram_psum"], [2048, 2048, 0])
    np.testing.assert_array_equal(table["tile_psum"], [512, 512, 512])
    np.testing.assert_array_equal(table["sram_psum"][:, 0], [2 * 2048 * 3] * 3)  # 48-bit sums in 16-bit words


def test_envision_reference_layer_reads_six_input_words_a_cycle():
    layer = Layer("reference", "conv", Bounds(1, 1, 16, 32, 1, 16, 3, 3))
    table = traffic.columns(layer, ENVISION, np.array([[16, 32, 1, 16, 2]]))
    assert table["cycles"][0, 0] == 288
    assert table["sram_i"][0, 0] / 288 == 6  # (16 + 2) pixels for three taps
    assert table["sram_w"][0, 0] / 288 == 16


def test_a_pointwise_layer_at_stride_two_reads_a_quarter_of_the_input():
    layer = Layer("down", "conv", Bounds(1, 1, 4, 5, 7, 7, 1, 1), stride=(2, 2))
    table = traffic.columns(layer, ENVISION, np.array([[4, 5, 7, 7, 2]]))
    assert table["dram_i"] == 5 * 49


def test_counts_beyond_float32_are_exact():
    layer = Layer("big", "conv", Bounds(1, 1, 4097, 4099, 67, 71, 3, 3), padding=((1, 1), (1, 1)))
    table = traffic.columns(layer, ENVISION, np.array([[16, 1, 1, 1, 0]]))
    spread = lambda n: 3 * n - 2  # noqa: E731  rows read by n tiles of one row, clipped
    assert int(table["dram_i"][0]) == 257 * 4099 * spread(67) * spread(71)
    assert int(table["dram_psum"][0]) == 4098 * 4097 * 67 * 71
    assert int(table["cycles"][0, 2]) == 257 * 4099 * 9 * 67 * 71


def test_untiled_input_words_are_those_of_the_layer():
    for stride, taps in itertools.product((1, 2), (1, 3, 5)):
        bounds, pad = Bounds(1, 2, 3, 4, 9, 6, taps, taps), (taps // 2, taps // 2)
        layer = Layer("l", "conv", bounds, (stride, stride), padding=(pad, pad))
        table = traffic.columns(layer, ENVISION, np.array([[3, 4, 9, 6, 2]]))
        assert table["dram_i"] == layer.input_words


@pytest.mark.parametrize("row", [[17, 1, 1, 1, 0], [1, 0, 1, 1, 0], [1, 1, 1, 1, 3]])
def test_illegal_factors_are_refused_by_name(row):
    layer = Layer("conv1", "conv", Bounds(1, 1, 16, 4, 4, 4, 3, 3))
    with pytest.raises(ValueError, match="conv1: .*no tiling.*legal are"):
        traffic.columns(layer, ENVISION, np.array([row]))


def test_a_transposed_layer_is_not_tiled_in_space():
    layer = Layer("up", "conv", Bounds(1, 1, 4, 4, 4, 4, 2, 2), stride=(2, 2), transposed=True)
    with pytest.raises(ValueError, match="not tiled in space"):
        traffic.columns(layer, ENVISION, np.array([[4, 4, 2, 4, 2]]))


RELAXED = ("dram_w", "dram_i", "dram_o", "dram_psum", "tile_w", "tile_i", "tile_o", "tile_psum")


@pytest.mark.parametrize("stride, taps, pad", [(1, 3, 1), (2, 3, 1), (1, 1, 0), (1, 5, 2), (2, 2, 0), (1, 3, 0)])
def test_relaxed_counts_equal_the_walk_where_tiles_divide(stride, taps, pad):
    bounds = Bounds(1, 2, 6, 4, 8, 6, taps, taps)
    layer = Layer("l", "conv", bounds, (stride, stride), padding=((pad, pad), (pad, pad)), repeat=2)
    for tile in itertools.product((6, 2), (4, 2), (8, 4, 1), (6, 3, 1)):
        for stationarity in range(3):
            relaxed = traffic.relaxed_columns(layer, jnp.array(tile, float), stationarity, jnp)
            walked = loop_nest.dram(nest_of(layer, [*tile, stationarity]))
            for name in RELAXED:
                if name == "tile_i" and pad:  # the largest tile may lie beside the padding: an upper bound
                    assert relaxed[name] >= walked[name]
                else:
                    assert relaxed[name] == walked[name], (name, tile, stationarity)


def test_relaxed_counts_have_the_gradient_of_their_differences():
    layer = Layer("l", "conv", Bounds(1, 1, 32, 24, 28, 28, 3, 3), padding=((1, 1), (1, 1)))
    point = jnp.array([7.3, 5.1, 6.7, 9.2])
    step = 1e-5
    for stationarity in range(3):

        @jax.jit
        def words(tile, stationarity=stationarity):
            table = traffic.relaxed_columns(layer, tile, stationarity, jnp)
            return jnp.stack([jnp.asarray(table[name], float) for name in RELAXED])

        gradient = jax.jit(jax.jacrev(words))(point)
        ends = [[words(point + sign * step * e) for sign in (1, -1)] for e in jnp.eye(4)]
        slopes = jnp.stack([(up - down) / (2 * step) for up, down in ends], axis=1)
        chex.assert_trees_all_close(gradient, slopes, rtol=1e-6, atol=1e-6)


def test_visits_equal_timeloop_between_dram_and_buffer(shared):
    cases = json.loads((shared / "golden" / "timeloop" / "cases.json").read_text())
    names = {"N": "B", "K": "K", "C": "C", "P": "OY", "Q": "OX"}
    checked = 0
    for case in cases:
        outer = case["mapping"][0]
        counts = {k: int(v) for k, v in (pair.split("=") for pair in outer["factors"].split())}
        levels = [level["name"] for level in case["levels"]]
        if case["arch_kind"] != "two_level" or counts["R"] * counts["S"] > 1 or outer["target"] != levels[0]:
            continue
        order = [names[d] for d in reversed(outer["permutation"]) if d in names]  # theirs is innermost first
        counts = {names[d]: n for d, n in counts.items() if d in names}
        layer = Layer("l", "conv", Bounds(B=case["layer"]["N"]))
        moved = {row["tensor"]: row for row in case["expected"]["per_level_tensor"] if row["level"] == levels[0]}
        tiles = {row["tensor"]: row for row in case["expected"]["per_level_tensor"] if row["level"] == levels[1]}
        for operand, tensor in (("W", "Weights"), ("O", "Outputs"), ("I", "Inputs")):
            relevant = traffic.relevant_loops(layer, operand)
            fetches = int(traffic.visits(counts, order, relevant))
            distinct = math.prod(n for d, n in counts.items() if d in relevant)
            words = tiles[tensor]["tile_words"]
            if operand == "O":
                assert moved[tensor]["reads_per_instance"] == words * distinct * (fetches - 1), case["id"]
                assert moved[tensor]["updates_per_instance"] == words * distinct * fetches, case["id"]
            elif operand == "W" or case["layer"]["R"] * case["layer"]["S"] == 1:  # their windows slide
                assert moved[tensor]["reads_per_instance"] == words * distinct * fetches, case["id"]
            checked += 1
    assert checked >= 9
