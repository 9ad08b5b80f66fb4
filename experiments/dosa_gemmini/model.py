"""DOSA's model of a weight-stationary Gemmini: words moved, energy, cycles, and the hardware that mappings need.

DRAM -> scratchpad (W, I; 8-bit words) and accumulator (O; 32-bit words, one bank a column) -> weight register -> MAC.
Rows take C, columns take K; the accumulator tiles every dim, with P, Q, C, R, S, K from the innermost loop out; DRAM
loops over what is left, in any order. P is paired with R and Wstride, Q with S and Hstride.

Facts, formulas and rules of counting: github.com/ucb-bar/dosa, commit a7a3239 (MICRO 2023, doi
10.1145/3613424.3623797), as listed in `reference/dosa_baseline.json`; `accesses_from_mapping` in
dataset/common/mapping_utils.py is the only source of the order-dependent rules. Energy is in uJ here, as DOSA gives it.
"""

import csv
import dataclasses
import math
import pathlib
from collections.abc import Sequence

HERE = pathlib.Path(__file__).parent
DIMS = "RSPQCKN"  # order of a flat mapping of DOSA
ACCUMULATOR_ORDER = "PQNCRSK"  # innermost first; fixed by the map space
MAC_PJ, REGISTER_PJ, DRAM_PJ = 0.5608, 0.48746172, 100.0  # a MAC; a word read, updated or filled
ACCUMULATOR_PJ, ACCUMULATOR_PJ_PER_KB = 1.94, 0.1005  # the KB are those of one bank
SCRATCHPAD_PJ, SCRATCHPAD_PJ_PER_KB = 0.49, 0.02513
DRAM_WORDS_PER_CYCLE = 8.0
PE_LIMIT = 128  # largest side of the array that DOSA samples
UJ = 1e-6  # one pJ


