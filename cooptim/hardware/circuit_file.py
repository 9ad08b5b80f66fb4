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

    schema_version: Literal[1] = Field(description="version of this schema: 1")
    name: str = Field(pattern=r"^[a-z0-9_]+$", description="name of the circuit: lower case, digits, underscores")
    title: str = Field(description="what it is, for people")
    supply: Annotated[Quantity, _VOLT] = Field(description="supply of the measurement")
    clock: Annotated[Quantity, _CLOCK] = Field(description="clock of the measurement")
    threshold: Annotated[Quantity, _VOLT] = Field(description="threshold of the law clock ~ (V - threshold)^alpha / V")
    alpha: Annotated[Quantity, _ALPHA] = Field(description="exponent of that law")

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

    filter_pad: Annotated[Quantity, _MEMORY] = Field(description="scratch pad of an element for filter words")
    input_pad: Annotated[Quantity, _MEMORY] = Field(description="scratch pad of an element for input words")
    psum_pad: Annotated[Quantity, _MEMORY] = Field(description="scratch pad of an element for partial sums")
    banks: Annotated[Quantity, _COUNT] = Field(description="banks of the buffer that inputs and partial sums share")
    bank: Annotated[Quantity, _MEMORY] = Field(description="capacity of one of these banks")
    filter_bank: Annotated[Quantity, _MEMORY] = Field(description="part of the buffer that holds filters alone")
    diagonals: Annotated[Quantity, _COUNT] = Field(
        description="rows of the input that the network to the array tells apart, at most"
    )
    filter_bus: Annotated[Quantity, _MEMORY] = Field(description="width of the bus that delivers filters")
    input_bus: Annotated[Quantity, _MEMORY] = Field(description="width of the bus that delivers inputs")
    psum_bus: Annotated[Quantity, _MEMORY] = Field(description="width of the bus of partial sums")


_ROW_FIELDS = tuple(RowStationaryFields.model_fields)


class GatedArrayFile(_Circuit):
    """A file of kind gated_array."""

    kind: Literal["gated_array"] = Field(description="a MAC array that gates zeros")
    rows: Annotated[Quantity, _COUNT] = Field(description="rows of the array")
    cols: Annotated[Quantity, _COUNT] = Field(description="columns of the array")
    word: Annotated[Quantity, _BITS] = Field(description="width of an operand")
    always_on: Annotated[Quantity, Rule("power")] = Field(description="power that neither MACs nor zeros change")
    busy_mac: Annotated[Quantity, _ENERGY] = Field(
        description="energy of a multiply-accumulate with two non-zero operands"
    )
    zero_mac: Annotated[Quantity, _ENERGY] = Field(description="energy of one that is gated")
    cycles_per_mac: Annotated[Quantity, Rule("ratio", 1)] = Field(
        description="cycles of an active unit for each of its MACs"
    )
    buffer: Annotated[Quantity, _BANDWIDTH] = Field(description="what the on-chip buffer moves")
    link: Annotated[Quantity, _BANDWIDTH] = Field(description="what the DRAM link moves")
    code_per_value: Annotated[Quantity, Rule("size", 0, above=True)] = Field(
        description="bits of a non-zero value on the link, its run length included"
    )
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

    kind: Literal["scalable_multiplier"] = Field(description="one multiplier of scalable width")
    width: Annotated[Quantity, _BITS] = Field(description="widest operand")
    fixed_word: Annotated[Quantity, _ENERGY] = Field(
        description="energy of a word of the same multiplier without scaling"
    )
    word: Annotated[Quantity, _ENERGY] = Field(description="energy of a full-width word")
    gating_exponent: Annotated[Quantity, _EXPONENT] = Field(
        description="unused low bits divide the energy by (slot / width in use)^exponent"
    )
    subword_exponent: Annotated[Quantity, _EXPONENT] = Field(
        description="N subwords divide the energy of a cycle by N^exponent"
    )
    path_share: Annotated[Quantity, Rule("ratio", 0, 0.95)] = Field(
        description="part of the critical path that narrower operands shorten in proportion"
    )

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
