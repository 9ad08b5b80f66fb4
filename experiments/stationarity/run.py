"""How many words a cycle does each operand cost when inputs, weights or outputs stay in the MACs?

Figure 8 of Verhelst & Moons, "Embedded Deep Neural Network Processing" (IEEE Solid-State Circuits Magazine, fall 2017)
draws the three topologies without numbers; here they are for every layer of AlexNet and ResNet-18 at batch 1.

Machine: 16 x 16 MACs, each with a register of one word per operand, and one buffer that holds the layer, multicasts
along both sides of the array and takes sums over them. Counted is what passes between buffer and array. A dataflow
spreads dims of its operand over the array, so that every MAC keeps another word of it, and runs the loops that do not
need another word innermost. Within that the unrolling is the one of fewest cycles, then of fewest words.

    python experiments/stationarity/run.py
Writes words.csv and stationarity.png beside this file.
"""

import csv
import dataclasses
import itertools
import math
import pathlib
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
HERE = pathlib.Path(__file__).parent

from cooptim.hardware.hierarchy import DIRECTIONS, Hierarchy, Memory, Port  # noqa: E402
from cooptim.mapping.nest import IRRELEVANT, Mapping, layer_shape, nest_of  # noqa: E402
from cooptim.mapping.rules import HARDWARE  # noqa: E402
from cooptim.mapping.transfers import traffic  # noqa: E402
from cooptim.workload import DIMS, OPERANDS, Layer, zoo  # noqa: E402

SIDE = 16
NETWORKS = ("alexnet", "resnet18")
BITS = (16.0, 16.0, 32.0, 16.0)  # W, I, partial sums, outputs; words are counted, whatever their bits
# Unrollings are averages where the array does not divide a bound; nothing is rounded up to a port.
RULES = dataclasses.replace(HARDWARE, name="words", pack="none")


class Dataflow(NamedTuple):
    """The operand that stays, and the dims that rows and columns of the array may unroll; `vector` without pixels."""

    operand: str
    rows: tuple[str, ...]
    cols: tuple[str, ...]
    vector: tuple[str, ...]


OWN = {
    "input stationary": Dataflow("I", ("C", "FY", "FX"), ("OX", "OY"), ("C",)),
    "weight stationary": Dataflow("W", ("K",), ("C", "FY", "FX"), ("C",)),
    "output stationary": Dataflow("O", ("K",), ("OX", "OY"), ("K",)),
}
# The same loops on an array that always unrolls K x C: what order alone does.
COMMON = {name: flow._replace(rows=("K",), cols=("C", "FY", "FX"), vector=("C",)) for name, flow in OWN.items()}


@dataclasses.dataclass(frozen=True)
class Words:
    """Words that pass between buffer and array under one mapping; `rounding` is the largest relative error of them."""

    cycles: float
    macs: int
    weight: float
    input: float
    output_write: float
    output_read: float
    mapping: Mapping
    rounding: float

    @property
    def total(self) -> float:
        """Words of all operands."""
        return self.weight + self.input + self.output_write + self.output_read

    def a_cycle(self, operand: str) -> float:
        """Words a cycle of W, I or O (partial sums both ways)."""
        words = {"W": self.weight, "I": self.input, "O": self.output_write + self.output_read}[operand]
        return words / self.cycles


def machine() -> Hierarchy:
    """Registers of one word per operand in every MAC, and one buffer behind the array."""

    def memory(name: str, served: tuple[str, ...]) -> Memory:
        everything = tuple((operand, direction) for operand in OPERANDS for direction in DIRECTIONS)
        return Memory(
            name=name, operands=OPERANDS, served_dims=served, double_buffered="never",
            ports=(Port("port", "read_write", everything, math.inf, 1.0),),
            size_bits=math.inf, read_pj=0.0, write_pj=0.0, nominal_bits=1.0, size_exponent=0.0, min_bits=0.0,
            max_bits=math.inf, step_bits=1.0, area_mm2_per_bit=0.0, leakage_mw_per_bit=0.0,
        )  # fmt: skip

    levels = (memory("registers", ()), memory("buffer", ("rows", "cols")))
    return Hierarchy("array", (("rows", SIDE), ("cols", SIDE)), (), levels, mac_pj=0.0, clock_ghz=1.0)


