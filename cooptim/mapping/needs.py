"""What mappings ask of the memories where tensors stay, and save by them: relaxed tilings and exact prices alike.

The conventions stand in `cooptim.mapping.residency`.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cooptim.hardware.hierarchy import Hierarchy
from cooptim.mapping.continuous import RelaxedPrice, smooth_max
from cooptim.mapping.legal import demand_bits
from cooptim.mapping.nest import MOVES_WHOLLY, LayerShape, Nest
from cooptim.mapping.price import Price
from cooptim.mapping.residency import Needs, Stay, inward_keys, map_home, outward_keys, weight_home
from cooptim.mapping.rules import HARDWARE, Rules
from cooptim.mapping.stack import Stack, Tiling
from cooptim.mapping.stalls import cycles_of
from cooptim.mapping.transfers import Key, traffic
from cooptim.workload import Workload
from cooptim.workload.graph import Facts, facts


@dataclasses.dataclass(frozen=True)
class Homes:
    """Indices of the memories where a machine keeps maps and weights, and what they say of a workload."""

    machine: Hierarchy
    maps: int | None
    weights: int | None

    def reserved(self, home: int | None, tiles: Any) -> Any:
        """Bits that tiles take in a home."""
        if home is None:
            return tiles * 0.0
        return tiles * (2.0 if self.machine.memories[home].double_buffered == "always" else 1.0)

    def room(self, home: int | None) -> Any:
        """Size of a home [bit], 0 where there is none."""
        return 0.0 if home is None else self.machine.memories[home].size_bits

    def second_found(self) -> bool:
        """Whether the second operand of an activation product may come from the maps' home."""
        return self.maps is not None and "W" in self.machine.memories[self.maps].operands

    def leaves(self, known: Facts) -> np.ndarray:
        """Which outputs leave the chip whatever is kept."""
        fetched = known.produces[:, known.is_product].any(axis=1) & (not self.second_found())
        return np.asarray(known.is_output | fetched)

    def stored_width(self, known: Facts, shape: LayerShape, xp: ModuleType) -> Any:
        """Bits of one word of each layer's output as stored."""
        read = xp.maximum(shape.i_bits, xp.where(known.is_product & self.second_found(), shape.w_bits, 0.0))
        return xp.maximum(shape.o_bits, xp.max(xp.where(known.produces, read[None, :], 0.0), axis=1))


def homes_of(machine: Hierarchy) -> Homes:
    """The homes of a machine."""
    return Homes(machine, map_home(machine), weight_home(machine))


def _needs(
    workload: Workload,
    machine: Hierarchy,
    shape: LayerShape,
    repeat: Any,
    energy_pj: Any,
    transfer_pj: dict[Key, Any],
    final_pj: Any,
    tile_bits: dict[str, Any],
    parts: Any,
    xp: ModuleType,
) -> Needs:
    """The needs, from the prices of one execution of each layer; leaves [layer].

    Args:
      final_pj: of the final words of O over the links out of the maps' home.
      parts: instances of the weights' home that hold different weights of a layer.
    """
    homes, known = homes_of(machine), facts(workload)
    zero = energy_pj * 0.0

    def paid(operand: str, home: int | None) -> Any:
        return repeat * sum((transfer_pj[key] for key in inward_keys(machine, operand, home)), zero)

    def tiles(home: int | None) -> Any:
        return homes.reserved(home, zero if home is None else tile_bits[machine.memories[home].name])

    product = xp.asarray(known.is_product, zero.dtype)
    return Needs(
        energy_pj=repeat * energy_pj,
        input_pj=paid("I", homes.maps) + product * paid("W", homes.maps),
        output_pj=xp.where(homes.leaves(known), 0.0, repeat * final_pj),
        weight_pj=(1.0 - product) * paid("W", homes.weights),
        map_bits=xp.asarray(known.map_words, zero.dtype) * homes.stored_width(known, shape, xp),
        weight_bits=xp.asarray(known.stored_words, zero.dtype) * shape.w_bits / parts,
        map_tile_bits=tiles(homes.maps),
        weight_tile_bits=tiles(homes.weights),
        map_room_bits=homes.room(homes.maps),
        weight_room_bits=homes.room(homes.weights),
        shared=homes.maps is not None and homes.maps == homes.weights,
    )


