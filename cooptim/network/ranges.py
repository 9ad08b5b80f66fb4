"""Extremes of every operand, and what each clip of them would cost in rounding: what calibration chooses from.

Nothing is changed on the way: all is measured in the float network.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from cooptim.network.flow import Path
from cooptim.network.interpret import Interpreter, Measured, Probe, measure_dtype
from cooptim.network.plan import Site
from cooptim.network.quantized import by_layer
from cooptim.network.trace import Network
from cooptim.relax.bitwidth import quantize, range_of


class Extremes(NamedTuple):
    """Largest magnitudes of weights, least and largest inputs; `channel_max` by layer row, where it was asked for."""

    weight_max: Float[Array, "layer"]
    input_min: Float[Array, "layer"]
    input_max: Float[Array, "layer"]
    channel_max: dict[int, Float[Array, "_"]]


class ClipErrors(NamedTuple):
    """Mean squared errors of rounding and clipping, for each ratio of the range to the largest magnitude."""

    weight: Float[Array, "ratio layer"]
    input: Float[Array, "ratio layer"]
    channel: dict[int, Float[Array, "ratio _"]]  # by layer row


def extremes(network: Network, params: Any, state: Any, x: Any, per_channel: tuple[bool, ...]) -> Extremes:
    """What the operands reach on these images; works under jit.

    Args:
      per_channel: of each layer, whether its output channels are wanted one by one.
    """

    def touch(site: Site, w: Any, i: Any, at: np.ndarray, own: Any) -> dict[str, Any]:
        del own
        found = {"weight_max": jnp.max(jnp.abs(w)), "input_min": jnp.min(i), "input_max": jnp.max(i)}
        if at.ndim == 0 and per_channel[int(at)] and site.axes is not None:
            found["channel_max"] = _by_channel(jnp.max(jnp.abs(w), axis=site.axes.reduced, keepdims=True), site)
        return found

    largest, least = (lambda a: jnp.max(a, axis=0)), (lambda a: jnp.min(a, axis=0))
    over = {"weight_max": largest, "input_min": least, "input_max": largest, "channel_max": largest}
    measured, rows = _measured(network, params, state, x, touch, over, ())
    layers = len(network.layer_names)
    weight_max, low, high = (by_layer(measured, f, rows, layers) for f in ("weight_max", "input_min", "input_max"))
    return Extremes(weight_max, low, high, _tables(measured, rows, "channel_max"))


def clip_errors(
    network: Network,
    params: Any,
    state: Any,
    x: Any,
    seen: Extremes,
    weight_bits: Float[Array, "layer"],
    input_bits: Float[Array, "layer"],
    signed: tuple[bool, ...],
    ratios: Float[Array, "ratio"],
) -> ClipErrors:
    """Errors on these images of ranges that are `ratios` of the extremes, at these widths; works under jit."""
    layers, count = len(network.layer_names), ratios.shape[0]
    either = jnp.maximum(jnp.abs(seen.input_min), jnp.abs(seen.input_max))
    input_most = jnp.where(np.asarray(signed), either, jnp.maximum(seen.input_max, 0.0))

    def error(x: Any, bits: Any, most: Any, sign: bool, axes: Any) -> Any:
        levels = range_of(jnp.ones(()), bits, float(sign))

        def at(ratio: Any) -> Any:
            range_ = jnp.maximum(ratio * most, jnp.finfo(x.dtype).tiny ** 0.5)
            return jnp.mean((quantize(x, bits, range_ / levels, range_, sign) - x) ** 2, axis=axes)

        return jax.lax.map(at, ratios)

    def touch(site: Site, w: Any, i: Any, at: np.ndarray, own: Any) -> dict[str, Any]:
        bits_w, most_w, bits_i, most_i = own
        found: dict[str, Any] = {}
        for name, errors in (
            ("weight", error(w, bits_w, most_w, True, None)),
            ("input", error(i, bits_i, most_i, any(signed[row] for row in at.ravel()), None)),
        ):
            found |= {f"{name}_{n}": errors[n] for n in range(count)}
        if at.ndim == 0 and int(at) in seen.channel_max and site.axes is not None:
            flat = w.transpose((*site.axes.channels, *site.axes.reduced)).reshape(-1, site.axes.words)
            found["channel"] = error(flat, bits_w, seen.channel_max[int(at)][:, None], True, 1)
        return found

    names = [f"{kind}_{n}" for kind in ("weight", "input") for n in range(count)]
    mean = lambda a: jnp.mean(a, axis=0)  # noqa: E731
    knobs = (weight_bits, seen.weight_max, input_bits, input_most)
    measured, rows = _measured(network, params, state, x, touch, dict.fromkeys([*names, "channel"], mean), knobs)
    weight, inputs = (
        jnp.stack([by_layer(measured, f"{kind}_{n}", rows, layers) for n in range(count)])
        for kind in ("weight", "input")
    )
    return ClipErrors(weight, inputs, _tables(measured, rows, "channel"))


def _measured(
    network: Network,
    params: Any,
    state: Any,
    x: Any,
    touch: Callable[..., dict[str, Any]],
    over: Mapping[str, Any],
    knobs: tuple[Any, ...],
) -> tuple[Measured, dict[Path, np.ndarray]]:
    """What `touch(site, W, I, layer rows, knobs of the rows)` finds in the network as it was given."""
    traced, rows, _ = network.traced(params, state, x, None, False)

    def probe(site: Site, w: Any, i: Any, own: Any) -> tuple[Any, Any, dict[str, Any]]:
        return w, i, touch(site, w.astype(measure_dtype()), i.astype(measure_dtype()), rows[site.path], own)

    # Branches agree on scalars only; the channels of a layer inside one stay unknown.
    absent = {field: 0.0 for field in over if not field.startswith("channel")}
    found = Probe(touch=probe, mask=lambda site, w, own: w, over_trips=over, absent=absent)
    arrays = [jnp.asarray(leaf) for leaf in jax.tree.leaves((params, state, x))]
    picked = {path: tuple(column[at] for column in knobs) for path, at in rows.items()}
    return Interpreter(traced.plan, found).run(traced.jaxpr, arrays, (), picked)[1], rows


def _by_channel(table: Any, site: Site) -> Any:
    """One number an output channel, in the order of the site's axes."""
    assert site.axes is not None
    return table.transpose((*site.axes.channels, *site.axes.reduced)).ravel()


def _tables(measured: Measured, rows: Mapping[Path, np.ndarray], field: str) -> dict[int, Any]:
    return {int(rows[path]): found[field] for path, found in measured.items() if field in found}
