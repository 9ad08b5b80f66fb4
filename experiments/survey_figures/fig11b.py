"""What do gating, skipping and compression save as zeros become more frequent?

Figure 11b of Verhelst & Moons (IEEE Solid-State Circuits Magazine, fall 2017), on three chips' models:
1. Envision at 4x4b and constant throughput, zeros in both operands: gating, which the chip does, and skipping, which it
   does not.
2. Eyeriss on AlexNet, zeros in the inputs: the same two; published: its 18 layers, at their own zeros and latencies.
3. Bits on the off-chip link under the codes of `hardware/codes.py`.
4. Cycles left by skipping (`hardware/mechanisms/zero_skipping.py`) in arrays as large as the two chips'.

    python experiments/survey_figures/fig11b.py
Writes fig11b.png and fig11b.csv beside this file.
"""

import dataclasses
import math
import pathlib
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from cooptim.hardware.codes import (  # noqa: E402
    bitmask_bits,
    entropy_bits,
    equal_shares,
    huffman_bits,
    huffman_run_bits,
    run_length_bits,
)
from cooptim.hardware.dvafs import critical_path, supply_for_clock  # noqa: E402
from cooptim.hardware.gated_array import energy_pj, processing_ns, total_ns  # noqa: E402
from cooptim.hardware.load import MachineFile, load_machine_file  # noqa: E402
from cooptim.hardware.machine import Machine  # noqa: E402
from cooptim.hardware.mechanisms.zero_skipping import skipped_cycles_share  # noqa: E402
from cooptim.hardware.reference import operating_power_mw  # noqa: E402
from cooptim.validate.eyeriss import columns, eyeriss_file, published_layers  # noqa: E402
from cooptim.workload import zoo  # noqa: E402
from experiments.survey_figures import drawing as draw  # noqa: E402

ZEROS = np.linspace(0.0, 1.0, 41)
NARROW_BITS = 4
GATING, OUTPUT, TAPS = "gating", "skipping, wait after an output", "skipping, wait after a row of taps"
LABELS = {"sparse data": "18 to 7.6 mW", "Envision link": "Envision, up to 5.8 times",
          "Cnvlutin most": "Cnvlutin, 1.24 to 1.55"}  # fmt: skip
STYLES = {GATING: (draw.BLUE, "-"), OUTPUT: (draw.GREEN, "-"), TAPS: (draw.GREEN, "--")}


def skipping_machine(machine: Machine, density: float, share: float) -> Machine:
    """The machine when pairs with a zero take no cycle: waiting lanes idle, control and leakage run for what is left.

    Args:
      density: of pairs without a zero. share: cycles left, at least the density.
    """
    d, s = machine.datapath, machine.supply
    waiting = (share - density) * d.idle_share / max(1.0 - density, 1e-12)  # spread over the pairs that are skipped
    datapath = dataclasses.replace(d, guarded_share=jnp.asarray(waiting), control_pj=d.control_pj * share)
    return dataclasses.replace(
        machine, datapath=datapath, supply=dataclasses.replace(s, leakage_mw=s.leakage_mw * share)
    )


def envision_rows(file: MachineFile) -> list[dict[str, Any]]:
    """Energy saved an operation at 4x4b, supply and clock as without zeros; all pixel lanes wait for each other."""
    machine = file.machine
    mode = max(machine.modes, key=lambda mode: mode.lanes)
    bits, freq = float(mode.slot_bits), machine.supply.nominal_ghz / mode.lanes
    volts = supply_for_clock(machine.supply, freq, critical_path(machine.supply, machine.datapath.width_bits, bits))
    layer = file.spec.reference.layer
    words = {TAPS: int(layer.FX.value), OUTPUT: int(layer.C.value * layer.FY.value * layer.FX.value)}

    def power(chip: Machine, density: float) -> float:
        return float(operating_power_mw(chip, file.reference, mode, bits, freq, volts, density, density))

    lanes = float(machine.datapath.cols * mode.lanes)
    shares = {name: np.asarray(skipped_cycles_share((1.0 - ZEROS) ** 2, lanes, count)) for name, count in words.items()}
    dense, found = power(machine, 1.0), []
    for place, zeros in enumerate(ZEROS):
        density = 1.0 - float(zeros)
        left = {GATING: power(machine, density)}
        for name, share in shares.items():
            left[name] = power(skipping_machine(machine, density**2, float(share[place])), density)
        found += [_row("Envision", name, zeros, 100.0 * (1.0 - value / dense), "%") for name, value in left.items()]
    return found


