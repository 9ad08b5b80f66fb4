"""What a hierarchy file may say: array, memories and ports; every number with its provenance.

A number is written {value: 128, unit: kB, source: "where it stands", assumed: false}, an assumed one with the interval
that it may lie in where one is known: interval: [64, 256]. Units: `cooptim.units`.

Fields are described where they stand; `cooptim machines schema` prints them all.

W and I are filled by write_from_high and handed on by read_to_low. O comes by write_from_low, leaves by read_to_high;
its partial sums return by write_from_high and read_to_low. Every operand must be held by the last memory, and each
memory that holds it must serve what it moves there.
"""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from cooptim.hardware.schema import Quantity, Rule

SCHEMA_VERSION = 1
Operand = Literal["W", "I", "O"]
Direction = Literal["read_to_low", "write_from_low", "read_to_high", "write_from_high"]
_COUNT = Rule("count", 1, 1e6, whole=True)
_SIZE = Rule("size", 0, above=True, whole=True)
_ENERGY = Rule("energy")


def _require_once(place: str, names: Sequence[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{place}: {', '.join(twice)} more than once; legal: each once")


def _spell(numbers: Sequence[float]) -> str:
    return ", ".join(f"{number:g}" for number in numbers)


def _require_rising(place: str, names: Sequence[str], section: BaseModel) -> None:
    """Least, present and largest value in that order, where they are given."""
    found = [q for q in (getattr(section, name) for name in names) if q is not None]
    values = [q.value for q in found]
    if values != sorted(values):
        unit = "" if found[0].quantity == "count" else " bit"
        kind = names[1]
        raise ValueError(f"{place}: {', '.join(names)} {_spell(values)}{unit}; legal: min <= {kind} <= max")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ArrayDim(_Strict):
    """One dimension of the array."""

    name: str = Field(pattern=r"^\w+$", description="name of the dimension")
    size: Annotated[Quantity, _COUNT] = Field(description="units along it")
    min_size: Annotated[Quantity, _COUNT] | None = Field(
        None, description="smallest that can be built; without min and max the size is given"
    )
    max_size: Annotated[Quantity, _COUNT] | None = Field(None, description="largest that can be built")
    step_size: Annotated[Quantity, _COUNT] | None = Field(None, description="what can be built: multiples of this")

    @model_validator(mode="after")
    def _ordered(self) -> "ArrayDim":
        _require_rising(f"array dimension {self.name}", ("min_size", "size", "max_size"), self)
        return self


class ArraySection(_Strict):
    """The MAC array."""

    dims: Annotated[list[ArrayDim], Field(min_length=1)]
    systolic: list[str] = Field(description="dimensions along which operands hop one unit a cycle")
    mac: Annotated[Quantity, _ENERGY] = Field(description="energy of one multiply-accumulate")
    clock: Annotated[Quantity, Rule("frequency", above=True)] = Field(description="cycles a second")
    area: Annotated[Quantity, Rule("area")] | None = Field(None, description="of one unit of the array; left out: 0")
    leakage: Annotated[Quantity, Rule("power")] | None = Field(
        None, description="of one unit of the array; left out: 0"
    )


class PortSection(_Strict):
    """One port."""

    name: str = Field(description="name of the port")
    kind: Literal["read", "write", "read_write"] = Field(description="what it can do")
    width: Annotated[Quantity, _SIZE] = Field(description="bits a cycle and an access")
    granule: Annotated[Quantity, _SIZE] = Field(description="transfers round up to it")
    at: Annotated[Quantity, _SIZE] | None = Field(
        None, description="width at which read and write hold; they grow in proportion to it; left out: at any"
    )
    min_width: Annotated[Quantity, _SIZE] | None = Field(
        None, description="smallest that can be built, in granules; without min and max the width is given"
    )
    max_width: Annotated[Quantity, _SIZE] | None = Field(None, description="largest that can be built")
    area: Annotated[Quantity, Rule("area_per_bit")] | None = Field(None, description="area a bit of width; left out: 0")
    serves: Annotated[list[Annotated[list[str], Field(min_length=2, max_length=2)]], Field(min_length=1)] = Field(
        description="[operand, direction] pairs, each at one port: seen from the memory, low is towards the MACs"
    )

    @model_validator(mode="after")
    def _agrees(self) -> "PortSection":
        _require_once(f"port {self.name}: serves", [f"[{', '.join(pair)}]" for pair in self.serves])
        for operand, direction in self.serves:
            if operand not in ("W", "I", "O") or direction not in Direction.__args__:  # type: ignore[attr-defined]
                raise ValueError(
                    f"port {self.name} serves [{operand}, {direction}]; legal: W, I or O, and "
                    f"{', '.join(Direction.__args__)}"  # type: ignore[attr-defined]
                )
            if operand != "O" and direction in ("write_from_low", "read_to_high"):
                raise ValueError(
                    f"port {self.name} serves [{operand}, {direction}], but {operand} moves only towards the MACs; "
                    "legal: read_to_low, write_from_high"
                )
            need = direction.split("_")[0]
            if self.kind not in (need, "read_write"):
                raise ValueError(f"port {self.name} is a {self.kind} port and serves {direction}; legal: a {need} port")
        if self.granule.value > self.width.value:
            raise ValueError(
                f"port {self.name}: granule {self.granule.value:g} bit above its width {self.width.value:g} bit; "
                "legal: at most the width"
            )
        _require_rising(f"port {self.name}", ("min_width", "width", "max_width"), self)
        if self.min_width is not None and self.min_width.value < self.granule.value:
            raise ValueError(
                f"port {self.name}: min_width {self.min_width.value:g} bit below its granule {self.granule.value:g} "
                "bit; legal: from the granule on"
            )
        return self


class TableRow(_Strict):
    """One point of the law of energy over size."""

    size: Annotated[Quantity, _SIZE] = Field(description="capacity")
    read: Annotated[Quantity, Rule("energy", above=True)] = Field(
        description="energy of reading one word of the port's width at that capacity"
    )


class MemorySection(_Strict):
    """One memory."""

    name: str = Field(pattern=r"^\w+$", description="name of the memory")
    operands: Annotated[list[Operand], Field(min_length=1)] = Field(description="what it holds; several share it")
    serves: list[str] = Field(
        description="array dimensions that one instance serves; along the others it is replicated"
    )
    double_buffered: Literal["room", "always", "never"] = Field(
        "room", description="room: where its free part allows it"
    )
    size: Annotated[Quantity, _SIZE] | None = Field(
        None, description="capacity of one instance; left out: without limit"
    )
    read: Annotated[Quantity, _ENERGY] = Field(description="energy of one access of a port's full width, at size `at`")
    write: Annotated[Quantity, _ENERGY] = Field(description="energy of one access of a port's full width, at size `at`")
    at: Annotated[Quantity, _SIZE] | None = Field(None, description="size at which the energies hold; left out: `size`")
    size_exponent: Annotated[Quantity, Rule("ratio", 0, 2)] | None = Field(
        None, description="energies grow as (size / at)^exponent; left out: 0.5, the square-root law; 0: constant"
    )
    table: Annotated[list[TableRow], Field(min_length=2)] | None = Field(
        None, description="energies of both kinds follow it instead, linear between; sizes rise"
    )
    min_size: Annotated[Quantity, _SIZE] | None = Field(
        None, description="smallest that can be built; without min and max the size is given"
    )
    max_size: Annotated[Quantity, _SIZE] | None = Field(None, description="largest that can be built")
    step_size: Annotated[Quantity, _SIZE] | None = Field(None, description="what can be built: multiples of this")
    area: Annotated[Quantity, Rule("area_per_bit")] | None = Field(None, description="area a bit; left out: 0")
    leakage: Annotated[Quantity, Rule("power")] | None = Field(
        None, description="power of one instance at size `at`; left out: 0"
    )
    ports: Annotated[list[PortSection], Field(min_length=1)]

    @model_validator(mode="after")
    def _ordered(self) -> "MemorySection":
        _require_rising(f"memory {self.name}", ("min_size", "size", "max_size"), self)
        if self.size is None:
            odd = [
                name for name in ("at", "table", "min_size", "max_size", "step_size", "leakage") if getattr(self, name)
            ]
            if odd:
                raise ValueError(
                    f"memory {self.name}: {', '.join(odd)} without size; legal: a size, or none of them for a memory "
                    "without limit"
                )
        self._require_table()
        _require_once(f"memory {self.name}: operands", self.operands)
        _require_once(f"memory {self.name}: serves", self.serves)
        _require_once(f"memory {self.name}: ports", [port.name for port in self.ports])
        pairs = [f"[{operand}, {direction}]" for port in self.ports for operand, direction in port.serves]
        _require_once(f"memory {self.name}: served by its ports", pairs)
        for port in self.ports:
            for operand, _ in port.serves:
                if operand not in self.operands:
                    raise ValueError(
                        f"memory {self.name}: port {port.name} serves {operand}, which it does not hold; legal: "
                        f"{', '.join(self.operands)}"
                    )
        return self

    def _require_table(self) -> None:
        if not self.table:
            return
        if self.size_exponent is not None:
            raise ValueError(f"memory {self.name}: size_exponent beside table; legal: one law of energy over size")
        sizes = [row.size.value for row in self.table]
        if sizes != sorted(set(sizes)):
            raise ValueError(f"memory {self.name}: table sizes {_spell(sizes)} bit; legal: rising")
        for name in ("min_size", "at", "size", "max_size"):
            found = getattr(self, name)
            if found is not None and not sizes[0] <= found.value <= sizes[-1]:
                raise ValueError(
                    f"memory {self.name}: {name} {found.value:g} bit outside its table; legal: {sizes[0]:g} to "
                    f"{sizes[-1]:g} bit, or more rows"
                )


class HierarchySchema(_Strict):
    """A whole hierarchy file."""

    schema_version: int = Field(description="version of this schema: 1")
    name: str = Field(pattern=r"^[a-z0-9_]+$", description="name of the machine: lower case, digits, underscores")
    title: str = Field(description="what it is, for people")
    illustrative: bool = Field(description='true where no silicon checks the numbers: shown as "no silicon check"')
    array: ArraySection
    memories: Annotated[list[MemorySection], Field(min_length=1)] = Field(
        description="nearest the MACs first; an operand's levels are those that list it: one that it bypasses does not"
    )

    @model_validator(mode="after")
    def _consistent(self) -> "HierarchySchema":
        if self.schema_version != SCHEMA_VERSION:
            raise ValueError(f"schema_version {self.schema_version}; legal: {SCHEMA_VERSION}")
        dims = [dim.name for dim in self.array.dims]
        _require_once("array.dims", dims)
        _require_once("array.systolic", self.array.systolic)
        _require_once("memories", [m.name for m in self.memories])
        for place, used in [("array.systolic", self.array.systolic), *((m.name, m.serves) for m in self.memories)]:
            for name in used:
                if name not in dims:
                    raise ValueError(f"{place}: array dimension '{name}' is unknown; legal: {', '.join(dims)}")
        return self
