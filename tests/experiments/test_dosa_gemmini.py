"""ResNet-50 on DOSA's model of Gemmini (experiments/dosa_gemmini): counts by hand, pruning, bound and rounding."""

import importlib
import itertools
import math
import random
import sys
import types

import numpy as np
import pytest

FOLDER = "experiments/dosa_gemmini"
MODULES = ("model", "baseline", "frontier", "search", "relaxed", "rounding")  # a script's: they import each other


@pytest.fixture(scope="module")
def dosa(root):
    """The modules of the experiment, which are no package; none of their names is left behind."""
    kept = {name: sys.modules.pop(name, None) for name in MODULES}
    sys.path.insert(0, str(root / FOLDER))
    yield types.SimpleNamespace(**{name: importlib.import_module(name) for name in MODULES})
    sys.path.remove(str(root / FOLDER))
    for name, module in kept.items():
        del sys.modules[name]
        if module is not None:
            sys.modules[name] = module


def random_mapping(dosa, layer, rng, pe_dim):
    """Divisors at random, any order of the loops of DRAM."""
    sides, inner = [], []
    for dim in "RSPQCK":
        bound = layer.bound(dim)
        side = 1
        if dim in "CK":
            side = int(rng.choice([n for n in dosa.frontier.divisors(bound) if n <= pe_dim]))
            sides.append(side)
        inner.append(int(rng.choice(list(dosa.frontier.divisors(bound // side)))))
    return dosa.model.Mapping(*sides, tuple(inner), "".join(rng.sample(dosa.model.DIMS, 7)))


def test_dosas_own_mappings_cost_what_dosa_says(dosa, shared):
    base = dosa.baseline.load(shared / "reference" / "dosa_baseline.json")
    found = dosa.model.price(base.layers, base.mappings)
    assert found.cycles == pytest.approx(base.cycles, rel=1e-7)
    assert found.energy_uj == pytest.approx(base.energy_uj, rel=4e-4)  # DOSA prices sizes that are no whole KB
    assert len(base.layers) == 24


def test_counts_of_one_layer_are_those_by_hand(dosa):
    layer = dosa.model.Layer("hand", R=3, S=3, P=4, Q=4, C=8, K=8)  # 9,216 MACs, 128 outputs
    # 4 x 2 units; 2 x 4 outputs of 2 channels a column inside; DRAM turns K, C, P twice each.
    still = dosa.model.Mapping(4, 2, (3, 3, 2, 4, 1, 2), "KCPRSQN")
    count = dosa.model.counts(layer, still)
    fills_w = 3 * 3 * 4 * 4 * 8  # K is innermost: a tile of 144 weights in each of the 8 steps
    fills_i = 4 * (4 * 6) * 4  # inputs stay while K turns: 4 tiles of 4 channels, 4 x 6 pixels
    fills_o = 2 * (2 * 4 * 2) * 8  # two banks of 16 sums, in each of the 8 steps
    register_fills = 9216 // (2 * 4)  # a weight stays for the 8 outputs under it
    assert count.register == 9216 + register_fills == 10368
    assert count.accumulator == 2 * 9216 / 4 - 128 + fills_o == 4736
    assert count.scratchpad == register_fills + fills_w + 9216 / 2 + fills_i == 7296
    assert count.dram == fills_w + fills_i + 2 * fills_o - 128 == 1920
    assert (count.sp_bytes, count.bank_words) == (144 + 96, 16)
    chip = dosa.model.Hardware(4, 1.0, 1.0)
    accesses_pj = (1.94 + 0.1005 / 4) * 4736 + (0.49 + 0.02513) * 7296 + 100 * 1920
    assert dosa.model.energy_uj(layer, count, chip) == pytest.approx(
        1e-6 * (0.5608 * 9216 + 0.48746172 * 10368 + accesses_pj), rel=1e-12
    )
    assert dosa.model.cycles(layer, still, count, chip) == 4736 / 4  # the accumulator: 2 words a column; array 1,152


def test_rows_that_slide_are_fetched_once(dosa):
    layer = dosa.model.Layer("hand", R=3, S=3, P=4, Q=4, C=8, K=8)
    sliding = dosa.model.Mapping(4, 2, (3, 3, 2, 4, 1, 2), "PKCRSQN")
    # P is innermost: all 6 rows of 6 pixels once, in each of the 4 steps of K and C.
    assert dosa.model.input_fills(layer, sliding) == 4 * (6 * 6) * 4


def test_factors_that_leave_a_rest_are_refused(dosa):
    layer = dosa.model.Layer("hand", R=3, S=3, P=4, Q=4, C=8, K=8)
    with pytest.raises(ValueError, match="hand: tile 3 does not divide P = 4"):
        dosa.model.counts(layer, dosa.model.Mapping(4, 2, (3, 3, 3, 4, 1, 2), "KCPRSQN"))


def orders(dims, turning):
    """All orders of `dims` that DOSA tells apart: beyond the first two places a loop that does not turn is nothing."""
    for head in itertools.permutations(dims, 2):
        still = [d for d in dims if d not in head and d not in turning]
        for tail in itertools.permutations([d for d in turning if d not in head]):
            yield "".join((*head, *tail, *still))


@pytest.fixture(scope="module")
def tiny(dosa):
    """Every tile of a small layer in every order, each priced by itself: (layer, rows of criteria)."""
    layer = dosa.model.Layer("tiny", R=2, S=1, P=4, Q=1, C=2, K=2, stride_p=1)
    chip, rows = dosa.model.Hardware(2, 1.0, 1.0), set()
    axes = [[1, 2], [1], [1, 2, 4], [1], [(1, 1), (1, 2), (2, 1)], [(1, 1), (1, 2), (2, 1)]]
    for r, s, p, q, (rows_c, c), (columns, k) in itertools.product(*axes):
        for order in orders(dosa.model.DIMS, "RPCK"):
            mapping = dosa.model.Mapping(rows_c, columns, (r, s, p, q, c, k), order)
            n = dosa.model.counts(layer, mapping)
            slow = dosa.model.cycles(layer, mapping, n, chip)
            rows.add((n.register, n.dram, n.accumulator, n.scratchpad, slow, n.sp_bytes, n.bank_words))
    return layer, np.array(sorted(rows), dtype=float)


def test_the_pareto_set_keeps_the_optimum_of_every_price_and_capacity(dosa, tiny):
    layer, every = tiny
    table = dosa.frontier.frontier(layer, pe_dim=2)
    assert len(table.cycles) < len(every)
    rng = np.random.default_rng(0)
    limits = every[:, 5:7]
    fitted = 0
    for _ in range(200):
        accumulator_pj, scratchpad_pj, cycle_pj = 10 ** rng.uniform(-2, 3, 3)
        room = limits[rng.integers(len(limits))] * rng.uniform(0.8, 1.2, 2)
        base = 1e-6 * (0.5608 * layer.macs + 0.48746172 * every[:, 0] + 100.0 * every[:, 1])
        cost = base + 1e-6 * (accumulator_pj * every[:, 2] + scratchpad_pj * every[:, 3] + cycle_pj * every[:, 4])
        kept = table.base_uj + 1e-6 * (
            accumulator_pj * table.accumulator + scratchpad_pj * table.scratchpad + cycle_pj * table.cycles
        )
        fits = (limits <= room).all(axis=1)
        kept_fits = (table.sp_bytes <= room[0]) & (table.bank_words <= room[1])
        assert fits.any() == kept_fits.any()
        if fits.any():
            fitted += 1
            assert kept[kept_fits].min() == pytest.approx(cost[fits].min(), rel=1e-12)
    assert fitted > 100


def test_the_bound_is_below_every_random_legal_design(dosa):
    network = dosa.model.layers()[1:4]
    tables = [dosa.frontier.frontier(layer, dosa.model.PE_LIMIT) for layer in network]
    found = dosa.search.search(network, tables)
    again = dosa.model.price(network, found.mappings)
    assert again.edp == pytest.approx(found.price.edp, rel=1e-12)
    assert 0.999 * again.edp <= found.bound <= again.edp
    for sp_kb, bank_words in itertools.product((16, 32, 64, 128, 256), (49, 98, 196, 392, 784, 1568)):
        chip = dosa.model.Hardware(dosa.model.PE_LIMIT, sp_kb, dosa.model.PE_LIMIT * bank_words * 4 / 1024)
        fitted = dosa.search.solve_hardware(network, tables, chip)  # one hardware, no boxes
        assert found.bound <= dosa.model.price(network, fitted.mappings).edp
    rng = random.Random(0)
    least = math.inf
    for _ in range(2000):
        mappings = [random_mapping(dosa, layer, rng, dosa.model.PE_LIMIT) for layer in network]
        least = min(least, dosa.model.price(network, mappings).edp)
    assert found.bound <= least < 10 * found.bound  # random designs come near enough to tell a bound that is too high


def test_rounding_always_gives_a_legal_mapping(dosa):
    network = dosa.model.layers()
    rng, seeds = np.random.default_rng(0), 4
    real = {}
    for dim in "RSPQCK":
        bound = np.array([layer.bound(dim) for layer in network], dtype=float)
        share = np.where(rng.random((seeds, len(network))) < 0.2, 1.0, rng.random((seeds, len(network))))
        extent = bound**share  # at the bound in one of five
        side = np.minimum(extent ** rng.random(extent.shape), dosa.model.PE_LIMIT)
        if dim in "CK":
            real["rows" if dim == "C" else "columns"] = side
        real[dim] = extent / side if dim in "CK" else extent
    chip = np.array([[1e-3, 1.0], [10.0, 64.0], [1e3, 1e4], [1e9, 1e9]])  # where nothing fits, too
    orders = rng.integers(0, len(dosa.relaxed.ORDERS), (seeds, len(network)))
    ones = np.ones(seeds)
    for given in (None, orders):
        for mappings, found in dosa.rounding.round_all(network, real, ones, ones, chip, given):
            for layer, mapping in zip(network, mappings, strict=True):
                outer = mapping.outer(layer)  # raises where factors do not make the bound
                assert all(mapping.tile(d) * outer[d] == layer.bound(d) for d in dosa.model.DIMS)
                assert max(mapping.rows, mapping.columns) <= found.hardware.pe_dim <= dosa.model.PE_LIMIT
                count = dosa.model.counts(layer, mapping)
                assert count.sp_bytes <= 1024 * found.hardware.sp_kb
                assert 4 * found.hardware.pe_dim * count.bank_words <= 1024 * found.hardware.acc_kb
