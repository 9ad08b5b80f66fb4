"""What each memory of a hierarchy moves under a mapping: one closed form for any depth, exact on integers.

Per operand: memory levels m = 0 (nearest the MACs) .. L-1; the loops inside level m are the slots below its cut, and
the units inside it those on array dimensions that a level up to m serves.

- Tile e_m: distinct elements under the loops and units inside level m, what one instance holds; e_{-1} = 1. An axis of
  inputs with o outputs, f taps, stride s and dilation d covers o f - max(0, f - s/g) max(0, o - d/g), g = gcd(s, d),
  positions (o + f - 1 for s = d = 1), at most the unpadded input.
- Period P_m: cycles for which the tile stays: the product of the slots below the cut, and of the run of irrelevant
  slots from there out, whatever level holds them: a tile that does not change is not moved again. N is the product of
  all.
- Instances I_m: units on the array dimensions outside; tiles fed by an instance b_m: E(units inside m) / E(units inside
  m-1), E the distinct elements. Units on the same data count once (multicast, spatial reduction); neighbouring tiles do
  not share their halo.
- Partial sums pass above level m when an irrelevant slot or unit lies outside what level m-1 finishes. Each passes as
  often as the irrelevant slots outside the tile below turn (visits); the first of them reads nothing, in each replica.

| direction at level m | operand | elements a period and instance | period | periods | when |
|---|---|---|---|---|---|
| read_to_low | W, I | e_{m-1} b_m | P_{m-1}; at m = 0 the innermost irrelevant run | N / P | always |
| write_from_high | W, I | e_m | P_m | N / P_m | m < L-1 |
| write_from_low | O | e_{m-1} b_m | P_{m-1}; 1 at m = 0 | N / P | always |
| read_to_low | O | the same | the same | the same, less first visits if elided | partial sums at m |
| read_to_high | O | e_m | P_m | N / P_m | m < L-1 |
| write_from_high | O | e_m | P_m | the same, less first visits if elided | m < L-1, partial sums at m+1 |

First visits are periods / visits. Accesses = floor(ceil(elements bits / granule) granule / width x periods x I_m), with
granule and width of the port.

What is exact. Where units and loops divide the layer, elements and accesses are those of a walk that moves sets of
elements cycle by cycle (tests/oracle/nest_walk.py), with these conventions:

- A tile is named by the indices of its loops: data that comes back under other indices (halo) is fetched again.
- Every tile counts as large as one in the middle. With padding that is more than the inputs there are (a tile at the
  edge holds padding instead); without, it is what there is.
- Units are on the same input if they are while each holds one element: b_m counts the positions of the units alone,
  rounded to whole tiles. That is the number of different tiles unless outputs and taps of one axis are both unrolled
  and one of them across levels or over loops inside (then some tiles that only overlap count as one), or padding makes
  the units' window wider than the input.
- Replicas that a spatial reduction adds up each get the partial sum back (one the sum, the others zeros).
- Units that do not divide a bound count as their mean, bound / steps; tiles, instances and tiles fed are then rounded
  to whole numbers (10 over 4 units in 3 steps: 3.33, so 3 instances and 9 of 10 tiles), windows down.

Source: the semantics of ZigZag (IEEE TC 2021, zigzag-dse 3.9.1), to which `rules.ZIGZAG` is exactly equal; first-read
elision as in Timeloop (ISPASS 2019). All arithmetic is on scalars or on batches in a trailing axis, with numpy or jax.
"""

import dataclasses
import math
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np

from cooptim.hardware.hierarchy import Hierarchy
from cooptim.mapping.nest import INDEX, IRRELEVANT, MOVES_WHOLLY, LayerShape, Nest
from cooptim.mapping.rules import Rules
from cooptim.mapping.slots import Slots, slots_of
from cooptim.workload import OPERANDS
from cooptim.workload.dims import DIMS

