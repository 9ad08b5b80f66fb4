"""Are our counts, energies and cycles those of ZigZag, on mappings nobody chose?

Random machines (one to four array dimensions, two to four levels, shared and separate memories and ports, bypassed
levels, granules), layers (strides, dilations, padding, groups, depthwise, odd bounds and precisions) and mappings
(arrays that do not divide, several loops on one dimension, one loop on two, uneven cuts) are exported, replayed by
ZigZag in a Python of its own, and compared quantity by quantity. Usage:
    python experiments/zigzag_replay/run.py --python PYTHON_WITH_ZIGZAG [--machines 120] [--layers 6] [--seed 0]
"""

import argparse
import collections
import dataclasses
import math
import pathlib
import sys
import tempfile
import time
from fractions import Fraction

import numpy as np

from cooptim.export.zigzag import write_zigzag
from cooptim.export.zigzag_folder import read_export, replay
from cooptim.hardware.hierarchy import Hierarchy, Memory, Port
from cooptim.mapping.nest import LayerShape, Mapping, nest_of
from cooptim.mapping.price import price
from cooptim.mapping.rules import ZIGZAG
from cooptim.validate.zigzag import Results
from cooptim.validate.zigzag_rows import result_rows
from cooptim.workload import OPERANDS
from cooptim.workload.dims import DIMS, RELEVANT

MAX_CYCLES = 100_000  # ZigZag lays out the longest period cycle by cycle
LOW, HIGH = {"O": ("read_to_low", "write_from_low")}, {"O": ("read_to_high", "write_from_high")}


@dataclasses.dataclass(frozen=True)
class Triple:
    name: str
    machine: Hierarchy
    shape: LayerShape
    mapping: Mapping


