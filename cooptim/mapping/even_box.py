"""A box of prices, widths and sizes, and the linear functions by which rows compare inside it (see `even_frontier`)."""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from cooptim.hardware.hierarchy import Hierarchy, Memory
from cooptim.mapping.even_rows import Rows, Space
from cooptim.mapping.even_tables import Column, Side, Tile
from cooptim.mapping.nest import LayerShape
from cooptim.mapping.stack import usable_room

MAX_CORNERS = 4096
Interval = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Box:
    """Intervals inside which a boxed set holds an optimum.

    Attributes:
      widths: [bit], of weights, inputs, finished outputs, partial sums (WIDTHS), effective ones (width x stored share).
      rooms: per memory, bits that tiles may fill.
      access_pj: per memory (read, write) at a factor of 1. factors: per memory, of both.
      ports: per memory and port its width [bit].
      priced: per memory and port the width [bit] at which access_pj holds (then a bit costs the same at any width);
        None: an access costs the same at any width.
      latency: objectives may count cycles; without, energy alone (fewer rows).
    """

    widths: tuple[Interval, Interval, Interval, Interval]
    rooms: tuple[Interval, ...]
    access_pj: tuple[Interval, ...]
    factors: tuple[Interval, ...]
    ports: tuple[tuple[Interval, ...], ...]
    priced: tuple[tuple[float | None, ...], ...]
    latency: bool = True

    def __post_init__(self) -> None:
        """Raises ValueError where partial sums may be narrower than outputs: dominance does not hold there."""
        if self.widths[3][0] < self.widths[2][1]:
            raise ValueError(
                f"box: partial sums of {self.widths[3][0]:g} bit beside outputs of {self.widths[2][1]:g} bit; legal: "
                "partial sums at least as wide as outputs; raise the least psum_bits or lower the most o_bits"
            )

    def require_inside(self, name: str, shape: LayerShape, machine: Hierarchy) -> None:
        """Raises ValueError unless a layer's bits and a machine's numbers lie inside."""
        found = [
            (f"{w}_bits", b, span)
            for w, b, span in zip(("w", "i", "o", "psum"), _bits(shape), self.widths, strict=True)
        ]
        for m, memory in enumerate(machine.memories):
            found.append((f"{memory.name} room", float(usable_room(memory)), self.rooms[m]))
            for kind, cost, nominal in zip(
                ("read_pj", "write_pj"), (memory.read_pj, memory.write_pj), self.access_pj[m], strict=True
            ):
                scaled = (nominal * self.factors[m][0], nominal * self.factors[m][1])
                found.append((f"{memory.name} {kind} at its size", float(cost * memory.access_scale()), scaled))
            for port, span in zip(memory.ports, self.ports[m], strict=True):
                found.append((f"{memory.name} port {port.name}", float(port.bw_max_bits), span))
        for what, value, (least, most) in found:
            if not least * (1 - 1e-9) <= value <= most * (1 + 1e-9):
                raise ValueError(
                    f"{name}: {what} of {value:g} lies outside the box of its set; legal: {least:g} to {most:g}; make "
                    "the set with a wider box"
                )


def _bits(shape: LayerShape) -> tuple[float, float, float, float]:
    """In the order of WIDTHS."""
    return float(shape.w_bits), float(shape.i_bits), float(shape.o_bits), float(shape.psum_bits)


def _stretched(memory: Memory, sizes: Interval, factor: float) -> Interval:
    """Energy of an access over that at nominal size, for all sizes between two, times 1 / factor to factor."""
    points = [s for s in sizes if math.isfinite(s)]
    points += [float(s) for s, _ in memory.size_table if sizes[0] < s < sizes[1]]
    scales = [float(dataclasses.replace(memory, size_bits=s).access_scale()) for s in points] or [1.0]
    return min(scales) / factor, max(scales) * factor


