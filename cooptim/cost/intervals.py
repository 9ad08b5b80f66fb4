"""What the intervals of a machine file do to a price, and whether the better of two designs stays the better one.

All machines of a draw are priced by one vmapped `evaluate`. A design keeps its widths, modes, tilings and clock; its
supply follows the drawn V-f law, as a chip's does: the margin over the lowest supply that the law needs for the clock
stays as it was, and where even the ceiling is too slow the clock falls to what the ceiling allows.
"""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float

from cooptim.cost.evaluate import evaluate
from cooptim.design.design import Design
from cooptim.hardware.dvafs import critical_path, max_clock_ghz, supply_for_clock
from cooptim.hardware.intervals import Draw
from cooptim.hardware.machine import Machine
from cooptim.hardware.mechanisms import array_bits
from cooptim.mapping.frontier import tilings as frontier_tilings
from cooptim.mapping.tilings import Tilings
from cooptim.network.stats import Stats
from cooptim.workload import Workload

_END = 0.2  # share of the samples at each end of a number's interval


class Influence(NamedTuple):
    """What one number does: rank correlation with the result, and the result's median in each end of its interval.

    Attributes:
      low, high: medians over the fifth of the samples in which the number is least and largest.
    """

    path: str
    correlation: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Spread:
    """Prices of one design on every machine of a draw, beside those on the file's own numbers.

    Attributes:
      slowed: samples in which the ceiling cannot give the design's clock.
    """

    energy_pj: Float[np.ndarray, "sample"]
    latency_ns: Float[np.ndarray, "sample"]
    tops_per_w: Float[np.ndarray, "sample"]
    slowed: int
    stated_pj: float
    stated_ns: float
    stated_tops_per_w: float


@dataclasses.dataclass(frozen=True)
class Ranking:
    """Whether A stays better than B when everything that both assume moves together.

    Attributes:
      stated: whether A has the lower value on the files' own numbers.
      share: of the samples in which A has the lower value. ratio: B over A, by sample.
    """

    stated: bool
    share: float
    ratio: Float[np.ndarray, "sample"]
    stated_ratio: float

    @property
    def agreeing(self) -> float:
        """Share of the samples that rank the two as the files' own numbers do."""
        return self.share if self.stated else 1.0 - self.share


def design_on(machine: Machine, design: Design, stated: Machine) -> Design:
    """A design of the machine `stated` as it runs on another of its structure: supply, clock and given buffer size."""
    wide = machine.datapath.width_bits
    widest = jnp.maximum(*array_bits(machine.mechanisms, machine.datapath, design.weight_bits, design.input_bits))
    path = critical_path(machine.supply, wide, widest)
    need = supply_for_clock(machine.supply, design.freq_ghz, path)
    needed = supply_for_clock(stated.supply, design.freq_ghz, critical_path(stated.supply, wide, widest))
    s = machine.supply
    supply_v = jnp.clip(design.supply_v * need / needed, s.floor_v, jnp.maximum(s.ceiling_v, s.floor_v))
    limit = max_clock_ghz(s, supply_v, path) * (1.0 + 1e-6)  # rounding of the law's inverse slows nothing
    return dataclasses.replace(
        design,
        supply_v=supply_v,
        freq_ghz=jnp.where(design.freq_ghz > limit, limit, design.freq_ghz),
        buffer_bits=design.buffer_bits if machine.buffer.free else machine.buffer.size_bits,
    )


def spread(
    workload: Workload,
    draw: Draw,
    design: Design,
    stats: Stats | None = None,
    *,
    period_ns: Float[ArrayLike, ""] | None = None,
    tilings: Tilings | None = None,
) -> Spread:
    """The price of a design on every machine of a draw; arguments as those of `evaluate`.

    Raises ValueError as `evaluate`.
    """
    stated = draw.file.machine
    table = frontier_tilings(workload, stated) if tilings is None else tilings

    def price(machine: Machine) -> tuple[jax.Array, ...]:
        moved = design_on(machine, design, stated)
        report = evaluate(workload, machine, moved, stats, period_ns=period_ns, tilings=table)
        slow = jnp.any(moved.freq_ghz < design.freq_ghz * (1.0 - 1e-4))
        return report.total_energy_pj, report.total_latency_ns, report.tops_per_w, slow

    first = jax.tree.map(lambda x: jnp.asarray(x)[None], stated)
    both = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), first, draw.machines)
    energy, latency, efficiency, slow = (np.asarray(x) for x in jax.jit(jax.vmap(price))(both))
    wide = [np.asarray(x, np.float64) for x in (energy, latency, efficiency)]
    pj, ns, per_w = wide
    at = (float(pj[0]), float(ns[0]), float(per_w[0]))
    return Spread(pj[1:], ns[1:], per_w[1:], int(slow[1:].sum()), *at)


def ranking(a: Float[np.ndarray, "sample"], b: Float[np.ndarray, "sample"], stated: tuple[float, float]) -> Ranking:
    """Whether A's value is below B's in the files' own numbers (`stated`: A's, B's) and in each sample."""
    return Ranking(stated[0] < stated[1], float(np.mean(a < b)), b / a, stated[1] / stated[0])


def influences(
    values: Mapping[str, Float[np.ndarray, "sample"]], result: Float[np.ndarray, "sample"]
) -> tuple[Influence, ...]:
    """Every number's influence on a result, the strongest rank correlation first.

    Source: Spearman's rank correlation; numbers that were drawn together count for each other.
    """
    found = []
    for path, value in values.items():
        order = np.argsort(value, kind="stable")
        count = max(1, int(_END * len(order)))
        low, high = (float(np.median(result[part])) for part in (order[:count], order[-count:]))
        found.append(Influence(path, _rank_correlation(value, result), low, high))
    return tuple(sorted(found, key=lambda one: -abs(one.correlation)))


def _rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    x, y = (_ranks(one) for one in (a, b))
    x, y = x - x.mean(), y - y.mean()
    scale = float(np.sqrt((x * x).sum() * (y * y).sum()))
    return float((x * y).sum() / scale) if scale > 0 else 0.0


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 0, equal values sharing their mean rank."""
    _, where, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - 0.5 * (counts + 1))[where]
