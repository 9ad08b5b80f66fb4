"""Predictions of published claims, one function a claim; what none can predict yet is listed, not left out."""

import functools
import math
from collections.abc import Callable

import jax.numpy as jnp

from cooptim.hardware.dvafs import critical_path, supply_for_clock
from cooptim.hardware.load import MachineFile, load_machine_file
from cooptim.hardware.reference import operating_power_mw
from cooptim.mapping.frontier import tilings
from cooptim.mapping.row_stationary import AccessCosts
from cooptim.validate.claims import Claim, Prediction, claim_of, published_claims
from cooptim.validate.eyeriss import eyeriss_file, eyeriss_rows, published_layers, published_totals
from cooptim.validate.eyeriss_mapping import MappedLayer, busy_share, mapped_layers
from cooptim.validate.multiplier import four_bit_supply_v, four_by_four_saving, load_multiplier
from cooptim.validate.predictions_dataflow import dataflow_range
from cooptim.validate.predictions_sparse import EIE_LAYERS, cnvlutin_range, eie_time
from cooptim.validate.row import Row
from cooptim.workload import zoo

# 45 nm at 0.9 V: 16-bit multiply and add, as used by qkeras (google/qkeras, config_public.py), fitted to Horowitz,
# ISSCC 2014; 32 bit from SRAM and DRAM, as used by Han et al.
_MULTIPLY_PJ = 0.002994791667 * 16**2 + 0.001041666667 * 16
_ADD_PJ = 0.003125 * 16
_TABLE_NM, _TABLE_V = 45.0, 0.9
_EYERISS_NM = 65.0
_SRAM_32B_PJ, _DRAM_32B_PJ = 5.0, 640.0
_CODED_BITS = 5.0  # of a connection after Deep Compression: "32 to 5 bits"
_FLOAT_BITS = 32
_BIT_PER_MB = 8e6  # decimal: 61 million words of 32 bit are the published 240 MB
_ENVISION_GOPS = 76.0


def predicted_rows() -> list[Row]:
    """Every predicted claim that the model of today can predict, beside the prediction."""
    rows = []
    for (system, name), predict in _PREDICTIONS.items():
        found = predict()
        rows.append(claim_of(system, name).row(found.low, found.model, found.high, found.relation))
    return rows


def not_yet_modelled() -> list[Claim]:
    """Claims classed predicted that no function predicts yet."""
    known = _PREDICTIONS
    return [one for one in published_claims() if one.kind == "predicted" and (one.system, one.claim) not in known]


def fuller_buffers_can_move_more() -> Prediction:
    """1 when the fullest tiling of some layer of AlexNet on Envision moves more words than another that fits; or 0."""
    machine = load_machine_file("envision").machine
    table = tilings(zoo.network("alexnet"), machine)
    assert table.tile_psum is not None
    words = machine.datapath.accumulator_bits / machine.buffer.word_bits
    room = table.tile_w + table.tile_i + table.tile_o + words * table.tile_psum
    moved = table.dram_w + table.dram_i + table.dram_o + 2.0 * table.dram_psum
    fits = (table.valid > 0) & (room * machine.buffer.word_bits <= float(machine.buffer.size_bits))
    for held, bits, usable in zip(room, moved, fits, strict=True):
        if usable.any() and bits[usable][held[usable].argmax()] > bits[usable].min():
            return Prediction.of(1.0)
    return Prediction.of(0.0)


def eyeriss_supply(volts: float) -> Prediction:
    """AlexNet at another supply, from what was measured at 1 V: GMAC/s/W at 0.82 V, frames/s at 1.17 V."""
    row = next(row for row in eyeriss_rows() if f"at {volts:g} V" in row.name)
    return Prediction(row.model, row.low, row.high)


def eyeriss_gating_saving() -> Prediction:
    """What gating saves of the energy that follows the MACs, at AlexNet's zeros [%]."""
    array, zeros = eyeriss_file().model, published_totals()["alexnet"].zero_fraction
    return Prediction.of(100.0 * zeros * (1.0 - float(array.zero_mac_pj / array.busy_mac_pj)))


