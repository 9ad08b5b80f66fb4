"""Eyeriss's 18 layers from our own row-stationary mappings, one rule for all; refetches of the link beside the chip's.

    python experiments/eyeriss/row_stationary.py
Writes row_stationary.csv and row_stationary.json beside this file.
"""

import csv
import json
import pathlib
import time

import jax
import numpy as np

from cooptim.hardware.gated_array import processing_ns
from cooptim.mapping.row_stationary import OBJECTIVES
from cooptim.validate.eyeriss import columns, eyeriss_file, published_layers, rms
from cooptim.validate.eyeriss_mapping import COLUMNS, LATENCY_GOAL, busy_share, mapped_layers, mapping_errors

HERE = pathlib.Path(__file__).parent
UNITS = {"active": ("pes", 1.0), "buffer": ("mb", 8e6), "link": ("mb", 8e6), "processing": ("ms", 1e6),
         "total": ("ms", 1e6), "energy": ("mj", 1e9)}  # fmt: skip
# JSSC 2017, sec. III-A and the caption of Table V: 64 bit at 60 MHz; filters come while the array works.
LINK_PEAK_BIT_PER_NS = 64 * 0.06


def line(layer, errors, i: int, clock_ghz: float) -> dict[str, object]:
    """One layer of the table."""
    one, counts, floor = layer.published, layer.counts, layer.link_floor_bits
    cells: dict[str, object] = {"network": one.network, "layer": one.layer, "mapping": str(layer.mapping)}
    for name in COLUMNS:
        unit, scale = UNITS[name]
        model, measured = layer.pairs[name]
        cells |= {
            f"{name}_{unit}": round(model / scale, 3), f"{name}_measured_{unit}": round(measured / scale, 3),
            f"{name}_error_percent": round(100 * float(errors[name][i]), 1),
        }  # fmt: skip
    channels = layer.mapping.q * layer.mapping.r
    # Measured traffic is partial sums, in and out once a pass, and inputs, one word a cycle at most: so many channels.
    psums = counts.buffer_psums * layer.word_bits
    input_bits = one.processing_ns * clock_ghz * layer.word_bits
    return cells | {
        "passes": int(counts.passes), "cycles": int(counts.cycles), "link_floor_mb": round(floor / 8e6, 3),
        "floor_over_measured": round(floor / one.link_bits, 3),
        "refetch_measured": round(one.link_bits / floor, 2), "refetch_search": round(layer.link_bits / floor, 2),
        "channels_a_pass": channels, "channels_a_pass_low": round(channels * psums / one.buffer_bits, 2),
        "channels_a_pass_high": round(channels * psums / (one.buffer_bits - input_bits), 2),
    }  # fmt: skip


def by_network(layers, errors) -> dict[str, dict[str, float]]:
    """RMS of each column, of both networks together and apart."""
    at = {
        "all": np.ones(len(layers), bool),
        **{name: np.array([one.published.network == name for one in layers]) for name in ("alexnet", "vgg16")},
    }
    return {name: {column: rms(error[mask]) for column, error in errors.items()} for name, mask in at.items()}


def given_measured(file, layers) -> dict[str, float]:
    """RMS of the processing latency when one part of it is the chip's, the other ours."""
    data, array = columns(published_layers()), file.model
    ours = {
        "busy": data["macs"] / np.array([float(one.counts.cycles) for one in layers]),
        "buffer": np.array([one.pairs["buffer"][0] for one in layers]),
    }
    found = {}
    for name, busy, buffer in (
        ("measured_buffer_own_elements", ours["busy"], data["buffer_bits"]),
        ("own_buffer_measured_elements", data["active_units"], ours["buffer"]),
    ):
        model = np.asarray(processing_ns(array, data["macs"], busy, buffer))
        found[name] = rms(model / data["processing_ns"] - 1.0)
    return found


def exposed_total(layers) -> float:
    """RMS of the total latency on top of the measured processing latency, maps at the link's peak, filters hidden."""
    errors = []
    for one in layers:
        maps = one.link_bits - float(one.counts.link_filters * one.word_bits)
        errors.append((one.published.processing_ns + maps / LINK_PEAK_BIT_PER_NS) / one.published.total_ns - 1.0)
    return rms(np.array(errors))


def show(rows: list[dict[str, object]]) -> None:
    """Two tables that fit 80 columns."""
    print("layer    mapping                        PEs        buffer MB        link MB   off %")
    for r in rows:
        print(
            f"{r['layer']:8s} {r['mapping']:28s} {r['active_pes']:3.0f}/{r['active_measured_pes']:3.0f}"
            f" {r['buffer_mb']:7.1f}/{r['buffer_measured_mb']:6.1f} {r['link_mb']:5.1f}/{r['link_measured_mb']:4.1f}"
            f" {r['link_error_percent']:+5.1f}"
        )
    print("\nlayer     processing ms   off %        total ms  off %    energy mJ  off %  refetch")
    for r in rows:
        print(
            f"{r['layer']:8s} {r['processing_ms']:6.1f}/{r['processing_measured_ms']:5.1f}"
            f" {r['processing_error_percent']:+6.1f} {r['total_ms']:7.1f}/{r['total_measured_ms']:5.1f}"
            f" {r['total_error_percent']:+6.1f} {r['energy_mj']:6.1f}/{r['energy_measured_mj']:5.1f}"
            f" {r['energy_error_percent']:+6.1f} {r['refetch_search']:4.1f}/{r['refetch_measured']:.1f}"
        )


def main() -> None:
    """Prints the tables, writes the files; stops if a floor exceeds what was measured."""
    start = time.process_time()
    jax.config.update("jax_enable_x64", True)
    file = eyeriss_file()
    layers = mapped_layers(file)
    errors = mapping_errors(layers)
    rows = [line(one, errors, i, float(file.model.clock_ghz)) for i, one in enumerate(layers)]
    show(rows)
    alexnet = tuple(one for one in layers if one.published.network == "alexnet")
    compulsory = np.array([one.link_floor_bits / one.published.link_bits - 1.0 for one in layers])
    result = {
        "rule": "energy", "goal_rms_processing": LATENCY_GOAL, "rms": by_network(layers, errors),
        "rms_link_compulsory_alone": rms(compulsory), "busy_share_alexnet": busy_share(alexnet, file),
        "rms_processing": given_measured(file, layers), "rms_total_link_at_its_peak": exposed_total(layers),
        "other_rules": {rule: by_network(layers, mapping_errors(mapped_layers(file, rule))) for rule in OBJECTIVES[1:]},
    }  # fmt: skip
    with (HERE / "row_stationary.csv").open("w", newline="") as out:
        writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    (HERE / "row_stationary.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    if max(row["floor_over_measured"] for row in rows) > 1.0:
        raise RuntimeError("a layer moved less than the least that its words and zeros allow: a count is wrong")
    print(f"{time.process_time() - start:.1f} CPU-s")


if __name__ == "__main__":
    main()
