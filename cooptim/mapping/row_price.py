"""Layers with the rows of their even sets side by side, and the price of every row at given numbers.

A row costs energy, linear in its words, and cycles: the temporal steps or the busiest port, whichever is more, then
first fill, last drain and systolic drain (every refill overlaps with computation). Packing is off. Numpy or jax.
"""

import dataclasses
import math
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from cooptim.hardware.hierarchy import Hierarchy
from cooptim.mapping.even_box import Box, shares_inputs
from cooptim.mapping.even_frontier import EvenFrontier, even_frontier
from cooptim.mapping.even_tables import Column, Tile
from cooptim.mapping.nest import LayerShape, Nest
from cooptim.mapping.rules import HARDWARE, Rules
from cooptim.mapping.stack import usable_room
from cooptim.workload import OPERANDS

Leaf = Float[Array, "..."] | Float[np.ndarray, "..."]
SidePlace = tuple[int, str, str]  # memory, port, direction
BLOCK = 128  # rows of one layer side by side; a layer's last block is padded
_STATIC = {"static": True}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class FrontierStack:
    """Layers side by side, of one network or several, with their rows in blocks; layers of one set share its blocks.

    Attributes:
      columns: of what moves the width (index in `even_tables.WIDTHS`) and sides. tiles: of what is held the operand,
        memory, width and sides. The machine decides them, so that all layers share them.
      words: of each column. held: of each tile. Padded rows repeat the set's last. real: which rows are no padding.
      layer_of, block_of: the blocks of each layer, one layer after the other: index of the layer, and of the block.
      times, instances: of each column's sides (see `Side`); tile_times: of each tile's.
      steps: temporal steps. hops: systolic drain [cycles].
      bits: of weights, inputs, outputs, partial sums; may be effective ones (width times the share stored).
      repeat: how often each layer runs.
    """

    names: tuple[str, ...] = dataclasses.field(metadata=_STATIC)
    columns: tuple[tuple[int, tuple[SidePlace, ...]], ...] = dataclasses.field(metadata=_STATIC)
    tiles: tuple[tuple[str, int, int, tuple[SidePlace, ...]], ...] = dataclasses.field(metadata=_STATIC)
    words: Float[Array, "block column lane"] | Float[np.ndarray, "block column lane"]
    held: Float[Array, "block tile lane"] | Float[np.ndarray, "block tile lane"]
    real: Bool[Array, "block lane"] | Bool[np.ndarray, "block lane"]
    layer_of: Int[Array, "use"] | Int[np.ndarray, "use"]
    block_of: Int[Array, "use"] | Int[np.ndarray, "use"]
    times: Leaf
    instances: Leaf
    tile_times: Leaf
    steps: Leaf
    macs: Leaf
    hops: Leaf
    bits: Leaf
    repeat: Leaf

    @property
    def layers(self) -> int:
        """Number of layers."""
        return len(self.names)


def _places(item: Column | Tile) -> tuple[SidePlace, ...]:
    return tuple((s.memory, s.port, s.direction) for s in item.sides)


def _blocks(rows: Float[np.ndarray, "item row"]) -> Float[np.ndarray, "block item lane"]:
    padded = np.pad(rows, ((0, 0), (0, -rows.shape[1] % BLOCK)), mode="edge")
    return np.moveaxis(padded.reshape(len(rows), -1, BLOCK), 1, 0)


def _of_sides(items: Sequence[Column | Tile], field: str, dtype: Any) -> Float[np.ndarray, "item side"]:
    found = np.zeros((len(items), 2), dtype=dtype)
    for i, item in enumerate(items):
        for j, side in enumerate(item.sides):
            found[i, j] = getattr(side, field)
    return found


def stack_frontiers(
    names: Sequence[str],
    shapes: Sequence[LayerShape],
    machine: Hierarchy,
    nests: Sequence[Nest],
    repeat: Sequence[float] | None = None,
    rules: Rules = HARDWARE,
    box: Box | None = None,
    dtype: Any = np.float64,
) -> FrontierStack:
    """Layers with their sets; equal layers are enumerated once.

    Args:
      nests: the unrolling of each (see `cooptim.mapping.search.unrolled`).
      box: where the sets hold an optimum (see `even_box.box_around`); None: everywhere (the Pareto sets).

    Raises ValueError as `even_frontier` does.
    """
    found = [even_frontier(n, s, machine, nest, rules, box) for n, s, nest in zip(names, shapes, nests, strict=True)]
    return stacked(names, shapes, machine, found, repeat, dtype)


