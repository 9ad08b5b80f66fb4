"""Mappings of the even space (`tiers`) as whole numbers: made, priced in one batch, and rounded from real factors.

An even mapping is its factors [slot, dim] and the stationary operand of each slot. Rounding takes, dim by dim and from
the outermost slot in, the divisor nearest (in logs) to the real extent; then moves, priced in full (packing, capacity,
stalls), until neither one nor two at once help: a prime factor to another slot, another stationary operand. While a
memory is overfilled the moves that lower the overflow come first, so that what comes out is legal or nothing is.
"""

import dataclasses
import itertools

import numpy as np
from jaxtyping import Float, Int

from cooptim.hardware.hierarchy import Hierarchy
from cooptim.mapping.lattice import prime_factors
from cooptim.mapping.nest import IRRELEVANT, LayerShape, Mapping, Nest
from cooptim.mapping.price import price
from cooptim.mapping.rules import Rules
from cooptim.mapping.tiers import operand_tiers
from cooptim.workload import OPERANDS
from cooptim.workload.dims import DIMS

MAX_ROUNDS = 200  # of moves; a layer takes about 20
MAX_PAIRS = 20_000  # of moves at once priced in one round, a fixed random choice of them above it
OBJECTIVES: tuple[str, ...] = ("energy", "edp")


@dataclasses.dataclass(frozen=True)
class EvenPrice:
    """Of a batch of even mappings: energy [pJ], cycles, and the fullest memory's share (legal: at most 1)."""

    energy_pj: Float[np.ndarray, "n"]
    cycles: Float[np.ndarray, "n"]
    fullest: Float[np.ndarray, "n"]

    def cost(self, objective: str) -> Float[np.ndarray, "n"]:
        """Energy, or energy times cycles; overfilled ones above every legal one, the fuller the higher."""
        value = self.energy_pj * self.cycles if objective == "edp" else self.energy_pj
        return np.where(self.fullest <= 1.0 + 1e-12, value, 1e150 * self.fullest)


@dataclasses.dataclass(frozen=True)
class EvenMapping:
    """One legal mapping and its full price; `start_legal`: whether rounding alone, before any move, was."""

    mapping: Mapping
    energy_pj: float
    cycles: float
    moves: int
    start_legal: bool


def slot_orders() -> Int[np.ndarray, "operand dim"]:
    """Order of the dims in a slot by its stationary operand: its irrelevant ones innermost."""
    rows = [[*IRRELEVANT[o], *(d for d in range(len(DIMS)) if d not in IRRELEVANT[o])] for o in OPERANDS]
    return np.array(rows)


def even_nests(
    factors: Int[np.ndarray, "slot dim n"], stay: Int[np.ndarray, "slot n"], unrolled: Nest, machine: Hierarchy
) -> Nest:
    """A batch of even mappings as a nest; `unrolled` gives the units."""
    order = np.moveaxis(slot_orders()[stay], -1, 1)  # [slot, dim, n]
    loops = np.take_along_axis(factors, order, axis=1).astype(float)
    tiers, slots = operand_tiers(machine), factors.shape[0]
    w, i, o = (tuple(len(DIMS) * (t + 1) for t in tiers[operand]) for operand in OPERANDS)
    flat = (slots * len(DIMS), factors.shape[2])
    return dataclasses.replace(unrolled, dims=order.reshape(flat), factors=loops.reshape(flat), cuts=(w, i, o))


def even_mapping(
    factors: Int[np.ndarray, "slot dim"], stay: Int[np.ndarray, "slot"], spatial: object, machine: Hierarchy
) -> Mapping:
    """The same by names, loops of 1 left out."""
    loops, ends = [], []
    for row, operand in zip(factors, stay, strict=True):
        loops += [(DIMS[d], int(row[d])) for d in slot_orders()[operand] if row[d] > 1]
        ends.append(len(loops))
    tiers = operand_tiers(machine)
    return Mapping(tuple(loops), spatial, {o: tuple(ends[t] for t in tiers[o]) for o in OPERANDS})  # type: ignore[arg-type]


def even_price(
    factors: Int[np.ndarray, "slot dim n"],
    stay: Int[np.ndarray, "slot n"],
    unrolled: Nest,
    shape: LayerShape,
    machine: Hierarchy,
    rules: Rules,
) -> EvenPrice:
    """Full prices of a batch."""
    n = factors.shape[2]
    found = price(
        even_nests(factors, stay, unrolled, machine),
        shape,
        machine,
        rules,
        whole_units=unrolled.unroll == unrolled.whole,
    )
    fullest = np.zeros(n)
    for share in found.used_share.values():
        fullest = np.maximum(fullest, share)
    energy, cycles = (np.broadcast_to(x, (n,)) for x in (found.energy_pj, found.cycles.total))
    return EvenPrice(energy, cycles, fullest)


