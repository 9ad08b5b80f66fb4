"""A value of the network on its way to integers: the real number clip(scale * q + offset, low, high) of an integer q.

Normalizations, biases and rectifiers only change scale, offset, low and high, channel by channel; they become part of
the next requantization and cost nothing. All six arrays broadcast against one image.
"""

import dataclasses
from typing import Any

import numpy as np

ARRAYS = ("scale", "offset", "low", "high", "least", "most")


@dataclasses.dataclass(frozen=True, eq=False)
class Value:
    """What is known of one value.

    Attributes:
      node: holds q (or, when `real`, the float input).
      shape: at batch 1.
      batch: its batch axis.
      least, most: q is never beyond these.
      derived: the value that this one is the maximum of, so that x - max(x) is not taken for a residual.
    """

    node: int
    shape: tuple[int, ...]
    batch: int
    scale: np.ndarray
    offset: np.ndarray
    low: np.ndarray
    high: np.ndarray
    least: np.ndarray
    most: np.ndarray
    real: bool = False
    layer: str = "input"
    derived: Any = None

    def with_arrays(self, **arrays: np.ndarray) -> "Value":
        """The same with other arrays, each as small as it can be."""
        small: Any = {name: compressed(array) for name, array in arrays.items()}
        return dataclasses.replace(self, **small)


def value_of(
    node: int, shape: tuple[int, ...], batch: int, scale: Any, least: np.ndarray, most: np.ndarray, layer: str
) -> Value:
    """Plain integers of one step, or of one a channel."""
    one = np.ones((1,) * len(shape))
    least, most = (compressed(np.asarray(a, np.int64) + 0 * one.astype(np.int64)) for a in (least, most))
    return Value(node, shape, batch, scale * one, 0 * one, -np.inf * one, np.inf * one, least, most, layer=layer)


def compressed(array: np.ndarray) -> np.ndarray:
    """The array with every axis along which it does not vary cut to length 1."""
    for axis, n in enumerate(array.shape):
        if n > 1 and (array == array.take([0], axis)).all():
            array = array.take([0], axis)
    return array


def scaled(v: Value, factor: np.ndarray) -> Value:
    """v * factor."""
    with np.errstate(invalid="ignore"):  # 0 * inf, not chosen
        low = np.where(factor > 0, v.low * factor, np.where(factor < 0, v.high * factor, 0.0))
        high = np.where(factor > 0, v.high * factor, np.where(factor < 0, v.low * factor, 0.0))
    return v.with_arrays(scale=v.scale * factor, offset=v.offset * factor, low=low, high=high)


def shifted(v: Value, offset: np.ndarray) -> Value:
    """v + offset."""
    return v.with_arrays(offset=v.offset + offset, low=v.low + offset, high=v.high + offset)


def clipped(v: Value, low: np.ndarray, high: np.ndarray) -> Value:
    """min(max(v, low), high)."""
    return v.with_arrays(low=np.clip(v.low, low, high), high=np.clip(v.high, low, high))


def ends(v: Value) -> tuple[np.ndarray, np.ndarray]:
    """Least and largest number that v can be, before its clip."""
    first, second = v.scale * v.least + v.offset, v.scale * v.most + v.offset
    return np.minimum(first, second), np.maximum(first, second)


def magnitude(v: Value) -> float:
    """Largest magnitude that v can have."""
    return float(max(np.abs(np.clip(end, v.low, v.high)).max() for end in ends(v)))


def is_clipped(v: Value) -> bool:
    """Whether some q is beyond the clip."""
    least, most = ends(v)
    return bool((least < v.low).any() or (most > v.high).any())


def is_plain(v: Value) -> bool:
    """Whether v is q times one step."""
    return not v.real and v.scale.size == 1 and bool((v.offset == 0).all()) and not is_clipped(v)


def is_uniform(v: Value, axes: Any) -> bool:
    """Whether scale, offset and clip are the same along these axes."""
    return all(array.shape[axis] == 1 for array in (v.scale, v.offset, v.low, v.high) for axis in axes)
