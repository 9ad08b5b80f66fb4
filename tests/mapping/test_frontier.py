"""The frontier keeps an optimum of every monotone objective."""

import csv
import dataclasses
import time

import numpy as np
import pytest

from cooptim.hardware.machine import Area, Buffer, Datapath, Dram, Machine, Mode, Supply
from cooptim.mapping import frontier, traffic
from cooptim.workload import Bounds, Layer, Workload

SHAPE = traffic.ArrayShape(16, 16, (1, 2, 4), 16, 48, True)


def machine() -> Machine:
    """A machine whose leaves do not matter here."""

    def zeros(kind, **static):
        leaves = {f.name: np.zeros(()) for f in dataclasses.fields(kind) if f.name not in static}
        return kind(**static, **leaves)

    modes = (Mode("1x16b", 1, 16), Mode("2x8b", 2, 8), Mode("4x4b", 4, 4))
    return Machine(
        "test",
        zeros(Datapath, rows=16, cols=16, width_bits=16, accumulator_bits=48, modes=modes, systolic=None),
        zeros(Supply),
        zeros(Buffer, word_bits=16, free=False, double_buffered=False, input_shift=True),
        zeros(Dram, coded=True),
        zeros(Area),
    )


def digits() -> Workload:
    same = ((1, 1), (1, 1))
    return Workload(
        "digits",
        (
            Layer("conv1", "conv", Bounds(1, 1, 16, 1, 8, 8, 3, 3), padding=same),
            Layer("conv2", "conv", Bounds(1, 1, 32, 16, 8, 8, 3, 3), padding=same),
            Layer("dense", "dense", Bounds(1, 1, 10, 32)),
        ),
    )


