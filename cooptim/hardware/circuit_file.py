"""Small published models from YAML: an array that gates zeros, or one scalable multiplier; fields as the classes say.

A number is written as in a machine file ({value, unit, source, interval, assumed}); names of the fields are those of
`GatedArray` and `ScalableMultiplier` without their units.
"""

import importlib.resources
import pathlib
from typing import Annotated, Literal

import jax.numpy as jnp
from jaxtyping import Array, Float
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from cooptim.hardware.faults import first_fault
from cooptim.hardware.gated_array import GatedArray
from cooptim.hardware.load import MachineError
from cooptim.hardware.multiplier import ScalableMultiplier
from cooptim.hardware.row_array import RowArray
from cooptim.hardware.schema import Quantity, Rule
from cooptim.hardware.strict_yaml import StrictYamlError, read_strict

_COUNT = Rule("count", 1, 1e6, whole=True)
_BITS = Rule("size", 1, 64, whole=True)
_VOLT = Rule("voltage", 0, 10, above=True)
_CLOCK = Rule("frequency", above=True)
_ENERGY = Rule("energy")
_ALPHA = Rule("ratio", 1, 2.5)
_EXPONENT = Rule("ratio", 0, 4)
_BANDWIDTH = Rule("bandwidth", above=True)
_MEMORY = Rule("size", above=True, whole=True)


class _Circuit(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    schema_version: Literal[1]
    name: str = Field(pattern=r"^[a-z0-9_]+$")
    title: str
    supply: Annotated[Quantity, _VOLT]
    clock: Annotated[Quantity, _CLOCK]
    threshold: Annotated[Quantity, _VOLT]
    alpha: Annotated[Quantity, _ALPHA]

    @model_validator(mode="after")
    def _ordered(self) -> "_Circuit":
        if not self.threshold.value < self.supply.value:
            found = f"threshold {self.threshold.value:g} V, supply {self.supply.value:g} V"
            raise ValueError(f"{found}; legal: a threshold below the supply")
        return self

    @property
    def numbers(self) -> dict[str, Quantity]:
        """Every number of the file by its field, in order."""
        found = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: number for name, number in found.items() if isinstance(number, Quantity)}


class RowStationaryFields(BaseModel):
    """Sizes of a row-stationary array's scratch pads and of the buffer behind it."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    filter_pad: Annotated[Quantity, _MEMORY]
    input_pad: Annotated[Quantity, _MEMORY]
    psum_pad: Annotated[Quantity, _MEMORY]
    banks: Annotated[Quantity, _COUNT]
    bank: Annotated[Quantity, _MEMORY]
    filter_bank: Annotated[Quantity, _MEMORY]
    diagonals: Annotated[Quantity, _COUNT]
    filter_bus: Annotated[Quantity, _MEMORY]
    input_bus: Annotated[Quantity, _MEMORY]
    psum_bus: Annotated[Quantity, _MEMORY]


_ROW_FIELDS = tuple(RowStationaryFields.model_fields)


class GatedArrayFile(_Circuit):
    """A file of kind gated_array."""

    kind: Literal["gated_array"]
    rows: Annotated[Quantity, _COUNT]
    cols: Annotated[Quantity, _COUNT]
    word: Annotated[Quantity, _BITS]
    always_on: Annotated[Quantity, Rule("power")]
    busy_mac: Annotated[Quantity, _ENERGY]
    zero_mac: Annotated[Quantity, _ENERGY]
    cycles_per_mac: Annotated[Quantity, Rule("ratio", 1)]
    buffer: Annotated[Quantity, _BANDWIDTH]
    link: Annotated[Quantity, _BANDWIDTH]
    code_per_value: Annotated[Quantity, Rule("size", 0, above=True)]
    row_stationary: RowStationaryFields | None = None

    @property
    def numbers(self) -> dict[str, Quantity]:
        """Every number of the file by its field, in order; those of the row-stationary part after a dot."""
        part = self.row_stationary
        inner = {} if part is None else {f"row_stationary.{name}": getattr(part, name) for name in _ROW_FIELDS}
        return super().numbers | inner

    @property
    def row_array(self) -> RowArray:
        """The sizes that a row-stationary mapping must fit; ValueError for a file without them."""
        part = self.row_stationary
        if part is None:
            raise ValueError(
                f"circuit {self.name}: row_stationary is missing; add its fields: {', '.join(_ROW_FIELDS)}"
            )

        def words(size: Quantity) -> int:
            return int(size.value // self.word.value)

        return RowArray(
            rows=int(self.rows.value),
            cols=int(self.cols.value),
            filter_words=words(part.filter_pad),
            input_words=words(part.input_pad),
            psum_words=words(part.psum_pad),
            banks=int(part.banks.value),
            bank_words=words(part.bank),
            filter_bank_words=words(part.filter_bank),
            diagonals=int(part.diagonals.value),
            filter_bus=words(part.filter_bus),
            input_bus=words(part.input_bus),
            psum_bus=words(part.psum_bus),
        )

    @property
    def model(self) -> GatedArray:
        """The chip, its leaves scalars of jax's default float dtype."""
        return GatedArray(
            name=self.name,
            rows=int(self.rows.value),
            cols=int(self.cols.value),
            word_bits=int(self.word.value),
            supply_v=_leaf(self.supply),
            clock_ghz=_leaf(self.clock),
            threshold_v=_leaf(self.threshold),
            alpha=_leaf(self.alpha),
            always_on_mw=_leaf(self.always_on),
            busy_mac_pj=_leaf(self.busy_mac),
            zero_mac_pj=_leaf(self.zero_mac),
            cycles_per_mac=_leaf(self.cycles_per_mac),
            buffer_bit_per_ns=_leaf(self.buffer),
            link_bit_per_ns=_leaf(self.link),
            code_bits_per_value=_leaf(self.code_per_value),
        )


