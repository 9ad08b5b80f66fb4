"""Cycles of a mapping: stalls of every port, the first fill and the last drain.

Stalls. The link between two levels may take `allowed` cycles a period: all of the period where the level below is
double-buffered, else the period over the outermost run of irrelevant slots of that level (it is idle only there); it
needs ceil(bits / port width). A port with one transfer stalls (needed - allowed)(count - 1); one with several the sum
of what is positive, plus what the sum of the windows, corrected by the slack, exceeds their union by. Ports run in
parallel: the worst counts, and never less than 0.

A level is double-buffered where the part of it that must stay, its tile less the outermost run of slots that replace it
wholly, fills at most half of the memory with what shares it, or fits into the free rest once more.

First fill: per input and link the slower side of one transfer; what moves only once is first shortened by what its
port has to spare during computation. Links whose two ports both serve the other input too are taken in turn, in the
better order of the two. Last drain: the slower sides of the output links, one after the other.

Source: the semantics of ZigZag 3.9.1, to which this is equal. Scalars or batches in a trailing axis, numpy or jax.
"""

import dataclasses
import math
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np

from cooptim.hardware.hierarchy import Hierarchy, Port
from cooptim.mapping.nest import LayerShape, Nest
from cooptim.mapping.transfers import Key, Traffic, Transfer

_ORDER = ("O", "W", "I")  # in which the operands of a memory claim its free part


@dataclasses.dataclass(frozen=True)
class Cycles:
    """Cycles of one mapping; `total` is their sum.

    Attributes:
      needed, allowed: per transfer, the cycles it takes at the port's width and those it may take, both a period.
    """

    ideal: Any
    temporal: Any
    stall: Any
    onload: Any
    offload: Any
    drain: Any
    stall_per_port: dict[tuple[str, str], Any]
    double_buffered: dict[tuple[str, int], Any]
    needed: dict[Key, Any]
    allowed: dict[Key, Any]

    @property
    def total(self) -> Any:
        """All cycles from the first word in to the last word out."""
        return self.temporal + self.stall + self.onload + self.offload + self.drain


def tile_bits(moved: Traffic, operand: str, m: int, shape: LayerShape, xp: ModuleType) -> Any:
    """Bits of the tile in one instance; outputs count at final width unless partial sums travel above the level."""
    level = moved.levels[operand][m]
    if operand != "O":
        return level.elements * level.bits
    levels = moved.levels["O"]
    partial = levels[m + 1].partial if m + 1 < len(levels) else False
    return level.elements * xp.where(partial, shape.psum_bits, shape.o_bits)


def double_buffering(moved: Traffic, shape: LayerShape, machine: Hierarchy, xp: ModuleType = np) -> dict[Any, Any]:
    """Whether each (operand, level) can be refilled while in use."""
    share: dict[tuple[str, int], Any] = {}
    used: dict[int, Any] = {}
    for operand in _ORDER:
        for m, index in enumerate(machine.levels(operand)):
            level = moved.levels[operand][m]
            stays = xp.floor(tile_bits(moved, operand, m, shape, xp) / level.outer_moving)
            share[operand, m] = stays / machine.memories[index].size_bits
            used[index] = used.get(index, 0.0) + share[operand, m]
    found: dict[tuple[str, int], Any] = {}
    for operand in _ORDER:
        for m, index in enumerate(machine.levels(operand)):
            memory = machine.memories[index]
            if memory.double_buffered != "room":
                found[operand, m] = memory.double_buffered == "always"
                continue
            half = used[index] <= 0.5
            rest = share[operand, m] <= 1 - used[index]
            found[operand, m] = half | rest
            if len(memory.operands) > 1:
                used[index] = used[index] + xp.where(~xp.asarray(half) & rest, share[operand, m], 0.0)
    return found


def _allowed(moved: Traffic, key: Key, transfer: Transfer, buffered: dict[Any, Any], xp: ModuleType) -> Any:
    operand, m, direction = key
    judge = m - 1 if direction.endswith("low") else m  # the level below the link
    if judge < 0:
        return transfer.period
    idle = moved.levels[operand][judge].outer_idle
    return xp.where(buffered[operand, judge], transfer.period, xp.floor(transfer.period / idle))


def _port_keys(machine: Hierarchy, index: int, port: Port, moved: Traffic) -> list[Key]:
    """Transfers that go through a port, in its order."""
    found = []
    for operand, direction in port.serves:
        key = (operand, machine.levels(operand).index(index), direction)
        if key in moved.transfers:
            found.append(key)
    return found


