"""What a hierarchy file may say: array, memories and ports; every number with value, unit, source, interval.

| field | meaning |
|---|---|
| array.dims | name and size of each dimension of the MAC array |
| array.systolic | dimensions along which operands hop one unit a cycle |
| array.mac, array.clock | energy of one multiply-accumulate; cycles a second |
| memories[] | nearest the MACs first; an operand's levels are those that list it: one that it bypasses does not |
| .operands | what it holds; several share it |
| .serves | array dimensions that one instance serves; along the others it is replicated |
| .size | capacity of one instance; left out: without limit |
| .read, .write | energy of one access of a port's full width, at size `at` (default: `size`) |
| .size_exponent | energies grow as (size / at)^exponent; left out: 0.5, the square-root law |
| .min_size, .max_size, .step_size | what can be built; left out: the size is given |
| .area, .leakage | per bit, and of the whole at `at`; left out: 0 |
| .double_buffered | room (where its free part allows it), always, never |
| .ports[] | kind read, write or read_write; width: bits a cycle and an access; granule: transfers round up to it |
| .ports[].serves | [operand, direction] pairs; directions read_to_low, write_from_low, read_to_high, write_from_high |
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from cooptim.hardware.schema import Quantity, Rule

SCHEMA_VERSION = 1
Operand = Literal["W", "I", "O"]
Direction = Literal["read_to_low", "write_from_low", "read_to_high", "write_from_high"]
_COUNT = Rule("count", 1, 1e6, whole=True)
_SIZE = Rule("size", 0, above=True)
_ENERGY = Rule("energy")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ArrayDim(_Strict):
    """One dimension of the array."""

    name: str = Field(pattern=r"^\w+$")
    size: Annotated[Quantity, _COUNT]


class ArraySection(_Strict):
    """The MAC array."""

    dims: Annotated[list[ArrayDim], Field(min_length=1)]
    systolic: list[str]
    mac: Annotated[Quantity, _ENERGY]
    clock: Annotated[Quantity, Rule("frequency", above=True)]


class PortSection(_Strict):
    """One port."""

    name: str
    kind: Literal["read", "write", "read_write"]
    width: Annotated[Quantity, _SIZE]
    granule: Annotated[Quantity, _SIZE]
    serves: Annotated[list[Annotated[list[str], Field(min_length=2, max_length=2)]], Field(min_length=1)]

    @model_validator(mode="after")
    def _agrees(self) -> "PortSection":
        for operand, direction in self.serves:
            if operand not in ("W", "I", "O") or direction not in Direction.__args__:  # type: ignore[attr-defined]
                raise ValueError(
                    f"port {self.name} serves [{operand}, {direction}]; legal: W, I or O, and "
                    f"{', '.join(Direction.__args__)}"  # type: ignore[attr-defined]
                )
            need = direction.split("_")[0]
            if self.kind not in (need, "read_write"):
                raise ValueError(f"port {self.name} is a {self.kind} port and serves {direction}; legal: a {need} port")
        if self.granule.value > self.width.value:
            raise ValueError(
                f"port {self.name}: granule {self.granule.value:g} bit above its width {self.width.value:g} bit; "
                "legal: at most the width"
            )
        return self


class MemorySection(_Strict):
    """One memory."""

    name: str = Field(pattern=r"^\w+$")
    operands: Annotated[list[Operand], Field(min_length=1)]
    serves: list[str]
    double_buffered: Literal["room", "always", "never"] = "room"
    size: Annotated[Quantity, _SIZE] | None = None
    read: Annotated[Quantity, _ENERGY]
    write: Annotated[Quantity, _ENERGY]
    at: Annotated[Quantity, _SIZE] | None = None
    size_exponent: Annotated[Quantity, Rule("ratio", 0, 2)] | None = None
    min_size: Annotated[Quantity, _SIZE] | None = None
    max_size: Annotated[Quantity, _SIZE] | None = None
    step_size: Annotated[Quantity, _SIZE] | None = None
    area: Annotated[Quantity, Rule("area_per_bit")] | None = None
    leakage: Annotated[Quantity, Rule("power")] | None = None
    ports: Annotated[list[PortSection], Field(min_length=1)]

    @model_validator(mode="after")
    def _ordered(self) -> "MemorySection":
        bounds = [q.value for q in (self.min_size, self.size, self.max_size) if q is not None]
        if bounds != sorted(bounds):
            raise ValueError(f"memory {self.name}: min_size, size, max_size {bounds} bit; legal: min <= size <= max")
        names = [port.name for port in self.ports]
        if len(set(names)) < len(names):
            raise ValueError(f"memory {self.name}: ports {', '.join(names)}; legal: each name once")
        for port in self.ports:
            for operand, _ in port.serves:
                if operand not in self.operands:
                    raise ValueError(
                        f"memory {self.name}: port {port.name} serves {operand}, which it does not hold; legal: "
                        f"{', '.join(self.operands)}"
                    )
        return self


class HierarchySchema(_Strict):
    """A whole hierarchy file."""

    schema_version: int
    name: str = Field(pattern=r"^[a-z0-9_]+$")
    title: str
    illustrative: bool
    array: ArraySection
    memories: Annotated[list[MemorySection], Field(min_length=1)]

    @model_validator(mode="after")
    def _consistent(self) -> "HierarchySchema":
        if self.schema_version != SCHEMA_VERSION:
            raise ValueError(f"schema_version {self.schema_version}; legal: {SCHEMA_VERSION}")
        dims = [dim.name for dim in self.array.dims]
        for kind, names in (("array.dims", dims), ("memories", [m.name for m in self.memories])):
            if len(set(names)) < len(names):
                raise ValueError(f"{kind} {', '.join(names)}; legal: each name once")
        for place, used in [("array.systolic", self.array.systolic), *((m.name, m.serves) for m in self.memories)]:
            for name in used:
                if name not in dims:
                    raise ValueError(f"{place}: array dimension '{name}' is unknown; legal: {', '.join(dims)}")
        return self
