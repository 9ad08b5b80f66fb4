"""What a run is asked for, in numbers, and whether any legal design can give it."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from cooptim.cost.area import area_mm2
from cooptim.cost.bound import EnergyBound, energy_bound_pj
from cooptim.cost.report import CostReport
from cooptim.descent.result import Budget
from cooptim.design.operands import MIN_BITS
from cooptim.design.space import DesignSpace

BOUND_SHARE = 0.85  # a default budget asks for at most this share of the bound


class InfeasibleBudget(ValueError):
    """A budget that no legal design can meet; the message says demand, bound, gap and levers."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """Budgets of one run in numbers; `lifted` when the default share was below what can be asked for."""

    energy_pj: float | None
    latency_ns: float
    area_mm2: float | None
    bound: EnergyBound
    lifted: bool

    @property
    def bound_pj(self) -> float:
        """No legal design within the deadline takes less [pJ]."""
        return self.bound.bound_pj


def require_reachable(space: DesignSpace, budget: Budget) -> None:
    """Raises InfeasibleBudget for what can be ruled out before any training: area, deadline, energy within it."""
    smallest = smallest_area_mm2(space)
    if budget.area_mm2 is not None and budget.area_mm2 < smallest * (1 - 1e-6):
        raise InfeasibleBudget(
            f"area budget {budget.area_mm2:.4g} mm2 is below the bound {smallest:.4g} mm2, the smallest "
            f"{space.machine.name} that runs {space.workload.name} (gap {smallest / budget.area_mm2:.3g} times); allow "
            "more area, or change the machine's logic, its memory density or its smallest buffer"
        )
    if budget.latency_ns is not None:
        bound = _bound(space, budget.latency_ns).bound_pj
        if budget.energy_pj is not None:
            _require_energy(space, budget.energy_pj, bound, budget.latency_ns)


def resolve(space: DesignSpace, budget: Budget, reference: CostReport) -> Setting:
    """The budgets in numbers, given the cost of the 16-bit reference; raises InfeasibleBudget below the bound."""
    require_reachable(space, budget)
    deadline = float(reference.total_latency_ns) if budget.latency_ns is None else budget.latency_ns
    whole = _bound(space, deadline)
    bound = whole.bound_pj
    energy, lifted = budget.energy_pj, False
    if energy is None and budget.energy_ratio is not None:
        energy = float(reference.total_energy_pj) / budget.energy_ratio
        lifted = budget.lift and energy < bound / BOUND_SHARE
        energy = bound / BOUND_SHARE if lifted else energy
    if energy is not None:
        _require_energy(space, energy, bound, deadline)
    return Setting(energy, deadline, budget.area_mm2, whole, lifted)


def smallest_area_mm2(space: DesignSpace) -> float:
    """Area of the machine with the smallest buffer that it can be built with and that holds a tiling of each layer."""
    b, modes = space.machine.buffer, len(space.machine.modes)
    size_bits = float(b.size_bits)
    if b.free:
        layers = len(space.workload.layers)
        held = [np.asarray(space.working_set_bits(np.tile(row, (layers, 1)))) for row in np.eye(modes)]
        valid = np.asarray(space.tilings.valid) > 0
        least = np.min([np.where(valid, bits, np.inf).min(axis=1) for bits in held], axis=0)
        steps = np.ceil(max(float(b.min_bits), float(least.max())) / float(b.step_bits) - 1e-4)
        size_bits = float(steps) * float(b.step_bits)
    return float(area_mm2(space.machine, jnp.asarray(size_bits, b.size_bits.dtype)))


def _bound(space: DesignSpace, deadline_ns: float) -> EnergyBound:
    try:
        return energy_bound_pj(
            space.workload, space.machine, deadline_ns, min_bits=_narrowest_bits(space), tilings=space.tilings
        )  # fmt: skip
    except ValueError as error:
        raise InfeasibleBudget(str(error)) from None


def _narrowest_bits(space: DesignSpace) -> float:
    """Two bits, or what a method that keeps signs alone may take of this machine."""
    fixed = [method.fixed_bits for method in space.methods]
    found = [space.lowest_bits(k)[i] for i, pair in enumerate(fixed) for k in (0, 1) if pair[k] is not None]
    return float(min([MIN_BITS, *found]))


def _require_energy(space: DesignSpace, energy_pj: float, bound_pj: float, deadline_ns: float) -> None:
    if energy_pj < bound_pj:
        raise InfeasibleBudget(
            f"energy budget {energy_pj / 1e3:.4g} nJ is below the bound {bound_pj / 1e3:.4g} nJ of "
            f"{space.workload.name} on {space.machine.name} within {deadline_ns / 1e3:.4g} us (gap "
            f"{bound_pj / energy_pj:.3g} times); ask for more energy, allow a longer deadline, or change the machine's "
            "DRAM, control energy or supply floor"
        )
