"""One multiply-accumulate layer in integers: words of the design, exact accumulators."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from cooptim.integer.ops import FUNCTIONS, words_of
from cooptim.integer.program import IntegerLayer
from cooptim.network.integer.build import Builder
from cooptim.network.integer.value import Value, value_of
from cooptim.network.kept import SiteKnobs, entries, input_unit, patterned, thresholded, weight_unit, weights
from cooptim.network.nest import Axes
from cooptim.relax.bitwidth import OFF_BITS, SIGN_BITS
from cooptim.relax.codebook import labels
from cooptim.relax.method import PLAIN, Method, spread

_NARROWER = " (values of a table by the machine's mechanisms.shared_weights.decoded)"
_WIDEST_WORD = 16  # accumulators of wider words need more than 62 bits before the shift


@dataclasses.dataclass(frozen=True)
class Site:
    """A layer to be lowered: its weights, their position among the operands, and its row of the design."""

    name: str
    weights: Any
    position: int
    knobs: SiteKnobs
    signed: bool
    product: bool
    axes: Axes | None = None
    method: Method = PLAIN


def lower_site(build: Builder, eqn: Any, site: Site, data: Value) -> tuple[Value, IntegerLayer]:
    """Accumulators of a layer on the words of its input; ValueError names a layer whose words or sums do not fit."""
    weight_bits, input_bits = (_whole(site.name, kind, bits) for kind, bits in _widths(site))
    words, weight_step, factors, stored = integer_weights(site, weight_bits)
    input_step = float(input_unit(site.knobs, site.method, site.signed))
    v = build.at_step(data, input_step, *_input_ends(site, input_bits, input_step))
    op, attributes = ("conv", _conv(eqn, site)) if "window_strides" in eqn.params else ("dot", _dot(eqn, site))
    least, most, bound = _reach(op, attributes, words, v)
    needed, table_bits = bound.bit_length() + 1, _table_bits(stored)
    if needed > build.options.accumulator_bits:
        raise ValueError(
            f"{site.name}: {_spelled(weight_bits, table_bits)} and {input_bits} b inputs accumulate to at most "
            f"{bound}, {needed} bits with the sign, and the accumulators have {build.options.accumulator_bits}; narrow "
            f"the layer's operands{_NARROWER if table_bits else ''} or widen the accumulators"
        )
    node = build.emit(op, (v.node,), attributes, bound, site.name, **stored)
    shape = tuple(eqn.outvars[0].aval.shape)
    batch = attributes["output_spec"][0] if op == "conv" else _dot_batch(attributes, v, words.ndim)
    scale = weight_step * input_step * _channel_scale(site, factors, op, attributes, len(shape))
    out = value_of(node, shape, batch, scale, least, most, site.name)
    layer = IntegerLayer(
        site.name, node, weight_bits, input_bits, site.signed, weight_step, input_step, needed, table_bits
    )
    return out, layer


def _table_bits(stored: dict[str, np.ndarray]) -> int:
    """Bits that hold each value of the table with its sign, 2 at least; 0 without a table."""
    return max(int(np.abs(stored["table"]).max()).bit_length() + 1, 2) if "table" in stored else 0


def _spelled(weight_bits: int, table_bits: int) -> str:
    """How wide the weights are, for messages."""
    return f"{weight_bits} b labels of {table_bits} b values" if table_bits else f"{weight_bits} b weights"


def _input_ends(site: Site, bits: int, step: float) -> tuple[int, int]:
    """Least and largest word of the input."""
    name = site.method.inputs
    if name == "sign" and site.signed:
        raise ValueError(
            f"{site.name}: its inputs keep their sign alone, which no rounding to steps gives; export the part of the "
            "network before it, or use another quantizer of inputs"
        )
    if name == "sign":
        return 0, 1
    top = 2 ** (bits - site.signed) - 1
    if name == "lsq":
        return (-top - 1 if site.signed else 0), top
    top = min(int(np.rint(float(site.knobs.input_range) / step)), top)
    return (-top if site.signed else 0), top


def _channel_scale(site: Site, factors: np.ndarray | None, op: str, at: dict[str, Any], axes: int) -> Any:
    """Factors of the output channels, along their axes of the result; 1 where a layer has none."""
    if factors is None or site.axes is None:
        return 1.0
    if op == "conv":
        places = [at["output_spec"][1]]
    else:  # batch axes lead; the free axes of the left operand come before those of the right
        shared, own = len(at["left_batch"]), len(site.axes.channels)
        first = shared if at["side"] == 1 else axes - (own - shared)
        places = [*range(shared), *range(first, first + own - shared)]
    sizes = dict(zip(places, (site.axes.sizes[axis] for axis in site.axes.channels), strict=True))
    return factors.reshape([sizes.get(axis, 1) for axis in range(axes)])


def _widths(site: Site) -> tuple[tuple[str, Any], tuple[str, Any]]:
    return ("weight", site.knobs.weight_bits), ("input", site.knobs.input_bits)


def _whole(name: str, kind: str, bits: Any) -> int:
    width = float(bits)
    if width >= OFF_BITS or not 1 <= width <= _WIDEST_WORD or width != round(width):
        raise ValueError(
            f"{name}: its {kind} width is {width:g} b; integers need a whole width in 1..{_WIDEST_WORD}: take a legal "
            "design"
        )
    return int(width)


def integer_weights(site: Site, bits: int) -> tuple[np.ndarray, float, np.ndarray | None, dict[str, np.ndarray]]:
    """(weights in steps, int64; the step; its factor for each output channel, or None; the arrays that are stored).

    In numpy, of the weights' own precision: the roundings of `relax.bitwidth.quantize`, and no program to compile for
    each shape. Named quantizers give their own words, a codebook labels and a table.
    """
    given = jnp.asarray(site.weights)
    if not jnp.issubdtype(given.dtype, jnp.floating):
        raise ValueError(f"{site.name}: its weights are {given.dtype}; integers are made of floating weights")
    w = np.asarray(given.astype(jnp.promote_types(given.dtype, jnp.float32)))
    if not np.isfinite(w).all():
        raise ValueError(f"{site.name}: {int((~np.isfinite(w)).sum())} weights are not finite; train them again")
    if site.method.weights == "codebook":
        return _shared_weights(site, w, bits)
    plain = site.method.weights == "step_range"
    words, step, factors = _step_weights(site, w, bits) if plain else _named_weights(site, w)
    return words, step, factors, {"weights": words.astype(np.int32)}


def _step_weights(site: Site, w: np.ndarray, bits: int) -> tuple[np.ndarray, float, np.ndarray | None]:
    """Words of the default quantizer, within their width."""
    step, range_, cut = (w.dtype.type(k) for k in (site.knobs.weight_step, site.knobs.weight_range, site.knobs.mask))
    w, factors = np.asarray(patterned(jnp.asarray(w), site.axes, site.method, bits)), None
    w = np.where(np.abs(w) > cut, w, w.dtype.type(0))
    if site.method.scaled and site.axes is not None:
        factors = np.asarray(site.knobs.weight_scale, np.float64)
        w = w / np.asarray(spread(site.knobs.weight_scale, w.shape, site.axes.channels), w.dtype)
    if bits < SIGN_BITS:
        return np.where(w < 0, -1, 1), float(site.knobs.weight_range), factors
    levels = np.rint(np.clip(w, -range_, range_) / step)
    top = 2 ** (bits - 1) - 1
    return np.clip(levels, -top, top).astype(np.int64), float(site.knobs.weight_step), factors


def _shared_weights(site: Site, w: np.ndarray, bits: int) -> tuple[np.ndarray, float, None, dict[str, np.ndarray]]:
    """Weights as labels and a table of whole steps: those of `kept.weights`, which rounds the table to the same."""
    if bits != site.method.label_bits:
        raise ValueError(
            f"{site.name}: its weight width is {bits} b and its labels have {site.method.label_bits}; take a legal "
            "design"
        )
    left = thresholded(patterned(jnp.asarray(w), site.axes, site.method, site.knobs.weight_bits), site.knobs.mask)
    values, step = entries(site.knobs, left.dtype), float(site.knobs.weight_step)
    table = np.rint(np.asarray(values, np.float64) / step)
    if not (table == 0).any() or np.abs(table).max() >= 2 ** (_WIDEST_WORD - 1):
        raise ValueError(
            f"{site.name}: its table reaches {np.abs(table).max():g} steps of {step:g}; integers need a 0 and values "
            f"of at most {_WIDEST_WORD} b: take a legal design of a machine with mechanisms.shared_weights.decoded so "
            "narrow"
        )
    table = table.astype(np.int32)
    stored = {"labels": np.asarray(labels(left, values), np.uint8), "table": table}
    return words_of(stored), step, None, stored


def _named_weights(site: Site, w: np.ndarray) -> tuple[np.ndarray, float, np.ndarray | None]:
    """The same of a quantizer by name: its words over what one unit of them is worth."""
    try:
        words, _ = weights(site, jnp.asarray(w), site.knobs, site.knobs.mask, site.method)
        unit = np.asarray(weight_unit(site, words, site.knobs, site.method)[0], np.float64)
    except ValueError as error:
        raise ValueError(f"{site.name}: {error}") from None
    step = float(unit.max())
    if step == 0:
        return np.zeros(w.shape, np.int64), float(site.knobs.weight_step), None
    codes = np.rint(np.asarray(words, np.float64) / np.where(unit > 0, unit, 1.0)).astype(np.int64)
    if unit.size == 1 or site.axes is None:
        return codes, step, None
    channels = np.broadcast_to(unit, [n if a in site.axes.channels else 1 for a, n in enumerate(w.shape)])
    order = [*site.axes.channels, *(a for a in range(w.ndim) if a not in site.axes.channels)]
    return codes, step, channels.transpose(order).ravel() / step


def _conv(eqn: Any, site: Site) -> dict[str, Any]:
    p, numbers = eqn.params, eqn.params["dimension_numbers"]
    if site.position != 1 or p["batch_group_count"] != 1:
        raise ValueError(
            f"{site.name}: a convolution with the weights on its left or with groups of the batch has no integer form; "
            "put the data on the left"
        )
    return {
        "strides": [int(n) for n in p["window_strides"]],
        "padding": [[int(n) for n in pair] for pair in p["padding"]],
        "input_dilation": [int(n) for n in p["lhs_dilation"]],
        "kernel_dilation": [int(n) for n in p["rhs_dilation"]],
        "groups": int(p["feature_group_count"]),
        "input_spec": [int(n) for n in numbers.lhs_spec],
        "kernel_spec": [int(n) for n in numbers.rhs_spec],
        "output_spec": [int(n) for n in numbers.out_spec],
    }


def _dot(eqn: Any, site: Site) -> dict[str, Any]:
    if "dimension_numbers" not in eqn.params:
        raise ValueError(f"{site.name}: a {eqn.primitive.name} has no integer form; write it with dot_general")
    (left, right), (left_batch, right_batch) = eqn.params["dimension_numbers"]
    axes = {"left": left, "right": right, "left_batch": left_batch, "right_batch": right_batch}
    return {name: [int(a) for a in found] for name, found in axes.items()} | {"side": 1 - site.position}


def _dot_batch(at: dict[str, Any], v: Value, weight_axes: int) -> int:
    """Batch axis of a product."""
    side = ("left", "right")[at["side"]]
    shared = at[f"{side}_batch"]
    if v.batch in shared:
        return shared.index(v.batch)
    taken = {*at[side], *shared}
    place = len(shared) + sum(a not in taken for a in range(v.batch))
    if at["side"] == 1:
        place += weight_axes - len(at["left"]) - len(at["left_batch"])
    return place


def _reach(op: str, at: dict[str, Any], words: np.ndarray, v: Value) -> tuple[np.ndarray, np.ndarray, int]:
    """(least, most) of the accumulators, channel by channel, and the largest magnitude of any partial sum."""
    low, high = min(int(v.least.min()), 0), max(int(v.most.max()), 0)  # padding is 0
    positive, negative = np.maximum(words, 0), np.minimum(words, 0)
    if op == "dot":
        one = np.ones(v.shape, np.int64)
        sums = [FUNCTIONS[op](at, {"weights": w}, [one]) for w in (positive, negative)]
    else:
        feature = at["kernel_spec"][0]
        axes = tuple(a for a in range(words.ndim) if a != feature)
        shape = [1] * words.ndim
        shape[at["output_spec"][1]] = words.shape[feature]
        sums = [w.sum(axis=axes).reshape(shape) for w in (positive, negative)]
    bound = int(max(-low, high) * (sums[0] - sums[1]).max())
    return low * sums[0] + high * sums[1], high * sums[0] + low * sums[1], bound