def stacked(
    names: Sequence[str],
    shapes: Sequence[LayerShape],
    machine: Hierarchy,
    frontiers: Sequence[EvenFrontier],
    repeat: Sequence[float] | None = None,
    dtype: Any = np.float64,
) -> FrontierStack:
    """The same from sets that are there already."""
    space = frontiers[0].space
    apart = list({id(f): f for f in frontiers}.values())
    counts = [-(-f.rows.n // BLOCK) for f in apart]
    blocks = np.split(np.arange(sum(counts)), np.cumsum(counts)[:-1])
    own = dict(zip(map(id, apart), blocks, strict=True))
    flags = [np.arange(n * BLOCK).reshape(n, BLOCK) < f.rows.n for n, f in zip(counts, apart, strict=True)]
    systolic = [machine.array_dims.index(name) for name in machine.systolic_dims]
    return FrontierStack(
        names=tuple(names),
        columns=tuple((c.width, _places(c)) for c in space.columns),
        tiles=tuple((t.operand, t.memory, t.width, _places(t)) for t in space.tiles),
        words=np.concatenate([_blocks(f.words) for f in apart]).astype(dtype),
        held=np.concatenate([_blocks(f.held) for f in apart]).astype(dtype),
        real=np.concatenate(flags),
        layer_of=np.repeat(np.arange(len(names)), [len(own[id(f)]) for f in frontiers]),
        block_of=np.concatenate([own[id(f)] for f in frontiers]),
        times=np.stack([_of_sides(f.space.columns, "times", dtype) for f in frontiers]),
        instances=np.stack([_of_sides(f.space.columns, "instances", dtype) for f in frontiers]),
        tile_times=np.stack([_of_sides(f.space.tiles, "times", dtype) for f in frontiers]),
        steps=np.array([f.space.steps for f in frontiers], dtype),
        macs=np.array([f.space.macs for f in frontiers], dtype),
        hops=np.array([sum(max(f.space.span[a] - 1.0, 0.0) for a in systolic) for f in frontiers], dtype),
        bits=np.array([[s.w_bits, s.i_bits, s.o_bits, s.psum_bits] for s in shapes], dtype).T,
        repeat=np.ones(len(names), dtype) if repeat is None else np.array(repeat, dtype),
    )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Rates:
    """What a word costs, per layer, of each column (moved) or tile (held), and what all rows of a layer cost alike.

    Attributes:
      ports: (memory, port) in the order of busy [layer, port, column], in cycles. energy_pj: [layer, column].
      room: bits in each memory, [layer, memory, tile]. fill: cycles to come in (W, I) or leave (O), [layer, operand,
        tile]; the slower side of a link counts.
      mac_pj, steps, hops: energy of the MACs, temporal steps, systolic drain [cycles], [layer].
    """

    ports: tuple[tuple[str, str], ...] = dataclasses.field(metadata=_STATIC)
    energy_pj: Any
    busy: Any
    room: Any
    fill: Any
    mac_pj: Any
    steps: Any
    hops: Any

    def take(self, layers: Any) -> "Rates":
        """Of some layers, repeats allowed."""
        found: Rates = jax.tree.map(lambda leaf: leaf[layers], self)
        return found


def rates(stack: FrontierStack, machine: Hierarchy, xp: ModuleType = jnp) -> Rates:
    """What words cost on a machine of the structure that the stack was made for; its numbers may be traced."""
    nothing = xp.zeros_like(stack.bits[0])
    ports = tuple((memory.name, port.name) for memory in machine.memories for port in memory.ports)
    energy: list[Any] = []
    busy: list[Any] = []
    for c, (width, sides) in enumerate(stack.columns):
        price: Any = nothing
        through = [nothing] * len(ports)
        for s, (m, name, direction) in enumerate(sides):
            memory = machine.memories[m]
            port = next(p for p in memory.ports if p.name == name)
            accesses = stack.times[:, c, s] * stack.bits[width] / port.bw_max_bits
            cost = memory.read_pj if direction.startswith("read") else memory.write_pj
            price = price + accesses * stack.instances[:, c, s] * (cost * memory.access_scale() * port.width_scale())
            at = ports.index((memory.name, name))
            through[at] = through[at] + accesses
        energy.append(price)
        busy.append(xp.stack(through, axis=-1))
    room = [
        xp.stack([stack.bits[width] if m == memory else nothing for _, memory, width, _ in stack.tiles], axis=-1)
        for m in range(len(machine.memories))
    ]
    return Rates(
        ports,
        xp.stack(energy, axis=-1),
        xp.stack(busy, axis=-1),
        xp.stack(room, axis=1),
        xp.stack([_fill_rate(stack, machine, operand, xp) for operand in OPERANDS], axis=1),
        stack.macs * machine.mac_pj,
        stack.steps,
        stack.hops,
    )


def _fill_rate(stack: FrontierStack, machine: Hierarchy, operand: str, xp: ModuleType) -> Any:
    nothing = xp.zeros_like(stack.bits[0])
    found = []
    for t, (own, _, width, sides) in enumerate(stack.tiles):
        slowest: Any = nothing
        for s, (m, name, _) in enumerate(sides if own == operand else ()):
            port = next(p for p in machine.memories[m].ports if p.name == name)
            slowest = xp.maximum(slowest, stack.tile_times[:, t, s] / port.bw_max_bits)
        found.append(slowest * stack.bits[width])
    return xp.stack(found, axis=-1)


@dataclasses.dataclass(frozen=True)
class RowPrices:
    """Of every row: energy [pJ], latency [cycles], bits held in one instance of each memory."""

    energy_pj: Float[Array, "use lane"] | Float[np.ndarray, "use lane"]
    cycles: Float[Array, "use lane"] | Float[np.ndarray, "use lane"]
    bits: Float[Array, "use memory lane"] | Float[np.ndarray, "use memory lane"]


def row_prices(
    stack: FrontierStack, machine: Hierarchy, price: Rates, sharpness: Any = math.inf, xp: ModuleType = jnp
) -> RowPrices:
    """What each row costs each layer, block after block.

    Args:
      price: of `rates`. sharpness: of the maximum over ports, above 1; whole numbers are cheapest, infinite is exact.
    """
    at = stack.block_of
    return block_prices(stack.words[at], stack.held[at], machine, price.take(stack.layer_of), sharpness, xp)


def block_prices(
    words: Any, held: Any, machine: Hierarchy, price: Rates, sharpness: Any, xp: ModuleType = jnp
) -> RowPrices:
    """The same of blocks of rows at the rates of each block's layer."""
    moved = xp.einsum("bkc,bcr->bkr", xp.concatenate([price.energy_pj[:, None], price.busy], axis=1), words)
    filled = xp.einsum("bkt,btr->bkr", xp.concatenate([price.room, price.fill], axis=1), held)
    w_fill, i_fill, drain = xp.moveaxis(filled[:, -3:], 1, 0)
    fill = w_fill + i_fill if shares_inputs(machine) else xp.maximum(w_fill, i_fill)
    running = _most(price.steps, moved[:, 1:], sharpness, xp)
    return RowPrices(moved[:, 0] + price.mac_pj[:, None], running + fill + drain + price.hops[:, None], filled[:, :-3])


def _most(steps: Any, busy: Any, sharpness: Any, xp: ModuleType) -> Any:
    """At least steps [block] and every port's cycles [block, port, lane], by at most a factor of n^(1 / sharpness)."""
    first = steps[:, None]
    most = xp.maximum(first, xp.max(busy, axis=1))
    if isinstance(sharpness, float) and math.isinf(sharpness):
        return most
    known = jax.lax.stop_gradient(most)  # a scale: its own derivative cancels
    total = xp.sum((busy / known[:, None]) ** sharpness, axis=1) + (first / known) ** sharpness
    return known * total ** (1.0 / sharpness)


def overflow(bits: Any, machine: Hierarchy, xp: ModuleType = jnp) -> Any:
    """Sum over memories of the square of what is beyond the room, as a share of it; [block, lane]."""
    room = xp.stack([xp.asarray(usable_room(memory), bits.dtype) for memory in machine.memories])
    return xp.sum(xp.square(xp.maximum(0.0, bits / room[:, None] - 1.0)), axis=1)
