"""Prices of many designs at once: one compiled program for every search over legal designs."""

import dataclasses
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cooptim.compile import compiled
from cooptim.cost.evaluate import evaluate
from cooptim.cost.report import CostReport
from cooptim.design.design import Design
from cooptim.design.space import DesignSpace
from cooptim.network.stats import Stats

_BLOCK = 64  # designs priced by one call


class Prices(NamedTuple):
    """Of n designs: energy and latency per layer, totals, and whether each fits the buffer."""

    layer_energy_pj: np.ndarray  # [n, layer], standby excluded
    layer_latency_ns: np.ndarray  # [n, layer]
    energy_pj: np.ndarray  # [n], standby included
    latency_ns: np.ndarray  # [n]
    area_mm2: np.ndarray  # [n]


@dataclasses.dataclass(frozen=True, eq=False)
class Pricer:
    """Prices legal designs of one space with the package's own `evaluate`."""

    space: DesignSpace

    def __post_init__(self) -> None:
        def price(design: Design, stats: Stats, period_ns: jax.Array) -> CostReport:
            space = self.space
            return evaluate(space.workload, space.machine, design, stats, period_ns=period_ns, tilings=space.tilings)

        def summary(design, stats, period_ns):  # type: ignore[no-untyped-def]
            r = price(design, stats, period_ns)
            return r.layer_energy_pj, r.latency_ns, r.total_energy_pj, r.total_latency_ns, r.area_mm2

        object.__setattr__(self, "_one", compiled(price))
        object.__setattr__(self, "_block", compiled(jax.vmap(summary, in_axes=(0, None, None))))

    def report(self, design: Design, stats: Stats, period_ns: float) -> CostReport:
        """The full report of one design."""
        return self._one(design, stats, jnp.asarray(period_ns, design.supply_v.dtype))  # type: ignore[attr-defined]

    def many(self, designs: list[Design], stats: Stats, period_ns: float) -> Prices:
        """Prices of a list of designs at the same zero rates."""
        blocks = (designs[start : start + _BLOCK] for start in range(0, len(designs), _BLOCK))
        return self._prices(((_stacked(block), len(block)) for block in blocks), stats, period_ns)

    def swapped(self, design: Design, picks: list[tuple[int, int]], stats: Stats, period_ns: float) -> Prices:
        """Prices of a design with another tiling of one layer, for each (layer, row of the table).

        Thousands of them are priced without making a design of each.
        """
        whole = jax.tree.map(lambda leaf: np.repeat(np.asarray(leaf)[None], _BLOCK, axis=0), design)
        blocks = (picks[start : start + _BLOCK] for start in range(0, len(picks), _BLOCK))
        return self._prices(((_swapped(whole, block), len(block)) for block in blocks), stats, period_ns)

    def _prices(self, blocks: Iterable[tuple[Any, int]], stats: Stats, period_ns: float) -> Prices:
        """Of stacked designs, each with how many of its block count."""
        parts = []
        for stacked, count in blocks:
            period = jnp.asarray(period_ns, stacked.supply_v.dtype)
            out = self._block(stacked, stats, period)  # type: ignore[attr-defined]
            parts.append([np.asarray(a, np.float64)[:count] for a in out])
        return Prices(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _stacked(designs: list[Design]) -> Any:
    padded = designs + [designs[-1]] * (_BLOCK - len(designs))
    return jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves]), *padded)


def _swapped(whole: Any, picks: list[tuple[int, int]]) -> Any:
    """A block of copies of one design whose first members have the picked tilings."""
    member, (layer, row) = np.arange(len(picks)), np.asarray(picks).T
    tiling = whole.tiling.copy()
    tiling[member, layer] = 0
    tiling[member, layer, row] = 1
    return dataclasses.replace(whole, tiling=tiling)
