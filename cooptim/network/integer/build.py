"""Nodes of an integer network as they are made: operations on values, and the requantizations between them."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from cooptim.integer.arithmetic import fixed_point, requantized
from cooptim.integer.ops import FUNCTIONS
from cooptim.integer.program import Node
from cooptim.network.integer.value import (
    ARRAYS,
    Value,
    compressed,
    is_clipped,
    is_plain,
    is_uniform,
    magnitude,
    value_of,
)

WIDEST = 1 << 30  # of a result before its clip, so that 32-bit arithmetic holds it


class CannotLower(Exception):
    """An equation without an integer form; the message says what it is."""


@dataclasses.dataclass(frozen=True)
class IntegerOptions:
    """How integers are kept where the design says nothing.

    Attributes:
      accumulator_bits: width of the accumulators, sign included; a layer that needs more is refused.
      multiplier_bits: of the magnitude of fixed-point multipliers, 2..18.
      word_bits: of words that wait for an addition or are averaged, 4..20; their range is the largest possible.
      input_range: largest magnitude of x; needed only where x meets more than one factor before its first layer.
    """

    accumulator_bits: int = 32
    multiplier_bits: int = 15
    word_bits: int = 16
    input_range: float | None = None

    def __post_init__(self) -> None:
        for name, least, most in (("accumulator_bits", 2, 62), ("multiplier_bits", 2, 18), ("word_bits", 4, 20)):
            value = getattr(self, name)
            if type(value) is not int or not least <= value <= most:
                raise ValueError(f"integer options: {name} is {value!r}; write a whole number in {least}..{most}")
        if self.input_range is not None and not (0 < self.input_range < np.inf):
            raise ValueError(f"integer options: input_range is {self.input_range!r}; write a finite number above 0")


class Builder:
    """The nodes made so far."""

    def __init__(self, options: IntegerOptions, name: str) -> None:
        self.options, self.name = options, name
        self.nodes: list[Node] = [Node("input", (), {}, {}, 0)]
        self._words: dict[int, Value] = {}

    def emit(self, op: str, inputs: Sequence[int], attributes: Any, bound: int, layer: str, **arrays: Any) -> int:
        """Position of a new node."""
        self.nodes.append(Node(op, tuple(inputs), attributes, arrays, int(bound), layer))
        return len(self.nodes) - 1

    # -- steps --------------------------------------------------------------------------------------------------------

    def at_step(self, v: Value, step: float, low: int, high: int) -> Value:
        """v in words of one step, clipped to low..high; v itself where it is that already."""
        if v.real:
            return self._first_words(v, step, low, high)
        if is_plain(v) and v.scale.item() == step and v.least.min() >= low and v.most.max() <= high:
            return v
        multiplier, shift, bias = self._fixed_point(v, step)
        limits = [np.clip(_levels(end, step), low, high) for end in (v.low, v.high)]
        arrays = {"multiplier": multiplier, "shift": shift, "bias": bias, "low": limits[0], "high": limits[1]}
        arrays = {name: compressed(np.asarray(array, np.int64)) for name, array in arrays.items()}
        first, second = requantized(v.least, **arrays), requantized(v.most, **arrays)
        least, most = np.minimum(first, second), np.maximum(first, second)
        bound = max(-int(least.min()), int(most.max()), 0)
        node = self.emit("requantize", (v.node,), {}, bound, v.layer, **arrays)
        return dataclasses.replace(value_of(node, v.shape, v.batch, step, least, most, v.layer), derived=v.derived)

    def _fixed_point(self, v: Value, step: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        try:
            multiplier, shift, bias = fixed_point(v.scale / step, v.offset / step, self.options.multiplier_bits)
        except ValueError as error:
            raise ValueError(f"{v.layer}: requantization of its results to a step of {step:g}: {error}") from None
        farthest = np.maximum(np.abs(v.least), np.abs(v.most)).astype(float)
        before = farthest * np.abs(multiplier) + np.abs(bias)
        if (before >= 2.0**62).any() or (before / 2.0**shift >= WIDEST).any():
            raise ValueError(
                f"{v.layer}: its results reach {float((before / 2.0**shift).max()):.3g} steps of {step:g}, more than "
                f"2^30: widen the range of the layer behind it"
            )
        return multiplier, shift, bias

    def _first_words(self, v: Value, step: float, low: int, high: int) -> Value:
        """Words of the float input."""
        if (v.offset != 0).any() or v.scale.size > 1 or v.scale.item() <= 0:
            return self.at_step(self.integers(v), step, low, high)
        limits = [int(np.clip(_levels(end, step), low, high).item()) for end in (v.low, v.high)]
        attributes = {"scale": float(np.float32(v.scale.item() / step)), "low": limits[0], "high": limits[1]}
        node = self.emit("quantize", (v.node,), attributes, max(map(abs, limits)), v.layer)
        least, most = (np.asarray(limit) for limit in limits)
        return value_of(node, v.shape, v.batch, step, least, most, v.layer)

    def integers(self, v: Value) -> Value:
        """v on integers, also where it is still the float input."""
        if not v.real:
            return v
        if v.node not in self._words:
            if self.options.input_range is None:
                raise ValueError(
                    f"{self.name}: x meets an offset, a factor a channel or another operation before its first layer, "
                    "so its words need a range of their own; give input_range, the largest magnitude of x"
                )
            top = 2 ** (self.options.word_bits - 1) - 1
            step = self.options.input_range / top
            attributes = {"scale": float(np.float32(1.0 / step)), "low": -top, "high": top}
            node = self.emit("quantize", (v.node,), attributes, top, v.layer)
            self._words[v.node] = value_of(node, v.shape, v.batch, step, np.asarray(-top), np.asarray(top), v.layer)
        q = self._words[v.node]
        return dataclasses.replace(v, node=q.node, real=False, scale=v.scale * q.scale, least=q.least, most=q.most)

    def words(self, v: Value, bits: int | None = None, reach: float | None = None) -> Value:
        """v in plain words that hold all that it can be, or `reach`."""
        v = self.integers(v)
        top = 2 ** ((self.options.word_bits if bits is None else bits) - 1) - 1
        step = (magnitude(v) if reach is None else reach) / top or 1.0
        return self.at_step(v, step, -top, top)

    # -- operations ---------------------------------------------------------------------------------------------------

    def moved(self, op: str, attributes: Any, v: Value, shape: Sequence[int], batch: int) -> Value:
        """v after an operation that only moves, repeats or leaves out elements."""
        function: Callable[..., np.ndarray] = FUNCTIONS[op]

        def move(array: np.ndarray) -> np.ndarray:
            return compressed(np.asarray(function(attributes, {}, [np.broadcast_to(array, v.shape)])))

        arrays: Any = {name: move(getattr(v, name)) for name in ARRAYS}
        node = self.emit(op, (v.node,), attributes, self.nodes[v.node].bound, v.layer)
        return dataclasses.replace(v, node=node, shape=tuple(shape), batch=batch, **arrays)

    def broadcast(self, v: Value, shape: Sequence[int]) -> Value:
        """v repeated to a shape."""
        if tuple(shape) == v.shape:
            return v
        return self.moved("broadcast", {"shape": with_batch(shape, v.batch)}, v, shape, v.batch)

    def join(self, first: Value, second: Value, shape: Sequence[int]) -> Value:
        """first + second, both in words of one step."""
        a, b = (self.broadcast(self.integers(v), shape) for v in (first, second))
        if a.batch != b.batch:
            raise CannotLower("a sum of two values whose batch axes differ")
        if not (is_plain(a) and is_plain(b) and a.scale.item() == b.scale.item()):
            reach = max(magnitude(a), magnitude(b))
            a, b = self.words(a, reach=reach), self.words(b, reach=reach)
        least, most = a.least + b.least, a.most + b.most
        node = self.emit("add", (a.node, b.node), {}, self.nodes[a.node].bound + self.nodes[b.node].bound, a.layer)
        step = a.scale.item()
        added = value_of(node, a.shape, a.batch, step, least, most, a.layer if a.layer == b.layer else b.layer)
        related = first.derived is second or second.derived is first
        return dataclasses.replace(added, derived=(second if first.derived is second else first) if related else None)

    def maximum(self, op: str, attributes: Any, v: Value, axes: Sequence[int], shape: Sequence[int]) -> Value:
        """Largest of windows or over axes; a negative factor, or one that varies within a window, is applied before."""
        v = self.integers(v)
        if (v.scale < 0).any() or not is_uniform(v, axes):
            v = self.words(v)
        node = self.emit(op, (v.node,), attributes, self.nodes[v.node].bound, v.layer)
        return self._pooled(v, node, axes, axes if op == "max" else (), shape)

    def total(self, op: str, attributes: Any, v: Value, axes: Sequence[int], shape: Sequence[int]) -> Value:
        """Sums of windows or over axes; what is clipped, or would be averaged unevenly, is rounded to words before."""
        v = self.integers(v)
        around = any(edge for pair in attributes.get("padding", ()) for edge in pair)
        count = int(np.prod(attributes["window"] if op == "sum_window" else [v.shape[a] for a in axes]))
        if is_clipped(v) or not is_uniform(v, axes) or (around and (v.offset != 0).any()):
            v = self.words(v, min(self.options.word_bits, 23 - max(count - 1, 0).bit_length()))
        least, most = count * v.least, count * v.most
        if around:
            least, most = np.minimum(least, 0), np.maximum(most, 0)
        node = self.emit(op, (v.node,), attributes, count * self.nodes[v.node].bound, v.layer)
        free: Any = {"low": np.full_like(v.low, -np.inf), "high": np.full_like(v.high, np.inf)}
        summed = dataclasses.replace(v, least=least, most=most, offset=count * v.offset, **free)
        return self._pooled(summed, node, axes, axes if op == "sum" else (), shape)

    def _pooled(self, v: Value, node: int, axes: Sequence[int], dropped: Sequence[int], shape: Sequence[int]) -> Value:
        """The result of a reduction over `axes`, whose bounds may differ along them though its step does not."""
        gone, along = tuple(dropped), tuple(axes)
        v = dataclasses.replace(
            v, least=v.least.min(axis=along, keepdims=True), most=v.most.max(axis=along, keepdims=True)
        )
        arrays: Any = {name: np.squeeze(getattr(v, name), gone) for name in ARRAYS}
        batch = v.batch - sum(axis < v.batch for axis in gone)
        return dataclasses.replace(v, node=node, shape=tuple(shape), batch=batch, **arrays)

    def pad(self, v: Value, edges: Any, value: float, shape: Sequence[int]) -> Value:
        """v surrounded by a number."""
        if not np.isfinite(value):
            raise CannotLower(f"a pad with {value}")
        if not is_plain(v) and not (v.real and value == 0 and (v.offset == 0).all() and not is_clipped(v)):
            v = self.words(v)
        level = int(_levels(np.asarray(value), v.scale.item())) if not v.real else 0
        bound = max(self.nodes[v.node].bound, abs(level)) if not v.real else 0
        node = self.emit("pad", (v.node,), {"edges": edges, "value": level}, bound, v.layer)
        least, most = compressed(np.minimum(v.least, level)), compressed(np.maximum(v.most, level))
        if least.size > 1 or most.size > 1:
            least, most = (np.full((1,) * len(shape), end) for end in (least.min(), most.max()))
        return dataclasses.replace(v, node=node, shape=tuple(shape), least=least, most=most)

    def concatenate(self, values: Sequence[Value], axis: int, shape: Sequence[int]) -> Value:
        """Values one behind the other; each keeps its own scale, offset and clip, and parts of x stay floats."""
        as_given = all(v.real and v.scale.size == 1 and (v.offset == 0).all() and not is_clipped(v) for v in values)
        if not as_given or len({v.scale.item() for v in values}) > 1:
            values = [self.integers(v) for v in values]
        if len({v.batch for v in values}) > 1 or axis == values[0].batch:
            raise CannotLower("a concatenation along the batch axis")
        bound = max(self.nodes[v.node].bound for v in values)
        node = self.emit("concatenate", [v.node for v in values], {"axis": axis}, bound, values[0].layer)
        arrays: Any = {
            name: compressed(np.concatenate([np.broadcast_to(getattr(v, name), v.shape) for v in values], axis))
            for name in ARRAYS
        }
        return dataclasses.replace(values[0], node=node, shape=tuple(shape), derived=None, **arrays)


def with_batch(shape: Sequence[int], batch: int) -> list[int]:
    """A shape at any batch size."""
    return [-1 if axis == batch else int(n) for axis, n in enumerate(shape)]


def _levels(number: np.ndarray, step: float) -> np.ndarray:
    """A number in steps, within 32 bits; infinities too."""
    return np.asarray(np.clip(np.rint(number / step), -(2.0**31), 2.0**31)).astype(np.int64)
