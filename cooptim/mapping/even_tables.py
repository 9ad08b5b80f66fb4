"""What links move and memories hold under even cuts, as tables over the points of a layer's lattice of divisors.

A table is read at a *kept point* of its link (`even_rows`): all that runs while the tile below the link stays.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from cooptim.mapping.lattice import CutBuilder, partial_at
from cooptim.mapping.tiers import operand_tiers
from cooptim.mapping.transfers import Transfer, input_transfers, output_transfers, units_on
from cooptim.workload import OPERANDS
from cooptim.workload.dims import DIMS

WIDTHS: tuple[str, ...] = ("W", "I", "O", "P")  # of weights, inputs, finished outputs, partial sums
_HIGH = {"read_to_low": "write_from_high", "write_from_low": "read_to_high"}  # what the level below calls it


@dataclasses.dataclass(frozen=True)
class Link:
    """Between a level of an operand (-1: the MACs) and the next one out; `start`: the first slot outside."""

    operand: str
    level: int
    start: int


@dataclasses.dataclass(frozen=True)
class Side:
    """Where words of a column pass: `times` as many through each of `instances` of a memory, in a direction."""

    memory: int
    port: str
    direction: str
    times: float
    instances: float


@dataclasses.dataclass(frozen=True)
class Column:
    """Words that one instance below a link sends or gets, by width; `table` at every kept point of the link.

    Attributes:
      link: index of the link; -1: no slot changes it, the table is one number.
      width: index in WIDTHS.
    """

    link: int
    width: int
    sides: tuple[Side, ...]
    table: Float[np.ndarray, "point"]


@dataclasses.dataclass(frozen=True)
class Tile:
    """Words that an operand holds in one instance of a memory, by width, at every kept point of the link above.

    Attributes:
      sides: through which it is filled (outputs: drained); none for the outermost memory.
    """

    operand: str
    memory: int
    link: int
    width: int
    sides: tuple[Side, ...]
    table: Float[np.ndarray, "point"]


def even_tables(build: CutBuilder) -> tuple[tuple[Link, ...], tuple[Column, ...], tuple[Tile, ...]]:
    """Links whose words depend on the mapping, all columns, all tiles."""
    links: list[Link] = []
    columns: list[Column] = []
    tiles: list[Tile] = []
    tiers = operand_tiers(build.machine)
    for operand in OPERANDS:
        places = build.machine.levels(operand)
        for m in range(-1, len(places) - 1):
            at, moving = len(links), m >= 0 or (operand != "O" and build.rules.operand_stays)
            if moving:
                links.append(Link(operand, m, 1 + (tiers[operand][m] if m >= 0 else -1)))
            made = _link_columns(build, operand, m, at if moving else -1)
            columns += made
            if m >= 0:
                tiles += _held(build, operand, m, at, made)
        level = build.level(operand, len(places) - 1, build.unroll, False)
        everything = np.broadcast_to(level.elements, build.grid.shape).reshape(-1)[-1:]
        tiles.append(Tile(operand, places[-1], -1, WIDTHS.index(operand), (), everything))
    return tuple(links), tuple(columns), tuple(tiles)


def _held(build: CutBuilder, operand: str, m: int, link: int, made: Sequence[Column]) -> list[Tile]:
    """Tiles of one level, by width."""
    levels, _, partial = build.link(operand, m, build.unroll)
    words = np.broadcast_to(levels[m].elements, build.grid.shape).reshape(-1)
    memory = build.machine.levels(operand)[m]
    unfinished = np.broadcast_to(partial, build.grid.shape).reshape(-1)
    found = []
    for width, share in ((operand, ~unfinished), ("P", unfinished)):
        if operand == "O" or width == operand:
            sides = next(c.sides for c in made if c.width == WIDTHS.index(width))
            found.append(Tile(operand, memory, link, WIDTHS.index(width), sides, np.where(share, words, 0.0)))
    return found


def _link_columns(build: CutBuilder, operand: str, m: int, link: int) -> list[Column]:
    """Words over a link by width: outputs apart as finished ones and partial sums, these back, too."""
    moved, partial, instances = _transfers(build, operand, m)
    fed = build.fed(operand, m + 1, build.unroll)
    places = build.machine.levels(operand)

    def sides(low: str, high: str) -> tuple[Side, ...]:
        pairs = [(m + 1, low, fed)] + ([(m, high, 1.0)] if m >= 0 else [])
        return tuple(
            Side(places[n], build.machine.memories[places[n]].port(operand, d).name, d, times, instances[n - m])
            for n, d, times in pairs
        )

    def column(direction: str, width: str, where: Any) -> Column:
        transfer = moved[direction]
        words = transfer.elements / fed * transfer.count * np.where(transfer.active, 1.0, 0.0) * where
        table = np.broadcast_to(words, build.grid.shape if link >= 0 else ()).reshape(-1).astype(float)
        return Column(link, WIDTHS.index(width), sides(direction, _HIGH[direction]), table)

    if operand != "O":
        return [column("read_to_low", operand, 1.0)]
    return [
        column("write_from_low", "O", np.where(partial, 0.0, 1.0)),
        column("write_from_low", "P", np.where(partial, 1.0, 0.0)),
        column("read_to_low", "P", 1.0),
    ]


def _transfers(build: CutBuilder, operand: str, m: int) -> tuple[dict[str, Transfer], Any, tuple[float, float]]:
    """(transfers seen from above the link, by direction; partial sums pass; instances below and above the link)."""
    if m >= 0:
        levels, found, partial = build.link(operand, m, build.unroll)
        moved = {d: t for (_, level, d), t in found.items() if level == m + 1}
        return moved, partial, (float(levels[m].instances), float(levels[m + 1].instances))
    fed = build.fed(operand, 0, build.unroll)
    if operand == "O" or not build.rules.operand_stays:  # one a step, whatever stays
        build = dataclasses.replace(
            build, grid=dataclasses.replace(build.grid, extents=np.ones(len(DIMS)), product=np.ones(()))
        )
    partial, visits = False, 1.0
    if operand == "O":
        outside = [a for s in build.machine.spread("O")[1:] for a in s]
        partial, visits = partial_at(build.grid, build.shape, build.unroll, outside, build.temporal)
    level = build.level(operand, 0, build.unroll, partial, visits)
    make = output_transfers if operand == "O" else input_transfers
    moved = make((level, level), 0, fed, build.grid.product, build.cycles, build.shape, build.rules, np)
    below = float(np.prod(units_on(build.unroll, range(len(build.machine.array)))))
    return moved, partial, (below, float(level.instances))
