"""The supply of least energy under a deadline, against a plain sweep in numpy."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cooptim.hardware import load_machine
from cooptim.hardware.minimum_energy import Job, least_energy, least_energy_on_grid

ENVISION = load_machine("envision")


def _leaky(leakage_mw, exponent=3.0):
    supply = dataclasses.replace(
        ENVISION.supply, leakage_mw=jnp.array(leakage_mw), leakage_exponent=jnp.array(exponent),
        retention_v=jnp.array(0.0), floor_v=jnp.array(0.60),
    )  # fmt: skip
    return dataclasses.replace(ENVISION, supply=supply)


def _sweep(volts, leak, deadline, cycles=1000.0, cycle=100.0, path=0.7, exponent=3.0):
    """Energy by hand: C V^2, the alpha-power law, a power of the supply for leakage, power-gated afterwards."""
    law = lambda v: (v - 0.588) ** 1.5 / v  # noqa: E731
    time = cycles / (0.2 * law(volts) / law(1.03) / path)
    energy = cycles * cycle * (volts / 1.03) ** 2 + leak * (volts / 1.03) ** exponent * time
    return np.where(time <= deadline * (1 + 1e-9), energy, np.inf), time


# leakage [mW], deadline [ns]: the floor, a minimum inside, the supply that the deadline asks for, next to the ceiling
CASES = {"floor": (1e-3, 1e9), "inside": (10.0, 1e9), "deadline": (1e-3, 6000.0), "ceiling": (1e4, 1e9)}


@pytest.mark.parametrize("case", CASES)
def test_least_energy_is_that_of_a_sweep(case):
    leak, deadline = CASES[case]
    exponent = 1.0 if case == "ceiling" else 3.0  # with the cube, leakage alone is least at 0.94 V
    machine, job = _leaky(leak, exponent), Job(1000.0, 100.0, 0.7, deadline)
    volts = np.linspace(0.60, 1.03, 200_001)
    energy, time = _sweep(volts, leak, deadline, exponent=exponent)
    found, best = least_energy(machine, job), int(np.argmin(energy))
    assert float(found.energy_pj) == pytest.approx(energy[best], rel=1e-5)
    assert float(found.supply_v) == pytest.approx(volts[best], abs=1e-4)
    assert float(found.latency_ns) == pytest.approx(time[best], rel=1e-2) and found.latency_ns <= deadline * (1 + 1e-9)
    inside = 0.601 < float(found.supply_v) < 1.029
    assert inside == (case in ("inside", "deadline"))
    assert (case == "deadline") == (abs(float(found.latency_ns) - deadline) < 1e-3)


def test_on_the_grid_every_legal_supply_is_weighed():
    machine, job = _leaky(10.0), Job(1000.0, 100.0, 0.7, 1e9)
    volts = 0.60 + 0.01 * np.arange(44)
    law = (volts - 0.588) ** 1.5 / volts / ((1.03 - 0.588) ** 1.5 / 1.03)
    clock = np.floor(200 * law / 0.7 + 1e-4) / 1000  # whole MHz
    energy = 1e5 * (volts / 1.03) ** 2 + 10.0 * (volts / 1.03) ** 3 * 1000 / clock
    found = least_energy_on_grid(machine, job)
    assert float(found.supply_v) == pytest.approx(volts[np.argmin(energy)])
    assert float(found.energy_pj) == pytest.approx(energy.min(), rel=1e-9)
    assert float(found.energy_pj) >= float(least_energy(machine, job).energy_pj)


@pytest.mark.parametrize("case", ["inside", "deadline"])
def test_the_best_supply_has_the_gradient_of_finite_differences(case):
    leak, deadline = CASES[case]

    def of(x):
        found = least_energy(_leaky(x[0]), Job(x[1], x[2], x[3], x[4]))
        return jnp.stack([found.supply_v, found.energy_pj])

    x = jnp.array([leak, 1000.0, 100.0, 0.7, deadline])
    slope, f = np.asarray(jax.jit(jax.jacrev(of))(x)), jax.jit(of)
    for j in range(4 + (case == "deadline")):
        step = jnp.zeros(5).at[j].set(1e-4 * x[j])
        numeric = np.asarray((f(x + step) - f(x - step)) / (2e-4 * x[j]))
        np.testing.assert_allclose(slope[:, j], numeric, rtol=1e-4, atol=1e-9)


# the nominal clock over the path is 285.7 MHz: 3500 ns, and 285 MHz on the grid
@pytest.mark.parametrize("search, fastest", [(least_energy, "3500"), (least_energy_on_grid, "3508.77")])
def test_a_deadline_out_of_reach_is_named_with_demand_bound_and_gap(search, fastest):
    asked = rf"deadline 1000 ns for 1000 cycles on envision: .* 1\.03 V, takes {fastest} .*gap 3\.5"
    with pytest.raises(ValueError, match=asked):
        search(_leaky(1.0), Job(1000.0, 100.0, 0.7, 1000.0))
