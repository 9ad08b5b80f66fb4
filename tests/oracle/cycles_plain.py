"""Slow oracle: cycles and accesses of one mapping in whole numbers and fractions, with lists of loops instead of masks.

Written from ../shared/golden/zigzag/SEMANTICS.md; it shares no code with the package. Windows of a shared port are laid
out cycle by cycle. First reads of partial sums are charged as there, or elided: then what never comes back is no
transfer, and what comes back does so one visit less.
"""

import dataclasses
import math
from collections.abc import Iterable
from fractions import Fraction

IDLE = {"W": ("B", "OY", "OX"), "I": ("K",), "O": ("C", "FY", "FX")}
WHOLLY = {"W": ("G", "K", "C", "FY", "FX"), "I": ("B", "G", "C"), "O": ("B", "G", "K", "OY", "OX")}


@dataclasses.dataclass(frozen=True)
class Port:
    """`serves`: (operand, direction) pairs."""

    name: str
    serves: tuple[tuple[str, str], ...]
    width: int
    granule: int


@dataclasses.dataclass(frozen=True)
class Store:
    """One memory; `buffering` is 'room', 'always' or 'never'."""

    name: str
    operands: tuple[str, ...]
    serves: tuple[int, ...]
    size: int
    buffering: str
    ports: tuple[Port, ...]


@dataclasses.dataclass(frozen=True)
class Setting:
    """A layer under a mapping.

    Attributes:
      units: per array axis {dim: units}; fractions where the array does not divide the layer.
      built: units that stand there along each axis. bits: W, I, psum, O.
    """

    macs: int
    loops: tuple[tuple[str, int], ...]
    units: tuple[dict[str, Fraction], ...]
    built: tuple[int, ...]
    array: tuple[int, ...]
    systolic: tuple[int, ...]
    stores: tuple[Store, ...]
    cuts: dict[str, tuple[int, ...]]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    input_size: tuple[int, int]
    bits: dict[str, int]
    charge_first_read: bool


@dataclasses.dataclass(frozen=True)
class Move:
    """`elements` of `bits` every `period` cycles, `count` times, by one instance."""

    elements: int
    bits: int
    period: int
    count: int
    rate: Fraction


@dataclasses.dataclass
class Cycles:
    """What a mapping takes."""

    ideal: int
    temporal: int
    stall: Fraction
    onload: Fraction
    offload: Fraction
    drain: int
    per_port: dict[tuple[str, str], Fraction]
    buffered: dict[tuple[str, int], bool]


def _product(loops) -> int:
    return math.prod(n for _, n in loops)


def _run(loops: Iterable[tuple[str, int]], dims: tuple[str, ...]) -> int:
    """Product of the first loops while they are of these dims."""
    found = 1
    for dim, n in loops:
        if dim not in dims:
            break
        found *= n
    return found


