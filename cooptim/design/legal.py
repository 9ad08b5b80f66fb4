"""From a relaxed Design to a legal one: each snap moves one kind of choice onto what can be built."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from cooptim.design.design import Design
from cooptim.design.operands import MIN_BITS
from cooptim.design.space import DesignSpace
from cooptim.hardware.dvafs import critical_path, max_clock_ghz
from cooptim.relax.bitwidth import bits_of, range_of
from cooptim.relax.choice import hard_choice
from cooptim.relax.codebook import fixed_point
from cooptim.relax.method import method_of

_GRID_SLACK = 1e-4  # of one grid step: a value this close to a grid point stands on it
_UNIT_SLACK = 2e-2  # of one unit of a table: 16-bit values in float32 are this near to a whole number of units


class IllegalDesign(ValueError):
    """A design that cannot be built; the message names layer, demand and bound."""


def snap_widths(space: DesignSpace, design: Design) -> Design:
    """Widths rounded to whole bits within the datapath; a range that its width cannot hold is cut to what it can.

    Values of a table become whole multiples of their layer's step, which is what a table stores.
    """
    (top_w, top_i), tables = space.most_bits, design.codebook
    signed = jnp.asarray(space.signed, design.weight_step.dtype)
    zeros = np.asarray([method_of(space.methods, i).has_zero for i in range(len(space.workload.layers))])

    def held(bits, step, range_, sign, operand, top):  # type: ignore[no-untyped-def]
        lowest = jnp.asarray(space.lowest_bits(operand), jnp.asarray(bits).dtype)
        labels = space.labelled & (operand == 0)
        bits = jnp.clip(jnp.round(bits), lowest, jnp.where(labels, lowest, top))
        wide = (bits_of(step, range_, sign) > bits + 1e-3) & (bits >= MIN_BITS) & ~labels
        return bits, jnp.where(wide, range_of(step, bits, sign), range_)

    w_bits, w_range = held(design.weight_bits, design.weight_step, design.weight_range, 1.0, 0, top_w)
    i_bits, i_range = held(design.input_bits, design.input_step, design.input_range, signed, 1, top_i)
    return dataclasses.replace(
        design,
        weight_bits=w_bits,
        weight_range=w_range,
        threshold=jnp.where((top_w < MIN_BITS) | ~zeros, 0.0, design.threshold),
        input_bits=i_bits,
        input_range=i_range,
        codebook=tables if tables is None else tuple(map(_stored, tables, design.weight_step)),
    )


def _stored(table: Array, step: Array) -> Array:
    return fixed_point(jnp.asarray(table), jnp.asarray(step)) if table.size else table


def snap_mode(space: DesignSpace, design: Design) -> Design:
    """The most wanted mode that holds both widths, one-hot."""
    slots = jnp.asarray(space.slot_bits, design.mode.dtype)
    widest = space.widest_bits(design.weight_bits, design.input_bits)
    legal = slots >= widest[:, None] - 1e-3
    # Where no share sits on a legal mode, the narrowest legal one is meant.
    scores = jnp.where(legal, design.mode + 1e-3 / slots, -1.0)
    return dataclasses.replace(design, mode=hard_choice(scores))


def snap_buffer(space: DesignSpace, design: Design) -> Design:
    """Buffer size rounded up to what can be built, or the machine's own where it is not free."""
    b = space.machine.buffer
    if not b.free:
        return dataclasses.replace(design, buffer_bits=jnp.asarray(b.size_bits, design.buffer_bits.dtype))
    steps = jnp.ceil(design.buffer_bits / b.step_bits - _GRID_SLACK)
    lowest, highest = jnp.ceil(b.min_bits / b.step_bits), jnp.floor(b.max_bits / b.step_bits)
    return dataclasses.replace(design, buffer_bits=jnp.clip(steps, lowest, highest) * b.step_bits)


def snap_tiling(space: DesignSpace, design: Design) -> Design:
    """The most wanted tiling whose working set fits the buffer, one-hot.

    Raises IllegalDesign, naming the layer, when no tiling fits.
    """
    demand = space.working_set_bits(design.mode)
    fits = (demand <= design.buffer_bits) & (jnp.asarray(space.tilings.valid) > 0)
    if not isinstance(demand, jax.core.Tracer):
        _require_fit(space, np.asarray(fits), np.asarray(demand), float(design.buffer_bits))
    return dataclasses.replace(design, tiling=hard_choice(jnp.where(fits, design.tiling, -1.0)))


