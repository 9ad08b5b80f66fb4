"""Memory hierarchies from YAML: the packaged ones, a user's own, and ZigZag's; fields in `hierarchy_schema`."""

import importlib.resources
import math
import pathlib
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ValidationError

from cooptim.hardware.faults import first_fault
from cooptim.hardware.hierarchy import Hierarchy, Memory, Port, require_paths
from cooptim.hardware.hierarchy_schema import ArrayDim, HierarchySchema, MemorySection, PortSection
from cooptim.hardware.load import MachineError
from cooptim.hardware.schema import Quantity
from cooptim.hardware.strict_yaml import StrictYamlError, read_strict
from cooptim.hardware.zigzag import read_zigzag


def hierarchy_names() -> tuple[str, ...]:
    """Names of the hierarchies that come with the package."""
    folder = importlib.resources.files("cooptim.hardware") / "hierarchies"
    return tuple(sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml")))


def load_hierarchy_file(name_or_path: str | pathlib.Path) -> HierarchySchema:
    """The hierarchy file of this name or path, with the provenance of every number.

    Raises MachineError with file, field, what was found, what is legal and the remedy.
    """
    origin, data = _read(str(name_or_path))
    try:
        return HierarchySchema.model_validate(read_strict(data))
    except StrictYamlError as error:
        raise MachineError(f"hierarchy file {origin}: {error}") from None
    except ValidationError as error:
        raise MachineError(f"hierarchy file {origin}: {first_fault(error)}") from None


def hierarchy_numbers(spec: HierarchySchema) -> dict[str, Quantity]:
    """Every number of a hierarchy file with unit, source and interval, by its path ('memories.sram.ports.rw.width')."""
    return dict(_walk(spec, ""))


def _walk(node: Any, path: str) -> Iterator[tuple[str, Quantity]]:
    if isinstance(node, Quantity):
        yield path, node
    elif isinstance(node, BaseModel):
        for name in type(node).model_fields:
            yield from _walk(getattr(node, name), f"{path}.{name}".removeprefix("."))
    elif isinstance(node, list):
        for place, item in enumerate(node):
            yield from _walk(item, f"{path}.{getattr(item, 'name', place)}")


def load_hierarchy(name_or_path: str | pathlib.Path) -> Hierarchy:
    """The hierarchy of this name, of this YAML file, or of a hardware file of ZigZag (it has `operational_array`).

    Raises MachineError with file, field, what was found, what is legal and the remedy.
    """
    text = str(name_or_path)
    if text not in hierarchy_names() and b"operational_array:" in _read(text)[1]:
        return read_zigzag(text)
    spec = load_hierarchy_file(text)
    machine = Hierarchy(
        spec.name,
        tuple((dim.name, int(dim.size.value)) for dim in spec.array.dims),
        tuple(spec.array.systolic),
        tuple(_memory(section) for section in spec.memories),
        spec.array.mac.value,
        spec.array.clock.value,
        array_limits=_limits(spec.array.dims),
        mac_area_mm2=spec.array.area.value if spec.array.area else 0.0,
        mac_leakage_mw=spec.array.leakage.value if spec.array.leakage else 0.0,
    )
    try:
        require_paths(machine)
    except ValueError as error:
        raise MachineError(f"hierarchy file {text}: {error}") from None
    return machine


def hierarchy_source(name_or_path: str | pathlib.Path) -> bytes:
    """The file of this name or path as it stands; MachineError when there is none."""
    return _read(str(name_or_path))[1]


def _read(text: str) -> tuple[str, bytes]:
    if text in hierarchy_names():
        return f"{text}.yaml", (
            importlib.resources.files("cooptim.hardware") / "hierarchies" / f"{text}.yaml"
        ).read_bytes()
    path = pathlib.Path(text)
    if not path.is_file():
        raise MachineError(
            f"hierarchy '{text}': neither a file nor a known name; use a path to a YAML file or one of "
            + ", ".join(hierarchy_names())
        )
    try:
        return text, path.read_bytes()
    except OSError as error:
        raise MachineError(f"hierarchy file {text}: cannot be read ({error.strerror}); check its permissions") from None


def _limits(dims: list[ArrayDim]) -> tuple[tuple[int, int, int], ...]:
    """(least, largest, step) of every dimension; none where all sizes are given."""
    if not any(dim.min_size or dim.max_size for dim in dims):
        return ()
    return tuple(
        (
            int((dim.min_size or dim.size).value),
            int((dim.max_size or dim.size).value),
            int(dim.step_size.value if dim.step_size else 1),
        )
        for dim in dims
    )


def _port(found: PortSection) -> Port:
    free = found.min_width is not None or found.max_width is not None
    return Port(
        found.name,
        found.kind,
        tuple((o, d) for o, d in found.serves),
        found.width.value,
        found.granule.value,
        nominal_bits=found.at.value if found.at else (found.width.value if free else None),
        limits_bits=((found.min_width or found.width).value, (found.max_width or found.width).value) if free else None,
        area_mm2_per_bit=found.area.value if found.area else 0.0,
    )


def _memory(found: MemorySection) -> Memory:
    size = found.size.value if found.size else math.inf
    nominal = found.at.value if found.at else size
    table = tuple((row.size.value, row.read.value) for row in found.table or ())
    return Memory(
        name=found.name,
        operands=tuple(found.operands),
        served_dims=tuple(found.serves),
        double_buffered=found.double_buffered,
        ports=tuple(_port(p) for p in found.ports),
        size_bits=size,
        read_pj=found.read.value,
        write_pj=found.write.value,
        nominal_bits=nominal,
        size_exponent=found.size_exponent.value if found.size_exponent else 0.5,
        min_bits=found.min_size.value if found.min_size else size,
        max_bits=found.max_size.value if found.max_size else size,
        step_bits=found.step_size.value if found.step_size else 1.0,
        area_mm2_per_bit=found.area.value if found.area else 0.0,
        leakage_mw_per_bit=found.leakage.value / nominal if found.leakage else 0.0,
        size_table=table,
    )
