"""Mapped networks with what stays on chip: for given mappings, and mappings and residency chosen together.

Mappings and residency couple: smaller tiles leave more room, and words over the outer link cost nothing where they
need not travel. Together: every layer is searched for the least energy in homes of several sizes, with and without the
price of what residency would save; `keeping.keep_best` then takes one of these mappings for each layer and the maps
that stay, proven over them.

Bound over all mappings of the search's space. A mapping's energy with what stays is not less than its energy with
those transfers free in which input, output or weights are saved, and that not less than the least that the search
proves for a machine where they are free; linear in the share of the weights. So the dynamic program over these least
energies, with tiles of no size, is below every choice of mappings and residency.
"""

import dataclasses
import math
from collections.abc import Mapping as AbstractMapping
from collections.abc import Sequence
from typing import Any

import numpy as np

from cooptim.hardware.hierarchy import Hierarchy, Port
from cooptim.mapping.keeping import Costs, Keeping, keep_best, least_energy_pj
from cooptim.mapping.needs import exact_needs, gone_keys, homes_of, resident_cycles, weight_parts
from cooptim.mapping.nest import LayerShape, Mapping, nest_of
from cooptim.mapping.price import Price, price
from cooptim.mapping.residency import Needs, inward_keys, outward_keys, stay
from cooptim.mapping.rules import HARDWARE, Rules
from cooptim.mapping.search import Certificate, Spatial, best_mapping, spatial_options, unrolled
from cooptim.mapping.transfers import Key
from cooptim.workload import Workload
from cooptim.workload.graph import facts

ROOMS = (0.5, 0.25, 0.125)  # of the homes, left for tiles, in which mappings are searched


@dataclasses.dataclass(frozen=True)
class ResidentLayer:
    """One layer with what stays; energies and cycles of all its executions in an inference.

    Attributes:
      input_share, map_share, weight_share: of its input, output and weights on chip.
      map_tile_bits: working set in the maps' home. map_demand_bits: with the maps alive beside it.
      weight_tile_bits: working set in one instance of the weights' home.
    """

    name: str
    mapping: Mapping
    input_share: float
    map_share: float
    weight_share: float
    energy_before_pj: float
    energy_after_pj: float
    cycles_before: float
    cycles_after: float
    map_tile_bits: float
    map_demand_bits: float
    weight_tile_bits: float


@dataclasses.dataclass(frozen=True)
class ResidentNetwork:
    """A mapped network with what stays on chip.

    Attributes:
      map_home, weight_home: names of the memories where maps and weights stay; None where there is none.
      map_room_bits, weight_room_bits: their sizes, of one instance; 0 where there is none.
      resident_bits: weights that stay, in one instance.
      bound_pj: no choice of what stays, of these mappings (`residency_of`) or of all (`best_residency`), costs less.
      shared_pj: with what stays shared out by the relaxed closed form, weights and maps in parts.
    """

    layers: tuple[ResidentLayer, ...]
    map_home: str | None
    weight_home: str | None
    map_room_bits: float
    weight_room_bits: float
    resident_bits: float
    bound_pj: float
    shared_pj: float

    @property
    def energy_before_pj(self) -> float:
        """Of the network, with everything fetched and written back."""
        return sum(layer.energy_before_pj for layer in self.layers)

    @property
    def energy_after_pj(self) -> float:
        """Of the network, with what stays."""
        return sum(layer.energy_after_pj for layer in self.layers)

    @property
    def cycles_before(self) -> float:
        """Of the network, with everything fetched and written back."""
        return sum(layer.cycles_before for layer in self.layers)

    @property
    def cycles_after(self) -> float:
        """Of the network, with what stays: an upper bound (`needs.resident_cycles`)."""
        return sum(layer.cycles_after for layer in self.layers)

    @property
    def gap(self) -> float:
        """Energy over bound, less one."""
        return self.energy_after_pj / self.bound_pj - 1.0 if self.bound_pj > 0 else float("inf")


@dataclasses.dataclass(frozen=True)
class _Mapped:
    """A workload with one mapping a layer, priced."""

    mappings: tuple[Mapping, ...]
    prices: tuple[Price, ...]
    needs: Needs


def _mapped(
    workload: Workload,
    shapes: AbstractMapping[str, LayerShape],
    mappings: AbstractMapping[str, Mapping],
    machine: Hierarchy,
    rules: Rules,
) -> _Mapped:
    names = workload.names
    missing = [name for name in names if name not in shapes or name not in mappings]
    if missing:
        raise ValueError(
            f"workload {workload.name}: no shape or mapping of {', '.join(missing[:5])}; what stays depends on all "
            "layers: give one of each"
        )
    nests = [nest_of(name, shapes[name], mappings[name], machine) for name in names]
    prices = [price(nest, shapes[name], machine, rules) for name, nest in zip(names, nests, strict=True)]
    needs = exact_needs(workload, [shapes[name] for name in names], nests, prices, machine)
    return _Mapped(tuple(mappings[name] for name in names), tuple(prices), needs)