def snap_supply(space: DesignSpace, design: Design) -> Design:
    """Supplies rounded up to the grid and the fastest legal clock there: the highest grid clock the law allows."""
    s = space.machine.supply
    steps = jnp.ceil((design.supply_v - s.floor_v) / s.step_v - _GRID_SLACK)
    top = jnp.floor((s.ceiling_v - s.floor_v) / s.step_v + _GRID_SLACK)
    supply_v = s.floor_v + jnp.clip(steps, 0.0, top) * s.step_v
    return dataclasses.replace(design, supply_v=supply_v, freq_ghz=grid_clock_ghz(space, design, supply_v))


def grid_clock_ghz(space: DesignSpace, design: Design, supply_v: Float[ArrayLike, "layer"]) -> Float[Array, "layer"]:
    """Fastest clock on the machine's grid at these supplies and the design's widths, per layer [GHz]."""
    s = space.machine.supply
    widest = space.widest_bits(design.weight_bits, design.input_bits)
    clock = max_clock_ghz(s, supply_v, critical_path(s, space.machine.datapath.width_bits, widest))
    return jnp.maximum(jnp.floor(clock / s.step_ghz + _GRID_SLACK), 1.0) * s.step_ghz


SNAPS: tuple[Callable[[DesignSpace, Design], Design], ...] = (
    snap_widths, snap_mode, snap_buffer, snap_tiling, snap_supply
)  # fmt: skip


def snap(space: DesignSpace, design: Design) -> Design:
    """The legal design nearest to a relaxed one; a legal design comes back as it is (idempotent)."""
    for one in SNAPS:
        design = one(space, design)
    return design


class Fault(NamedTuple):
    """One thing that keeps a design from being built.

    Attributes:
      layer: its name, empty for what concerns all of the chip. field: of the design, as its file calls it.
      found: what was found and what is legal. remedy: what to write instead.
    """

    layer: str
    field: str
    found: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.layer}: {self.found}" if self.layer else self.found


def violations(space: DesignSpace, design: Design) -> list[str]:
    """What keeps a design from being built, one line each with layer, demand and bound; empty when legal."""
    return [str(fault) for fault in faults(space, design)]


def faults(space: DesignSpace, design: Design) -> list[Fault]:
    """What keeps a design from being built, with its field and the remedy; empty when legal."""
    d = jax.tree.map(np.asarray, design)
    found = [*_operand_faults(space, d), *_scale_faults(space, design), *_margin_faults(space, d)]
    demand = np.asarray(space.working_set_bits(d.mode))
    widest = np.asarray(space.widest_bits(d.weight_bits, d.input_bits))
    for i, name in enumerate(space.workload.names):
        if not _one_hot(d.mode[i]):
            found.append(Fault(name, "mode", f"modes {d.mode[i]} are not one choice", "choose one"))
        elif space.slot_bits[int(np.argmax(d.mode[i]))] < widest[i]:
            mode = space.machine.modes[int(np.argmax(d.mode[i]))].name
            wide = [one.name for one in space.machine.modes if one.slot_bits >= widest[i]]
            remedy = f"use {' or '.join(wide)}, or narrower operands" if wide else "narrow the operands"
            found.append(Fault(name, "mode", f"mode {mode} cannot hold {widest[i]:g} b", remedy))
        row = int(np.argmax(d.tiling[i]))
        if not _one_hot(d.tiling[i]) or space.tilings.valid[i, row] == 0:
            found.append(Fault(name, "tile", "the tiling is not one row of the table", "choose one"))
        elif demand[i, row] > d.buffer_bits:
            text = f"tiling needs {demand[i, row]:.0f} bit, the buffer has {float(d.buffer_bits):.0f}"
            found.append(Fault(name, "tile", text, "use a smaller tile, a narrower mode or a larger buffer"))
    return found + _buffer_faults(space, float(d.buffer_bits)) + _supply_faults(space, d)