def _union(periods: Sequence[Any], allowed: Sequence[Any], cycles: Any, xp: ModuleType) -> Any:
    """Cycles in which at least one window is open; the periods divide one another."""
    n = len(periods)
    rank = [
        sum((xp.where((periods[j] < periods[i]) | ((periods[j] == periods[i]) & (j < i)), 1, 0)) for j in range(n))
        for i in range(n)
    ]
    ordered = [
        (sum(xp.where(rank[i] == k, p, 0.0) for i, p in enumerate(periods)),
         sum(xp.where(rank[i] == k, a, 0.0) for i, a in enumerate(allowed)))
        for k in range(n)
    ]  # fmt: skip

    closed: list[Any] = []  # cycles of one period k in which windows 0..k are all closed
    until: list[Any] = []  # the same of windows 0..k-1 before window k closes

    def closed_before(k: int, time: Any) -> Any:
        """Closed cycles of windows 0..k in [0, time)."""
        if k < 0:
            return time
        period, window = ordered[k]
        whole = xp.floor(time / period)
        rest = time - whole * period
        return whole * closed[k] + xp.where(rest > window, closed_before(k - 1, rest) - until[k], 0.0)

    for k in range(n):
        period, window = ordered[k]
        until.append(closed_before(k - 1, window))
        per_lower = closed[k - 1] * (period / ordered[k - 1][0]) if k else period
        closed.append(xp.maximum(0.0, per_lower - until[k]))
    return cycles - closed[-1] * (cycles / ordered[-1][0])


def _port_stall(
    keys: Sequence[Key], moved: Traffic, needed: dict[Key, Any], allowed: dict[Key, Any], xp: ModuleType
) -> Any:
    """Stall of one port; negative is slack."""
    late, early, open_sum, active = 0.0, 0.0, 0.0, 0
    for key in keys:
        transfer = moved.transfers[key]
        stall = xp.where(transfer.active, (needed[key] - allowed[key]) * (transfer.count - 1), 0.0)
        late, early = late + xp.maximum(stall, 0.0), early + xp.minimum(stall, 0.0)
        open_sum = open_sum + xp.where(transfer.active, allowed[key] * (transfer.count - 1), 0.0)
        active = active + xp.where(transfer.active, 1, 0)
    if len(keys) == 1:
        return late + early
    windows = [xp.where(moved.transfers[k].active, allowed[k], 0.0) for k in keys]
    periods = [xp.where(moved.transfers[k].active, moved.transfers[k].period, 1.0) for k in keys]
    union = _union(periods, windows, moved.cycles, xp)
    return xp.where(active > 1, late + xp.maximum(0.0, early + open_sum - union), late + early)


def _loading(
    keys: Sequence[Key],
    port: Port,
    moved: Traffic,
    shape: LayerShape,
    needed: dict[Key, Any],
    busy: Any,
    xp: ModuleType,
) -> dict[Key, Any]:
    """Cycles of one transfer of each key before (or after) computation; what moves once uses the port's spare time."""
    flowing = [k for k in keys if k[0] != "O" or k[2] in ("read_to_high", "write_from_low")]
    taken: Any = 0.0
    once, least = {}, {}
    for key in flowing:
        transfer = moved.transfers[key]
        once[key] = transfer.count == 1
        rate = _average_rate(key, transfer, moved, xp)
        taken = taken + xp.where(once[key], 0.0, xp.floor(rate))
        least[key] = xp.ceil(tile_bits(moved, key[0], 0, shape, xp) / port.bw_max_bits)
    spare = xp.maximum(0.0, (port.bw_max_bits - taken) / port.bw_max_bits * busy)
    found = {}
    for i, key in enumerate(flowing):
        before: Any = 0.0
        for j, other in enumerate(flowing):
            if other == key:
                continue
            first = (needed[other] > needed[key]) | ((needed[other] == needed[key]) & (j < i))
            before = before + xp.where(once[other] & first, xp.maximum(0.0, needed[other] - least[other]), 0.0)
        shorter = xp.clip(spare - before, 0.0, xp.maximum(0.0, needed[key] - least[key]))
        found[key] = needed[key] - xp.where(once[key], shorter, 0.0)
    return found


def _average_rate(key: Key, transfer: Transfer, moved: Traffic, xp: ModuleType) -> Any:
    """Bits a cycle of a transfer, in the order of operations of the source."""
    operand, m, direction = key
    if direction.endswith("low"):
        below = moved.levels[operand][m - 1].elements if m else 1.0
        fed = transfer.elements / below
        return below * transfer.bits / transfer.period * fed
    return transfer.elements * transfer.bits / transfer.period