def residency_of(
    workload: Workload,
    shapes: AbstractMapping[str, LayerShape],
    mappings: AbstractMapping[str, Mapping],
    machine: Hierarchy,
    rules: Rules = HARDWARE,
) -> ResidentNetwork:
    """What stays on chip beside these mappings, at least energy.

    Raises ValueError where a layer has no shape or mapping, and as `nest_of`.
    """
    before = _mapped(workload, shapes, mappings, machine, rules)
    found = keep_best(facts(workload), [before.needs])
    return _network(workload, shapes, machine, rules, before, before.mappings, found, found.bound_pj)


def best_residency(
    workload: Workload,
    shapes: AbstractMapping[str, LayerShape],
    machine: Hierarchy,
    rules: Rules = HARDWARE,
    spatial: AbstractMapping[str, Sequence[Spatial]] | None = None,
    rooms: Sequence[float] = ROOMS,
) -> ResidentNetwork:
    """Mappings and what stays, chosen together for least energy; 'before' is the least energy without residency.

    Args:
      spatial: unrollings of each layer to choose from; all where None.
      rooms: shares of the homes left for tiles, besides the whole, in which mappings are searched.

    Raises ValueError where a layer does not fit into the memories.
    """
    known, search = facts(workload), _Search(workload, shapes, machine, rules, spatial)
    whole = {free: search.network(free, 1.0) for free in _FREE}
    tight = [search.network(free, room) for room in rooms for free in _FREE if free[0] and free[1]]
    sets: list[dict[str, Mapping]] = []
    for found in (*whole.values(), *tight):
        mappings = {name: one.mapping for name, one in found.items()}
        if mappings not in sets:
            sets.append(mappings)
    options = [_mapped(workload, shapes, mappings, machine, rules) for mappings in sets]
    chosen = keep_best(known, [option.needs for option in options])
    taken = tuple(options[o].mappings[j] for j, o in enumerate(chosen.options))
    bound = least_energy_pj(known, _floors(search, whole, options[0].needs))
    return _network(workload, shapes, machine, rules, options[0], taken, chosen, bound)


# What a search gets for nothing: input, output, weights; first nothing.
_FREE = tuple((i, o, w) for i in (False, True) for o in (False, True) for w in (False, True))


@dataclasses.dataclass
class _Search:
    """The least energies of a network's layers where some transfers are free; equal layers share their search."""

    workload: Workload
    shapes: AbstractMapping[str, LayerShape]
    machine: Hierarchy
    rules: Rules
    spatial: AbstractMapping[str, Sequence[Spatial]] | None
    known: dict[Any, Certificate] = dataclasses.field(default_factory=dict)

    def network(self, free: tuple[bool, bool, bool], room: float) -> dict[str, Certificate]:
        """Of each layer; in the whole homes where nothing fits into a share of them."""
        found = {}
        for j, name in enumerate(self.workload.names):
            keys = self._keys(j, free)
            spatial = None if self.spatial is None else self.spatial[name]
            memo = (self.shapes[name], repr(spatial), keys, room)
            if memo not in self.known:
                self.known[memo] = self._best(name, keys, spatial, room)
            found[name] = self.known[memo]
        return found

    def most_parts(self) -> np.ndarray:
        """Of each layer, the most instances of the weights' home that hold different weights under any unrolling."""
        found = []
        for name in self.workload.names:
            shape = self.shapes[name]
            tried = spatial_options(shape, self.machine) if self.spatial is None else self.spatial[name]
            nests = [unrolled(name, shape, option, self.machine) for option in tried]
            found.append(max(weight_parts(nest, self.machine) for nest in nests))
        return np.array(found)

    def _keys(self, j: int, free: tuple[bool, bool, bool]) -> frozenset[Key]:
        """What residency may save of a layer, of what is free."""
        known, homes = facts(self.workload), homes_of(self.machine)
        keys: tuple[Key, ...] = ()
        if free[0] and not known.from_input[j]:
            keys += inward_keys(self.machine, "I", homes.maps)
            keys += inward_keys(self.machine, "W", homes.maps) if known.is_product[j] else ()
        if free[1] and not homes.leaves(known)[j]:
            keys += outward_keys(self.machine, homes.maps)
        if free[2] and not known.is_product[j]:
            keys += inward_keys(self.machine, "W", homes.weights)
        return frozenset(keys)

    def _best(self, name: str, keys: frozenset[Key], spatial: Sequence[Spatial] | None, room: float) -> Certificate:
        homes = homes_of(self.machine)
        relieved = _relieved(self.machine, keys)
        tight = _with_room(relieved, {home for home in (homes.maps, homes.weights) if home is not None}, room)
        try:
            return best_mapping(name, self.shapes[name], tight, self.rules, "energy", spatial)
        except ValueError:
            if room == 1.0:
                raise
            return best_mapping(name, self.shapes[name], relieved, self.rules, "energy", spatial)


