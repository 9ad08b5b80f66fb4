"""The probes: quantized and masked operands with measured densities, and the observation that calibrates them."""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from cooptim.network import kept
from cooptim.network.errors import ErrorRates, at_trip, site_errors
from cooptim.network.fake import fixed_input_product
from cooptim.network.flow import Path
from cooptim.network.interpret import Measured, Probe, measure_dtype
from cooptim.network.kept import SiteKnobs
from cooptim.network.plan import Site
from cooptim.relax import bit_errors, bitwidth
from cooptim.relax.method import PLAIN, Method


class OperandDesign(Protocol):
    """The fields of a design that the network sees, stacked on the `layer` axis.

    It may have `methods`, `weight_scale` and `codebook` as well, as `cooptim.design.design.Operands` explains them.
    """

    @property
    def input_signed(self) -> tuple[bool, ...]:
        """Whether each layer's input goes below zero; static."""

    @property
    def weight_bits(self) -> Float[Array, "layer"]:
        """Width of the weights [bit]."""

    @property
    def weight_step(self) -> Float[Array, "layer"]:
        """Quantization step of the weights."""

    @property
    def weight_range(self) -> Float[Array, "layer"]:
        """Largest weight magnitude."""

    @property
    def threshold(self) -> Float[Array, "layer"]:
        """Magnitude up to which weights are pruned."""

    @property
    def input_bits(self) -> Float[Array, "layer"]:
        """Width of the inputs [bit]."""

    @property
    def input_step(self) -> Float[Array, "layer"]:
        """Quantization step of the inputs."""

    @property
    def input_range(self) -> Float[Array, "layer"]:
        """Largest input magnitude."""


FIELDS = ("weight_bits", "weight_step", "weight_range", "threshold", "input_bits", "input_step", "input_range")


class Off(NamedTuple):
    """Layer rows whose weights, and whose inputs, stay as they are."""

    weights: frozenset[int]
    inputs: frozenset[int]


def off_rows(off: str | Collection[str], names: Sequence[str]) -> Off:
    """Rows named by `off`: 'all', layer names, or 'name/W' and 'name/I'; ValueError for a name the network lacks."""
    everything = frozenset(range(len(names)))
    if isinstance(off, str):
        off = (off,)
    rows: dict[str, set[int]] = {"W": set(), "I": set()}
    for entry in off:
        if entry == "all":
            return Off(everything, everything)
        name, operands = (entry[:-2], entry[-1]) if entry[-2:] in ("/W", "/I") else (entry, "WI")
        if name not in names:
            raise ValueError(
                f"off: layer '{name}' is not in the network; legal: 'all', or one of {', '.join(names)}, with /W or /I "
                "behind it for one operand"
            )
        for operand in operands:
            rows[operand].add(list(names).index(name))
    return Off(frozenset(rows["W"]), frozenset(rows["I"]))


def site_knobs(
    design: OperandDesign,
    rows: Mapping[Path, np.ndarray],
    mask_rows: Mapping[Path, np.ndarray],
    off: Off,
    layers: int,
    errors: ErrorRates | None = None,
    cell_rows: Mapping[Path, np.ndarray] | None = None,
) -> dict[Path, SiteKnobs]:
    """The design, by site, and what goes wrong there; rows that are off get a width beyond quantizing and no threshold.

    Args:
      cell_rows: from `Plan.cell_rows`, where weights with errors lie; None gives each site cells of its own.

    Raises ValueError when the design or the errors have another number of layers.
    """
    for field in (*FIELDS, "input_signed"):
        found = len(getattr(design, field)) if field == "input_signed" else np.shape(getattr(design, field))
        if found not in (layers, (layers,)):
            raise ValueError(f"design: {field} has shape {found}, the network {layers} layers; pass one value a layer")
    arrays = {field: jnp.asarray(getattr(design, field)) for field in FIELDS}
    if off.weights:
        still = np.array([row in off.weights for row in range(layers)])
        arrays["weight_bits"] = jnp.where(still, jnp.inf, arrays["weight_bits"])
        arrays["threshold"] = jnp.where(still, 0.0, arrays["threshold"])
    if off.inputs:
        still = np.array([row in off.inputs for row in range(layers)])
        arrays["input_bits"] = jnp.where(still, jnp.inf, arrays["input_bits"])

    def pick(values: Array, at: np.ndarray) -> Array:
        return jax.lax.index_in_dim(values, int(at), keepdims=False) if at.ndim == 0 else values[at]

    knobs = {
        path: SiteKnobs(
            *(pick(arrays[field], mask_rows[path] if field == "threshold" else rows[path]) for field in FIELDS)
        )
        for path in rows
    }
    for field in ("weight_scale", "codebook"):
        tables = getattr(design, field, None)
        if tables is not None and len(tables) != layers:
            raise ValueError(f"design: {field} has {len(tables)} arrays, the network {layers} layers; pass one a layer")
        for path, at in rows.items():
            if tables is not None and at.ndim == 0 and jnp.size(tables[int(at)]):
                knobs[path] = knobs[path]._replace(**{field: jnp.asarray(tables[int(at)])})
    if errors is None:
        return knobs
    wrong = site_errors(errors, rows, rows if cell_rows is None else cell_rows, layers)
    return {path: own._replace(errors=wrong[path]) for path, own in knobs.items()}


