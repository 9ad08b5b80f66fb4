"""Runs a jaxpr equation by equation, with a probe on the operands of each multiply-accumulate.

Only calls that hold such an equation are opened; all others are bound unchanged, so custom derivative rules live.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core as jcore

from cooptim.network.flow import Path
from cooptim.network.jaxprs import CALLS, REMATS, call_jaxpr, opened, scan_split
from cooptim.network.plan import Plan, Site

Knobs = Mapping[Path, Any]  # for each site a pytree; its arrays have one leading axis for each scan still to be entered
Measured = dict[Path, dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Probe:
    """What is done to the operands of a site.

    Attributes:
      touch: (site, W, I, knobs of the site) -> (W, I, measurements).
      multiply: (site, mac, W, I, knobs of the site) -> (outputs of mac(W, I) under the probe, measurements); takes the
        place of `touch` where no parameter reaches I. None to use `touch` everywhere.
      mask: (site, weight leaf, knobs of the site) -> the leaf as it is stored, for uses outside multiplies.
      over_trips: for each measurement, how the trips of a scan over constant weights reduce: (array) -> over axis 0.
      absent: for each measurement, its value where a branch does not run the layer.
      result: (site, mac, W, I as they were multiplied, outputs, knobs of the site) -> the outputs as they are left;
        None leaves them. Sites in closed calls have none.
      at_trip: (site, its knobs, trip) -> its knobs in one trip of a scan over constant weights; None for the same ones.
    """

    touch: Callable[[Site, Any, Any, Any], tuple[Any, Any, dict[str, Any]]]
    mask: Callable[[Site, Any, Any], Any]
    over_trips: Mapping[str, Callable[[Any], Any]]
    absent: Mapping[str, float]
    multiply: Callable[[Site, Callable[[Any, Any], Any], Any, Any, Any], tuple[Any, dict[str, Any]]] | None = None
    result: Callable[[Site, Callable[[Any, Any], Any], Any, Any, Any, Any], Any] | None = None
    at_trip: Callable[[Site, Any, Any], Any] | None = None


@dataclasses.dataclass(frozen=True)
class Interpreter:
    """One plan with one probe."""

    plan: Plan
    probe: Probe

    def run(self, jaxpr: Any, args: Sequence[Any], prefix: Path, knobs: Knobs) -> tuple[list[Any], Measured]:
        """Outputs of the jaxpr, and the measurements of its sites (of cheaper branches in the slots of the dearest)."""
        inner, consts = opened(jaxpr)
        env: dict[Any, Any] = dict(zip(inner.constvars, consts, strict=True))
        env.update(zip(inner.invars, args, strict=True))
        measured: Measured = {}

        def read(atom: Any) -> Any:
            return atom.val if isinstance(atom, jcore.Literal) else env[atom]

        for i, eqn in enumerate(inner.eqns):
            path = prefix + (i,)
            outs, found = self._step(eqn, [read(atom) for atom in eqn.invars], path, knobs)
            measured.update(found)
            env.update(zip(eqn.outvars, outs, strict=True))
        return [read(atom) for atom in inner.outvars], measured

    def _step(self, eqn: Any, args: list[Any], path: Path, knobs: Knobs) -> tuple[list[Any], Measured]:
        plan = self.plan
        if path in plan.sites:
            return self._site(eqn, args, plan.sites[path], knobs)
        if path in plan.boundaries:
            return self._boundary(eqn, args, path, knobs)
        if path in plan.opened:
            name = eqn.primitive.name
            if name == "scan":
                return self._scan(eqn, args, path, knobs)
            if name == "cond":
                return self._cond(eqn, args, path, knobs)
            if name in REMATS:
                return self._remat(eqn, args, path, knobs)
            if name in CALLS:
                return self.run(call_jaxpr(eqn), args, path + (0,), knobs)
        for operand, site in plan.masked.get(path, {}).items():
            args[operand] = self.probe.mask(plan.sites[site], args[operand], knobs.get(site))
        return bind(eqn, args), {}

    def _site(self, eqn: Any, args: list[Any], site: Site, knobs: Knobs) -> tuple[list[Any], Measured]:
        w, i, own = args[site.weight], args[site.data], knobs.get(site.path)

        def mac(w: Any, i: Any) -> Any:
            operands = list(args)
            operands[site.weight], operands[site.data] = w, i
            return bind(eqn, operands)[0]

        if site.raw and self.probe.multiply is not None and len(args) == 2:
            out, measured = self.probe.multiply(site, mac, w, i, own)
            return [out], {site.path: measured}
        w, i, measured = self.probe.touch(site, w, i, own)
        out = mac(w, i)
        if self.probe.result is not None:
            out = self.probe.result(site, mac, w, i, out, own)
        return [out], {site.path: measured}

    def _boundary(self, eqn: Any, args: list[Any], path: Path, knobs: Knobs) -> tuple[list[Any], Measured]:
        found: Measured = {}
        for boundary in self.plan.boundaries[path]:
            site = self.plan.sites[boundary.site]
            w, i, found[site.path] = self.probe.touch(
                site, args[boundary.weight], args[boundary.data], knobs.get(site.path)
            )
            args[boundary.weight], args[boundary.data] = w, i
        return bind(eqn, args), found

    def _remat(self, eqn: Any, args: list[Any], path: Path, knobs: Knobs) -> tuple[list[Any], Measured]:
        def body(args: list[Any], knobs: Knobs) -> tuple[list[Any], Measured]:
            return self.run(call_jaxpr(eqn), args, path + (0,), knobs)

        again = jax.checkpoint(body, prevent_cse=eqn.params["prevent_cse"], policy=eqn.params["policy"])
        return again(args, dict(knobs))

    def _scan(self, eqn: Any, args: list[Any], path: Path, knobs: Knobs) -> tuple[list[Any], Measured]:
        """Knobs that differ from trip to trip travel as inputs of the scan, measurements come out as its outputs."""
        n_const, n_carry = scan_split(eqn)
        params = eqn.params
        consts, carry, xs = args[:n_const], args[n_const : n_const + n_carry], args[n_const + n_carry :]
        each_trip = {p: k for p, k in knobs.items() if self._differs(p, path)}
        constant = {p: k for p, k in knobs.items() if p not in each_trip}

        at_trip = self.probe.at_trip
        count = None if at_trip is None else jnp.arange(params["length"])

        def trip(carry: list[Any], item: tuple[list[Any], Knobs, Any]) -> tuple[list[Any], tuple[list[Any], Measured]]:
            own = constant
            if at_trip is not None:
                own = {p: at_trip(self.plan.sites[p], k, item[2]) for p, k in constant.items()}
            outs, found = self.run(params["jaxpr"], [*consts, *carry, *item[0]], path + (0,), {**own, **item[1]})
            return outs[:n_carry], (outs[n_carry:], found)

        carry, (ys, found) = jax.lax.scan(
            trip, carry, (xs, each_trip, count), length=params["length"], reverse=params["reverse"],
            unroll=params["unroll"],
        )  # fmt: skip
        reduced = {
            p: m if self._differs(p, path) else {key: self.probe.over_trips[key](value) for key, value in m.items()}
            for p, m in found.items()
        }
        return [*carry, *ys], reduced

    def _differs(self, site: Path, scan: Path) -> bool:
        return any(path == scan for path, _ in self.plan.sites[site].scans)

    def _cond(self, eqn: Any, args: list[Any], path: Path, knobs: Knobs) -> tuple[list[Any], Measured]:
        def branch(b: int, jaxpr: Any) -> Callable[..., tuple[list[Any], Measured]]:
            def run(*operands: Any) -> tuple[list[Any], Measured]:
                outs, found = self.run(jaxpr, operands, path + (b,), knobs)
                return outs, self._in_slots(path, found)

            return run

        branches = [branch(b, jaxpr) for b, jaxpr in enumerate(eqn.params["branches"])]
        return jax.lax.switch(args[0], branches, *args[1:])

    def _in_slots(self, path: Path, found: Measured) -> Measured:
        """Measurements of one branch under the sites of the dearest, so that all branches return the same."""
        out: Measured = {}
        for slot in self.plan.branches.get(path, ()):
            shape = tuple(n for scan, n in self.plan.sites[slot].scans if scan[: len(path)] == path)
            twins = [m for p, m in found.items() if self.plan.slots.get(p, p) == slot]
            out[slot] = {
                key: jnp.broadcast_to(
                    sum(jnp.mean(m[key]) for m in twins) / len(twins) if twins else jnp.asarray(fill, measure_dtype()),
                    shape,
                )
                if slot not in found
                else found[slot][key]
                for key, fill in self.probe.absent.items()
            }
        return out


def measure_dtype() -> Any:
    """Type of measurements: jax's default float."""
    return jnp.zeros(()).dtype


def bind(eqn: Any, args: Sequence[Any]) -> list[Any]:
    """Outputs of one equation, its primitive and parameters unchanged."""
    params = eqn.primitive.get_bind_params(eqn.params)
    functions, params = params if isinstance(params, tuple) else ((), params)  # jax up to 0.9 splits functions off
    with eqn.ctx.manager:
        out = eqn.primitive.bind(*functions, *args, **params)
    return list(out) if eqn.primitive.multiple_results else [out]