_O, _F = (INDEX["OY"], INDEX["OX"]), (INDEX["FY"], INDEX["FX"])
_PLAIN = (INDEX["B"], INDEX["G"], INDEX["C"])  # of inputs
Key = tuple[str, int, str]  # operand, its level, direction


@dataclasses.dataclass(frozen=True)
class Transfer:
    """What one instance moves in one direction: `elements` of `bits` every `period` cycles, `count` times.

    Attributes:
      active: whether there is anything to move (partial sums may not); all else is as if there were.
    """

    elements: Any
    bits: Any
    period: Any
    count: Any
    active: Any


@dataclasses.dataclass(frozen=True)
class Level:
    """What one level of an operand holds: a tile that stays for `period` cycles, in each of `instances`.

    Attributes:
      outer_moving, outer_idle: product of the outermost run of slots of this level that move the tile wholly, and of
        those that are irrelevant; slots that only reuse the level below belong to that level.
      partial: partial sums pass between this level and the one below (outputs only).
      visits: how often each sum passes there: the irrelevant slots outside the tile below (outputs only).
    """

    elements: Any
    bits: Any
    period: Any
    instances: Any
    outer_moving: Any
    outer_idle: Any
    partial: Any
    visits: Any


@dataclasses.dataclass(frozen=True)
class Traffic:
    """Levels and transfers of all operands under one mapping; `cycles` without stalls."""

    levels: dict[str, tuple[Level, ...]]
    transfers: dict[Key, Transfer]
    cycles: Any
    stay: dict[str, Any]


def window(outputs: Any, taps: Any, stride: Any, dilation: Any, xp: Any = np, *, count_gaps: bool = False) -> Any:
    """Distinct input positions that `outputs` windows of `taps` touch along one axis.

    Args:
      count_gaps: fewer outputs than the reduced dilation count positions between the taps, too (as ZigZag does).
    """
    fixed = isinstance(stride, int) and isinstance(dilation, int)
    common = math.gcd(stride, dilation) if fixed else xp.gcd(stride, dilation)
    s, d = stride // common, dilation // common
    again = outputs - d if count_gaps else xp.maximum(0.0, outputs - d)
    return outputs * taps - xp.maximum(0.0, taps - s) * again


def distinct(extents: Sequence[Any], operand: str, shape: LayerShape, rules: Rules, xp: ModuleType) -> Any:
    """Distinct elements of an operand under these extents, one per dim of DIMS."""
    if operand != "I":
        product: Any = 1.0
        for i in MOVES_WHOLLY[operand]:
            product = product * extents[i]
        return xp.rint(product) if rules.pack == "transfer" else product
    product = extents[_PLAIN[0]] * extents[_PLAIN[1]] * extents[_PLAIN[2]] * positions(extents, shape, rules, xp)
    return xp.rint(product) if rules.pack == "transfer" else product


def positions(extents: Sequence[Any], shape: LayerShape, rules: Rules, xp: Any) -> Any:
    """Distinct positions of the input plane under these extents."""
    product: Any = 1.0
    for axis in range(2):
        outputs, taps = extents[_O[axis]], extents[_F[axis]]
        if rules.pack == "transfer":  # fractions of units do not make windows
            outputs, taps = xp.floor(outputs + 1e-9), xp.floor(taps + 1e-9)
        stride, dilation = shape.stride[axis], shape.dilation[axis]
        found = window(outputs, taps, stride, dilation, xp, count_gaps=rules.count_gaps)
        product = product * (xp.minimum(found, shape.input_size[axis]) if rules.clip_inputs else found)
    return product


def units_on(unroll: Sequence[Sequence[Any]], axes: Sequence[int]) -> list[Any]:
    """Units of each dim (in the order of DIMS) on some array dimensions."""
    found: list[Any] = [1.0] * len(DIMS)
    for axis in axes:
        found = [have * units for have, units in zip(found, unroll[axis], strict=True)]
    return found