def _operand_faults(space: DesignSpace, d: Design) -> list[Fault]:
    """Widths that the machine lacks, steps and ranges that are no numbers or do not fit them, thresholds."""
    found, (top_w, top_i), names = [], space.most_bits, space.workload.names
    for operand, low, top, bits, step, range_, signed in (
        ("weight", space.lowest_bits(0), top_w, d.weight_bits, d.weight_step, d.weight_range, np.ones(len(names))),
        ("input", space.lowest_bits(1), top_i, d.input_bits, d.input_step, d.input_range, space.signed),
    ):
        needed = np.asarray(bits_of(step, range_, signed))
        for i, name in enumerate(names):
            if operand == "weight" and space.labelled[i]:
                found += _label_faults(space, name, *map(float, (low[i], bits[i], step[i], range_[i])))
            elif bits[i] != np.round(bits[i]) or not low[i] <= bits[i] <= top:
                legal = f"a whole number in {low[i]:g}..{top:g}" if top > low[i] else f"{top:g}"
                text = f"{operand} width {bits[i]:g} b is not {legal}, as {space.machine.name} asks"
                near = np.clip(np.round(np.nan_to_num(bits[i], nan=top)), low[i], top)
                other = " or take a machine with a wider datapath" if bits[i] > top else ""
                found.append(Fault(name, f"{operand}_bits", text, f"write {near:g}{other}"))
            elif not (0 < step[i] < np.inf and 0 < range_[i] < np.inf):
                text = f"{operand} step {step[i]:g} and range {range_[i]:g} must be above 0 and finite"
                field = f"{operand}_range" if 0 < step[i] < np.inf else f"{operand}_step"
                found.append(Fault(name, field, text, "write the step and the largest magnitude of the quantizer"))
            elif bits[i] >= MIN_BITS and needed[i] > bits[i] + 2e-3:
                text = f"{operand} range {range_[i]:g} at step {step[i]:g} needs more than {bits[i]:g} b"
                held = float(range_of(jnp.asarray(step[i]), jnp.asarray(bits[i]), signed[i]))
                remedy = f"widen the operand, or write {held:.6g}, which it holds"
                found.append(Fault(name, f"{operand}_range", text, remedy))
    for i, (name, cut) in enumerate(zip(names, d.threshold, strict=True)):
        if not cut >= 0:
            found.append(Fault(name, "threshold", f"threshold {cut:g} is below 0 or no number", "write 0 or more"))
        elif cut > 0 and (top_w < MIN_BITS or not method_of(space.methods, i).has_zero):
            text = f"threshold {cut:g} prunes weights of {d.weight_bits[i]:g} b, which have no zero"
            found.append(Fault(name, "threshold", text, "write 0"))
    return found


def _label_faults(space: DesignSpace, name: str, label: float, bits: float, step: float, range_: float) -> list[Fault]:
    """A width that is not that of the labels, a step and range that are not those of the table's entries."""
    if bits != label:
        return [Fault(name, "weight_bits", f"weight width {bits:g} b, its labels have {label:g}", f"write {label:g}")]
    needed = float(bits_of(jnp.asarray(step), jnp.asarray(range_), 1.0)) if step > 0 and range_ > 0 else np.inf
    if needed <= space.entry_bits + 2e-3:
        return []
    text = f"weight range {range_:g} at step {step:g} is no table of {space.entry_bits} b values"
    remedy = f"write the largest magnitude of the table as weight_range, over {2 ** (space.entry_bits - 1) - 1} as step"
    return [Fault(name, "weight_step", text, remedy)]


def _table_fault(space: DesignSpace, design: Design, layer: int) -> Fault | None:
    """A table of another size, without a 0, or whose values are no whole multiples of the step within the range."""
    name, table = space.workload.names[layer], np.asarray(() if design.codebook is None else design.codebook[layer])
    entries = method_of(space.methods, layer).entries
    if table.size != entries or not np.isfinite(table).all():
        text = f"codebook of {table.size} values, its method asks for {entries} that are finite"
        return Fault(name, "codebook", text, f"write {entries} numbers")
    if not entries:
        return None
    if not (table == 0).any():
        return Fault(name, "codebook", "codebook without a 0, which pruned weights take", "write 0 in one place")
    step, range_ = float(design.weight_step[layer]), float(design.weight_range[layer])
    if not 0 < step < np.inf:
        return None  # said of the step
    units = table.astype(np.float64) / step
    slack = np.maximum(_UNIT_SLACK, 1e-6 * np.abs(units))
    odd = np.flatnonzero((np.abs(units - np.round(units)) > slack) | (np.abs(table) > range_ * (1 + 1e-5)))
    if odd.size:
        text = f"codebook value {table[odd[0]]:g} is no whole multiple of the step {step:g} within {range_:g}"
        top = np.round(range_ / step)
        near = step * np.clip(np.round(units[odd[0]]), -top, top)
        return Fault(name, "codebook", text, f"write {near:.9g}, or another step")
    return None


def _scale_faults(space: DesignSpace, design: Design) -> list[Fault]:
    """Methods that are not the space's, and factors of output channels that are missing or no positive numbers."""
    if design.methods != space.methods:
        text = f"methods {design.methods} are not those of the design space, {space.methods}"
        return [Fault("", "methods", text, "make the space with the design's methods")]
    found = []
    for i, name in enumerate(space.workload.names):
        scale = np.asarray(() if design.weight_scale is None else design.weight_scale[i])
        wanted = f"write {space.channels(i)} numbers above 0"
        if scale.size != space.channels(i):
            text = f"{scale.size} factors of output channels, its method asks for {space.channels(i)}"
            found.append(Fault(name, "weight_scale", text, wanted))
        elif not ((0 < scale) & (scale < np.inf)).all():
            text = "a factor of its output channels is not above 0 and finite"
            found.append(Fault(name, "weight_scale", text, wanted))
        odd = _table_fault(space, design, i)
        found += [] if odd is None else [odd]
    return found


