"""What a machine file may say: sections, fields, their quantities and bounds; every number with its provenance."""

import dataclasses
import math
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, model_validator
from pydantic_core import CoreSchema, core_schema

from cooptim import units

SCHEMA_VERSION = 1


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Number(_Strict):
    """One number as the file states it.

    Attributes:
      interval: lowest and highest value that the sources or the assumption allow, in `unit`; includes `value`.
      assumed: true when no source states the number (fitted, derived, recalled or chosen).
    """

    value: float
    unit: str
    source: str = Field(min_length=1)
    interval: Annotated[list[float], Field(min_length=2, max_length=2)] | None = None
    assumed: bool


class Flag(_Strict):
    """One yes or no, with its source."""

    value: bool
    source: str = Field(min_length=1)
    assumed: bool


class Lanes(_Strict):
    """Subwords a MAC splits into, one entry a mode; the slot is the datapath's width over it."""

    value: Annotated[list[int], Field(min_length=1)]
    unit: str
    source: str = Field(min_length=1)
    assumed: bool

    @model_validator(mode="after")
    def _distinct(self) -> "Lanes":
        if self.unit != "1" or min(self.value) < 1 or len(set(self.value)) != len(self.value):
            raise ValueError(f"lanes {self.value} [{self.unit}]; legal: distinct counts from 1 on, unit 1")
        return self


@dataclasses.dataclass(frozen=True)
class Quantity:
    """A number in coherent units, with where it comes from.

    Attributes:
      value, interval: in the package's coherent unit of `quantity`. stated, unit: as the file writes them.
    """

    value: float
    quantity: str
    stated: float
    unit: str
    source: str
    interval: tuple[float, float] | None
    assumed: bool

    def at(self, value: float) -> "Quantity":
        """The same entry with another value (coherent units), for sweeps; the interval stays."""
        scale = self.value / self.stated if self.stated else 1.0
        return dataclasses.replace(self, value=value, stated=value / scale)


def coherent_unit(name: str) -> str:
    """The coherent unit of a quantity, the one whose factor is 1."""
    return next(unit for unit in units.unit_names(name) if units.convert(1.0, unit, name) == 1.0)


