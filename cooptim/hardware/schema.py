"""What a machine file may say: sections, fields, their quantities and bounds; every number with its provenance."""

from typing import Annotated

from pydantic import Field, model_validator

from cooptim.hardware.mechanisms.mechanisms import most_bits
from cooptim.hardware.mechanisms.section import MechanismsSection
from cooptim.hardware.quantity import Flag, Quantity, Rule, Strict
from cooptim.hardware.systolic import SystolicSection

SCHEMA_VERSION = 1


class Lanes(Strict):
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


_COUNT = Rule("count", 1, 1e6, whole=True)
_BITS = Rule("size", 1, 64, whole=True)
_SHARE = Rule("ratio", 0, 1)
_VOLT = Rule("voltage", 0, 10, above=True)
_BIAS = Rule("voltage", -3, 3)
_SIZE = Rule("size", 0, above=True)
_CLOCK = Rule("frequency", above=True)


class Shares(Strict):
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


class ReferenceLayer(Strict):
    """The layer that is taken to run at the reference point: one row of pixels, dense, stride 1."""

    K: Annotated[Quantity, _COUNT] = Field(
        description="output channels, a multiple of `datapath.rows`, of `datapath.cols` in a systolic array"
    )
    C: Annotated[Quantity, _COUNT] = Field(
        description="input channels; in a systolic array they fill `datapath.rows`, with FY x FX where taps lie on rows"
    )
    OX: Annotated[Quantity, _COUNT] = Field(
        description="output pixels, a multiple of `datapath.cols`; in a systolic array at most `accumulators`"
    )
    FY: Annotated[Quantity, _COUNT] = Field(description="filter rows")
    FX: Annotated[Quantity, _COUNT] = Field(description="filter columns")


class ReferenceData(Strict):
    """What the chip worked on at the reference point; its mechanisms then count, as they do when a design is priced."""

    weight_bits: Annotated[Quantity, Rule("size", 1, 64)] = Field(description="width of the weights as stored")
    input_bits: Annotated[Quantity, Rule("size", 1, 64)] = Field(description="width of the inputs as stored")
    weight_density: Annotated[Quantity, Rule("ratio", 0, 1, above=True)] = Field(
        description="share of weights that are not zero"
    )
    input_density: Annotated[Quantity, Rule("ratio", 0, 1, above=True)] = Field(
        description="share of inputs that are not zero"
    )


class Reference(Strict):
    """A measured operating point: one lane, nominal supply and clock; full width and dense unless `data` says more."""

    power: Annotated[Quantity, Rule("power", above=True)] = Field(
        description="power of the chip at this point, without DRAM"
    )
    busy_fraction: Annotated[Quantity, Rule("ratio", 0, 1, above=True)] = Field(
        description="share of the cycles in which every lane works: throughput over the array's peak; with `data`, of "
        "the cycles that the mechanisms leave of the layer"
    )
    layer: ReferenceLayer
    data: ReferenceData | None = None
    shares: Shares


class DatapathSection(Strict):
    """The MAC array."""

    rows: Annotated[Quantity, _COUNT] = Field(
        description="output channels computed at a time; products added up at a time in a systolic array"
    )
    cols: Annotated[Quantity, _COUNT] = Field(
        description="output pixels computed at a time, times the lanes of the mode; output channels in a systolic array"
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
    systolic: SystolicSection | None = None


class SupplySection(Strict):
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
        description="share of dynamic energy, both rails at `nominal_v`, on one that is not scaled; 0: one rail"
    )
    leakage_exponent: Annotated[Quantity, Rule("ratio", 0, 12)] = Field(description="leakage power ~ V^exponent")
    memory_leakage_share: Annotated[Quantity, _SHARE] = Field(
        description="part of the leakage that grows with the buffer"
    )
    retention_v: Annotated[Quantity, Rule("voltage", 0, 10)] = Field(
        description="supply between inferences; 0: power-gated, nothing stays"
    )
    fixed_v: Annotated[Quantity, _VOLT] | None = Field(
        None, description="where the fixed rail stands; left out: at `nominal_v`, as at the reference point"
    )
    fixed_leakage_share: Annotated[Quantity, _SHARE] | None = Field(
        None, description="share of the leakage at `nominal_v` that is the fixed rail's; left out: 0"
    )

    @model_validator(mode="after")
    def _ordered(self) -> "SupplySection":
        s = {name: number.value for name in type(self).model_fields if (number := getattr(self, name)) is not None}
        if not s["threshold_v"] < s["floor_v"] <= s["nominal_v"] <= s["ceiling_v"]:
            raise ValueError(
                f"threshold_v {s['threshold_v']:g}, floor_v {s['floor_v']:g}, nominal_v {s['nominal_v']:g}, "
                f"ceiling_v {s['ceiling_v']:g}; legal: threshold_v < floor_v <= nominal_v <= ceiling_v"
            )
        if s["retention_v"] > s["floor_v"]:
            raise ValueError(f"retention_v {s['retention_v']:g}; legal: 0 (power-gated) to floor_v {s['floor_v']:g}")
        least = max(s["threshold_v"], s["retention_v"])
        if s.get("fixed_v", s["nominal_v"]) <= s["threshold_v"] or s.get("fixed_v", s["nominal_v"]) < s["retention_v"]:
            raise ValueError(f"fixed_v {s['fixed_v']:g}; legal: above threshold_v, not below retention_v ({least:g})")
        return self


