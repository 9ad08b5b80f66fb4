"""The loop slots of a nest and what every level asks of them, in two forms with one result.

`PlainSlots` asks slot by slot, in numpy or jax, for scalars or batches and for real factors. `TabledSlots` (numpy, for
whole factors) multiplies once outward, a table of products over the number of slots inside; then whatever a level asks
is read off at its cut. Products are taken from the innermost slot out in both, so that fractional units round alike;
quotients of tables are of whole numbers and exact.

What a method calls `inside` or `held` is a set of innermost slots as `below` or `kept` returned it.
"""

from collections.abc import Sequence
from types import ModuleType
from typing import Any, Protocol

import numpy as np

from cooptim.mapping.nest import IRRELEVANT, MOVES_WHOLLY, Nest
from cooptim.workload import OPERANDS


class Slots(Protocol):
    """What the levels of an operand ask of the slots."""

    xp: ModuleType

    def none(self) -> Any:
        """No slot."""

    def all(self) -> Any:
        """All slots."""

    def below(self, cut: Any) -> Any:
        """Slots below a cut."""

    def kept(self, operand: str, cut: Any) -> Any:
        """Slots through which the tile of a cut stays: those below it and the irrelevant run from there out."""

    def product(self, inside: Any) -> Any:
        """Product of the factors inside."""

    def extents(self, inside: Any, units: Sequence[Any], wanted: Sequence[int]) -> list[Any]:
        """Extent of each wanted dim: units times the factors of its slots inside; others are left at their units."""

    def outer_run(self, held: Any, lower: Any, operand: str, kind: str) -> Any:
        """Product of the outermost slots of a level, held by it but not below it, while they are of a kind."""

    def revisits(self, lower: Any) -> tuple[Any, Any]:
        """(product of the slots outside that bring the same outputs back, whether one of them turns)."""


def slots_of(nest: Nest, xp: ModuleType = np) -> Slots:
    """The slots of a nest, tabled where numbers allow it."""
    if xp is np and all(isinstance(a, np.ndarray) for a in (nest.dims, nest.factors)):
        cuts = all(np.asarray(c).dtype.kind in "iu" for rows in nest.cuts for c in rows)
        if cuts and bool(np.all(nest.factors == np.rint(nest.factors))):
            return TabledSlots(nest)
    return PlainSlots(nest, xp)


def _among(dim: Any, members: Sequence[int]) -> Any:
    found: Any = dim == members[0]
    for member in members[1:]:
        found = found | (dim == member)
    return found


class PlainSlots:
    """Slot by slot; a set of slots is a list of truth values."""

    def __init__(self, nest: Nest, xp: ModuleType) -> None:
        self.xp = xp
        self.n = len(nest.dims)
        self.dims, self.factors = [nest.dims[i] for i in range(self.n)], [nest.factors[i] for i in range(self.n)]
        self.turns = [factor > 1 for factor in self.factors]
        self.runs = {
            kind: {op: [_among(dim, members[op]) for dim in self.dims] for op in OPERANDS}
            for kind, members in (("idle", IRRELEVANT), ("moving", MOVES_WHOLLY))
        }

    def none(self) -> list[Any]:
        """No slot."""
        return [False] * self.n

    def all(self) -> list[Any]:
        """All slots."""
        return [True] * self.n

    def below(self, cut: Any) -> list[Any]:
        """Slots below a cut."""
        return [cut > i for i in range(self.n)]

    def kept(self, operand: str, cut: Any) -> list[Any]:
        """Slots through which the tile of a cut stays."""
        found = []
        stays: Any = True
        for i, inside in enumerate(self.below(cut)):
            stays = inside | (stays & (self.runs["idle"][operand][i] | ~self.xp.asarray(self.turns[i])))
            found.append(stays)
        return found

    def product(self, inside: Sequence[Any]) -> Any:
        """Product of the factors inside."""
        product: Any = 1.0
        for keep, factor in zip(inside, self.factors, strict=True):
            product = product * self.xp.where(keep, factor, 1.0)
        return product

    def extents(self, inside: Sequence[Any], units: Sequence[Any], wanted: Sequence[int]) -> list[Any]:
        """Extent of each wanted dim."""
        found = list(units)
        for j in wanted:
            for keep, dim, factor in zip(inside, self.dims, self.factors, strict=True):
                found[j] = found[j] * self.xp.where(keep & (dim == j), factor, 1.0)
        return found

    def outer_run(self, held: Sequence[Any], lower: Sequence[Any], operand: str, kind: str) -> Any:
        """Product of the outermost slots of a level while they are of a kind."""
        xp, run = self.xp, self.runs[kind][operand]
        product: Any = 1.0
        unbroken: Any = True
        for i in reversed(range(self.n)):
            here = held[i] & ~xp.asarray(lower[i]) & self.turns[i]
            product = product * xp.where(here & unbroken & run[i], self.factors[i], 1.0)
            unbroken = unbroken & (~xp.asarray(here) | run[i])
        return product

    def revisits(self, lower: Sequence[Any]) -> tuple[Any, Any]:
        """(product of the slots outside that bring the same outputs back, whether one of them turns)."""
        outside = [~self.xp.asarray(lower[i]) & self.runs["idle"]["O"][i] for i in range(self.n)]
        turning: Any = False
        for turn, back in zip(self.turns, outside, strict=True):
            turning = turning | (back & turn)
        return self.product(outside), turning


