"""The 16-bit design of a network that was not trained: what prices are compared with when no data is at hand."""

import jax.numpy as jnp

from cooptim.descent.price import Pricer
from cooptim.descent.references import nominal_hardware, wide_design
from cooptim.design.design import Design
from cooptim.design.space import DesignSpace
from cooptim.hardware.machine import Machine
from cooptim.mapping.frontier import tilings
from cooptim.network.stats import Stats, dense_stats
from cooptim.workload import Workload


def wide(workload: Workload, machine: Machine) -> tuple[Design, Stats]:
    """Full width everywhere at nominal clock and supply, best tilings, not a zero anywhere."""
    layers = len(workload.layers)
    space = DesignSpace(workload, machine, tilings(workload, machine), (True,) * layers)
    stats = dense_stats(layers)
    design = wide_design(space, jnp.ones(layers), jnp.ones(layers))
    return nominal_hardware(space, Pricer(space), design, stats), stats
