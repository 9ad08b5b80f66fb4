"""Random layers under random mappings on random machines, small enough to walk, for the package and for the oracles."""

import dataclasses
import math

from hypothesis import strategies as st

from cooptim.hardware.hierarchy import DIRECTIONS, Hierarchy, Memory, Port
from cooptim.mapping.nest import LayerShape, Mapping
from tests.oracle import nest_walk

DIMS = ("B", "G", "K", "C", "OY", "OX", "FY", "FX")
MAX_MACS = 128
BITS = (3, 4, 8, 16)
PORTS = ((8, 8), (4, 16), (8, 24), (64, 64), (24, 72), (16, 128))  # granule, width


@dataclasses.dataclass(frozen=True)
class Case:
    """One triple, as the package sees it and as the walk does."""

    shape: LayerShape
    machine: Hierarchy
    mapping: Mapping
    walk: nest_walk.Walk
    padded: bool


def _ports(memory: int, kind: int, width: tuple[int, int], operands: tuple[str, ...]) -> tuple[Port, ...]:
    """kind 0: one port for all; 1: a read and a write port; 2: a read and a write port for each operand."""
    granule, bits = width
    pairs = [(op, d) for op in operands for d in DIRECTIONS]
    groups: dict[str, list[tuple[str, str]]] = {}
    for op, d in pairs:
        name = "rw" if kind == 0 else d.split("_")[0] + (op if kind == 2 else "")
        groups.setdefault(name, []).append((op, d))
    kinds = {"r": "read", "w": "write"}
    return tuple(
        Port(
            f"{name}{memory}", "read_write" if kind == 0 else kinds[name[0]], tuple(serves), float(bits), float(granule)
        )
        for name, serves in groups.items()
    )


def _memory(place: int, operands, served, kind: int, width, size: float, buffering: str) -> Memory:
    name, dims = f"m{place}", tuple(f"D{a + 1}" for a in served)
    return Memory(
        name, operands, dims, buffering, _ports(place, kind, width, operands), size,
        1.0 + place, 1.5 + place, size, 0.0, size, size, 1.0, 0.0, 0.0,
    )  # fmt: skip


@st.composite
def cases(draw, max_macs: int = MAX_MACS, least_axes: int = 0) -> Case:
    """A triple in which the array divides the layer: its bounds are the products of loops and units."""
    dim, few = st.sampled_from(DIMS), st.integers(2, 3)
    axes = draw(
        st.lists(st.lists(st.tuples(dim, few), min_size=least_axes, max_size=2), min_size=least_axes, max_size=3)
    )
    loops = draw(st.lists(st.tuples(dim, st.sampled_from((2, 3, 2, 4, 1))), max_size=6))
    axes = [[p for i, p in enumerate(pairs) if p[0] not in {q[0] for q in pairs[:i]}] for pairs in axes]
    if least_axes:  # a loop to fall short in
        loops = [(axes[0][0][0], 3), *loops]
    while math.prod(n for _, n in [*loops, *(p for a in axes for p in a)]) > max_macs:
        if loops:
            loops.pop()
        else:
            axes.pop()
    every = tuple(range(len(axes)))
    holds = draw(st.lists(st.sampled_from(("W", "I", "O", "WI", "IO", "OW", "WIO")), min_size=1, max_size=3))
    memories, stores = [], []
    for place, operands in enumerate((*holds, "WIO")):
        last = place == len(holds)
        served = every if last and draw(st.integers(0, 7)) else tuple(a for a in every if draw(st.booleans()))
        kind, width = draw(st.tuples(st.integers(0, 2), st.sampled_from(PORTS)))
        size = 1e9 if last else float(2 ** draw(st.integers(5, 12)))
        buffering = draw(st.sampled_from(("room", "room", "room", "always", "never")))
        memories.append(_memory(place, tuple(operands), served, kind, width, size, buffering))
        stores.append(nest_walk.Store(tuple(operands), served))
    array = tuple((f"D{a + 1}", math.prod(n for _, n in pairs)) for a, pairs in enumerate(axes))
    machine = Hierarchy("random", array, tuple(f"D{a + 1}" for a in every[:1]), tuple(memories), 1.0, 1.0)
    cuts = {}
    for operand in "WIO":
        levels = sum(operand in store.operands for store in stores)
        inner = draw(st.lists(st.integers(0, len(loops)), min_size=levels - 1, max_size=levels - 1))
        cuts[operand] = (*sorted(inner), len(loops))
    bounds = [math.prod(n for d, n in [*loops, *(p for a in axes for p in a)] if d == name) for name in DIMS]
    stride, dilation = (draw(st.tuples(st.integers(1, 3), st.integers(1, 3))) for _ in range(2))
    pads = draw(st.tuples(*[st.integers(0, 2)] * 4)) if draw(st.booleans()) else (0, 0, 0, 0)
    padded = [(bounds[4 + a] - 1) * stride[a] + (bounds[6 + a] - 1) * dilation[a] + 1 for a in range(2)]
    size = tuple(max(1, padded[a] - pads[2 * a] - pads[2 * a + 1]) for a in range(2))
    before = tuple(min(pads[2 * a], padded[a] - size[a]) for a in range(2))
    bits = draw(st.tuples(*[st.sampled_from(BITS)] * 3))
    shape = LayerShape(tuple(bounds), stride, dilation, size, bits[0], bits[1], 24, bits[2])
    spatial = {f"D{a + 1}": tuple(pairs) for a, pairs in enumerate(axes)}
    walk = nest_walk.Walk(
        tuple(loops), tuple(tuple(a) for a in axes), tuple(stores), cuts, stride, dilation, size, before
    )
    return Case(shape, machine, Mapping(tuple(loops), spatial, cuts), walk, list(size) != padded)


@st.composite
def unfilled(draw, max_macs: int = MAX_MACS) -> Case:
    """A triple whose bounds fall short of loops times units, so that a dim that is unrolled once leaves units empty."""
    case = draw(cases(max_macs, least_axes=1))
    bounds = list(case.shape.bounds)
    axes = case.mapping.spatial.values()
    for i, dim in enumerate(DIMS):
        units = [n for pairs in axes for d, n in pairs if d == dim]
        if len(units) == 1 and bounds[i] > units[0]:
            bounds[i] -= draw(st.integers(1, units[0] - 1))
    return dataclasses.replace(case, shape=dataclasses.replace(case.shape, bounds=tuple(bounds)))