def _with_room(machine: Hierarchy, homes: set[int], room: float) -> Hierarchy:
    """The machine with a share of its homes, at the energies of the whole."""
    memories = list(machine.memories)
    for index in homes:
        m = memories[index]
        scale, size = m.access_scale(), room * m.size_bits
        memories[index] = dataclasses.replace(
            m, size_bits=size, nominal_bits=size, size_table=(), read_pj=m.read_pj * scale, write_pj=m.write_pj * scale
        )
    return dataclasses.replace(machine, memories=tuple(memories))


def _relieved(machine: Hierarchy, keys: frozenset[Key]) -> Hierarchy:
    """The machine with free accesses for some transfers: through ports of their own that cost nothing."""
    memories = list(machine.memories)
    for index, memory in enumerate(memories):
        ports: list[Port] = []
        for port in memory.ports:
            free = tuple((o, d) for o, d in port.serves if (o, machine.levels(o).index(index), d) in keys)
            paid = tuple(pair for pair in port.serves if pair not in free)
            ports.append(dataclasses.replace(port, serves=paid))
            ports.append(dataclasses.replace(port, name=f"{port.name}, free", serves=free, nominal_bits=math.inf))
        memories[index] = dataclasses.replace(memory, ports=tuple(port for port in ports if port.serves))
    return dataclasses.replace(machine, memories=tuple(memories))


def _floors(search: _Search, whole: AbstractMapping[Any, AbstractMapping[str, Certificate]], needs: Needs) -> Costs:
    """The least that each layer costs by what residency saves it, as one mapping with tiles of no size."""
    workload, n = search.workload, len(search.workload.layers)
    bounds = {free: np.array([x.repeat * whole[free][x.name].bound for x in workload.layers]) for free in whole}
    bits = np.array([float(search.shapes[name].w_bits) for name in workload.names])
    table = np.array([[[bounds[f, k, w] for w in (False, True)] for k in (False, True)] for f in (False, True)])
    return Costs(
        energy_pj=np.moveaxis(table[:, :, 0], -1, 0)[None],
        map_tile_bits=np.zeros((1, n)),
        weight_tile_bits=np.zeros((1, n)),
        map_bits=needs.map_bits,
        weight_pj=np.max(table[:, :, 0] - table[:, :, 1], axis=(0, 1)),
        weight_bits=np.asarray(facts(workload).stored_words) * bits / search.most_parts(),
        map_room_bits=float(needs.map_room_bits),
        weight_room_bits=float(needs.weight_room_bits),
        shared=needs.shared,
    )


def _network(
    workload: Workload,
    shapes: AbstractMapping[str, LayerShape],
    machine: Hierarchy,
    rules: Rules,
    before: _Mapped,
    mappings: tuple[Mapping, ...],
    found: Keeping,
    bound_pj: float,
) -> ResidentNetwork:
    known, homes, stays = facts(workload), homes_of(machine), found.stays
    resident = float(np.sum(stays.resident * found.needs.weight_bits))
    rows = []
    for j, layer in enumerate(workload.layers):
        shape = shapes[layer.name]
        nest = nest_of(layer.name, shape, mappings[j], machine)
        priced = price(nest, shape, machine, rules)
        taken: dict[int, float] = {}
        if homes.maps is not None:
            taken[homes.maps] = float(stays.map_demand_bits[j] - found.needs.map_tile_bits[j])
        if homes.weights is not None:
            taken[homes.weights] = taken.get(homes.weights, 0.0) + resident
        gone = gone_keys(priced, machine, known, j, stays)
        cycles = resident_cycles(nest, shape, machine, taken, gone, rules)
        rows.append(
            ResidentLayer(
                name=layer.name,
                mapping=mappings[j],
                input_share=float(stays.kept_input[j]),
                map_share=float(stays.kept_map[j]),
                weight_share=float(stays.resident[j]),
                energy_before_pj=float(before.needs.energy_pj[j]),
                energy_after_pj=float(stays.energy_pj[j]),
                cycles_before=layer.repeat * float(before.prices[j].cycles.total),
                cycles_after=layer.repeat * cycles,
                map_tile_bits=float(found.needs.map_tile_bits[j]),
                map_demand_bits=float(stays.map_demand_bits[j]),
                weight_tile_bits=float(found.needs.weight_tile_bits[j]),
            )
        )
    return ResidentNetwork(
        layers=tuple(rows),
        map_home=None if homes.maps is None else machine.memories[homes.maps].name,
        weight_home=None if homes.weights is None else machine.memories[homes.weights].name,
        map_room_bits=float(found.needs.map_room_bits),
        weight_room_bits=float(found.needs.weight_room_bits),
        resident_bits=resident,
        bound_pj=bound_pj,
        shared_pj=float(np.sum(stay(known, found.needs, xp=np).energy_pj)),
    )
