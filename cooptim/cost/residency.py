"""What stays on chip: feature maps between layers, then weights between inferences, in closed form."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from cooptim.cost.words import Facts, Words
from cooptim.hardware.machine import Machine


class Residency(NamedTuple):
    """Shares that stay on chip, all in [0, 1].

    Attributes:
      working_bits: space that the tiles of each layer take [bit].
      demand_bits: the same with the feature maps kept beside them [bit].
      kept_map: of each layer's output, share kept for the layers that take it.
      kept_input: of each layer's input, share found on chip (0 for the network's input).
      resident: of each layer's weights, share that stays between inferences.
    """

    working_bits: Any
    demand_bits: Any
    kept_map: Any
    kept_input: Any
    resident: Any


def working_set_bits(machine: Machine, words: Words, mode: Float[Array, "layer mode"]) -> Float[Array, "layer"]:
    """Space for the tiles of each layer, packed at the slot width, and for accumulators that wait [bit]."""
    slots = jnp.asarray([m.slot_bits for m in machine.modes], mode.dtype)
    copies = 2.0 if machine.buffer.double_buffered else 1.0
    tiles = (words.tile_w + words.tile_i + words.tile_o) * (mode @ slots)
    return copies * tiles + words.tile_psum * float(machine.datapath.accumulator_bits)


def kept_maps(
    facts: Facts, room_bits: Float[Array, "layer"], map_bits: Float[Array, "layer"]
) -> tuple[Float[Array, "layer"], Float[Array, "layer"]]:
    """(share of each layer's output that is kept until its last use, bits kept on chip while each layer runs).

    While layer j runs, the maps alive share its room in proportion: phi_j = min(1, room_j / sum of alive maps). A map
    is kept at the smallest phi of its life, so that the sum fits at every layer. Kinks: phi_j = 1, equal phi.

    Args:
      room_bits: buffer left beside the tiles; negative counts as 0. map_bits: each layer's output as stored.
    """
    alive = jnp.asarray(facts.alive, map_bits.dtype)
    demand = map_bits @ alive
    crowded = demand > 0
    phi = jnp.where(crowded, jnp.clip(room_bits / jnp.where(crowded, demand, 1.0), 0.0, 1.0), 1.0)
    kept = jnp.min(jnp.where(facts.alive, phi[None, :], 1.0), axis=1)
    kept = jnp.where(facts.alive.any(axis=1), kept, 0.0)
    return kept, (kept * map_bits) @ alive


def resident_weights(
    capacity_bits: Float[Array, ""], stored_bits: Float[Array, "layer"], saved_pj: Float[Array, "layer"]
) -> Float[Array, "layer"]:
    """Share of each layer's weights that stays between inferences: most energy saved per stored bit first.

    The saving is linear in the shares and a share may be any number of words, so this is the fractional knapsack and
    greedy order is its optimum: no other choice of what stays within `capacity_bits` saves more energy. The order is
    taken without gradient; the share of the layer at the edge carries it. Kinks: capacity at the edge of a layer,
    equal densities.

    Args:
      stored_bits: size of all weights of a layer as stored; 0 where nothing may stay.
      saved_pj: energy saved when all of them stay.

    Source: Dantzig, "Discrete-variable extremum problems", Operations Research 5(2), 1957.
    """
    some = stored_bits > 0
    size = jnp.where(some, stored_bits, 1.0)
    value = jax.lax.stop_gradient(jnp.where(some, saved_pj / size, -1.0))
    place = np.arange(len(stored_bits))
    first = (value[:, None] > value) | ((value[:, None] == value) & (place[:, None] < place))  # [before, after]
    before = jnp.where(some, stored_bits, 0.0) @ first.astype(size.dtype)
    return jnp.where(some, jnp.clip((capacity_bits - before) / size, 0.0, 1.0), 0.0)


def residency(
    machine: Machine,
    facts: Facts,
    words: Words,
    mode: Float[Array, "layer mode"],
    buffer_bits: Float[Array, ""],
    input_bits: Float[Array, "layer"],
    weight_link_bits: Float[Array, "layer"],
    saved_pj: Float[Array, "layer"],
    powered_down: bool,
) -> Residency:
    """What stays on chip: tiles first, then feature maps, then weights in what is left at the fullest layer.

    Tiles of inputs and outputs stay reserved as stream buffers even where the whole map is on chip (conservative).
    Maps are stored at the widest input of their consumers, weights as coded on the link. A sum or concatenation of
    several maps counts as on chip as far as the least kept of them.

    Args:
      saved_pj: energy saved when all of a layer's weights stay. powered_down: the chip idles between inferences, so
        that a retention supply of 0 V loses everything.
    """
    working = working_set_bits(machine, words, mode)
    stored_width = jnp.max(jnp.where(facts.produces, input_bits[None, :], 0.0), axis=1)
    kept, held = kept_maps(facts, buffer_bits - working, jnp.asarray(facts.map_words, working.dtype) * stored_width)
    demand = working + held
    capacity = jnp.maximum(buffer_bits - jnp.max(demand), 0.0)
    resident = resident_weights(capacity, jnp.asarray(facts.stored_words, working.dtype) * weight_link_bits, saved_pj)
    if powered_down:
        resident = jnp.where(machine.supply.retention_v > 0, resident, 0.0)
    found = jnp.min(jnp.where(facts.produces, kept[:, None], 1.0), axis=0)
    return Residency(working, demand, kept, jnp.where(facts.from_input, 0.0, found), resident)
