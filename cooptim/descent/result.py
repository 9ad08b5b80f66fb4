"""What a run hands back: every priced legal design, the relaxed figure beside it, and how it got there."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from cooptim.cost.bound import EnergyBound
from cooptim.cost.report import CostReport
from cooptim.design.design import Design
from cooptim.hardware.machine import Machine
from cooptim.network.stats import Stats
from cooptim.workload import Workload


@dataclasses.dataclass(frozen=True)
class Budget:
    """What the user asks for; None leaves a quantity free.

    Attributes:
      energy_pj: energy per inference; alternatively `energy_ratio`, the 16-bit reference's energy over it.
      latency_ns: deadline; default is the latency of the 16-bit reference (constant throughput), without a zero where
        the chip skips their cycles.
      area_mm2: silicon, matters when the machine frees a size.
      accuracy_drop: loss of validation accuracy against the float network, as a fraction.
      lift: `energy_ratio` gives way to 0.85 of the bound where that is more energy; in a Result, whether it did.

    Raises ValueError for a number that is not above 0 and finite.
    """

    energy_pj: float | None = None
    energy_ratio: float | None = None
    latency_ns: float | None = None
    area_mm2: float | None = None
    accuracy_drop: float = 0.005
    lift: bool = False

    def __post_init__(self) -> None:
        for name in ("energy_pj", "energy_ratio", "latency_ns", "area_mm2"):
            value = getattr(self, name)
            if value is not None and not 0.0 < value < math.inf:
                raise ValueError(f"budget: {name} {value:g} is not above 0 and finite; None leaves it free")
        if not 0.0 <= self.accuracy_drop < 1.0:
            raise ValueError(
                f"budget: accuracy_drop {self.accuracy_drop:g} is no fraction in [0, 1); 0.005 is half a point"
            )


DEFAULT_BUDGET = Budget(energy_ratio=25.0, lift=True)


@dataclasses.dataclass(frozen=True)
class Priced:
    """One network with its legal design and what it costs; all figures at batch 1, steady state.

    With errors injected, accuracies are means over draws and `test_draws` those of each draw.
    """

    title: str
    params: Any
    state: Any
    design: Design
    stats: Stats
    report: CostReport
    val_accuracy: float
    test_accuracy: float
    val_loss: float = float("nan")
    test_draws: tuple[float, ...] = ()


@dataclasses.dataclass(frozen=True)
class Result:
    """A finished run.

    Attributes:
      float_test_accuracy, float_val_accuracy: of the float parent, fractions.
      designs: 'reference_16b', 'best_uniform', 'best_uniform_pruned', 'final' (some may be missing).
      dense_16b_pj: the 16-bit reference without zero guarding.
      relaxed: cost of the relaxed design at the end of the descent, before the snap.
      bound_pj: no legal design of this workload on this machine within the deadline costs less.
      budget: with all fields resolved to numbers.
      history: one array for each name of `descent.loop.HISTORY`, of the joint descent; accuracy is that of the batch.
      local: 'best_saving' (fraction, largest within budgets at <= 0.1 validation loss), 'moves' (number priced), 'move'
        (its name).
      relaxed_parts: what was relaxed in the forward pass, in words. snap_drop: accuracy lost by the snap, fraction.
      errors: what was injected and how it was drawn, names of `descent.plan`; None where nothing was.
      bound: what `bound_pj` is made of, as the run computed it. widths_held: whether the quantizer learns no widths, so
        that the joint design has those of the best uniform one.
      channels: by the weights that make them, (in the network as it was given, in the final design's), where dead ones
        were taken out (`cooptim.descent.lean`); then `workload`, `bound_pj` and the final design are of what is left.
    """

    workload: Workload
    machine: Machine
    budget: Budget
    seed: int
    float_test_accuracy: float
    float_val_accuracy: float
    designs: dict[str, Priced]
    dense_16b_pj: float
    relaxed: CostReport
    bound_pj: float
    history: dict[str, np.ndarray]
    local: dict[str, Any]
    relaxed_parts: tuple[str, ...]
    snap_drop: float
    versions: dict[str, str]
    errors: tuple[str, str] | None = None
    bound: EnergyBound | None = None
    widths_held: bool = False
    channels: Mapping[str, tuple[int, int]] = dataclasses.field(default_factory=dict)

    @property
    def gap(self) -> float:
        """Discretization gap: energy of the legal design over that of the relaxed one it came from."""
        return float(self.designs["final"].report.total_energy_pj) / float(self.relaxed.total_energy_pj)
