"""Random mappings priced per CPU-second: accesses, energy, stalls, first fill and last drain, in float64.

Each mapping of a batch has its own loop order and its own uneven cuts; counts are those of ZigZag's rules. Numpy in
batches that stay in the cache, one thread. A sample of the batch is priced again one by one and must be equal.
"""

import json
import pathlib
import time

import numpy as np

from cooptim.hardware.hierarchy_file import load_hierarchy
from cooptim.mapping.nest import INDEX, LayerShape, Mapping, Nest, nest_of
from cooptim.mapping.price import price
from cooptim.mapping.rules import ZIGZAG
from cooptim.mapping.search import unrolled
from cooptim.mapping.transfers import accesses, traffic
from cooptim.workload import OPERANDS
from cooptim.workload.dims import DIMS

HERE = pathlib.Path(__file__).parent
SHAPE = LayerShape((1, 1, 256, 256, 14, 14, 3, 3), (1, 1), (1, 1), (14, 14), 8, 8, 16, 8)  # a layer of ResNet-18
SPATIAL = {"D1": (("K", 32),), "D2": (("C", 32),)}
LOOPS = (("K", 8), ("C", 8), ("OY", 14), ("OX", 14), ("FY", 3), ("FX", 3))
BATCH, BATCHES, CHECKED = 2000, 50, 1000


def random_batch(machine, rng):
    """(slots [2, slot, mapping], cuts per operand and level)."""
    loops = np.array([[INDEX[d] for d, _ in LOOPS], [f for _, f in LOOPS]])
    order = rng.permuted(np.tile(np.arange(len(LOOPS))[:, None], BATCH), axis=0)
    cuts = []
    for operand in OPERANDS:
        inner = np.sort(rng.integers(0, len(LOOPS) + 1, (len(machine.levels(operand)) - 1, BATCH)), axis=0)
        cuts.append((*inner, np.full(BATCH, len(LOOPS))))
    return loops[:, order], tuple(cuts)


def nest(slots, cuts, base):
    return Nest(slots[0], slots[1].astype(float), cuts, base.unroll, base.whole, base.span)


def energy_only(found, machine):
    moved = traffic(found, SHAPE, machine, ZIGZAG, runs=False)
    total = SHAPE.macs * machine.mac_pj
    for key, transfer in moved.transfers.items():
        memory = machine.memories[machine.levels(key[0])[key[1]]]
        cost = memory.read_pj if key[2].startswith("read") else memory.write_pj
        total = total + accesses(transfer, key, moved.levels[key[0]][key[1]], machine, ZIGZAG) * cost
    return total


def rate(work, batches):
    start = time.process_time()
    results = [work(batch) for batch in batches]
    return len(batches) * BATCH / (time.process_time() - start), results


def checked(machine, batches, results):
    """Mappings of the first batch priced again one by one; how many are equal."""
    (slots, cuts), found = batches[0], results[0]
    equal = 0
    for j in range(CHECKED):
        loops = tuple((DIMS[int(d)], int(f)) for d, f in slots[..., j].T)
        one = Mapping(loops, SPATIAL, {o: tuple(int(c[j]) for c in cuts[i]) for i, o in enumerate(OPERANDS)})
        alone = price(nest_of("layer", SHAPE, one, machine), SHAPE, machine, ZIGZAG)
        same = float(alone.energy_pj) == found.energy_pj[j], float(alone.cycles.total) == found.cycles.total[j]
        equal += int(all(same))
    return equal


def main():
    machine = load_hierarchy("tpu_like")
    rng = np.random.default_rng(0)
    base = unrolled("layer", SHAPE, SPATIAL, machine)
    batches = [random_batch(machine, rng) for _ in range(BATCHES)]
    full, results = rate(lambda b: price(nest(*b, base), SHAPE, machine, ZIGZAG, whole_units=True), batches)
    energy, _ = rate(lambda b: energy_only(nest(*b, base), machine), batches)
    row = {
        "mappings": BATCH * BATCHES, "full_per_cpu_s": full, "energy_per_cpu_s": energy, "checked": CHECKED,
        "equal_alone": checked(machine, batches, results),
    }  # fmt: skip
    print(json.dumps(row, indent=1))
    (HERE / "result.json").write_text(json.dumps(row, indent=1) + "\n")


if __name__ == "__main__":
    main()
