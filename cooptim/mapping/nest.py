"""A mapping of one layer on a memory hierarchy: loop slots, spatial unrolling and the cuts between levels.

`Mapping` is what people write: names and whole factors, checked. `Nest` is the same as arrays, for the closed forms:
slots are loops in one order shared by the operands, innermost first; an operand's cut c at level m says that slots
0..c-1 run while the tile in that level stays.
"""

import dataclasses
import math
from collections.abc import Mapping as AbstractMapping
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from cooptim.hardware.hierarchy import Hierarchy
from cooptim.workload import OPERANDS, Bounds, Layer
from cooptim.workload.dims import DIMS

INDEX: dict[str, int] = {dim: i for i, dim in enumerate(DIMS)}
# Loops that leave an operand's tile where it is.
IRRELEVANT: dict[str, tuple[int, ...]] = {
    "W": (INDEX["B"], INDEX["OY"], INDEX["OX"]),
    "I": (INDEX["K"],),
    "O": (INDEX["C"], INDEX["FY"], INDEX["FX"]),
}
# Loops that move it to wholly other data (an input's windowed loops move it to overlapping data).
MOVES_WHOLLY: dict[str, tuple[int, ...]] = {
    "W": tuple(INDEX[d] for d in ("G", "K", "C", "FY", "FX")),
    "I": tuple(INDEX[d] for d in ("B", "G", "C")),
    "O": tuple(INDEX[d] for d in ("B", "G", "K", "OY", "OX")),
}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LayerShape:
    """What the counts need of a layer, as numbers that may be batched; bits of partial sums apart from final outputs.

    Attributes:
      bounds: loop bounds in the order of DIMS. stride, dilation, input_size: (vertical, horizontal), input unpadded.
    """

    bounds: tuple[Any, ...]
    stride: tuple[Any, Any]
    dilation: tuple[Any, Any]
    input_size: tuple[Any, Any]
    w_bits: Any
    i_bits: Any
    psum_bits: Any
    o_bits: Any

    @property
    def macs(self) -> Any:
        """Multiply-accumulates of the loop nest."""
        return math.prod(self.bounds)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Nest:
    """One mapping, or a batch of them in a trailing axis, as arrays.

    Attributes:
      dims: dim index of each slot. factors: its size.
      cuts: per operand (W, I, O) and level the number of slots inside; that of the last level is the number of slots.
      unroll: per array dimension the unrolling of each dim (fractional where the array does not divide the layer).
      whole: the same in whole units, as they stand in silicon; latency counts these.
      span: units used along each array dimension.
    """

    dims: Any
    factors: Any
    cuts: tuple[tuple[Any, ...], tuple[Any, ...], tuple[Any, ...]]
    unroll: tuple[tuple[Any, ...], ...]
    whole: tuple[tuple[Any, ...], ...]
    span: tuple[Any, ...]


@dataclasses.dataclass(frozen=True)
class Mapping:
    """One mapping of one layer by names.

    Attributes:
      loops: (dim, factor) slots, innermost first.
      spatial: per array dimension its (dim, units) unrollings; a dimension may be absent.
      cuts: per operand, per level the number of slots inside it; the last is len(loops).
    """

    loops: tuple[tuple[str, int], ...]
    spatial: AbstractMapping[str, tuple[tuple[str, int], ...]]
    cuts: AbstractMapping[str, tuple[int, ...]]

    def level_loops(self, operand: str) -> tuple[tuple[tuple[str, int], ...], ...]:
        """The loops of each level of an operand, innermost first."""
        edges = (0, *self.cuts[operand])
        return tuple(self.loops[low:high] for low, high in zip(edges[:-1], edges[1:], strict=True))


def layer_shape(layer: Layer, w_bits: float, i_bits: float, psum_bits: float, o_bits: float) -> LayerShape:
    """The shape of a layer; an activation product's batch is a group (each image has weights of its own).

    Raises ValueError for a transposed layer: its loops run over inputs, and the counts here are of loops over outputs.
    """
    if layer.transposed:
        raise ValueError(
            f"{layer.name}: a transposed convolution; mappings are of loops over output positions: write it as a "
            "convolution to K x stride x stride channels and a reordering of pixels"
        )
    b = layer.bounds
    if layer.kind == "matmul":
        b = Bounds(1, b.B * b.G, *b[2:])
    size = (layer.input_extent(0), layer.input_extent(1))
    return LayerShape(tuple(b), layer.stride, layer.dilation, size, w_bits, i_bits, psum_bits, o_bits)


def _fractions(name: str, bounds: tuple[int, ...], mapping: Mapping, machine: Hierarchy) -> list[list[float]]:
    """Unrolling per array dimension and dim, fractional so that the temporal factors close the bound.

    Where units do not divide a bound, the first dimension with the largest unrolling of that dim takes the fraction.
    """
    given = {a: dict(mapping.spatial.get(a, ())) for a in machine.array_dims}
    rows: list[list[float]] = []
    for axis, _ in machine.array:
        row = [1.0] * len(DIMS)
        for dim, units in given[axis].items():
            most = max(pairs.get(dim, 0) for pairs in given.values())
            first = next(a for a in machine.array_dims if given[a].get(dim, 0) == most)
            if axis != first:
                row[INDEX[dim]] = float(units)
                continue
            before = math.prod(r[INDEX[dim]] for r in rows)
            steps = math.ceil(bounds[INDEX[dim]] / (units * before))
            row[INDEX[dim]] = bounds[INDEX[dim]] / steps / before
        rows.append(row)
    return rows


