"""The price of a design: composes the parts and holds no formula of its own."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from cooptim.cost.area import area_mm2
from cooptim.cost.effect import workload_effect
from cooptim.cost.energy import Operands, access_pj, busy_cycles, layer_energy_pj, link_bits, packing_of
from cooptim.cost.latency import layer_latency_ns
from cooptim.cost.live import live_network
from cooptim.cost.report import CostReport
from cooptim.cost.residency import Residency, residency
from cooptim.cost.switching import changes, mean_changes
from cooptim.cost.words import Words, expected_words
from cooptim.design.design import Design
from cooptim.hardware.dvafs import standby_mw
from cooptim.hardware.machine import Machine
from cooptim.hardware.mechanisms import Effect, array_bits
from cooptim.mapping.frontier import tilings as frontier_tilings
from cooptim.mapping.tilings import Tilings
from cooptim.network.stats import Stats, dense_stats
from cooptim.workload import Workload
from cooptim.workload.graph import Facts, facts

KINKS: tuple[str, ...] = (  # where a gradient may jump; everywhere else the report is smooth
    "a width equal to the slot of a mode with a share",
    "coded and raw link bits equal",
    "compute and transfer time of a layer equal",
    "feature maps just filling the buffer, or two layers equally crowded",
    "two layers of equal input width that take the same feature map, which is stored at the wider one",
    "resident weights just filling the buffer, or two layers of equal value per bit",
    "period equal to the latency",
    "live channels of a layer just filling the array once (their steps are counted whole, with a linear slope)",
    "two consecutive layers at the same supply, where changes of it cost",
)


def evaluate(
    workload: Workload,
    machine: Machine,
    design: Design,
    stats: Stats | None = None,
    *,
    period_ns: Float[ArrayLike, ""] | None = None,
    tilings: Tilings | None = None,
) -> CostReport:
    """Energy, latency and area of one inference in steady state; pure, jittable, differentiable off KINKS.

    Relaxed and legal designs take the same path: modes and tilings enter by their shares.

    Args:
      stats: measured densities, and the reach of layers behind early exits; None prices a network without zeros in
        which all layers run. Where `reach` is given, energies are means over inputs, latencies stay the longest.
        Where `live` is, the price is that of the network without its dead channels (`cooptim.cost.live`).
      period_ns: time from one inference to the next; leakage at the retention supply is charged for the rest of it.
        None: the next inference starts at once.
      tilings: the table that `design.tiling` refers to; None takes `cooptim.mapping.frontier.tilings`.

    Network inputs come from DRAM at the width and density of the layer that takes them; network outputs leave raw at
    full width; every other output is written at the mean coded width of its consumers.

    Raises ValueError when the design's axes do not fit the workload, the machine and the table.
    """
    table = frontier_tilings(workload, machine) if tilings is None else tilings
    known = facts(workload)
    layers = len(workload.layers)
    _require_axes(workload, machine, design, table)
    stats = dense_stats(layers) if stats is None else stats
    chex.assert_shape([stats.weight_density, stats.input_density], (layers,))
    reach = stats.reach if stats.reach is None else jnp.asarray(stats.reach)
    if reach is not None:
        chex.assert_shape(reach, (layers,))
    words = expected_words(table, jnp.asarray(design.tiling))
    known, words, stats = live_network(workload, machine, known, words, stats)
    effect = workload_effect(
        machine, workload, design.weight_bits, design.input_bits, stats.weight_density, stats.input_density,
        design.supply_v, words.cycles, words.sram_w, words.sram_i,
    )  # fmt: skip
    stay, operands = _operands(machine, known, words, design, stats, effect, period_ns is not None)
    if effect is not None:
        words = words._replace(cycles=words.cycles * effect.cycles + effect.extra_cycles)
    freq, size = jnp.asarray(design.freq_ghz), jnp.asarray(design.buffer_bits)
    latency = jax.vmap(layer_latency_ns, in_axes=(None, 0, 0, 0))(machine, words, operands, freq)
    energy = jax.vmap(layer_energy_pj, in_axes=(None, 0, 0, 0, None, None if effect is None else 0))(
        machine, words, operands, latency, size, effect
    )
    change = changes(machine, operands.mode, operands.supply_v, size)
    whole_ns = jnp.sum(latency) if change is None else jnp.sum(latency) + jnp.sum(change.time_ns)
    switching_pj = None if change is None else change.energy_pj
    if reach is not None:
        energy = {name: reach * pj for name, pj in energy.items()}
        whole_ns, mean = jnp.sum(reach * latency), mean_changes(machine, operands.mode, operands.supply_v, size, reach)
        if mean is not None:
            whole_ns, switching_pj = whole_ns + jnp.sum(mean.time_ns), mean.energy_pj
    busy, cycles = (jnp.sum(operands.mode * x, axis=1) for x in (busy_cycles(machine, operands.macs), words.cycles))
    return CostReport(
        layer_names=workload.names,
        energy_pj=energy,
        standby_pj=_standby_pj(machine, size, period_ns, whole_ns),
        latency_ns=latency,
        cycles=cycles,
        macs=operands.macs if reach is None else reach * operands.macs,
        utilization=busy / cycles if effect is None else _utilization(machine, operands, effect, cycles),
        area_mm2=area_mm2(machine, size),
        buffer_demand_bits=stay.demand_bits,
        buffer_bits=size,
        resident_share=stay.resident,
        kept_share=jnp.where(known.is_output, 0.0, stay.kept_map),
        switching_pj=switching_pj,
        switching_ns=None if change is None else change.time_ns,
        reach=reach,
        mean_busy_ns=None if reach is None else whole_ns,
    )


def _utilization(
    machine: Machine, operands: Operands, effect: Effect, cycles: Float[Array, "layer"]
) -> Float[Array, "layer"]:
    """Share of the lanes that do work, of MACs that are executed; 0 for a layer that takes no cycle."""
    busy = jnp.sum(operands.mode * busy_cycles(machine, operands.macs) * effect.executed, axis=1)
    return busy / jnp.where(cycles > 0, cycles, 1.0)


def _operands(
    machine: Machine,
    known: Facts,
    words: Words,
    design: Design,
    stats: Stats,
    effect: Effect | None,
    powered_down: bool,
) -> tuple[Residency, Operands]:
    """What stays on chip, and what is left of the traffic of each layer."""
    dtype = words.dram_w.dtype
    mode, weight_bits, input_bits = (jnp.asarray(x) for x in (design.mode, design.weight_bits, design.input_bits))
    link_w = link_bits(machine, "W", weight_bits, stats.weight_density, known.outputs)
    link_i = link_bits(machine, "I", input_bits, stats.input_density)
    consumers = np.maximum(known.produces.sum(axis=1), 1)
    shared = jnp.asarray(known.produces / consumers[:, None], dtype) @ link_i
    link_o = jnp.where(known.is_output, float(machine.datapath.width_bits), shared)
    word_pj = access_pj(machine, design.buffer_bits, design.supply_v)
    if effect is None:
        slots = jnp.asarray([m.slot_bits for m in machine.modes], dtype)
        transit_pj = word_pj * (mode @ slots) / machine.buffer.word_bits
    else:
        moved = effect.moved(jnp.asarray(stats.weight_density)[:, None], "W")
        transit_pj = word_pj * packing_of(machine, mode, moved)
    seen_w, seen_i = array_bits(machine.mechanisms, machine.datapath, weight_bits, input_bits)
    saved_pj = words.dram_w * (link_w * machine.dram.access_pj_per_bit + transit_pj)
    saved_pj = saved_pj if stats.reach is None else jnp.asarray(stats.reach) * saved_pj
    stay = residency(
        machine, known, words, mode, jnp.asarray(design.buffer_bits), input_bits, link_w, saved_pj, powered_down
    )
    return stay, Operands(
        macs=jnp.asarray(known.macs, dtype),
        mode=mode,
        supply_v=jnp.asarray(design.supply_v),
        weight_bits=seen_w,
        input_bits=seen_i,
        weight_density=jnp.asarray(stats.weight_density),
        input_density=jnp.asarray(stats.input_density),
        fetched_w=1.0 - jnp.where(known.is_product, stay.kept_input, stay.resident),
        fetched_i=1.0 - stay.kept_input,
        leaving_o=1.0 - jnp.where(known.is_output, 0.0, stay.kept_map),
        link_w=link_w,
        link_i=link_i,
        link_o=link_o,
    )


def _standby_pj(
    machine: Machine, buffer_bits: Float[Array, ""], period_ns: Float[ArrayLike, ""] | None, busy_ns: Float[Array, ""]
) -> Float[Array, ""]:
    if period_ns is None:
        return jnp.zeros_like(busy_ns)
    idle_ns = jnp.maximum(jnp.asarray(period_ns) - busy_ns, 0.0)
    return standby_mw(machine, buffer_bits) * idle_ns


def _require_axes(workload: Workload, machine: Machine, design: Design, table: Tilings) -> None:
    layers, modes = len(workload.layers), len(machine.modes)
    wanted: dict[str, tuple[int, ...]] = {"mode": (layers, modes), "tiling": (layers, table.rows)}
    wanted |= dict.fromkeys(("weight_bits", "input_bits", "supply_v", "freq_ghz"), (layers,))
    for name, shape in wanted.items():
        found = jnp.shape(getattr(design, name))
        if found != shape:
            raise ValueError(
                f"design of {workload.name} on {machine.name}: {name} has shape {found}, the workload, the modes and "
                f"the table of tilings ask for {shape}; make the design with this workload, machine and table"
            )
    if table.cycles.shape != (layers, table.rows, modes):
        raise ValueError(
            f"tilings of {workload.name}: cycles have shape {table.cycles.shape}, legal is "
            f"{(layers, table.rows, modes)}; build the table for this workload and machine"
        )
