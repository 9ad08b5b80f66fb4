"""From real factors to a legal mapping: each to a divisor next to it, by the true price; nothing further is tried."""

import itertools
from collections.abc import Sequence

import numpy as np
from frontier import divisors, priced
from model import (
    ACCUMULATOR_PJ,
    ACCUMULATOR_PJ_PER_KB,
    PE_LIMIT,
    SCRATCHPAD_PJ,
    SCRATCHPAD_PJ_PER_KB,
    UJ,
    Layer,
    Mapping,
    Price,
    price,
)
from relaxed import DIMS, ORDERS

SLACK = 1.15  # of the relaxed capacities: the divisors next above fit where they are near


def neighbours(n: int, real: np.ndarray, limit: float = np.inf) -> np.ndarray:
    """[seed, 2] the divisors of n next below and above real numbers, at most `limit`."""
    all_of = divisors(n)
    all_of = all_of[all_of <= limit]
    above = np.clip(np.searchsorted(all_of, real * (1 - 1e-6)), 0, len(all_of) - 1)
    below = np.clip(np.searchsorted(all_of, real * (1 + 1e-6), side="right") - 1, 0, len(all_of) - 1)
    return np.stack([all_of[below], all_of[above]], axis=1)


def _nearest(pair: np.ndarray, real: np.ndarray) -> np.ndarray:
    """[seed, 1] the neighbour that is nearer in logs."""
    return pair[np.arange(len(pair)), np.argmin(np.abs(np.log(pair / real[:, None])), axis=1)][:, None]


def _candidates(layer: Layer, real: dict[str, np.ndarray], by_price: bool) -> dict[str, np.ndarray]:
    """Columns of 256 tiles a seed, flat: both neighbours of the six extents, of the rows and of the columns.

    Rows (columns) that do not divide the tile shrink to what they share with it. One tile a seed, of the nearer
    neighbours, unless `by_price`.
    """
    extents = {"C": real["C"] * real["rows"], "K": real["K"] * real["columns"]}
    reals = [extents.get(dim, real.get(dim)) for dim in DIMS] + [real["rows"], real["columns"]]
    limits = [(layer.bound(dim), np.inf) for dim in DIMS] + [(layer.C, PE_LIMIT), (layer.K, PE_LIMIT)]
    pairs = [neighbours(bound, x, limit) for x, (bound, limit) in zip(reals, limits, strict=True)]
    if not by_price:
        pairs = [_nearest(pair, x) for pair, x in zip(pairs, reals, strict=True)]
    sides = np.array(list(itertools.product(range(2 if by_price else 1), repeat=len(pairs))))
    values = [pair[:, sides[:, i]].reshape(-1) for i, pair in enumerate(pairs)]
    tile = dict(zip((*DIMS[:4], "tile_c", "tile_k"), (v.astype(float) for v in values[:6]), strict=True))
    for name, inner, extent, spatial in (("rows", "C", 4, 6), ("columns", "K", 5, 7)):
        tile[name] = np.gcd(values[extent], values[spatial]).astype(float)
        tile[inner] = values[extent] / tile[name]
    return tile


def round_all(
    network: Sequence[Layer],
    real: dict[str, np.ndarray],
    uj: np.ndarray,
    cycles: np.ndarray,
    hardware: np.ndarray,
    orders: np.ndarray | None = None,
) -> list[tuple[tuple[Mapping, ...], Price]]:
    """A legal design for every seed, priced on the hardware that it needs.

    Each layer takes, of the tiles beside its own and of ORDERS, the one with the least uJ * cycles of the network +
    cycles * uJ of the network (the slope of the EDP) that fits the relaxed capacities; the smallest where none fits.

    Args:
      real: [seed, layer] factors as `relaxed.factors` gives them; uj, cycles: [seed]; hardware: [seed, 2].
      orders: [seed, layer] indices into ORDERS: takes these and the nearer divisors, and asks for no price.
    """
    seeds = len(uj)
    cap_kb, cap_words = SLACK * hardware[:, 0], SLACK * hardware[:, 1]
    pj = SCRATCHPAD_PJ + SCRATCHPAD_PJ_PER_KB * cap_kb, ACCUMULATOR_PJ + ACCUMULATOR_PJ_PER_KB * cap_words * 4 / 1024
    chosen: list[list[Mapping]] = [[] for _ in range(seeds)]
    for i, layer in enumerate(network):
        table = priced(
            layer, _candidates(layer, {k: v[:, i] for k, v in real.items()}, orders is None), ORDERS, PE_LIMIT
        )
        shape = (len(ORDERS), seeds, -1)  # rows are order by order, seed by seed
        energy = table.base_uj.reshape(shape) + UJ * (
            pj[0][:, None] * table.scratchpad.reshape(shape) + pj[1][:, None] * table.accumulator.reshape(shape)
        )
        slope = energy / uj[:, None] + table.cycles.reshape(shape) / cycles[:, None]
        over = np.maximum(
            table.sp_bytes.reshape(shape) / 1024 / cap_kb[:, None], table.bank_words.reshape(shape) / cap_words[:, None]
        )
        score = np.where(over <= 1, slope, 1e9 * over)
        if orders is not None:
            score = np.where(np.arange(len(ORDERS))[:, None, None] == orders[:, i][:, None], 0.0, np.inf) + 0 * score
        flat = np.arange(score.size).reshape(score.shape)
        for seed in range(seeds):
            at = np.unravel_index(np.argmin(score[:, seed]), score[:, seed].shape)
            chosen[seed].append(table.mapping(flat[at[0], seed, at[1]]))
    return [(tuple(mappings), price(network, mappings)) for mappings in chosen]