def _levels(
    slots: Slots, nest: Nest, unroll: Any, operand: str, shape: LayerShape, machine: Hierarchy, rules: Rules, runs: bool
) -> tuple[tuple[Level, ...], list[Any], Any]:
    """(levels of an operand, tiles fed at each by one instance, cycles that an operand stays at the MACs)."""
    xp, spread = slots.xp, machine.spread(operand)
    wanted = MOVES_WHOLLY[operand] if operand != "I" else (*_PLAIN, *_O, *_F)
    cuts = nest.cuts[OPERANDS.index(operand)]
    lower = slots.none()
    inner: list[int] = []
    levels: list[Level] = []
    bits = {"W": shape.w_bits, "I": shape.i_bits, "O": shape.psum_bits}[operand]
    for m, cut in enumerate(cuts):
        inner += list(spread[m])
        units = units_on(unroll, inner)
        below = slots.below(cut)
        held = slots.kept(operand, cut)
        outside = [a for s in spread[m + 1 :] for a in s]
        partial, visits = False, 1.0
        if operand == "O":
            visits, turning = slots.revisits(lower)
            partial = turning | any(units_on(unroll, outside)[j] > 1 for j in IRRELEVANT["O"])
        levels.append(
            Level(
                elements=distinct(slots.extents(below, units, wanted), operand, shape, rules, xp),
                bits=bits,
                period=slots.product(held),
                instances=rounded_instances(math.prod(units_on(unroll, outside)), xp),
                outer_moving=slots.outer_run(held, lower, operand, "moving") if runs else 1.0,
                outer_idle=slots.outer_run(held, lower, operand, "idle") if runs else 1.0,
                partial=partial,
                visits=visits,
            )
        )
        lower = held
    stay = slots.product(slots.kept(operand, 0)) if operand != "O" and rules.operand_stays else 1.0
    return tuple(levels), tiles_fed(unroll, spread, operand, shape, rules, xp), stay


def tiles_fed(
    unroll: Any, spread: Sequence[Sequence[int]], operand: str, shape: LayerShape, rules: Rules, xp: ModuleType
) -> list[Any]:
    """Tiles that one instance of each level feeds: over the units it is the first to serve; halves round to even.

    ZigZag takes the quotients of what lies outside, whose float may move a half to either side.
    """
    own, inner, before = [], [], 1.0
    for axes in spread:
        apart = _plain_units(units_on(unroll, axes), operand)
        if operand == "I":
            inner += list(axes)
            plane = positions(units_on(unroll, inner), shape, rules, xp)
            apart = apart * plane / before if rules.exact_words else apart * (plane / before)
            before = plane
        own.append(apart)
    if rules.exact_words:
        return [xp.rint(apart) for apart in own[:-1]]
    return [xp.rint(math.prod(own[m:]) / math.prod(own[m + 1 :])) for m in range(len(own) - 1)]


def _plain_units(units: Sequence[Any], operand: str) -> Any:
    product: Any = 1.0
    for i in MOVES_WHOLLY[operand]:
        product = product * units[i]
    return product


def rounded_instances(units: Any, xp: ModuleType) -> Any:
    """Whole instances of a memory outside fractional units."""
    return xp.rint(xp.round(units, 3))


