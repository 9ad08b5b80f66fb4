"""What stays on chip: feature maps between layers, then weights between inferences, in closed form."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from cooptim.cost.words import Words
from cooptim.hardware.machine import Machine
from cooptim.hardware.mechanisms import held_bits
from cooptim.mapping.residency import found_inputs, kept_maps, resident_weights
from cooptim.workload.graph import Facts


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
    """Space for the tiles of each layer, packed at the slot width or as mechanisms say, and for waiting sums [bit]."""
    slots = jnp.asarray([m.slot_bits for m in machine.modes], mode.dtype)
    copies = 2.0 if machine.buffer.double_buffered else 1.0
    if machine.mechanisms.names:
        held_w, held_i = (jnp.asarray(x, mode.dtype) for x in held_bits(machine.mechanisms, machine.datapath))
        tiles = words.tile_w * (mode @ held_w) + words.tile_i * (mode @ held_i) + words.tile_o * (mode @ slots)
    else:
        tiles = (words.tile_w + words.tile_i + words.tile_o) * (mode @ slots)
    return copies * tiles + words.tile_psum * float(machine.datapath.accumulator_bits)


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
    return Residency(working, demand, kept, found_inputs(facts, kept), resident)
