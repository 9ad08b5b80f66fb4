"""Supplies at which some operations come too late and some memory bits flip: rates against voltage, and what they cost.

The rates are pure and differentiable in the supply, so that training can inject faults at them.
"""

import dataclasses
import math
from typing import Annotated, Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float
from pydantic import Field

from cooptim.hardware.datapath import Datapath
from cooptim.hardware.mechanisms.effect import Effect, LayerPoint
from cooptim.hardware.mechanisms.steps import leaf
from cooptim.hardware.quantity import Quantity, Rule, Strict

_VOLT = Rule("voltage", 0, 10, above=True)
_RATE = Rule("ratio", 0, 0.5, above=True)
_SLOPE = Rule("ratio", 0, 1000)
_SHARE = Rule("ratio", 0, 1)


class ErrorProneSupplySection(Strict):
    """How often logic and memory fail below the safe supply, and what a failure costs."""

    floor_v: Annotated[Quantity, _VOLT] = Field(
        description="lowest supply at which the chip works with its errors; `supply.floor_v` is not below it"
    )
    safe_v: Annotated[Quantity, _VOLT] = Field(
        description="supply at which the clock of the V-f law fails at `safe_rate`; below, the rate grows"
    )
    safe_rate: Annotated[Quantity, _RATE] = Field(description="operations that come too late at `safe_v`, of all")
    decades_per_v: Annotated[Quantity, _SLOPE] = Field(description="tenfold more late operations for each volt less")
    tolerated_rate: Annotated[Quantity, Rule("ratio", 0, 1, above=True)] = Field(
        description="wrong results that the application stands, of all: those that are late and not replayed"
    )
    detected_share: Annotated[Quantity, _SHARE] = Field(description="late operations that are noticed and replayed")
    replay_cycles: Annotated[Quantity, Rule("ratio", 0, 1000)] = Field(description="array cycles of one replay")
    memory_safe_v: Annotated[Quantity, _VOLT] = Field(description="supply at which memory bits fail at the next rate")
    memory_safe_rate: Annotated[Quantity, _RATE] = Field(description="memory bits that are wrong at `memory_safe_v`")
    memory_decades_per_v: Annotated[Quantity, _SLOPE] = Field(
        description="tenfold more wrong memory bits for each volt less"
    )

    def fault(self, spec: Any) -> str | None:
        """A supply range that goes below the floor, or to where more is wrong than is tolerated."""
        lowest, floor = spec.supply.floor_v.value, self.floor_v.value
        if lowest < floor:
            return (
                f".floor_v: {floor:g} V, and supply.floor_v lets layers run at {lowest:g} V; legal: a supply.floor_v "
                f"of {floor:g} V or more; raise it"
            )
        mechanism, tolerated = self.build(), self.tolerated_rate.value
        wrong = float(wrong_result_rate(mechanism, lowest))
        if wrong > tolerated * (1.0 + 1e-6):
            least = float(lowest_supply_v(mechanism))
            return (
                f".tolerated_rate: {tolerated:g}, and at supply.floor_v = {lowest:g} V {wrong:.3g} of the results are "
                f"wrong; legal: a supply.floor_v of {least:.4g} V or more, or a tolerated_rate of {wrong:.3g} or more"
            )
        return None

    def build(self) -> "ErrorProneSupply":
        """The mechanism."""
        return ErrorProneSupply(**{name: leaf(getattr(self, name)) for name in type(self).model_fields})


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ErrorProneSupply:
    """Log-linear laws of errors against supply; fields as in the section."""

    floor_v: Float[Array, ""]
    safe_v: Float[Array, ""]
    safe_rate: Float[Array, ""]
    decades_per_v: Float[Array, ""]
    tolerated_rate: Float[Array, ""]
    detected_share: Float[Array, ""]
    replay_cycles: Float[Array, ""]
    memory_safe_v: Float[Array, ""]
    memory_safe_rate: Float[Array, ""]
    memory_decades_per_v: Float[Array, ""]


def timing_error_rate(
    mechanism: ErrorProneSupply,
    supply_v: Float[ArrayLike, "*#n"],
    needed_v: Float[ArrayLike, "*#n"] | None = None,
) -> Float[Array, "..."]:
    """Operations that come too late, of all, in [0, 1).

    Args:
      supply_v: of the layer [V].
      needed_v: lowest supply of the V-f law for the clock in use (`hardware.dvafs.supply_for_clock`) [V]: each volt in
        hand counts like a volt more, each volt missing (a clock beyond the law) like one less. None: the clock is the
        fastest that the law allows at this supply.

    The expected number of late events in an operation grows by `decades_per_v` tenfolds a volt below `safe_v`; the
    rate is the chance of one at least, 1 - exp(-number). Source: rates that are straight lines on a log scale are what
    Razor measured (Ernst et al., MICRO 2003; recalled, not verified); the constants are the file's.
    """
    volts = jnp.asarray(supply_v)
    hand = 0.0 if needed_v is None else volts - needed_v
    events = mechanism.safe_rate * 10.0 ** (mechanism.decades_per_v * (mechanism.safe_v - volts - hand))
    return -jnp.expm1(-events)


def bit_error_rate(mechanism: ErrorProneSupply, supply_v: Float[ArrayLike, "*#n"]) -> Float[Array, "..."]:
    """Memory bits that are read wrong, of all, in [0, 1/2): a cell that has failed reads right half the time.

    Source: as `timing_error_rate`, log-linear in the supply; the constants are the file's.
    """
    below = mechanism.memory_safe_v - jnp.asarray(supply_v)
    flips = mechanism.memory_safe_rate * 10.0 ** (mechanism.memory_decades_per_v * below)
    return -0.5 * jnp.expm1(-2.0 * flips)


def wrong_result_rate(
    mechanism: ErrorProneSupply,
    supply_v: Float[ArrayLike, "*#n"],
    needed_v: Float[ArrayLike, "*#n"] | None = None,
) -> Float[Array, "..."]:
    """Operations whose result is wrong, of all: late ones that nothing notices. Arguments as `timing_error_rate`."""
    return (1.0 - mechanism.detected_share) * timing_error_rate(mechanism, supply_v, needed_v)


def replay_share(
    mechanism: ErrorProneSupply,
    supply_v: Float[ArrayLike, "*#n"],
    needed_v: Float[ArrayLike, "*#n"] | None = None,
) -> Float[Array, "..."]:
    """Cycles of replays over those of the work; a replay is taken to be in time. Arguments as `timing_error_rate`."""
    return mechanism.detected_share * timing_error_rate(mechanism, supply_v, needed_v) * mechanism.replay_cycles


def lowest_supply_v(mechanism: ErrorProneSupply) -> Float[Array, ""]:
    """Lowest supply at which no more results are wrong than tolerated, at the law's clock [V]; the floor at least."""
    late = mechanism.tolerated_rate / jnp.maximum(1.0 - mechanism.detected_share, 1e-12)
    events = -jnp.log1p(-jnp.minimum(late, 1.0 - 1e-12))
    decades = jnp.log(events / mechanism.safe_rate) / math.log(10.0)
    return jnp.maximum(mechanism.floor_v, mechanism.safe_v - decades / jnp.maximum(mechanism.decades_per_v, 1e-12))


def effect(mechanism: ErrorProneSupply, datapath: Datapath, point: LayerPoint) -> Effect:
    """A replay keeps the array busy for its cycles."""
    more = 1.0 + replay_share(mechanism, point.supply_v)
    return Effect(cycles=more, executed=more)
