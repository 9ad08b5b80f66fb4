"""Slow oracle: runs the tiled loops of one layer in plain Python integers and counts every word that moves.

It shares no code with the package and knows no formula: tiles are sets of the words that the inner loops name, a tile
is moved when the loops come to another one, the array is stepped cycle by cycle.
"""

import dataclasses
import itertools
from fractions import Fraction


@dataclasses.dataclass(frozen=True)
class Nest:
    """One layer, its tiles and the loop order over them, outermost first; `order` holds K, C, OY, OX."""

    B: int = 1
    G: int = 1
    K: int = 1
    C: int = 1
    OY: int = 1
    OX: int = 1
    FY: int = 1
    FX: int = 1
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    padding: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0))
    weights_per_image: bool = False  # an activation product
    transposed: bool = False
    repeat: int = 1
    tile: tuple[int, int, int, int] = (1, 1, 1, 1)  # of K, C, OY, OX
    order: tuple[str, ...] = ("K", "C", "OY", "OX")


def _pieces(bound: int, tile: int) -> list[range]:
    """Consecutive runs of `tile` indices; the last one may be shorter."""
    return [range(start, min(start + tile, bound)) for start in range(0, bound, tile)]


def _unpadded(nest: Nest, axis: int) -> range:
    """Padded coordinates that are real inputs."""
    outputs, taps = ((nest.OY, nest.FY), (nest.OX, nest.FX))[axis]
    last = (outputs - 1) * nest.stride[axis] + (taps - 1) * nest.dilation[axis]
    before, after = (max(0, pad) for pad in nest.padding[axis])
    return range(before, last - after + 1)


def _steps(nest: Nest):
    """(image, group, tile ranges by loop), in the order of execution."""
    pieces = dict(zip(("K", "C", "OY", "OX"), map(_pieces, (nest.K, nest.C, nest.OY, nest.OX), nest.tile), strict=True))
    for b, g in itertools.product(range(nest.B), range(nest.G)):
        for chosen in itertools.product(*(pieces[loop] for loop in nest.order)):
            yield b, g, dict(zip(nest.order, chosen, strict=True))


def _weights(nest: Nest, b: int, g: int, at: dict) -> frozenset:
    image = b if nest.weights_per_image else None
    return frozenset(itertools.product([image], [g], at["K"], at["C"], range(nest.FY), range(nest.FX)))


def _inputs(nest: Nest, b: int, g: int, at: dict) -> frozenset:
    if nest.transposed:
        return frozenset(itertools.product([b], [g], at["C"], at["OY"], at["OX"]))
    rows = {y * nest.stride[0] + f * nest.dilation[0] for y in at["OY"] for f in range(nest.FY)}
    cols = {x * nest.stride[1] + f * nest.dilation[1] for x in at["OX"] for f in range(nest.FX)}
    rows, cols = rows & set(_unpadded(nest, 0)), cols & set(_unpadded(nest, 1))
    return frozenset(itertools.product([b], [g], at["C"], rows, cols))


def _outputs(nest: Nest, b: int, g: int, at: dict) -> frozenset:
    if not nest.transposed:
        return frozenset(itertools.product([b], [g], at["K"], at["OY"], at["OX"]))
    rows = {y * nest.stride[0] + f for y in at["OY"] for f in range(nest.FY)}
    cols = {x * nest.stride[1] + f for x in at["OX"] for f in range(nest.FX)}
    return frozenset(itertools.product([b], [g], at["K"], rows, cols))


def dram(nest: Nest) -> dict[str, int]:
    """Words between DRAM and buffer, and the largest tiles held; partial sums written and read are counted apart."""
    moved = dict.fromkeys(("dram_w", "dram_i", "dram_o", "dram_psum", "psum_read"), 0)
    held = dict.fromkeys(("tile_w", "tile_i", "tile_o", "tile_psum"), 0)
    steps = list(_steps(nest))
    for _ in range(nest.repeat):
        channels_left: dict[frozenset, int] = {}
        previous: dict[str, tuple] = {}
        in_buffer = None
        for b, g, at in steps:
            index = {
                "w": (b if nest.weights_per_image else 0, g, at["K"], at["C"]),
                "i": (b, g, at["C"], at["OY"], at["OX"]),
                "o": (b, g, at["K"], at["OY"], at["OX"]),
            }
            tiles = {"w": _weights(nest, b, g, at), "i": _inputs(nest, b, g, at), "o": _outputs(nest, b, g, at)}
            for operand in "wi":
                if previous.get(operand) != index[operand]:
                    moved[f"dram_{operand}"] += len(tiles[operand])
            if previous.get("o") != index["o"]:
                if in_buffer is not None:
                    moved["dram_psum" if channels_left[in_buffer] else "dram_o"] += len(in_buffer)
                in_buffer = tiles["o"]
                if in_buffer in channels_left:
                    moved["psum_read"] += len(in_buffer)
                channels_left.setdefault(in_buffer, nest.C)
            channels_left[in_buffer] -= len(at["C"])
            previous = index
            for operand in "wio":
                held[f"tile_{operand}"] = max(held[f"tile_{operand}"], len(tiles[operand]))
            if channels_left[in_buffer]:
                held["tile_psum"] = max(held["tile_psum"], len(in_buffer))
        moved["dram_o"] += len(in_buffer)
        assert not any(channels_left.values())
    return {**moved, **held}


def _row_of_taps(nest: Nest, run: list[tuple[int, int]], shift: bool) -> int:
    """Input positions read for the FX taps of one filter row, for a run of (row, column) pixels."""
    if not shift:
        return len(run) * nest.FX
    if nest.transposed:
        return len(run)
    return len({(y, x * nest.stride[1] + f * nest.dilation[1]) for y, x in run for f in range(nest.FX)})


def array(
    nest: Nest, rows: int, cols: int, lanes: int, shift: bool, accumulator_words: Fraction
) -> dict[str, int | Fraction]:
    """Cycles of the array and buffer words on its side, in one mode."""
    count: dict[str, int | Fraction] = dict.fromkeys(("cycles", "sram_w", "sram_i", "sram_psum", "macs"), 0)
    finished: set = set()
    for b, g, at in _steps(nest):
        pixels = list(itertools.product(at["OY"], at["OX"]))
        first, last = at["C"][0] == 0, at["C"][-1] == nest.C - 1
        for k_lanes in _pieces(len(at["K"]), rows):
            for start in range(0, len(pixels), cols * lanes):
                run = pixels[start : start + cols * lanes]
                for _c, _fy in itertools.product(at["C"], range(nest.FY)):
                    count["sram_i"] += Fraction(_row_of_taps(nest, run, shift), lanes)
                    for _fx in range(nest.FX):
                        count["cycles"] += 1
                        count["sram_w"] += len(k_lanes)
                        count["macs"] += len(k_lanes) * len(run)
        outputs = _outputs(nest, b, g, at)
        count["sram_psum"] += accumulator_words * len(outputs) * ((not first) + (not last))
        if last:
            finished |= outputs
    totals = {**count, "sram_o": Fraction(len(finished), lanes)}
    return {name: value * nest.repeat for name, value in totals.items()}
