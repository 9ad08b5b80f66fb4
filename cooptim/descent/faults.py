"""Errors of a supply that is too low: at what rates they fall on a design, whose draws they are, and what is safe.

A supply below the safe one is legal in a run that injects errors, and only there: then it is learned, by the energy it
saves against the loss it makes, and what is measured is measured with errors. Nothing after the descent lowers a supply
without measuring what that does.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from cooptim.descent.plan import ERROR_KINDS, Plan
from cooptim.hardware.machine import Machine
from cooptim.hardware.mechanisms.error_prone_supply import ErrorProneSupply, bit_error_rate, wrong_result_rate
from cooptim.network.errors import ErrorRates

_CHIP, _MEASURED = 11, 12  # seeds of the one chip of a fixed map, and of the draws that are measured
_GRID_SLACK = 1e-4  # of one grid step


@dataclasses.dataclass(frozen=True)
class Faults:
    """What goes wrong on one machine.

    Attributes:
      kinds: of 'weight' and 'input' (bits of words read from memory) and 'accumulator' (products that come too late).
      fixed: all draws are of one chip, whose stuck cells stay; what comes too late differs. Else of a chip each.
    """

    mechanism: ErrorProneSupply
    kinds: tuple[str, ...]
    fixed: bool

    @property
    def differ(self) -> bool:
        """Whether one draw differs from another: stuck cells of one chip are the same in each."""
        return not self.fixed or "accumulator" in self.kinds

    def in_step(self, supply_v: Float[Array, "layer"], key: PRNGKeyArray) -> ErrorRates:
        """Rates at these supplies with the draws of one training step; differentiable in the supplies."""
        cells, timing = jax.random.split(key)
        return self._rates(supply_v, jax.random.key(_CHIP) if self.fixed else cells, timing)

    def in_draw(self, supply_v: Float[Array, "layer"], draw: Array, part: Array) -> ErrorRates:
        """Rates at these supplies in one of the draws that are measured; parts of a data set share its cells."""
        cells = jax.random.fold_in(jax.random.key(_MEASURED), draw)
        timing = jax.random.fold_in(jax.random.fold_in(cells, 1), part)
        return self._rates(supply_v, jax.random.key(_CHIP) if self.fixed else cells, timing)

    def _rates(self, supply_v: Float[Array, "layer"], cells: PRNGKeyArray, timing: PRNGKeyArray) -> ErrorRates:
        bits, late = bit_error_rate(self.mechanism, supply_v), wrong_result_rate(self.mechanism, supply_v)
        return ErrorRates(
            bits if "weight" in self.kinds else None,
            bits if "input" in self.kinds else None,
            late if "accumulator" in self.kinds else None,
            cells,
            timing,
        )


def faults_of(machine: Machine, plan: Plan) -> Faults | None:
    """What a plan injects on a machine, None for nothing; ValueError where the machine states no rates."""
    kinds = ERROR_KINDS[plan.errors]
    if not kinds:
        return None
    mechanism = machine.mechanisms.error_prone_supply
    if mechanism is None:
        raise ValueError(
            f"plan: errors '{plan.errors}', and machine {machine.name} has no mechanisms.error_prone_supply that says "
            "how often what goes wrong at which supply; state it in the machine's file, or use errors 'none'"
        )
    return Faults(mechanism, kinds, plan.error_map == "fixed")


def safe_supply_v(machine: Machine) -> float:
    """Lowest supply on the machine's grid at which its file calls logic and memory safe [V]; its floor without."""
    s, mechanism = machine.supply, machine.mechanisms.error_prone_supply
    floor, step = float(s.floor_v), float(s.step_v)
    if mechanism is None:
        return floor
    wanted = min(max(float(mechanism.safe_v), float(mechanism.memory_safe_v)), float(s.ceiling_v))
    return floor + step * max(math.ceil((wanted - floor) / step - _GRID_SLACK), 0)


def safe_machine(machine: Machine) -> Machine:
    """The machine with no supply below the safe one; the same where its file states no errors."""
    if machine.mechanisms.error_prone_supply is None:
        return machine
    dtype = machine.supply.floor_v.dtype
    floor = jnp.asarray(safe_supply_v(machine), dtype)
    return dataclasses.replace(machine, supply=dataclasses.replace(machine.supply, floor_v=floor))