def divisor_chain(extents: Float[np.ndarray, "slot"], bound: int) -> list[int]:
    """Factors of each slot: the divisors of `bound` nearest to the real cumulated extents, each dividing the next."""
    found, outer = [], bound
    for extent in reversed(extents[:-1]):
        divisors = np.array([d for d in range(1, outer + 1) if outer % d == 0])
        inner = int(divisors[np.argmin(np.abs(np.log(divisors / extent)))])
        found.append(outer // inner)
        outer = inner
    return [outer, *reversed(found)]


@dataclasses.dataclass(frozen=True)
class _Batch:
    """Even mappings side by side: factors [slot, dim, n], stay [slot, n]."""

    factors: Int[np.ndarray, "slot dim n"]
    stay: Int[np.ndarray, "slot n"]

    def take(self, at: int) -> "_Batch":
        return _Batch(self.factors[..., at : at + 1], self.stay[..., at : at + 1])


def _steps(factors: Int[np.ndarray, "slot dim"], stay: Int[np.ndarray, "slot"]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Single moves: factors as exponents of change (new / old, 1 where unchanged), and the new stay of each slot."""
    slots, dims = factors.shape
    found = []
    for a, d in itertools.product(range(slots), range(dims)):
        for prime in set(prime_factors(int(factors[a, d]))):
            for b in range(slots):
                if b != a:
                    ratio = np.ones((slots, dims))
                    ratio[a, d], ratio[b, d] = 1.0 / prime, float(prime)
                    found.append((ratio, stay))
    for k, operand in itertools.product(range(slots), range(len(OPERANDS))):
        if operand != stay[k]:
            other = stay.copy()
            other[k] = operand
            found.append((np.ones((slots, dims)), other))
    return found


def _neighbours(here: _Batch, pairs: bool) -> _Batch:
    """All mappings one move away, or (up to MAX_PAIRS of those) two."""
    factors, stay = here.factors[..., 0], here.stay[..., 0]
    steps = _steps(factors, stay)
    ratios, stays = np.stack([r for r, _ in steps]), np.stack([s for _, s in steps])
    if pairs:
        first, second = np.triu_indices(len(steps), 1)
        if len(first) > MAX_PAIRS:
            chosen = np.random.default_rng(0).choice(len(first), MAX_PAIRS, replace=False)
            first, second = first[chosen], second[chosen]
        ratios = ratios[first] * ratios[second]
        stays = np.where(stays[first] != stay, stays[first], stays[second])
    moved = factors * ratios
    whole = np.all((moved > 0.999) & (np.abs(moved - np.rint(moved)) < 1e-6), axis=(1, 2))
    return _Batch(np.moveaxis(np.rint(moved[whole]).astype(int), 0, -1), np.moveaxis(stays[whole], 0, -1))


def rounded(
    name: str,
    real: Float[np.ndarray, "slot dim"],
    shares: Float[np.ndarray, "slot operand"],
    unrolled: Nest,
    spatial: object,
    shape: LayerShape,
    machine: Hierarchy,
    rules: Rules,
    objective: str = "energy",
) -> EvenMapping:
    """A legal mapping near real factors.

    Args:
      real: temporal factors, at least 1, whose product over slots is the temporal bound of each dim.
      shares: of the stationary operands.

    Raises ValueError for an unknown objective and where no move leads to a mapping that fits.
    """
    if objective not in OBJECTIVES:
        raise ValueError(f"objective '{objective}' is unknown; use one of {', '.join(OBJECTIVES)}")
    bounds = np.rint(np.prod(real, axis=0)).astype(int)
    chains = [divisor_chain(np.cumprod(real[:, d]), int(bounds[d])) for d in range(len(DIMS))]
    factors, stay = np.array(chains).T, np.argmax(shares, axis=1)
    here = _Batch(factors[..., None], stay[..., None])
    cost = even_price(here.factors, here.stay, unrolled, shape, machine, rules)
    start_legal, done, pairs = bool(cost.fullest[0] <= 1.0 + 1e-12), 0, False
    while done < MAX_ROUNDS:
        around = _neighbours(here, pairs)
        found = even_price(around.factors, around.stay, unrolled, shape, machine, rules)
        best = int(np.argmin(found.cost(objective)))
        if found.cost(objective)[best] < cost.cost(objective)[0] * (1 - 1e-12):
            here, done, pairs = around.take(best), done + 1, False
            cost = EvenPrice(found.energy_pj[[best]], found.cycles[[best]], found.fullest[[best]])
        elif pairs:
            break
        else:
            pairs = True
    if cost.fullest[0] > 1.0 + 1e-12:
        raise ValueError(
            f"{name}: no move from the rounded tiles fits into the memories of {machine.name} (the fullest holds "
            f"{cost.fullest[0]:.3g} of its size); make the innermost memories larger or narrow the operands"
        )
    mapping = even_mapping(here.factors[..., 0], here.stay[..., 0], spatial, machine)
    return EvenMapping(mapping, float(cost.energy_pj[0]), float(cost.cycles[0]), done, start_legal)
