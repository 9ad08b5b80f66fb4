"""The continuous relaxation: real factors and mixed stationarities on any hierarchy, differentiable in all of them.

Space: even cuts (`tiers`). The logarithm of each loop bound is shared out over the slots (and the array dimensions,
where the unrolling is free) by a softmax, so that factors multiply to the bound whatever the knobs are; each slot mixes
its stationary operand by a softmax. At whole factors and one-hot choices energies and footprints are those of `price`
with packing off, for a mapping whose slots hold their loops in that order (tests/mapping/test_continuous.py).

How often the tile of an operand is fetched over the slots outside it, innermost first:

    F_k = g F_{k+1} + (1 - g) rel (s + (1 - s) irr) all_{k+1}          F = 1 outside the last slot

rel and irr are the products of the slot's loops that move the tile and that do not, all_{k+1} that of all slots
further out, s the share of the operand in the slot's stationarity. g = max(0, 1 - log2 rel) is 1 where nothing in the
slot moves the tile (then it stays, whatever the order) and 0 from the first factor of 2 on. Partial sums pass a link F
over the product of rel outside times; their width goes from final to accumulator's likewise, between 1 and 2 visits.

Latency: the temporal steps or, where it is more, the busiest port (a smooth maximum from above; every refill overlaps
with computation), then first fill, last drain and systolic drain. Exact latency is that of `price`.

Capacity is a constraint: `RelaxedPrice.tile_bits` against the sizes; see `cooptim.mapping.tile_descent`.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cooptim.hardware.hierarchy import Hierarchy
from cooptim.mapping.nest import INDEX, IRRELEVANT, MOVES_WHOLLY, LayerShape
from cooptim.mapping.rules import HARDWARE, Rules
from cooptim.mapping.stack import Stack, Tiling
from cooptim.mapping.tiers import operand_tiers
from cooptim.mapping.transfers import Key, positions
from cooptim.workload import OPERANDS
from cooptim.workload.dims import DIMS


@dataclasses.dataclass(frozen=True)
class RelaxedPrice:
    """What tilings cost, per layer and run.

    Attributes:
      transfer_pj: energy per (operand, level, direction); with mac_pj they add up to energy_pj.
      tile_bits: held in one instance, per memory.
      port_cycles: busy cycles per (memory, port).
      steps: temporal steps; cycles: with port limits, fill and drain.
      span: units used along each array dimension.
    """

    energy_pj: Any
    mac_pj: Any
    transfer_pj: dict[Key, Any]
    tile_bits: dict[str, Any]
    port_cycles: dict[tuple[str, str], Any]
    steps: Any
    cycles: Any
    span: tuple[Any, ...]


class _Smooth:
    """The functions that the counts of `transfers` ask of numpy, in jax; strides stay constants of the program."""

    minimum, maximum = staticmethod(jnp.minimum), staticmethod(jnp.maximum)

    @staticmethod
    def gcd(a: Any, b: Any) -> Any:
        return jnp.gcd(a, b) if isinstance(a, jax.Array) or isinstance(b, jax.Array) else np.gcd(a, b)


_IDLE = np.array([[dim in IRRELEVANT[op] for dim in range(len(DIMS))] for op in OPERANDS], dtype=float)
_WHOLLY = np.array([[dim in MOVES_WHOLLY[op] for dim in range(len(DIMS))] for op in OPERANDS], dtype=float)
_PLANE = tuple(INDEX[d] for d in ("OY", "OX", "FY", "FX"))


@dataclasses.dataclass(frozen=True)
class _Counts:
    """What every level asks of a tiling.

    Attributes:
      fetches: per first slot outside (0 .. slots) how often a tile is fetched, [operand, layer].
      moved: per first slot outside the product of the loops there that move it, [operand, layer].
      inside: log of the temporal extents inside tier t, [slot, dim, layer].
    """

    fetches: list[Any]
    moved: list[Any]
    inside: Any


def _counts(tile: Tiling) -> _Counts:
    idle_logs = jnp.einsum("od,kdl->kol", jnp.asarray(_IDLE, tile.temporal.dtype), tile.temporal)
    rel_logs = jnp.sum(tile.temporal, axis=1)[:, None] - idle_logs
    rel, irr, gates = jnp.exp(rel_logs), jnp.exp(idle_logs), jnp.maximum(0.0, 1.0 - rel_logs / math.log(2.0))
    slots = tile.temporal.shape[0]
    found, outside, moved = ([jnp.ones_like(rel[0])] for _ in range(3))
    for k in reversed(range(slots)):
        turning = rel[k] * (tile.stay[k] + (1.0 - tile.stay[k]) * irr[k]) * outside[0]
        found.insert(0, gates[k] * found[0] + (1.0 - gates[k]) * turning)
        outside.insert(0, outside[0] * rel[k] * irr[k])
        moved.insert(0, moved[0] * rel[k])
    return _Counts(found, moved, jnp.cumsum(tile.temporal, axis=0))


@dataclasses.dataclass(frozen=True)
class _View:
    """One operand's levels under a tiling."""

    operand: str
    tile: Tiling
    counts: _Counts
    shape: LayerShape
    machine: Hierarchy
    rules: Rules
    whole: bool

    @property
    def place(self) -> int:
        return OPERANDS.index(self.operand)

    def tier(self, m: int) -> int:
        return operand_tiers(self.machine)[self.operand][m] if m >= 0 else -1

    def units(self, axes: Sequence[int]) -> Any:
        """Log units of each dim over some array dimensions, [dim, layer]."""
        return sum((self.tile.units[a] for a in axes), jnp.zeros_like(self.tile.temporal[0]))

    def _spanned(self, logs: Any) -> Any:
        """Distinct elements under log extents [dim, layer]."""
        wholly = jnp.exp(jnp.tensordot(jnp.asarray(_WHOLLY[self.place], logs.dtype), logs, axes=1))
        if self.operand != "I":
            return wholly
        extents: list[Any] = [1.0] * len(DIMS)
        for dim in _PLANE:
            extents[dim] = jnp.exp(logs[dim])
        return wholly * positions(extents, self.shape, self.rules, _Smooth)

    def elements(self, m: int) -> Any:
        """Distinct elements of the tile at level m; 1 at the MACs."""
        if m < 0:
            return 1.0
        axes = [a for s in self.machine.spread(self.operand)[: m + 1] for a in s]
        return self._spanned(self.counts.inside[self.tier(m)] + self.units(axes))

    def instances(self, m: int) -> Any:
        outside = [a for s in self.machine.spread(self.operand)[m + 1 :] for a in s]
        product = jnp.exp(jnp.sum(self.units(outside), axis=0))
        return jnp.rint(product) if self.whole else product

    def fed(self, m: int) -> Any:
        """Tiles that an instance of level m feeds: over the units that it is the first to serve."""
        spread = self.machine.spread(self.operand)
        through, before = ([a for s in spread[: m + k] for a in s] for k in (1, 0))
        found = self._spanned(self.units(through)) / self._spanned(self.units(before))
        return jnp.rint(found) if self.whole else found

    def fetches(self, m: int) -> tuple[Any, Any]:
        """(fetches, visits of a partial sum) of the link above level m; -1: of the MACs' own operand."""
        first = self.tier(m) + 1
        found, moved = self.counts.fetches[first][self.place], self.counts.moved[first][self.place]
        if m < 0 and self.operand == "O":  # one a step, whatever stays
            found = jnp.exp(jnp.sum(self.tile.temporal, axis=(0, 1)))
        return found, found / moved

    def partial(self, m: int) -> tuple[Any, Any, Any]:
        """(fetches, visits, how far outputs are partial: 0 final, 1 partial) of the link above level m."""
        found, visits = self.fetches(m)
        outside = [a for s in self.machine.spread("O")[m + 2 :] for a in s]
        units = jnp.tensordot(jnp.asarray(_IDLE[self.place], visits.dtype), self.units(outside), axes=1)
        return found, visits, jnp.clip((jnp.log(visits) + units) / math.log(2.0), 0.0, 1.0)


