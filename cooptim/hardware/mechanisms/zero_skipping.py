"""Zero skipping: lanes pass over zeros and wait for each other; the cycles, MACs and words that are left.

Each lane works through its own words and passes over the zero ones; after a given number of words all lanes wait for
the slowest, because they share an output or the next weights; or each lane has a queue of inputs, and all wait where
one is full (`cooptim.hardware.load_imbalance`). Zeros that all lanes see at once (a broadcast input) are passed over
together, without waiting.
"""

import dataclasses
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int
from pydantic import Field

from cooptim.hardware.datapath import Datapath
from cooptim.hardware.load_imbalance import chances, queued_cycles, stored_entries
from cooptim.hardware.mechanisms.effect import Effect, LayerPoint
from cooptim.hardware.quantity import Choice, OneOf, Quantity, Rule, Strict


class ZeroSkippingSection(Strict):
    """Which zeros take no cycle, and which lanes wait for each other."""

    operands: Annotated[Choice, OneOf("I", "W", "both")] = Field(description="operands whose zeros take no cycle")
    common: Annotated[Choice, OneOf("none", "I")] = Field(
        description="operand that all lanes take at once, so that its zeros are passed over without waiting"
    )
    lanes: Annotated[Quantity, Rule("count", 1, 1e6)] = Field(description="lanes that wait for each other")
    words: Annotated[Quantity, Rule("count", 1, 1e5, whole=True)] | None = Field(
        None, description="words of a lane between two waits, zeros included; or give `queue`"
    )
    queue: Annotated[Quantity, Rule("count", 1, 1e3, whole=True)] | None = Field(
        None,
        description="inputs that a lane holds, the one it works on included, with K / lanes weights each; an input "
        "takes a lane at least a cycle",
    )
    offset: Annotated[Quantity, Rule("size", 0, 64)] = Field(
        description="bits stored beside each word of a skipped operand to say where it belongs"
    )

    def build(self) -> "ZeroSkipping":
        """The mechanism."""
        words = None if self.words is None else int(self.words.value)
        queue = None if self.queue is None else int(self.queue.value)
        wide = jnp.result_type(float)
        lanes, offset = jnp.asarray(self.lanes.value, wide), jnp.asarray(self.offset.value, wide)
        return ZeroSkipping(self.operands.value, self.common.value, words, queue, int(self.lanes.value), lanes, offset)

    def fault(self, spec: Any) -> str | None:
        """What does not fit in the section or with the rest of the file, after its name; None when all does."""
        if (self.words is None) == (self.queue is None):
            return ".words: needs one of words and queue; legal: exactly one; remove or add one"
        if self.common.value == "I" and self.operands.value == "W":
            return ".common: 'I', which is not skipped; legal: none, or operands I or both; correct either"
        gating, link = spec.mechanisms.zero_gating, spec.mechanisms.link
        flags = "both" if gating is None else gating.operands.value
        coded = "none" if link is None else link.stored.value
        for operand in "WI" if self.operands.value == "both" else self.operands.value:
            if flags not in (operand, "both") and coded not in (operand, "both"):
                return (
                    f".operands: '{self.operands.value}', but nothing tells the array where zeros of {operand} are; "
                    f"legal: operands with flags or stored in a code; add {operand} to "
                    "mechanisms.zero_gating.operands or to mechanisms.link.stored"
                )
        return None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ZeroSkipping:
    """Numbers of `ZeroSkippingSection`; one of words and queue is None."""

    operands: str = dataclasses.field(metadata={"static": True})  # I, W or both
    common: str = dataclasses.field(metadata={"static": True})  # none or I
    words: int | None = dataclasses.field(metadata={"static": True})
    queue: int | None = dataclasses.field(metadata={"static": True})
    units: int = dataclasses.field(metadata={"static": True})  # lanes that the words of a column are dealt out to
    lanes: Float[Array, ""]
    offset_bits: Float[Array, ""]


def effect(mechanism: ZeroSkipping, datapath: Datapath, point: LayerPoint) -> Effect:
    """Cycles of the slowest lane, MACs without the skipped ones, words that nobody needs for them.

    A word that several lanes share is fetched unless it meets a skipped zero in all of them; shared are weights by the
    pixels of the array, inputs by its output channels. A common input that waits in queues is fetched once for all
    output channels, whatever the array holds at a time.
    """
    skips_w, skips_i = (mechanism.operands in ("both", name) for name in "WI")
    w, i = jnp.asarray(point.weight_density), jnp.asarray(point.input_density)
    together = i if mechanism.common == "I" else 1.0
    apart: Any = (w if skips_w else 1.0) * (i if skips_i and mechanism.common != "I" else 1.0)
    waiting: Any = 1.0
    if mechanism.queue is not None:
        rows = -(-np.asarray(point.bounds["K"]) // mechanism.units)
        stored = stored_entries(w, rows, point.run_bits) / rows if skips_w else 1.0  # fillers take a cycle, too
        others = i if skips_i and mechanism.common != "I" else 1.0
        waiting = queued_cycles(stored * others, mechanism.lanes, rows, float(mechanism.queue)) / rows
    elif skips_w or mechanism.common != "I":
        waiting = skipped_cycles_share(apart, mechanism.lanes, mechanism.words or 1)
    fetches_i: Any = 1.0 - (1.0 - w) ** float(datapath.rows) if skips_w else 1.0
    if mechanism.queue is not None and mechanism.common == "I":
        fetches_i = 1.0 / -(-np.asarray(point.bounds["K"]) // datapath.rows)
    lanes, slots = (np.asarray([getattr(m, x) for m in datapath.modes], float) for x in ("lanes", "slot_bits"))
    by_pixels = datapath.cols * lanes
    beside = 1.0 + mechanism.offset_bits / slots
    return Effect(
        cycles=together * waiting,
        executed=(w if skips_w else 1.0) * (i if skips_i else 1.0),
        gated_w=0.0 if skips_w else 1.0,
        gated_i=0.0 if skips_i else 1.0,
        words_w=beside if skips_w else 1.0,
        words_i=beside if skips_i else 1.0,
        fetches_w=1.0 - (1.0 - i) ** by_pixels if skips_i else 1.0,
        fetches_i=fetches_i,
        zero_fetches_w=0.0 if skips_w else 1.0,
        zero_fetches_i=0.0 if skips_i else 1.0,
    )


def skipped_cycles_share(
    density: Float[ArrayLike, "*#n"], lanes: Float[ArrayLike, "*#n"], words: int | Int[np.ndarray, "*#n"]
) -> Float[Array, "..."]:
    """Cycles with skipping over cycles without, in [0, 1]; the density itself for one lane or endless words.

    Args:
      density: share of the words that are not skipped; zeros fall independently.
      lanes: that wait for each other. words: of a lane between two waits, zeros included; static.

    The mean of the largest of `lanes` binomial counts, sum over k of 1 - P(count <= k)^lanes, over `words`. A round of
    nothing but zeros takes no cycle. Within 1e-7 * lanes of exact.

    Raises ValueError when words is below 1.

    Source: order statistics; the lock-step of Cnvlutin's lanes (ISCA 2016).
    """
    sizes = np.asarray(words)
    if sizes.min() < 1:
        raise ValueError(f"zero skipping: words = {sizes.min()} between two waits; legal: 1 or more")
    count = np.arange(sizes.max())
    busy = 1.0 - jnp.cumsum(chances(density, sizes, count), axis=-1) ** jnp.asarray(lanes)[..., None]
    return jnp.sum(jnp.where(sizes[..., None] > count, busy, 0.0), axis=-1) / sizes
