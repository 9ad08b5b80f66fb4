"""Multipliers that look products up in a table: a share of a fixed-point MAC's energy, and tables to write anew."""

import dataclasses
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float
from pydantic import Field, model_validator

from cooptim.hardware.datapath import Datapath
from cooptim.hardware.mechanisms.effect import Effect, LayerPoint
from cooptim.hardware.mechanisms.steps import leaf
from cooptim.hardware.quantity import Choice, OneOf, Quantity, Rule, Strict

ANCHOR_BITS = (1, 4, 8, 16)  # weight widths at which a saving is stated

_SAVING = Rule("ratio", 0, 0.99)


class LutMultiplierSection(Strict):
    """Products of a weight are read from a table that is written once for a group of weights."""

    table_width: Annotated[Quantity, Rule("size", 1, 64, whole=True)] = Field(
        description="widest operand that the tables take, `datapath.width` or more"
    )
    measured_with: Annotated[Choice, OneOf("table", "multiplier")] = Field(
        description="what `reference.power` was measured with: the tables, or fixed-point multipliers that they replace"
    )
    saving_1b: Annotated[Quantity, _SAVING] = Field(description="energy saved against a fixed-point MAC, 1-bit weights")
    saving_4b: Annotated[Quantity, _SAVING] = Field(description="the same, 4-bit weights")
    saving_8b: Annotated[Quantity, _SAVING] = Field(description="the same, 8-bit weights")
    saving_16b: Annotated[Quantity, _SAVING] = Field(description="the same, 16-bit weights and wider")
    rebuild: Annotated[Quantity, Rule("energy")] = Field(
        description="energy of writing one table, at `supply.nominal_v`, on top of the MACs"
    )
    group: Annotated[Quantity, Rule("count", 1, 1e6, whole=True)] = Field(
        description="weights read from the buffer for each table that is written"
    )

    @model_validator(mode="after")
    def _falling(self) -> "LutMultiplierSection":
        found = [getattr(self, f"saving_{bits}b").value for bits in ANCHOR_BITS]
        if found != sorted(found, reverse=True):
            text = ", ".join(f"{100 * x:g} %" for x in found)
            raise ValueError(f"savings {text} at 1, 4, 8, 16 bit; legal: none above that of fewer bits")
        return self

    def fault(self, spec: Any) -> str | None:
        """A datapath that is wider than the tables."""
        table, width = self.table_width.value, spec.datapath.width.value
        if table >= width:
            return None
        return (
            f".table_width: tables of {table:g} bit for operands of up to {width:g} bit (datapath.width); legal: "
            f"{width:g} to 64; widen the table or narrow the datapath"
        )

    def build(self) -> "LutMultiplier":
        """The mechanism."""
        return LutMultiplier(
            table_bits=int(self.table_width.value),
            replaces=self.measured_with.value == "multiplier",
            saving=jnp.stack([leaf(getattr(self, f"saving_{bits}b")) for bits in ANCHOR_BITS]),
            rebuild_pj=leaf(self.rebuild),
            group=leaf(self.group),
        )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LutMultiplier:
    """Tables in the place of multipliers."""

    table_bits: int = dataclasses.field(metadata={"static": True})  # widest operand
    replaces: bool = dataclasses.field(metadata={"static": True})  # the reference power is that of fixed-point MACs
    saving: Float[Array, "anchor"]  # of a fixed-point MAC's energy, at ANCHOR_BITS
    rebuild_pj: Float[Array, ""]  # writing one table, at V0
    group: Float[Array, ""]  # weights read for each table


def table_share(lut: LutMultiplier, weight_bits: Float[ArrayLike, "*n"]) -> Float[Array, "*n"]:
    """Energy of a MAC by table over that of a fixed-point MAC of the same widths.

    The saving is linear in log2 of the width between the stated ones and constant outside. Kinks: ANCHOR_BITS.
    Source: the four savings are the file's (UNPU, JSSC 2019: 53.6, 41, 27.2 and 23.1 %); the line between is assumed.
    """
    bits = jnp.maximum(jnp.asarray(weight_bits), 1.0)
    return 1.0 - jnp.interp(jnp.log2(bits), np.log2(ANCHOR_BITS), lut.saving)


def rebuild_word_pj(lut: LutMultiplier) -> Float[Array, ""]:
    """Energy of writing tables for each weight that is read from the buffer, at V0 [pJ]."""
    return lut.rebuild_pj / lut.group


def effect(lut: LutMultiplier, datapath: Datapath, point: LayerPoint) -> Effect:
    """The share of a fixed-point MAC, whose own energy follows the widths as without; tables by the weights read."""
    share = table_share(lut, point.weight_bits)
    measured = 1.0 if lut.replaces else table_share(lut, float(datapath.width_bits))
    return Effect(datapath=share / measured, entry_datapath_pj=rebuild_word_pj(lut))