def ports(rng: np.random.Generator, pairs: list[tuple[str, str]]) -> tuple[Port, ...]:
    """Each (operand, direction) on a port that can carry it: one for all, one a kind, or any of several."""
    style = rng.integers(4)
    kinds = {0: ["read_write"], 1: ["read", "write"], 2: ["read", "write", "read", "write"]}.get(
        int(style), ["read", "write", "read_write", "read_write"]
    )
    chosen: list[list[tuple[str, str]]] = [[] for _ in kinds]
    for pair in pairs:
        fitting = [i for i, kind in enumerate(kinds) if kind == "read_write" or pair[1].startswith(kind)]
        chosen[rng.choice(fitting)].append(pair)
    found = []
    for kind, serves in zip(kinds, chosen, strict=True):
        if serves:
            width = int(rng.choice([4, 8, 16, 24, 32, 64, 128, 256]))
            granule = int(rng.choice([g for g in (1, 4, 8, width // 2, width) if 1 <= g <= width]))
            prefix = {"read": "r", "write": "w", "read_write": "rw"}[kind]
            number = 1 + sum(port.kind == kind for port in found)
            found.append(Port(f"{prefix}_port_{number}", kind, tuple(serves), float(width), float(granule)))
    return tuple(found)


def random_machine(rng: np.random.Generator, name: str) -> Hierarchy:
    """Levels from the MACs outward; in each the operands share a memory, have their own, or pass by."""
    array = tuple((f"D{i + 1}", int(rng.integers(1, 8))) for i in range(rng.integers(1, 5)))
    dims = [dim for dim, _ in array]
    served: dict[str, set[str]] = {operand: set() for operand in OPERANDS}
    memories: list[Memory] = []

    def add(label: str, operands: list[str], dims_served: set[str], size: int, top: bool) -> None:
        pairs = [(op, d) for op in operands for d in LOW.get(op, ("read_to_low",))]
        pairs += [
            (op, d) for op in operands for d in HIGH.get(op, ("write_from_high",)) if not top or rng.random() < 0.5
        ]
        pairs.sort(key=lambda pair: operands.index(pair[0]))
        read, write = (float(np.round(rng.uniform(0.01, 100.0), 3)) for _ in range(2))
        memories.append(
            Memory(
                label, tuple(operands), tuple(d for d in dims if d in dims_served), "room", ports(rng, pairs),
                float(size), read, write, float(size), 0.0, float(size), float(size), 1.0, 0.0, 0.0,
            )
        )  # fmt: skip

    for level in range(rng.integers(1, 4)):
        groups: dict[int, list[str]] = collections.defaultdict(list)
        for operand in rng.permutation(OPERANDS):
            groups[int(rng.integers(4))].append(str(operand))
        for group, operands in groups.items():
            if group == 3:  # these pass the level by
                continue
            wider = set.union(*(served[op] for op in operands)) | {d for d in dims if rng.random() < 0.3 * (level + 1)}
            for operand in operands:
                served[operand] = wider
            add(f"level{level}_{''.join(operands)}", operands, wider, int(2 ** rng.uniform(4, 16 + 2 * level)), False)
    add("dram", [str(op) for op in rng.permutation(OPERANDS)], set(dims), 10**10, True)
    systolic = tuple(d for d in dims if rng.random() < 0.2)
    return Hierarchy(name, array, systolic, tuple(memories), float(np.round(rng.uniform(0.01, 2.0), 3)), 1.0)


def random_shape(rng: np.random.Generator) -> LayerShape:
    bound = {"B": 3, "G": 4, "K": 24, "C": 24, "OY": 12, "OX": 12, "FY": 5, "FX": 5}
    bounds = [int(rng.integers(1, bound[dim] + 1)) if rng.random() < 0.75 else 1 for dim in DIMS]
    if rng.random() < 0.2:  # depthwise
        bounds[1], bounds[2], bounds[3] = int(rng.integers(2, 17)), 1, 1
    stride = tuple(int(n) for n in rng.integers(1, 4, 2))
    dilation = tuple(int(n) for n in (rng.integers(1, 4, 2) if rng.random() < 0.4 else (1, 1)))
    spans = [
        (bounds[o] - 1) * s + (bounds[f] - 1) * d + 1
        for o, f, s, d in zip((4, 5), (6, 7), stride, dilation, strict=True)
    ]
    size = tuple(max(1, span - int(rng.integers(0, 3))) for span in spans)
    w, i, o = (int(rng.choice([1, 2, 4, 5, 8, 16])) for _ in range(3))
    return LayerShape(tuple(bounds), stride, dilation, size, w, i, o + int(rng.integers(0, 17)), o)


def factors(rng: np.random.Generator, n: int) -> list[int]:
    """A random product of integers above 1 that makes n."""
    primes = [p for p in (2, 3, 5, 7, 11, 13, 17, 19, 23) for _ in range(10) if n % p ** (_ + 1) == 0]
    found: list[int] = []
    for prime in primes:
        if found and rng.random() < 0.4:
            found[rng.integers(len(found))] *= prime
        else:
            found.append(prime)
    return found


def random_mapping(rng: np.random.Generator, shape: LayerShape, machine: Hierarchy) -> Mapping | None:
    """A mapping, or None where the unrolling leaves no whole number of steps."""
    spatial: dict[str, dict[str, int]] = {}
    for axis, size in machine.array:
        room, pairs = size, {}
        before = [dim for earlier in spatial.values() for dim in earlier if rng.random() < 0.3]
        for dim in dict.fromkeys([*before, *rng.permutation(DIMS)[: rng.integers(0, 4)]]):
            most = min(room, shape.bounds[DIMS.index(dim)])
            if most > 1:
                pairs[str(dim)] = int(rng.integers(2, most + 1))
                room //= pairs[str(dim)]
        spatial[axis] = pairs
    loops = []
    for dim, bound in zip(DIMS, shape.bounds, strict=True):
        units = [pairs[dim] for pairs in spatial.values() if dim in pairs]
        steps = math.ceil(bound / math.prod(units))
        if len(units) > 1 and bound % math.prod(units):  # the fraction goes on one dimension, the rest must divide
            steps = math.ceil(bound / max(units)) / math.prod(sorted(units)[:-1])
            if steps != int(steps):
                return None
            steps = int(steps)
        if math.prod(factors(rng, steps)) != steps:
            return None
        loops += [(dim, factor) for factor in factors(rng, steps)]
    if math.prod(factor for _, factor in loops) > MAX_CYCLES:
        return None
    loops = [loops[i] for i in rng.permutation(len(loops))]
    cuts = {
        op: (*sorted(int(c) for c in rng.integers(0, len(loops) + 1, len(machine.levels(op)) - 1)), len(loops))
        for op in OPERANDS
    }
    return Mapping(tuple(loops), {axis: tuple(pairs.items()) for axis, pairs in spatial.items()}, cuts)


def random_triples(rng: np.random.Generator, machine: Hierarchy, count: int) -> list[Triple]:
    found: list[Triple] = []
    while len(found) < count:
        shape = random_shape(rng)
        mapping = random_mapping(rng, shape, machine)
        if mapping is not None:
            found.append(Triple(f"{machine.name}_{len(found)}", machine, shape, mapping))
    return found


def features(triple: Triple) -> list[str]:
    """What is special about a triple, for the table of what was covered."""
    units = collections.Counter(dim for pairs in triple.mapping.spatial.values() for dim, _ in pairs)
    product = {dim: math.prod(n for p in triple.mapping.spatial.values() for d, n in p if d == dim) for dim in units}
    bounds = dict(zip(DIMS, triple.shape.bounds, strict=True))
    cuts = [triple.machine.levels(op) for op in OPERANDS]
    held = {
        "array does not divide": any(bounds[dim] % product[dim] for dim in units),
        "one loop on two array dimensions": any(n > 1 for n in units.values()),
        "several loops on one array dimension": any(len(pairs) > 1 for pairs in triple.mapping.spatial.values()),
        "stride": max(triple.shape.stride) > 1,
        "dilation": max(triple.shape.dilation) > 1,
        "depthwise": bounds["G"] > 1 and bounds["K"] == bounds["C"] == 1,
        "memory shared by operands below DRAM": any(len(m.operands) > 1 for m in triple.machine.memories[:-1]),
        "an operand passes a level by": len({len(c) for c in cuts}) > 1,
        "systolic": bool(triple.machine.systolic_dims),
        **{f"{n} levels": max(map(len, cuts)) == n for n in (1, 2, 3, 4)},
    }
    return [name for name, holds in held.items() if holds]


def has_tie(triple: Triple) -> bool:
    """Whether a tile, or the tiles that an instance feeds, is exactly a number and a half before it is rounded.

    Floating point decides such a case, one way or the other, by the order of its products.
    """
    nest = nest_of(triple.name, triple.shape, triple.mapping, triple.machine)
    unroll = [[Fraction(x).limit_denominator(10_000) for x in row] for row in nest.unroll]
    for operand in OPERANDS:
        relevant = [i for i, dim in enumerate(DIMS) if dim in RELEVANT[operand] and (operand != "I" or dim in "BGC")]
        spread, inside = triple.machine.spread(operand), Fraction(1)
        for m, cut in enumerate(triple.mapping.cuts[operand]):
            here = math.prod((unroll[axis][i] for axis in spread[m] for i in relevant), start=Fraction(1))
            inside *= here
            loops = math.prod(n for dim, n in triple.mapping.loops[:cut] if DIMS.index(dim) in relevant)
            if here.denominator == 2 or (inside * loops).denominator == 2:
                return True
    return False


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--python", required=True, help="a Python with zigzag-dse 3.9.1 and six")
    parser.add_argument("--machines", type=int, default=120)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    sets = [random_triples(rng, random_machine(rng, f"m{i}"), options.layers) for i in range(options.machines)]
    with tempfile.TemporaryDirectory() as scratch:
        folders = [
            write_zigzag(
                pathlib.Path(scratch) / s[0].machine.name, s[0].machine, [(t.name, t.shape, t.mapping) for t in s]
            )
            for s in sets
        ]
        exports = [read_export(folder) for folder in folders]
        answers = replay(folders, options.python)
    return compare(sets, exports, answers)


def compare(sets, exports, answers) -> int:
    covered, refused, quantities, off = collections.Counter(), collections.Counter(), 0, []
    ours_s = 0.0
    for triples, (machine, layers), answer in zip(sets, exports, answers, strict=True):
        for triple, (name, shape, mapping) in zip(triples, layers, strict=True):
            found = answer["layers"][name]
            if "refused" in found:
                refused[found["refused"].split(" = ")[0]] += 1
                continue
            covered.update(["compared", *features(triple)])
            rows = result_rows(name, machine, shape, mapping, Results.model_validate(found))
            quantities += len(rows)
            off += [(triple, row) for row in rows if not row.holds]
            start = time.process_time()
            price(nest_of(name, shape, mapping, machine), shape, machine, ZIGZAG)
            ours_s += time.process_time() - start
    for name, count in covered.items():
        print(f"{count:6d} {name}")
    for reason, count in refused.items():
        print(f"{count:6d} not answered by ZigZag: {reason}")
    zigzag_s = sum(answer["cpu_seconds"] for answer in answers)
    total = covered["compared"] + sum(refused.values())
    print(f"zigzag-dse {answers[0]['zigzag_version']}: {total / zigzag_s:.0f} evaluations a CPU-second")
    print(f"ours, one at a time in numpy: {covered['compared'] / ours_s:.0f} evaluations a CPU-second")
    ties = {triple.name for triple, _ in off if has_tie(triple)}
    wrong = [(triple, row) for triple, row in off if triple.name not in ties]
    print(f"{quantities} quantities; {len(off)} differ in {len({triple.name for triple, _ in off})} triples")
    print(f"  of these triples {len(ties)} round an exact half")
    for _, row in (*wrong, *(entry for entry in off if entry[0].name in ties))[:40]:
        print(f"  {row.case} {row.quantity}: zigzag {row.expected:.12g}, ours {row.ours:.12g}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