def quantizing(
    signed: Sequence[bool],
    rows: Mapping[Path, np.ndarray],
    off: Off,
    errors: ErrorRates | None = None,
    methods: Mapping[Path, Method] | None = None,
    images: int = 1,
    names: Sequence[str] = (),
) -> Probe:
    """Probe that prunes and quantizes W, quantizes I, and measures the share of non-zero words of both.

    With errors, words of both are then misread and products left out at the rates of the site's knobs; the shares are
    those of the words as they were stored.

    Args:
      methods: by site, from `kept.site_methods`; sites that are left out have the default.
      images: of the batch.
      names: of the layers, for messages.

    With errors of weights, the run raises ValueError that names the layer whose words are no whole numbers of a unit.
    """
    said = methods or {}

    def is_off(site: Site, which: frozenset[int]) -> bool:
        return {int(row) for row in rows[site.path].ravel()} <= which

    def is_signed(site: Site) -> bool:
        return any(signed[row] for row in rows[site.path].ravel())

    def stored(site: Site, w: Any, knobs: SiteKnobs) -> Any:
        if site.product or not jnp.issubdtype(w.dtype, jnp.floating) or is_off(site, off.weights):
            return w
        return kept.thresholded(w, knobs.mask)

    def touch(site: Site, w: Any, i: Any, knobs: SiteKnobs) -> tuple[Any, Any, dict[str, Any]]:
        method = said.get(site.path, PLAIN)
        new_w, weight_density = w, jnp.ones((), measure_dtype())
        if not is_off(site, off.weights):
            threshold = jnp.zeros_like(knobs.mask) if site.product else knobs.mask
            new_w, weight_density = kept.weights(site, w, knobs, threshold, method)
        new_i, input_density = i, jnp.ones((), measure_dtype())
        if not is_off(site, off.inputs):
            new_i, input_density = kept.inputs(i, knobs, is_signed(site), method, images)
        if errors is not None:
            own = knobs._replace(input_step=kept.input_unit(knobs, method, is_signed(site)))
            if errors.weight is not None and not is_off(site, off.weights) and _floats(new_w):
                step, range_ = unit(site, new_w, knobs, method)
                own = own._replace(weight_step=step, weight_range=range_)
            new_w, new_i = _misread(new_w, new_i, own, is_signed(site))
        return new_w, new_i, {"weight_density": weight_density, "input_density": input_density}

    def unit(site: Site, new_w: Any, knobs: SiteKnobs, method: Method) -> tuple[Any, Any]:
        try:
            return kept.weight_unit(site, new_w, knobs, method)
        except ValueError as error:
            who = names[int(rows[site.path].ravel()[0])] if names else "errors"
            raise ValueError(f"{who}: {error}, or leave the errors of weights None") from None

    def multiply(site: Site, mac: Any, w: Any, i: Any, knobs: SiteKnobs) -> tuple[Any, dict[str, Any]]:
        new_w, new_i, measured = touch(site, w, i, knobs)
        named = said.get(site.path, PLAIN).inputs != "step_range"
        if named or is_off(site, off.inputs) or not jnp.issubdtype(i.dtype, jnp.floating):
            return mac(new_w, new_i), measured
        product = fixed_input_product(mac, is_signed(site))
        return product(new_w, i, knobs.input_bits, knobs.input_step, knobs.input_range), measured

    whole = errors is not None and (errors.input is not None or errors.accumulator is not None)
    return Probe(
        touch=touch,
        multiply=None if whole else multiply,
        result=None if errors is None or errors.accumulator is None else _late,
        at_trip=None if errors is None else _at_trip,
        mask=stored,
        over_trips={"weight_density": _mean, "input_density": _mean},
        absent={"weight_density": 1.0, "input_density": 1.0},
    )


