"""From real chips to one that can be built: snapped, mapped exactly, and moved as long as a move helps.

Every number is snapped to what can be built (sizes up, so that tiles still fit). Then each layer is searched exactly on
that chip (`search.candidates`: whole factors, uneven cuts, stalls) under the unrollings nearest to the descent's, also
on chips with memories twice and half as large, so that larger and smaller tiles are known. Single moves follow, number
by number: a memory, port width or side a step, a quarter or a factor of two up or down, each priced in full with the
mappings that are known (other sides with new ones), and the best one made. After each sweep memories shrink to their
tiles and all layers are searched again on the new chip, until a sweep saves too little. `BuiltChip.left` says what the
best move of the last sweep would have saved.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from cooptim.hardware.chip import (
    Chip,
    chip_area_mm2,
    chip_leakage_mw,
    chip_of,
    chip_ranges,
    require_buildable,
    snapped_chip,
    with_chip,
)
from cooptim.hardware.hierarchy import Hierarchy
from cooptim.mapping.chip_choice import least_choice, resized, size_moves, unrollings
from cooptim.mapping.chip_descent import DescendedChips, Goal, Loads, RelaxedChip, log_cost
from cooptim.mapping.legal import demand_bits
from cooptim.mapping.nest import LayerShape, Mapping, nest_of
from cooptim.mapping.pool import Pool
from cooptim.mapping.price import price
from cooptim.mapping.rules import HARDWARE, Rules
from cooptim.mapping.search import Spatial, candidates

KNOWN = 24  # mappings of a layer that are priced again on every chip
SWEEPS = 4  # over all numbers
ENOUGH = 2e-3  # relative saving that a move is made for
TRIED = 3  # unrollings of a layer that are searched, at effort 1
Progress = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class BuiltNetwork:
    """A network on a chip: one inference, leakage included, and the mapping of every layer."""

    name: str
    energy_pj: float
    latency_ns: float
    mappings: dict[str, Mapping]


@dataclasses.dataclass(frozen=True)
class BuiltChip:
    """A chip that can be built and what its networks cost on it, priced in full.

    Attributes:
      log_cost: logarithm of the goal's objective. excess: log(demand / budget) of area and latencies; positive: broken.
      left: relative saving of the best move that the last sweep saw and did not make; NaN where sweeps ran out.
    """

    chip: Chip
    networks: tuple[BuiltNetwork, ...]
    area_mm2: float
    leakage_mw: float
    log_cost: float
    excess: dict[str, float]
    left: float = 0.0

    @property
    def legal(self) -> bool:
        """Whether all budgets hold."""
        return all(x <= 1e-9 for x in self.excess.values())

    @property
    def rank(self) -> tuple[float, float]:
        """What to compare chips by: the worst broken budget, then the cost."""
        return (max([0.0, *self.excess.values()]) if not self.legal else 0.0, self.log_cost)


class Bench:
    """The networks with all mappings of their layers that are known; prices chips.

    Attributes:
      priced: chips priced. searched: layers searched.
    """

    def __init__(self, loads: Loads, machine: Hierarchy, goal: Goal, rules: Rules = HARDWARE) -> None:
        self.loads, self.machine, self.goal, self.rules = loads, machine, goal, rules
        columns = jax.tree.map(np.asarray, loads.stack.shape)
        self.shapes: list[LayerShape] = [
            jax.tree.map(lambda x, n=n: x[n].item(), columns) for n in range(loads.stack.layers)
        ]
        self.pools = [Pool(name, shape) for name, shape in zip(loads.stack.names, self.shapes, strict=True)]
        self.priced = self.searched = 0

    def entry(self, n: int) -> str:
        """Network and first layer of an entry, for messages."""
        return f"{self.loads.owners[n]}: {self.loads.stack.names[n]}"

    def search(self, chip: Chip, spatials: Sequence[Sequence[Spatial]]) -> None:
        """Takes in what the exact search finds for every entry under its unrollings on a chip.

        Raises ValueError where nothing is known of a layer and nothing fits.
        """
        machine = with_chip(self.machine, chip)
        done: dict[tuple[LayerShape, str], list[Mapping]] = {}
        for n, (pool, tried) in enumerate(zip(self.pools, spatials, strict=True)):
            key = (pool.shape, repr(tried))
            if key not in done and tried:
                self.searched += 1
                try:
                    found = candidates(self.entry(n), pool.shape, machine, self.rules, tried, effort=0, proven=False)
                    done[key] = [option.mapping for option in found.options]
                except ValueError:
                    if not pool.mappings:
                        raise
                    done[key] = []
            pool.add(done.get(key, []), machine)
            if len(pool.mappings) > 2 * KNOWN:
                self.pools[n] = _thinned(pool, machine, self.rules)

    def price(self, chip: Chip) -> BuiltChip | None:
        """The chip with the best of the known mappings; None where a layer has none that fits."""
        self.priced += 1
        machine = with_chip(self.machine, chip)
        leakage, area = float(chip_leakage_mw(machine)), float(chip_area_mm2(machine))
        found = [pool.prices(machine, self.rules) for pool in self.pools]
        if not all(p.legal.any() for p in found):
            return None
        networks, excess = [], {}
        for name, share in zip(self.loads.names, self.loads.share, strict=True):
            own = np.flatnonzero(share)
            at, energy, latency = least_choice(
                [found[n] for n in own], share[own], leakage, float(machine.clock_ghz), self.goal
            )
            mappings = {
                layer: self.pools[n].mappings[i]
                for n, i in zip(own, at, strict=True)
                for layer in self.loads.members[n]
            }
            networks.append(BuiltNetwork(name, energy, latency, mappings))
            if self.goal.latency_ns is not None:
                excess[f"latency of {name}"] = math.log(latency / self.goal.latency_ns)
        if self.goal.area_mm2 is not None:
            excess["area"] = math.log(area / self.goal.area_mm2)
        energies, latencies = (np.array([getattr(n, f) for n in networks]) for f in ("energy_pj", "latency_ns"))
        cost = float(log_cost(energies, latencies, self.loads.weights, self.goal))
        return BuiltChip(chip, tuple(networks), area, leakage, cost, excess)

    def mapping(self, built: BuiltChip, n: int) -> Mapping:
        """The mapping of an entry on a chip."""
        owner = self.loads.names.index(self.loads.owners[n])
        return built.networks[owner].mappings[self.loads.members[n][0]]

    def fitted(self, built: BuiltChip) -> Chip:
        """The chip with every free memory as small as its tiles, or as those tiles twice where it may buffer doubly."""
        ranges, machine = chip_ranges(self.machine), with_chip(self.machine, built.chip)
        most = dict.fromkeys(ranges.size_bits, 0.0)
        for n, shape in enumerate(self.shapes):
            found = price(nest_of(self.entry(n), shape, self.mapping(built, n), machine), shape, machine, self.rules)
            for name, held in demand_bits(found, shape, machine).items():
                if name in most:
                    most[name] = max(most[name], sum(held.values()))
        always = {m.name: 2.0 if m.double_buffered == "always" else 1.0 for m in machine.memories}
        sizes: dict[str, Any] = {name: ranges.size_bits[name].snap(bits * always[name]) for name, bits in most.items()}
        return dataclasses.replace(built.chip, size_bits=sizes)


def _thinned(pool: Pool, machine: Hierarchy, rules: Rules) -> Pool:
    """The KNOWN mappings of least energy x cycles on a machine, and the fastest and the least energy among them."""
    found = pool.prices(machine, rules)
    product = np.where(found.legal, found.energy_pj * found.cycles, np.inf)
    ends = {int(np.argmin(np.where(found.legal, x, np.inf))) for x in (found.energy_pj, found.cycles)}
    late = len(pool.mappings) - 4  # the newest are kept as well: they may be of a chip yet to come
    return pool.keep(sorted(ends | {int(i) for i in np.argsort(product)[:KNOWN]} | set(range(late, late + 4))))


Number = tuple[str, Any]  # field of `Chip`, key


def _numbers(machine: Hierarchy) -> list[Number]:
    """All that may be chosen: sizes, then port widths, then sides."""
    ranges = chip_ranges(machine)
    return [(field, key) for field in ("size_bits", "width_bits", "sides") for key in getattr(ranges, field)]


def _moves(chip: Chip, machine: Hierarchy, number: Number) -> Iterator[Chip]:
    """Chips that differ in one number."""
    field, key = number
    values: dict[Any, Any] = getattr(chip, field)
    kind = getattr(chip_ranges(machine), field)[key]
    factors = (0.8, 1.25) if field == "sides" else (0.5, 0.8, 1.25, 2.0)  # every side costs a search of all layers
    for value in size_moves(float(values[key]), kind, factors):
        yield dataclasses.replace(chip, **{field: {**values, key: value}})


def _scaled(chip: Chip, machine: Hierarchy, factor: float) -> Chip:
    """The chip with all free memories larger or smaller."""
    ranges = chip_ranges(machine).size_bits
    return dataclasses.replace(
        chip, size_bits={k: ranges[k].snap(float(v) * factor) for k, v in chip.size_bits.items()}
    )


def _tried(bench: Bench, here: BuiltChip, chips: Iterable[Chip]) -> BuiltChip | None:
    """The best of some chips; sides that differ are searched with the unrollings that fill them."""
    best: BuiltChip | None = None
    for chip in chips:
        if chip.sides != here.chip.sides:
            before, after = with_chip(bench.machine, here.chip), with_chip(bench.machine, chip)
            turned = [resized(bench.mapping(here, n).spatial, s, before, after) for n, s in enumerate(bench.shapes)]
            bench.search(chip, [[t] if t is not None else [] for t in turned])
        found = bench.price(chip)
        if found is not None and (best is None or found.rank < best.rank):
            best = found
    return best


def _saving(before: BuiltChip, after: BuiltChip | None) -> float:
    """Relative saving of a move; 1 for one that mends a budget."""
    if after is None or after.rank >= before.rank:
        return 0.0
    return 1.0 if after.rank[0] < before.rank[0] else -math.expm1(after.rank[1] - before.rank[1])


def moved_chip(bench: Bench, start: BuiltChip, sweeps: int = SWEEPS, say: Progress = lambda _: None) -> BuiltChip:
    """The chip after sweeps over its numbers, each moved to the best of its neighbours where that saves ENOUGH."""
    here = start
    for turn in range(sweeps):
        before, left = here, 0.0
        for number in _numbers(bench.machine):
            best = _tried(bench, here, _moves(here.chip, bench.machine, number))
            saved = _saving(here, best)
            if best is not None and saved >= ENOUGH:
                here = best
            else:
                left = max(left, saved)
        fitted = bench.price(bench.fitted(here))
        here = fitted if fitted is not None and _saving(here, fitted) > 0 else here
        bench.search(here.chip, [[bench.mapping(here, n).spatial] for n in range(len(bench.shapes))])
        again = bench.price(here.chip)
        here = again if again is not None and again.rank <= here.rank else here
        say(
            f"sweep {turn + 1}: log cost {here.log_cost:.4f}, area {here.area_mm2:.3g} mm2, {bench.priced} chips priced"
        )
        if _saving(before, here) < ENOUGH:
            return dataclasses.replace(here, left=left)
    return dataclasses.replace(here, left=math.nan)


def start_chip(
    bench: Bench, chip: Chip, wanted: Float[np.ndarray, "axis dim layer"] | None, tried: int = TRIED
) -> BuiltChip:
    """A chip with every layer searched on it, and on those with memories twice and half as large.

    Args:
      wanted: logarithms of real units that unrollings shall be near to.

    Raises ValueError where a layer does not fit even with all free memories as large as can be built.
    """
    machine = with_chip(bench.machine, chip)
    spatials = [
        unrollings(shape, machine, None if wanted is None else wanted[..., n], tried)
        for n, shape in enumerate(bench.shapes)
    ]
    factor = 1.0
    while True:
        try:
            grown = _scaled(chip, bench.machine, factor)
            bench.search(grown, spatials)
            break
        except ValueError:
            if grown == _scaled(chip, bench.machine, 2.0 * factor):
                raise
            factor *= 2.0
    for other in (2.0, 0.5):
        bench.search(_scaled(grown, bench.machine, other), spatials)
    found = bench.price(grown)
    if found is None:
        raise ValueError(f"machine {bench.machine.name}: no layer's mappings fit together; enlarge its memories")
    return found


def given_chip(bench: Bench, tried: int = 2 * TRIED) -> BuiltChip:
    """The chip as the machine's file says, its layers searched under the unrollings that keep the array busiest."""
    return start_chip(bench, chip_of(bench.machine), None, tried)


def built_chip(
    descended: DescendedChips,
    bench: Bench,
    tries: int = 3,
    effort: int = 1,
    sweeps: int = SWEEPS,
    say: Progress = lambda _: None,
) -> tuple[BuiltChip, RelaxedChip]:
    """The best chip that comes out of a descent, and the relaxed one that it came from.

    Args:
      tries: starts of the descent, the best first, that are snapped and searched; moves go on from the best of them.
      effort: multiplies the unrollings searched for a layer.

    Raises ValueError where a layer fits into no chip.
    """
    ends: list[tuple[BuiltChip, RelaxedChip]] = []
    for place in descended.best()[:tries]:
        relaxed: RelaxedChip = jax.tree.map(lambda x, place=place: np.asarray(x)[place], descended.chips)
        chip = snapped_chip(bench.machine, relaxed.chip)
        require_buildable(bench.machine, chip)
        found = start_chip(bench, chip, np.asarray(relaxed.tile.units), TRIED * effort)
        ends.append((found, relaxed))
        say(f"start {place}: relaxed {descended.log_cost[place]:.4f}, built {found.log_cost:.4f} (log cost)")
    best, relaxed = min(ends, key=lambda end: end[0].rank)
    return moved_chip(bench, best, sweeps, say), relaxed
