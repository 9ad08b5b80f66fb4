"""What do the number and the size of on-chip memories do to the energy of a network, each mapped as well as possible?

Figure 9 of Verhelst & Moons, "Embedded Deep Neural Network Processing" (IEEE Solid-State Circuits Magazine, fall 2017)
draws one hierarchy; here are none to three on-chip levels of several sizes, every layer at its proven least energy.

Machine: 16 x 16 MACs that unroll K x C, every memory above the registers shared by W, I and O. Energies are relative to
one 16-bit MAC, per 16-bit word: DRAM 200, a 108 kB buffer 6, a 0.5 kB register file 1 (Chen, Emer & Sze, "Eyeriss: a
spatial architecture for energy-efficient dataflow", ISCA 2016); between and beyond, (size / 0.5 kB)^(1/3), the power
law through both points. With --exponent 0.5 the square-root law through the buffer instead.

    python experiments/hierarchy/run.py [--exponent 0.5]
Writes energy.csv and hierarchy.png beside this file.
"""

import argparse
import csv
import math
import pathlib
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
HERE = pathlib.Path(__file__).parent

from cooptim.hardware.hierarchy import DIRECTIONS, Hierarchy, Memory, Port  # noqa: E402
from cooptim.mapping.nest import INDEX, LayerShape, layer_shape, nest_of  # noqa: E402
from cooptim.mapping.price import price  # noqa: E402
from cooptim.mapping.search import best_mapping  # noqa: E402
from cooptim.workload import OPERANDS, zoo  # noqa: E402

SIDE = 16
WORD = 16.0
KB = 8 * 1024.0
BUFFER_KB, BUFFER_COST, DRAM_COST = 108.0, 6.0, 200.0
NETWORKS = ("alexnet", "resnet18")
REGISTER_KB = 0.5  # a MAC, in three parts
SIZES_KB = (8, 32, 128, 512, 2048)
MIDDLE_KB = (2, 8)


def memory(name: str, operands: tuple[str, ...], size_bits: float, cost: float, shared: bool) -> Memory:
    """One read-write port a direction; `cost` of a 16-bit word."""
    ports = tuple(
        Port(d, "read" if d.startswith("read") else "write", tuple((o, d) for o in operands), WORD, 1.0)
        for d in DIRECTIONS
    )
    served = ("rows", "cols") if shared else ()
    return Memory(name, operands, served, "room", ports, size_bits, cost, cost, size_bits, 0.0, size_bits, size_bits,
                  1.0, 0.0, 0.0)  # fmt: skip


def machine(levels: str, sizes_kb: tuple[float, ...], exponent: float) -> Hierarchy:
    """Levels from the MACs outward: 'r' registers in each MAC (else one accumulator), 'b' a shared buffer."""
    found, left = [], list(sizes_kb)
    if "r" in levels:
        part = REGISTER_KB / 3
        found += [
            memory(f"register_{o}", (o,), part * KB, BUFFER_COST * (part / BUFFER_KB) ** exponent, False)
            for o in OPERANDS
        ]
    else:
        found.append(memory("accumulator", ("O",), 2 * WORD, BUFFER_COST * (0.004 / BUFFER_KB) ** exponent, False))
    for kind in levels.replace("r", ""):
        size = left.pop(0)
        cost = BUFFER_COST * (size / BUFFER_KB) ** exponent
        found.append(memory(f"{kind}{size:g}kB", OPERANDS, size * KB, cost, True))
    found.append(memory("dram", OPERANDS, math.inf, DRAM_COST, True))
    return Hierarchy(levels or "none", (("rows", SIDE), ("cols", SIDE)), (), tuple(found), 1.0, 1.0)


def configurations() -> list[tuple[str, tuple[float, ...]]]:
    """Kinds and sizes of the on-chip levels."""
    found: list[tuple[str, tuple[float, ...]]] = [("", ()), ("r", ())]
    found += [("b", (float(s),)) for s in SIZES_KB]
    found += [("rb", (float(s),)) for s in SIZES_KB]
    found += [("rbb", (float(m), float(s))) for m in MIDDLE_KB for s in SIZES_KB if s >= 4 * m]
    return found


