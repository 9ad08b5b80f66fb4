"""Machines drawn from the intervals of a machine file: every assumption moves at once, within what it may be.

A number is drawn evenly from its interval by a Latin hypercube, a whole number among the whole ones, and the control
share completes the shares of the reference power to 1. A draw that breaks a rule of the schema (a threshold above the
floor, a control share outside its interval) is thrown away, so what is left is even on the legal part of the box. The
energies that follow from the published power are derived anew for every draw. A file with an array of another size is
drawn as it is stated, and each draw takes the size then, so all sizes of a file share their assumptions.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from cooptim.hardware.load import MachineFile
from cooptim.hardware.machine import Machine
from cooptim.hardware.quantity import Quantity
from cooptim.hardware.restate import checked_values

_COMPLETES = "reference.shares.control"  # is what the other shares leave
_FILLS = {"reference.layer.K": "datapath.rows", "reference.layer.OX": "datapath.cols"}  # multiples of
_FILLS_SYSTOLIC = {"reference.layer.K": "datapath.cols", "reference.layer.C": "datapath.rows"}
_TIED = {  # one number in several places, where they are stated alike
    "buffer.min_size": "buffer.size",
    "buffer.max_size": "buffer.size",
    "mechanisms.error_prone_supply.floor_v": "supply.floor_v",
}
_MOST_DRAWS = 40  # batches tried before a file counts as without a legal draw


@dataclasses.dataclass(frozen=True)
class Draw:
    """Machines of one file, each a legal draw from its intervals.

    Attributes:
      machines: the pytree of one machine, its leaves [sample].
      values: what was drawn, by path of the number, in coherent units; the completed share is among them.
      held: numbers with an interval that change the program, not the price of a design, and stay at the file's value.
    """

    file: MachineFile
    machines: Machine
    values: Mapping[str, Float[np.ndarray, "sample"]]
    held: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Draws:
    """Draws of one or several files with the same samples: an assumption that two files share is drawn once.

    Attributes:
      shared: paths that several files state alike. refused: share of the draws that broke a rule of a file.
    """

    each: tuple[Draw, ...]
    shared: tuple[str, ...]
    samples: int
    refused: float


def drawn_numbers(file: MachineFile) -> dict[str, Quantity]:
    """The numbers that are drawn: those with an interval of some width, without what completes or is held."""
    held = {_COMPLETES, *_held(file)}
    return {path: q for path, q in _with_interval(file).items() if path not in held}


def draw_machines(files: Sequence[MachineFile], samples: int, seed: int = 0) -> Draws:
    """`samples` legal draws of every file.

    Args:
      files: numbers of equal path, value, unit, interval and source are one assumption, drawn once for all files.
      seed: of the draws; the same seed and files give the same machines.

    Raises ValueError for fewer than two samples, and when the rules leave next to nothing of the intervals.
    """
    if samples < 2:
        raise ValueError(f"{samples} samples say nothing about a spread; ask for at least 2")
    plans = _plans(files)
    axes = 1 + max((span.axis for plan in plans for span in plan.spans), default=-1)
    rng, tried = np.random.default_rng(seed), 0
    kept: list[list[tuple[MachineFile, dict[str, float]]]] = [[] for _ in files]
    for point in itertools.chain.from_iterable(_hypercube(rng, samples, axes) for _ in range(_MOST_DRAWS)):
        if len(kept[0]) == samples:
            break
        tried += 1
        legal = [_legal(file, plan.values(point)) for file, plan in zip(files, plans, strict=True)]
        if None not in legal:
            for some, one in zip(kept, legal, strict=True):
                some += [one] if one is not None else []
    if len(kept[0]) < samples:
        names = ", ".join(file.name for file in files)
        raise ValueError(
            f"intervals of {names}: {len(kept[0])} of {tried} draws keep the rules of the schema; narrow the intervals "
            "that exclude each other (threshold and floor, the shares of the reference power)"
        )
    each = tuple(_draw(file, some) for file, some in zip(files, kept, strict=True))
    owners: dict[int, list[str]] = {}
    for plan in plans:
        for span in plan.spans:
            owners.setdefault(span.axis, []).append(span.path)
    shared = tuple(paths[0] for paths in owners.values() if len(paths) > 1)
    return Draws(each, shared, samples, 1.0 - samples / tried)


def _with_interval(file: MachineFile) -> dict[str, Quantity]:
    return {p: q for p, q in file.stated_numbers.items() if q.interval is not None and q.interval[0] < q.interval[1]}


def _held(file: MachineFile) -> tuple[str, ...]:
    """Numbers whose ends give a machine of another structure, such as the accumulator's width."""
    same, found = str(jax.tree.structure(file.machine)), []
    for path, q in _with_interval(file).items():
        ends = [file.with_values(**{path.replace(".", "__"): end}).machine for end in q.interval or ()]
        if any(str(jax.tree.structure(end)) != same for end in ends):
            found.append(path)
    return tuple(found)


