"""Hardware that was chosen layer by layer, moved to where no single change saves energy over the whole network.

What a layer keeps in the buffer is taken from the others, so the best choice of each alone is not the best of all: on
Envision with a buffer of 4 kB single changes save another 9 to 13 % (experiments/joint_vs_sequential), on ResNet-8 at
8 b and 16 b, whose weights do not fit the whole buffer, 28 and 44 %.
"""

import dataclasses
from typing import Any

import numpy as np

from cooptim.descent.moves import HARDWARE, hardware_moves
from cooptim.descent.price import Pricer
from cooptim.design.design import Design
from cooptim.design.legal import violations
from cooptim.design.space import DesignSpace
from cooptim.network.stats import Stats

_LEAST = 1e-4  # share of the energy that a change must save


def polished(
    space: DesignSpace, pricer: Pricer, design: Design, stats: Stats, deadline_ns: float,
    kinds: tuple[str, ...] = HARDWARE,
) -> Design:  # fmt: skip
    """A legal design after the change of one mode, tiling or supply step that saves most, again until none saves.

    One that misses the deadline, as a sum of layers chosen alone can, is brought in time first. Layer by layer in turn,
    or just the few layers that have most to save, take as long and end higher (ResNet-8 at 8 b: 0.83 instead of 0.72).

    Args:
      kinds: what may change, of `HARDWARE`.
    """
    period_ns = deadline_ns if np.isfinite(deadline_ns) else 0.0
    most_ns = deadline_ns * (1 + 1e-6)
    first = pricer.many([design], stats, period_ns)  # no program but this one need be compiled
    now = (max(float(first.latency_ns[0]) - most_ns, 0.0), float(first.energy_pj[0]))
    while True:
        found = _change(space, pricer, design, now, stats, period_ns, most_ns, kinds)
        if found is None:
            return design
        design, now = found


def _change(
    space: DesignSpace, pricer: Pricer, design: Design, now: tuple[float, float], stats: Stats, period_ns: float,
    most_ns: float, kinds: tuple[str, ...],
) -> tuple[Design, tuple[float, float]] | None:  # fmt: skip
    """(design after the best legal change, its (lateness [ns], energy [pJ]), which rank in this order), or None."""
    few = hardware_moves(space, design, tuple(kind for kind in kinds if kind != "tiling"))
    free = (np.asarray(space.tilings.valid) > 0) & (np.asarray(design.tiling) != 1) & ("tiling" in kinds)
    picks = [(int(layer), int(row)) for layer, row in np.argwhere(free)]
    parts = [pricer.many([move.design for move in few], stats, period_ns)] if few else []
    parts += [pricer.swapped(design, picks, stats, period_ns)] if picks else []
    if not parts:
        return None
    energy_pj = np.concatenate([prices.energy_pj for prices in parts])
    late_ns = np.maximum(np.concatenate([prices.latency_ns for prices in parts]) - most_ns, 0.0)
    for i in np.lexsort((energy_pj, late_ns)):
        one = (float(late_ns[i]), float(energy_pj[i]))
        if one >= (now[0], now[1] * (1.0 - _LEAST)):
            return None
        moved = few[i].design if i < len(few) else _with_tiling(design, *picks[i - len(few)])
        if not violations(space, moved):
            return moved, one
    return None


def _with_tiling(design: Design, layer: int, row: int) -> Design:
    tiling: Any = np.array(design.tiling)
    tiling[layer] = 0
    tiling[layer, row] = 1
    return dataclasses.replace(design, tiling=tiling)