class _Part:
    """One operand: merged loops and units by level, tiles, instances."""

    def __init__(self, s: Setting, operand: str, whole: bool) -> None:
        self.s, self.operand = s, operand
        self.stores = [store for store in s.stores if operand in store.operands]
        edges = (0, *s.cuts[operand])
        self.T = [[p for p in s.loops[a:b] if p[1] > 1] for a, b in zip(edges[:-1], edges[1:], strict=True)]
        moved = True
        while moved:  # loops that leave the tile below as it is belong to the level below, as far down as they come
            moved = False
            for m in range(1, len(self.T)):
                while self.T[m] and self.T[m][0][0] in IDLE[operand]:
                    self.T[m - 1].append(self.T[m].pop(0))
                    moved = True
        self.S, left = [], set(range(len(s.units)))
        for store in self.stores:
            self.S.append([self._axis(a, whole) for a in sorted(left & set(store.serves))])
            left -= set(store.serves)
        self.S.append([self._axis(a, whole) for a in sorted(left)])
        self.cycles = _product(s.loops)

    def _axis(self, axis: int, whole: bool):
        return [(d, Fraction(math.floor(n)) if whole else n) for d, n in self.s.units[axis].items()]

    def _distinct(self, loops) -> int:
        """Distinct elements under loops and units."""
        extent = dict.fromkeys(("B", "G", "K", "C", "OY", "OX", "FY", "FX"), Fraction(1))
        for dim, n in loops:
            extent[dim] *= n
        found = math.prod(extent[d] for d in WHOLLY[self.operand])
        if self.operand == "I":
            for axis, (out, tap) in enumerate((("OY", "FY"), ("OX", "FX"))):
                o, f = math.floor(extent[out]), math.floor(extent[tap])
                g = math.gcd(self.s.stride[axis], self.s.dilation[axis])
                again = max(0, f - self.s.stride[axis] // g) * (o - self.s.dilation[axis] // g)
                if not self.s.charge_first_read:  # what hardware does: no gaps between taps
                    again = max(0, again)
                found *= min(o * f - again, self.s.input_size[axis])
        return found

    def _inner(self, m: int):
        return [p for axes in self.S[: m + 1] for axis in axes for p in axis]

    def tile(self, m: int) -> int:
        return round(self._distinct([*self._inner(m), *(p for t in self.T[: m + 1] for p in t)])) if m >= 0 else 1

    def fed(self, m: int) -> int:
        """Different tiles below that one instance feeds."""
        before = self._distinct(self._inner(m - 1)) if m else 1
        return round(Fraction(self._distinct(self._inner(m))) / before)

    def instances(self, m: int) -> int:
        return round(math.prod((n for axes in self.S[m + 1 :] for axis in axes for _, n in axis), start=Fraction(1)))

    def period(self, m: int) -> int:
        return _product([p for t in self.T[: m + 1] for p in t])

    def stay(self) -> int:
        return _run(self.T[0], IDLE[self.operand]) if self.operand != "O" else 1

    def psum(self, m: int) -> bool:
        """Partial sums travel between level m and what is below it."""
        if self.operand != "O" or m >= len(self.T):
            return False
        loops = [p for t in self.T[m:] for p in t] + [p for axes in self.S[m + 1 :] for axis in axes for p in axis]
        return any(d in IDLE["O"] and n > 1 for d, n in loops)

    def width(self, m: int) -> int:
        """Bits of an element that travels between level m and what is below it."""
        if self.operand != "O":
            return self.s.bits[self.operand]
        return self.s.bits["psum" if self.psum(m) else "O"]

    def tile_bits(self, m: int) -> int:
        return self.tile(m) * self.width(m + 1)

    def _link(self, m: int, elements: int, count_from: int, period: int, back: bool) -> Move | None:
        """Over the link below level m; `count_from`: first level whose loops bring a sum back."""
        count = self.cycles // period
        if back:
            if not self.psum(m):
                return None
            visits = _product([p for t in self.T[count_from:] for p in t if p[0] in IDLE["O"]])
            if not self.s.charge_first_read:
                count -= count // visits
            if count == 0:
                return None
        bits = self.width(m)
        return Move(elements, bits, period, count, Fraction(elements * bits, period))

    def moves(self, m: int) -> dict[str, Move]:
        """Transfers of level m by direction."""
        elements = self.tile(m - 1) * self.fed(m)
        period = self.period(m - 1) if m else self.stay()
        found: dict[str, Move | None] = {}
        if self.operand == "O":
            found["write_from_low"] = self._link(m, elements, m, period, False)
            found["read_to_low"] = self._link(m, elements, m, period, True)
            if m < len(self.T) - 1:
                found["read_to_high"] = self._link(m + 1, self.tile(m), m + 1, self.period(m), False)
                found["write_from_high"] = self._link(m + 1, self.tile(m), m + 1, self.period(m), True)
        else:
            found["read_to_low"] = self._link(m, elements, m, period, False)
            if m < len(self.T) - 1:
                found["write_from_high"] = self._link(m + 1, self.tile(m), m + 1, self.period(m), False)
        return {direction: move for direction, move in found.items() if move}


def _buffered(s: Setting, parts: dict[str, _Part]) -> dict[tuple[str, int], bool]:
    share: dict[tuple[str, int], Fraction] = {}
    used: dict[str, Fraction] = {}
    for op in ("O", "W", "I"):
        part = parts[op]
        for m, store in enumerate(part.stores):
            run = _run(reversed(part.T[m]), WHOLLY[op])
            share[op, m] = Fraction(part.tile_bits(m) // run, store.size)
            used[store.name] = used.get(store.name, Fraction(0)) + share[op, m]
    found = {}
    for op in ("O", "W", "I"):
        for m, store in enumerate(parts[op].stores):
            if store.buffering != "room":
                found[op, m] = store.buffering == "always"
            elif used[store.name] <= Fraction(1, 2):
                found[op, m] = True
            else:
                found[op, m] = share[op, m] <= 1 - used[store.name]
                if found[op, m] and len(store.operands) > 1:
                    used[store.name] += share[op, m]
    return found


def _open_cycles(windows: list[tuple[int, int]], cycles: int) -> int:
    """Cycles in which at least one (period, open cycles at its start) window is open."""
    return sum(any(t % period < width for period, width in windows) for t in range(cycles))


def _stall(moves: list[tuple[Move, int, int]], cycles: int) -> Fraction:
    """Stall of a port with these (transfer, needed, allowed); negative is slack."""
    single = [(needed - allowed) * (move.count - 1) for move, needed, allowed in moves]
    if len(moves) < 2:
        return Fraction(sum(single))
    open_sum = sum(allowed * (move.count - 1) for move, _, allowed in moves)
    union = _open_cycles([(move.period, allowed) for move, _, allowed in moves], cycles)
    late, early = sum(x for x in single if x > 0), sum(x for x in single if x <= 0)
    return Fraction(late + max(0, early + open_sum - union))


def _loading(port: Port, keys, moves, parts, busy: Fraction) -> dict[tuple[str, int, str], Fraction]:
    keys = [k for k in keys if k[0] != "O" or k[2] in ("read_to_high", "write_from_low")]
    needed = {k: Fraction(-(-moves[k].elements * moves[k].bits // port.width)) for k in keys}
    taken = sum(math.floor(moves[k].rate) for k in keys if moves[k].count > 1)
    spare = max(Fraction(0), Fraction(port.width - taken, port.width) * busy)
    for key in sorted((k for k in keys if moves[k].count == 1), key=lambda k: -needed[k]):
        least = -(-parts[key[0]].tile_bits(0) // port.width)
        cut = min(spare, max(Fraction(0), needed[key] - least))
        needed[key] -= cut
        spare -= cut
    return needed


def _first_fill(load, parts, ports) -> Fraction:
    def both(key) -> bool:
        return {"W", "I"} <= {op for op, _ in ports[key].serves}

    shared, half, alone = ({"W": Fraction(0), "I": Fraction(0)} for _ in range(3))
    for op in ("W", "I"):
        for m in range(len(parts[op].stores) - 1):
            ends = ((op, m, "write_from_high"), (op, m + 1, "read_to_low"))
            slower = max(load[k] for k in ends)
            served = [both(k) for k in ends]
            if all(served):
                shared[op] += slower
            elif any(served):
                half[op] = slower
            else:
                alone[op] += slower
    return min(shared[a] + max(shared[b] + half[b] + alone[b], half[a] + alone[a]) for a, b in (("W", "I"), ("I", "W")))


def cycles(s: Setting) -> Cycles:
    """All cycles of a mapping: room is judged with the fractional units, transfers are counted with whole ones."""
    exact, parts = ({op: _Part(s, op, whole) for op in ("W", "I", "O")} for whole in (False, True))
    buffered = _buffered(s, exact)
    moves, ports, keys_of, allowed = {}, {}, {}, {}
    for op, part in parts.items():
        for m in range(len(part.stores)):
            for direction, move in part.moves(m).items():
                key = (op, m, direction)
                moves[key] = move
                port = next(p for p in part.stores[m].ports if (op, direction) in p.serves)
                ports[key] = port
                keys_of.setdefault((part.stores[m].name, port.name), []).append(key)
                judge = m - 1 if direction.endswith("low") else m
                idle = _run(reversed(part.T[judge]), IDLE[op]) if judge >= 0 and not buffered[op, judge] else 1
                allowed[key] = move.period // idle
    total = _product(s.loops)
    per_port = {
        name: _stall(
            [(moves[k], -(-moves[k].elements * moves[k].bits // ports[k].width), allowed[k]) for k in keys], total
        )
        for name, keys in keys_of.items()
    }
    stall = max([Fraction(0), *per_port.values()])
    load: dict[tuple[str, int, str], Fraction] = {}
    for store in s.stores:
        for port in store.ports:
            pairs = [(op, d) for op, d in port.serves]
            keys = sorted(keys_of.get((store.name, port.name), []), key=lambda k: pairs.index((k[0], k[2])))
            load |= _loading(port, keys, moves, parts, total + stall)
    drained = range(len(parts["O"].stores) - 1)
    return Cycles(
        ideal=-(-s.macs // math.prod(s.array)),
        temporal=total,
        stall=stall,
        onload=_first_fill(load, parts, ports),
        offload=sum(
            (max(load["O", m, "read_to_high"], load["O", m + 1, "write_from_low"]) for m in drained), Fraction(0)
        ),
        drain=sum(max(0, s.built[a] - 1) for a in s.systolic),
        per_port=per_port,
        buffered=buffered,
    )


def accesses(s: Setting) -> dict[tuple[str, int, str], int]:
    """Accesses of all instances; units are the mean of those that are busy."""
    found = {}
    for op in ("W", "I", "O"):
        part = _Part(s, op, whole=False)
        for m, store in enumerate(part.stores):
            for direction, move in part.moves(m).items():
                port = next(p for p in store.ports if (op, direction) in p.serves)
                granules = -(-move.elements * move.bits // port.granule)
                found[op, m, direction] = granules * move.count * part.instances(m) * port.granule // port.width
    return found
