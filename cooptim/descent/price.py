"""Prices of many designs at once: one compiled program for every search over legal designs."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cooptim.cost.evaluate import evaluate
from cooptim.cost.report import CostReport
from cooptim.descent.compile import compiled
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
        parts = []
        period = jnp.asarray(period_ns, designs[0].supply_v.dtype)
        for start in range(0, len(designs), _BLOCK):
            block = designs[start : start + _BLOCK]
            padded = block + [block[-1]] * (_BLOCK - len(block))
            stacked = jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves]), *padded)
            out = self._block(stacked, stats, period)  # type: ignore[attr-defined]
            parts.append([np.asarray(a, np.float64)[: len(block)] for a in out])
        return Prices(*(np.concatenate(column) for column in zip(*parts, strict=True)))