def _sides(dims: tuple[str, ...], bounds: dict[str, int]) -> Iterator[tuple[tuple[str, int], ...]]:
    """Unrollings of one side of the array: up to two dims, units whose product fits."""
    yield ()
    for dim in dims:
        yield from (((dim, units),) for units in range(2, min(SIDE, bounds[dim]) + 1))
    for one, two in itertools.combinations(dims, 2):
        for units in range(2, min(SIDE // 2, bounds[one]) + 1):
            yield from (((one, units), (two, n)) for n in range(2, min(SIDE // units, bounds[two]) + 1))


def _steps(bounds: dict[str, int], spatial: dict[str, tuple[tuple[str, int], ...]]) -> dict[str, int]:
    """Temporal factor of every dim."""
    units = dict.fromkeys(DIMS, 1)
    for dim, n in (pair for side in spatial.values() for pair in side):
        units[dim] *= n
    return {dim: -(-bounds[dim] // units[dim]) for dim in DIMS}


def _orders(operand: str, steps: dict[str, int]) -> Iterator[tuple[tuple[str, int], ...]]:
    """Loop orders: innermost what keeps `operand` in place, then what keeps one of the others, then the other."""
    idle = {op: [DIMS[i] for i in IRRELEVANT[op]] for op in OPERANDS}
    others = [op for op in OPERANDS if op != operand]
    for first, second in (others, others[::-1]):
        order = [*idle[operand], *idle[first], *idle[second], "G"]
        yield tuple((dim, steps[dim]) for dim in order if steps[dim] > 1)


def words(layer: Layer, mapping: Mapping, hierarchy: Hierarchy) -> Words:
    """Words between buffer and array under one mapping."""
    shape = layer_shape(layer, *BITS)
    moved = traffic(nest_of(layer.name, shape, mapping, hierarchy), shape, hierarchy, RULES)

    def total(operand: str, direction: str) -> float:
        transfer = moved.transfers[operand, 1, direction]
        return float(transfer.elements * transfer.count) if transfer.active else 0.0

    # Units that the buffer feeds are whole; where a bound leaves some idle at times their mean is a fraction.
    means = [math.prod(row) for row in _relevant_units(layer, mapping, hierarchy)]
    rounding = max(abs(round(mean) - mean) / mean for mean in means)
    return Words(
        float(moved.cycles),
        layer.macs,
        total("W", "read_to_low"),
        total("I", "read_to_low"),
        total("O", "write_from_low"),
        total("O", "read_to_low"),
        mapping,
        rounding,
    )


def _relevant_units(layer: Layer, mapping: Mapping, hierarchy: Hierarchy) -> list[list[float]]:
    """Mean units of each dim that moves W, I, O."""
    nest = nest_of(layer.name, layer_shape(layer, *BITS), mapping, hierarchy)
    mean = [math.prod(row[i] for row in nest.unroll) for i in range(len(DIMS))]
    return [[mean[i] for i in range(len(DIMS)) if i not in IRRELEVANT[op]] for op in OPERANDS]


def best(layer: Layer, flow: Dataflow, hierarchy: Hierarchy) -> Words:
    """The mapping of a dataflow with the fewest cycles, then the fewest words."""
    bounds = layer.bounds._asdict()
    cols = flow.cols if layer.bounds.OY * layer.bounds.OX > 1 else flow.vector
    sides = itertools.product(_sides(flow.rows, bounds), _sides(cols, bounds))
    candidates = [{"rows": rows, "cols": cols} for rows, cols in sides]
    cycles = [math.prod(_steps(bounds, spatial).values()) for spatial in candidates]
    for least in sorted(set(cycles)):
        found = []
        for spatial in (s for s, c in zip(candidates, cycles, strict=True) if c == least):
            for loops in _orders(flow.operand, _steps(bounds, spatial)):
                cuts = {op: (0, len(loops)) for op in OPERANDS}
                try:
                    found.append(words(layer, Mapping(loops, spatial, cuts), hierarchy))
                except ValueError:  # one dim on both sides with units that leave fractional loops
                    continue
        if found:
            return min(found, key=lambda w: w.total)
    raise RuntimeError(f"{layer.name}: no mapping is {flow.operand} stationary")


def check(hierarchy: Hierarchy) -> None:
    """ResNet-18's layer1.0.conv1 (K = C = 64, 56 x 56, 3 x 3) by hand; 451,584 cycles at 256 MACs each."""
    work = zoo.network("resnet18")
    layer = work.layers[work.index("layer1.0.conv1")]
    back = 16 * (1 - 1 / 36)  # sums over 16 channels: 64/16 * 9 visits, the first of which reads nothing
    expected = {
        "input stationary": (16, 256 / 64, 16 + back),  # 64 output channels pass each input
        "weight stationary": (256 / 3136, 16, 16 + back),  # 3,136 pixels pass each weight
        "output stationary": (16, 16, 256 / 576),  # 64 * 9 products make each output, which leaves once
    }
    for name, values in expected.items():
        found = best(layer, OWN[name], hierarchy)
        for operand, value in zip(OPERANDS, values, strict=True):
            if abs(found.a_cycle(operand) / value - 1) > 1e-12 or found.cycles != 451584:
                raise RuntimeError(f"{name}: {operand} moves {found.a_cycle(operand)} words a cycle, by hand {value}")


def _spelled(mapping: Mapping) -> tuple[str, str]:
    sides = [" ".join(f"{dim}{units}" for dim, units in side) or "1" for side in mapping.spatial.values()]
    return " x ".join(sides), " ".join(f"{dim}{factor}" for dim, factor in mapping.loops)


def table(hierarchy: Hierarchy) -> list[dict[str, object]]:
    """One row per network, layer, unrolling and dataflow."""
    rows: list[dict[str, object]] = []
    for network in NETWORKS:
        for layer in zoo.network(network).layers:
            for unrolling, flows in (("own", OWN), ("K x C", COMMON)):
                for name, flow in flows.items():
                    w = best(layer, flow, hierarchy)
                    array, loops = _spelled(w.mapping)
                    rows.append(
                        {
                            "network": network, "layer": layer.name, "unrolling": unrolling, "dataflow": name,
                            "array": array, "loops": loops, "cycles": int(w.cycles), "macs": w.macs,
                            "utilization": w.macs / w.cycles / SIDE**2,
                            "W": w.a_cycle("W"), "I": w.a_cycle("I"), "O": w.a_cycle("O"),
                            "O_write": w.output_write / w.cycles, "O_read": w.output_read / w.cycles,
                            "words_per_mac": w.total / w.macs, "rounding": w.rounding,
                        }
                    )  # fmt: skip
    return rows


def plot(rows: list[dict]) -> None:
    """Words a cycle per layer; one panel a dataflow and network."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    titles = {"alexnet": "AlexNet (two groups)", "resnet18": "ResNet-18"}
    colors = {"W": "#0072b2", "I": "#e69f00", "O": "#009e73"}
    labels = {"W": "weights", "I": "inputs", "O": "partial sums and outputs, both ways"}
    figure, axes = plt.subplots(
        3, 2, figsize=(13, 8.5), sharey=True, sharex="col", width_ratios=(8, 21), layout="constrained"
    )
    for column, network in enumerate(NETWORKS):
        for line, name in enumerate(OWN):
            axis = axes[line, column]
            some = [r for r in rows if (r["network"], r["dataflow"], r["unrolling"]) == (network, name, "own")]
            for k, operand in enumerate(OPERANDS):
                places = [i + 0.27 * (k - 1) for i in range(len(some))]
                heights = [r[operand] for r in some]
                axis.bar(places, heights, 0.27, color=colors[operand], label=labels[operand])
            axis.set_yscale("log")
            axis.set(ylim=(2e-3, 600), title=f"{titles[network]}, {name}")
            axis.axhline(SIDE, color="0.6", linewidth=0.8, linestyle=":", zorder=0)
            axis.set_xticks(range(len(some)), [str(r["layer"]) for r in some], rotation=90)
            axis.margins(x=0.01)
        axes[1, 0].set_ylabel("words a cycle between buffer and a 16 x 16 array (dotted: 16)")
    handles, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(HERE / "stationarity.png", dpi=110)
    plt.close(figure)


def summary(rows: list[dict]) -> None:
    """Words a cycle over the convolutions of a network: sums over cycles, not means of ratios."""
    print("network    layers  unrolling  dataflow              W       I       O   words/MAC  utilization")
    for network, unrolling, name in itertools.product(NETWORKS, ("own", "K x C"), OWN):
        for kind in ("conv", "fc"):
            some = [r for r in rows if (r["network"], r["unrolling"], r["dataflow"]) == (network, unrolling, name)]
            some = [r for r in some if str(r["layer"]).startswith("fc") == (kind == "fc")]
            cycles, macs = sum(r["cycles"] for r in some), sum(r["macs"] for r in some)
            mean = {op: sum(r[op] * r["cycles"] for r in some) / cycles for op in OPERANDS}
            print(
                f"{network:<10} {kind:<7} {unrolling:<10} {name:<18} {mean['W']:7.2f} {mean['I']:7.2f} "
                f"{mean['O']:7.2f}   {sum(mean.values()) * cycles / macs:9.4f}  {macs / cycles / SIDE**2:6.3f}"
            )
    print(f"largest rounding of units: {max(r['rounding'] for r in rows):.3f}")


def main() -> None:
    """Checks one layer by hand, writes table and picture, prints the sums."""
    start = time.process_time()
    hierarchy = machine()
    check(hierarchy)
    rows = table(hierarchy)
    with open(HERE / "words.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows([{k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows])
    summary(rows)
    plot(rows)
    print(f"{time.process_time() - start:.1f} CPU-s")


if __name__ == "__main__":
    main()