@dataclasses.dataclass(frozen=True)
class Layer:
    """Loop bounds of one layer; batch N is 1. `count` is how often the network has it."""

    name: str
    R: int
    S: int
    P: int
    Q: int
    C: int
    K: int
    stride_p: int = 1
    stride_q: int = 1
    count: int = 1

    def __post_init__(self):
        for field in ("R", "S", "P", "Q", "C", "K", "stride_p", "stride_q", "count"):
            if getattr(self, field) < 1:
                raise ValueError(f"{self.name}: {field} is {getattr(self, field)}; give a whole number of at least 1")

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one run of the layer."""
        return self.R * self.S * self.P * self.Q * self.C * self.K

    @property
    def outputs(self) -> int:
        """Output words."""
        return self.P * self.Q * self.K

    def bound(self, dim: str) -> int:
        """Bound of one dim of DIMS."""
        return 1 if dim == "N" else getattr(self, dim)


@dataclasses.dataclass(frozen=True)
class Mapping:
    """One mapping: rows (spatial C), columns (spatial K), accumulator factors of RSPQCK, DRAM order innermost first.

    DRAM loops over bound / (spatial * accumulator) of every dim; every product must equal the bound exactly.
    """

    rows: int
    columns: int
    inner: tuple[int, int, int, int, int, int]
    order: str  # of DIMS, innermost first

    def factor(self, dim: str) -> int:
        """Accumulator factor of a dim."""
        return 1 if dim == "N" else self.inner[DIMS.index(dim)]

    def tile(self, dim: str) -> int:
        """Extent that the scratchpad holds: accumulator factor times spatial factor."""
        return self.factor(dim) * {"C": self.rows, "K": self.columns}.get(dim, 1)

    def outer(self, layer: Layer) -> dict[str, int]:
        """DRAM factor of every dim; ValueError unless the factors multiply to the bounds."""
        bad = [d for d in DIMS if layer.bound(d) % self.tile(d)]
        if bad:
            raise ValueError(
                f"{layer.name}: tile {self.tile(bad[0])} does not divide {bad[0]} = {layer.bound(bad[0])}; "
                "factors of a legal mapping multiply to the bound"
            )
        if sorted(self.order) != sorted(DIMS):
            raise ValueError(f"{layer.name}: order {self.order!r} is no permutation of {DIMS}")
        return {d: layer.bound(d) // self.tile(d) for d in DIMS}


@dataclasses.dataclass(frozen=True)
class Hardware:
    """Side of the square array, scratchpad and accumulator in KB (1,024 byte)."""

    pe_dim: int
    sp_kb: float
    acc_kb: float

    @property
    def accumulator_pj(self) -> float:
        """Energy of one access to a bank of the accumulator [pJ]."""
        return ACCUMULATOR_PJ + ACCUMULATOR_PJ_PER_KB * self.acc_kb / self.pe_dim

    @property
    def scratchpad_pj(self) -> float:
        """Energy of one access to the scratchpad [pJ]."""
        return SCRATCHPAD_PJ + SCRATCHPAD_PJ_PER_KB * self.sp_kb


@dataclasses.dataclass(frozen=True)
class Counts:
    """Words read, updated and filled per level in one run of a layer, and what the tiles occupy."""

    register: float
    accumulator: float
    scratchpad: float
    dram: float
    sp_bytes: int
    bank_words: int


def footprint(p: float, q: float, r: float, s: float, layer: Layer) -> float:
    """Input rows times columns under p x q outputs and an r x s window."""
    return ((p - 1) * layer.stride_p + r) * ((q - 1) * layer.stride_q + s)


def outward_product(outer: dict[str, int], order: Sequence[str], relevant: str) -> int:
    """Product of the loops from the innermost that matters to an operand outward: those inside it reuse the tile."""
    product, started = 1, False
    for dim in order:
        started = started or (outer[dim] > 1 and dim in relevant)
        if started:
            product *= outer[dim]
    return product


def _fresh_edge(inner_p: int, inner_r: int, stride: int, after_window: bool) -> int:
    """New input rows when the innermost DRAM loop moves on by one tile, beside (inner_p - 1) * stride."""
    if inner_r == 1:
        return 1
    if not after_window:
        return stride
    if inner_p == 1:
        return inner_r
    return inner_r - 1 if inner_p <= inner_r else max(stride, inner_r)


def input_fills(layer: Layer, mapping: Mapping) -> float:
    """Input words that enter the scratchpad, with DOSA's rules for the innermost DRAM loop.

    A P (or Q) loop that is first fetches only new rows (columns) after its first pass. An R (or S) loop that is first
    widens the window of the tile instead of fetching it again; the P (or Q) loop right after it then counts as first.
    Positions are literal: loops of factor 1 stand in the order too.
    """
    outer, order = mapping.outer(layer), mapping.order
    window = {dim: mapping.factor(dim) for dim in "PQRS"}
    if order[0] in "RS":
        window[order[0]] *= outer[order[0]]
    after_window = order[:2] in ("RP", "SQ")
    lead, rest = (order[1], order[2:]) if after_window else (order[0], order[1:])
    reused = lead in "PQRS" and outer[lead] > 1
    product, started = 1, reused
    for dim in rest if lead in "PQRS" else order:
        started = started or (outer[dim] > 1 and dim != "K")
        product *= outer[dim] if started else 1
    fresh = 0.0
    rows, columns = (window["P"] - 1) * layer.stride_p, (window["Q"] - 1) * layer.stride_q
    if lead == "P":
        edge = _fresh_edge(window["P"], window["R"], layer.stride_p, after_window)
        fresh = (rows + edge) * (columns + window["S"]) * (outer["P"] - 1)
    elif lead == "Q":
        edge = _fresh_edge(window["Q"], window["S"], layer.stride_q, after_window)
        fresh = (rows + window["R"]) * (columns + edge) * (outer["Q"] - 1)
    return mapping.tile("C") * product * (fresh + (rows + window["R"]) * (columns + window["S"]))


def counts(layer: Layer, mapping: Mapping) -> Counts:
    """Words moved at each level and what the tiles occupy; ValueError for factors that do not multiply to the bounds.

    Reads, updates and fills count alike; the first read of every output is elided.
    """
    outer, order = mapping.outer(layer), mapping.order
    inner = {dim: mapping.factor(dim) for dim in DIMS}
    rows, columns, macs = mapping.rows, mapping.columns, layer.macs
    tile_w = math.prod(mapping.tile(dim) for dim in "RSCK")
    bank = inner["P"] * inner["Q"] * inner["K"]
    tile_i = mapping.tile("C") * footprint(inner["P"], inner["Q"], inner["R"], inner["S"], layer)
    loops = [(dim, inner[dim]) for dim in ACCUMULATOR_ORDER] + [(dim, outer[dim]) for dim in order]
    first = next((i for i, (dim, n) in enumerate(loops) if n > 1 and dim in "RSCK"), len(loops))
    register_fills = rows * columns * math.prod(n for _, n in loops[first:])
    fills_w = tile_w * outward_product(outer, order, "RSCK")
    fills_i = input_fills(layer, mapping)
    fills_o = bank * columns * outward_product(outer, order, "PQKN")
    return Counts(
        register=macs + register_fills,
        accumulator=2 * macs / rows - layer.outputs + fills_o,
        scratchpad=register_fills + fills_w + macs / columns + fills_i,
        dram=fills_w + fills_i + 2 * fills_o - layer.outputs,
        sp_bytes=int(tile_w + tile_i),
        bank_words=bank,
    )


def energy_uj(layer: Layer, count: Counts, hardware: Hardware) -> float:
    """Energy of one run of the layer [uJ]."""
    accesses_pj = (
        MAC_PJ * layer.macs
        + REGISTER_PJ * count.register
        + hardware.accumulator_pj * count.accumulator
        + hardware.scratchpad_pj * count.scratchpad
        + DRAM_PJ * count.dram
    )
    return accesses_pj * UJ


def cycles(layer: Layer, mapping: Mapping, count: Counts, hardware: Hardware) -> float:
    """Cycles of one run of the layer: the slowest of array, accumulator, scratchpad and DRAM."""
    return max(
        layer.macs / (mapping.rows * mapping.columns),
        count.accumulator / (2 * mapping.columns),
        count.scratchpad / (2 * hardware.pe_dim),
        count.dram / DRAM_WORDS_PER_CYCLE,
    )


def layers() -> list[Layer]:
    """The 24 layers of ResNet-50 that DOSA distinguishes, from layers.csv."""
    with (HERE / "layers.csv").open(newline="") as file:
        return [Layer(row.pop("name"), **{k: int(v) for k, v in row.items()}) for row in csv.DictReader(file)]


@dataclasses.dataclass(frozen=True)
class Price:
    """A network on one hardware."""

    energy_uj: float
    cycles: float
    hardware: Hardware
    per_layer: tuple[tuple[float, float], ...]  # (uJ, cycles) of one run

    @property
    def edp(self) -> float:
        """(sum of energies) x (sum of cycles) [uJ*cycles]."""
        return self.energy_uj * self.cycles


def price(network: Sequence[Layer], mappings: Sequence[Mapping], hardware: Hardware | None = None) -> Price:
    """Price of legal mappings, by default on the smallest hardware that runs them; ValueError where it is small."""
    found = [counts(layer, mapping) for layer, mapping in zip(network, mappings, strict=True)]
    needed = needed_hardware(mappings, found)
    chip = needed if hardware is None else hardware
    for name in ("pe_dim", "sp_kb", "acc_kb"):
        if getattr(needed, name) > math.ceil(getattr(chip, name)):
            have = getattr(chip, name)
            raise ValueError(f"{name}: the mappings need {getattr(needed, name)}, the hardware has {have}")
    rows = tuple(
        (energy_uj(layer, count, chip), cycles(layer, mapping, count, chip))
        for layer, mapping, count in zip(network, mappings, found, strict=True)
    )
    energy = sum(layer.count * row[0] for layer, row in zip(network, rows, strict=True))
    return Price(energy, sum(layer.count * row[1] for layer, row in zip(network, rows, strict=True)), chip, rows)


def needed_hardware(mappings: Sequence[Mapping], all_counts: Sequence[Counts]) -> Hardware:
    """The smallest hardware that runs every mapping, in whole KB."""
    pe = max(2, *(max(m.rows, m.columns) for m in mappings))
    sp_kb = math.ceil(max(c.sp_bytes for c in all_counts) / 1024)
    return Hardware(pe, sp_kb, math.ceil(pe * max(c.bank_words for c in all_counts) * 4 / 1024))