class TabledSlots:
    """By tables over the number of slots inside; a set of slots is where it stands in a flat table."""

    xp: ModuleType = np

    def __init__(self, nest: Nest) -> None:
        self.n = len(nest.dims)
        rank = max(nest.dims.ndim, nest.factors.ndim)
        dims, factors = (a.reshape(a.shape + (1,) * (rank - a.ndim)) for a in (nest.dims, nest.factors))
        self.dims, self.factors = np.broadcast_arrays(dims, factors)
        rest = self.dims.shape[1:]
        self.batch = int(np.prod(rest, dtype=np.int64))
        self.lane = np.arange(self.batch).reshape(rest)
        self.turns = self.factors > 1
        self.tables: dict[Any, Any] = {}

    def none(self) -> Any:
        """No slot."""
        return self.lane

    def all(self) -> Any:
        """All slots."""
        return self.lane + self.n * self.batch

    def below(self, cut: Any) -> Any:
        """Slots below a cut."""
        return cut * self.batch + self.lane

    def _products(self, key: Any, chosen: Any, start: float) -> Any:
        """Products, from `start`, of the chosen factors among the innermost 0, 1, ... n slots, flat."""
        if key not in self.tables:
            table = np.full((self.n + 1, *self.lane.shape), start)
            if chosen is None:
                table[1:] = self.factors
            else:
                table[1:] = 1.0
                np.copyto(table[1:], self.factors, where=chosen)
            for i in range(self.n):
                np.multiply(table[i], table[i + 1], out=table[i + 1, ...])
            self.tables[key] = table.reshape(-1)
        return self.tables[key]

    def _run(self, operand: str, kind: str) -> Any:
        """Slots of a kind, or that do not turn."""
        if (operand, kind) not in self.tables:
            members = {"idle": IRRELEVANT, "moving": MOVES_WHOLLY}[kind][operand]
            self.tables[operand, kind] = _among(self.dims, members) | ~self.turns
        return self.tables[operand, kind]

    def kept(self, operand: str, cut: Any) -> Any:
        """Slots through which the tile of a cut stays."""
        key = operand, "kept"
        if key not in self.tables:
            run = self._run(operand, "idle")
            table = np.empty((self.n + 1, *self.lane.shape), dtype=np.int64)
            table[self.n] = self.all()
            for i in reversed(range(self.n)):
                table[i] = np.where(run[i], table[i + 1], self.lane + i * self.batch)
            self.tables[key] = table.reshape(-1)
        return self.tables[key].take(self.below(cut))

    def product(self, inside: Any) -> Any:
        """Product of the factors inside."""
        return self._products("all", None, 1.0).take(inside)

    def extents(self, inside: Any, units: Sequence[Any], wanted: Sequence[int]) -> list[Any]:
        """Extent of each wanted dim."""
        found = list(units)
        for j in wanted:
            key = ("dim", j, units[j])
            chosen = None if key in self.tables else self.dims == j
            found[j] = self._products(key, chosen, units[j]).take(inside)
        return found

    def outer_run(self, held: Any, lower: Any, operand: str, kind: str) -> Any:
        """Product of the outermost slots of a level while they are of a kind."""
        key = operand, kind, "from"
        if key not in self.tables:
            run = self._run(operand, kind)
            table = np.empty((self.n + 1, *self.lane.shape), dtype=np.int64)
            table[0] = self.lane
            for i in range(self.n):
                table[i + 1] = np.where(run[i], table[i], self.lane + (i + 1) * self.batch)
            self.tables[key] = table.reshape(-1)
        first = np.maximum(self.tables[key].take(held), lower)
        return self.product(held) / self.product(first)

    def revisits(self, lower: Any) -> tuple[Any, Any]:
        """(product of the slots outside that bring the same outputs back, whether one of them turns)."""
        chosen = None if "back" in self.tables else _among(self.dims, IRRELEVANT["O"])
        table = self._products("back", chosen, 1.0)
        visits = table.take(self.all()) / table.take(lower)
        return visits, visits > 1