class BodyBiasSection(Strict):
    """Body bias; threshold, clock and leakage of the file hold without any."""

    bias: Annotated[Quantity, _BIAS] = Field(description="bias at which the machine runs, forward above 0")
    min_bias: Annotated[Quantity, _BIAS] = Field(description="lowest bias")
    max_bias: Annotated[Quantity, _BIAS] = Field(description="highest bias")
    shift: Annotated[Quantity, _SHARE] = Field(description="fall of the threshold a volt of bias")
    swing: Annotated[Quantity, Rule("voltage", 0, 1, above=True)] = Field(
        description="fall of the threshold that multiplies leakage by ten"
    )

    @model_validator(mode="after")
    def _ordered(self) -> "BodyBiasSection":
        low, bias, high = self.min_bias.value, self.bias.value, self.max_bias.value
        if not low <= min(bias, 0.0) <= max(bias, 0.0) <= high:
            raise ValueError(
                f"min_bias {low:g}, bias {bias:g}, max_bias {high:g} V; legal: min <= bias <= max, and 0 in between"
            )
        return self


class SwitchingSection(Strict):
    """What a change of mode or supply between consecutive layers takes; left out: nothing."""

    rail: Annotated[Quantity, Rule("capacitance")] = Field(description="the scaled rail with all that hangs on it")
    mode_settle: Annotated[Quantity, Rule("time")] = Field(description="settle time of a change of mode")
    step_settle: Annotated[Quantity, Rule("time")] = Field(
        description="settle time of each `supply.step_v` that the supply moves"
    )


class BufferSection(Strict):
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


class DramSection(Strict):
    """Off-chip memory behind one link."""

    coded: Flag = Field(
        description="whether words are coded: a zero 1 bit, another 1 + width, or raw where that is shorter"
    )
    access: Annotated[Quantity, Rule("energy_per_bit")] = Field(
        description="energy of one bit on the link, DRAM included"
    )
    bandwidth: Annotated[Quantity, Rule("bandwidth", above=True)] = Field(description="bits a nanosecond")


class AreaSection(Strict):
    """Silicon: the total at the stated buffer size, and the buffer's part of it."""

    total: Annotated[Quantity, Rule("area", above=True)] = Field(description="silicon at `buffer.size`")
    memory_share: Annotated[Quantity, _SHARE] = Field(description="the buffer's part of it")


class ChipSection(Strict):
    """The chip behind the file, for lists and comparisons; no price depends on it."""

    node: Annotated[Quantity, Rule("length", 0, above=True)] = Field(description="technology node")
    process: str = Field(description="kind of process, such as FDSOI, or what is known of it")
    venue: str = Field(description="where the chip was published")
    year: int = Field(description="year of publication")
    peak: Annotated[Quantity, Rule("throughput", 0, above=True)] | None = Field(
        None, description="peak throughput as published, 1 MAC = 2 operations"
    )


class MachineSchema(Strict):
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
    mechanisms: MechanismsSection = Field(default=MechanismsSection(), description="what the chip has beyond these")
    body_bias: BodyBiasSection | None = None
    switching: SwitchingSection | None = None

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
        if (fault := self.mechanisms.fault(self)) is not None:
            raise ValueError(fault)
        if (data := r.data) is not None:
            for name, top in zip(("weight_bits", "input_bits"), most_bits(self.mechanisms.build(), width), strict=True):
                if (bits := getattr(data, name).value) > top:
                    raise ValueError(
                        f"reference.data.{name}: {bits:g} bit; legal: at most the {top:g} bit that datapath and "
                        "mechanisms hold; state the width as stored, or widen either"
                    )
        if r.data is not None and d.systolic is not None:
            raise ValueError("reference.data with datapath.systolic: its words are counted dense; legal: one of them")
        if d.systolic is not None:
            if (fault := d.systolic.fault(self)) is not None:
                raise ValueError(fault)
        elif int(r.layer.K.value) % rows or int(r.layer.OX.value) % cols:
            raise ValueError(f"reference.layer does not fill the array; legal: K multiple of {rows}, OX of {cols}")
        if self.body_bias is not None:
            highest = self.supply.threshold_v.value - self.body_bias.shift.value * self.body_bias.min_bias.value
            if highest >= self.supply.floor_v.value:
                raise ValueError(
                    f"body_bias.min_bias {self.body_bias.min_bias.value:g} V lifts the threshold to {highest:g} V; "
                    f"legal: below supply.floor_v {self.supply.floor_v.value:g} V: raise min_bias or the floor"
                )
        return self