def nest_of(name: str, shape: LayerShape, mapping: Mapping, machine: Hierarchy) -> Nest:
    """The arrays of a mapping after every check that needs no sizes.

    Raises ValueError, naming layer, level and operand, for an unknown dim, array dimension or operand, unrolling beyond
    the array, factors that do not multiply to the bound, and cuts that do not rise to the number of slots.
    """
    bounds = tuple(int(b) for b in shape.bounds)
    _require_spatial(name, bounds, mapping, machine)
    unroll = _fractions(name, bounds, mapping, machine)
    for i, dim in enumerate(DIMS):
        temporal = math.prod(factor for d, factor in mapping.loops if d == dim)
        spatial = math.prod(row[i] for row in unroll)
        if abs(temporal * spatial - bounds[i]) > 1e-9 * bounds[i]:
            units = math.prod(n for pairs in mapping.spatial.values() for d, n in pairs if d == dim)
            raise ValueError(
                f"{name}: loop {dim} has temporal factors of {temporal} and {units} units, which do not make its bound "
                f"{bounds[i]}; legal: temporal factors of {math.ceil(bounds[i] / units)} with these units"
            )
    _require_cuts(name, mapping, machine)
    span = tuple(math.prod(n for _, n in mapping.spatial.get(a, ())) for a in machine.array_dims)
    return Nest(
        dims=np.array([INDEX[d] for d, _ in mapping.loops], dtype=np.int64),
        factors=np.array([float(f) for _, f in mapping.loops]),
        cuts=(mapping.cuts["W"], mapping.cuts["I"], mapping.cuts["O"]),
        unroll=tuple(tuple(row) for row in unroll),
        whole=tuple(tuple(float(math.floor(x + 1e-9)) for x in row) for row in unroll),
        span=tuple(float(s) for s in span),
    )


def stacked_nests(nests: Sequence[Nest]) -> Nest:
    """Nests of one unrolling and as many loops each as a batch in a trailing axis."""
    first = nests[0]
    levels = [range(len(cuts)) for cuts in first.cuts]
    cuts: Any = tuple(tuple(np.array([n.cuts[o][m] for n in nests]) for m in levels[o]) for o in range(len(OPERANDS)))
    dims, factors = (np.stack([getattr(n, name) for n in nests], axis=-1) for name in ("dims", "factors"))
    return dataclasses.replace(first, dims=dims, factors=factors, cuts=cuts)


def _require_spatial(name: str, bounds: tuple[int, ...], mapping: Mapping, machine: Hierarchy) -> None:
    sizes = dict(machine.array)
    for axis, pairs in mapping.spatial.items():
        if axis not in sizes:
            raise ValueError(f"{name}: array dimension '{axis}' is not in {machine.name}; it has {', '.join(sizes)}")
        for dim, units in pairs:
            if dim not in INDEX:
                raise ValueError(f"{name}: loop '{dim}' on {axis} is unknown; legal: {', '.join(DIMS)}")
            if not 1 <= units <= bounds[INDEX[dim]]:
                raise ValueError(
                    f"{name}: {units} units of {dim} on {axis}; legal: 1 to its bound {bounds[INDEX[dim]]}"
                )
        used = math.prod(units for _, units in pairs)
        if used > sizes[axis]:
            spelled = " x ".join(f"{dim} {units}" for dim, units in pairs)
            raise ValueError(
                f"{name}: {axis} unrolls {spelled} = {used} units beyond the array's {sizes[axis]}; "
                f"legal: at most {sizes[axis]} units along {axis}"
            )
    for dim, factor in mapping.loops:
        if dim not in INDEX or factor < 1:
            raise ValueError(f"{name}: loop ({dim}, {factor}); legal: a factor of at least 1 of {', '.join(DIMS)}")


def _require_cuts(name: str, mapping: Mapping, machine: Hierarchy) -> None:
    if set(mapping.cuts) != set(OPERANDS):
        raise ValueError(f"{name}: cuts for {sorted(mapping.cuts)}; legal: one list for each of W, I, O")
    for operand in OPERANDS:
        names = [machine.memories[i].name for i in machine.levels(operand)]
        cuts = mapping.cuts[operand]
        if len(cuts) != len(names):
            raise ValueError(
                f"{name}: operand {operand} is cut into {len(cuts)} levels; {machine.name} has {len(names)}: "
                f"{', '.join(names)}; give one cut a level"
            )
        if list(cuts) != sorted(cuts) or min(cuts) < 0 or cuts[-1] != len(mapping.loops):
            raise ValueError(
                f"{name}: operand {operand} has cuts {tuple(cuts)} over {', '.join(names)}; legal: never falling, the "
                f"last (of {names[-1]}) the number of loops, {len(mapping.loops)}"
            )
