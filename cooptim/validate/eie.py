"""EIE on the fully connected layers that it was published with, priced by `evaluate` like any design.

Published are figures of a layout and its simulation, not of silicon: the machine is tagged so, and rows say what of
them the file takes. Its nine times are counted among the claims (`cooptim validate --claims`).
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float

from cooptim.compile import compiler_options
from cooptim.cost.evaluate import evaluate
from cooptim.cost.report import CostReport
from cooptim.design.design import Design
from cooptim.hardware.load import MachineFile, load_machine_file
from cooptim.hardware.load_imbalance import stored_entries
from cooptim.hardware.reference import operating_power_mw, peak_gops
from cooptim.mapping.frontier import tilings
from cooptim.network.stats import Stats
from cooptim.validate.claims import claim_of
from cooptim.validate.row import Row
from cooptim.workload import INPUT, Workload, zoo

_TABLE = "ISCA 2016, Table V (cucapra/fodlam)"
_ABSTRACT = "ISCA 2016, abstract"
_EXACT = 1e-3
_ROUNDED = 0.01  # 102 for 102.4 GOPS
_TOLERANCE = 0.10
_FOLLOWS = "follows from counted claims; not counted"
_FRAMES_PER_J = 138_927.0  # of FC7: 81,967 frames/s at 0.59 W


def dense_layers(network: str) -> Workload:
    """The fully connected layers of a network of the zoo, the first one fed from outside."""
    found = [layer for layer in zoo.network(network).layers if layer.kind == "dense"]
    first = dataclasses.replace(found[0], inputs=(INPUT,))
    return Workload(f"{network}_dense", (first, *found[1:]), (found[-1].name,), first.input_words)


def priced(
    file: MachineFile, workload: Workload, weight_density: ArrayLike, input_density: ArrayLike
) -> tuple[Design, CostReport]:
    """(design, report) of fully connected layers at nominal supply and clock, widths as at the file's reference.

    Each layer takes the tiling of least DRAM words, of these the one of least buffer words, of these the smallest.

    Args:
      weight_density, input_density: of every layer, or of all.
    """
    machine, data = file.machine, file.spec.reference.data
    table, layers = tilings(workload, machine), len(workload.layers)
    widest = int(np.argmax([mode.slot_bits for mode in machine.modes]))
    words = table.dram_w + table.dram_i + table.dram_o + 2.0 * table.dram_psum
    moved = (table.sram_w + table.sram_i + table.sram_o + table.sram_psum)[:, :, widest]
    room = table.tile_w + table.tile_i + table.tile_o + table.tile_psum
    row = np.lexsort((room, moved, np.where(table.valid > 0, words, np.inf)), axis=1)[:, 0]
    one, full = jnp.ones(layers), float(machine.datapath.width_bits)
    bits = (full, full) if data is None else (data.weight_bits.value, data.input_bits.value)
    design = Design(
        (False,) * layers, bits[0] * one, one, one, 0.0 * one, bits[1] * one, one, one,
        jnp.tile(jnp.eye(len(machine.modes))[widest], (layers, 1)), jnp.eye(table.rows)[row],
        machine.supply.nominal_v * one, machine.supply.nominal_ghz * one, machine.buffer.size_bits * jnp.ones(()),
    )  # fmt: skip
    stats = Stats(jnp.asarray(weight_density) * one, jnp.asarray(input_density) * one)
    once = {**compiler_options(), "xla_backend_optimization_level": 0}  # the least effort of XLA
    run = jax.jit(lambda d, s: evaluate(workload, machine, d, s, tilings=table), compiler_options=once)
    return design, run(design, stats)


def alexnet_inputs(file: MachineFile, weight_density: float) -> Float[np.ndarray, "layer"]:
    """Shares of non-zero inputs of AlexNet's three layers: as many as make the entries of their theoretical times.

    At most all: where these weights have too few entries (FC8 at 0.11, by 1 %), the time is too short by as much.
    """
    path, link = file.machine.datapath, file.machine.mechanisms.link
    assert link is not None
    found = []
    for layer in dense_layers("alexnet").layers:
        given, _ = claim_of("EIE", f"AlexNet {layer.name.upper()} theoretical / actual time").pair
        rows = -(-layer.bounds.K // path.rows)
        entries = layer.macs * float(stored_entries(weight_density, rows, link.run_bits)) / rows
        found.append(1e3 * given * float(file.machine.supply.nominal_ghz) * path.rows / entries)
    return np.minimum(np.array(found), 1.0)


def eie_rows(file: MachineFile | None = None) -> list[Row]:
    """What was published of EIE as a whole, at the weight density of the file's reference point.

    Raises ValueError for a file that does not say on what data its power was measured or how weights are coded.
    """
    file = load_machine_file("eie") if file is None else file
    data, supply = file.spec.reference.data, file.machine.supply
    if data is None or file.machine.mechanisms.link is None:
        raise ValueError(
            f"machine {file.name}: without reference.data or mechanisms.link; legal: a variant of EIE with both; "
            "add them"
        )
    density = data.weight_density.value
    report = _report(file, density)
    time_ns, seventh = float(report.total_latency_ns), list(report.layer_names).index("fc7")
    energy = sum(float(part[seventh]) for name, part in report.energy_pj.items() if not name.startswith("dram"))
    power = operating_power_mw(
        file.machine, file.reference, file.machine.modes[0], 16.0, supply.nominal_ghz, supply.nominal_v
    )
    note = f"weights {density:g} non-zero (6.7 of 61 million), inputs as the theoretical times say; lanes wait"
    return [
        Row.of("EIE, power", "mW", 590.0, float(power), _EXACT, _TABLE, "input"),
        Row.of("EIE, throughput on the compressed network", "GOPS", 102.0, max(peak_gops(file.machine).values()),
               _ROUNDED, _ABSTRACT, "input"),
        Row.of("EIE, area", "mm2", 40.8, float(report.area_mm2), _EXACT, _TABLE, "input"),
        Row.of("EIE, frames/s of AlexNet's dense layers", "1/s", 18800.0, 1e9 / time_ns, _TOLERANCE, _ABSTRACT,
               f"{_FOLLOWS}; {note}"),
        Row.of("EIE, frames/J of AlexNet FC7", "1/J", _FRAMES_PER_J, 1e12 / energy, _TOLERANCE, _TABLE,
               f"{_FOLLOWS}; power is an input, the time is predicted"),
    ]  # fmt: skip


def _report(file: MachineFile, weight_density: float) -> CostReport:
    return priced(file, dense_layers("alexnet"), weight_density, jnp.asarray(alexnet_inputs(file, weight_density)))[1]
