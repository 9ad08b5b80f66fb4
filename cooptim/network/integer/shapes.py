"""Equations that move elements or reduce over them, with the batch axis kept in sight."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from cooptim.network.integer.build import Builder, CannotLower, with_batch
from cooptim.network.integer.value import Value


def _out_shape(eqn: Any) -> tuple[int, ...]:
    return tuple(eqn.outvars[0].aval.shape)


def _not_batch(v: Value, axes: Sequence[int], name: str) -> None:
    if v.batch in axes:
        raise CannotLower(f"'{name}' over the batch axis")


def _reshape(build: Builder, eqn: Any, args: list[Any]) -> Value:
    v, shape = args[0], _out_shape(eqn)
    before = math.prod(v.shape[: v.batch])
    places = [p for p, n in enumerate(shape) if n == 1 and math.prod(shape[:p]) == before]
    if not places:
        raise CannotLower("a reshape that merges the batch axis with another")
    return build.moved("reshape", {"shape": with_batch(shape, places[0])}, v, shape, places[0])


def _squeeze(build: Builder, eqn: Any, args: list[Any]) -> Value:
    v, gone = args[0], {d % len(args[0].shape) for d in eqn.params["dimensions"]}
    _not_batch(v, tuple(gone), "squeeze")
    shape, batch = _out_shape(eqn), v.batch - sum(d < v.batch for d in gone)
    return build.moved("reshape", {"shape": with_batch(shape, batch)}, v, shape, batch)


def _broadcast(build: Builder, eqn: Any, args: list[Any]) -> Value:
    v, places, shape = args[0], eqn.params["broadcast_dimensions"], _out_shape(eqn)
    kept = [1] * len(shape)
    for axis, place in enumerate(places):
        kept[place] = v.shape[axis]
    batch = places[v.batch]
    if tuple(kept) != v.shape:
        v = build.moved("reshape", {"shape": with_batch(kept, batch)}, v, kept, batch)
    return build.broadcast(v, shape)


def _transpose(build: Builder, eqn: Any, args: list[Any]) -> Value:
    v, order = args[0], [int(a) for a in eqn.params["permutation"]]
    return build.moved("transpose", {"order": order}, v, _out_shape(eqn), order.index(v.batch))


def _reverse(build: Builder, eqn: Any, args: list[Any]) -> Value:
    v, axes = args[0], [int(a) for a in eqn.params["dimensions"]]
    _not_batch(v, axes, "rev")
    return build.moved("reverse", {"axes": axes}, v, v.shape, v.batch)


def _cut(build: Builder, v: Value, start: Sequence[int], stop: Sequence[int], steps: Sequence[int]) -> Value:
    for axis, (a, b, s) in enumerate(zip(start, stop, steps, strict=True)):
        if (a, b, s) == (0, v.shape[axis], 1):
            continue
        _not_batch(v, (axis,), "slice")
        shape = list(v.shape)
        shape[axis] = len(range(a, b, s))
        v = build.moved("slice", {"axis": axis, "start": int(a), "stop": int(b), "step": int(s)}, v, shape, v.batch)
    return v


def _slice(build: Builder, eqn: Any, args: list[Any]) -> Value:
    p = eqn.params
    steps = p["strides"] or (1,) * len(p["start_indices"])
    return _cut(build, args[0], p["start_indices"], p["limit_indices"], steps)


def _dynamic_slice(build: Builder, eqn: Any, args: list[Any]) -> Value:
    v, *starts = args
    if any(isinstance(s, Value) for s in starts):
        raise CannotLower("a slice whose start depends on x")
    sizes = eqn.params["slice_sizes"]
    begin = [min(max(int(s), 0), n - k) for s, n, k in zip(starts, v.shape, sizes, strict=True)]
    return _cut(build, v, begin, [b + k for b, k in zip(begin, sizes, strict=True)], [1] * len(sizes))


def _split(build: Builder, eqn: Any, args: list[Any]) -> list[Value]:
    v, axis = args[0], eqn.params["axis"]
    ends = [0, *np.cumsum(eqn.params["sizes"])]
    out = []
    for a, b in zip(ends[:-1], ends[1:], strict=True):
        start, stop = [0] * len(v.shape), list(v.shape)
        start[axis], stop[axis] = int(a), int(b)
        out.append(_cut(build, v, start, stop, [1] * len(v.shape)))
    return out


def _pad(build: Builder, eqn: Any, args: list[Any]) -> Value:
    v, value = args
    edges = [[int(n) for n in edge] for edge in eqn.params["padding_config"]]
    if not isinstance(v, Value) or isinstance(value, Value):
        raise CannotLower("a pad with a value that depends on x")
    _not_batch(v, [a for a, edge in enumerate(edges) if any(edge)], "pad")
    return build.pad(v, edges, float(value), _out_shape(eqn))


def _concatenate(build: Builder, eqn: Any, args: list[Any]) -> Value:
    if not all(isinstance(arg, Value) for arg in args):
        raise CannotLower("a concatenation with constants")
    return build.concatenate(args, int(eqn.params["dimension"]), _out_shape(eqn))


def _reduced(op: str) -> Callable[[Builder, Any, list[Any]], Value]:
    def reduce(build: Builder, eqn: Any, args: list[Any]) -> Value:
        v, axes = args[0], [int(a) for a in eqn.params["axes"]]
        _not_batch(v, axes, eqn.primitive.name)
        if op == "sum":
            return build.total(op, {"axes": axes}, v, axes, _out_shape(eqn))
        return dataclasses.replace(build.maximum(op, {"axes": axes}, v, axes, _out_shape(eqn)), derived=v)

    return reduce


def _windowed(op: str) -> Callable[[Builder, Any, list[Any]], Value]:
    def reduce(build: Builder, eqn: Any, args: list[Any]) -> Value:
        v, p = args[0], eqn.params
        if any(d != 1 for d in p["base_dilation"]):
            raise CannotLower(f"'{eqn.primitive.name}' of a dilated base")
        attributes: dict[str, Any] = {
            "window": [int(n) for n in p["window_dimensions"]],
            "strides": [int(n) for n in p["window_strides"]],
            "padding": [[int(n) for n in pair] for pair in p["padding"]],
            "dilation": [int(n) for n in p["window_dilation"]],
        }
        rows = zip(attributes["window"], attributes["strides"], attributes["padding"], strict=True)
        axes = [a for a, (w, s, pair) in enumerate(rows) if (w, s) != (1, 1) or any(pair)]
        _not_batch(v, axes, eqn.primitive.name)
        pool = build.total if op == "sum_window" else build.maximum
        return pool(op, attributes, v, axes, _out_shape(eqn))

    return reduce


SHAPES: Mapping[str, Callable[[Builder, Any, list[Any]], Any]] = {
    "reshape": _reshape, "squeeze": _squeeze, "broadcast_in_dim": _broadcast, "transpose": _transpose, "rev": _reverse,
    "slice": _slice, "dynamic_slice": _dynamic_slice, "split": _split, "pad": _pad, "concatenate": _concatenate,
    "reduce_sum": _reduced("sum"), "reduce_max": _reduced("max"),
    "reduce_window_sum": _windowed("sum_window"), "reduce_window_max": _windowed("max_window"),
}  # fmt: skip