@dataclasses.dataclass(frozen=True)
class _Span:
    """Where one number is drawn: its axis of the unit cube, ends, and the step of a whole number (0: none)."""

    path: str
    axis: int
    low: float
    high: float
    step: int

    def at(self, unit: float) -> float:
        """The number at this place of its axis, in [0, 1)."""
        if not self.step:
            return self.low + unit * (self.high - self.low)
        first, last = -(-int(self.low) // self.step), int(self.high) // self.step
        return float(self.step * min(first + int(unit * (last - first + 1)), last))


@dataclasses.dataclass(frozen=True)
class _Plan:
    """How the numbers of one file are drawn, and its shares of the reference power as stated."""

    spans: tuple[_Span, ...]
    shares: Mapping[str, float]

    def values(self, point: Float[np.ndarray, "axis"]) -> dict[str, float]:
        """The numbers at a point of the unit cube, the completing share included."""
        found = {span.path: span.at(float(point[span.axis])) for span in self.spans}
        rest = sum(found.get(path, value) for path, value in self.shares.items() if path != _COMPLETES)
        return found | {_COMPLETES: 1.0 - rest}


def _plans(files: Sequence[MachineFile]) -> list[_Plan]:
    """One plan a file; a number that several files state alike has one axis in all of them."""
    every = [file.stated_numbers for file in files]
    axes: dict[tuple[object, ...], int] = {}
    plans = []
    for k, (file, numbers) in enumerate(zip(files, every, strict=True)):
        spans = []
        fills = _FILLS if file.spec.datapath.systolic is None else _FILLS_SYSTOLIC
        for path, q in drawn_numbers(file).items():
            name, stated = path, q
            if path in _TIED and _as_wide(numbers[_TIED[path]], q):
                name, stated = _TIED[path], numbers[_TIED[path]]
            alike = sum(name in other and _same(other[name], stated) for other in every) > 1
            key = (name, stated.value, stated.unit, stated.interval, stated.source) if alike else (k, name)
            low, high = q.interval or (q.value, q.value)
            step = int(numbers[fills[path]].value) if path in fills else int(_whole(q))
            spans.append(_Span(path, axes.setdefault(key, len(axes)), low, high, step))
        shares = {path: q.value for path, q in numbers.items() if path.startswith("reference.shares.")}
        plans.append(_Plan(tuple(spans), shares))
    return plans


def _whole(q: Quantity) -> bool:
    """Whether only whole numbers are drawn: counts, and bits that are stated whole."""
    stated = (q.value, *(q.interval or ()))
    return q.quantity == "count" or q.quantity == "size" and all(x == int(x) for x in stated)


def _as_wide(a: Quantity, b: Quantity) -> bool:
    return (a.value, a.interval) == (b.value, b.interval)


def _same(a: Quantity, b: Quantity) -> bool:
    return _as_wide(a, b) and (a.unit, a.source) == (b.unit, b.source)


def _hypercube(rng: np.random.Generator, samples: int, axes: int) -> Float[np.ndarray, "sample axis"]:
    """Each axis cut into `samples` equal parts, one point in each. Source: McKay, Beckman and Conover, 1979."""
    cells = np.argsort(rng.random((axes, samples)), axis=1).T if axes else np.zeros((samples, 0))
    return (cells + rng.random(cells.shape)) / samples


def _legal(file: MachineFile, values: dict[str, float]) -> tuple[MachineFile, dict[str, float]] | None:
    try:
        return checked_values(file, values), values
    except ValueError:
        return None


def _draw(file: MachineFile, some: Sequence[tuple[MachineFile, dict[str, float]]]) -> Draw:
    machines = [one.machine for one, _ in some]
    stacked = jax.tree.map(lambda *leaves: jnp.asarray(np.stack([np.asarray(x) for x in leaves])), *machines)
    paths = [path for path in some[0][1] if path != _COMPLETES or _moves(some)]
    values = {path: np.asarray([one[path] for _, one in some]) for path in paths}
    return Draw(file, stacked, values, tuple(p for p in _held(file) if p != _COMPLETES))


def _moves(some: Sequence[tuple[MachineFile, dict[str, float]]]) -> bool:
    return any(a[1][_COMPLETES] != b[1][_COMPLETES] for a, b in itertools.pairwise(some))