@dataclasses.dataclass(frozen=True)
class Rule:
    """What a field accepts: a Number of this quantity in [low, high], or (low, high] with `above`; made a Quantity."""

    quantity: str
    low: float = 0.0
    high: float = math.inf
    above: bool = False
    whole: bool = False

    def __get_pydantic_core_schema__(self, _: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Tells pydantic to read a Number first and to check it here."""
        return core_schema.no_info_after_validator_function(self.check, handler.generate_schema(Number))

    def check(self, number: Number) -> Quantity:
        """The number in coherent units; ValueError says what was found and what is legal."""
        spelled = units.unit_names(self.quantity)
        if number.unit not in spelled:
            raise ValueError(f"unit '{number.unit}', which is none of {self.quantity}; legal: {', '.join(spelled)}")
        value = units.convert(number.value, number.unit, self.quantity)
        span = [units.convert(x, number.unit, self.quantity) for x in (number.interval or [])]
        for x in [value, *span]:
            if not math.isfinite(x) or x < self.low or (self.above and x <= self.low) or x > self.high:
                raise ValueError(f"{x:g} {coherent_unit(self.quantity)}; legal: {self.text}")
        if self.whole and value != int(value):
            raise ValueError(f"{value:g}; legal: a whole number")
        if span and not span[0] <= value <= span[1]:
            raise ValueError(f"value {number.value:g} outside its own interval {number.interval}; legal: inside it")
        interval = (span[0], span[1]) if span else None
        return Quantity(value, self.quantity, number.value, number.unit, number.source, interval, number.assumed)

    @property
    def text(self) -> str:
        """The legal range in words, in the coherent unit."""
        top = f", at most {self.high:g}" if self.high < math.inf else ""
        return f"a finite number {'above' if self.above else 'at least'} {self.low:g}{top}"


_COUNT = Rule("count", 1, 1e6, whole=True)
_BITS = Rule("size", 1, 64, whole=True)
_SHARE = Rule("ratio", 0, 1)
_VOLT = Rule("voltage", 0, 10, above=True)
_SIZE = Rule("size", 0, above=True)
_CLOCK = Rule("frequency", above=True)


class Shares(_Strict):
    """Where the reference power goes; the four add up to 1."""

    datapath: Annotated[Quantity, _SHARE] = Field(
        description="busy and idle lanes: the part that widths and zeros scale"
    )
    sram: Annotated[Quantity, _SHARE] = Field(description="buffer accesses of all operands")
    control: Annotated[Quantity, _SHARE] = Field(
        description="clock, instructions and the rest that neither width nor zeros change"
    )
    leakage: Annotated[Quantity, _SHARE] = Field(description="leakage of the whole chip")

    @model_validator(mode="after")
    def _whole(self) -> "Shares":
        total = self.datapath.value + self.sram.value + self.control.value + self.leakage.value
        if abs(total - 1.0) > 1e-9:
            raise ValueError(f"shares datapath + sram + control + leakage = {total:.9g}; legal: exactly 1")
        return self


class ReferenceLayer(_Strict):
    """The layer that is taken to run at the reference point: one row of pixels, dense, stride 1."""

    K: Annotated[Quantity, _COUNT] = Field(description="output channels, a multiple of `datapath.rows`")
    C: Annotated[Quantity, _COUNT] = Field(description="input channels")
    OX: Annotated[Quantity, _COUNT] = Field(description="output pixels, a multiple of `datapath.cols`")
    FY: Annotated[Quantity, _COUNT] = Field(description="filter rows")
    FX: Annotated[Quantity, _COUNT] = Field(description="filter columns")


class Reference(_Strict):
    """A measured operating point: one lane, full width, nominal supply and clock, dense data."""

    power: Annotated[Quantity, Rule("power", above=True)] = Field(
        description="power of the chip at this point, without DRAM"
    )
    busy_fraction: Annotated[Quantity, Rule("ratio", 0, 1, above=True)] = Field(
        description="share of the cycles in which every lane works: throughput over the array's peak"
    )
    layer: ReferenceLayer
    shares: Shares


class DatapathSection(_Strict):
    """The MAC array."""

    rows: Annotated[Quantity, _COUNT] = Field(description="output channels computed at a time")
    cols: Annotated[Quantity, _COUNT] = Field(
        description="output pixels computed at a time, times the lanes of the mode"
    )
    width: Annotated[Quantity, _BITS] = Field(description="widest operand of a MAC")
    accumulator: Annotated[Quantity, Rule("size", 1, 256, whole=True)] = Field(
        description="width of a partial sum that waits in a memory"
    )
    lanes: Lanes = Field(description="subwords a MAC splits into, one entry a mode: divisors of `width`, 1 among them")
    gating_exponent: Annotated[Quantity, Rule("ratio", 0, 4)] = Field(
        description="unused low bits divide the energy of a busy lane by (slot / width in use)^exponent"
    )
    subword_exponent: Annotated[Quantity, Rule("ratio", 0, 4)] = Field(
        description="N subwords divide the energy of a cycle by N^exponent"
    )
    idle_share: Annotated[Quantity, _SHARE] = Field(description="energy of an empty lane over that of a busy one")
    guarded_share: Annotated[Quantity, _SHARE] = Field(
        description="energy of a MAC with a zero operand over that of a busy one"
    )


class SupplySection(_Strict):
    """V-f law, grid and leakage law."""

    nominal_v: Annotated[Quantity, _VOLT] = Field(description="supply of the reference point")
    nominal_clock: Annotated[Quantity, _CLOCK] = Field(
        description="clock of the reference point, the fastest at full width and `nominal_v`"
    )
    floor_v: Annotated[Quantity, _VOLT] = Field(description="lowest supply while a layer runs")
    ceiling_v: Annotated[Quantity, _VOLT] = Field(description="highest supply")
    step_v: Annotated[Quantity, _VOLT] = Field(description="legal supplies: `floor_v` and multiples of this above it")
    step_clock: Annotated[Quantity, _CLOCK] = Field(description="legal clocks: multiples of this")
    threshold_v: Annotated[Quantity, _VOLT] = Field(
        description="threshold of the law clock ~ (V - threshold)^alpha / V"
    )
    alpha: Annotated[Quantity, Rule("ratio", 1, 2.5)] = Field(description="exponent of that law")
    path_share: Annotated[Quantity, Rule("ratio", 0, 0.95)] = Field(
        description="part of the critical path that narrower operands shorten in proportion"
    )
    fixed_share: Annotated[Quantity, _SHARE] = Field(
        description="share of dynamic energy on a rail that stays at `nominal_v`; 0: one rail"
    )
    leakage_exponent: Annotated[Quantity, Rule("ratio", 0, 12)] = Field(description="leakage power ~ V^exponent")
    memory_leakage_share: Annotated[Quantity, _SHARE] = Field(
        description="part of the leakage that grows with the buffer"
    )
    retention_v: Annotated[Quantity, Rule("voltage", 0, 10)] = Field(
        description="supply between inferences; 0: power-gated, nothing stays"
    )

    @model_validator(mode="after")
    def _ordered(self) -> "SupplySection":
        s = {name: getattr(self, name).value for name in type(self).model_fields}
        if not s["threshold_v"] < s["floor_v"] <= s["nominal_v"] <= s["ceiling_v"]:
            raise ValueError(
                f"threshold_v {s['threshold_v']:g}, floor_v {s['floor_v']:g}, nominal_v {s['nominal_v']:g}, "
                f"ceiling_v {s['ceiling_v']:g}; legal: threshold_v < floor_v <= nominal_v <= ceiling_v"
            )
        if s["retention_v"] > s["floor_v"]:
            raise ValueError(f"retention_v {s['retention_v']:g}; legal: 0 (power-gated) to floor_v {s['floor_v']:g}")
        return self


class BufferSection(_Strict):
    """The on-chip buffer."""

    size: Annotated[Quantity, _SIZE] = Field(description="capacity at which the reference power was measured")
    word: Annotated[Quantity, _BITS] = Field(description="width of one access; the datapath's width")
    free: Flag = Field(description="whether the size is a knob of the design")
    min_size: Annotated[Quantity, _SIZE] = Field(description="smallest that can be built")
    max_size: Annotated[Quantity, _SIZE] = Field(description="largest that can be built")
    step_size: Annotated[Quantity, _SIZE] = Field(description="what can be built: multiples of this")
    double_buffered: Flag = Field(
        description="whether tiles take twice their room, one being filled while the other is used"
    )
    input_shift: Flag = Field(
        description="whether inputs shift between pixel lanes along FX and are fetched once a row of taps"
    )

    @model_validator(mode="after")
    def _ordered(self) -> "BufferSection":
        low, size, high = self.min_size.value, self.size.value, self.max_size.value
        if not low <= size <= high:
            raise ValueError(f"min_size {low:g}, size {size:g}, max_size {high:g} bit; legal: min <= size <= max")
        return self


class DramSection(_Strict):
    """Off-chip memory behind one link."""

    coded: Flag = Field(
        description="whether words are coded: a zero 1 bit, another 1 + width, or raw where that is shorter"
    )
    access: Annotated[Quantity, Rule("energy_per_bit")] = Field(
        description="energy of one bit on the link, DRAM included"
    )
    bandwidth: Annotated[Quantity, Rule("bandwidth", above=True)] = Field(description="bits a nanosecond")


class AreaSection(_Strict):
    """Silicon: the total at the stated buffer size, and the buffer's part of it."""

    total: Annotated[Quantity, Rule("area", above=True)] = Field(description="silicon at `buffer.size`")
    memory_share: Annotated[Quantity, _SHARE] = Field(description="the buffer's part of it")


class ChipSection(_Strict):
    """The chip behind the file, for lists and comparisons; no price depends on it."""

    node: Annotated[Quantity, Rule("length", 0, above=True)] = Field(description="technology node")
    process: str = Field(description="kind of process, such as FDSOI, or what is known of it")
    venue: str = Field(description="where the chip was published")
    year: int = Field(description="year of publication")
    peak: Annotated[Quantity, Rule("throughput", 0, above=True)] | None = Field(
        None, description="peak throughput as published, 1 MAC = 2 operations"
    )


class MachineSchema(_Strict):
    """A whole machine file."""

    schema_version: int = Field(description=f"version of this schema: {SCHEMA_VERSION}")
    name: str = Field(pattern=r"^[a-z0-9_]+$", description="name of the machine: lower case, digits, underscores")
    title: str = Field(description="what it is, for people")
    illustrative: bool = Field(description='true where no silicon checks the numbers: shown as "no silicon check"')
    chip: ChipSection | None = None
    reference: Reference
    datapath: DatapathSection
    supply: SupplySection
    buffer: BufferSection
    dram: DramSection
    area: AreaSection

    @model_validator(mode="after")
    def _consistent(self) -> "MachineSchema":
        d, r = self.datapath, self.reference
        width, rows, cols = (int(q.value) for q in (d.width, d.rows, d.cols))
        if self.schema_version != SCHEMA_VERSION:
            raise ValueError(f"schema_version {self.schema_version}; legal: {SCHEMA_VERSION}")
        if 1 not in d.lanes.value or any(width % n for n in d.lanes.value):
            raise ValueError(f"datapath.lanes {d.lanes.value}; legal: divisors of the width {width}, 1 among them")
        if int(self.buffer.word.value) != width:
            raise ValueError(f"buffer.word {self.buffer.word.value:g} bit; legal: the datapath's width, {width} bit")
        if int(r.layer.K.value) % rows or int(r.layer.OX.value) % cols:
            raise ValueError(f"reference.layer does not fill the array; legal: K multiple of {rows}, OX of {cols}")
        return self