def _shares_inputs(port: Port) -> bool:
    return {"W", "I"} <= {operand for operand, _ in port.serves}


def _onload(loading: dict[Key, Any], machine: Hierarchy, xp: ModuleType) -> Any:
    """Cycles of the first fill of both inputs."""
    shared, half, alone = ({op: 0.0 for op in ("W", "I")} for _ in range(3))
    for operand in ("W", "I"):
        places = machine.levels(operand)
        for m in range(len(places) - 1):
            low, high = (operand, m, "write_from_high"), (operand, m + 1, "read_to_low")
            slower = xp.maximum(loading[low], loading[high])
            ports = (machine.memories[places[m]].port(*low[::2]), machine.memories[places[m + 1]].port(*high[::2]))
            both = sum(_shares_inputs(port) for port in ports)
            if both == 2:
                shared[operand] = shared[operand] + slower
            elif both == 1:
                half[operand] = slower
            else:
                alone[operand] = alone[operand] + slower
    first = [
        shared[a] + xp.maximum(shared[b] + half[b] + alone[b], half[a] + alone[a]) for a, b in (("W", "I"), ("I", "W"))
    ]
    return xp.minimum(*first)


def cycles_of(
    nest: Nest, moved: Traffic, moved_whole: Traffic, shape: LayerShape, machine: Hierarchy, xp: ModuleType = np
) -> Cycles:
    """Cycles of a mapping.

    Args:
      moved: traffic with fractional units (occupation of the memories); moved_whole: with whole units (transfers).
    """
    buffered = double_buffering(moved, shape, machine, xp)
    needed, allowed, keys_of = {}, {}, {}
    for index, memory in enumerate(machine.memories):
        for port in memory.ports:
            keys = _port_keys(machine, index, port, moved_whole)
            keys_of[index, port.name] = keys
            for key in keys:
                transfer = moved_whole.transfers[key]
                needed[key] = xp.ceil(transfer.elements * transfer.bits / port.bw_max_bits)
                allowed[key] = _allowed(moved_whole, key, transfer, buffered, xp)
    per_port: dict[tuple[str, str], Any] = {}
    stall: Any = 0.0
    for (index, name), keys in keys_of.items():
        if keys:
            value = _port_stall(keys, moved_whole, needed, allowed, xp)
            per_port[machine.memories[index].name, name] = value
            stall = xp.maximum(stall, value)
    loading: dict[Key, Any] = {}
    for index, memory in enumerate(machine.memories):
        for port in memory.ports:
            keys = keys_of[index, port.name]
            loading |= _loading(keys, port, moved_whole, shape, needed, moved_whole.cycles + stall, xp)
    places = machine.levels("O")
    offload: Any = 0.0
    for m in range(len(places) - 1):
        offload = offload + xp.maximum(loading["O", m, "read_to_high"], loading["O", m + 1, "write_from_low"])
    systolic = [machine.array_dims.index(name) for name in machine.systolic_dims]
    return Cycles(
        ideal=xp.ceil(shape.macs / machine.units),
        temporal=moved_whole.cycles,
        stall=stall,
        onload=_onload(loading, machine, xp),
        offload=offload,
        drain=sum((xp.maximum(nest.span[a] - 1.0, 0.0) for a in systolic), 0.0),
        stall_per_port=per_port,
        double_buffered=buffered,
        needed=_where_active(needed, moved_whole, xp),
        allowed=_where_active(allowed, moved_whole, xp),
    )


def _where_active(cycles: dict[Key, Any], moved: Traffic, xp: ModuleType) -> dict[Key, Any]:
    return {key: xp.where(moved.transfers[key].active, value, 0.0) for key, value in cycles.items()}


def used_share(moved: Traffic, shape: LayerShape, machine: Hierarchy, xp: ModuleType = np) -> dict[str, Any]:
    """Filled part of each memory, all operands together."""
    found: dict[str, Any] = {memory.name: 0.0 for memory in machine.memories}
    for operand in _ORDER:
        for m, index in enumerate(machine.levels(operand)):
            memory = machine.memories[index]
            room = memory.size_bits / (2.0 if memory.double_buffered == "always" else 1.0)
            share = 0.0 if math.isinf(room) else tile_bits(moved, operand, m, shape, xp) / room
            found[memory.name] = found[memory.name] + share
    return found
