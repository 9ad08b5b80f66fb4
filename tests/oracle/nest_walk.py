"""Slow oracle: walks one mapping cycle by cycle, unit by unit, and moves sets of elements between memories.

It shares no code with the package and knows no closed form. An instance of a memory holds, for as long as the loops
outside it stand still, the set of elements that the loops and units inside it touch. Loops that leave an operand where
it is do not move it. When the tile below changes, the instance hands out (inputs) or takes in (outputs) the tiles
below it, each of the same data once; a partial sum is read where the instance has seen its output before.

Conventions that are no matter of counting are stated where they are taken: which loop indices name a tile, what a tile
of inputs that reaches into the padding holds, and when units are on the same input.
"""

import dataclasses
import itertools
import math
from fractions import Fraction

DIMS = ("B", "G", "K", "C", "OY", "OX", "FY", "FX")
MOVED_BY = {
    "W": ("G", "K", "C", "FY", "FX"),
    "I": ("B", "G", "C", "OY", "OX", "FY", "FX"),
    "O": ("B", "G", "K", "OY", "OX"),
}


@dataclasses.dataclass(frozen=True)
class Store:
    """One memory: operands it holds and array axes that one instance serves."""

    operands: tuple[str, ...]
    serves: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Walk:
    """A layer under a mapping.

    Attributes:
      loops: (dim, factor), innermost first. units: per array axis its (dim, units), the first fastest.
      cuts: per operand and level the number of loops inside.
      input_size: unpadded rows and columns of the input; before: rows and columns of padding in front.
    """

    loops: tuple[tuple[str, int], ...]
    units: tuple[tuple[tuple[str, int], ...], ...]
    stores: tuple[Store, ...]
    cuts: dict[str, tuple[int, ...]]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    input_size: tuple[int, int]
    before: tuple[int, int] = (0, 0)