def eyeriss_alu_share() -> Prediction:
    """Multiply and add of AlexNet's non-zero MACs over the chip's energy [%]."""
    layers = [layer for layer in published_layers() if layer.network == "alexnet"]
    alu = sum(layer.macs * (1.0 - layer.zero_fraction) for layer in layers) * _eyeriss_mac_pj()
    return Prediction.of(100.0 * alu / sum(layer.power_mw * layer.total_ns for layer in layers))


def eyeriss_busy_share() -> Prediction:
    """Active elements of the array on AlexNet under our own row-stationary mappings, over the time they take [%]."""
    return Prediction.of(100.0 * busy_share(_eyeriss_alexnet()))


def eyeriss_memory_share() -> Prediction:
    """Pads, network and buffer over the chip's measured energy, in the layer of AlexNet where it is most [%].

    A zero input leaves one of its MAC's four pad accesses: its own read.
    """
    costs, shares = AccessCosts(), []
    for layer in _eyeriss_alexnet():
        one, counts = layer.published, layer.counts
        pads = float(counts.pad_words) * (1.0 - one.zero_fraction) + one.macs * one.zero_fraction
        buffer = float(counts.buffer_words + counts.buffer_filters)
        moved = costs.pad * pads + costs.array * float(counts.array_words) + costs.buffer * buffer
        shares.append(moved / costs.mac * _eyeriss_mac_pj() / (one.power_mw * one.total_ns))
    return Prediction.of(100.0 * max(shares))


@functools.cache
def _eyeriss_alexnet() -> tuple[MappedLayer, ...]:
    return tuple(layer for layer in mapped_layers() if layer.published.network == "alexnet")


def _eyeriss_mac_pj() -> float:
    """Energy of a 16-bit multiply and add: capacitance with the node, energy with V squared [pJ]."""
    scale = _EYERISS_NM / _TABLE_NM * (float(eyeriss_file().model.supply_v) / _TABLE_V) ** 2
    return (_MULTIPLY_PJ + _ADD_PJ) * scale


def yodann_power() -> Prediction:
    """Power at 0.6 V from 1.2 V: f V^2, f from the published throughputs [mW]."""
    slow = claim_of("YodaNN", "efficiency at 0.6 V").number * claim_of("YodaNN", "power at 0.6 V").number
    fast = claim_of("YodaNN", "peak throughput at 1.2 V").number
    return Prediction.of(claim_of("YodaNN", "power at 1.2 V").number * slow / fast * (0.6 / 1.2) ** 2)


def yodann_efficiency() -> Prediction:
    """Efficiency at 0.6 V from 1.2 V: 1 / V^2 [TOPS/W]."""
    fast = claim_of("YodaNN", "peak throughput at 1.2 V").number / claim_of("YodaNN", "power at 1.2 V").number
    return Prediction.of(fast * (1.2 / 0.6) ** 2)


def envision_efficiency(narrow: float, wide: float) -> Prediction:
    """Efficiency at 76 GOPS when all layers have the widest or the narrowest operands, dense [TOPS/W]."""
    file = load_machine_file("envision")
    low, high = (_ENVISION_GOPS / _constant_throughput_mw(file, bits) for bits in (wide, narrow))
    return Prediction(math.sqrt(low * high), low, high, "inside")


def saving_of_supply(lanes: int) -> Prediction:
    """What the multiplier's lower supply alone saves, 4 bit in so many lanes [%]."""
    part = load_multiplier("dvafs_multiplier_40nm")
    return Prediction.of(100.0 * (1.0 - (four_bit_supply_v(part, lanes) / float(part.supply_v)) ** 2))


def compressed_mb(network: str) -> float:
    """Storage of a network after Deep Compression: pruned weights of 5 bit and the entropy of the gaps [MB]."""
    before, after = _millions(f"{network} parameters")
    density = after / before
    entropy = -(density * math.log2(density) + (1.0 - density) * math.log2(1.0 - density)) / density
    return after * 1e6 * (_CODED_BITS + entropy) / _BIT_PER_MB