def unrolling(shape: LayerShape) -> dict[str, tuple[tuple[str, int], ...]]:
    """K on the rows, C on the columns."""
    pairs = {"rows": ("K", min(SIDE, shape.bounds[INDEX["K"]])), "cols": ("C", min(SIDE, shape.bounds[INDEX["C"]]))}
    return {axis: ((dim, int(n)),) for axis, (dim, n) in pairs.items() if n > 1}


def energy(name: str, chip: Hierarchy) -> tuple[float, float, float, float]:
    """(energy of the convolutions in MACs, of it DRAM's, their MACs, worst gap to the bound)."""
    total = dram = macs = gap = 0.0
    for layer in zoo.network(name).layers:
        if layer.kind not in ("conv", "depthwise") and layer.bounds.FY * layer.bounds.OY == 1:
            continue
        shape = layer_shape(layer, WORD, WORD, 2 * WORD, WORD)
        best = best_mapping(layer.name, shape, chip, spatial=[unrolling(shape)])
        found = price(nest_of(layer.name, shape, best.mapping, chip), shape, chip)
        outer = len(chip.memories) - 1
        dram += layer.repeat * sum(
            float(pj) for (o, m, _), pj in found.transfer_pj.items() if chip.levels(o)[m] == outer
        )
        total += layer.repeat * best.energy_pj
        macs += layer.repeat * float(shape.macs)
        gap = max(gap, best.gap)
    return total, dram, macs, gap


def plot(rows: list[dict[str, object]], path: pathlib.Path) -> None:
    """Energy a MAC over the size of the outermost buffer, one line a number of levels."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    kinds = {"b": "buffer", "rb": "registers, buffer", "rbb": "registers, small buffer, buffer"}
    figure, axes = plt.subplots(1, len(NETWORKS), figsize=(10, 4), sharey=True, layout="constrained")
    for axis, name in zip(axes, NETWORKS, strict=True):
        mine = [r for r in rows if r["network"] == name]
        for level, label in kinds.items():
            for middle in sorted({r["middle_kb"] for r in mine if r["levels"] == level}, key=str):
                line = [r for r in mine if r["levels"] == level and r["middle_kb"] == middle]
                suffix = f" ({middle:g} kB)" if middle else ""
                axis.plot([r["buffer_kb"] for r in line], [r["per_mac"] for r in line], "o-", label=label + suffix)
        for level, label, style in (("", "DRAM only", "--"), ("r", "registers only", ":")):
            value = next(r["per_mac"] for r in mine if r["levels"] == level)
            axis.axhline(value, linestyle=style, color="gray", label=f"{label}: {value:.3g}")
        axis.set(xscale="log", yscale="log", title=name, xlabel="outermost buffer [kB]")
        axis.grid(True, which="both", alpha=0.3)
        axis.legend(fontsize=8)
    axes[0].set_ylabel("energy a MAC [energy of one MAC]")
    figure.savefig(path, dpi=120)


def main() -> int:
    """Maps everything, writes the table and the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--exponent", type=float, default=1 / 3)
    args = parser.parse_args()
    begin, rows = time.process_time(), []
    for name in NETWORKS:
        for levels, sizes in configurations():
            total, dram, macs, gap = energy(name, machine(levels, sizes, args.exponent))
            rows.append({
                "network": name, "levels": levels, "middle_kb": sizes[0] if len(sizes) == 2 else 0.0,
                "buffer_kb": sizes[-1] if sizes else 0.0, "per_mac": total / macs,
                "dram_share": dram / total, "gap": gap,
            })  # fmt: skip
            print(f"{name:9s} {levels or '-':4s} {'/'.join(f'{s:g}' for s in sizes) or '-':>8s} kB: "
                  f"{total / macs:8.3f} MACs a MAC, DRAM {dram / total:5.1%}, gap {gap:.1e}", flush=True)  # fmt: skip
    suffix = "" if args.exponent == 1 / 3 else f"_{args.exponent:g}"
    with (HERE / f"energy{suffix}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows([{k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows])
    plot(rows, HERE / f"hierarchy{suffix}.png")
    print(f"{time.process_time() - begin:.0f} CPU-s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
