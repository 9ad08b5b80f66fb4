"""A machine file written anew: in other units, or with other values, and every check of the schema repeated."""

from collections.abc import Mapping

from cooptim import units
from cooptim.hardware.load import MachineFile
from cooptim.hardware.quantity import Quantity
from cooptim.hardware.schema import MachineSchema
from cooptim.hardware.written import as_written


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

    return MachineFile(file.origin, MachineSchema.model_validate(as_written(file.stated, other)), file.size)


def checked_values(file: MachineFile, values: Mapping[str, float]) -> MachineFile:
    """The file with these values (coherent units) by path, and every check repeated, those across fields included.

    Values are those of the file as stated, whatever size its array takes then.

    Raises ValueError (pydantic's) for values that no file may have.
    """

    def new(path: str, q: Quantity) -> Quantity:
        return q.at(values[path]) if path in values else q

    found = MachineFile(file.origin, MachineSchema.model_validate(as_written(file.stated, new)), file.size)
    if found.size is not None:
        MachineSchema.model_validate(as_written(found.spec))
    return found
