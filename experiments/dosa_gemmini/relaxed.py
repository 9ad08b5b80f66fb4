"""DOSA's model with real factors: log-factors on a simplex over levels, orders by softmax; descended by Adam.

A layer has six simplices (one a dim) over spatial, accumulator and DRAM and one over ORDERS; hardware is what the
mappings need, by a smooth maximum. No capacity can be broken, so the loss is log(EDP) alone.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from model import (
    ACCUMULATOR_PJ,
    ACCUMULATOR_PJ_PER_KB,
    DRAM_PJ,
    DRAM_WORDS_PER_CYCLE,
    MAC_PJ,
    PE_LIMIT,
    REGISTER_PJ,
    SCRATCHPAD_PJ,
    SCRATCHPAD_PJ_PER_KB,
    UJ,
    Layer,
)

# Weights stay (P or Q moves), inputs stay, outputs stay (plainly, or with the window moving along R or S).
ORDERS = ("PQRSCKN", "QPRSCKN", "KCRSPQN", "CRSKPQN", "RCSKPQN", "SCRKPQN")
DIMS = "RSPQCK"
SHARPNESS = 40.0  # of the smooth maximum, in log size: 24 equal layers read 8 % too large


@dataclasses.dataclass(frozen=True)
class Knobs:
    """What is descended, of one seed."""

    levels: jax.Array  # [layer, 6, 3] logits of spatial, accumulator, DRAM
    orders: jax.Array  # [layer, order] logits


jax.tree_util.register_dataclass(Knobs, ["levels", "orders"], [])


def init(key: jax.Array, number: int, spread: float) -> Knobs:
    """Random logits of `number` layers."""
    levels, orders = jax.random.split(key)
    return Knobs(
        spread * jax.random.normal(levels, (number, 6, 3)), spread * jax.random.normal(orders, (number, len(ORDERS)))
    )


def bounds(network: Sequence[Layer]) -> dict[str, jax.Array]:
    """Columns over layers."""
    names = (*DIMS, "stride_p", "stride_q", "count", "macs", "outputs")
    return {name: jnp.array([float(getattr(layer, name)) for layer in network]) for name in names}


def factors(knobs: Knobs, bound: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Real factors, columns over layers: rows, columns, and the accumulator factors of RSPQCK.

    Only C and K have a spatial level; what a share would take beyond PE_LIMIT goes to the accumulator.
    """
    no_space = jnp.array([[-jnp.inf, 0.0, 0.0]] * 4 + [[0.0] * 3] * 2)
    share = jax.nn.softmax(knobs.levels + no_space, axis=-1)
    found = {}
    for i, dim in enumerate(DIMS):
        logs = jnp.log(bound[dim])
        spatial = jnp.minimum(share[:, i, 0] * logs, jnp.log(float(PE_LIMIT)))
        found[dim] = jnp.exp((share[:, i, 0] + share[:, i, 1]) * logs - spatial)
        if dim in "CK":
            found["rows" if dim == "C" else "columns"] = jnp.exp(spatial)
    return found


def _smooth_max(x: jax.Array) -> jax.Array:
    """At least the largest of positive numbers, smooth in their logs."""
    return jnp.exp(jax.nn.logsumexp(SHARPNESS * jnp.log(x)) / SHARPNESS)


def _fills(tile: dict[str, jax.Array], bound: dict[str, jax.Array]) -> jax.Array:
    """Words of W, I, O that enter scratchpad and accumulator for each of ORDERS, [order, 3, layer]."""
    tile_c, tile_k = tile["C"] * tile["rows"], tile["K"] * tile["columns"]
    outer = {d: bound[d] / {"C": tile_c, "K": tile_k}.get(d, tile[d]) for d in DIMS}
    steps = jnp.prod(jnp.stack(list(outer.values())), axis=0)
    high, wide = (tile["P"] - 1) * bound["stride_p"], (tile["Q"] - 1) * bound["stride_q"]
    r, s = tile["R"], tile["S"]
    window = (high + r) * (wide + s)
    weights, bank = tile_c * tile_k * r * s * steps, tile["P"] * tile["Q"] * tile_k * steps
    inputs = tile_c * steps
    along_p = window + (high + jnp.minimum(r, bound["stride_p"])) * (wide + s) * (outer["P"] - 1)
    along_q = window + (high + r) * (wide + jnp.minimum(s, bound["stride_q"])) * (outer["Q"] - 1)
    kept_o = bank / (outer["C"] * outer["R"] * outer["S"])
    kept_w = weights / (outer["P"] * outer["Q"])
    rows = [
        (kept_w, inputs / outer["P"] * along_p, bank),
        (kept_w, inputs / outer["Q"] * along_q, bank),
        (weights, inputs / outer["K"] * window, bank),
        (weights, inputs * window, kept_o),
        (weights, inputs / outer["R"] * (high + bound["R"]) * (wide + s), kept_o),
        (weights, inputs / outer["S"] * (high + r) * (wide + bound["S"]), kept_o),
    ]
    return jnp.stack([jnp.stack(row) for row in rows])


