"""Is every gradient that a descent follows right? Each cost term and each relaxation, in each coordinate, in float64.

Five-point central differences at 10,000 random points a term, off the kinks that `cooptim.cost.evaluate.KINKS` and the
docstrings of `cooptim.relax` list. A relaxation with an exact gradient is differenced itself; a straight-through one
is compared with the function whose slope it promises, written out by hand in `relaxations.py`. Usage:
    python experiments/gradients/run.py [--points 10000] [--seed 0]
Prints the worst relative error of each term.
"""

import argparse
import functools
import pathlib
import sys
import time
from collections.abc import Callable

import jax

jax.config.update("jax_enable_x64", True)
ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(pathlib.Path(__file__).parent)]

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from relaxations import RELAXATIONS  # noqa: E402

from cooptim.workload import Workload  # noqa: E402
from tests.cost import test_gradients as cases  # noqa: E402

LIMIT = 1e-4
NEGLIGIBLE = 1e-6  # elasticities below it are held to the same absolute error: their differences drown in rounding

Terms = Callable[[jax.Array], tuple[jax.Array, jax.Array]]  # coordinates -> (terms, sides of the kinks)


def worst_errors(exact: jax.Array, terms: Callable, x: jax.Array) -> tuple[np.ndarray, float]:
    """(largest relative error of each term over points and coordinates, share of the points that were off a kink).

    Args:
      exact: gradients [point, term, coordinate]; terms: (x, start) -> (values, sides), differenced in x.
    """
    both = jax.jit(jax.vmap(terms))
    values, side = both(x, x)
    worst, smooth_share = np.zeros(values.shape[1]), 0.0
    for j in range(x.shape[1]):
        scale = jnp.maximum(jnp.abs(x[:, j]), 1e-3)
        h = 1e-4 * scale
        (p1, s1), (m1, s2), (p2, s3), (m2, s4) = (both(x.at[:, j].add(k * h), x) for k in (1, -1, 2, -2))
        smooth = jnp.all((s1 == side) & (s2 == side) & (s3 == side) & (s4 == side), axis=1)
        slope = (8 * (p1 - m1) - (p2 - m2)) / (12 * h[:, None])
        floor = NEGLIGIBLE * jnp.abs(values / scale[:, None]) + 1e-12
        error = jnp.abs(exact[:, :, j] - slope) / jnp.maximum(jnp.abs(slope), floor)
        worst = np.maximum(worst, np.max(jnp.where(smooth[:, None], error, 0.0), axis=0))
        smooth_share += float(smooth.mean()) / x.shape[1]
    return worst, smooth_share


def _terms(workload: Workload, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The terms of the cost tests; their sides and the order of the input widths, for maps with several consumers."""
    values, side = cases._terms(workload, x, 1e5)
    width = cases._split(x)["input_bits"]
    return values, jnp.concatenate([side, (width[:, None] > width).ravel()])


def cost_terms(points: int, rng: np.random.Generator) -> dict[str, tuple[float, float]]:
    """Worst error and share of points off kinks of each term of the report, over both workloads of the cost tests."""
    out: dict[str, tuple[float, float]] = {}
    for workload in (cases.DIGITS, cases.TIGHT):
        terms = functools.partial(_terms, workload)
        x = cases._points(rng, points)
        exact = jax.jit(jax.vmap(jax.jacrev(lambda p, terms=terms: terms(p)[0])))(x)
        worst, share = worst_errors(exact, lambda p, _, terms=terms: terms(p), x)
        out |= {f"{term}, {workload.name}": (float(w), share) for term, w in zip(cases.TERMS, worst, strict=True)}
    return out


def relaxation_terms(points: int, rng: np.random.Generator) -> dict[str, tuple[float, float]]:
    """The same of each relaxation; the worst over its outputs."""
    out = {}
    for name, case in RELAXATIONS.items():
        x = jnp.asarray(case.points(rng, points))
        exact = jax.jit(jax.vmap(jax.jacrev(case.relaxed)))(x)
        worst, share = worst_errors(exact, lambda p, start, case=case: (case.promised(p, start), case.sides(p)), x)
        out[name] = (float(worst.max()), share)
    return out


def main() -> int:
    """Prints the table; 1 when an error exceeds the limit or too few points were off the kinks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng, begin = np.random.default_rng(args.seed), time.process_time()
    found = relaxation_terms(args.points, rng) | cost_terms(args.points, rng)
    print(f"{'term':48s} {'worst error':>12s} {'off kinks':>10s}")
    for name, (error, share) in found.items():
        print(f"{name:48s} {error:12.1e} {100 * share:9.2f}%")
    bad = [name for name, (error, share) in found.items() if not (error <= LIMIT and share > 0.95)]
    print(f"{len(found)} terms at {args.points} points each, {time.process_time() - begin:.0f} CPU-s: ", end="")
    print(f"all within {LIMIT:g}" if not bad else f"beyond {LIMIT:g} or mostly on kinks: {', '.join(bad)}")
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