class ScalableMultiplierFile(_Circuit):
    """A file of kind scalable_multiplier."""

    kind: Literal["scalable_multiplier"]
    width: Annotated[Quantity, _BITS]
    fixed_word: Annotated[Quantity, _ENERGY]
    word: Annotated[Quantity, _ENERGY]
    gating_exponent: Annotated[Quantity, _EXPONENT]
    subword_exponent: Annotated[Quantity, _EXPONENT]
    path_share: Annotated[Quantity, Rule("ratio", 0, 0.95)]

    @property
    def model(self) -> ScalableMultiplier:
        """The multiplier, its leaves scalars of jax's default float dtype."""
        return ScalableMultiplier(
            name=self.name,
            width_bits=int(self.width.value),
            fixed_word_pj=_leaf(self.fixed_word),
            word_pj=_leaf(self.word),
            supply_v=_leaf(self.supply),
            clock_ghz=_leaf(self.clock),
            gating_exponent=_leaf(self.gating_exponent),
            subword_exponent=_leaf(self.subword_exponent),
            threshold_v=_leaf(self.threshold),
            alpha=_leaf(self.alpha),
            path_share=_leaf(self.path_share),
        )


CircuitFile = Annotated[GatedArrayFile | ScalableMultiplierFile, Field(discriminator="kind")]


def circuit_names() -> tuple[str, ...]:
    """Names of the circuits that come with the package."""
    folder = importlib.resources.files("cooptim.hardware") / "circuits"
    return tuple(sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml")))


def load_circuit_file(name_or_path: str | pathlib.Path) -> GatedArrayFile | ScalableMultiplierFile:
    """The circuit of this name, or of this YAML file, with the provenance of every number.

    Raises MachineError with file, field, what was found, what is legal and the remedy.
    """
    text = str(name_or_path)
    try:
        if text in circuit_names():
            data = (importlib.resources.files("cooptim.hardware") / "circuits" / f"{text}.yaml").read_bytes()
        else:
            data = pathlib.Path(text).read_bytes()
        return TypeAdapter(CircuitFile).validate_python(read_strict(data))
    except OSError as error:
        known = ", ".join(circuit_names())
        raise MachineError(
            f"circuit file {text}: cannot be read ({error.strerror}); give a YAML file or one of {known}"
        ) from None
    except StrictYamlError as error:
        raise MachineError(f"circuit file {text}: {error}") from None
    except ValidationError as error:
        raise MachineError(f"circuit file {text}: {first_fault(error)}") from None


def load_gated_array(name_or_path: str | pathlib.Path) -> GatedArray:
    """The array of this name, or of this YAML file.

    Raises MachineError as `load_circuit_file`, and for a file of another kind.
    """
    file = load_circuit_file(name_or_path)
    if not isinstance(file, GatedArrayFile):
        raise MachineError(f"circuit file {name_or_path}: kind {file.kind}; legal here: gated_array")
    return file.model


def load_multiplier(name_or_path: str | pathlib.Path) -> ScalableMultiplier:
    """The multiplier of this name, or of this YAML file.

    Raises MachineError as `load_circuit_file`, and for a file of another kind.
    """
    file = load_circuit_file(name_or_path)
    if not isinstance(file, ScalableMultiplierFile):
        raise MachineError(f"circuit file {name_or_path}: kind {file.kind}; legal here: scalable_multiplier")
    return file.model


def _leaf(quantity: Quantity) -> Float[Array, ""]:
    return jnp.asarray(quantity.value, dtype=jnp.result_type(float))