def replicating_axes(machine: Hierarchy, operand: str, home: int | None) -> list[int]:
    """Array dimensions over which a memory is replicated."""
    if home is None:
        return []
    return [a for axes in machine.spread(operand)[machine.levels(operand).index(home) + 1 :] for a in axes]


def relaxed_needs(found: RelaxedPrice, tile: Tiling, stack: Stack, workload: Workload, machine: Hierarchy) -> Needs:
    """The needs of relaxed tilings.

    Args:
      found: `relaxed_price` of `tile`. stack: the layers of the workload, in its order.

    Raises ValueError where the stack has other layers than the workload.
    """
    if stack.names != workload.names:
        raise ValueError(
            f"stack of {len(stack.names)} layers ({', '.join(stack.names[:3])}, ...) for workload {workload.name} of "
            f"{len(workload.names)} ({', '.join(workload.names[:3])}, ...); stack its layers, all of them, in its order"
        )
    axes = replicating_axes(machine, "W", weight_home(machine))
    logs = sum((tile.units[a][d] for a in axes for d in MOVES_WHOLLY["W"]), jnp.zeros_like(found.energy_pj))
    cycles = _final_cycles(stack.shape, machine)
    final = sum((n * _memory(machine, k).access_pj(k[0], k[2]) for k, n in cycles.items()), 0.0 * found.energy_pj)
    shape = jax.tree.map(jnp.asarray, stack.shape)
    return _needs(
        workload, machine, shape, jnp.asarray(stack.repeat), found.energy_pj, found.transfer_pj, final,
        found.tile_bits, jnp.exp(logs), jnp,
    )  # fmt: skip


def _memory(machine: Hierarchy, key: Key) -> Any:
    return machine.memories[machine.levels(key[0])[key[1]]]


def _final_cycles(shape: LayerShape, machine: Hierarchy) -> dict[Key, Any]:
    """Accesses of the final words of O over the links out of the maps' home; one instance, so cycles of its ports."""
    words = math.prod(shape.bounds[d] for d in MOVES_WHOLLY["O"])
    return {
        key: words * shape.o_bits / _memory(machine, key).port(key[0], key[2]).bw_max_bits
        for key in outward_keys(machine, map_home(machine))
    }


def relaxed_cycles(
    found: RelaxedPrice, tile: Tiling, stack: Stack, workload: Workload, machine: Hierarchy, stays: Stay,
    sharpness: Any = 40.0,
) -> Any:  # fmt: skip
    """Cycles of one execution of each layer with what stays; `found.cycles` where nothing does.

    Busy cycles of free accesses stay as they are (conservative).

    Args:
      sharpness: as given to `relaxed_price`.
    """
    known, homes = facts(workload), homes_of(machine)
    none = jnp.zeros_like(found.energy_pj)
    gone = dict.fromkeys(found.port_cycles, none)

    def leave(key: Key, cycles: Any) -> None:
        memory = _memory(machine, key)
        gone[memory.name, memory.port(key[0], key[2]).name] += cycles

    second = jnp.where(known.is_product, stays.kept_input, 0.0)
    weights = jnp.where(known.is_product, 0.0, stays.resident)
    for operand, home, share in (("I", homes.maps, stays.kept_input), ("W", homes.maps, second),
                                 ("W", homes.weights, weights)):  # fmt: skip
        for key in inward_keys(machine, operand, home):
            each = _memory(machine, key).access_pj(operand, key[2])
            outside = replicating_axes(machine, operand, machine.levels(operand)[key[1]])
            instances = jnp.exp(sum((jnp.sum(tile.units[a], axis=0) for a in outside), none))
            instances = instances if stack.unroll is None else jnp.rint(instances)
            leave(
                key,
                share * jnp.where(each > 0, found.transfer_pj[key] / jnp.where(each > 0, each, 1.0), 0.0) / instances,
            )
    for key, cycles in _final_cycles(stack.shape, machine).items():
        leave(key, jnp.where(homes.leaves(known), 0.0, stays.kept_map) * cycles)
    busy = [jnp.maximum(n - gone[port], 1e-9 * n) for port, n in found.port_cycles.items()]
    before = smooth_max([found.steps, *found.port_cycles.values()], sharpness)
    return found.cycles - before + smooth_max([found.steps, *busy], sharpness)


