"""A traced program run again with some of its equations replaced: how a technique changes a model nobody rewrites.

What comes out is one more pure function, which `trace` reads like any other: widths, masks and prices apply unchanged.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from cooptim.network.flow import Path
from cooptim.network.interpret import Interpreter, Knobs, Measured, bind
from cooptim.network.jaxprs import CALLS, CUSTOM, call_jaxpr, opened, scan_split
from cooptim.network.plan import Plan, Site
from cooptim.network.quantized import observing
from cooptim.network.trace import Network, Traced, arrays

PyTree = Any
Replacement = Callable[[Any, list[Any]], list[Any]]  # (equation, its operands) -> what takes the place of its outputs


@dataclasses.dataclass(frozen=True)
class Rewriter(Interpreter):
    """Runs every equation as it is but those that are replaced."""

    replaced: Mapping[Path, Replacement] = dataclasses.field(default_factory=dict)

    def _step(self, eqn: Any, args: list[Any], path: Path, knobs: Knobs) -> tuple[list[Any], Measured]:
        if path in self.replaced:
            return self.replaced[path](eqn, args), {}
        return super()._step(eqn, args, path, knobs)

    def _site(self, eqn: Any, args: list[Any], site: Site, knobs: Knobs) -> tuple[list[Any], Measured]:
        return bind(eqn, args), {}


@dataclasses.dataclass(frozen=True)
class InTheOpen(Rewriter):
    """Runs the calls that hold a replaced equation in the open, one trip of a scan and one branch of a cond, so that
    what is read there belongs to no inner program. Their outputs are zeros.
    """

    def _scan(self, eqn: Any, args: list[Any], path: Path, knobs: Knobs) -> tuple[list[Any], Measured]:
        if not self._branches(path):
            return super()._scan(eqn, args, path, knobs)
        n = sum(scan_split(eqn))
        self.run(eqn.params["jaxpr"], [*args[:n], *(xs[0] for xs in args[n:])], path + (0,), knobs)
        return _zeros(eqn), {}

    def _cond(self, eqn: Any, args: list[Any], path: Path, knobs: Knobs) -> tuple[list[Any], Measured]:
        if not self._branches(path):
            return super()._cond(eqn, args, path, knobs)
        for b in self._branches(path):
            self.run(eqn.params["branches"][b], args[1:], path + (b,), knobs)
        return _zeros(eqn), {}

    def _remat(self, eqn: Any, args: list[Any], path: Path, knobs: Knobs) -> tuple[list[Any], Measured]:
        return self.run(call_jaxpr(eqn), args, path + (0,), knobs)

    def _branches(self, path: Path) -> set[int]:
        return {found[len(path)] for found in self.replaced if found[: len(path)] == path}


def _zeros(eqn: Any) -> list[Any]:
    return [jnp.zeros(var.aval.shape, var.aval.dtype) for var in eqn.outvars]


def rerun(
    network: Network,
    params: PyTree,
    state: PyTree,
    x: PyTree,
    rngs: PyTree,
    train: bool,
    replacing: Callable[[Traced], Mapping[Path, Replacement]],
    rewriter: type[Rewriter] = Rewriter,
) -> tuple[PyTree, PyTree]:
    """Output and new state of the network's own program with the equations replaced that `replacing` gives for it."""
    traced, _, _ = network.traced(params, state, x, rngs, train)
    replaced = replacing(traced)
    ways = {path[:n] for path in replaced for n in range(1, len(path), 2)}
    plan = dataclasses.replace(traced.plan, masked={}, boundaries={}, branches={}, opened=traced.plan.opened | ways)
    outs, _ = rewriter(plan, observing(), replaced).run(traced.jaxpr, arrays(params, state, x, rngs), (), {})
    return jax.tree.unflatten(traced.out_tree, outs)


def way_to(jaxpr: Any, path: Path) -> list[Any]:
    """The equation at a path behind the calls that hold it, from the outside in."""
    eqns = []
    for index, branch in zip(path[::2], (*path[1::2], -1), strict=True):
        inner, _ = opened(jaxpr)
        eqns.append(inner.eqns[index])
        if branch >= 0:
            jaxpr = _inside(eqns[-1], branch)
    return eqns


def _inside(eqn: Any, branch: int) -> Any:
    name = eqn.primitive.name
    if name == "cond":
        return eqn.params["branches"][branch]
    return eqn.params["jaxpr"] if name == "scan" else call_jaxpr(eqn)


def tagged(jaxpr: Any, label: str, prefix: Path = ()) -> Iterator[Path]:
    """Paths of the equations that give a tensor this tag (`cooptim.tag`)."""
    inner, _ = opened(jaxpr)
    for i, eqn in enumerate(inner.eqns):
        name, path = eqn.primitive.name, prefix + (i,)
        if name == "name" and eqn.params["name"] == label:
            yield path
        branches = len(eqn.params["branches"]) if name == "cond" else int(name in CALLS | CUSTOM | {"scan"})
        for b in range(branches):
            yield from tagged(_inside(eqn, b), label, path + (b,))


def sites_of(plan: Plan, layer: str) -> list[Site]:
    """Where a layer stands: one multiply, or one in each branch that shares its knobs."""
    return [plan.sites[path] for path, names in sorted(plan.names.items()) if layer in names.ravel()]
