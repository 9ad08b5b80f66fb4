"""Every (tile, order) of one layer that could be part of a cheapest design, and the exact Pareto set of them."""

import dataclasses
import math

import numpy as np
from model import (
    DIMS,
    DRAM_PJ,
    DRAM_WORDS_PER_CYCLE,
    MAC_PJ,
    REGISTER_PJ,
    UJ,
    Layer,
    Mapping,
)

from cooptim.mapping.frontier import pareto

MAX_ROWS = 200_000  # (tile, order) pairs of one layer
# Innermost first. Each is the best of its class over all 5,040 orders (README.md); N = 1 is only a place holder.
POINTWISE_ORDERS = ("PQRSCKN", "KCRSPQN", "CRSKPQN")
WINDOW_ORDERS = ("QPRSCKN", "RCSKPQN", "SCRKPQN", "RPQSCKN", "SQPRCKN", "RPKCSQN", "SQKCRPN")
# Where a stride exceeds the window, a moving tile fetches more than a fresh one: N first keeps P and Q from moving.
STILL_ORDERS = ("NPQRSCK",)


@dataclasses.dataclass(frozen=True)
class Tilings:
    """Columns over the (tile, order) pairs of one layer; energies without accumulator and scratchpad are `base_uj`."""

    base_uj: np.ndarray
    accumulator: np.ndarray  # words
    scratchpad: np.ndarray  # words
    cycles: np.ndarray
    sp_bytes: np.ndarray
    bank_words: np.ndarray
    choice: np.ndarray  # [row, 9]: rows, columns, accumulator factors of RSPQCK, index of the order
    orders: tuple[str, ...]
    tried: int

    def criteria(self) -> np.ndarray:
        """What must be small, [row, 6]."""
        return np.stack(
            [self.base_uj, self.accumulator, self.scratchpad, self.cycles, self.sp_bytes, self.bank_words], axis=1
        )

    def take(self, rows: np.ndarray) -> "Tilings":
        """Some of the rows."""
        columns = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return Tilings(**{k: v[rows] if isinstance(v, np.ndarray) else v for k, v in columns.items()})

    def mapping(self, row: int) -> Mapping:
        """The mapping of one row."""
        choice = [int(n) for n in self.choice[row]]
        return Mapping(choice[0], choice[1], tuple(choice[2:8]), self.orders[choice[8]])


def divisors(n: int) -> np.ndarray:
    """All divisors, ascending."""
    return np.array([i for i in range(1, n + 1) if n % i == 0])


def orders_of(layer: Layer) -> tuple[str, ...]:
    """The DRAM orders that can win in this layer."""
    found = POINTWISE_ORDERS
    if layer.R > 1 or layer.S > 1:
        found += WINDOW_ORDERS
    for window, stride in ((layer.R, layer.stride_p), (layer.S, layer.stride_q)):
        if any(1 < r < stride for r in divisors(window)):
            found += STILL_ORDERS
            break
    return found


def _tiles(layer: Layer, pe_dim: int) -> dict[str, np.ndarray]:
    """Float columns of every tile worth trying: extents of C and K, rows, columns, accumulator factors.

    Of a tile of C as much as fits goes to the rows: the rest of the counts stay, and fewer words pass the accumulator.
    The same for K and the columns, which also shrinks the bank. In a square layer one of two mirrored tiles is kept.
    """
    axes = [divisors(layer.bound(dim)) for dim in "CKPQRS"]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 6)
    if (layer.P, layer.R, layer.stride_p) == (layer.Q, layer.S, layer.stride_q):
        p, q, r, s = grid[:, 2], grid[:, 3], grid[:, 4], grid[:, 5]
        grid = grid[(p < q) | ((p == q) & (r <= s))]
    tile = dict(zip(("tile_c", "tile_k", "P", "Q", "R", "S"), grid.T.astype(float), strict=True))
    for name, key, axis in (("rows", "tile_c", axes[0]), ("columns", "tile_k", axes[1])):
        widest = np.array([max(d for d in divisors(int(n)) if d <= pe_dim) for n in axis], dtype=float)
        tile[name] = widest[np.searchsorted(axis, tile[key])]
    tile["C"], tile["K"] = tile["tile_c"] / tile["rows"], tile["tile_k"] / tile["columns"]
    return tile


def _outward(outer: dict[str, np.ndarray], order: str, relevant: str) -> np.ndarray:
    """Product of the DRAM loops from the innermost relevant one of a factor above 1 outward."""
    inside, product = np.ones_like(outer["P"], dtype=bool), np.ones_like(outer["P"])
    for dim in order:
        if dim in relevant:
            inside &= outer[dim] == 1
        product *= np.where(inside, 1.0, outer[dim])
    return product


def _edge(extent: np.ndarray, window: np.ndarray, stride: int, after_window: bool) -> np.ndarray:
    """New rows of a moving tile beside (extent - 1) * stride; see `model._fresh_edge`."""
    if after_window:
        wide = np.where(extent <= window, window - 1, np.maximum(stride, window))
        return np.where(window == 1, 1.0, np.where(extent == 1, window, wide))
    return np.where(window == 1, 1.0, float(stride))


