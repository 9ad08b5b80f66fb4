"""The designs that a joint design must beat: 16 bit, best uniform, best uniform with pruning."""

import dataclasses
from typing import Any

import jax.numpy as jnp

from cooptim.compile import compiled
from cooptim.descent.assign import assign_hardware
from cooptim.descent.polish import polished
from cooptim.descent.price import Pricer
from cooptim.descent.result import Budget, Priced
from cooptim.descent.stages import without_exits
from cooptim.descent.task import Task, calibrated_knobs, decode, priced
from cooptim.design.design import Design
from cooptim.design.knobs import free_phase, frozen_phase
from cooptim.design.space import DesignSpace
from cooptim.network.stats import Stats, dense_stats


def wide_design(space: DesignSpace, weight_max: Any, input_max: Any) -> Design:
    """Full datapath width everywhere, nothing pruned; hardware choices are those of the initial knobs."""
    top_w, top_i = space.most_bits
    layers = len(space.workload.layers)
    knobs = space.init(weight_max, input_max, top_w, top_i)
    design = space.decode(knobs, 1.0, dataclasses.replace(free_phase(layers), prune=jnp.zeros(())))
    return dataclasses.replace(design, weight_bits=jnp.full(layers, top_w), input_bits=jnp.full(layers, top_i))


def nominal_hardware(space: DesignSpace, pricer: Pricer, design: Design, stats: Stats) -> Design:
    """The design in the widest mode at nominal clock and supply, with the best tilings of the whole network."""
    design = assign_hardware(space, pricer, design, stats, float("inf"), nominal=True)
    return polished(space, pricer, design, stats, float("inf"), ("tiling",))


def reference_16b(task: Task, params: Any, state: Any) -> tuple[Priced, float]:
    """(the 16-bit reference, its energy without a single zero guarded [pJ]).

    Float-trained weights at full width, nominal clock and supply, best tiling, with all that needs no training: zero
    guarding, link coding, residency; no input leaves early. The period is its own latency.
    """
    if task.space.methods:  # those of the run; the reference has none
        space = dataclasses.replace(task.space, methods=())
        task = dataclasses.replace(task, space=space, init=compiled(space.init), decode=compiled(space.decode))
    knobs = calibrated_knobs(task, params, state, float(task.machine.datapath.width_bits))
    design = decode(task, knobs, dataclasses.replace(free_phase(task.layers), prune=jnp.zeros(())))
    full_w, full_i = (jnp.full(task.layers, top) for top in task.space.most_bits)
    design = without_exits(dataclasses.replace(design, weight_bits=full_w, input_bits=full_i))
    stats = task.measure.stats(params, state, design, *task.stats_images)
    design = nominal_hardware(task.space, task.pricer, design, stats)
    latency_ns = float(task.pricer.report(design, stats, 0.0).total_latency_ns)
    dense = task.pricer.report(design, dense_stats(task.layers), latency_ns)
    return priced(task, "16 b", params, state, design, latency_ns), float(dense.total_energy_pj)


def with_deadline(task: Task, budget: Budget, reference: Priced) -> Budget:
    """The budget with a deadline where the reference's own latency is none: on a chip that skips cycles of zeros.

    Quantized training leaves fewer zeros than the float network has, and no legal design may be as fast; all are within
    the latency of the reference without a zero.
    """
    if budget.latency_ns is not None:
        return budget
    dense = task.pricer.report(reference.design, dense_stats(task.layers), 0.0)
    slowest_ns = float(dense.total_latency_ns)
    if slowest_ns <= float(reference.report.total_latency_ns) * (1 + 1e-6):
        return budget
    return dataclasses.replace(budget, latency_ns=slowest_ns)


def uniform_phase(task: Task, bits: float, *, prune: bool) -> Any:
    """Switches that hold every width at `bits`."""
    width = jnp.full(task.layers, float(bits))
    return frozen_phase(width, width, prune=prune)