def _mean(x: Array) -> Array:
    return jnp.mean(x, axis=0)


def _floats(x: Any) -> bool:
    return bool(jnp.issubdtype(x.dtype, jnp.floating))


def _misread(w: Any, i: Any, knobs: SiteKnobs, signed: bool) -> tuple[Any, Any]:
    """Both operands as their memory gives them back; words that are not quantized are none of this machine's."""
    k = knobs
    if (e := k.errors) is None:
        return w, i
    if e.weight is not None and _floats(w):
        w = bit_errors.misread(w, k.weight_bits, k.weight_step, k.weight_range, e.weight, e.weight_key, True)
    if e.input is not None and _floats(i):
        i = bit_errors.misread(i, k.input_bits, k.input_step, k.input_range, e.input, e.input_key, signed)
    return w, i


def _late(site: Site, mac: Any, w: Any, i: Any, out: Any, knobs: SiteKnobs) -> Any:
    """Sums without the products that came too late; those of operands in float are in time."""
    del site
    if (e := knobs.errors) is None or not jnp.issubdtype(out.dtype, jnp.floating):
        return out
    off = (knobs.weight_bits >= bitwidth.OFF_BITS) | (knobs.input_bits >= bitwidth.OFF_BITS)
    rate = jnp.where(off, 0.0, e.accumulator)
    return jnp.where(off, out, bit_errors.late_sum(out, mac(w * w, i * i), rate, e.timing_key))


def _at_trip(site: Site, knobs: SiteKnobs, trip: Any) -> SiteKnobs:
    return knobs if knobs.errors is None else knobs._replace(errors=at_trip(knobs.errors, trip, site.product))


def observing() -> Probe:
    """Probe that changes nothing and measures extrema and mean squares."""

    def touch(site: Site, w: Any, i: Any, knobs: Any) -> tuple[Any, Any, dict[str, Any]]:
        del site, knobs
        wide_w, wide_i = w.astype(measure_dtype()), i.astype(measure_dtype())
        measured = {
            "weight_max": jnp.max(jnp.abs(wide_w)),
            "weight_square": jnp.mean(wide_w**2),
            "input_min": jnp.min(wide_i),
            "input_max": jnp.max(wide_i),
            "input_square": jnp.mean(wide_i**2),
        }
        return w, i, measured

    def largest(x: Array) -> Array:
        return jnp.max(x, axis=0)

    reduce = {"weight_max": largest, "input_max": largest, "weight_square": _mean, "input_square": _mean}
    return Probe(
        touch=touch,
        mask=lambda site, w, knobs: w,
        over_trips={**reduce, "input_min": lambda x: jnp.min(x, axis=0)},
        absent={"weight_max": 0.0, "weight_square": 0.0, "input_min": 0.0, "input_max": 0.0, "input_square": 0.0},
    )


def by_layer(measured: Measured, field: str, rows: Mapping[Path, np.ndarray], layers: int) -> Float[Array, "layer"]:
    """One measurement, on the layer axis."""
    pieces = [jnp.ravel(found[field]) for found in measured.values()]
    at = np.concatenate([rows[path].ravel() for path in measured])
    if sorted(at) != list(range(layers)):
        raise AssertionError(f"measured rows {sorted(at)} of {layers} layers: the plan and the run disagree")
    values = jnp.concatenate(pieces)
    return values if np.array_equal(at, np.arange(layers)) else values[np.argsort(at)]


def words(tree: Any) -> int:
    """Elements of all arrays in a pytree."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))