def _moves(view: _View) -> dict[Key, tuple[Any, Any, Any]]:
    """Per transfer: (elements of one, how often, bits each); instances not counted."""
    operand, levels = view.operand, len(view.machine.levels(view.operand))
    found: dict[Key, tuple[Any, Any, Any]] = {}
    for m in range(-1, levels - 1):
        elements = view.elements(m)
        if operand == "O":
            times, visits, share = view.partial(m)
            bits = view.shape.o_bits + (view.shape.psum_bits - view.shape.o_bits) * share
            back = times * share if view.rules.charge_first_psum_read else times - times / visits
            both = [("write_from_low", "read_to_high", times), ("read_to_low", "write_from_high", back)]
        else:
            bits, times = (view.shape.w_bits if operand == "W" else view.shape.i_bits), view.fetches(m)[0]
            both = [("read_to_low", "write_from_high", times)]
        for low, high, count in both:
            found[operand, m + 1, low] = (elements * view.fed(m + 1), count, bits)
            if m >= 0:
                found[operand, m, high] = (elements, count, bits)
    return found


def _room_bits(view: _View, m: int) -> Any:
    """Bits of the tile of level m; outputs at final width unless partial sums travel above it."""
    if view.operand != "O":
        return view.elements(m) * (view.shape.w_bits if view.operand == "W" else view.shape.i_bits)
    share = view.partial(m)[2] if m + 1 < len(view.machine.levels("O")) else 0.0
    return view.elements(m) * (view.shape.o_bits + (view.shape.psum_bits - view.shape.o_bits) * share)


