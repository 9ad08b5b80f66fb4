"""A machine file written anew: in other units, or with other values, and every check of the schema repeated."""

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel

from cooptim import units
from cooptim.hardware.load import MachineFile
from cooptim.hardware.quantity import Quantity
from cooptim.hardware.schema import MachineSchema

Spell = Callable[[str, Quantity], Quantity]


def as_written(node: Any, spell: Spell | None = None, path: str = "") -> Any:
    """A section as the YAML reader would hand it over: dictionaries, lists and plain values.

    Args:
      spell: what becomes of each number, given its path ('supply.floor_v'); None keeps them.
    """
    if isinstance(node, Quantity):
        q = node if spell is None else spell(path, node)
        scale = units.convert(1.0, q.unit, q.quantity)
        span = None if q.interval is None else [end / scale for end in q.interval]
        return {"value": q.value / scale, "unit": q.unit, "source": q.source, "interval": span, "assumed": q.assumed}
    if isinstance(node, BaseModel):
        below = {name: (getattr(node, name), f"{path}.{name}".removeprefix(".")) for name in type(node).model_fields}
        return {name: as_written(value, spell, at) for name, (value, at) in below.items() if value is not None}
    if isinstance(node, list | tuple):
        return [as_written(one, spell, f"{path}.{getattr(one, 'name', i)}") for i, one in enumerate(node)]
    return node


def in_other_units(file: MachineFile) -> MachineFile:
    """The same machine, each number in another unit wherever its quantity has one."""

    def other(_: str, q: Quantity) -> Quantity:
        unit = next((unit for unit in units.unit_names(q.quantity) if unit != q.unit), q.unit)
        scale = units.convert(1.0, unit, q.quantity)
        if any(x / scale * scale != x for x in (q.value, *(q.interval or ()))):
            return q  # rounding could carry it past a bound of its field
        return Quantity(
            q.value, q.quantity, q.value / units.convert(1.0, unit, q.quantity), unit, q.source, q.interval, q.assumed
        )

    return MachineFile(file.origin, MachineSchema.model_validate(as_written(file.spec, other)))


def checked_values(file: MachineFile, values: Mapping[str, float]) -> MachineFile:
    """The file with these values (coherent units) by path, and every check repeated, those across fields included.

    Raises ValueError (pydantic's) for values that no file may have.
    """

    def new(path: str, q: Quantity) -> Quantity:
        return q.at(values[path]) if path in values else q

    return MachineFile(file.origin, MachineSchema.model_validate(as_written(file.spec, new)))