def eyeriss_rows() -> list[dict[str, Any]]:
    """Energy saved on the five convolutions of AlexNet, all at one zero rate, against no zeros."""
    array = eyeriss_file().model
    layers = tuple(layer for layer in published_layers() if layer.network == "alexnet")
    column = columns(layers)
    bounds = {layer.name: layer.bounds for layer in zoo.network("alexnet").layers}
    words = {
        TAPS: [bounds[layer.layer].FX for layer in layers],
        OUTPUT: [math.prod((b.C, b.FY, b.FX)) for b in (bounds[layer.layer] for layer in layers)],
    }

    def energy(zeros: float, shares: np.ndarray | None) -> float:
        macs = column["macs"] * (1.0 if shares is None else shares)  # that take a cycle
        latency = total_ns(array, processing_ns(array, macs, column["active_units"], column["buffer_bits"]),
                           column["link_bits"])  # fmt: skip
        left = (column["macs"], zeros) if shares is None else (column["macs"] * (1.0 - zeros), 0.0)
        return float(jnp.sum(energy_pj(array, *left, latency)))

    shares = {
        name: np.stack([
            skipped_cycles_share(1.0 - ZEROS, float(units), n)
            for units, n in zip(column["active_units"], counts, strict=True)
        ], axis=-1)
        for name, counts in words.items()
    }  # fmt: skip
    dense, found = energy(0.0, None), []
    for place, zeros in enumerate(ZEROS):
        left = {GATING: energy(float(zeros), None)}
        for name, share in shares.items():
            left[name] = energy(float(zeros), share[place])
        found += [_row("Eyeriss", name, zeros, 100.0 * (1.0 - value / dense), "%") for name, value in left.items()]
    return found


def eyeriss_measured() -> list[dict[str, Any]]:
    """Energy saved in the 18 layers, measured and modelled, over the model without zeros at the measured latency."""
    array, column = eyeriss_file().model, columns(published_layers())
    given = (column["macs"], column["zero_fraction"], column["total_ns"])
    dense = np.asarray(energy_pj(array, given[0], 0.0 * given[1], given[2])) / column["total_ns"]
    ours = np.asarray(energy_pj(array, *given)) / column["total_ns"]
    return [
        _row("Eyeriss", f"{kind}: {layer.network} {layer.layer}", zeros, 100.0 * (1.0 - value / full), "%", kind)
        for kind, values in (("derived", column["power_mw"]), ("model at measured latency", ours))
        for layer, zeros, value, full in zip(published_layers(), column["zero_fraction"], values, dense, strict=True)
    ]


def link_rows() -> list[dict[str, Any]]:
    """Energy saved on a link that pays a bit at a time: width over mean coded width, raw where that is shorter."""
    array = eyeriss_file().model
    wide, narrow = array.word_bits, NARROW_BITS
    runs = int(array.code_bits_per_value) - wide  # three pairs in 64 bit leave a third of a bit
    density = 1.0 - ZEROS
    shares = equal_shares(density, narrow)
    values = huffman_bits(equal_shares(1.0, narrow))
    coded = {
        (wide, "run length"): run_length_bits(density, float(wide), runs),
        (wide, "bit mask"): bitmask_bits(density, float(wide)),
        (narrow, "bit mask"): bitmask_bits(density, float(narrow)),
        (narrow, "Huffman of words"): huffman_bits(shares),
        (narrow, "Huffman of runs"): jax.vmap(lambda one: huffman_run_bits(one, values, 2**narrow))(density),
        (narrow, "entropy"): entropy_bits(shares),
    }
    return [
        _row("link", f"{width} b, {name}", zeros, 100.0 * (1.0 - min(float(mean), width) / width), "%")
        for (width, name), bits in coded.items()
        for zeros, mean in zip(ZEROS, bits, strict=True)
    ]


def cycle_rows(file: MachineFile) -> list[dict[str, Any]]:
    """Speed over that without skipping when one operand has zeros."""
    machine, layer = file.machine, file.spec.reference.layer
    array = eyeriss_file().model
    words = {"row of taps": int(layer.FX.value), "output": int(layer.C.value * layer.FY.value * layer.FX.value)}
    lanes = {"1 lane": 1, f"{machine.datapath.cols} lanes": machine.datapath.cols}
    lanes[f"{array.rows * array.cols} lanes"] = array.rows * array.cols
    found = []
    for name, width in lanes.items():
        for wait, count in words.items():
            if width == 1 and wait == "row of taps":
                continue  # one lane waits for none
            label = name if width == 1 else f"{name}, wait after {count} words"
            share = np.asarray(skipped_cycles_share(1.0 - ZEROS, float(width), count))
            found += [_row("speed", label, z, 1.0 / s, "1") for z, s in zip(ZEROS, share, strict=True) if z < 1.0]
    return found