def _held_bits(views: dict[str, _View], machine: Hierarchy) -> dict[str, Any]:
    held: dict[str, Any] = {}
    for op in OPERANDS:
        for m, index in enumerate(machine.levels(op)):
            name = machine.memories[index].name
            held[name] = held.get(name, 0.0) + _room_bits(views[op], m)
    return held


def footprints(tile: Tiling, stack: Stack, machine: Hierarchy, rules: Rules = HARDWARE) -> dict[str, Any]:
    """Bits that tiles hold in one instance of each memory, [layer]; what `relaxed_price` says of `tile_bits`."""
    counts, whole = _counts(tile), stack.unroll is not None
    plain = dataclasses.replace(rules, pack="none")
    views = {op: _View(op, tile, counts, stack.shape, machine, plain, whole) for op in OPERANDS}
    return _held_bits(views, machine)


def smooth_max(values: Sequence[Any], sharpness: Any) -> Any:
    """At least the largest of numbers from 0 on, by at most a factor of n^(1/sharpness); one must be positive."""
    stacked = jnp.stack(jnp.broadcast_arrays(*values))
    logs = jnp.log(jnp.maximum(stacked, 1e-30))  # a port may be idle: its logarithm would have no gradient
    return jnp.exp(jax.nn.logsumexp(sharpness * logs, axis=0) / sharpness)


def _fill_cycles(moves: dict[Key, tuple[Any, Any, Any]], machine: Hierarchy) -> tuple[Any, Any]:
    """(first fill of both inputs, one after the other where they share a port; last drain of the outputs)."""
    once = {}
    for (operand, m, direction), (elements, _, bits) in moves.items():
        port = machine.memories[machine.levels(operand)[m]].port(operand, direction)
        once[operand, m, direction] = elements * bits / port.bw_max_bits
    totals = {}
    for operand, low, high in (("W", "read_to_low", "write_from_high"), ("I", "read_to_low", "write_from_high"),
                               ("O", "write_from_low", "read_to_high")):  # fmt: skip
        links = range(len(machine.levels(operand)) - 1)
        totals[operand] = sum((jnp.maximum(once[operand, m, high], once[operand, m + 1, low]) for m in links), 0.0)
    shared = any(
        {"W", "I"} <= {operand for operand, _ in port.serves} for mem in machine.memories for port in mem.ports
    )
    fill = totals["W"] + totals["I"] if shared else jnp.maximum(totals["W"], totals["I"])
    return fill, totals["O"]


def relaxed_price(
    tile: Tiling, stack: Stack, machine: Hierarchy, rules: Rules = HARDWARE, sharpness: Any = 40.0
) -> RelaxedPrice:
    """Energy [pJ], latency [cycles], footprints [bit] of every layer; shapes [layer].

    Args:
      machine: sizes, energies and port widths may be traced.
      rules: HARDWARE or ZIGZAG; packing is off.
      sharpness: of the maximum over ports; infinite sharpness is the maximum.
    """
    plain = dataclasses.replace(rules, pack="none")
    counts, whole = _counts(tile), stack.unroll is not None
    views = {op: _View(op, tile, counts, stack.shape, machine, plain, whole) for op in OPERANDS}
    moves = {key: move for op in OPERANDS for key, move in _moves(views[op]).items()}
    energy = mac_pj = stack.shape.macs * machine.mac_pj
    terms: dict[Key, Any] = {}
    busy: dict[tuple[str, str], Any] = {}
    for key, (elements, count, bits) in moves.items():
        operand, m, direction = key
        memory = machine.memories[machine.levels(operand)[m]]
        port = memory.port(operand, direction)
        words = elements * bits / port.bw_max_bits * count
        terms[key] = words * views[operand].instances(m) * memory.access_pj(operand, direction)
        energy = energy + terms[key]
        busy[memory.name, port.name] = busy.get((memory.name, port.name), 0.0) + words
    steps = jnp.exp(jnp.sum(tile.temporal, axis=(0, 1)))
    fill, drain = _fill_cycles(moves, machine)
    span = tuple(jnp.exp(jnp.sum(tile.units[a], axis=0)) for a in range(len(machine.array)))
    hops = sum((span[machine.array_dims.index(name)] - 1.0 for name in machine.systolic_dims), 0.0)
    return RelaxedPrice(
        energy_pj=energy,
        mac_pj=mac_pj,
        transfer_pj=terms,
        tile_bits=_held_bits(views, machine),
        port_cycles=busy,
        steps=steps,
        cycles=smooth_max([steps, *busy.values()], sharpness) + fill + drain + hops,
        span=span,
    )