def box_around(
    machine: Hierarchy,
    w_bits: Interval = (1.0, 16.0),
    i_bits: Interval = (1.0, 16.0),
    o_bits: Interval = (1.0, 16.0),
    psum_bits: Interval = (16.0, 32.0),
    size_factor: float = 1.0,
    energy_factor: float = 1.0,
    port_factor: float = 1.0,
    latency: bool = True,
) -> Box:
    """A box around a machine.

    Args:
      size_factor, energy_factor, port_factor: the largest change either way, at least 1. Sizes stay within what can be
        built; those that cannot change do not, and energies follow them besides.

    Raises ValueError for intervals that are empty or not positive, and factors below 1.
    """
    for what, interval in (("w_bits", w_bits), ("i_bits", i_bits), ("o_bits", o_bits), ("psum_bits", psum_bits)):
        if not 0.0 < interval[0] <= interval[1] < math.inf:
            raise ValueError(
                f"box around {machine.name}: {what} {interval}; legal: (least, most) with 0 < least <= most"
            )
    for what, factor in (("size", size_factor), ("energy", energy_factor), ("port", port_factor)):
        if not 1.0 <= factor < math.inf:
            raise ValueError(f"box around {machine.name}: {what}_factor {factor}; legal: 1 (fixed) or more")
    rooms, energies, factors, ports, priced = [], [], [], [], []
    for memory in machine.memories:
        size = float(memory.size_bits)
        least, most = min(size, float(memory.min_bits)), max(size, float(memory.max_bits))
        sizes = (max(size / size_factor, least), min(size * size_factor, most)) if math.isfinite(size) else (size, size)
        usable = 0.5 if memory.double_buffered == "always" else 1.0
        rooms.append((usable * sizes[0], usable * sizes[1]))
        energies.append((float(memory.read_pj), float(memory.write_pj)))
        factors.append(_stretched(memory, sizes, energy_factor))
        widths = [float(p.bw_max_bits) for p in memory.ports]
        ports.append(tuple((w / port_factor, w * port_factor) for w in widths))
        priced.append(tuple(None if p.nominal_bits is None else float(p.nominal_bits) for p in memory.ports))
    return Box(
        (w_bits, i_bits, o_bits, psum_bits),
        tuple(rooms),
        tuple(energies),
        tuple(factors),
        tuple(ports),
        tuple(priced),
        latency,
    )


@dataclasses.dataclass(frozen=True)
class Family:
    """Linear functions of words [function, feature] of which a row must not have more; 0 for rows that `calm` exempts.

    Attributes:
      calm: (weights, most): rows where the weighted sum is at most that have nothing to fear from this family.
    """

    weights: Float[np.ndarray, "function feature"]
    calm: tuple[Float[np.ndarray, "feature"], float] | None = None


def _corners(variables: Sequence[Interval]) -> list[tuple[float, ...]]:
    return list(itertools.product(*(sorted(set(v)) for v in variables)))


def _rays(weights: Sequence[Any]) -> Float[np.ndarray, "function feature"]:
    """The functions that differ in more than a factor."""
    table = np.array(weights, dtype=float)
    table = table[np.any(table > 0, axis=1)]
    table = table / table.max(axis=1, initial=0.0, keepdims=True)
    return table[np.unique(np.round(table, 14), axis=0, return_index=True)[1]] if len(table) else table


def _port_index(machine: Hierarchy, side: Side) -> int:
    return [p.name for p in machine.memories[side.memory].ports].index(side.port)