def totals(knobs: Knobs, bound: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(uJ, cycles, (scratchpad KB, words of a bank)) of the network with real factors."""
    tile = factors(knobs, bound)
    mix = jax.nn.softmax(knobs.orders, axis=-1)
    fills_w, fills_i, fills_o = jnp.einsum("lo,otl->tl", mix, _fills(tile, bound))
    tile_c, tile_k, macs = tile["C"] * tile["rows"], tile["K"] * tile["columns"], bound["macs"]
    held = tile_c * tile_k * tile["R"] * tile["S"] + tile_c * ((tile["P"] - 1) * bound["stride_p"] + tile["R"]) * (
        (tile["Q"] - 1) * bound["stride_q"] + tile["S"]
    )
    sp_kb, bank = _smooth_max(held) / 1024, _smooth_max(tile["P"] * tile["Q"] * tile["K"])
    pe_dim = _smooth_max(jnp.concatenate([tile["rows"], tile["columns"]]))
    register_fills = macs / (tile["P"] * tile["Q"])
    accumulator = 2 * macs / tile["rows"] - bound["outputs"] + fills_o
    scratchpad = register_fills + fills_w + macs / tile["columns"] + fills_i
    dram = fills_w + fills_i + 2 * fills_o - bound["outputs"]
    energy_pj = (
        (MAC_PJ + REGISTER_PJ) * macs
        + REGISTER_PJ * register_fills
        + (ACCUMULATOR_PJ + ACCUMULATOR_PJ_PER_KB * bank * 4 / 1024) * accumulator
        + (SCRATCHPAD_PJ + SCRATCHPAD_PJ_PER_KB * sp_kb) * scratchpad
        + DRAM_PJ * dram
    )
    slowest = jnp.maximum(
        jnp.maximum(macs / (tile["rows"] * tile["columns"]), accumulator / (2 * tile["columns"])),
        jnp.maximum(scratchpad / (2 * pe_dim), dram / DRAM_WORDS_PER_CYCLE),
    )
    return UJ * jnp.sum(bound["count"] * energy_pj), jnp.sum(bound["count"] * slowest), jnp.stack([sp_kb, bank])


def descend(network: Sequence[Layer], seeds: Sequence[int], steps: int, every: int, rate: float, spread: float):
    """Yields (step, knobs of all seeds, uJ, cycles, hardware) at step 0 and every so many steps, leading axis seed."""
    bound = bounds(network)
    adam = optax.adam(optax.cosine_decay_schedule(rate, steps))

    def loss(knobs: Knobs) -> jax.Array:
        energy, cycles, _ = totals(knobs, bound)
        return jnp.log(energy) + jnp.log(cycles)

    def step(carry, _):
        knobs, moments = carry
        update, moments = adam.update(jax.grad(loss)(knobs), moments)
        return (optax.apply_updates(knobs, update), moments), None

    advance = jax.jit(jax.vmap(lambda knobs, moments: jax.lax.scan(step, (knobs, moments), None, length=every)[0]))
    measure = jax.jit(jax.vmap(lambda knobs: totals(knobs, bound)))
    keys = jnp.stack([jax.random.key(seed) for seed in seeds])
    knobs = jax.vmap(lambda key: init(key, len(network), spread))(keys)
    moments = jax.vmap(adam.init)(knobs)
    for done in range(0, steps + 1, every):
        if done:
            knobs, moments = advance(knobs, moments)
        yield (done, knobs, *(np.asarray(a, dtype=float) for a in measure(knobs)))
