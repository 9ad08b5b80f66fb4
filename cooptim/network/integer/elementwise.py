"""Equations that act on each element: constants fold into scale, offset and clip, two values are added."""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from cooptim.network.integer.build import Builder, CannotLower
from cooptim.network.integer.value import Value, clipped, scaled, shifted


def _pair(build: Builder, eqn: Any, args: list[Any]) -> tuple[Any, Any]:
    """Both operands; constants with the axes of the result, values in its shape where only one is data."""
    shape = tuple(eqn.outvars[0].aval.shape)
    if all(isinstance(arg, Value) for arg in args):
        return args[0], args[1]
    out = []
    for arg in args:
        if isinstance(arg, Value):
            out.append(build.broadcast(arg, shape))
        else:
            out.append(arg.reshape((1,) * (len(shape) - arg.ndim) + arg.shape))
    return out[0], out[1]


def _add(build: Builder, eqn: Any, args: list[Any]) -> Value:
    a, b = _pair(build, eqn, args)
    if isinstance(a, Value) and isinstance(b, Value):
        return build.join(a, b, eqn.outvars[0].aval.shape)
    return shifted(a, b) if isinstance(a, Value) else shifted(b, a)


def _sub(build: Builder, eqn: Any, args: list[Any]) -> Value:
    a, b = _pair(build, eqn, args)
    if isinstance(b, Value):
        negative = scaled(b, np.full((1,) * len(b.shape), -1.0))
        return build.join(a, negative, eqn.outvars[0].aval.shape) if isinstance(a, Value) else shifted(negative, a)
    return shifted(a, -b)


def _mul(build: Builder, eqn: Any, args: list[Any]) -> Value:
    a, b = _pair(build, eqn, args)
    if isinstance(a, Value) and isinstance(b, Value):
        raise CannotLower("'mul' of two values that depend on x")
    return scaled(a, b) if isinstance(a, Value) else scaled(b, a)


def _div(build: Builder, eqn: Any, args: list[Any]) -> Value:
    a, b = _pair(build, eqn, args)
    if isinstance(b, Value) or (b == 0).any():
        raise CannotLower("'div' by a value that depends on x, or by zero")
    return scaled(a, 1.0 / b)


def _bounded(largest: bool) -> Callable[[Builder, Any, list[Any]], Value]:
    def bound(build: Builder, eqn: Any, args: list[Any]) -> Value:
        a, b = _pair(build, eqn, args)
        if isinstance(a, Value) and isinstance(b, Value):
            raise CannotLower(f"'{eqn.primitive.name}' of two values that depend on x")
        value, constant = (a, b) if isinstance(a, Value) else (b, a)
        none = np.full_like(constant, np.inf)
        return clipped(value, constant, none) if largest else clipped(value, -none, constant)

    return bound


def _clamp(build: Builder, eqn: Any, args: list[Any]) -> Value:
    low, value, high = args
    if not isinstance(value, Value) or isinstance(low, Value) or isinstance(high, Value):
        raise CannotLower("'clamp' with bounds that depend on x")
    ones = (1,) * len(value.shape)
    return clipped(value, *(a if a.ndim else a.reshape(ones) for a in (low, high)))


def _neg(build: Builder, eqn: Any, args: list[Any]) -> Value:
    return scaled(args[0], np.full((1,) * len(args[0].shape), -1.0))


def _same(build: Builder, eqn: Any, args: list[Any]) -> list[Any]:
    return list(args)


def _converted(build: Builder, eqn: Any, args: list[Any]) -> Value:
    if not jnp.issubdtype(eqn.params["new_dtype"], jnp.floating):
        raise CannotLower(f"a conversion to {eqn.params['new_dtype']}")
    return args[0]


ELEMENTWISE: Mapping[str, Callable[[Builder, Any, list[Any]], Any]] = {
    "add": _add, "add_any": _add, "sub": _sub, "mul": _mul, "div": _div, "neg": _neg,
    "max": _bounded(True), "min": _bounded(False), "clamp": _clamp,
    "copy": _same, "copy_p": _same, "stop_gradient": _same, "name": _same, "optimization_barrier": _same,
    "convert_element_type": _converted,
}  # fmt: skip
