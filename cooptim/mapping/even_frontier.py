"""Exact sets of even mappings that compete: Pareto rows, and rows that compete inside a box of prices and sizes.

A row (`even_rows`) has words moved per link and width class and words held per tile and width class; all of them only
enter what follows with weights that are never negative:

- energy: words x bits x (energy of an access / port width) x instances, summed. Linear.
- cycles (perfect overlap): the most of the temporal steps, which all rows share, and of every port's words x bits /
  width, plus first fill and last drain, which are words held x bits / width summed or compared. Rising in all of them.
- room: words held x bits, summed per memory, against its size.

**Pareto.** A row that is nowhere more than another in words moved and held costs no more energy and cycles and fits
wherever the other fits, whatever the prices, widths and sizes are, as long as partial sums are at least as wide as
finished outputs (then o bits x O + p bits x P = o bits x (O + P) + (p - o) bits x P: O + P and P are compared). So
every objective that never falls with energy, cycles or words held has an optimum among the rows left.

**Box.** Inside given intervals of widths, energies, port widths and sizes still fewer rows compete. Row b is dropped
for row a where for all points of the box: a costs no more energy than b; each memory holds no more under a, or a fits
at the widest data and the least size; each port is busy no longer under a, or under a never longer than the temporal
steps; first fill and last drain take no longer under a. Each comparison is between two functions linear in every
variable (bits of a class, price factor of a memory or port) taken alone; so the largest difference over the box lies
at a corner, and comparing at all corners is exact. "No more at every corner" is a partial order: the rows that nothing
drops hold an optimum for every point of the box. Rows that fit nowhere in the box (narrowest data, largest size) go
first, and their cuts with them. Variables are taken as independent: the box may be larger than what a machine can be.

Not covered, and why:

- word packing: ceil(words x bits / granule) is not linear; `soft_frontier.best_rows` prices winners again in full.
- ZigZag's stalls, windows and double-buffering rule: not rising in the words. The same.
- deadlines and a network's energy-delay product couple layers: with a multiplier, cost = energy + price x cycles.
- residency across layers; uneven cuts and more than three tiers (`search.best_mapping`).
- outside the box nothing is promised; bits of partial sums below those of outputs.
"""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int

from cooptim.hardware.hierarchy import Hierarchy
from cooptim.mapping.even_box import Box, Features, box_criteria, looked_up
from cooptim.mapping.even_rows import Rows, Space, even_space, joined, require_small
from cooptim.mapping.even_tables import WIDTHS
from cooptim.mapping.minimal import blockwise, minimal
from cooptim.mapping.nest import LayerShape, Nest
from cooptim.mapping.rules import HARDWARE, Rules