def published_rows(model: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Published savings; the zeros are empty where none were published."""
    points = {point.series: point for point in draw.published("fig11b")}
    saved = 100.0 * (1.0 - points["Envision sparse"].y / points["Envision dense"].y)
    found = [_row("Envision", "sparse data", None, saved, "%", "published")]
    for point in draw.published("fig11b"):
        kind = "published" if point.verified == "yes" else "recalled, not verified"
        if "link" in point.series:
            found.append(_row("link", point.series, point.x, 100.0 * (1.0 - 1.0 / point.y), "%", kind))
        if "Cnvlutin" in point.series:
            found.append(_row("speed", point.series, point.x, point.y, "1", kind))
    for row in found:
        if row["zeros"] is None and row["panel"] in ("Envision", "link"):
            name = GATING if row["panel"] == "Envision" else f"{eyeriss_file().model.word_bits} b, bit mask"
            line = [one for one in model if (one["panel"], one["series"]) == (row["panel"], name)]
            row["model_zeros"] = float(
                np.interp(row["value"], [one["value"] for one in line], [one["zeros"] for one in line])
            )
    return found


def figure(model: list[dict[str, Any]], measured: list[dict[str, Any]]) -> Figure:
    """Four panels over the share of zeros."""
    found = Figure(figsize=(11.0, 8.6), layout="constrained")
    axes = dict(zip(("Envision", "Eyeriss", "link", "speed"), found.subplots(2, 2).flat, strict=True))
    styles = STYLES | _link_styles(model) | _speed_styles(model)
    for panel, axis in axes.items():
        names = dict.fromkeys(row["series"] for row in model if row["panel"] == panel)
        for name in names:
            line = [row for row in model if (row["panel"], row["series"]) == (panel, name)]
            colour, style = styles[name]
            axis.plot([r["zeros"] for r in line], [r["value"] for r in line], style, color=colour, label=name)
    for row in measured:
        axis, status = axes[row["panel"]], {"published": "yes", "derived": "derived"}.get(row["kind"], "no")
        if row["kind"].startswith("model"):
            axis.plot(row["zeros"], row["value"], "x", color=draw.BLACK, markersize=6, zorder=6)
        elif row["zeros"] is None:
            axis.axhline(row["value"], color=draw.BLACK, linewidth=1.0, linestyle=":")
            if row["series"] in LABELS:
                text = LABELS[row["series"]]
                axis.annotate(text, (0.0, row["value"]), (0, 3), textcoords="offset points", fontsize=8)
        else:
            draw.mark(axis, [(row["zeros"], row["value"])], status, draw.BLACK)
    titles = {
        "Envision": ("Envision, 4x4b, zeros in both operands", "energy saved on chip [%]"),
        "Eyeriss": ("Eyeriss, AlexNet and VGG-16, zeros in the inputs", "energy saved on chip [%]"),
        "link": ("Off-chip link", "energy saved on the link [%]"),
        "speed": ("Skipping zeros of one operand", "speed over that without skipping [1]"),
    }
    for panel, (title, label) in titles.items():
        draw.tidy(axes[panel], title, "share of zeros [1]", label)
        axes[panel].legend(fontsize=8, frameon=False, loc="upper left")
    axes["speed"].set_yscale("log", base=2)
    axes["speed"].set_yticks([1, 2, 4, 8, 16, 32], ["1", "2", "4", "8", "16", "32"])
    axes["Envision"].set_ylim(0, 118)
    axes["Eyeriss"].set_ylim(-12, 100)
    axes["link"].set_ylim(0, 150)
    axes["link"].set_yticks(range(0, 101, 20))
    axes["speed"].set_ylim(0.9, 45)
    cross, line = (Line2D([], [], color=draw.BLACK, linestyle=style, marker=m) for style, m in (("", "x"), (":", "")))
    extra = [("the model at a layer's measured latency", cross), ("published, at unknown zeros", line)]
    draw.status_legend(found, ["derived", "no"], extra)
    return found


def _link_styles(model: list[dict[str, Any]]) -> dict[str, tuple[str, str]]:
    colours = {"run length": draw.ORANGE, "bit mask": draw.BLUE, "Huffman of words": draw.RED,
               "Huffman of runs": draw.GREEN, "entropy": draw.GREY}  # fmt: skip
    names = dict.fromkeys(row["series"] for row in model if row["panel"] == "link")
    dashed = f"{NARROW_BITS} b"
    return {name: (colours[name.split(", ")[1]], "--" if name.startswith(dashed) else "-") for name in names}


def _speed_styles(model: list[dict[str, Any]]) -> dict[str, tuple[str, str]]:
    names = list(dict.fromkeys(row["series"] for row in model if row["panel"] == "speed"))
    lanes = [name.split(",")[0] for name in names]
    colours = dict(zip(dict.fromkeys(lanes), (draw.GREY, draw.ORANGE, draw.GREEN), strict=True))
    first = {lane: name for lane, name in reversed(list(zip(lanes, names, strict=True)))}
    return {
        name: (colours[lane], "--" if first[lane] == name and "," in name else "-")
        for lane, name in zip(lanes, names, strict=True)
    }


def _row(panel: str, series: str, zeros: float | None, value: float, unit: str, kind: str = "model") -> dict[str, Any]:
    return {
        "kind": kind, "panel": panel, "series": series, "zeros": None if zeros is None else float(zeros),
        "value": float(value), "unit": unit, "model_zeros": None,
    }  # fmt: skip


def main() -> None:
    """Writes picture and table, prints what was published beside the model."""
    jax.config.update("jax_enable_x64", True)
    file = load_machine_file("envision")
    model = [*envision_rows(file), *eyeriss_rows(), *link_rows(), *cycle_rows(file)]
    measured = [*eyeriss_measured(), *published_rows(model)]
    draw.save("fig11b", figure(model, measured), [*model, *measured])
    for row in measured:
        print("  ".join("" if v is None else f"{v:.4g}" if isinstance(v, float) else str(v) for v in row.values()))


if __name__ == "__main__":
    main()
