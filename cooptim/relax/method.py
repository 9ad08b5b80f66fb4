"""How the words of one layer are made: which quantizers, one scale or one a channel, how many of a group are kept."""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from cooptim.relax.codebook import MOST_LABEL_BITS
from cooptim.relax.rounding import replace_gradient

# Learned step and range, with the width that follows, one of `cooptim.relax.quantizers`, or `cooptim.relax.codebook`.
WEIGHTS: tuple[str, ...] = ("step_range", "lsq", "dorefa", "sign", "ternary", "blend", "codebook")
INPUTS: tuple[str, ...] = ("step_range", "lsq", "pact", "dorefa", "sign", "blend")
_SCALED = ("step_range", "lsq", "blend")  # have a step or a range that a factor a channel can multiply
_WITHOUT_ZERO = ("dorefa", "sign")
OF_WHOLE_TENSOR = ("dorefa", "ternary")  # weights that take a scale from all words at hand, of data those of a batch
WHOLE_UNITS = tuple(name for name in WEIGHTS if name not in ("dorefa", "codebook"))  # weights that bits can spell
_FIXED_BITS = {"sign": 1.0, "ternary": 2.0}  # where the width is part of the method
_LARGEST_GROUP = 32


@dataclasses.dataclass(frozen=True)
class Method:
    """Static choices of one layer; hashable, one a layer in `Operands.methods`.

    Attributes:
      weights, inputs: name of the quantizer, one of WEIGHTS and of INPUTS.
      per_channel: each output channel has a factor of its own on step and range of the weights ('step_range', 'lsq',
        'blend'), or takes its scale from its own weights ('ternary'; 'sign' always does).
      pattern: (N, M) keeps the N largest of each M consecutive weights of an output channel, channels innermost.
      label_bits: of 'codebook', whose weights are labels of 2^label_bits values, 0 among them; None for the others.

    Raises ValueError for a name that is not known, a pattern outside 1 <= N < M <= 32 or of words without a zero,
    channels of 'dorefa' and 'codebook', which have one scale, and label bits outside 1..8 or without a codebook.
    """

    weights: str = "step_range"
    inputs: str = "step_range"
    per_channel: bool = False
    pattern: tuple[int, int] | None = None
    label_bits: int | None = None

    def __post_init__(self) -> None:
        for what, name, legal in (("weights", self.weights, WEIGHTS), ("inputs", self.inputs, INPUTS)):
            if name not in legal:
                raise ValueError(f"method: quantizer '{name}' of {what} is not known; use one of {', '.join(legal)}")
        if self.per_channel and self.weights == "dorefa":
            raise ValueError("method: dorefa normalizes a whole tensor, not per_channel; use step_range, lsq or blend")
        self._require_labels()
        if self.pattern is None:
            return
        if not self.has_zero:
            raise ValueError(
                f"method: pattern {self.pattern} of {self.weights} weights, which have no zero; use one of "
                f"{', '.join(name for name in WEIGHTS if name not in _WITHOUT_ZERO)}"
            )
        n, m = self.pattern if isinstance(self.pattern, tuple) and len(self.pattern) == 2 else (None, None)
        if type(n) is not int or type(m) is not int or not 1 <= n < m <= _LARGEST_GROUP:
            raise ValueError(
                f"method: pattern {self.pattern!r} does not keep N of M; write two whole numbers with "
                f"1 <= N < M <= {_LARGEST_GROUP}, such as (2, 4)"
            )

    def _require_labels(self) -> None:
        legal = type(self.label_bits) is int and 1 <= self.label_bits <= MOST_LABEL_BITS
        if self.weights == "codebook" and not legal:
            raise ValueError(
                f"method: codebook with {self.label_bits} label_bits; legal are whole numbers from 1 to "
                f"{MOST_LABEL_BITS}"
            )
        if self.weights != "codebook" and self.label_bits is not None:
            raise ValueError(f"method: label_bits {self.label_bits} of {self.weights} weights; they are for codebook")
        if self.weights == "codebook" and self.per_channel:
            raise ValueError("method: a codebook serves a whole tensor, not per_channel; use step_range, lsq or blend")

    @property
    def scaled(self) -> bool:
        """Whether the weights have a learned factor a channel."""
        return self.per_channel and self.weights in _SCALED

    @property
    def has_zero(self) -> bool:
        """Whether a weight can be zero, so that one can be pruned."""
        return self.weights not in _WITHOUT_ZERO

    @property
    def fixed_bits(self) -> tuple[float | None, float | None]:
        """Width of weights and inputs where it is part of the method [bit]; None where it is learned or chosen."""
        own = _FIXED_BITS.get(self.weights) if self.label_bits is None else float(self.label_bits)
        return own, _FIXED_BITS.get(self.inputs)

    @property
    def entries(self) -> int:
        """Values in the table of the weights; 0 for a method without one."""
        return 0 if self.label_bits is None else 2**self.label_bits