def traffic(
    nest: Nest,
    shape: LayerShape,
    machine: Hierarchy,
    rules: Rules,
    *,
    whole: bool = False,
    runs: bool = True,
    slots: Slots | None = None,
    xp: ModuleType = np,
) -> Traffic:
    """Levels and transfers of every operand, as the module's table says.

    Halo is fetched again here. Timeloop keeps what overlaps while a tile slides; that rule, derived and exact, is a
    closed form of its own: `mapping.timeloop`.

    Args:
      nest: one mapping or a batch of them (slots in the leading axis).
      whole: count with whole units (what latency sees) instead of the fractional unrolling (what energy sees).
      runs: find the outermost runs of each level, which only latency asks for; else they are 1.
      slots: those of the nest, where they are known already. xp: numpy or jax.numpy.
    """
    slots = slots_of(nest, xp) if slots is None else slots
    unroll = nest.whole if whole else nest.unroll
    cycles = slots.product(slots.all())
    levels, transfers, stays = {}, {}, {}
    for operand in OPERANDS:
        levels[operand], fed, stays[operand] = _levels(slots, nest, unroll, operand, shape, machine, rules, runs)
        make = output_transfers if operand == "O" else input_transfers
        for m in range(len(levels[operand])):
            for direction, transfer in make(
                levels[operand], m, fed[m], stays[operand], cycles, shape, rules, xp
            ).items():
                transfers[operand, m, direction] = transfer
    return Traffic(levels, transfers, cycles, stays)


def input_transfers(
    levels: tuple[Level, ...], m: int, fed: Any, stay: Any, cycles: Any, shape: LayerShape, rules: Rules, xp: ModuleType
) -> dict[str, Transfer]:
    """What level m of an input operand moves, by direction.

    Args:
      levels: of the operand. fed: tiles of the level below that an instance feeds. stay: cycles at the MACs.
    """
    below = levels[m - 1] if m else None
    period = below.period if below else stay
    elements = (below.elements if below else 1.0) * fed
    found = {"read_to_low": Transfer(elements, levels[m].bits, period, cycles / period, True)}
    if m < len(levels) - 1:
        here = levels[m]
        found["write_from_high"] = Transfer(here.elements, here.bits, here.period, cycles / here.period, True)
    return found


def output_transfers(
    levels: tuple[Level, ...], m: int, fed: Any, _: Any, cycles: Any, shape: LayerShape, rules: Rules, xp: ModuleType
) -> dict[str, Transfer]:
    """The same of the outputs; `_` takes the place of `stay`."""
    below, here = levels[m - 1] if m else None, levels[m]
    period = below.period if below else 1.0
    elements = (below.elements if below else 1.0) * fed
    bits = xp.where(here.partial, shape.psum_bits, shape.o_bits)
    low = Transfer(elements, bits, period, cycles / period, True)
    found = {"write_from_low": low, "read_to_low": _back(low, here, rules)}
    if m < len(levels) - 1:
        above = levels[m + 1]
        bits = xp.where(above.partial, shape.psum_bits, shape.o_bits)
        high = Transfer(here.elements, bits, here.period, cycles / here.period, True)
        found["read_to_high"] = high
        found["write_from_high"] = _back(high, above, rules)
    return found


def _back(forth: Transfer, upper: Level, rules: Rules) -> Transfer:
    """Partial sums coming back over the link below `upper`: as often as they left, less the first visit if elided."""
    if rules.charge_first_psum_read:
        return dataclasses.replace(forth, active=upper.partial)
    again = upper.partial & (upper.visits > 1)
    return dataclasses.replace(forth, count=forth.count - forth.count / upper.visits, active=again)


def accesses(transfer: Transfer, key: Key, level: Level, machine: Hierarchy, rules: Rules, xp: ModuleType = np) -> Any:
    """Accesses of the port's width by all instances."""
    operand, m, direction = key
    port = machine.memories[machine.levels(operand)[m]].port(operand, direction)
    amount = transfer.elements * transfer.bits
    if rules.pack == "transfer":
        granules, times = xp.ceil(amount / port.bw_min_bits), transfer.count * level.instances
        if rules.exact_words:
            total = xp.floor(granules * times * port.bw_min_bits / port.bw_max_bits)
        else:
            words = granules * (port.bw_min_bits / port.bw_max_bits)
            total = xp.floor(words * transfer.count * level.instances)
    else:
        total = amount / port.bw_max_bits * transfer.count * level.instances
    return xp.where(transfer.active, total, 0.0)
