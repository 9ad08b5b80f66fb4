"""What a walk finds: layers in order of execution, their names, and where `apply` must touch the jaxpr."""

import collections
import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from cooptim.network.flow import Flow, Path, UnpriceableError
from cooptim.network.nest import MACS
from cooptim.network.plan import Boundary, Entry, Leaf, Plan, Site, Trips, WeightProduct, ordered, site_names
from cooptim.workload import INPUT, Layer

_SHARE = 0.01  # hand-written products above this share of the MACs are refused


class Record:
    """Findings of one walk, filled in as it goes; `plan` sums them up."""

    def __init__(self, leaves: Sequence[Leaf]) -> None:
        self.leaves = list(leaves)
        self.entries: dict[tuple[Path, Trips], Entry] = {}
        self.order: list[Entry] = []
        self.uses: collections.Counter[str] = collections.Counter()
        self.rename: dict[str, str] = {}
        self.slots: dict[Path, Path] = {}
        self.branches: dict[Path, tuple[Path, ...]] = {}
        self.boundaries: dict[Path, dict[int, Boundary]] = {}
        self.masked: dict[Path, dict[int, int]] = {}
        self.tags: dict[str, frozenset[str]] = {}
        self.products: dict[Path, WeightProduct] = {}
        self.by_hand: dict[tuple[Path, Trips], tuple[int, frozenset[int]]] = {}
        self._constants: dict[int, tuple[int, Any]] = {}

    def constant(self, value: Any) -> Flow:
        """Flow of a closed-over array; a scalar is no weight."""
        size = math.prod(getattr(value, "shape", ()))
        if size <= 1:
            return Flow()
        if id(value) not in self._constants:
            self._constants[id(value)] = (len(self.leaves), value)
            self.leaves.append(Leaf("const", size, learned=False))
        index = self._constants[id(value)][0]
        return Flow(leaves=frozenset({index}), leaf=index)

    def leaves_of(self, flows: Sequence[Flow]) -> frozenset[int]:
        """All leaves in some flows, products with data included."""
        sets = [flow.leaves | (flow.product.leaves if flow.product else frozenset()) for flow in flows]
        return frozenset().union(*sets)

    def nearest(self, flows: Sequence[Flow]) -> str:
        """A name to put on an equation: its largest weight leaf, else the layers before it."""
        names = self.leaf_names(self.leaves_of(flows))
        before = sorted(frozenset().union(*(flow.sources for flow in flows)))
        return names[0] if names else f"after {', '.join(before)}" if before else "network"

    def leaf_names(self, leaves: frozenset[int]) -> tuple[str, ...]:
        """Names of leaves, largest first."""
        by_size = sorted(leaves, key=lambda i: (-self.leaves[i].size, i))
        return tuple(dict.fromkeys(self.leaves[i].name for i in by_size))

    def enter(self, site: Site, trips: Trips, layer: Layer) -> Entry:
        """Adds a layer at the end, under its name or, on a second use, with '#2' behind it."""
        self.uses[layer.name] += 1
        if self.uses[layer.name] > 1:
            layer = dataclasses.replace(layer, name=f"{layer.name}#{self.uses[layer.name]}")
        entry = self.entries[site.path, trips] = Entry(site, trips, layer, frozenset())
        self.order.append(entry)
        return entry

    def close(self, closed: tuple[Path, Any], site: Site, eqn: Any, operands: tuple[Flow, Flow], name: str) -> None:
        """Ties a site inside a closed call to the call's operands; refuses when an operand is made inside."""
        path, call = closed
        w, i = operands
        taken = self.boundaries.setdefault(path, {})
        boundary = Boundary(site.path, -1 if w.entry is None else w.entry, -1 if i.entry is None else i.entry)
        others = {k for k, b in taken.items() if b.site != site.path}
        clash = boundary.weight == boundary.data or {boundary.weight, boundary.data} & others
        if min(boundary.weight, boundary.data) < 0 or clash:
            reason = "share an operand with another multiply" if clash else "are not both operands of that call"
            raise UnpriceableError(
                f"{name}: its {eqn.primitive.name} stands inside a {call.primitive.name} and its operands {reason}; "
                "opening the call would lose its derivative rule, so they can only be quantized at its boundary; pass "
                "weight and data as arguments that enter one multiply directly, or move the rule off the multiply"
            )
        taken[boundary.weight] = taken[boundary.data] = boundary

    def choose(self, found: list[list[Entry]], path: Path) -> None:
        """Prices the dearest branch; layers of the others share its rows, by name where equal, else by position."""
        costs = [sum(entry.layer.macs for entry in entries) for entries in found]
        best = found[costs.index(max(costs))]
        for entry in best:
            note = f"cond: dearest of {len(found)} branches"
            entry.layer = dataclasses.replace(entry.layer, note="; ".join(n for n in (entry.layer.note, note) if n))
        names = {entry.layer.name: entry for entry in best}
        for entries in found:
            if entries is best:
                continue
            for k, entry in enumerate(entries):
                twin = names.get(entry.layer.name, best[min(k, len(best) - 1)])
                if twin.layer.name != entry.layer.name:
                    self.rename[entry.layer.name] = twin.layer.name
                self.slots.setdefault(entry.site.path, twin.site.path)
        self.branches.setdefault(path, tuple(dict.fromkeys(entry.site.path for entry in best)))
        self.order.extend(best)

    def plan(self, outputs: Sequence[Flow], network: str) -> Plan:
        """What the walk found; raises UnpriceableError when hand-written products outweigh 1 % of the MACs."""
        self._refuse_by_hand(network)
        index = {entry.layer.name: i for i, entry in enumerate(self.order)}
        layers = tuple(dataclasses.replace(e.layer, inputs=ordered(e.sources, self.rename, index)) for e in self.order)
        leaving = frozenset().union(*(flow.sources for flow in outputs)) - {INPUT}
        sites = {entry.site.path: entry.site for entry in self.entries.values()}
        first: dict[int, Path] = {}
        for path, site in sorted(sites.items()):
            if site.leaf is not None and not site.scans:
                first.setdefault(site.leaf, path)
        masked = {
            path: {k: first[leaf] for k, leaf in uses.items() if leaf in first}
            for path, uses in self.masked.items()
            if any(leaf in first for leaf in uses.values())
        }
        closed = set(self.boundaries)
        touched = [p for p in (*sites, *masked)]
        prefixes = {p[:n] for p in touched for n in range(1, len(p), 2)}
        within = {p for p in prefixes if any(p[: len(c)] == c for c in closed)}
        return Plan(
            layers=layers,
            sites=sites,
            names=site_names(self.entries, self.rename),
            opened=frozenset(prefixes - within),
            boundaries={p: tuple(dict.fromkeys(taken.values())) for p, taken in self.boundaries.items()},
            slots=self.slots,
            branches=self.branches,
            masked=masked,
            outputs=ordered(leaving, self.rename, index),
            tags={label: ordered(names, self.rename, index) for label, names in self.tags.items()},
            products=tuple(self.products.values()),
        )

    def _refuse_by_hand(self, network: str) -> None:
        macs = sum(entry.layer.macs for entry in self.order)
        by_hand = sum(count for count, _ in self.by_hand.values())
        if by_hand > _SHARE * macs:
            leaves = frozenset().union(*(leaves for _, leaves in self.by_hand.values()))
            raise UnpriceableError(
                f"{', '.join(self.leaf_names(leaves))}: multiplied with data and summed by hand, {by_hand} "
                f"multiply-accumulates beside {macs} in the layers of {network}; elementwise products have no loop "
                "nest and must not be priced at zero; write them as lax.conv_general_dilated (depthwise: "
                "feature_group_count = channels) or jnp.einsum"
            )
        if not self.order:
            raise UnpriceableError(
                f"{network}: no {', '.join(MACS)} between weights and data found, so there is nothing to price; check "
                "that the output depends on x"
            )
