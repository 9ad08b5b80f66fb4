"""The walker: from a jaxpr and the roles of its inputs to the plan of its layers.

Roles follow the flow of data, never the order of operands. Calls are entered (`jit`, `remat`, `scan`, `cond`), loop
carries settle by fixpoint, and a custom derivative rule stays closed: its layers are priced from the inside and their
operands must be operands of the call.
"""

import collections
import contextlib
import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

from jax.extend import core as jcore

from cooptim.network.flow import VIEWS, Flow, Path, UnpriceableError, join, passed
from cooptim.network.handmade import handmade
from cooptim.network.jaxprs import CALLS, CUSTOM, OPAQUE, call_jaxpr, holds, inner_jaxprs, opened, scan_split
from cooptim.network.nest import MACS, loop_nest, weight_axes
from cooptim.network.plan import Entry, Leaf, Plan, Site, WeightProduct
from cooptim.network.record import Record
from cooptim.network.selection import picks_elements
from cooptim.workload import Layer


@dataclasses.dataclass
class _Loop:
    path: Path
    length: int
    unrolled: bool  # its trips use different weights, so each trip has its own layers
    trip: int = 0


class Walker:
    """One walk over one jaxpr; `plan` gives what it found."""

    def __init__(self, leaves: Sequence[Leaf]) -> None:
        self.record = Record(leaves)
        self._loops: list[_Loop] = []
        self._varying: set[Path] = set()  # scans whose trips use different weights
        self._closed: list[tuple[Path, Any]] = []
        self._sealed = 0  # inside calls that `apply` never opens
        self._while = 0
        self._dry = 0
        self._roots = 0

    def plan(self, outputs: Sequence[Flow], network: str) -> Plan:
        """What the walk found; raises UnpriceableError when something could not be priced."""
        return self.record.plan(outputs, network)

    # -- values ---------------------------------------------------------------------------------------------------

    def fresh(self) -> int:
        """A new tensor identity."""
        self._roots += 1
        return self._roots

    @contextlib.contextmanager
    def _silent(self) -> Iterator[None]:
        self._dry += 1
        try:
            yield
        finally:
            self._dry -= 1

    # -- equations ------------------------------------------------------------------------------------------------

    def walk(self, jaxpr: Any, flows: Sequence[Flow], prefix: Path) -> list[Flow]:
        """Flows out of a jaxpr, given those of its inputs."""
        inner, consts = opened(jaxpr)
        env: dict[Any, Flow] = {}
        for var, value in zip(inner.constvars, consts, strict=True):
            env[var] = self.record.constant(value)
        env.update(zip(inner.invars, flows, strict=True))
        atoms = [atom for eqn in inner.eqns for atom in eqn.invars] + list(inner.outvars)
        used = collections.Counter(atom for atom in atoms if isinstance(atom, jcore.Var))

        def read(atom: Any) -> Flow:
            return self.record.constant(atom.val) if isinstance(atom, jcore.Literal) else env[atom]

        for i, eqn in enumerate(inner.eqns):
            single = [not isinstance(atom, jcore.Var) or used[atom] == 1 for atom in eqn.invars]
            ins, at = [read(atom) for atom in eqn.invars], prefix + (i,)
            moves = len(ins) == 2 and _bare(ins[1]) and picks_elements(eqn, inner.eqns[:i])
            outs = self._ordinary(eqn, ins, at) if moves else self._step(eqn, ins, at, single)
            env.update(zip(eqn.outvars, outs, strict=True))
        return [read(atom) for atom in inner.outvars]

    def _step(self, eqn: Any, ins: list[Flow], path: Path, single: list[bool]) -> list[Flow]:
        name = eqn.primitive.name
        # a product used twice (a normalization's output, averaged and centred) is a value in its own right
        ins = [f if one else dataclasses.replace(f, product=None) for f, one in zip(ins, single, strict=True)]
        if name in MACS:
            return [self._mac(eqn, ins, path)]
        if name in CALLS:
            return self.walk(call_jaxpr(eqn), ins, path + (0,))
        if name in CUSTOM:
            return self._custom(eqn, ins, path)
        if name == "scan":
            return self._scan(eqn, ins, path)
        if name == "cond":
            return self._cond(eqn, ins, path)
        if name == "while":
            return self._while_loop(eqn, ins, path)
        if any(flow.data for flow in ins):
            self._refuse_unknown(eqn, ins)
        if name == "name" and not self._dry and ins[0].data:
            label = eqn.params["name"]
            self.record.tags[label] = self.record.tags.get(label, frozenset()) | ins[0].sources
            ins = [dataclasses.replace(ins[0], tag=label)]
        return self._ordinary(eqn, ins, path)

    def _ordinary(self, eqn: Any, ins: list[Flow], path: Path) -> list[Flow]:
        out = passed(eqn, ins, self.fresh())
        learned = frozenset(i for i in self.record.leaves_of(ins) if self.record.leaves[i].learned)
        product, macs, leaves = handmade(eqn, ins, learned)
        if not self._dry:
            if macs:
                times = math.prod(loop.length for loop in self._loops if not loop.unrolled)
                trips = tuple(loop.trip for loop in self._loops if loop.unrolled)
                self.record.by_hand[path, trips] = (macs * times, leaves)
            if out.leaf is None and not self._sealed:
                for k, flow in enumerate(ins):
                    if flow.leaf is not None and not flow.varies:
                        self.record.masked.setdefault(path, {})[k] = flow.leaf
        out = dataclasses.replace(out, product=product)
        if eqn.primitive.name in VIEWS:  # the pieces of a split
            return [out for _ in eqn.outvars]
        return [out] + [dataclasses.replace(out, axes=None, product=None, root=self.fresh()) for _ in eqn.outvars[1:]]

    def _refuse_unknown(self, eqn: Any, ins: Sequence[Flow]) -> None:
        name = eqn.primitive.name
        hidden = name if name in OPAQUE else ""
        for sub in inner_jaxprs(eqn):
            hidden = hidden or holds(sub, OPAQUE | frozenset(MACS))
        if hidden:
            inside = "" if hidden == name else f" (it holds {hidden})"
            raise UnpriceableError(
                f"{self.record.nearest(ins)}: primitive '{name}'{inside} multiplies and accumulates data in a way that "
                f"has no known loop nest; priced are {', '.join(MACS)} inside jit, remat, scan, cond and custom "
                "derivative rules; write it with those, or trace the part of the network without it"
            )

    # -- layers ---------------------------------------------------------------------------------------------------

    def _mac(self, eqn: Any, ins: list[Flow], path: Path) -> Flow:
        left, right = ins[0], ins[1]
        if not left.data and not right.data:
            return self._weight_product(eqn, ins, path)
        both = left.data and right.data
        weight = 1 if both or not right.data else 0
        w, i = ins[weight], ins[1 - weight]
        base = (w.tag or i.tag or "matmul") if both else (self.record.leaf_names(w.leaves) or ("const",))[0]
        if self._while:
            raise UnpriceableError(
                f"{base}: its {eqn.primitive.name} stands in a while loop, whose trip count is unknown before it runs; "
                "a loop is priced when its length is fixed; use lax.scan, or lax.fori_loop with constant bounds"
            )
        self._varying |= {loop.path for loop in self._loops if loop.path in w.varies}
        fixed = w.fixed and i.fixed
        if self._dry:
            return Flow(data=True, fixed=fixed, root=self.fresh())
        loops = [lp for lp in self._loops if (lp.unrolled if both else lp.path in w.varies)]
        site = Site(
            path,
            weight,
            1 - weight,
            tuple((lp.path, lp.length) for lp in loops),
            None if both else w.leaf,
            both,
            i.fixed,
            None if both or self._closed else weight_axes(eqn, weight),
            w.leaf is not None and w.intact,
        )
        if self._closed:
            self.record.close(self._closed[0], site, eqn, (w, i), base)
        trips = tuple(lp.trip for lp in loops)
        entry = self.record.entries.get((path, trips))
        if entry is None:
            layer = self._layer(eqn, site, base + "".join(f"[{t}]" for t in trips), w)
            entry = self.record.enter(site, trips, layer)
        entry.sources |= i.sources | (w.sources if both else frozenset())
        return Flow(data=True, fixed=fixed, sources=frozenset({entry.layer.name}), root=self.fresh())

    def _layer(self, eqn: Any, site: Site, name: str, w: Flow) -> Layer:
        nest = loop_nest(eqn, site.weight, name)
        differing = {path for path, _ in site.scans}
        closed = f"inside {self._closed[0][1].primitive.name}: quantized at its boundary" if self._closed else ""
        return Layer(
            name=name,
            kind="matmul" if site.product else nest.kind,
            bounds=nest.bounds,
            stride=nest.stride,
            dilation=nest.dilation,
            padding=nest.padding,
            repeat=math.prod(loop.length for loop in self._loops if loop.path not in differing),
            weight_leaves=() if site.product else self.record.leaf_names(w.leaves),
            transposed=nest.transposed,
            note="; ".join(note for note in (nest.note, closed) if note),
        )

    def _weight_product(self, eqn: Any, ins: Sequence[Flow], path: Path) -> Flow:
        leaves = self.record.leaves_of(ins)
        if not self._dry:
            name = (self.record.leaf_names(leaves) or ("const",))[0]
            macs = None if self._while else loop_nest(eqn, 1, name).macs * math.prod(lp.length for lp in self._loops)
            self.record.products[path] = WeightProduct(name, macs)
        return Flow(
            fixed=all(flow.fixed for flow in ins),
            leaves=leaves,
            varies=frozenset().union(*(flow.varies for flow in ins)),
            root=self.fresh(),
        )

    # -- calls ----------------------------------------------------------------------------------------------------

    def _custom(self, eqn: Any, ins: list[Flow], path: Path) -> list[Flow]:
        """A custom derivative rule stays closed when it multiplies data."""
        self._sealed += 1
        if self._closed or not holds(call_jaxpr(eqn), MACS):
            outs = self.walk(call_jaxpr(eqn), ins, path + (0,))
            self._sealed -= 1
            return outs
        self._closed.append((path, eqn))
        outs = self.walk(call_jaxpr(eqn), [dataclasses.replace(f, entry=k) for k, f in enumerate(ins)], path + (0,))
        self._closed.pop()
        self._sealed -= 1
        return [dataclasses.replace(out, entry=None) for out in outs]

    def _settle(self, body: Any, consts: list[Flow], carry: list[Flow], xs: list[Flow], path: Path) -> list[Flow]:
        """Roles of the carries of a loop, by fixpoint; sources are left out."""
        inner, _ = opened(body)
        carried = inner.invars[len(consts) : len(consts) + len(carry)]
        kept = [out is var for out, var in zip(inner.outvars, carried, strict=False)]
        with self._silent():
            while True:
                outs = self.walk(body, [*consts, *carry, *xs], path + (0,))[: len(carry)]
                moved = [
                    out if out.data or same else dataclasses.replace(out, varies=out.varies | {path})
                    for same, out in zip(kept, outs, strict=True)
                ]
                settled = [join(old, new) for old, new in zip(carry, moved, strict=True)]
                if [flow.role() for flow in settled] == [flow.role() for flow in carry]:
                    return settled
                carry = settled

    def _scan(self, eqn: Any, ins: list[Flow], path: Path) -> list[Flow]:
        n_const, n_carry = scan_split(eqn)
        body, length = eqn.params["jaxpr"], eqn.params["length"]
        clean = [dataclasses.replace(f, product=None, axes=None, carried=False) for f in ins]
        consts, init = clean[:n_const], clean[n_const : n_const + n_carry]
        xs = [
            dataclasses.replace(f, entry=None, varies=f.varies if f.data else f.varies | {path})
            for f in clean[n_const + n_carry :]
        ]
        loop = _Loop(path, length, unrolled=False)
        self._loops.append(loop)
        start = [dataclasses.replace(f, sources=frozenset(), entry=None) for f in init]
        carry = [dataclasses.replace(f, root=self.fresh()) for f in self._settle(body, consts, start, xs, path)]
        loop.unrolled = path in self._varying
        outs, arriving = self._trips(eqn, loop, consts, carry, [f.sources for f in init], xs, path)
        self._loops.pop()
        left = [dataclasses.replace(f, sources=s) for f, s in zip(carry, arriving, strict=True)] + outs[n_carry:]
        kept = [
            dataclasses.replace(f, varies=f.varies - {path}, entry=None, product=None, axes=None, carried=False)
            for f in left
        ]
        return kept[:n_carry] + [dataclasses.replace(f, leaf=None, tag="", root=self.fresh()) for f in kept[n_carry:]]

    def _trips(
        self,
        eqn: Any,
        loop: _Loop,
        consts: list[Flow],
        carry: list[Flow],
        arriving: list[frozenset[str]],
        xs: list[Flow],
        path: Path,
    ) -> tuple[list[Flow], list[frozenset[str]]]:
        """Walks the trips of a scan, each where weights differ, else until the sources of its carries settle."""
        collected: list[Flow] = []
        trips = range(loop.length)
        remaining = list(reversed(trips) if eqn.params["reverse"] else trips) if loop.unrolled else None
        while True:
            if remaining is not None and not remaining:
                return collected, arriving
            loop.trip = remaining.pop(0) if remaining is not None else 0
            flows = [dataclasses.replace(f, sources=s, carried=True) for f, s in zip(carry, arriving, strict=True)]
            outs = self.walk(eqn.params["jaxpr"], [*consts, *flows, *xs], path + (0,))
            leaving = [f.sources for f in outs[: len(carry)]]
            before = [f.sources for f in collected]
            collected = [join(a, b) for a, b in zip(collected, outs, strict=True)] if collected else outs
            if remaining is not None:
                arriving = leaving
                continue
            merged = [a | b for a, b in zip(arriving, leaving, strict=True)]
            if merged == arriving and before == [f.sources for f in collected]:
                return collected, leaving
            arriving = merged

    def _cond(self, eqn: Any, ins: list[Flow], path: Path) -> list[Flow]:
        """All branches are walked; the dearest is priced."""
        branches = eqn.params["branches"]
        uses, order = collections.Counter(self.record.uses), self.record.order
        found: list[list[Entry]] = []
        results: list[list[Flow]] = []
        merged = collections.Counter(uses)
        for b, branch in enumerate(branches):
            self.record.uses, self.record.order = collections.Counter(uses), []
            results.append(self.walk(branch, ins[1:], path + (b,)))
            found.append(self.record.order)
            merged |= self.record.uses
        self.record.uses, self.record.order = merged, order
        if any(found):
            self.record.choose(found, path)
        outs = []
        for flows in zip(*results, strict=True):
            flow = flows[0]
            for other in flows[1:]:
                flow = join(flow, other)
            late = frozenset() if flow.data else flow.leaves | ins[0].leaves
            outs.append(
                dataclasses.replace(
                    flow,
                    data=flow.data or ins[0].data,
                    fixed=flow.fixed and ins[0].fixed,
                    leaves=late,
                    leaf=flow.leaf if ins[0] == Flow() else None,
                    root=self.fresh(),
                )
            )
        return outs

    def _while_loop(self, eqn: Any, ins: list[Flow], path: Path) -> list[Flow]:
        data = any(flow.data for flow in ins)
        held = holds(eqn.params["body_jaxpr"], MACS) or holds(eqn.params["cond_jaxpr"], MACS)
        if data and held:
            n_cond, n_body = eqn.params["cond_nconsts"], eqn.params["body_nconsts"]
            self._while += 1
            consts, init = ins[n_cond : n_cond + n_body], ins[n_cond + n_body :]
            self._settle(eqn.params["body_jaxpr"], consts, init, [], path)
            with self._silent():
                self.walk(eqn.params["cond_jaxpr"], ins[:n_cond] + init, path + (1,))
            self._while -= 1
        leaves = self.record.leaves_of(ins)
        if held and not data and not self._dry:
            self.record.products[path] = WeightProduct((self.record.leaf_names(leaves) or ("const",))[0], None)
        flow = Flow(
            data=data,
            fixed=all(flow.fixed for flow in ins),
            leaves=frozenset() if data else leaves,
            varies=frozenset() if data else frozenset().union(*(flow.varies for flow in ins)),
            sources=frozenset().union(*(flow.sources for flow in ins)),
        )
        return [dataclasses.replace(flow, root=self.fresh()) for _ in eqn.outvars]


def _bare(flow: Flow) -> bool:
    """Whether no array but the program's own numbers reaches a value."""
    return not flow.data and flow.fixed and not flow.leaves