@dataclasses.dataclass(frozen=True)
class Features:
    """Words of columns, then of tiles, and the functions of them that a box compares."""

    space: Space
    machine: Hierarchy
    box: Box

    @property
    def items(self) -> tuple[Any, ...]:
        """Columns, then tiles."""
        return (*self.space.columns, *self.space.tiles)

    def values(self, rows: Rows) -> Float[np.ndarray, "feature n"]:
        """Words of every item in every row."""
        return np.stack([looked_up(item, rows) for item in self.items])

    def widths(self, corner: Sequence[float]) -> Float[np.ndarray, "feature"]:
        """Bits of a word of every item where the widths are these."""
        return np.array([corner[item.width] for item in self.items], dtype=float)

    @property
    def moving(self) -> Float[np.ndarray, "feature"]:
        """1 for features that rows differ in, else 0."""
        return np.array([float(item.link >= 0) for item in self.items])

    def _rays(self, rates: Sequence[Any]) -> Float[np.ndarray, "function feature"]:
        """At every corner of widths and for all rates [feature], the functions that differ in more than a factor."""
        corners = [self.widths(c) for c in _corners(self.box.widths)]
        return _rays([rate * widths * self.moving for rate in rates for widths in corners])

    @property
    def _edge(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return tuple(lo for lo, _ in self.box.widths), tuple(hi for _, hi in self.box.widths)

    def energy(self) -> Family:
        """Price of a word of each column at every corner of widths, factors and ports."""
        box, memories = self.box, self.machine.memories
        variables: list[Interval] = []
        place: dict[tuple[int, int], int] = {}
        for m in range(len(memories)):
            moving = [lo < hi and box.priced[m][p] is None for p, (lo, hi) in enumerate(box.ports[m])]
            for p, (lo, hi) in enumerate(box.ports[m]):
                if any(moving) or p == 0:
                    half = math.sqrt(hi / lo) if moving[p] else 1.0
                    variables.append((box.factors[m][0] / half, box.factors[m][1] * half))
                place[m, p] = len(variables) - 1
        count = math.prod(len(set(v)) for v in (*box.widths, *variables))
        if count > MAX_CORNERS:
            raise ValueError(
                f"{self.machine.name}: a box with {count} corners of widths, energies and ports; at most {MAX_CORNERS} "
                "are compared; fix the ports (port_factor=1) or more of the sizes"
            )
        parts = np.zeros((len(variables), len(self.items)))
        for i, column in enumerate(self.space.columns):
            for side in column.sides:
                p = _port_index(self.machine, side)
                cost = box.access_pj[side.memory][0 if side.direction.startswith("read") else 1]
                width = box.priced[side.memory][p] or math.sqrt(math.prod(box.ports[side.memory][p]))
                parts[place[side.memory, p], i] += side.times * side.instances * cost / width
        return Family(self._rays([np.array(c) @ parts for c in _corners(variables)]))

    def rooms(self) -> list[Family]:
        """Per memory of a limit its filling at every corner of widths; calm where it always fits."""
        found = []
        for m, (least, _) in enumerate(self.box.rooms):
            here = self._held_in(m)
            if math.isfinite(least) and here.any():
                found.append(Family(self._rays([here]), (here * self.widths(self._edge[1]), least)))
        return found

    def _held_in(self, m: int) -> Float[np.ndarray, "feature"]:
        none = [0.0] * len(self.space.columns)
        return np.array(none + [float(tile.memory == m) for tile in self.space.tiles])

    def fits(self, rows: Rows) -> Bool[np.ndarray, "n"]:
        """Whether a row fits at the narrowest data and the largest sizes."""
        values, found = self.values(rows), np.ones(rows.n, dtype=bool)
        for m, (_, most) in enumerate(self.box.rooms):
            found &= (self._held_in(m) * self.widths(self._edge[0])) @ values <= most * (1 + 1e-12)
        return found

    def allowed(self) -> list[Bool[np.ndarray, "point"]]:
        """Per cut the points under which the tiles of its tier's memories may fit."""
        found = [np.ones(self.space.grid.points, dtype=bool) for _ in range(self.space.slots - 1)]
        for m, (_, most) in enumerate(self.box.rooms):
            total, cut = np.zeros(self.space.grid.points), None
            for tile in self.space.tiles:
                if tile.memory == m and tile.link >= 0:
                    cut = self.space.links[tile.link].start - 1
                    least = min(self._edge[0][2:]) if tile.operand == "O" else self._edge[0][tile.width]
                    total += tile.table * least
            if cut is not None:
                found[cut] &= total <= most * (1 + 1e-12)
        return found

    def ports(self) -> list[Family]:
        """Per port its busy cycles at every corner of widths; calm where they never exceed the temporal steps."""
        found = []
        for m, memory in enumerate(self.machine.memories):
            for p, port in enumerate(memory.ports):
                times = np.zeros(len(self.items))
                for i, column in enumerate(self.space.columns):
                    times[i] += sum(s.times for s in column.sides if (s.memory, s.port) == (m, port.name))
                if times.any():
                    most = self.space.steps * self.box.ports[m][p][0]
                    found.append(Family(self._rays([times]), (times * self.widths(self._edge[1]), most)))
        return found

    def fills(self) -> list[Family]:
        """First fill and last drain at every corner of widths and ports."""
        groups = [("W", "I", "O")] if shares_inputs(self.machine) else [("W", "O"), ("I", "O")]
        found = []
        for group in groups:
            spans: list[tuple[int, Interval]] = []
            for i, tile in enumerate(self.space.tiles):
                if tile.sides and tile.operand in group:
                    at = [(s.times, self.box.ports[s.memory][_port_index(self.machine, s)]) for s in tile.sides]
                    span = (max(t / hi for t, (_, hi) in at), max(t / lo for t, (lo, _) in at))
                    spans.append((len(self.space.columns) + i, span))
            rates = []
            for corner in _corners([span for _, span in spans]):
                rate = np.zeros(len(self.items))
                rate[[i for i, _ in spans]] = corner
                rates.append(rate)
            if spans:
                found.append(Family(self._rays(rates)))
        return found

    def families(self) -> list[Family]:
        """All that rows compare in."""
        timed = [*self.ports(), *self.fills()] if self.box.latency else []
        return [self.energy(), *self.rooms(), *timed]


def looked_up(item: Column | Tile, rows: Rows) -> Float[np.ndarray, "n"]:
    """A column's or a tile's words in every row."""
    return item.table[rows.kept[item.link]] if item.link >= 0 else np.full(rows.n, float(item.table[0]))


def shares_inputs(machine: Hierarchy) -> bool:
    """Whether some port serves both weights and inputs, so that they are filled one after the other."""
    return any({"W", "I"} <= {o for o, _ in port.serves} for memory in machine.memories for port in memory.ports)


def box_criteria(features: Features, families: Sequence[Family], rows: Rows) -> Float[np.ndarray, "criterion n"]:
    """What rows compare in, smaller is better: every function of every family, 0 where a row is exempt."""
    values, found = features.values(rows), []
    for family in families:
        made = family.weights @ values
        if family.calm is not None:
            made = np.where(family.calm[0] @ values <= family.calm[1], 0.0, made)
        found.append(made)
    return np.concatenate(found)