def network(shared, name: str) -> Workload:
    layers = []
    for row in csv.DictReader((shared / "reference" / "networks" / f"{name}.csv").open()):
        n = {k: int(v) for k, v in row.items() if v.isdigit()}
        pad = []
        for o, f, i in (("OY", "FY", "IY"), ("OX", "FX", "IX")):
            total = max(0, (n[o] - 1) * n["stride"] + n[f] - n[i])
            pad.append((total // 2, total - total // 2))
        groups = n["groups"]
        bounds = Bounds(1, groups, n["K"] // groups, n["C"] // groups, n["OY"], n["OX"], n["FY"], n["FX"])
        layers.append(Layer(row["layer"], "conv", bounds, (n["stride"],) * 2, padding=tuple(pad)))
    return Workload(name, tuple(layers))


def random_layer(rng: np.random.Generator) -> Layer:
    K, C, OY, OX = (int(n) for n in rng.integers(1, [70, 20, 12, 12]))
    F, stride, pad = int(rng.integers(1, 4)), int(rng.integers(1, 3)), int(rng.integers(0, 2))
    bounds = Bounds(1, int(rng.integers(1, 3)), K, C, OY, OX, F, F)
    return Layer("l", "conv", bounds, (stride, stride), padding=((pad, pad), (pad, pad)))


def criteria(layer: Layer, rows: np.ndarray) -> np.ndarray:
    table = traffic.columns(layer, SHAPE, rows)
    names = [f.name for f in dataclasses.fields(frontier.Tilings) if f.name in table]
    return np.concatenate([table[name].reshape(len(rows), -1) for name in names], axis=1)


def test_every_monotone_objective_keeps_its_optimum_on_sixty_layers():
    rng = np.random.default_rng(0)
    for _ in range(60):
        layer = random_layer(rng)
        rows = frontier.candidates(layer, SHAPE)
        table, tried = frontier._layer_table(layer, SHAPE, frontier.TILE_SIZES)
        assert tried == len(rows)
        everything, kept = criteria(layer, rows), criteria(layer, table["factors"])
        scale = everything.mean(axis=0) + 1
        for _ in range(20):
            weights = rng.exponential(size=scale.size) ** 3 / scale
            capacity = np.quantile(everything, rng.uniform(0.2, 1.0), axis=0)  # a limit on footprints, as a buffer sets
            held = slice(4, 7)
            assert (kept @ weights).min() == pytest.approx((everything @ weights).min(), rel=1e-12)
            fits, kept_fits = ((t[:, held] <= capacity[held]).all(axis=1) for t in (everything, kept))
            if fits.any():
                assert (kept[kept_fits] @ weights).min() == pytest.approx((everything[fits] @ weights).min(), rel=1e-12)


def test_pareto_equals_comparison_of_all_pairs():
    rng = np.random.default_rng(1)
    for _ in range(40):
        points = rng.integers(0, 5, size=(int(rng.integers(1, 60)), int(rng.integers(1, 5)))).astype(float)
        keep = frontier.pareto(points)
        for i, p in enumerate(points):
            below = (points <= p).all(axis=1)
            beaten = (below & (points < p).any(axis=1)).any()
            earlier_twin = (below[:i] & (points[:i] == p).all(axis=1)).any()
            assert keep[i] == (not beaten and not earlier_twin)


def test_row_zero_is_untiled_and_padding_repeats_it():
    work = digits()
    table = frontier.tilings(work, machine())
    for i, layer in enumerate(work.layers):
        b = layer.bounds
        np.testing.assert_array_equal(table.factors[i, 0, :4], [b.K, b.C, b.OY, b.OX])
        padding = table.valid[i] == 0
        assert table.valid[i, 0] == 1
        np.testing.assert_array_equal(table.dram_w[i][padding], table.dram_w[i, 0])
    assert table.rows == table.valid.sum(axis=1).max()


def test_digits_table_is_small_and_quick_enough_for_a_training_step():
    frontier._layer_table.cache_clear()
    frontier._table.cache_clear()
    start = time.process_time()
    table = frontier.tilings(digits(), machine())
    assert time.process_time() - start < 1.0  # measured 0.02 s; checks of shapes and types included
    assert table.rows <= 230
    assert frontier.tilings(digits(), machine()) is table


def test_tables_do_not_depend_on_names():
    work = digits()
    other = Workload("x", tuple(dataclasses.replace(layer, name=f"other{i}") for i, layer in enumerate(work.layers)))
    np.testing.assert_array_equal(frontier.tilings(work, machine()).cycles, frontier.tilings(other, machine()).cycles)


@pytest.mark.parametrize("name", ["lenet5", "alexnet", "resnet18"])
def test_published_networks_have_tables_whose_untiled_rows_move_each_word_once(shared, name):
    work = network(shared, name)
    table = frontier.tilings(work, machine())
    np.testing.assert_array_equal(table.dram_w[:, 0], [layer.weight_words for layer in work.layers])
    np.testing.assert_array_equal(table.dram_i[:, 0], [layer.input_words for layer in work.layers])
    assert (table.dram_w >= table.dram_w[:, :1]).all() and (table.dram_i >= table.dram_i[:, :1]).all()
    lanes = 256 * np.array([1, 2, 4])
    assert (table.cycles * lanes >= np.array([layer.macs for layer in work.layers])[:, None, None]).all()
    sizes = frontier.frontier_sizes(work, machine())
    assert max(kept for _, kept in sizes.values()) == table.rows
    if name == "resnet18":
        assert table.rows < 2000


def test_tile_sizes_hold_the_bound_and_the_smallest_and_fill_the_lanes():
    assert frontier.tile_sizes(28, 1, 8) == (28, 14, 7, 4, 2, 1)
    assert frontier.tile_sizes(6, 16, 8) == (6,)
    assert frontier.tile_sizes(120, 16, 8) == (120, 64, 32, 16)
    sizes = frontier.tile_sizes(512, 1, 8)
    assert len(sizes) == 8 and sizes[0] == 512 and sizes[-1] == 1


def test_too_many_candidates_are_refused_with_the_figure():
    layer = Layer("huge", "conv", Bounds(1, 1, 4096, 4096, 512, 512, 3, 3))
    with pytest.raises(ValueError, match=r"huge: \d+ candidate tilings .*200000"):
        frontier.tilings(Workload("w", (layer,)), machine(), most=40)


def test_a_workload_without_layers_is_refused():
    with pytest.raises(ValueError, match="no layer to tile"):
        frontier.tilings(Workload("empty", ()), machine())


def test_a_transposed_layer_is_tiled_in_channels_only():
    layer = Layer("up", "conv", Bounds(1, 1, 32, 8, 4, 4, 2, 2), stride=(2, 2), transposed=True)
    table = frontier.tilings(Workload("w", (layer,)), machine())
    assert (table.factors[0, :, 2:4] == 4).all()
    assert (table.dram_o == 32 * 64).all()
