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
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cooptim.hardware.hierarchy import Hierarchy
from cooptim.mapping.row_price import FrontierStack, overflow, rates, row_prices


@dataclasses.dataclass(frozen=True)
class FrontierPrice:
    """What layers cost, per layer and run: means over rows.

    Attributes:
      port_cycles: busy cycles per (memory, port). tile_bits: held in one instance, per memory.
      overflow: of the squares of fill / room - 1 where it is positive, summed over memories; 0 where all fits.
      weights: of the rows.
    """

    energy_pj: Any
    mac_pj: Any
    tile_bits: dict[str, Any]
    port_cycles: dict[tuple[str, str], Any]
    steps: Any
    cycles: Any
    overflow: Any
    weights: Float[Array, "block lane"]


def _softmax(logits: Float[Array, "block lane"], layer_of: Any, layers: int) -> Float[Array, "block lane"]:
    """Over the rows of each layer."""
    most = jax.ops.segment_max(jnp.max(logits, axis=1), layer_of, layers, indices_are_sorted=True)
    raised = jnp.exp(logits - jax.lax.stop_gradient(most)[layer_of, None])
    total = jax.ops.segment_sum(jnp.sum(raised, axis=1), layer_of, layers, indices_are_sorted=True)
    return raised / total[layer_of, None]


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
    rows = row_prices(stack, machine, price, sharpness)
    over = overflow(rows.bits, machine)
    cycle_pj = jnp.broadcast_to(jnp.asarray(cycle_price, rows.cycles.dtype), (stack.layers,))
    cost = jnp.log(rows.energy_pj + cycle_pj[at, None] * rows.cycles)
    logits = jnp.where(stack.real, -(cost + strength * over / temperature) / temperature, -jnp.inf)
    weights = _softmax(logits, at, stack.layers)

    def mean(values: Any) -> Any:
        shares = jnp.einsum("b...r,br->b...", values, weights)
        return jax.ops.segment_sum(shares, at, stack.layers, indices_are_sorted=True)

    words, held = mean(stack.words), mean(stack.held)
    return FrontierPrice(
        energy_pj=mean(rows.energy_pj),
        mac_pj=stack.macs * machine.mac_pj,
        tile_bits={m.name: jnp.sum(price.room[:, i] * held, axis=1) for i, m in enumerate(machine.memories)},
        port_cycles={port: jnp.sum(price.busy[:, p] * words, axis=1) for p, port in enumerate(price.ports)},
        steps=stack.steps,
        cycles=mean(rows.cycles),
        overflow=mean(over),
        weights=weights,
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
