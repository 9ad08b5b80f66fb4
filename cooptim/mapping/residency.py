"""What stays on chip between layers and between inferences, on any hierarchy, and what it saves: one closed form.

Where. The outermost memory of a machine is outside. Feature maps stay in the outermost limited memory below it that
holds I and O, and only if one instance serves the whole array (data of a replica would have to move to another);
weights in the outermost one that holds W, in each replica its part. Such a memory is a home; a machine may lack one.

What is no longer paid, for all executions of an inference:

- input found: the words of I over every link from outside into the home (read outside, written in the home);
- output kept until its last use, and no output of the network: its final words over the links out of the home, at final
  width. Partial sums that travel there still do; their last pass saves no more than that width (conservative);
- resident weights: the words of W over every link into their home. The second operand of an activation product is a
  map: it is found like the input where the maps' home holds W; elsewhere it is fetched, and its maps leave the chip.

Room. The tiles of a layer stay reserved as stream buffers even where its whole map is on chip (conservative), twice in
a memory that is always double-buffered. Beside them stand the maps alive while the layer runs, then weights, in what is
left at the fullest layer: most energy a bit first. A map is stored as wide as its producer writes and its widest
consumer reads it; bits may be effective ones (width x share stored), as in `stack.Stack`. A sum or concatenation
of maps is found as far as the least kept of them. A repeated layer's outputs all stay; the network's input never does.

Relaxed and final. `stay` shares what is crowded (`kept_maps`): smooth but for KINKS. It takes `needs.relaxed_needs` or,
with numpy, the `needs.exact_needs` of mappings; they are equal at whole factors with packing off. `keeping` chooses
whole maps, proven optimal. Neither saving bounds the other (shares waste room that a choice uses, and split maps that a
choice cannot); the linear program over shares bounds both (tests/mapping/test_keeping.py).

Cycles. Relaxed, `needs.relaxed_cycles`: the ports' busy cycles less what is saved of them; fill and drain stay
(conservative). Exact, `needs.resident_cycles`: an upper bound.
"""

import dataclasses
import math
from collections.abc import Sequence
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from cooptim.hardware.hierarchy import Hierarchy
from cooptim.mapping.transfers import Key
from cooptim.workload.graph import Facts

KINKS: tuple[str, ...] = (  # where a gradient may jump; everywhere else `stay` is smooth
    "maps alive just filling the room beside the tiles, or two layers equally crowded",
    "two maps of one sum kept equally",
    "a map written and read at equal width, or two consumers of equal width",
    "two layers equally full, where weights stay beside maps",
    "resident weights just filling what is left, or two layers of equal value per bit",
)

Row = Float[Array, "layer"] | Float[np.ndarray, "layer"]
Scalar = Float[Array, ""] | float


def kept_maps(known: Facts, room_bits: Row, map_bits: Row, xp: ModuleType = jnp) -> tuple[Row, Row]:
    """(share of each layer's output that is kept until its last use, bits kept on chip while each layer runs).

    While layer j runs, the maps alive share its room in proportion: phi_j = min(1, room_j / sum of alive maps). A map
    is kept at the smallest phi of its life, so that the sum fits at every layer. Kinks: phi_j = 1, equal phi.

    Args:
      room_bits: memory left beside the tiles; negative counts as 0. map_bits: each layer's output as stored.
      xp: jax.numpy or numpy.
    """
    alive = xp.asarray(known.alive, map_bits.dtype)
    demand = map_bits @ alive
    crowded = demand > 0
    phi = xp.where(crowded, xp.clip(room_bits / xp.where(crowded, demand, 1.0), 0.0, 1.0), 1.0)
    kept = xp.min(xp.where(known.alive, phi[None, :], 1.0), axis=1)
    kept = xp.where(known.alive.any(axis=1), kept, 0.0)
    return kept, (kept * map_bits) @ alive


def found_inputs(known: Facts, kept: Row, xp: ModuleType = jnp) -> Row:
    """Share of each layer's input found on chip: that of the least kept map it takes, 0 of the network's input."""
    least = xp.min(xp.where(known.produces, kept[:, None], 1.0), axis=0)
    return xp.where(known.from_input, 0.0, least)


def resident_weights(capacity_bits: Scalar, stored_bits: Row, saved_pj: Row, xp: ModuleType = jnp) -> Row:
    """Share of each layer's weights that stays between inferences: most energy saved per stored bit first.

    The saving is linear in the shares and a share may be any number of words, so this is the fractional knapsack and
    greedy order is its optimum: no other choice of what stays within `capacity_bits` saves more energy. The order is
    taken without gradient; the share of the layer at the edge carries it. Kinks: capacity at the edge of a layer,
    equal densities.

    Args:
      stored_bits: size of all weights of a layer as stored; 0 where nothing may stay.
      saved_pj: energy saved when all of them stay. xp: jax.numpy or numpy.

    Source: Dantzig, "Discrete-variable extremum problems", Operations Research 5(2), 1957.
    """
    some = stored_bits > 0
    size = xp.where(some, stored_bits, 1.0)
    value = xp.where(some, saved_pj / size, -1.0)
    value = value if xp is np else jax.lax.stop_gradient(value)
    place = np.arange(len(stored_bits))
    first = (value[:, None] > value) | ((value[:, None] == value) & (place[:, None] < place))  # [before, after]
    before = xp.where(some, stored_bits, 0.0) @ first.astype(size.dtype)
    return xp.where(some, xp.clip((capacity_bits - before) / size, 0.0, 1.0), 0.0)


