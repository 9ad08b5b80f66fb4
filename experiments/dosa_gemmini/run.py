"""ResNet-50 on DOSA's Gemmini model: the least EDP over mappings and hardware, with a proven bound."""

import json
import pathlib
import time

from frontier import frontier
from model import DIMS, Hardware, Mapping, layers, price
from search import search, solve_hardware

HERE = pathlib.Path(__file__).parent
BASELINE = HERE.parents[2] / "shared" / "reference" / "dosa_baseline.json"
DOSA_EDP = 2.78e11  # its own best after 300 gradient steps, at 64/224/224 (reference dosa_baseline.json)


def baseline(path):
    """DOSA's best mappings priced by our model over its own best product, the energy-delay product of one chip."""
    run = json.loads(path.read_text())["measured_here"]["gradient_run"]
    known = {(x.R, x.S, x.P, x.Q, x.C, x.K, x.stride_p, x.stride_q): x for x in layers()}
    network, mappings = [], []
    for entry in run["best_mappings"]:
        r, s, p, q, c, k, _, sp, sq, *_ = (int(n) for n in entry["layer"].split("_"))
        network.append(known[r, s, p, q, c, k, sp, sq])
        mappings.append(decoded(entry["flat"]))
    found = price(network, mappings, Hardware(*run["best_hw"]))
    return found.edp / run["best_edp_uJ_cycles"] - 1


def decoded(flat):
    """A mapping from the file's factors: DRAM, scratchpad, accumulator, register, each spatial, temporal, place."""
    spatial = [flat[i : i + 7] for i in range(0, 84, 21)]
    temporal = [flat[i + 7 : i + 14] for i in range(0, 84, 21)]
    place = flat[14:21]  # of each dim of RSPQCKN among the DRAM loops, 1 innermost
    order = "".join(dim for _, dim in sorted(zip(place, "RSPQCKN", strict=True)))
    return Mapping(spatial[2][4], spatial[1][5], tuple(temporal[2][:6]), order.replace("N", "") + "N"
                   if "N" not in DIMS else order)  # fmt: skip


def main():
    if BASELINE.is_file():
        print(f"DOSA's best mappings: our EDP is {100 * baseline(BASELINE):+.3f} % off its own")
    else:
        print("DOSA's best mappings: not compared, ../shared/reference/dosa_baseline.json is absent")
    start = time.process_time()
    network = layers()
    tables = [frontier(layer, 128) for layer in network]
    rows = sum(len(table.cycles) for table in tables)
    made = time.process_time() - start
    found = search(network, tables)
    cpu = time.process_time() - start
    print(f"{len(network)} layers, {rows} Pareto rows in {made:.1f} CPU-s")
    print(f"EDP {found.price.edp:.4g} uJ*cycles, bound {found.bound:.4g} ({found.bound / found.price.edp:.4f} of it), "
          f"{found.boxes} boxes, {cpu:.1f} CPU-s; {found.price}"[:400])  # fmt: skip
    start = time.process_time()
    own = solve_hardware(network, [frontier(layer, 64) for layer in network], Hardware(64, 224, 224))
    own_cpu = time.process_time() - start
    print(f"at 64/224/224: EDP {own.price.edp:.4g} (DOSA {DOSA_EDP:.3g}), bound {own.bound:.4g}, {own_cpu:.1f} CPU-s")
    result = {
        "edp": found.price.edp, "bound": found.bound, "rows": rows, "boxes": found.boxes, "cpu_s": cpu,
        "edp_64_224_224": own.price.edp, "bound_64_224_224": own.bound, "cpu_s_64_224_224": own_cpu,
    }  # fmt: skip
    (HERE / "expected.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
