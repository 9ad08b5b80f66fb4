"""The supply of least energy for a job under a deadline: on the grid of legal supplies, and continuous."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from cooptim.hardware.dvafs import (
    clock_on_grid,
    dynamic_scale,
    leakage_mw,
    max_clock_ghz,
    standby_mw,
    supply_for_clock,
    supply_grid,
)
from cooptim.hardware.machine import Machine

_SCAN = 129  # supplies that bracket the least energy: a minimum narrower than one step would be missed
_HALVINGS = 60


class Job(NamedTuple):
    """What is to be done by when; scalars.

    Attributes:
      cycles: array cycles. cycle_pj: switching energy of a cycle at nominal supply, the activity in it.
      path: critical path over that of the full width. deadline_ns: time from its start to the next one's.
    """

    cycles: Any
    cycle_pj: Any
    path: Any
    deadline_ns: Any


class LeastEnergy(NamedTuple):
    """A supply, the clock it runs at, and energy [pJ] and time [ns] of the job there."""

    supply_v: Float[Array, ""]
    freq_ghz: Float[Array, ""]
    energy_pj: Float[Array, ""]
    latency_ns: Float[Array, ""]


def job_energy_pj(
    machine: Machine, job: Job, supply_v: Float[ArrayLike, "*#n"], freq_ghz: Float[ArrayLike, "*#n"]
) -> Float[Array, "..."]:
    """Switching, leakage while the job runs, and leakage at the retention supply until the deadline [pJ]."""
    size, time = machine.buffer.size_bits, job.cycles / jnp.asarray(freq_ghz)
    dynamic = job.cycles * job.cycle_pj * dynamic_scale(machine.supply, jnp.asarray(supply_v))
    idle = standby_mw(machine, size) * jnp.maximum(job.deadline_ns - time, 0.0)
    return dynamic + leakage_mw(machine, supply_v, size) * time + idle


def least_energy_on_grid(machine: Machine, job: Job) -> LeastEnergy:
    """The legal supply and clock of least energy on time; every supply of the grid at its fastest clock is tried.

    Raises ValueError, with demand, bound and gap, when the fastest is late.
    """
    volts = jnp.asarray(supply_grid(machine.supply))
    freq = clock_on_grid(machine.supply, max_clock_ghz(machine.supply, volts, job.path))
    freq = jnp.maximum(freq, machine.supply.step_ghz)
    time = job.cycles / freq
    _require_time(machine, job, float(jnp.min(time)))
    energy = jnp.where(time <= job.deadline_ns * (1 + 1e-9), job_energy_pj(machine, job, volts, freq), jnp.inf)
    pick = int(np.argmin(np.asarray(energy)))
    return LeastEnergy(volts[pick], freq[pick], energy[pick], time[pick])


def least_energy(machine: Machine, job: Job) -> LeastEnergy:
    """The continuous supply of least energy on time, at its fastest clock; differentiable in machine and job.

    Between the supply that the deadline asks for (not below the floor) and the ceiling, energy is scanned and its slope
    bisected; one Newton step carries the gradient of a minimum inside (implicit function theorem). A minimum on an end
    moves with that end.

    Raises ValueError, with demand, bound and gap, when the ceiling is too slow; while traced, the ceiling is returned.
    """
    s, hold = machine.supply, jax.lax.stop_gradient
    fastest = job.cycles / max_clock_ghz(s, s.ceiling_v, job.path)
    if not any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves((machine, job))):
        _require_time(machine, job, float(fastest))

    def energy(volts, machine, job):  # type: ignore[no-untyped-def]
        return job_energy_pj(machine, job, volts, max_clock_ghz(machine.supply, volts, job.path))

    slope = jax.grad(energy)
    low = jnp.minimum(supply_for_clock(s, job.cycles / job.deadline_ns, job.path), s.ceiling_v)
    held, task = hold(machine), hold(job)
    scan = hold(low) + (hold(s.ceiling_v) - hold(low)) * jnp.linspace(0.0, 1.0, _SCAN)
    best = jnp.argmin(energy(scan, held, task))
    inside = (best > 0) & (best < _SCAN - 1)
    rising = slope(scan[0], held, task) >= 0  # from the lower end on: the minimum is that end

    def halve(_, bracket):  # type: ignore[no-untyped-def]
        below, above = bracket
        middle = 0.5 * (below + above)
        up = slope(middle, held, task) > 0
        return jnp.where(up, below, middle), jnp.where(up, middle, above)

    start = scan[jnp.maximum(best - 1, 0)], scan[jnp.minimum(best + 1, _SCAN - 1)]
    found = hold(jax.lax.fori_loop(0, _HALVINGS, halve, start)[1])
    bend = hold(jax.grad(slope)(found, held, task))
    newton = found - slope(found, machine, job) / jnp.where(bend > 0, bend, 1.0)
    falling = slope(scan[-1], held, task) <= 0
    at_low, at_high = (best == 0) & rising, (best == _SCAN - 1) & falling
    end = jnp.where(at_low, low, s.ceiling_v)
    volts = jnp.where(inside | ~(at_low | at_high), newton, end)
    freq = max_clock_ghz(s, volts, job.path)
    return LeastEnergy(volts, freq, energy(volts, machine, job), job.cycles / freq)


def _require_time(machine: Machine, job: Job, fastest_ns: float) -> None:
    deadline = float(job.deadline_ns)
    if fastest_ns > deadline * (1 + 1e-9):
        raise ValueError(
            f"deadline {deadline:g} ns for {float(job.cycles):g} cycles on {machine.name}: the fastest supply, "
            f"{float(machine.supply.ceiling_v):g} V, takes {fastest_ns:g} ns (gap {fastest_ns / deadline:.3g} times); "
            "allow more time, fewer cycles or narrower operands, or raise the ceiling"
        )
