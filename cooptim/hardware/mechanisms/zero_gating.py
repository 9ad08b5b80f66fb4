"""Zero gating: a MAC whose operand is zero does not toggle, and a zero word is not fetched into the array."""

import dataclasses
from typing import Annotated

import jax
from pydantic import Field

from cooptim.hardware.datapath import Datapath
from cooptim.hardware.mechanisms.effect import Effect, LayerPoint
from cooptim.hardware.quantity import Choice, OneOf, Strict


class ZeroGatingSection(Strict):
    """Which operands carry zero flags; the energy that a gated MAC still takes is `datapath.guarded_share`."""

    operands: Annotated[Choice, OneOf("both", "W", "I", "none")] = Field(
        description="operands whose zeros gate a MAC and are not fetched"
    )

    def build(self) -> "ZeroGating":
        """The mechanism."""
        return ZeroGating(self.operands.value)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ZeroGating:
    """Operands whose zeros gate a MAC and are not fetched."""

    operands: str = dataclasses.field(metadata={"static": True})  # both, W, I or none


def effect(mechanism: ZeroGating, datapath: Datapath, point: LayerPoint) -> Effect:
    """Zeros of an operand without flags cost a full MAC and a fetch."""
    return gating(mechanism.operands)


def gating(operands: str) -> Effect:
    """The effect of flags on these operands."""
    w, i = (float(operands in ("both", name)) for name in "WI")
    return Effect(gated_w=w, gated_i=i, zero_fetches_w=1.0 - w, zero_fetches_i=1.0 - i)
