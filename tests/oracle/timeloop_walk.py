"""Timeloop's counts by walking every loop with real sets of points: no closed form, plain integers, slow.

A tile is the set of all points of the box that its loops and units span. Each unit of a fan-out keeps its last tile and
the vector of its slide, and is charged the points of the new tile that it lacks; units of one fan-out that lack the
same points are served together. Levels that bypass a tensor hand the accesses of the level below on to the next one
out, multiplied by the units that are not served together, as Timeloop does after its walk.
"""

import dataclasses
import itertools
from fractions import Fraction

LETTERS = "RSPQCKN"


@dataclasses.dataclass(frozen=True)
class Level:
    """One level: (dim, factor) loops and units of its fan-out, innermost first."""

    loops: tuple[tuple[str, int], ...]
    units: tuple[tuple[str, int], ...]
    keeps: frozenset[str]


def _axes(tensor, wstride, hstride):
    """Per axis of a tensor, (dim, positions a step of it)."""
    return {
        "Weights": [[("C", 1)], [("K", 1)], [("R", 1)], [("S", 1)]],
        "Inputs": [[("N", 1)], [("C", 1)], [("P", wstride), ("R", 1)], [("Q", hstride), ("S", 1)]],
        "Outputs": [[("N", 1)], [("K", 1)], [("P", 1)], [("Q", 1)]],
    }[tensor]


def _box(axes, at, extent):
    """All points of the box whose corners are the projections of the first and last iteration."""
    spans = []
    for axis in axes:
        low = sum(by * at.get(dim, 0) for dim, by in axis)
        high = sum(by * (at.get(dim, 0) + extent[dim] - 1) for dim, by in axis)
        spans.append(range(low, high + 1))
    return frozenset(itertools.product(*spans))


class _Unit:
    """What one unit holds, and along which vector its tile last slid."""

    def __init__(self):
        self.tile, self.slide, self.seen = None, None, set()

    def lacks(self, tile):
        """Points to be brought for the next tile."""
        before, self.tile = self.tile, tile
        self.seen |= tile
        if before is None:
            return tile
        vector = tuple(a - b for a, b in zip(min(tile), min(before), strict=True))
        if not any(vector):
            return tile - before
        if self.slide is None or self.slide == vector:
            self.slide = vector
            return tile - before
        self.slide = None
        return tile


def _walk(levels, inner, axes):
    """(charged per unit, accesses of the level outside, those times units served, points one unit sees).

    Args:
      inner: index of the level whose tiles move; -1 for the MACs, which ask for their points in every cycle.
    """
    extent = dict.fromkeys(LETTERS, 1)
    for level in levels[: inner + 1]:
        for dim, factor in (*level.units, *level.loops):
            extent[dim] *= factor
    outer, scale, units = [], dict(extent), []
    for at in range(inner + 1, len(levels)):
        for dim, factor in levels[at].units:
            if at == inner + 1:
                units.append((dim, factor, scale[dim]))
            scale[dim] *= factor
        for dim, factor in levels[at].loops:
            outer.append((dim, factor, scale[dim]))
            scale[dim] *= factor
    places = list(itertools.product(*(range(factor) for _, factor, _ in units)))
    held = [_Unit() for _ in places]
    charged = accesses = weighted = 0
    for step in itertools.product(*(range(factor) for _, factor, _ in reversed(outer))):
        base = dict.fromkeys(LETTERS, 0)
        for index, (dim, _, by) in zip(step, reversed(outer), strict=True):
            base[dim] += index * by
        groups: dict[frozenset, int] = {}
        for unit, place in zip(held, places, strict=True):
            at = dict(base)
            for index, (dim, _, by) in zip(place, units, strict=True):
                at[dim] += index * by
            tile = _box(axes, at, extent)
            lacking = tile if inner < 0 else unit.lacks(tile)
            if unit is held[0]:
                charged += len(lacking)
            if lacking:
                groups[lacking] = groups.get(lacking, 0) + 1
        accesses += sum(len(points) for points in groups)
        weighted += sum(len(points) * served for points, served in groups.items())
    return charged, accesses, weighted, len(held[0].seen)


def counts(levels, wstride, hstride):
    """{(level index, tensor): dict of words per instance}, innermost level first."""
    found = {}
    for tensor in ("Weights", "Inputs", "Outputs"):
        axes = _axes(tensor, wstride, hstride)
        walks = [_walk(levels, inner, axes) for inner in range(-1, len(levels) - 1)]
        content = [Fraction(walk[1]) for walk in walks]
        everything = dict.fromkeys(LETTERS, 1)
        for i, level in enumerate(levels):
            for dim, factor in (*level.units, *level.loops):
                everything[dim] *= factor
            outermost = i == len(levels) - 1
            tile = len(_box(axes, {}, everything))
            if tensor not in level.keeps:
                units = Fraction(1)
                for _, factor in levels[i + 1].units:
                    units *= factor
                content[i + 1] = content[i] * units * Fraction(walks[i + 1][1], walks[i + 1][2])
                continue
            first = 0
            if tensor == "Outputs":
                first = tile if outermost else walks[i + 1][3]
            found[i, tensor] = {
                "tile": tile,
                "reads": content[i] - first,
                "fills": 0 if outermost else walks[i + 1][0] - first,
                "updates": content[i] if tensor == "Outputs" else 0,
                "instances": _units_outside(levels, i),
            }
    return found


def _units_outside(levels, i):
    units = 1
    for level in levels[i + 1 :]:
        for _, factor in level.units:
            units *= factor
    return units
