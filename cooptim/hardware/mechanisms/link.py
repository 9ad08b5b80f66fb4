"""Codes of the off-chip link, one for each operand, and operands that stay coded in the buffer."""

import dataclasses
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float
from pydantic import Field

from cooptim.hardware.codes import bitmask_bits, run_length_bits
from cooptim.hardware.datapath import Datapath
from cooptim.hardware.load_imbalance import stored_entries
from cooptim.hardware.mechanisms.effect import Effect, LayerPoint
from cooptim.hardware.quantity import Choice, OneOf, Quantity, Rule, Strict

_CODES = ("raw", "zero_flag", "bitmask", "run_length", "columns")
_RUNS = ("run_length", "columns")


class LinkSection(Strict):
    """How words travel: raw, a Huffman code of zero against the rest (the same as a bit mask), runs of zeros."""

    weights: Annotated[Choice, OneOf(*_CODES)] = Field(description="code of weights; columns: runs and pointers")
    inputs: Annotated[Choice, OneOf(*_CODES[:-1])] = Field(description="code of feature maps")
    run: Annotated[Quantity, Rule("size", 1, 16, whole=True)] | None = Field(
        None, description="bits that count the zeros before a word, for run_length and columns"
    )
    pointer: Annotated[Quantity, Rule("size", 0, 64)] | None = Field(
        None, description="bits of a pointer to a column in each of the array's rows, for columns"
    )
    stored: Annotated[Choice, OneOf("none", "W", "I", "both")] = Field(
        description="operands that stay coded in the buffer; on the link alone a code gives way to raw where longer"
    )

    def build(self) -> "Link":
        """The mechanism."""
        run = 0 if self.run is None else int(self.run.value)
        pointer = 0.0 if self.pointer is None else self.pointer.value
        return Link(
            self.weights.value, self.inputs.value, run, self.stored.value, jnp.asarray(pointer, jnp.result_type(float))
        )

    def fault(self, spec: Any) -> str | None:
        """What does not fit in the section or with the rest of the file, after its name; None when all does."""
        used = (self.weights.value, self.inputs.value)
        if spec.dram.coded.value:
            return ": given beside dram.coded true; legal: one of them; set dram.coded to false or remove the section"
        if (self.run is None) == any(code in _RUNS for code in used):
            return (
                f".run: codes are {used[0]} and {used[1]}; legal: given with run_length and columns, and with no other"
            )
        if (self.pointer is None) == (used[0] == "columns"):
            return f".pointer: weights are {used[0]}; legal: given with columns, and with no other code"
        for operand, code in zip("WI", used, strict=True):
            if code == "raw" and self.stored.value in (operand, "both"):
                return f".stored: '{self.stored.value}', but {operand} is raw; legal: operands with a code; give it one"
        return None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Link:
    """Numbers of `LinkSection`."""

    weights: str = dataclasses.field(metadata={"static": True})
    inputs: str = dataclasses.field(metadata={"static": True})
    run_bits: int = dataclasses.field(metadata={"static": True})
    stored: str = dataclasses.field(metadata={"static": True})
    pointer_bits: Float[Array, ""]

    def stores(self, operand: str) -> bool:
        """Whether operand `W` or `I` stays coded in the buffer."""
        return self.stored in (operand, "both")


def code_bits(
    link: Link,
    datapath: Datapath,
    operand: str,
    bits: Float[ArrayLike, "*#n"],
    density: Float[ArrayLike, "*#n"],
    columns: Float[ArrayLike, "*#n"] | None = None,
) -> Float[Array, "..."]:
    """Mean bits of a word on the link; raw where that is shorter, unless the operand is stored as it travels.

    Args:
      columns: length of a column of weights (K), static: its words are dealt out to the array's rows, and in each of
        them runs begin anew. None leaves pointers and fillers out: the least. Kink: coded and raw bits equal.
    """
    code = link.weights if operand == "W" else link.inputs
    wide = jnp.asarray(bits)
    if code == "raw":
        return wide
    if code == "columns":
        entries: Any = jnp.asarray(density)
        pointers: Any = 0.0
        if columns is not None:
            entries = _column_entries(link, datapath, density, columns)
            pointers = link.pointer_bits * float(datapath.rows) / columns
        found = entries * (link.run_bits + wide) + pointers
    elif code == "run_length":
        found = run_length_bits(density, wide, link.run_bits)
    else:
        found = bitmask_bits(density, wide)
    return found if link.stores(operand) else jnp.minimum(wide, found)


def _column_entries(
    link: Link, datapath: Datapath, density: Float[ArrayLike, "*#n"], columns: Float[ArrayLike, "*#n"]
) -> Float[Array, "..."]:
    """Entries of compressed columns for each weight, fillers among them."""
    share = np.asarray(np.ceil(np.asarray(columns) / datapath.rows), int)
    return stored_entries(density, share, link.run_bits) / share


def effect(mechanism: Link, datapath: Datapath, point: LayerPoint) -> Effect:
    """Buffer words of operands that stay coded: non-zeros with their runs, and fillers, flags and pointers."""
    slots = np.asarray([mode.slot_bits for mode in datapath.modes], float)
    found: dict[str, Any] = {}
    for operand, code, bits, density in (
        ("w", mechanism.weights, point.weight_bits, point.weight_density),
        ("i", mechanism.inputs, point.input_bits, point.input_density),
    ):
        if not mechanism.stores(operand.upper()):
            continue
        columns = np.asarray(point.bounds["K"], float) if operand == "w" else None
        whole = code_bits(mechanism, datapath, operand.upper(), bits, density, columns) / slots
        entry = (bits + (mechanism.run_bits if code in _RUNS else 0.0)) / slots
        found |= {f"words_{operand}": entry, f"stored_zeros_{operand}": 0.0}
        found[f"extra_words_{operand}"] = whole - density * entry
        if columns is not None and code == "columns":
            found["fillers_w"] = _column_entries(mechanism, datapath, density, columns) - density
        elif operand == "w" and code == "run_length":
            found["fillers_w"] = whole / entry - density  # pairs alone
    return Effect(**found)
