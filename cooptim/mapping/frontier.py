"""The Pareto set of tilings of each layer.

Every objective that never falls with words moved, cycles or footprints, and whose feasibility is monotone in the
footprints, has an optimum in it; the set is exact for the tile sizes tried.
"""

import dataclasses
import functools
import math

import numpy as np
from jaxtyping import Bool, Float, Int

from cooptim.hardware.machine import Machine
from cooptim.mapping.tilings import STATIONARITIES, Tilings
from cooptim.mapping.traffic import ArrayShape, array_shape, columns, quanta
from cooptim.workload import Layer, Workload

MAX_CANDIDATES = 200_000  # rows enumerated for one layer; 150 MB of columns
TILE_SIZES = 8  # per dim
# Smaller is better in every one of them (`sums` where there are such); dram_o and sram_o are the same in all rows.
CRITERIA: tuple[str, ...] = (
    "dram_w", "dram_i", "dram_psum", "tile_w", "tile_i", "tile_o", "tile_psum",
    "cycles", "sram_w", "sram_i", "sram_psum", "sums",
)  # fmt: skip


def tile_sizes(bound: int, quantum: int, most: int) -> tuple[int, ...]:
    """Sizes ceil(bound/n), largest first, at most `most`: the bound, the smallest, and a geometric grid between them.

    The grid halves where that takes no more than `most` sizes; asking for more than TILE_SIZES makes it finer.

    Args:
      quantum: sizes are multiples of it (or the bound); a tile that leaves a part of the array empty helps nobody.
    """
    units = -(-bound // quantum)
    halvings = units.bit_length()
    if halvings + 1 <= most <= TILE_SIZES:
        numbers = np.append(2 ** np.arange(halvings), units)
    else:
        numbers = np.rint(np.geomspace(1, units, most)).astype(int)
    return tuple(sorted({min(bound, quantum * -(-units // int(n))) for n in numbers}, reverse=True))


def _sizes(layer: Layer, shape: ArrayShape, most: int) -> tuple[tuple[int, ...], ...]:
    """Tile sizes tried for K, C, OY, OX, and the stationarities; ValueError when they make too many rows."""
    if most < 1:
        raise ValueError(f"{layer.name}: most={most} tile sizes per dim leave no tiling; ask for at least 1")
    b = layer.bounds
    space = [(n,) if layer.transposed else tile_sizes(n, 1, most) for n in (b.OY, b.OX)]
    stationarities = tuple(range(len(STATIONARITIES)))
    full_k, full_c = quanta(layer, shape)
    sizes = (tile_sizes(b.K, full_k, most), tile_sizes(b.C, full_c, most), *space, stationarities)
    total = math.prod(len(s) for s in sizes)
    if total > MAX_CANDIDATES:
        raise ValueError(
            f"{layer.name}: {total} candidate tilings ({' x '.join(str(len(s)) for s in sizes)}); at most "
            f"{MAX_CANDIDATES} are enumerated; ask for fewer tile sizes per dim (most={most} now, usually {TILE_SIZES})"
        )
    return sizes


def candidates(layer: Layer, shape: ArrayShape, most: int = TILE_SIZES) -> Int[np.ndarray, "row 5"]:
    """Rows (tK, tC, tOY, tOX, stationarity) that compete, fewest tiles first.

    Raises ValueError above MAX_CANDIDATES.
    """
    b = layer.bounds
    rows = np.stack(np.meshgrid(*_sizes(layer, shape, most), indexing="ij"), axis=-1).reshape(-1, 5)
    tiles = np.prod(-(-np.array([b.K, b.C, b.OY, b.OX]) // rows[:, :4]), axis=1)
    return rows[np.argsort(tiles, kind="stable")]


def pareto(criteria: Float[np.ndarray, "row criterion"]) -> Bool[np.ndarray, "row"]:
    """Rows that no other row equals or beats in every criterion (of equal rows the first stays); exact.

    Memory stays at a few copies of the input: rows are compared with one survivor at a time, best sum of ranks first,
    which no later row can dominate.
    """
    ranks = [np.unique(column, return_inverse=True)[1].reshape(-1) for column in criteria.T]
    distinct = list({rank.tobytes(): rank for rank in ranks if rank.any()}.values())
    keep = np.zeros(len(criteria), dtype=bool)
    if not distinct:
        keep[:1] = True
        return keep
    rank = np.stack(distinct).astype(np.int32)
    left = np.argsort(rank.sum(axis=0), kind="stable")
    rank = rank[:, left]
    while left.size:
        keep[left[0]] = True
        better = np.zeros(left.size, dtype=bool)  # in some criterion than the survivor
        for column in rank:
            better |= column < column[0]
        left, rank = left[better], rank[:, better]
    return keep


def _anonymous(layer: Layer) -> Layer:
    """The layer without what does not change its counts, so that equal shapes share one table."""
    return dataclasses.replace(layer, name="layer", weight_leaves=(), inputs=(), note="")


@functools.lru_cache(maxsize=512)
def _layer_table(layer: Layer, shape: ArrayShape, most: int) -> tuple[dict[str, np.ndarray], int]:
    """(columns of the frontier of one layer, number of candidates)."""
    rows = candidates(layer, shape, most)
    table = columns(layer, shape, rows)
    keep = pareto(np.concatenate([table[name].reshape(len(rows), -1) for name in CRITERIA if name in table], axis=1))
    keep[0] = True  # the untiled row stays: the reference starts there
    return {name: column[keep] for name, column in {**table, "factors": rows}.items()}, len(rows)


@functools.lru_cache(maxsize=64)
def _table(workload: Workload, shape: ArrayShape, most: int) -> Tilings:
    """The stacked table; its arrays are read-only, for it is shared."""
    for layer in workload.layers:
        _sizes(layer, shape, most)  # names the layer that is too large; the tables below are anonymous
    tables = [_layer_table(_anonymous(layer), shape, most)[0] for layer in workload.layers]
    longest = max(len(table["factors"]) for table in tables)
    stacked = {}
    for name in tables[0]:
        padded = [np.concatenate([t[name], np.repeat(t[name][:1], longest - len(t[name]), axis=0)]) for t in tables]
        stacked[name] = np.stack(padded)
    lengths = np.array([len(table["factors"]) for table in tables])
    stacked["valid"] = (np.arange(longest) < lengths[:, None]).astype(np.float64)
    for array in stacked.values():
        array.setflags(write=False)
    return Tilings(**stacked)


def tilings(workload: Workload, machine: Machine, most: int = TILE_SIZES) -> Tilings:
    """The tilings each layer may choose from: exact Pareto sets over the CRITERIA, row 0 untiled, cached.

    Args:
      machine: only its static fields matter, so leaves may be traced.
      most: tile sizes tried per dim, on a geometric grid that holds the bound and the smallest.

    Raises ValueError for a workload without layers or with more than MAX_CANDIDATES tilings in one layer.
    """
    if not workload.layers:
        raise ValueError(f"workload {workload.name}: it has no layer to tile; trace a model with multiply-accumulates")
    return _table(workload, array_shape(machine), most)


def frontier_sizes(workload: Workload, machine: Machine, most: int = TILE_SIZES) -> dict[str, tuple[int, int]]:
    """(tilings tried, tilings on the frontier) of each layer."""
    shape = array_shape(machine)
    found = {layer.name: _layer_table(_anonymous(layer), shape, most) for layer in workload.layers}
    return {name: (tried, len(table["factors"])) for name, (table, tried) in found.items()}
