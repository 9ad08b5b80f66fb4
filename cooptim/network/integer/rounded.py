"""The integer network in float32 jax: words and accumulators are whole floats, every one exact below 2^24."""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from cooptim.integer.ops import words_of
from cooptim.integer.program import IntegerNetwork, Node

EXACT = 1 << 24  # float32 holds every integer up to here
_LIMB = 12  # bits of the lower part of an accumulator


def require_float_path(network: IntegerNetwork) -> None:
    """Raises ValueError, naming the layer, when float32 would round: a magnitude of 2^24 or more, or a wide bias."""
    for i, node in enumerate(network.nodes):
        if node.bound >= EXACT:
            raise ValueError(
                f"{network.name}, {node.layer}: node {i} ({node.op}) reaches {node.bound} in magnitude, and float32 is "
                "exact below 2^24 = 16777216; narrow the layer's operands, or run it in integers "
                "(cooptim.integer.outputs)"
            )
        if node.op == "requantize" and np.abs(node.arrays["bias"]).max() >= 1 << 41:
            raise ValueError(f"{network.name}, {node.layer}: node {i} has a bias of 2^41 or more; run it in integers")


def rounded_values(network: IntegerNetwork, x: Float[Array, "..."]) -> list[Array]:
    """The result of every node, x first, as whole float32 numbers; can be jitted.

    Raises ValueError when float32 would not be exact (`require_float_path`).
    """
    require_float_path(network)
    found: list[Array] = []
    for node in network.nodes:
        inputs = [found[i] for i in node.inputs]
        found.append(jnp.asarray(x, jnp.float32) if node.op == "input" else _FUNCTIONS[node.op](node, *inputs))
    return found


def rounded_apply(network: IntegerNetwork, x: Float[Array, "..."]) -> tuple[Array, ...]:
    """What the network's integer outputs stand for, in float32: the quantized function that integers equal exactly."""
    found = rounded_values(network, x)
    return tuple(found[out.node] * jnp.float32(out.step) for out in network.outputs)


def _quantize(node: Node, x: Array) -> Array:
    at = node.attributes
    return jnp.clip(jnp.round(x * jnp.float32(at["scale"])), at["low"], at["high"]).astype(jnp.float32)


def _requantize(node: Node, x: Array) -> Array:
    """Exact in 32 bits: an accumulator of 24 bits is split in two, so that no product passes 31."""
    a = {name: np.asarray(array, np.int64) for name, array in node.arrays.items()}
    words = x.astype(jnp.int32)
    multiplier, low_mask = jnp.asarray(a["multiplier"], jnp.int32), (1 << _LIMB) - 1
    lower = (words & low_mask) * multiplier + jnp.asarray(a["bias"] & low_mask, jnp.int32)
    upper = (words >> _LIMB) * multiplier + jnp.asarray(a["bias"] >> _LIMB, jnp.int32) + (lower >> _LIMB)
    lower = lower & low_mask  # the sum before the shift is upper * 2^12 + lower
    far, near = np.maximum(a["shift"] - _LIMB, 0), np.minimum(a["shift"], _LIMB)
    far_shift, near_shift = jnp.asarray(far, jnp.int32), jnp.asarray(near, jnp.int32)
    floor = jnp.where(far > 0, upper >> far_shift, (upper << (_LIMB - near_shift)) + (lower >> near_shift))
    rest = jnp.where(far > 0, upper & ((1 << far_shift) - 1), lower & ((1 << near_shift) - 1))
    half = jnp.asarray(np.where(far > 0, 1 << np.maximum(far - 1, 0), (1 << near) >> 1), jnp.int32)
    sticky = jnp.where(far > 0, lower > 0, False)  # something beyond the bits compared
    up = (rest > half) | ((rest == half) & (sticky | (floor & 1 == 1)))
    up = jnp.where(jnp.asarray(a["shift"] > 0), up, False)
    words = jnp.clip(floor + up, jnp.asarray(a["low"], jnp.int32), jnp.asarray(a["high"], jnp.int32))
    return words.astype(jnp.float32)


def _weights(node: Node) -> Array:
    return jnp.asarray(words_of(node.arrays), jnp.float32)


def _conv(node: Node, x: Array) -> Array:
    at = node.attributes
    return lax.conv_general_dilated(
        x,
        _weights(node),
        at["strides"],
        [tuple(pair) for pair in at["padding"]],
        at["input_dilation"],
        at["kernel_dilation"],
        lax.ConvDimensionNumbers(*(tuple(at[f"{which}_spec"]) for which in ("input", "kernel", "output"))),
        feature_group_count=at["groups"],
        precision=lax.Precision.HIGHEST,
    )


def _dot(node: Node, x: Array) -> Array:
    at = node.attributes
    left, right = (x, _weights(node)) if at["side"] == 0 else (_weights(node), x)
    numbers = ((at["left"], at["right"]), (at["left_batch"], at["right_batch"]))
    return lax.dot_general(left, right, numbers, precision=lax.Precision.HIGHEST)


def _window(node: Node, x: Array, start: float, reduce: Any) -> Array:
    at = node.attributes
    padding = [tuple(pair) for pair in at["padding"]]
    dilation = tuple(at["dilation"])
    return lax.reduce_window(
        x, np.float32(start), reduce, tuple(at["window"]), tuple(at["strides"]), padding, window_dilation=dilation
    )


def _broadcast(node: Node, x: Array) -> Array:
    return jnp.broadcast_to(x, [n if s == -1 else s for n, s in zip(x.shape, node.attributes["shape"], strict=True)])


def _slice(node: Node, x: Array) -> Array:
    at = node.attributes
    return lax.slice_in_dim(x, at["start"], at["stop"], at["step"], at["axis"])


def _pad(node: Node, x: Array) -> Array:
    return lax.pad(x, np.float32(node.attributes["value"]), [tuple(edge) for edge in node.attributes["edges"]])


_FUNCTIONS: Mapping[str, Callable[..., Array]] = {
    "quantize": _quantize,
    "requantize": _requantize,
    "conv": _conv,
    "dot": _dot,
    "add": lambda node, a, b: a + b,
    "sum": lambda node, x: jnp.sum(x, axis=tuple(node.attributes["axes"])),
    "max": lambda node, x: jnp.max(x, axis=tuple(node.attributes["axes"])),
    "sum_window": lambda node, x: _window(node, x, 0.0, lax.add),
    "max_window": lambda node, x: _window(node, x, -np.inf, lax.max),
    "reshape": lambda node, x: x.reshape(node.attributes["shape"]),
    "broadcast": _broadcast,
    "transpose": lambda node, x: x.transpose(node.attributes["order"]),
    "reverse": lambda node, x: lax.rev(x, node.attributes["axes"]),
    "slice": _slice,
    "pad": _pad,
    "concatenate": lambda node, *xs: jnp.concatenate(xs, axis=node.attributes["axis"]),
}