def _margin_faults(space: DesignSpace, d: Design) -> list[Fault]:
    """Margins of early exits that are missing, too many or no numbers."""
    exits, margins = space.workload.exits, np.ravel(() if d.exit_margin is None else d.exit_margin)
    if margins.size != len(exits):
        text = f"{margins.size} exit margins for {len(exits)} exits of {space.workload.name}"
        remedy = f"write one for each of {', '.join(exits)}" if exits else "leave it out"
        return [Fault("", "exit_margin", text, remedy)]
    text = "exit margin {:g} is not finite; give the log-odds at which an input leaves"
    return [
        Fault(name, "exit_margin", text.format(margin), "write a finite number")
        for name, margin in zip(exits, margins, strict=True)
        if not np.isfinite(margin)
    ]


def _buffer_faults(space: DesignSpace, size_bits: float) -> list[Fault]:
    b, name = space.machine.buffer, space.machine.name
    if not b.free:
        own = float(b.size_bits)
        text = f"buffer of {size_bits:.0f} bit: {name} has {own:.0f}"
        return [] if size_bits == own else [Fault("", "buffer_bits", text, f"write {own:.0f}")]
    low, high, step = (float(x) for x in (b.min_bits, b.max_bits, b.step_bits))
    steps = size_bits / step
    if low <= size_bits <= high and abs(steps - round(steps)) <= 1e-2:
        return []
    near = step * np.clip(np.round(steps), np.ceil(low / step), np.floor(high / step))
    text = f"buffer of {size_bits:.0f} bit: not a multiple of {step:.0f} in {low:.0f}..{high:.0f}, as {name} asks"
    return [Fault("", "buffer_bits", text, f"write {near:.0f}")]


def _supply_faults(space: DesignSpace, design: Design) -> list[Fault]:
    """Supplies off the grid of the machine, clocks off theirs or above what the supply allows."""
    found, s = [], space.machine.supply
    floor_v, ceiling_v, step_v, step_ghz = (float(x) for x in (s.floor_v, s.ceiling_v, s.step_v, s.step_ghz))
    top = np.floor((ceiling_v - floor_v) / step_v + _GRID_SLACK)
    steps = (np.asarray(design.supply_v) - floor_v) / step_v
    limit = np.asarray(grid_clock_ghz(space, design, design.supply_v))
    for i, name in enumerate(space.workload.names):
        v, f = float(design.supply_v[i]), float(design.freq_ghz[i])
        if abs(steps[i] - np.round(steps[i])) > 1e-2 or not floor_v - 1e-5 <= v <= ceiling_v + 1e-5:
            near = floor_v + step_v * np.clip(np.round(np.nan_to_num(steps[i], nan=top)), 0.0, top)
            text = f"supply {v:.4f} V is not on the grid {floor_v:g}..{ceiling_v:g} V in steps of {step_v:g} V"
            found.append(Fault(name, "supply_v", text, f"write {near:.6g}"))
        ticks = f / step_ghz
        if f > limit[i] * (1 + 1e-5):
            text = f"clock {f:.4f} GHz exceeds {limit[i]:.4f} GHz at {v:.3f} V"
            found.append(Fault(name, "freq_ghz", text, f"write {limit[i]:.6g} or less, or raise the supply"))
        elif not ticks > 0.5 or abs(ticks - np.round(ticks)) > 1e-2:
            near = step_ghz * max(float(np.round(np.nan_to_num(ticks, nan=1.0))), 1.0)
            text = f"clock {f:.4f} GHz is no multiple of {step_ghz:g} GHz above 0"
            found.append(Fault(name, "freq_ghz", text, f"write {min(near, limit[i]):.6g}"))
    return found


def _one_hot(shares: np.ndarray) -> bool:
    return bool(np.sum(shares == 1) == 1 and np.sum(shares == 0) == shares.size - 1)


def _require_fit(space: DesignSpace, fits: np.ndarray, demand: np.ndarray, buffer_bits: float) -> None:
    for i, name in enumerate(space.workload.names):
        if not fits[i].any():
            least = np.min(np.where(space.tilings.valid[i] > 0, demand[i], np.inf))
            raise IllegalDesign(
                f"{name}: its smallest tiling needs {least:.0f} bit of buffer and {buffer_bits:.0f} are there; "
                "use a narrower mode or a larger buffer"
            )
