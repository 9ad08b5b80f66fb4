"""Random small layers and machines of up to three tiers, and every even mapping of them, for tests of the frontier."""

import dataclasses
import itertools
import math
import random

import numpy as np

from cooptim.hardware.hierarchy import DIRECTIONS, Hierarchy, Memory, Port
from cooptim.mapping.nest import LayerShape, Mapping, Nest, nest_of

DIMS = ("B", "G", "K", "C", "OY", "OX", "FY", "FX")
OPERANDS = ("W", "I", "O")
IDLE = {"W": "B OY OX", "I": "K", "O": "C FY FX"}


@dataclasses.dataclass(frozen=True)
class SmallSpace:
    """A layer on a machine under one unrolling."""

    shape: LayerShape
    machine: Hierarchy
    spatial: dict[str, tuple[tuple[str, int], ...]]
    nest: Nest


def _ports(rng: random.Random, operands: tuple[str, ...]) -> tuple[Port, ...]:
    width, kind = rng.choice([8.0, 16.0, 24.0, 64.0]), rng.choice(["one", "two", "own"])
    pairs = [(o, d) for o in operands for d in DIRECTIONS]
    names = {"one": lambda o, d: "rw", "two": lambda o, d: d.split("_")[0], "own": lambda o, d: d.split("_")[0] + o}
    groups: dict[str, list[tuple[str, str]]] = {}
    for pair in pairs:
        groups.setdefault(names[kind](*pair), []).append(pair)
    kinds = {"rw": "read_write", "r": "read", "w": "write"}
    nominal = rng.choice([None, 16.0])
    return tuple(
        Port(name, kinds[name if kind == "one" else name[0]], tuple(serves), width, 8.0, nominal)
        for name, serves in groups.items()
    )


def _memory(rng: random.Random, name: str, operands: tuple[str, ...], size: float, cost: float, served) -> Memory:
    return Memory(
        name, operands, served, rng.choice(["room", "room", "always"]), _ports(rng, operands), size, cost, 1.3 * cost,
        size, 0.5, size / 4, size * 4, 1.0, 0.0, 0.0,
    )  # fmt: skip


def random_machine(rng: random.Random) -> Hierarchy:
    """Two or three tiers; operands pass levels by, share memories, are spread and multicast."""
    dims = ("D1", "D2")
    found = []
    for operand in OPERANDS:
        if rng.random() < 0.6:
            served = rng.choice([(), ("D2",), ("D1",)])
            found.append(_memory(rng, f"reg_{operand}", (operand,), rng.choice([32.0, 96.0, 256.0]), 0.2, served))
    shared = rng.choice([(), ("W", "I"), ("I", "O"), ("W", "O"), ("W", "I", "O")])
    if shared or not found:
        operands = shared or ("W", "I", "O")
        served = rng.choice([dims, dims, ("D1",)])
        found.append(_memory(rng, "buffer", operands, rng.choice([300.0, 600.0, 1500.0]), 3.0, served))
    found.append(_memory(rng, "dram", OPERANDS, math.inf, 40.0, dims))
    found[-1] = dataclasses.replace(found[-1], nominal_bits=1.0, size_exponent=0.0, double_buffered="room")
    return Hierarchy("small", (("D1", rng.choice([1, 2])), ("D2", rng.choice([1, 3]))), ("D1",), tuple(found), 0.3, 1.0)


def random_layer(rng: random.Random) -> LayerShape:
    """Three or four prime factors over the loops, with strides, dilation and padding."""
    bounds = [1] * len(DIMS)
    for _ in range(rng.choice([3, 4, 4])):
        bounds[rng.randrange(len(DIMS))] *= rng.choice([2, 3])
    stride, dilation, pad = rng.choice([1, 1, 2, 3]), rng.choice([1, 1, 2]), rng.choice([0, 0, 1])
    size = tuple(max(1, (bounds[o] - 1) * stride + (bounds[f] - 1) * dilation + 1 - pad) for o, f in ((4, 6), (5, 7)))
    return LayerShape(tuple(bounds), (stride, stride), (dilation, dilation), size, 8, 4, 24, 6)


def _divisors(n: int) -> list[int]:
    return [d for d in range(1, n + 1) if n % d == 0]


def random_space(rng: random.Random) -> SmallSpace:
    """A layer on a machine; one array dimension a loop, chosen so that units divide it or not."""
    machine, shape = random_machine(rng), random_layer(rng)
    spatial = {}
    left = dict(zip(DIMS, shape.bounds, strict=True))
    for axis, size in machine.array:
        able = [d for d in DIMS if left[d] > 1]
        if able and size > 1 and rng.random() < 0.8:
            dim = rng.choice(able)
            spatial[axis] = ((dim, min(size, left[dim])),)
            left[dim] = 1  # each loop is unrolled once
    loops = []
    for dim, bound in zip(DIMS, shape.bounds, strict=True):
        units = math.prod(n for pairs in spatial.values() for d, n in pairs if d == dim)
        loops.append((dim, math.ceil(bound / units)))
    cuts = {o: (0,) * (len(machine.levels(o)) - 1) + (len(loops),) for o in OPERANDS}
    return SmallSpace(shape, machine, spatial, nest_of("small", shape, Mapping(tuple(loops), spatial, cuts), machine))


def _tiers(machine: Hierarchy) -> list[int]:
    found: list[int] = []
    for i, memory in enumerate(machine.memories):
        below = [found[j] for j in range(i) if set(machine.memories[j].operands) & set(memory.operands)]
        found.append(1 + max(below, default=-1))
    return [*found[:-1], max(found)]


def all_even_mappings(space: SmallSpace) -> Nest:
    """Every even mapping as one batch: factors a slot, the stationary operand's loops innermost."""
    tiers = _tiers(space.machine)
    slots = 1 + max(tiers)
    bounds = [round(b / math.prod(row[i] for row in space.nest.unroll)) for i, b in enumerate(space.shape.bounds)]
    turning = [i for i, bound in enumerate(bounds) if bound > 1] or [0]
    ways = []
    for bound in (bounds[i] for i in turning):
        chains = itertools.product(_divisors(bound), repeat=slots)
        ways.append([c for c in chains if math.prod(c) == bound])
    dims, factors = [], []
    for chosen in itertools.product(*ways):
        for stays in itertools.product(OPERANDS, repeat=slots):
            order, sizes = [], []
            for k, stay in enumerate(stays):
                first = sorted(range(len(turning)), key=lambda i: DIMS[turning[i]] not in IDLE[stay].split())
                order += [turning[i] for i in first]
                sizes += [float(chosen[i][k]) for i in first]
            dims.append(order)
            factors.append(sizes)
    cuts = tuple(tuple(len(turning) * (tiers[i] + 1) for i in space.machine.levels(o)) for o in OPERANDS)
    return dataclasses.replace(space.nest, dims=np.array(dims).T, factors=np.array(factors).T, cuts=cuts)