def map_home(machine: Hierarchy) -> int | None:
    """Index of the memory where feature maps stay; None where there is none."""
    home = _outermost_inside(machine, ("I", "O"))
    if home is None:
        return None
    replicated = any(
        axes for operand in ("I", "O") for axes in machine.spread(operand)[machine.levels(operand).index(home) + 1 :]
    )
    return None if replicated else home


def weight_home(machine: Hierarchy) -> int | None:
    """Index of the memory where weights stay; None where there is none."""
    return _outermost_inside(machine, ("W",))


def _outermost_inside(machine: Hierarchy, operands: Sequence[str]) -> int | None:
    for index in reversed(range(len(machine.memories) - 1)):
        memory = machine.memories[index]
        limited = not (isinstance(memory.size_bits, float) and math.isinf(memory.size_bits))
        if limited and set(operands) <= set(memory.operands):
            return index
    return None


def inward_keys(machine: Hierarchy, operand: str, home: int | None) -> tuple[Key, ...]:
    """The transfers of W or I over the links from outside into a home; none where it does not hold the operand."""
    levels = machine.levels(operand)
    if home not in levels:
        return ()
    m = levels.index(home)
    return tuple(
        key
        for above in range(m + 1, len(levels))
        for key in ((operand, above, "read_to_low"), (operand, above - 1, "write_from_high"))
    )


def outward_keys(machine: Hierarchy, home: int | None) -> tuple[Key, ...]:
    """The transfers of O over the links out of a home."""
    levels = machine.levels("O")
    if home not in levels:
        return ()
    m = levels.index(home)
    return tuple(
        key
        for above in range(m + 1, len(levels))
        for key in (("O", above, "write_from_low"), ("O", above - 1, "read_to_high"))
    )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Needs:
    """What the layers of a network ask of the homes and save by them; [layer], all executions of one inference.

    Attributes:
      energy_pj: with everything fetched and written back.
      input_pj, output_pj, weight_pj: saved when the input is found, the output kept, the weights resident.
      map_bits: the output of each layer as stored. weight_bits: the weights as stored, in one instance of their home.
      map_tile_bits, weight_tile_bits: reserved for tiles in the maps' and in the weights' home while the layer runs.
      map_room_bits, weight_room_bits: size of the homes; 0 where there is none.
      shared: one memory is home to both.
    """

    energy_pj: Any
    input_pj: Any
    output_pj: Any
    weight_pj: Any
    map_bits: Any
    weight_bits: Any
    map_tile_bits: Any
    weight_tile_bits: Any
    map_room_bits: Any
    weight_room_bits: Any
    shared: bool = dataclasses.field(metadata={"static": True})


class Stay(NamedTuple):
    """Shares that stay, all in [0, 1], and what is left to pay; [layer].

    Attributes:
      kept_map, kept_input, resident: of each layer's output, input and weights.
      map_demand_bits, weight_demand_bits: taken in the homes while the layer runs, resident weights left out.
      energy_pj: of each layer, with what stays.
    """

    kept_map: Any
    kept_input: Any
    resident: Any
    map_demand_bits: Any
    weight_demand_bits: Any
    energy_pj: Any


def stay(known: Facts, needs: Needs, kept: Row | None = None, xp: ModuleType = jnp) -> Stay:
    """What stays and what it leaves to pay; differentiable off KINKS with xp = jax.numpy.

    Args:
      kept: shares of the maps that stay and fit together; those of `kept_maps` if None.
    """
    alive = xp.asarray(known.alive, needs.map_bits.dtype)
    if kept is None:
        kept, held = kept_maps(known, needs.map_room_bits - needs.map_tile_bits, needs.map_bits, xp)
    else:
        held = (kept * needs.map_bits) @ alive
    found = found_inputs(known, kept, xp)
    demand = needs.map_tile_bits + held
    beside = demand if needs.shared else needs.weight_tile_bits
    left = xp.maximum(needs.weight_room_bits - xp.max(beside), 0.0)
    resident = resident_weights(left, needs.weight_bits, needs.weight_pj, xp)
    saved = found * needs.input_pj + kept * needs.output_pj + resident * needs.weight_pj
    return Stay(kept, found, resident, demand, beside, needs.energy_pj - saved)
