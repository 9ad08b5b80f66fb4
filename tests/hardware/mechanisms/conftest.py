import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cooptim.compile import compiled_once
from cooptim.hardware.datapath import Datapath, Mode
from cooptim.hardware.mechanisms.effect import LayerPoint


@pytest.fixture
def gradients():
    """(gradients, central differences) of a scalar function at floats, one coordinate at a time, as arrays."""

    def both(scalar, *at, step=1e-5):
        found = compiled_once(jax.grad(scalar, argnums=tuple(range(len(at)))))(*at)
        run, slopes = compiled_once(scalar), []
        for k, x in enumerate(at):
            high, low = ([*at[:k], x * (1 + sign * step), *at[k + 1 :]] for sign in (1, -1))
            slopes.append((float(run(*high)) - float(run(*low))) / (2 * step * x))
        return np.asarray(found), np.asarray(slopes)

    return both


@pytest.fixture
def datapath():
    """A datapath of one mode and this width."""

    def of(width):
        numbers = dict.fromkeys(
            ("busy_pj", "control_pj", "gating_exponent", "subword_exponent", "idle_share", "guarded_share"),
            jnp.array(1.0),
        )
        return Datapath(4, 4, width, 32, (Mode(f"1x{width}b", 1, width),), **numbers)

    return of


@pytest.fixture
def point():
    """One layer of these widths, supply and bounds."""

    def of(weight_bits, input_bits, supply_v=1.0, **bounds):
        ones = {dim: np.array(1) for dim in ("B", "G", "K", "C", "OY", "OX", "FY", "FX")}
        ones |= {dim: np.array(size) for dim, size in bounds.items()}
        one = jnp.ones(())
        return LayerPoint(
            jnp.asarray(weight_bits), jnp.asarray(input_bits), one, one, jnp.asarray(supply_v), one, one, one, ones
        )

    return of
