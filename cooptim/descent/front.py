"""The front of a sweep: validation accuracy against energy of legal designs, and how much of the plane it dominates."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from cooptim.descent.result import Budget

SCHEMA = "cooptim-front/1"
FINISHED, DIVERGED, INFEASIBLE, FAILED = "finished", "diverged", "infeasible", "failed"


@dataclasses.dataclass(frozen=True)
class Point:
    """One member in plain numbers; energies [pJ], latency [ns], accuracies fractions, None where there is none.

    Attributes:
      status: 'finished'; 'diverged' (its numbers were no longer finite; it stands at the last state that was);
        'infeasible' (below the bound); 'failed' (no legal design). A diverged member that was landed on its own has
        figures but is not on the front.
      steps: of the descent that moved it. budget_pj, budget_ratio: energy asked for, and the 16-bit reference over it.
      reference_pj: of the 16-bit reference of its seed; uniform: of the best uniform width of its seed.
      note: why there is no design.
    """

    name: str
    seed: int
    status: str
    steps: int
    budget_pj: float | None
    budget_ratio: float | None
    reference_pj: float | None = None
    float_val_accuracy: float | None = None
    float_test_accuracy: float | None = None
    uniform_bits: int | None = None
    uniform_pj: float | None = None
    uniform_val_accuracy: float | None = None
    uniform_test_accuracy: float | None = None
    energy_pj: float | None = None
    latency_ns: float | None = None
    area_mm2: float | None = None
    val_accuracy: float | None = None
    test_accuracy: float | None = None
    bound_pj: float | None = None
    note: str = ""

    @property
    def stands(self) -> bool:
        """Whether it has a legal design that may be on the front."""
        return self.status == FINISHED and self.energy_pj is not None and self.val_accuracy is not None


@dataclasses.dataclass(frozen=True)
class Front:
    """A sweep that has ended.

    Attributes:
      floor: validation accuracy of the reference point of the hypervolume; `floor_note` says where it comes from.
      estimate: bytes that were estimated before the sweep, and taken at its peak; 0 where not known.
    """

    workload: str
    machine: str
    points: tuple[Point, ...]
    classes: int
    floor: float
    floor_note: str
    estimate: dict[str, int]
    versions: dict[str, str]

    @property
    def on_front(self) -> tuple[Point, ...]:
        """The members that none dominates, by energy."""
        return front_of(self.points)


def member_name(budget: Budget, seed: int) -> str:
    """Name of a member and of its directory: what it was asked for, then its seed."""
    asked = f"e{budget.energy_pj / 1e3:.6g}nJ" if budget.energy_pj is not None else f"r{budget.energy_ratio or 0:.6g}"
    return f"{asked}-s{seed}".replace("+", "")


def non_dominated(energy: Float[np.ndarray, "n"], accuracy: Float[np.ndarray, "n"]) -> Bool[np.ndarray, "n"]:
    """True for points that no other one equals or betters in both, less energy and more accuracy, and beats in one.

    Of points that are equal in both, all stay.
    """
    better = (energy[:, None] <= energy[None, :]) & (accuracy[:, None] >= accuracy[None, :])
    strictly = (energy[:, None] < energy[None, :]) | (accuracy[:, None] > accuracy[None, :])
    return ~np.any(better & strictly, axis=0)


def front_of(points: Sequence[Point]) -> tuple[Point, ...]:
    """The finished members that none of them dominates on validation, by energy."""
    standing = [point for point in points if point.stands]
    if not standing:
        return ()
    energy, accuracy = _plane(standing)
    kept = [point for point, keep in zip(standing, non_dominated(energy, accuracy), strict=True) if keep]
    return tuple(sorted(kept, key=lambda point: (point.energy_pj or 0.0, point.name)))


def hypervolume(
    energy: Float[np.ndarray, "n"], accuracy: Float[np.ndarray, "n"], reference_pj: float, bound_pj: float, floor: float
) -> float:
    """Share of the plane that the points dominate, in [0, 1].

    The plane is energy on a logarithmic axis from the 16-bit reference (0) down to the bound of any legal design (1),
    and accuracy from `floor` (0) to 100 % (1); (0, 0) is the reference point. What lies outside adds nothing.

    Source: the S-metric of Zitzler and Thiele, "Multiobjective evolutionary algorithms", IEEE Trans. Evolutionary
    Computation 3(4), 1999.
    """
    span = math.log(reference_pj / bound_pj)
    saved = np.clip(np.log(reference_pj / energy) / span, 0.0, 1.0)
    right = np.clip((accuracy - floor) / (1.0 - floor), 0.0, 1.0)
    area, reached = 0.0, 0.0
    for at in np.lexsort((-saved, -right)):  # from the most accurate down, each adds the strip to its right
        area += max(saved[at] - reached, 0.0) * right[at]
        reached = max(reached, saved[at])
    return float(area)


def volumes(points: Sequence[Point], floor: float) -> tuple[float | None, dict[int, float]]:
    """(hypervolume of all finished members, that of each seed's); references and bounds are means over the seeds.

    None without a finished member.
    """
    standing = [point for point in points if point.stands and point.reference_pj and point.bound_pj]
    if not standing:
        return None, {}
    per_seed = {point.seed: point for point in standing}
    reference_pj = float(np.mean([point.reference_pj for point in per_seed.values()]))
    bound_pj = float(np.mean([point.bound_pj for point in per_seed.values()]))

    def volume(some: Sequence[Point]) -> float:
        return hypervolume(*_plane(some), reference_pj, bound_pj, floor)

    each = {seed: volume([point for point in standing if point.seed == seed]) for seed in sorted(per_seed)}
    return volume(standing), each


def front_content(front: Front) -> dict[str, Any]:
    """The sweep as plain JSON: every member, who is on the front, the hypervolume and its reference point."""
    standing = [point for point in front.points if point.stands]
    whole, each = volumes(front.points, front.floor)
    references = {point.seed: point.reference_pj for point in standing}
    on_front = [point.name for point in front.on_front]
    return {
        "schema": SCHEMA,
        "workload": front.workload,
        "machine": front.machine,
        "front": on_front,
        "hypervolume": {
            "share": whole,
            "by_seed": {str(seed): share for seed, share in each.items()},
            "reference_point": {
                "energy_pj": float(np.mean(list(references.values()))) if references else None,
                "val_accuracy": front.floor,
                "accuracy_is": front.floor_note,
            },
            "axes": "log energy from the 16-bit reference (0) to the bound (1); validation accuracy from the reference "
            "point's (0) to 100 % (1)",
        },
        "members": [dataclasses.asdict(point) | {"on_front": point.name in on_front} for point in front.points],
        "memory_bytes": front.estimate,
        "versions": front.versions,
    }


def _plane(points: Sequence[Point]) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray([p.energy_pj for p in points], float), np.asarray([p.val_accuracy for p in points], float)