PLAIN = Method()


def method_of(methods: tuple[Method, ...], layer: int) -> Method:
    """The method of a layer; the default where none is said."""
    return methods[layer] if methods else PLAIN


def require_methods(methods: tuple[Method, ...], layers: int, who: str) -> None:
    """Raises ValueError unless there is one method a layer, or none at all."""
    if len(methods) not in (0, layers):
        raise ValueError(
            f"{who}: {len(methods)} methods for {layers} layers; give one a layer, or none for the default"
        )


def require_divides(name: str, pattern: tuple[int, int], words: int) -> None:
    """Raises ValueError, with the layer's name, unless its channels of so many weights are whole groups."""
    if words % pattern[1]:
        legal = [m for m in range(2, _LARGEST_GROUP + 1) if words % m == 0]
        raise ValueError(
            f"{name}: pattern {pattern[0]} of {pattern[1]} does not divide its {words} weights an output channel "
            f"(C*FY*FX); M may be {', '.join(map(str, legal)) if legal else 'none: leave its pattern out'}"
        )


def kept_of_group(w: Float[Array, "*n"], pattern: tuple[int, int]) -> Bool[Array, "*n"]:
    """Where a weight is among the N largest magnitudes of its group of M along the last axis; the first wins a tie."""
    n, m = pattern
    magnitude = jnp.abs(w).reshape(*w.shape[:-1], w.shape[-1] // m, m)
    mine, other = magnitude[..., :, None], magnitude[..., None, :]
    earlier = jnp.arange(m)[None, :] < jnp.arange(m)[:, None]
    ahead = (other > mine) | ((other == mine) & earlier)
    return (jnp.sum(ahead, axis=-1) < n).reshape(w.shape)


def n_of_m(
    w: Float[Array, "..."], pattern: tuple[int, int], channels: tuple[int, ...], reduced: tuple[int, ...]
) -> Float[Array, "..."]:
    """w with all but the N largest of each M weights zero; the identity's gradient, so that what is cut can return.

    Args:
      channels: axes of the output channels. reduced: axes that are summed over, outermost first; groups run along them.

    Source: magnitude N:M masks with a straight-through gradient, Zhou et al., "Learning N:M fine-grained structured
    sparse neural networks from scratch" (ICLR 2021), without its decay of cut weights.
    """
    order = (*channels, *reduced)
    shape = [w.shape[axis] for axis in order]
    rows = jax.lax.stop_gradient(w).transpose(order).reshape(-1, math.prod(w.shape[axis] for axis in reduced))
    back = sorted(range(len(order)), key=order.__getitem__)
    mask = kept_of_group(rows, pattern).reshape(shape).transpose(back)
    return replace_gradient(jnp.where(mask, w, jnp.zeros((), w.dtype)), w)


def spread(factor: Float[Array, "..."], shape: tuple[int, ...], channels: tuple[int, ...]) -> Float[Array, "..."]:
    """One factor an output channel, in the order of the axes `channels`, shaped to broadcast against the weights."""
    table = factor.reshape([shape[axis] for axis in channels])
    ascending = table.transpose(sorted(range(len(channels)), key=channels.__getitem__))
    return ascending.reshape([n if axis in channels else 1 for axis, n in enumerate(shape)])