MAX_ROWS = 200_000  # kept of one layer
BATCH = 1 << 18  # rows compared in blocks at a time; 100 MB


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Rows of one layer: all mappings; distinct ones worth a look that fit somewhere; kept."""

    mappings: int
    distinct: int
    kept: int


@dataclasses.dataclass(frozen=True)
class EvenFrontier:
    """The rows of one layer that compete.

    Attributes:
      words: of each of `space.columns`. held: of each of `space.tiles`.
    """

    space: Space
    rows: Rows
    words: Float[np.ndarray, "column row"]
    held: Float[np.ndarray, "tile row"]
    sizes: Sizes


def _pareto_tables(space: Space) -> list[tuple[int, Int[np.ndarray, "point"]]]:
    """(link, rank at every kept point) of all that a Pareto row is compared in, each distinct one once."""
    partial = WIDTHS.index("P")
    found: dict[tuple[int, bytes], np.ndarray] = {}
    for items in (space.columns, space.tiles):
        for item in items:
            if item.link < 0:
                continue
            table = item.table
            if item.width == WIDTHS.index("O"):  # with partial sums: they are at least as wide
                table = table + next(
                    other.table
                    for other in items
                    if other.link == item.link and other.width == partial and other.sides == item.sides
                )
            rank = np.unique(np.round(table, 6), return_inverse=True)[1].reshape(-1).astype(np.int32)
            found.setdefault((item.link, rank.tobytes()), rank)
    return [(link, rank) for (link, _), rank in found.items()]


def _gathered(space: Space, features: Features | None) -> tuple[Rows, int]:
    """(rows less those that fit nowhere, equal ones, and those that neighbours dominate; rows before the last step)."""
    tables = _pareto_tables(space)
    parts: list[Rows] = []
    waiting: list[Rows] = []
    looked_at = 0

    def settle() -> None:
        nonlocal looked_at
        rows = joined(waiting)
        waiting.clear()
        order = np.lexsort((*rows.kept[::-1], rows.cuts[-1]) if space.slots > 1 else rows.kept)
        rows = rows.take(order)
        repeated = np.all(rows.kept[:, 1:] == rows.kept[:, :-1], axis=0)
        rows = rows.take(np.append(True, ~repeated))
        looked_at += rows.n
        for block in (32, 64, 256):
            criteria = np.stack([rank[rows.kept[link]] for link, rank in tables])
            rows = rows.take(blockwise(criteria, block))
        parts.append(rows)

    for rows in space.rows(None if features is None else features.allowed()):
        kept = rows if features is None else rows.take(features.fits(rows))
        waiting.append(kept)
        if sum(part.n for part in waiting) > BATCH:
            settle()
    if waiting and sum(part.n for part in waiting):
        settle()
    return (joined(parts) if parts else Rows(*(np.zeros((n, 0), dtype=np.int64) for n in _heights(space)))), looked_at


def _heights(space: Space) -> tuple[int, int, int]:
    return len(space.links), space.slots - 1, space.slots


def _bare(machine: Hierarchy) -> Hierarchy:
    """The machine with every number 1: what the set of mappings depends on, and hashable."""
    bare: Hierarchy = jax.tree.map(lambda _: 1.0, machine)
    return bare


Units = tuple[tuple[float, ...], ...]


@functools.lru_cache(maxsize=128)
def _space(
    shape: LayerShape, machine: Hierarchy, rules: Rules, unroll: Units, whole: Units, span: tuple[float, ...]
) -> Space:
    none = np.zeros(0, dtype=np.int64)
    return even_space("layer", shape, machine, rules, Nest(none, none, ((), (), ()), unroll, whole, span))


@functools.lru_cache(maxsize=128)
def _frontier(space_key: tuple[Any, ...], box: Box | None, most: int) -> EvenFrontier | int:
    """The set, or how many rows it has at least where that is more than `most`."""
    space, machine = _space(*space_key), space_key[1]
    features = None if box is None else Features(space, machine, box)
    rows, looked_at = _gathered(space, features)
    if features is None:
        criteria: Any = np.stack([rank[rows.kept[link]] for link, rank in _pareto_tables(space)])
    else:
        criteria = box_criteria(features, features.families(), rows)
    kept = minimal(criteria, most)
    if len(kept) > most:
        return len(kept)
    rows = rows.take(kept)
    words, held = (np.stack([looked_up(i, rows) for i in items]) for items in (space.columns, space.tiles))
    for array in (words, held, rows.kept, rows.cuts, rows.stay):
        array.setflags(write=False)
    return EvenFrontier(space, rows, words, held, Sizes(space.mappings, looked_at, rows.n))


def even_frontier(
    name: str,
    shape: LayerShape,
    machine: Hierarchy,
    unrolled: Nest,
    rules: Rules = HARDWARE,
    box: Box | None = None,
) -> EvenFrontier:
    """The even mappings of one layer that compete, cached per shape (bits aside), structure of the machine and box.

    Args:
      name: of the layer, for messages. unrolled: gives the units (see `cooptim.mapping.search.unrolled`).
      rules: HARDWARE or ZIGZAG; packing is off.
      box: where an optimum is promised; None: everywhere (the Pareto set).

    Raises ValueError for more than three tiers, more ways to cut than are tried, more than MAX_ROWS rows left, and
    where nothing fits at any point of the box.
    """
    unit = dataclasses.replace(shape, w_bits=1.0, i_bits=1.0, psum_bits=1.0, o_bits=1.0)
    key = (unit, _bare(machine), rules, unrolled.unroll, unrolled.whole, unrolled.span)
    require_small(name, unit, machine, unrolled)
    found = _frontier(key, box, MAX_ROWS)
    if isinstance(found, int):
        remedy = "a box of prices and sizes leaves fewer" if box is None else "narrow the box"
        raise ValueError(
            f"{name}: more than {MAX_ROWS} of {_space(*key).mappings} even mappings compete on {machine.name}; "
            f"{remedy}, or search by `cooptim.mapping.search.best_mapping`"
        )
    if not found.rows.n:
        raise ValueError(
            f"{name}: none of {found.sizes.mappings} even mappings fits into the memories of {machine.name} at the "
            "largest sizes and narrowest data of the box; widen it"
        )
    return found