def compression(network: str) -> Prediction:
    """Raw over predicted storage of a network."""
    before, _ = _millions(f"{network} parameters")
    return Prediction.of(before * 1e6 * _FLOAT_BITS / _BIT_PER_MB / compressed_mb(network))


def _millions(claim: str) -> tuple[float, float]:
    before, after = claim_of("Han pruning", claim).value.split(" to ")
    return float(before), float(after)


def _constant_throughput_mw(file: MachineFile, bits: float) -> float:
    """Power at the reference throughput, operands of so many bits in the mode of most lanes that holds them [mW]."""
    machine = file.machine
    mode = max((mode for mode in machine.modes if mode.slot_bits >= bits), key=lambda mode: mode.lanes)
    freq = machine.supply.nominal_ghz / mode.lanes
    path = critical_path(machine.supply, machine.datapath.width_bits, jnp.asarray(bits, jnp.result_type(float)))
    volts = supply_for_clock(machine.supply, freq, path)
    return float(operating_power_mw(machine, file.reference, mode, bits, freq, volts))


def _storage(network: str) -> Prediction:
    return Prediction.of(compressed_mb(network))


def _pruned() -> Prediction:
    before, after = _millions("AlexNet parameters")
    return Prediction.of(before / after)


_PREDICTIONS: dict[tuple[str, str], Callable[[], Prediction]] = {
    ("Optimal tiling (Cecconi)", "highest on-chip memory use is not generally lowest bandwidth"): (
        fuller_buffers_can_move_more
    ),
    ("Eyeriss chip", "AlexNet efficiency at 0.82 V"): lambda: eyeriss_supply(0.82),
    ("Eyeriss chip", "AlexNet frame rate at 1.17 V"): lambda: eyeriss_supply(1.17),
    ("Eyeriss chip", "zero data gating saves PE power"): eyeriss_gating_saving,
    ("Eyeriss chip", "ALU share of power, below"): eyeriss_alu_share,
    ("Eyeriss chip", "PE utilisation AlexNet"): eyeriss_busy_share,
    ("Eyeriss chip", "spad+GLB+NoC share of power, up to"): eyeriss_memory_share,
    ("YodaNN", "power at 0.6 V"): yodann_power,
    ("YodaNN", "efficiency at 0.6 V"): yodann_efficiency,
    ("Envision", "AlexNet"): lambda: envision_efficiency(5.0, 9.0),
    ("Envision", "VGG-16 average"): lambda: envision_efficiency(2.0, 8.0),
    ("Envision", "LeNet-5"): lambda: envision_efficiency(1.0, 6.0),
    ("DVAFS", "energy saving by 1.1 -> 0.9 V"): lambda: saving_of_supply(1),
    ("DVAFS", "energy saving printed for 0.75 V"): lambda: saving_of_supply(4),
    ("DVAFS", "saving 4x4b vs fixed 16b, more than"): lambda: Prediction.of(
        four_by_four_saving(load_multiplier("dvafs_multiplier_40nm"))
    ),
    ("Deep Compression", "AlexNet storage"): lambda: _storage("AlexNet"),
    ("Deep Compression", "AlexNet reduction"): lambda: compression("AlexNet"),
    ("Deep Compression", "VGG-16 storage"): lambda: _storage("VGG-16"),
    ("Deep Compression", "VGG-16 reduction"): lambda: compression("VGG-16"),
    ("EIE", "saving DRAM to SRAM"): lambda: Prediction.of(_DRAM_32B_PJ / _SRAM_32B_PJ),
    ("EIE", "saving sparsity"): _pruned,
    ("Eyeriss dataflow", "row stationary vs other dataflows, conv layers"): dataflow_range,
    ("Cnvlutin", "speed-up range"): cnvlutin_range,
    **{("EIE", f"{layer} theoretical / actual time"): functools.partial(eie_time, layer) for layer in EIE_LAYERS},
}
