"""ResNet-18 on three of ZigZag's machines: our search against ZigZag's own, in ZigZag's energy and cycles.

ZigZag's spatial mapping is kept; loop order and uneven cuts are ours. Energies and cycles are counted by ZigZag's
rules, to which `cooptim validate` shows the counts equal; --python prices our mappings by ZigZag itself. The network's
energy-delay product is (sum of energies) x (sum of cycles), so layers are chosen by the slope of that product.
"""

import argparse
import json
import pathlib
import tempfile
import time

from cooptim.export.zigzag import write_zigzag
from cooptim.export.zigzag_folder import replay
from cooptim.hardware.hierarchy_file import load_hierarchy
from cooptim.mapping.nest import layer_shape
from cooptim.mapping.network import best_network
from cooptim.mapping.rules import ZIGZAG
from cooptim.workload import zoo

HERE = pathlib.Path(__file__).parent
# zigzag-dse 3.9.1, opt=EDP, its uneven loop-order search at the limits lpf of prime factors, one spatial mapping;
# energy x cycles [pJ * cycles] and CPU-seconds as measured in November 2026 on two shared x86-64 cores.
ZIGZAG_FOUND = {"tpu_like": (7.209e15, 70.0), "meta_prototype": (4.637e15, 74.0), "eyeriss_like": (2.227e17, 65.0)}
SPATIAL = {
    "tpu_like": (("D1", "K", 32), ("D2", "C", 32)),
    "meta_prototype": (("D1", "K", 32), ("D2", "C", 2), ("D3", "OX", 4), ("D4", "OY", 4)),
    "eyeriss_like": (("D1", "K", 14), ("D2", "C", 12)),
}


def spatial(preset, shape):
    """ZigZag's unrolling, limited to the layer's bounds as ZigZag limits it."""
    bounds = dict(zip(("B", "G", "K", "C", "OY", "OX", "FY", "FX"), shape.bounds, strict=True))
    found = {axis: ((dim, min(units, int(bounds[dim]))),) for axis, dim, units in SPATIAL[preset]}
    return {axis: pairs for axis, pairs in found.items() if pairs[0][1] > 1}


def priced_by_zigzag(machine, shapes, found, python):
    """(energy, cycles) of our mappings, as ZigZag itself counts them."""
    with tempfile.TemporaryDirectory() as folder:
        write_zigzag(folder, machine, [(n, shapes[n], m) for n, m in found.mappings.items()])
        results = replay([folder], python)
    theirs = [answer for run in results for answer in run["layers"].values()]
    return (sum(r["energy_total_pj"] for r in theirs), sum(r["latency"]["total_cycles"] for r in theirs))


def measure(preset, effort, python, free=False):
    """One row: energy, cycles, product, the ratio to ZigZag's, bound and CPU-seconds."""
    machine = load_hierarchy(preset)
    layers = zoo.network("resnet18").layers
    start = time.process_time()
    shapes = {layer.name: layer_shape(layer, 8, 8, 16, 8) for layer in layers}
    given = None if free else {n: spatial(preset, s) for n, s in shapes.items()}
    found = best_network(shapes, machine, ZIGZAG, given, effort)
    cpu = time.process_time() - start
    theirs, their_cpu = ZIGZAG_FOUND[preset]
    if python:
        energy, cycles = priced_by_zigzag(machine, shapes, found, python)
        print(f"{preset}: ZigZag prices our mappings at {energy:.9g} pJ, {cycles:.9g} cycles; "
              f"ours {found.energy_pj:.9g}, {found.cycles:.9g}")  # fmt: skip
    return {
        "machine": preset, "energy_pj": found.energy_pj, "cycles": found.cycles, "edp": found.edp,
        "ratio": found.edp / theirs, "bound": found.bound, "gap": found.edp / found.bound - 1, "cpu_s": cpu,
        "zigzag_cpu_s": their_cpu,
    }  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--effort", type=int, default=1, help="1: about 2 CPU-s a machine; 8: about 20")
    parser.add_argument("--free", action="store_true", help="spatial mapping of each layer free, too")
    parser.add_argument("--python", help="a Python with zigzag-dse 3.9.1 and six: prices our mappings there too")
    options = parser.parse_args()
    rows = [measure(preset, options.effort, options.python, options.free) for preset in ZIGZAG_FOUND]
    mean = 1.0
    for row in rows:
        mean *= row["ratio"] ** (1 / len(rows))
        print(
            f"{row['machine']:15} EDP {row['edp']:.4g} pJ*cycles, {row['ratio']:.4f} of ZigZag's; "
            f"bound {row['bound']:.4g}, gap {100 * row['gap']:.1f} %; {row['cpu_s']:.1f} CPU-s "
            f"(ZigZag {row['zigzag_cpu_s']:.0f})"
        )
    print(f"geometric mean {mean:.4f}")
    name = f"result_{options.effort}{'_free' if options.free else ''}.json"
    (HERE / name).write_text(json.dumps({"rows": rows, "geometric_mean": mean}, indent=1) + "\n")


if __name__ == "__main__":
    main()
