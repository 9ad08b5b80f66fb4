"""Machines from YAML: a strict reader, a schema, and the energies that follow from the published power."""

import dataclasses
import functools
import importlib.resources
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float
from pydantic import BaseModel, ValidationError

from cooptim.hardware.body_bias import at_body_bias
from cooptim.hardware.machine import Area, BodyBias, Buffer, Dram, Machine, Supply, Switching
from cooptim.hardware.reference import ReferencePoint, datapath_of, derived_energies, reference_point
from cooptim.hardware.resize import with_array
from cooptim.hardware.schema import MachineSchema, Quantity
from cooptim.hardware.strict_yaml import StrictYamlError, read_strict
from cooptim.hardware.written import as_written

_SIZED = re.compile(r"(.+)@([1-9]\d{0,5})x([1-9]\d{0,5})")


class MachineError(ValueError):
    """A machine file that cannot be used; the message says file, field, what was found, what is legal, the remedy."""


@dataclasses.dataclass(frozen=True)
class MachineFile:
    """A machine file as read: every number with unit, source and interval.

    Attributes:
      origin: file name, for messages.
      stated: what the file says. size: rows and columns of another array than the stated one; None: that one.
    """

    origin: str
    stated: MachineSchema
    size: tuple[int, int] | None = None

    @functools.cached_property
    def spec(self) -> MachineSchema:
        """What the file says of an array of this size; numbers that follow from the size have no interval.

        Raises ValueError where a part of the file belongs to the size of its array.
        """
        return self.stated if self.size is None else with_array(self.stated, *self.size)

    @property
    def name(self) -> str:
        """Name of the machine."""
        return self.spec.name

    @property
    def reference(self) -> ReferencePoint:
        """The operating point of the published power."""
        return reference_point(self.spec)

    @property
    def numbers(self) -> dict[str, Quantity]:
        """Every number at this size by its path ('supply.floor_v'), in order."""
        return dict(_walk(self.spec, ""))

    @property
    def stated_numbers(self) -> dict[str, Quantity]:
        """Every number that the file states, by its path, in order: what `with_values` changes and intervals are of."""
        return dict(_walk(self.stated, ""))

    @property
    def machine(self) -> Machine:
        """The machine, its leaves scalars of jax's default float dtype."""
        return _build(self.spec)

    def with_values(self, **values: float) -> "MachineFile":
        """The same file with other values (coherent units), '__' for the dot: with_values(supply__alpha=1.3).

        Values are those of the file as stated, the array takes its size after that. For sweeps of assumptions: the
        shares are completed by the control share, checks across fields are not repeated.
        Raises MachineError for an unknown path.
        """
        spec, known = self.stated, self.stated_numbers
        for key, value in values.items():
            path = key.replace("__", ".")
            if path not in known:
                raise MachineError(f"machine {self.name}: no number '{path}'; it has {', '.join(known)}")
            spec = _replace(spec, path.split("."), value)
        s = spec.reference.shares
        rest = 1.0 - s.datapath.value - s.sram.value - s.leakage.value
        return MachineFile(self.origin, _replace(spec, ["reference", "shares", "control"], rest), self.size)


