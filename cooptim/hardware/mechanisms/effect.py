"""What the mechanisms of a chip do to a layer: factors and additions that are 1 and 0 for a chip without them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Int


class LayerPoint(NamedTuple):
    """What a mechanism may look at, of one layer or many; all traced but `bounds`.

    Fields of a mode are [*n mode], fields of a layer end in an axis of 1 so that they broadcast against them.

    Attributes:
      weight_bits, input_bits: of the operands as they are stored. weight_density, input_density: share of non-zeros.
      supply_v: supply of the layer [V].
      cycles: array cycles without any mechanism, per mode.
      words_w, words_i: words read from the buffer into the array without any mechanism, per mode.
      bounds: static loop bounds of the layers (K, C, OY, ...).
      coded_w: whether weights are stored in a code of the link, which then says what a word takes.
      run_bits: bits that count the zeros before a weight that is stored in compressed columns; 0: it is not.
    """

    weight_bits: Any
    input_bits: Any
    weight_density: Any
    input_density: Any
    supply_v: Any
    cycles: Any
    words_w: Any
    words_i: Any
    bounds: Mapping[str, Int[np.ndarray, "*n"]]
    coded_w: bool = False
    run_bits: int = 0


class Effect(NamedTuple):
    """What the mechanisms change of one layer; each field [*n mode], or anything that broadcasts against it.

    Factors (neutral 1; several mechanisms multiply):
      cycles: array cycles.
      executed: MACs that take a lane at all.
      gated_w, gated_i: the operand's zeros that the datapath gates, in [0, 1]; 0: its zeros cost as much as others, or
        never arrive.
      datapath: energy of the busy lanes.
      words_w, words_i: buffer words that a stored word takes: codes and indices pack tighter.
      stored_zeros_w, stored_zeros_i: the operand's zeros that are stored in the buffer, in [0, 1].
      fetches_w, fetches_i: reads of the buffer into the array.
      zero_fetches_w, zero_fetches_i: the operand's zeros that are read into the array, in [0, 1].

    Additions (neutral 0; several mechanisms add up):
      extra_cycles: array cycles.
      extra_datapath_pj: energy of the layer at V0, scaled with the supply like other dynamic energy.
      entry_datapath_pj: energy at V0 for each weight read into the array, fillers among them (table look-up).
      extra_words_w, extra_words_i: buffer words for each word of the operand that are read or moved on top, zero or
        not (flags, fillers, pointers).
      fillers_w: weights read for each weight on top of those that are there, such as fillers of a code.
    """

    cycles: Any = 1.0
    executed: Any = 1.0
    gated_w: Any = 1.0
    gated_i: Any = 1.0
    datapath: Any = 1.0
    words_w: Any = 1.0
    words_i: Any = 1.0
    stored_zeros_w: Any = 1.0
    stored_zeros_i: Any = 1.0
    fetches_w: Any = 1.0
    fetches_i: Any = 1.0
    zero_fetches_w: Any = 1.0
    zero_fetches_i: Any = 1.0
    extra_cycles: Any = 0.0
    extra_datapath_pj: Any = 0.0
    entry_datapath_pj: Any = 0.0
    extra_words_w: Any = 0.0
    extra_words_i: Any = 0.0
    fillers_w: Any = 0.0

    def seen(self, density: Any, operand: str) -> Any:
        """Share of an operand's words (`W` or `I`) that the gating of the datapath takes for non-zeros."""
        return 1.0 - (self.gated_w if operand == "W" else self.gated_i) * (1.0 - density)

    def moved(self, density: Any, operand: str) -> Any:
        """Buffer words for each word of the operand that comes from or goes to DRAM."""
        if operand == "W":
            return (density + self.stored_zeros_w * (1.0 - density)) * self.words_w + self.extra_words_w
        return (density + self.stored_zeros_i * (1.0 - density)) * self.words_i + self.extra_words_i

    def read(self, density: Any, operand: str) -> Any:
        """Buffer words read into the array for each word that is without mechanisms."""
        if operand == "W":
            zeros = self.zero_fetches_w * self.stored_zeros_w * (1.0 - density)
            return self.fetches_w * ((density + zeros) * self.words_w + self.extra_words_w)
        zeros = self.zero_fetches_i * self.stored_zeros_i * (1.0 - density)
        return self.fetches_i * ((density + zeros) * self.words_i + self.extra_words_i)

    def entries(self, density: Any) -> Any:
        """Weights read into the array for each word of weights that is without mechanisms, however they are packed."""
        zeros = self.zero_fetches_w * self.stored_zeros_w * (1.0 - density)
        return self.fetches_w * (density + zeros + self.fillers_w)


ADDED = ("extra_cycles", "extra_datapath_pj", "entry_datapath_pj", "extra_words_w", "extra_words_i", "fillers_w")


def combine(effects: Sequence[Effect]) -> Effect:
    """All effects at once: factors multiply, additions add up."""
    return Effect(
        **{
            name: (sum if name in ADDED else math.prod)([getattr(one, name) for one in effects])  # type: ignore[operator]
            for name in Effect._fields
        }
    )


def spread(effect: Effect, like: Any) -> Effect:
    """The effect with every field an array of the shape [*n mode] of `like`."""
    return Effect(*(jnp.broadcast_to(jnp.asarray(x, like.dtype), like.shape) for x in effect))
