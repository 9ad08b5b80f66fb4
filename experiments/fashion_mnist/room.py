"""Which widths and densities of LeNet-5 fit at which share of the printed bound? Pricing only, no training.

Each case: best legal modes, tilings and supplies within the 16-bit reference's latency at the given widths and shares
of non-zero words. Usage:
    python experiments/fashion_mnist/room.py
Prints one row a case.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
from flax import nnx

import cooptim
from cooptim.cost.bound import energy_bound_pj
from cooptim.descent.assign import assign_hardware
from cooptim.descent.price import Pricer
from cooptim.descent.references import wide_design
from cooptim.design.space import DesignSpace
from cooptim.mapping.frontier import tilings
from cooptim.network.examples import LeNet5
from cooptim.network.stats import Stats, dense_stats

WEIGHTS = (0.26, 0.1146, 0.0184, 0.0259, 0.3298)  # measured in the network at 0.807 of the README
INPUTS = (0.465, 0.197, 0.305, 0.144, 0.148)
NARROW = (2, 2, 2, 2, 2)
CASES = {  # weight bits, input bits, non-zero weights, non-zero inputs
    "everything zero, 2 b": (NARROW, NARROW, (0.0,) * 5, (0.0,) * 5),
    "weights zero, inputs half zero": (NARROW, NARROW, (0.0,) * 5, (0.5,) * 5),
    "sparse network": ((2, 2, 2, 2, 3), NARROW, WEIGHTS, INPUTS),
    "c1 weights 3 b": ((3, 2, 2, 2, 3), NARROW, WEIGHTS, INPUTS),
    "c3 weights 3 b": ((2, 3, 2, 2, 3), NARROW, WEIGHTS, INPUTS),
    "c5 3 b": ((2, 2, 3, 2, 3), (2, 2, 3, 2, 2), WEIGHTS, INPUTS),
    "f6 3 b": ((2, 2, 2, 3, 3), (2, 2, 2, 3, 2), WEIGHTS, INPUTS),
    "1 % more of c5's weights": ((2, 2, 2, 2, 3), NARROW, (0.26, 0.1146, 0.0284, 0.0259, 0.3298), INPUTS),
    "10 % fewer pixels": ((2, 2, 2, 2, 3), NARROW, WEIGHTS, (0.365, 0.197, 0.305, 0.144, 0.148)),
}


def main() -> None:
    """Prices every case."""
    machine = cooptim.load_machine("envision")
    workload = cooptim.trace(LeNet5(rngs=nnx.Rngs(0)), np.zeros((1, 28, 28, 1), np.float32)).workload
    space = DesignSpace(workload, machine, tilings(workload, machine), (False,) * 5)
    pricer, one = Pricer(space), jnp.ones(5)
    wide = wide_design(space, one, one)
    reference = assign_hardware(space, pricer, wide, dense_stats(5), float("inf"), nominal=True)
    deadline_ns = float(pricer.report(reference, dense_stats(5), 0.0).total_latency_ns)
    bound_pj = energy_bound_pj(workload, machine, deadline_ns, tilings=space.tilings).bound_pj
    for name, case in CASES.items():
        weight_bits, input_bits, weights, inputs = (jnp.asarray(values, jnp.float32) for values in case)
        narrow = dataclasses.replace(wide, weight_bits=weight_bits, input_bits=input_bits)
        stats = Stats(weights, inputs)
        legal = assign_hardware(space, pricer, narrow, stats, deadline_ns)
        energy_pj = float(pricer.report(legal, stats, deadline_ns).total_energy_pj)
        print(f"{name:32s} {energy_pj / 1e3:6.1f} nJ, {bound_pj / energy_pj:.3f} of the bound")


if __name__ == "__main__":
    main()