def machine_names() -> tuple[str, ...]:
    """Names of the machines that come with the package."""
    folder = importlib.resources.files("cooptim.hardware") / "machines"
    return tuple(sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml")))


def load_machine(name_or_path: str | pathlib.Path) -> Machine:
    """The machine of this name, or of this YAML file; NAME@ROWSxCOLS is the same with an array of that size.

    Raises MachineError with file, field, what was found, what is legal and the remedy.
    """
    return load_machine_file(name_or_path).machine


def load_machine_file(name_or_path: str | pathlib.Path) -> MachineFile:
    """The machine file of this name or path, with the provenance of every number.

    NAME@ROWSxCOLS is the file with an array of that size: a MAC, a word and a sum cost the same, the rest follows.

    Raises MachineError with file, field, what was found, what is legal and the remedy.
    """
    name, size = array_of_name(name_or_path)
    if size is not None:
        file = load_machine_file(name)
        return _sized(MachineFile(file.origin, file.stated, size), str(name_or_path))
    origin, data = _read(name_or_path)
    try:
        return MachineFile(origin, MachineSchema.model_validate(read_strict(data)))
    except StrictYamlError as error:
        raise MachineError(f"machine file {origin}: {error}") from None
    except ValidationError as error:
        raise MachineError(f"machine file {origin}: {_explain(error)}") from None


def _sized(file: MachineFile, name: str) -> MachineFile:
    """The file itself, its numbers at this size checked as those of any file."""
    remedy = "take another size, or write a file of your own"
    try:
        MachineSchema.model_validate(as_written(file.spec))
    except ValidationError as error:
        raise MachineError(f"machine {name}: {_explain(error, remedy)}") from None
    except ValueError as error:
        raise MachineError(f"machine {name}: {error}; {remedy}") from None
    return file


def array_of_name(name_or_path: str | pathlib.Path) -> tuple[str, tuple[int, int] | None]:
    """(name or path, rows and columns) of NAME@ROWSxCOLS; None for the size of a plain name, or of an existing file."""
    text = str(name_or_path)
    found = _SIZED.fullmatch(text)
    if found is None or pathlib.Path(text).is_file():
        return text, None
    return found[1], (int(found[2]), int(found[3]))


def _read(name_or_path: str | pathlib.Path) -> tuple[str, bytes]:
    text = str(name_or_path)
    if text in machine_names():
        entry = importlib.resources.files("cooptim.hardware") / "machines" / f"{text}.yaml"
        return f"{text}.yaml", entry.read_bytes()
    path = pathlib.Path(text)
    if not path.is_file():
        raise MachineError(
            f"machine '{text}': neither a file nor a known name; use a path to a YAML file, NAME@ROWSxCOLS for another "
            f"array, or one of {', '.join(machine_names())}"
        )
    try:
        return text, path.read_bytes()
    except OSError as error:
        raise MachineError(f"machine file {text}: cannot be read ({error.strerror}); check its permissions") from None


def _explain(error: ValidationError, remedy: str = "correct the file") -> str:
    """The first fault: field path, what was found, what is legal, how to mend it; and how many more there are."""
    faults = error.errors(include_url=False)
    first = faults[0]
    field = ".".join(str(part) for part in first["loc"]) or "the whole file"
    kind, found = first["type"], first.get("input")
    if kind == "missing":
        text = f"{field}: missing; add it, every section and field of the schema is needed"
    elif kind == "extra_forbidden":
        text = f"{field}: unknown field; remove it or correct its spelling"
    elif kind == "value_error":
        place = f"{field}: found " if first["loc"] else ""  # between sections: the message begins with the path
        text = f"{place}{first['ctx']['error']}; {remedy}"
    else:
        shown = f"'{found}' (text)" if isinstance(found, str) else f"{type(found).__name__} {found}"
        text = f"{field}: found {shown[:80]}; legal: {first['msg']}; a number is written as 0.5, 12 or 1e-3"
    return text + (f" ({len(faults) - 1} more faults)" if len(faults) > 1 else "")


def _walk(node: Any, path: str) -> Iterator[tuple[str, Quantity]]:
    if isinstance(node, Quantity):
        yield path, node
    elif isinstance(node, BaseModel):
        for name in type(node).model_fields:
            yield from _walk(getattr(node, name), f"{path}.{name}" if path else name)


def _replace(node: Any, path: list[str], value: float) -> Any:
    if not path:
        return node.at(value)
    return node.model_copy(update={path[0]: _replace(getattr(node, path[0]), path[1:], value)})


def _leaf(quantity: Quantity | float) -> Float[Array, ""]:
    return jnp.asarray(quantity.value if isinstance(quantity, Quantity) else quantity, dtype=jnp.result_type(float))


def _build(spec: MachineSchema) -> Machine:
    energies = derived_energies(spec)
    b = spec.buffer
    machine = Machine(
        name=spec.name,
        datapath=datapath_of(spec, energies.busy_pj, energies.control_pj, energies.access_pj),
        supply=_supply(spec, energies.leakage_mw),
        buffer=Buffer(
            word_bits=int(b.word.value),
            free=b.free.value,
            double_buffered=b.double_buffered.value,
            input_shift=b.input_shift.value,
            size_bits=_leaf(b.size),
            min_bits=_leaf(b.min_size),
            max_bits=_leaf(b.max_size),
            step_bits=_leaf(b.step_size),
            nominal_bits=_leaf(b.size),
            access_pj=_leaf(energies.access_pj),
        ),
        dram=Dram(spec.dram.coded.value, _leaf(spec.dram.access), _leaf(spec.dram.bandwidth)),
        area=Area(
            _leaf(spec.area.total.value * (1.0 - spec.area.memory_share.value)),
            _leaf(spec.area.total.value * spec.area.memory_share.value / b.size.value),
        ),
        mechanisms=spec.mechanisms.build(),
        switching=_switching(spec),
    )
    return machine if spec.body_bias is None else at_body_bias(machine, _leaf(spec.body_bias.bias))


def _switching(spec: MachineSchema) -> Switching | None:
    s = spec.switching
    return None if s is None else Switching(_leaf(s.rail), _leaf(s.mode_settle), _leaf(s.step_settle))


def _body(spec: MachineSchema) -> BodyBias | None:
    b = spec.body_bias
    return None if b is None else BodyBias(_leaf(0.0), *(_leaf(x) for x in (b.min_bias, b.max_bias, b.shift, b.swing)))


def _supply(spec: MachineSchema, leakage_mw: float) -> Supply:
    s = spec.supply
    same = (
        "nominal_v floor_v ceiling_v step_v threshold_v alpha path_share fixed_share leakage_exponent "
        "memory_leakage_share retention_v"
    ).split()
    return Supply(
        nominal_ghz=_leaf(s.nominal_clock),
        step_ghz=_leaf(s.step_clock),
        leakage_mw=_leaf(leakage_mw),
        fixed_v=None if s.fixed_v is None else _leaf(s.fixed_v),
        fixed_leakage_share=None if s.fixed_leakage_share is None else _leaf(s.fixed_leakage_share),
        body=_body(spec),
        **{name: _leaf(getattr(s, name)) for name in same},
    )
