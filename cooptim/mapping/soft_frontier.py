"""The frontier relaxation: a softmin over the exact sets of even mappings, differentiable in all that prices them.

Each layer holds the rows of its set (`even_frontier`): words moved and held. At given widths, sizes, energies and port
widths each costs energy and cycles (`row_price`). Rows share a layer by

    weight ~ exp(-(log cost + strength / temperature x sum over memories of max(0, fill / room - 1)^2) / temperature)

with cost = energy + cycle_price x cycles, and a layer costs the weighted mean of its rows: never less than the best
row, which log-sum-exp is. The penalty is 0 for tiles that fit, exactly full ones too, and grows without limit as the
temperature falls; until then it is what makes room worth having. Towards temperature 0 the best row that fits is
alone: value and gradient are the exact ones (Danskin's theorem: the gradient of a minimum is that of its winner).

A network's energy-delay product is least where all layers minimise energy + cycle_price x cycles for one price, its
energy over its cycles (`edp_cycle_price`).

Rows are priced a few blocks at a time, and again for the gradient, so that what lies between words and costs stays in
the processor's cache; a block hands on its sums only, scaled by its own largest weight.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cooptim.hardware.hierarchy import Hierarchy
from cooptim.mapping.row_price import FrontierStack, block_prices, overflow, rates

GROUP = 16  # blocks priced at once: 2,048 rows of some 60 numbers, 1 MB


@dataclasses.dataclass(frozen=True)
class FrontierPrice:
    """What layers cost, per layer and run: means over rows.

    Attributes:
      port_cycles: busy cycles per (memory, port). tile_bits: held in one instance, per memory.
      overflow: of the squares of fill / room - 1 where it is positive, summed over memories; 0 where all fits.
      weights: of the rows, one layer's blocks after the other (`FrontierStack.layer_of`).
    """

    energy_pj: Any
    mac_pj: Any
    tile_bits: dict[str, Any]
    port_cycles: dict[tuple[str, str], Any]
    steps: Any
    cycles: Any
    overflow: Any
    weights: Float[Array, "use lane"]


def _in_groups(call: Callable[[Any], Any], blocks: Any) -> Any:
    """`call` on a few blocks [block, ...] after another, and again for the gradient: it all stays in the cache."""
    n = len(jax.tree.leaves(blocks)[0])
    groups = -(-n // GROUP)
    size = -(-n // groups)

    def split(leaf: Any) -> Any:
        padding = ((0, groups * size - n), *((0, 0),) * (leaf.ndim - 1))
        return jnp.pad(leaf, padding, mode="edge").reshape(groups, size, *leaf.shape[1:])

    found = jax.lax.map(jax.checkpoint(call, prevent_cse=False), jax.tree.map(split, blocks))
    return jax.tree.map(lambda leaf: leaf.reshape(groups * size, *leaf.shape[2:])[:n], found)


def soft_price(
    stack: FrontierStack,
    machine: Hierarchy,
    temperature: Any,
    cycle_price: Any = 0.0,
    strength: Any = 1.0,
    sharpness: Any = 32,
) -> FrontierPrice:
    """Energy [pJ], latency [cycles] and footprints [bit] of every layer at a temperature; shapes [layer].

    Differentiable in `stack.bits`, the machine's sizes, energies and port widths, cycle_price and temperature.

    Args:
      machine: of the structure that the sets were made for; its numbers may be traced.
      temperature: of log cost, above 0; 0.05 mixes rows within about 5 % of the best, 1e-4 is exact to 1e-6 or better
        unless rows tie.
      cycle_price: [pJ / cycle], one or per layer, at least 0.
      strength: of the penalty on overfilled memories.
      sharpness: of the maximum over ports, above 1; whole numbers are cheapest, infinite is the maximum itself.
    """
    stack = jax.tree.map(jnp.asarray, stack)
    price, at = rates(stack, machine), stack.layer_of
    cycle_pj = jnp.broadcast_to(jnp.asarray(cycle_price, stack.bits.dtype), (stack.layers,))

    def sums(blocks: Any) -> Any:
        """(largest logit, rows' shares of it, their sum, and with these shares the sums of what rows cost), [block]."""
        block, own, cycle_pj = blocks
        words, held = stack.words[block], stack.held[block]
        rows = block_prices(words, held, machine, own, sharpness)
        over = overflow(rows.bits, machine)
        cost = jnp.log(rows.energy_pj + cycle_pj[:, None] * rows.cycles)
        logits = jnp.where(stack.real[block], -(cost + strength * over / temperature) / temperature, -jnp.inf)
        most = jax.lax.stop_gradient(jnp.max(logits, axis=1))
        raised = jnp.exp(logits - most[:, None])
        values = (rows.energy_pj, rows.cycles, over, words, held)
        return most, raised, jnp.sum(raised, axis=1), [jnp.einsum("b...r,br->b...", v, raised) for v in values]

    most, raised, total, found = _in_groups(sums, (stack.block_of, price.take(at), cycle_pj[at]))
    scale = jnp.exp(most - jax.ops.segment_max(most, at, stack.layers, indices_are_sorted=True)[at])

    def over_blocks(values: Any) -> Any:
        scaled = jnp.einsum("b...,b->b...", values, scale)
        return jax.ops.segment_sum(scaled, at, stack.layers, indices_are_sorted=True)

    whole = over_blocks(total)
    energy_pj, cycles, over, words, held = (jnp.einsum("l...,l->l...", over_blocks(v), 1.0 / whole) for v in found)
    return FrontierPrice(
        energy_pj=energy_pj,
        mac_pj=price.mac_pj,
        tile_bits={m.name: jnp.sum(price.room[:, i] * held, axis=1) for i, m in enumerate(machine.memories)},
        port_cycles={port: jnp.sum(price.busy[:, p] * words, axis=1) for p, port in enumerate(price.ports)},
        steps=stack.steps,
        cycles=cycles,
        overflow=over,
        weights=raised * (scale / whole[at])[:, None],
    )


def edp_cycle_price(
    stack: FrontierStack, machine: Hierarchy, temperature: Any, rounds: int = 8, strength: Any = 1.0
) -> Float[Array, ""]:
    """Energy over cycles of the stack, repeats counted, at which the layers' choices settle [pJ / cycle]; a constant.

    Each round lowers the product: from E + p T = 2 E with p = E / T follows E' p T' <= ((E' + p T') / 2)^2 <= E^2.
    """

    def again(_: Any, price: Any) -> Any:
        found = soft_price(stack, machine, temperature, price, strength)
        return jnp.sum(stack.repeat * found.energy_pj) / jnp.sum(stack.repeat * found.cycles)

    start = jnp.zeros((), jnp.asarray(stack.words).dtype)
    settled: Array = jax.lax.stop_gradient(jax.lax.fori_loop(0, rounds, again, start))
    return settled
