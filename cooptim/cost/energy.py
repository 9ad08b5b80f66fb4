"""Energy of one layer, component by component; vmapped over layers by `evaluate`."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from cooptim.cost.words import Words
from cooptim.hardware.dvafs import activity_divisors, dynamic_scale, leakage_mw
from cooptim.hardware.machine import Machine
from cooptim.hardware.mechanisms import Effect
from cooptim.hardware.mechanisms.link import code_bits


class Operands(NamedTuple):
    """What a layer computes and how its data look; scalars, except `mode` [mode].

    Attributes:
      weight_bits, input_bits: in the array.
      fetched_w, fetched_i: shares of the operand's DRAM words that are fetched (the rest is on chip).
      leaving_o: share of the output words that go to DRAM.
      link_w, link_i, link_o: bits of one word on the DRAM link.
    """

    macs: Any
    mode: Any
    supply_v: Any
    weight_bits: Any
    input_bits: Any
    weight_density: Any
    input_density: Any
    fetched_w: Any
    fetched_i: Any
    leaving_o: Any
    link_w: Any
    link_i: Any
    link_o: Any


def link_bits(
    machine: Machine,
    operand: str,
    bits: Float[ArrayLike, "*#n"],
    density: Float[ArrayLike, "*#n"],
    columns: Float[ArrayLike, "*#n"] | None = None,
) -> Float[Array, "..."]:
    """Mean bits of one word of operand `W` or `I` on the DRAM link, by the `link` mechanism or by `dram.coded`.

    Args:
      columns: output channels of the layer, over which pointers to compressed columns spread; None leaves them out.

    Under `dram.coded` 1 for a zero and 1 + b for the rest, or b raw where that is less. Kink: where both are equal.
    Source: the two-symbol Huffman code of zero against non-zero, exact for its encoder.
    """
    if machine.mechanisms.link is not None:
        return code_bits(machine.mechanisms.link, machine.datapath, operand, bits, density, columns)
    return jnp.minimum(bits, 1.0 + density * bits) if machine.dram.coded else jnp.asarray(bits)


def busy_cycles(machine: Machine, macs: Float[ArrayLike, "*#n"]) -> Float[Array, "*n mode"]:
    """Array cycles that the MACs would take with every lane busy, per mode."""
    d = machine.datapath
    lanes = jnp.asarray([float(d.rows * d.cols * m.lanes) for m in machine.modes], jnp.result_type(macs))
    return jnp.asarray(macs)[..., None] / lanes


def guarded_activity(
    machine: Machine, weight_density: Float[ArrayLike, "*#n"], input_density: Float[ArrayLike, "*#n"]
) -> Float[Array, "..."]:
    """Energy of a MAC over that of one with two non-zero operands; zeros of the operands fall independently."""
    guarded = machine.datapath.guarded_share
    return guarded + (1.0 - guarded) * weight_density * input_density


def datapath_pj(machine: Machine, words: Words, layer: Operands, effect: Effect | None = None) -> Float[Array, ""]:
    """Energy of the MAC lanes: busy ones by width and zeros, empty ones at idle_share of a busy one [pJ]."""
    d = machine.datapath
    divisor = activity_divisors(d, layer.weight_bits, layer.input_bits)
    busy = busy_cycles(machine, layer.macs)
    if effect is None:
        activity = busy * guarded_activity(machine, layer.weight_density, layer.input_density)
        activity = activity + (words.cycles - busy) * d.idle_share
        return dynamic_scale(machine.supply, layer.supply_v) * d.busy_pj * jnp.sum(layer.mode * activity / divisor)
    busy = busy * effect.executed
    activity = busy * guarded_activity(
        machine, effect.seen(layer.weight_density, "W"), effect.seen(layer.input_density, "I")
    )
    activity = activity * effect.datapath + (words.cycles - busy) * d.idle_share
    looked_up = words.sram_w * effect.entries(layer.weight_density) * effect.entry_datapath_pj
    extra = effect.extra_datapath_pj + looked_up
    dense_pj = jnp.sum(layer.mode * (d.busy_pj * activity / divisor + extra))
    return dynamic_scale(machine.supply, layer.supply_v) * dense_pj


def access_pj(
    machine: Machine, buffer_bits: Float[ArrayLike, ""], supply_v: Float[ArrayLike, "*#n"]
) -> Float[Array, "..."]:
    """Energy of one buffer word read or written [pJ]: square root of size, dynamic energy of the supply.

    Source: a square array's bit lines grow as the square root of its cells.
    """
    b = machine.buffer
    return b.access_pj * jnp.sqrt(buffer_bits / b.nominal_bits) * dynamic_scale(machine.supply, supply_v)


def sram_pj(
    machine: Machine, words: Words, layer: Operands, word_pj: Float[Array, ""], effect: Effect | None = None
) -> tuple[Float[Array, ""], Float[Array, ""], Float[Array, ""]]:
    """Energy of buffer accesses for W, I and O [pJ].

    Guard flags stop the fetch of a zero word into the array; outputs and partial sums are not guarded. Words that come
    from or go to DRAM cost one more access a buffer word, packed at the slot width; a partial sum that waits in DRAM is
    read out of the buffer and written back to it at accumulator width. Sums of a systolic array count to O.
    """
    slots = jnp.asarray([m.slot_bits for m in machine.modes], layer.mode.dtype)
    packing = jnp.dot(layer.mode, slots) / float(machine.buffer.word_bits)
    read_w, read_i, both_o = (
        jnp.dot(layer.mode, x)
        for x in (_read(words, layer, "W", effect), _read(words, layer, "I", effect), words.sram_o + words.sram_psum)
    )
    spilled = 2.0 * words.dram_psum * (float(machine.datapath.accumulator_bits) / float(machine.buffer.word_bits))
    packed_w = packed_i = packing
    if effect is None:
        read_w, read_i = layer.weight_density * read_w, layer.input_density * read_i
    else:
        packed_w = packing_of(machine, layer.mode, effect.moved(layer.weight_density, "W"))
        packed_i = packing_of(machine, layer.mode, effect.moved(layer.input_density, "I"))
    out_pj = word_pj * (both_o + spilled + layer.leaving_o * words.dram_o * packing)
    if machine.datapath.systolic is not None:
        sum_pj = machine.datapath.systolic.sum_pj * dynamic_scale(machine.supply, layer.supply_v)
        out_pj = out_pj + sum_pj * jnp.dot(layer.mode, words.sums)
    return (
        word_pj * (read_w + layer.fetched_w * words.dram_w * packed_w),
        word_pj * (read_i + layer.fetched_i * words.dram_i * packed_i),
        out_pj,
    )


def _read(words: Words, layer: Operands, operand: str, effect: Effect | None) -> Float[Array, "mode"]:
    """Buffer words read into the array, in each mode; without mechanisms those of dense data."""
    read, density = (words.sram_w, layer.weight_density) if operand == "W" else (words.sram_i, layer.input_density)
    return read if effect is None else read * effect.read(density, operand)


def packing_of(machine: Machine, mode: Float[Array, "*n mode"], moved: Float[Array, "*n mode"]) -> Float[Array, "*n"]:
    """Buffer words for each word from or to DRAM, when `moved` slots hold one in each mode."""
    slots = jnp.asarray([m.slot_bits for m in machine.modes], mode.dtype)
    return jnp.sum(mode * slots * moved, axis=-1) / float(machine.buffer.word_bits)


def dram_bits(
    machine: Machine, words: Words, layer: Operands
) -> tuple[Float[Array, ""], Float[Array, ""], Float[Array, ""]]:
    """Bits on the DRAM link for W, I and O; partial sums are written and read back raw at accumulator width."""
    psum = 2.0 * float(machine.datapath.accumulator_bits) * words.dram_psum
    return (
        layer.link_w * layer.fetched_w * words.dram_w,
        layer.link_i * layer.fetched_i * words.dram_i,
        layer.link_o * layer.leaving_o * words.dram_o + psum,
    )


def layer_energy_pj(
    machine: Machine,
    words: Words,
    layer: Operands,
    latency_ns: Float[Array, ""],
    buffer_bits: Float[Array, ""],
    effect: Effect | None = None,
) -> dict[str, Float[Array, ""]]:
    """Energy of one layer by component (`cooptim.cost.report.COMPONENTS`) [pJ].

    Args:
      words: with the cycles that the mechanisms leave. effect: of the mechanisms, fields [mode]; None without any.
    """
    scale = dynamic_scale(machine.supply, layer.supply_v)
    sram = sram_pj(machine, words, layer, access_pj(machine, buffer_bits, layer.supply_v), effect)
    dram = [machine.dram.access_pj_per_bit * bits for bits in dram_bits(machine, words, layer)]
    return {
        "datapath": datapath_pj(machine, words, layer, effect),
        "sram_w": sram[0],
        "sram_i": sram[1],
        "sram_o": sram[2],
        "control": machine.datapath.control_pj * scale * jnp.dot(layer.mode, words.cycles),
        "leakage": leakage_mw(machine, layer.supply_v, buffer_bits) * latency_ns,
        "dram_w": dram[0],
        "dram_i": dram[1],
        "dram_o": dram[2],
    }
