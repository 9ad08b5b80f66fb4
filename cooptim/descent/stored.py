"""How the leaves of a compressed network are kept, and the values that they stand for, equal to the last bit."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float, Integer, Shaped

from cooptim.relax.codebook import MOST_LABEL_BITS

SMALL_FORMS = ("int8", "float16", "float32")
_F16 = np.finfo(np.float16)


@dataclasses.dataclass(frozen=True)
class SharedLeaf:
    """Weights by their place in a table; place 0 is the value 0 where the leaf has zeros.

    Attributes:
      table: 2^bits entries, float16, or float32 where float16 would lose more than its last bit.
      labels: places, in the shape of the leaf. dtype: of the leaf's values.
    """

    table: Shaped[np.ndarray, "entry"]
    labels: Integer[np.ndarray, "..."]
    dtype: str

    @property
    def bits(self) -> int:
        """Of a label."""
        return int(self.table.size).bit_length() - 1


@dataclasses.dataclass(frozen=True)
class ScaledLeaf:
    """Whole numbers of 8 bits times a step."""

    words: Integer[np.ndarray, "..."]
    step: np.float32
    dtype: str


@dataclasses.dataclass(frozen=True)
class PlainLeaf:
    """Numbers as they are, in a type that may be narrower than that of the leaf's values."""

    numbers: Shaped[np.ndarray, "..."]
    dtype: str


Stored = SharedLeaf | ScaledLeaf | PlainLeaf


def value(leaf: Stored) -> Shaped[np.ndarray, "..."]:
    """The array that a stored leaf stands for."""
    if isinstance(leaf, SharedLeaf):
        return leaf.table.astype(np.float32)[leaf.labels].astype(_dtype(leaf.dtype))
    if isinstance(leaf, ScaledLeaf):
        return (leaf.words.astype(np.float32) * leaf.step).astype(_dtype(leaf.dtype))
    return leaf.numbers.astype(_dtype(leaf.dtype))


def shared_leaf(w: Float[Any, "..."], table: Float[Any, "entry"], bits: int) -> SharedLeaf:
    """Each weight at the entry nearest to it; the table sorted, an entry of 0 first, padded to 2^bits entries."""
    entries = np.asarray(table, np.float32)
    zero = bool(np.any(entries == 0))
    rising = np.sort(entries[entries != 0] if zero else entries)
    if not rising.size:
        rising = np.zeros(1, np.float32)
    narrow = np.abs(rising[rising != 0])
    fits = not narrow.size or (narrow.min() >= _F16.tiny and narrow.max() <= _F16.max)
    kept = rising.astype(np.float16 if fits else np.float32)
    full = np.concatenate([np.zeros(int(zero), kept.dtype), kept])
    # Labels by the values kept, so that rounding the table cannot leave a weight at the second nearest.
    order = np.argsort(full, kind="stable")
    middles = full[order].astype(np.float64)
    places = np.searchsorted(0.5 * (middles[1:] + middles[:-1]), np.asarray(w, np.float64), side="left")
    labels = order[places]
    padded = np.concatenate([full, np.zeros(max(0, 2**bits - full.size), full.dtype)])
    return SharedLeaf(padded, labels.astype(np.uint8), _name(w))


def small_leaf(w: Any, form: str) -> Stored:
    """A leaf that no table serves, such as biases, in one of SMALL_FORMS; integers and keys stay as they are.

    Raises ValueError for another form.
    """
    require_form(form)
    array = np.asarray(w)
    if not np.issubdtype(array.dtype, np.floating) or form == "float32":
        kept = array.astype(np.float32) if array.dtype == np.float64 else array
        return PlainLeaf(kept, _name(w))
    wide = array.astype(np.float32)
    largest = float(np.max(np.abs(wide), initial=0.0))
    if form == "int8":
        step = np.float32(largest / 127.0) if largest > 0 else np.float32(1.0)
        return ScaledLeaf(np.round(wide / step).astype(np.int8), step, _name(w))
    return PlainLeaf(wide.astype(np.float16 if largest <= float(_F16.max) else np.float32), _name(w))


def require_form(form: str) -> None:
    """Raises ValueError unless `form` is one of SMALL_FORMS."""
    if form not in SMALL_FORMS:
        raise ValueError(f"compression: small leaves as '{form}'; use one of {', '.join(SMALL_FORMS)}")


def require_label_bits(name: str, bits: Any) -> None:
    """Raises ValueError unless a table of labels of so many bits can be."""
    if not isinstance(bits, int | np.integer) or not 1 <= bits <= MOST_LABEL_BITS:
        raise ValueError(f"codebook of {name}: {bits} label bits; legal are whole numbers from 1 to {MOST_LABEL_BITS}")


def _name(w: Any) -> str:
    return np.asarray(w).dtype.name


def _dtype(name: str) -> np.dtype:
    import jax.numpy as jnp

    return jnp.dtype(name)