def _carried(outer: dict[str, np.ndarray], order: str) -> np.ndarray:
    """Rows in which DOSA lets a widened window stay in the scratchpad while K goes round.

    After R (or S) and a P (or Q) loop of factor 1 it skips K as a loop that reuses inputs, though R starts again at
    every step of K and rows that have left must come back.
    """
    rows = np.zeros_like(outer["P"], dtype=bool)
    if order[:2] in ("RP", "SQ"):
        rows = (outer[order[0]] > 1) & (outer["K"] > 1)
        for dim in order[1 : order.index("K")]:
            rows &= outer[dim] == 1
    return rows


def _input_fills(layer: Layer, tile: dict[str, np.ndarray], outer: dict[str, np.ndarray], order: str) -> np.ndarray:
    """Input words that enter the scratchpad; see `model.input_fills`."""
    r, s = tile["R"], tile["S"]
    if order[0] == "R":
        r = r * outer["R"]
    if order[0] == "S":
        s = s * outer["S"]
    after = order[:2] in ("RP", "SQ")
    lead, rest = (order[1], order[2:]) if after else (order[0], order[1:])
    moves = lead in "PQRS"
    inside = (outer[lead] == 1) if moves else np.ones_like(r, dtype=bool)
    product = np.ones_like(r)
    for dim in rest if moves else order:
        if dim != "K":
            inside = inside & (outer[dim] == 1)
        product *= np.where(inside, 1.0, outer[dim])
    high, wide = (tile["P"] - 1) * layer.stride_p, (tile["Q"] - 1) * layer.stride_q
    words = (high + r) * (wide + s)
    if lead == "P":
        words = words + (high + _edge(tile["P"], r, layer.stride_p, after)) * (wide + s) * (outer["P"] - 1)
    if lead == "Q":
        words = words + (high + r) * (wide + _edge(tile["Q"], s, layer.stride_q, after)) * (outer["Q"] - 1)
    return tile["tile_c"] * product * words


def priced(
    layer: Layer, tile: dict[str, np.ndarray], orders: tuple[str, ...], pe_dim: int, carry: bool = True
) -> Tilings:
    """All pairs of these tiles and orders, order by order.

    Args:
      tile: float columns as `_tiles` makes them.
      carry: keep the pairs that `_carried` marks.
    """
    outer = {dim: layer.bound(dim) / tile[{"C": "tile_c", "K": "tile_k"}.get(dim, dim)] for dim in "RSPQCK"}
    outer["N"] = np.ones_like(outer["P"])
    everything = math.prod(outer.values())
    weights = tile["tile_c"] * tile["tile_k"] * tile["R"] * tile["S"]
    bank = tile["P"] * tile["Q"] * tile["K"]
    high, wide = (tile["P"] - 1) * layer.stride_p + tile["R"], (tile["Q"] - 1) * layer.stride_q + tile["S"]
    held = weights + tile["tile_c"] * high * wide
    single = (tile["C"] == 1) & (tile["K"] == 1) & (tile["R"] == 1) & (tile["S"] == 1)
    parts = []
    for number, order in enumerate(orders):
        fills_w = weights * _outward(outer, order, "RSCK")
        fills_i = _input_fills(layer, tile, outer, order)
        fills_o = bank * tile["columns"] * _outward(outer, order, "PQKN")
        register_fills = np.where(single, fills_w, weights * everything)
        accumulator = 2 * layer.macs / tile["rows"] - layer.outputs + fills_o
        scratchpad = register_fills + fills_w + layer.macs / tile["columns"] + fills_i
        dram = fills_w + fills_i + 2 * fills_o - layer.outputs
        cycles = np.maximum.reduce(
            [
                layer.macs / (tile["rows"] * tile["columns"]),
                accumulator / (2 * tile["columns"]),
                scratchpad / (2 * pe_dim),
                dram / DRAM_WORDS_PER_CYCLE,
            ]
        )
        base = UJ * (MAC_PJ * layer.macs + REGISTER_PJ * (layer.macs + register_fills) + DRAM_PJ * dram)
        choice = [tile[name] for name in ("rows", "columns", *DIMS[:6])] + [np.full_like(bank, number)]
        kept = slice(None) if carry else ~_carried(outer, order)
        columns = (base, accumulator, scratchpad, cycles, held, bank, np.stack(choice, axis=1))
        parts.append([column[kept] for column in columns])
    tried = len(orders) * len(bank)
    return Tilings(*(np.concatenate(part) for part in zip(*parts, strict=True)), orders=orders, tried=tried)


def tilings(layer: Layer, pe_dim: int, carry: bool = True) -> Tilings:
    """Every (tile, order) pair that could win in one layer on an array of this side, unpruned.

    Raises ValueError above MAX_ROWS pairs.
    """
    tile, orders = _tiles(layer, pe_dim), orders_of(layer)
    total = len(tile["P"]) * len(orders)
    if total > MAX_ROWS:
        raise ValueError(f"{layer.name}: {total} tiles times orders, at most {MAX_ROWS} are held; split the layer")
    return priced(layer, tile, orders, pe_dim, carry)


def frontier(layer: Layer, pe_dim: int, carry: bool = True) -> Tilings:
    """The exact Pareto set of `tilings`: every energy price, capacity and weight of cycles has its optimum in it.

    Rows of like cycles are pruned among themselves first, which halves the time of the comparison of all.
    """
    table = tilings(layer, pe_dim, carry)
    criteria, group = table.criteria(), np.floor(2 * np.log2(table.cycles))
    rows = np.concatenate(
        [rows[pareto(criteria[rows])] for rows in (np.flatnonzero(group == g) for g in np.unique(group))]
    )
    return table.take(np.sort(rows[pareto(criteria[rows])]))