def exact_needs(
    workload: Workload,
    shapes: Sequence[LayerShape],
    nests: Sequence[Nest],
    prices: Sequence[Price],
    machine: Hierarchy,
) -> Needs:
    """The needs of one exact price a layer of the workload, in its order; numpy, float64."""
    repeat = np.array([float(layer.repeat) for layer in workload.layers])
    keys = prices[0].transfer_pj if prices else {}
    columns = jax.tree.map(lambda *leaves: np.array(leaves, dtype=np.float64), *shapes)
    tiles = [demand_bits(priced, shape, machine) for priced, shape in zip(prices, shapes, strict=True)]
    return _needs(
        workload,
        machine,
        columns,
        repeat,
        np.array([float(priced.energy_pj) for priced in prices]),
        {key: np.array([float(priced.transfer_pj[key]) for priced in prices]) for key in keys},
        np.array([_final_pj(priced, shape, machine) for priced, shape in zip(prices, shapes, strict=True)]),
        {m.name: np.array([math.fsum(row[m.name].values()) for row in tiles]) for m in machine.memories},
        np.array([weight_parts(nest, machine) for nest in nests]),
        np,
    )


def weight_parts(nest: Nest, machine: Hierarchy) -> float:
    """Instances of the weights' home that hold different weights; fractional as the unrolling is, so that an instance
    holds the most of any."""
    axes = replicating_axes(machine, "W", weight_home(machine))
    return float(math.prod(nest.unroll[a][d] for a in axes for d in MOVES_WHOLLY["W"]))


def gone_keys(priced: Price, machine: Hierarchy, known: Facts, layer: int, stays: Stay) -> tuple[Key, ...]:
    """The transfers of a layer that wholly stay away: of its input, of resident weights, and of its final outputs
    over links that no partial sum takes."""
    homes = homes_of(machine)
    keys: tuple[Key, ...] = ()
    if stays.kept_input[layer] == 1.0:
        keys += inward_keys(machine, "I", homes.maps)
        keys += inward_keys(machine, "W", homes.maps) if known.is_product[layer] else ()
    if stays.resident[layer] == 1.0:
        keys += inward_keys(machine, "W", homes.weights)
    if stays.kept_map[layer] == 1.0 and not homes.leaves(known)[layer]:
        keys += tuple(key for key in outward_keys(machine, homes.maps) if not _above(priced, key).partial)
    return keys


def _above(priced: Price, key: Key) -> Any:
    """The level of O above a link of one of its outward transfers."""
    return priced.traffic.levels["O"][key[1] + 1 if key[2] == "read_to_high" else key[1]]


def _final_pj(priced: Price, shape: LayerShape, machine: Hierarchy) -> float:
    """Energy of the final words of O out of the maps' home: one of the visits of each link, at final width."""
    total = 0.0
    for key in outward_keys(machine, map_home(machine)):
        above = _above(priced, key)
        width = shape.o_bits / shape.psum_bits if above.partial else 1.0
        total += float(priced.transfer_pj[key]) / float(above.visits) * float(width)
    return total


def resident_cycles(
    nest: Nest,
    shape: LayerShape,
    machine: Hierarchy,
    taken_bits: Mapping[int, float],
    gone: Iterable[Key],
    rules: Rules = HARDWARE,
) -> float:
    """Cycles of one mapping beside what stays: an upper bound by the model of `stalls`.

    Double buffering is judged in memories smaller by what stays, so that cycles may rise. Transfers that are wholly
    gone take no port and stall nothing; first fill and last drain stay. What is left of a transfer in part counts
    whole. The cycles with all transfers bound the same schedule without some, so that the lesser of both is returned.

    Args:
      taken_bits: by index of a memory what stays there beside the tiles. gone: transfers that no longer happen.
    """
    memories = list(machine.memories)
    for index, bits in taken_bits.items():
        memories[index] = dataclasses.replace(memories[index], size_bits=float(memories[index].size_bits) - bits)
    tight = dataclasses.replace(machine, memories=tuple(memories))
    moved, whole = (traffic(nest, shape, tight, rules, whole=w) for w in (False, True))
    less = dict(whole.transfers)
    for key in gone:
        less[key] = dataclasses.replace(less[key], active=False)
    fewer = dataclasses.replace(whole, transfers=less)
    return min(float(cycles_of(nest, moved, now, shape, tight).total) for now in (whole, fewer))
