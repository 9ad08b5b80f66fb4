"""The operations of an integer network in numpy; each takes (attributes, arrays, inputs) and gives an array."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from cooptim.integer.arithmetic import requantized

Attributes = Mapping[str, Any]
Arrays = Mapping[str, np.ndarray]


def quantize(at: Attributes, arrays: Arrays, inputs: Sequence[np.ndarray]) -> np.ndarray:
    """Words of a float input: one float32 product, rounded with ties to even, clipped."""
    scaled = np.rint(np.asarray(inputs[0], np.float32) * np.float32(at["scale"]))
    return np.clip(scaled, at["low"], at["high"]).astype(np.int64)


def requantize(at: Attributes, arrays: Arrays, inputs: Sequence[np.ndarray]) -> np.ndarray:
    """Words of the next step from integers of another."""
    return requantized(inputs[0], **arrays)


def words_of(arrays: Arrays) -> np.ndarray:
    """Weights of a layer (int64): its own, or the values of its table that its labels name."""
    found = arrays["weights"] if "weights" in arrays else arrays["table"][arrays["labels"]]
    return found.astype(np.int64)


def dilated(x: np.ndarray, between: Sequence[int]) -> np.ndarray:
    """x with that many zeros between neighbours of each axis."""
    if not any(between):
        return x
    out = np.zeros([(n - 1) * (b + 1) + 1 if n else 0 for n, b in zip(x.shape, between, strict=True)], x.dtype)
    out[tuple(slice(None, None, b + 1) for b in between)] = x
    return out


def padded(x: np.ndarray, edges: Sequence[Sequence[int]], value: int) -> np.ndarray:
    """x with (before, after) elements of `value` added to each axis; negative numbers crop."""
    crop = tuple(slice(max(-b, 0), n - max(-a, 0)) for n, (b, a) in zip(x.shape, edges, strict=True))
    return np.pad(x[crop], [(max(b, 0), max(a, 0)) for b, a in edges], constant_values=value)


def _taps(
    x: np.ndarray, window: Sequence[int], strides: Sequence[int], dilation: Sequence[int]
) -> Iterator[tuple[tuple[int, ...], np.ndarray]]:
    """For each place in the window, the elements of x that all windows have there."""
    counts = [(n - (w - 1) * d - 1) // s + 1 for n, w, s, d in zip(x.shape, window, strides, dilation, strict=True)]
    for place in itertools.product(*(range(w) for w in window)):
        start = [p * d for p, d in zip(place, dilation, strict=True)]
        yield place, x[tuple(slice(b, b + (c - 1) * s + 1, s) for b, c, s in zip(start, counts, strides, strict=True))]


def conv(at: Attributes, arrays: Arrays, inputs: Sequence[np.ndarray]) -> np.ndarray:
    """Accumulators of a convolution, one tap after the other."""
    batch, feature, *space = at["input_spec"]
    out_feature, in_feature, *taps = at["kernel_spec"]
    x = inputs[0].astype(np.int64).transpose(batch, *space, feature)
    w = words_of(arrays).transpose(*taps, in_feature, out_feature)
    x = dilated(x, [0, *(d - 1 for d in at["input_dilation"]), 0])
    x = padded(x, [(0, 0), *at["padding"], (0, 0)], 0)
    groups, (c_in, c_out) = at["groups"], w.shape[-2:]
    total: Any = 0
    window, strides = (1, *w.shape[:-2], 1), (1, *at["strides"], 1)
    for place, seen in _taps(x, window, strides, (1, *at["kernel_dilation"], 1)):
        tap = w[place[1:-1]]
        if groups == 1:
            total = total + seen @ tap
        else:
            by_group = seen.reshape(*seen.shape[:-1], groups, c_in)
            tap = tap.reshape(c_in, groups, c_out // groups)
            total = total + np.einsum("...gc,cgk->...gk", by_group, tap).reshape(*seen.shape[:-1], c_out)
    order = np.argsort([at["output_spec"][0], *at["output_spec"][2:], at["output_spec"][1]])
    return total.transpose(order)


def dot(at: Attributes, arrays: Arrays, inputs: Sequence[np.ndarray]) -> np.ndarray:
    """Accumulators of a matrix product; axes of the result: batched, then free ones of the left and right operand."""
    x, w = inputs[0].astype(np.int64), words_of(arrays)
    left, right = (x, w) if at["side"] == 0 else (w, x)
    names_l, names_r = list(range(left.ndim)), list(range(left.ndim, left.ndim + right.ndim))
    shared = [(*at["left"], *at["left_batch"]), (*at["right"], *at["right_batch"])]
    for a, b in zip(*shared, strict=True):
        names_r[b] = names_l[a]
    free = [n for a, n in enumerate(names_l) if a not in shared[0]] + [
        n for b, n in enumerate(names_r) if b not in shared[1]
    ]
    return np.einsum(left, names_l, right, names_r, [names_l[a] for a in at["left_batch"]] + free)


def add(at: Attributes, arrays: Arrays, inputs: Sequence[np.ndarray]) -> np.ndarray:
    """Sum of two."""
    return inputs[0] + inputs[1]


def total(at: Attributes, arrays: Arrays, inputs: Sequence[np.ndarray]) -> np.ndarray:
    """Sum over axes."""
    return inputs[0].sum(axis=tuple(at["axes"]))


def largest(at: Attributes, arrays: Arrays, inputs: Sequence[np.ndarray]) -> np.ndarray:
    """Largest over axes."""
    return inputs[0].max(axis=tuple(at["axes"]))


def sum_window(at: Attributes, arrays: Arrays, inputs: Sequence[np.ndarray]) -> np.ndarray:
    """Sum of each window, zeros around."""
    x = padded(inputs[0], at["padding"], 0)
    result: Any = 0
    for _, seen in _taps(x, at["window"], at["strides"], at["dilation"]):
        result = result + seen
    return result


def max_window(at: Attributes, arrays: Arrays, inputs: Sequence[np.ndarray]) -> np.ndarray:
    """Largest of each window; what is around never wins."""
    x = padded(inputs[0], at["padding"], int(np.iinfo(np.int64).min))
    best: Any = None
    for _, seen in _taps(x, at["window"], at["strides"], at["dilation"]):
        best = seen if best is None else np.maximum(best, seen)
    return best


def reshape(at: Attributes, arrays: Arrays, inputs: Sequence[np.ndarray]) -> np.ndarray:
    """The same elements in another shape."""
    return inputs[0].reshape(at["shape"])


def broadcast(at: Attributes, arrays: Arrays, inputs: Sequence[np.ndarray]) -> np.ndarray:
    """Repeated along axes of length 1."""
    shape = [n if s == -1 else s for n, s in zip(inputs[0].shape, at["shape"], strict=True)]
    return np.broadcast_to(inputs[0], shape)


def transpose(at: Attributes, arrays: Arrays, inputs: Sequence[np.ndarray]) -> np.ndarray:
    """Axes in another order."""
    return inputs[0].transpose(at["order"])


def reverse(at: Attributes, arrays: Arrays, inputs: Sequence[np.ndarray]) -> np.ndarray:
    """Back to front along axes."""
    return np.flip(inputs[0], tuple(at["axes"]))


def cut(at: Attributes, arrays: Arrays, inputs: Sequence[np.ndarray]) -> np.ndarray:
    """A part of one axis."""
    where = [slice(None)] * inputs[0].ndim
    where[at["axis"]] = slice(at["start"], at["stop"], at["step"])
    return inputs[0][tuple(where)]


def pad(at: Attributes, arrays: Arrays, inputs: Sequence[np.ndarray]) -> np.ndarray:
    """Surrounded, and interleaved, by one value."""
    value = at["value"]
    apart = dilated(inputs[0] - value, [between for _, _, between in at["edges"]]) + value
    return padded(apart, [(before, after) for before, after, _ in at["edges"]], value)


def concatenate(at: Attributes, arrays: Arrays, inputs: Sequence[np.ndarray]) -> np.ndarray:
    """One behind the other."""
    return np.concatenate(inputs, axis=at["axis"])


FUNCTIONS = {
    "quantize": quantize, "requantize": requantize, "conv": conv, "dot": dot, "add": add, "sum": total, "max": largest,
    "sum_window": sum_window, "max_window": max_window, "reshape": reshape, "broadcast": broadcast,
    "transpose": transpose, "reverse": reverse, "slice": cut, "pad": pad, "concatenate": concatenate,
}  # fmt: skip