@dataclasses.dataclass
class Link:
    """What all instances move in one direction.

    Attributes:
      moves: elements of each visit and instance. first: those of them that the instance never held before (of partial
        sums going back: there is nothing to read yet).
      unfinished: some of what passes is a partial sum.
    """

    moves: list[int] = dataclasses.field(default_factory=list)
    first: list[int] = dataclasses.field(default_factory=list)
    unfinished: bool = False

    def elided(self) -> "Link":
        """The same without first reads."""
        return Link([n - f for n, f in zip(self.moves, self.first, strict=True)], [], self.unfinished)

    @property
    def elements(self) -> int:
        """Elements moved by all instances."""
        return sum(self.moves)

    def accesses(self, bits: int, granule: int, width: int) -> int:
        """Whole accesses of a port: each transfer fills whole granules; nothing moved costs nothing."""
        return math.floor(sum(Fraction(-(-n * bits // granule) * granule, width) for n in self.moves))


@dataclasses.dataclass
class Held:
    """One level of one operand: elements in an instance, instances, and all real (unpadded) elements ever filled in."""

    elements: set[int] = dataclasses.field(default_factory=set)
    instances: int = 0
    real: int = 0


@dataclasses.dataclass
class Counts:
    """Per (operand, level, direction) a Link, per (operand, level) what is held."""

    links: dict[tuple[str, int, str], Link]
    held: dict[tuple[str, int], Held]
    cycles: int


def _digits(sizes):
    """All digit tuples of a mixed radix, the first digit fastest."""
    return [tuple(reversed(d)) for d in itertools.product(*(range(n) for n in reversed(sizes)))]


def _inside(walk: Walk, operand: str) -> list[set[int]]:
    """Array axes inside one instance of each level of an operand."""
    served: set[int] = set()
    found = []
    for store in walk.stores:
        if operand in store.operands:
            served = served | set(store.serves)
            found.append(set(served))
    return found


def _weights(walk: Walk) -> tuple[list[dict[str, int]], list[int]]:
    """Place values: per array axis and pair, per loop; for inputs, what is further in comes first, so that windows are
    runs of neighbours. Returns (per flat unit digit its value, per loop its value)."""
    order: list[tuple[str, int]] = []
    flat = [(axis, pair) for axis, pairs in enumerate(walk.units) for pair in range(len(pairs))]
    done: set[int] = set()
    start = 0
    for axes, cut in zip(_inside(walk, "I"), walk.cuts["I"], strict=True):
        order += [("unit", flat.index((a, p))) for a, p in flat if a in axes - done]
        order += [("loop", i) for i in range(start, cut)]
        done, start = done | axes, max(start, cut)
    order += [("unit", flat.index((a, p))) for a, p in flat if a not in done]
    value = dict.fromkeys(DIMS, 1)
    unit_value, loop_value = [0] * len(flat), [0] * len(walk.loops)
    for kind, i in order:
        dim, size = walk.units[flat[i][0]][flat[i][1]] if kind == "unit" else walk.loops[i]
        (unit_value if kind == "unit" else loop_value)[i] = value[dim]
        value[dim] *= size
    return unit_value, loop_value


def _point(pairs, digits, values) -> dict[str, int]:
    at = dict.fromkeys(DIMS, 0)
    for (dim, _), digit, value in zip(pairs, digits, values, strict=True):
        at[dim] += digit * value
    return at


def _position(walk: Walk, at: dict[str, int], axis: int) -> int:
    out, tap = (("OY", "FY"), ("OX", "FX"))[axis]
    return at[out] * walk.stride[axis] + at[tap] * walk.dilation[axis]


def _tag(walk: Walk, operand: str, at: dict[str, int]) -> tuple[int, ...]:
    if operand == "I":
        return (at["B"], at["G"], at["C"], _position(walk, at, 0), _position(walk, at, 1))
    return tuple(at[d] for d in MOVED_BY[operand])


def _amount(walk: Walk, operand: str, tile: set) -> int:
    """Elements that a tile counts. Of inputs each axis counts its positions, padding too, but at most the unpadded
    input: a tile at the edge is as large as one in the middle."""
    if operand != "I":
        return len(tile)
    plain, rows, cols = {t[:3] for t in tile}, {t[3] for t in tile}, {t[4] for t in tile}
    assert len(tile) == len(plain) * len(rows) * len(cols)
    return len(plain) * min(len(rows), walk.input_size[0]) * min(len(cols), walk.input_size[1])


def _real(walk: Walk, tile: set) -> int:
    """Elements of an input tile that are no padding."""
    (y0, x0), (ys, xs) = walk.before, walk.input_size
    return sum(y0 <= t[3] < y0 + ys and x0 <= t[4] < x0 + xs for t in tile)


def _apart(walk: Walk, axes: set[int]) -> int:
    """Inputs that units touch while each is on one: how units on the same input are told. Place values of the units
    alone: what the loops below add to each of them is left out."""
    pairs = [p for a, ps in enumerate(walk.units) if a in axes for p in ps]
    value = dict.fromkeys(DIMS, 1)
    values = []
    for dim, size in pairs:
        values.append(value[dim])
        value[dim] *= size
    points = (_point(pairs, digits, values) for digits in _digits([n for _, n in pairs]))
    return _amount(walk, "I", {_tag(walk, "I", at) for at in points})


class _Operand:
    """The elements of one operand at every cycle and unit, and how loops and units fall into levels."""

    def __init__(self, walk: Walk, operand: str) -> None:
        self.walk, self.operand = walk, operand
        self.cuts, self.inside = walk.cuts[operand], _inside(walk, operand)
        self.flat = [(axis, pair) for axis, pairs in enumerate(walk.units) for pair in pairs]
        pairs = [pair for _, pair in self.flat]
        unit_value, loop_value = _weights(walk)
        self.steps, self.places = _digits([n for _, n in walk.loops]), _digits([n for _, n in pairs])
        spots = [_point(pairs, u, unit_value) for u in self.places]
        times = [_point(walk.loops, t, loop_value) for t in self.steps]
        self.tags = [[_tag(walk, operand, {d: time[d] + spot[d] for d in DIMS}) for spot in spots] for time in times]

    def instance(self, level: int) -> list[tuple[int, ...]]:
        """The instance of a level that each unit belongs to; level -1: its own."""
        inside = self.inside[level] if level >= 0 else set()
        return [tuple(d for d, (a, _) in zip(u, self.flat, strict=True) if a not in inside) for u in self.places]

    def stays(self, level: int) -> list[tuple[int, ...]]:
        """What names the tile of a level at each cycle: indices of the loops outside that move the operand. Two tiles
        of other indices are two, though a halo, or all of a tile, may be the same data."""
        cut = self.cuts[level] if level >= 0 else 0
        names = [i for i, (d, _) in enumerate(self.walk.loops) if i >= cut and d in MOVED_BY[self.operand]]
        return [tuple(step[i] for i in names) for step in self.steps]

    def visits(self, level: int) -> list[range]:
        """Runs of cycles through which the tile of a level stays."""
        names = self.stays(level)
        starts = [t for t in range(len(names)) if t == 0 or names[t] != names[t - 1]]
        return [range(a, b) for a, b in zip(starts, [*starts[1:], len(names)], strict=True)]

    def tiles(self, level: int, visit: range, where: list) -> dict[tuple[int, ...], set]:
        """Elements in each instance during a visit."""
        found: dict[tuple[int, ...], set] = {}
        for t in visit:
            for at, tag in zip(where, self.tags[t], strict=True):
                found.setdefault(at, set()).add(tag)
        return found


def _fill(part: _Operand, level: int, counts: Counts) -> None:
    """Inputs and weights written into a level from above, and what it holds."""
    held, link = Held(), Link()
    where = part.instance(level)
    for visit in part.visits(level):
        tiles = part.tiles(level, visit, where)
        held.instances = len(tiles)
        for tile in tiles.values():
            n = _amount(part.walk, part.operand, tile)
            held.elements.add(n)
            held.real += _real(part.walk, tile) if part.operand == "I" else len(tile)
            link.moves.append(n)
    counts.held[part.operand, level] = held
    counts.links[part.operand, level, "write_from_high"] = link


def _feed(part: _Operand, level: int, counts: Counts) -> None:
    """Inputs and weights read from a level towards the MACs: every tile below once, however many units take it."""
    link = Link()
    above, below = part.instance(level), part.instance(level - 1)
    inner = part.inside[level - 1] if level else set()
    for visit in part.visits(level - 1):
        groups: dict[tuple[int, ...], set] = {}
        sizes: dict[tuple[int, ...], int] = {}
        tiles = part.tiles(level - 1, visit, below)
        for at, child in zip(above, below, strict=True):
            groups.setdefault(at, set()).add(frozenset(tiles[child]))
            sizes[at] = _amount(part.walk, part.operand, tiles[child])
        for at, different in groups.items():
            if part.operand == "I":
                fed = round(Fraction(_apart(part.walk, part.inside[level]), _apart(part.walk, inner)))
            else:
                fed = len(different)
            link.moves.append(sizes[at] * fed)
    counts.links[part.operand, level, "read_to_low"] = link


def _collect(part: _Operand, level: int, counts: Counts, macs: int) -> None:
    """Outputs between a level and what is below it: sums come in, reduced over the units inside, and go back."""
    up, down = Link(), Link()
    above = part.instance(level)
    seen: dict[tuple[int, ...], set] = {}
    visits = part.visits(level - 1) if level else [range(t, t + 1) for t in range(len(part.steps))]
    for visit in visits:
        sums: dict[tuple[int, ...], dict[tuple[int, ...], int]] = {}
        for t in visit:
            for at, tag in zip(above, part.tags[t], strict=True):
                mine = sums.setdefault(at, {})
                mine[tag] = mine.get(tag, 0) + 1
        for at, mine in sums.items():
            known = seen.setdefault(at, set())
            up.moves.append(len(mine))
            down.moves.append(len(mine))
            down.first.append(len(set(mine) - known))
            known |= set(mine)
            up.unfinished |= any(done < macs for done in mine.values())
    if not up.unfinished:
        down = Link()
    counts.links["O", level, "write_from_low"], counts.links["O", level, "read_to_low"] = up, down
    down.unfinished = up.unfinished


def _drain(part: _Operand, level: int, counts: Counts) -> None:
    """Outputs between a level and what is above it, and what it holds."""
    held, up, down = Held(), Link(), Link()
    where = part.instance(level)
    seen: dict[tuple[int, ...], set] = {}
    for visit in part.visits(level):
        tiles = part.tiles(level, visit, where)
        held.instances = len(tiles)
        for at, tile in tiles.items():
            known = seen.setdefault(at, set())
            held.elements.add(len(tile))
            up.moves.append(len(tile))
            down.moves.append(len(tile))
            down.first.append(len(tile - known))
            known |= tile
    counts.held["O", level] = held
    counts.links["O", level, "read_to_high"], counts.links["O", level, "write_from_high"] = up, down


def count(walk: Walk) -> Counts:
    """Everything that moves under a mapping; the outermost level has no level above."""
    counts = Counts({}, {}, math.prod(n for _, n in walk.loops))
    for operand in ("W", "I"):
        part = _Operand(walk, operand)
        for level in range(len(part.cuts)):
            _fill(part, level, counts)
            _feed(part, level, counts)
        del counts.links[operand, level, "write_from_high"]
    part = _Operand(walk, "O")
    pairs = [*walk.loops, *(p for ps in walk.units for p in ps)]
    macs = math.prod(n for d, n in pairs if d not in MOVED_BY["O"])
    for level in range(len(part.cuts)):
        _collect(part, level, counts, macs)
        _drain(part, level, counts)
    for direction in ("read_to_high", "write_from_high"):
        del counts.links["O", level, direction]
    for level in range(len(part.cuts) - 1):
        partial = counts.links["O", level + 1, "write_from_low"].unfinished
        for direction in ("read_to_high", "write_from_high"):
            counts.links["O", level, direction].unfinished = partial
        if not partial:
            counts.links["O", level, "write_from_high"] = Link()
    return counts
