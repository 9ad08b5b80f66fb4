"""What does a fraction of the bound ask of a network? The bound itself at shares of non-zero words, every width 2 b.

The printed bound holds for a network of zeros. Here the same bound is taken for networks of which at least a share of
the weights and of the inputs is not zero: no legal design with as many takes less. Usage:
    python experiments/joint_vs_sequential/bound.py [--network lenet5] [--buffer 128] [--deadlines 0.5 1 2]
Prints a line a deadline; no training, no data.
"""

import argparse

import jax.numpy as jnp
from flax import nnx
from run import NETWORKS, machine_with

import cooptim
from cooptim.descent.wide import wide
from cooptim.mapping.frontier import tilings

IMAGES = {"digits": (1, 8, 8, 1), "lenet5": (1, 28, 28, 1), "resnet8": (1, 28, 28, 1)}
SHARES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0)


def main() -> None:
    """Prints the bound at each share over the bound at none."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=IMAGES, default="lenet5")
    parser.add_argument("--buffer", type=float, default=128.0, help="size [kB]")
    parser.add_argument("--deadlines", type=float, nargs="+", default=[0.5, 1.0, 2.0], help="over the 16-bit design's")
    args = parser.parse_args()
    workload = cooptim.trace(NETWORKS[args.network](nnx.Rngs(0), 1), jnp.zeros(IMAGES[args.network])).workload
    machine = machine_with(args.buffer)
    table, wide_report = tilings(workload, machine), cooptim.evaluate(workload, machine, *wide(workload, machine))
    print("non-zero share of both operands: " + "  ".join(f"{share:5.2f}" for share in SHARES))
    for factor in args.deadlines:
        period_ns = factor * float(wide_report.total_latency_ns)
        at = [
            cooptim.energy_bound_pj(workload, machine, period_ns, density=share, tilings=table).bound_pj
            for share in SHARES
        ]
        shown = "  ".join(f"{value / at[0]:5.2f}" for value in at)
        print(f"deadline x {factor:<4g} bound {at[0] / 1e3:7.1f} nJ     {shown}")


if __name__ == "__main__":
    main()
