"""What a layer keeps of its weights and inputs: leaf, N:M mask, threshold, scale a channel, quantizer, scale back.

One pipeline for the forward pass, for what leaves a network (`Network.harden`, integers) and for every method.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax.numpy as jnp
import numpy as np

from cooptim.network.fake import blend, nonzero_share, pruned_words, signed_words, unsigned_words
from cooptim.network.flow import Path
from cooptim.network.interpret import measure_dtype
from cooptim.network.nest import Axes
from cooptim.network.plan import Plan, Site
from cooptim.relax import bitwidth, codebook, mask
from cooptim.relax.method import (
    OF_WHOLE_TENSOR,
    PLAIN,
    Method,
    method_of,
    n_of_m,
    require_divides,
    require_methods,
    spread,
)
from cooptim.relax.quantizers import INPUT_QUANTIZERS, WEIGHT_QUANTIZERS, Operand, Words, largest_level


class Operated(Protocol):
    """What the pipeline asks of a site."""

    @property
    def axes(self) -> Axes | None:
        """Axes of its weights."""


class SiteKnobs(NamedTuple):
    """Design of one site; scalars, or one value a trip. `mask` is the threshold of the leaf's first user.

    `errors` are None where nothing is to go wrong.
    """

    weight_bits: Any
    weight_step: Any
    weight_range: Any
    mask: Any
    input_bits: Any
    input_step: Any
    input_range: Any
    errors: Any = None  # SiteErrors
    weight_scale: Any = None  # one an output channel, or None
    codebook: Any = None  # the values that weights take, or None


def site_methods(design: Any, rows: Mapping[Path, np.ndarray], plan: Plan, names: Sequence[str]) -> dict[Path, Method]:
    """The method of each site in a design that may say `methods`; empty where all are the default.

    Raises ValueError that names the layer where a site cannot follow its method: one without channels of its own, a
    scan whose trips need several, a scale of a whole batch, factors of another number of channels, a table of another
    number of entries, a pattern that does not divide or whose leaf is used in another way as well.
    """
    methods = getattr(design, "methods", ())
    require_methods(methods, len(names), "design")
    if all(method == PLAIN for method in methods):
        return {}
    found = {}
    for path, site in plan.sites.items():
        layers = sorted({int(row) for row in rows[path].ravel()})
        method = method_of(methods, layers[0])
        if any(method_of(methods, row) != method for row in layers):
            raise ValueError(
                f"{names[layers[0]]}: the trips of its scan are one program and their methods differ; give all of "
                f"{', '.join(names[row] for row in layers)} the same method"
            )
        _require_axes(names[layers[0]], site, method)
        _require_factors(names[layers[0]], site, method, getattr(design, "weight_scale", None), layers[0])
        _require_table(names[layers[0]], method, getattr(design, "codebook", None), layers[0])
        found[path] = method
    _require_patterns(found, rows, plan, names)
    return found


def _require_axes(name: str, site: Site, method: Method) -> None:
    if (method.per_channel or method.pattern is not None or method.weights == "sign") and site.axes is None:
        raise ValueError(
            f"{name}: its weights have no axis of output channels that could be told (data on both sides, a ragged "
            "product, a convolution of weights or a closed custom rule), and per_channel, pattern and sign need one; "
            "leave its method at the default"
        )
    if method.weights in OF_WHOLE_TENSOR and site.product:
        raise ValueError(
            f"{name}: both of its operands are data, and {method.weights} takes its scale from all of them, so that an "
            "image's output would depend on its batch; use step_range, lsq or blend there"
        )
    if method.weights == "codebook" and site.scans:
        raise ValueError(
            f"{name}: it stands in a scan over differing weights, where a codebook is not carried; use step_range "
            "there, or unroll the scan"
        )
    if method.scaled and site.scans:
        raise ValueError(
            f"{name}: it stands in a scan over differing weights, where a scale a channel is not carried; use "
            "per_channel=False there, or unroll the scan"
        )
    if method.pattern is not None and site.axes is not None:
        require_divides(name, method.pattern, site.axes.words)


def _require_factors(name: str, site: Operated, method: Method, scales: Any, layer: int) -> None:
    if not method.scaled or site.axes is None:
        return
    given = 0 if scales is None else int(np.size(scales[layer]))
    if given != site.axes.factors:
        raise ValueError(
            f"{name}: weight_scale has {given} factors for {site.axes.factors} output channels; give one a channel, "
            "groups first (branches of a cond share those of the dearest)"
        )


def _require_table(name: str, method: Method, tables: Any, layer: int) -> None:
    given = 0 if tables is None else int(np.size(tables[layer]))
    if method.entries and given != method.entries:
        raise ValueError(
            f"{name}: codebook has {given} values for {method.label_bits} label bits; give {method.entries}, as "
            "DesignSpace.init does"
        )


def _require_patterns(found: Mapping[Path, Method], rows: Any, plan: Plan, names: Sequence[str]) -> None:
    """One leaf has one pattern: all its uses must read it alike."""
    elsewhere = {site for uses in plan.masked.values() for site in uses.values()}
    alike: dict[int, tuple[Any, str]] = {}
    for path, method in found.items():
        site = plan.sites[path]
        if site.leaf is None:
            continue
        name = names[int(rows[path].ravel()[0])]
        use = (method.pattern, site.axes if method.pattern else None, site.intact if method.pattern else None)
        first, other = alike.setdefault(site.leaf, (use, name))
        moved = len([s for s in plan.sites.values() if s.leaf == site.leaf]) > 1 and not site.intact
        if first != use or (method.pattern and (path in elsewhere or moved)):
            raise ValueError(
                f"{name}: pattern {method.pattern} on weights that are used elsewhere too ({other} or outside of "
                "layers), along other axes or under another pattern; give all their layers one pattern, or none"
            )


def patterned(w: Any, axes: Axes | None, method: Method, bits: Any, trips: int = 0) -> Any:
    """Weights that the pattern leaves; all of them from 32 bits on, where weights are float.

    Args:
      trips: leading axes of w over the trips of scans, which `axes` does not count.
    """
    if method.pattern is None or axes is None:
        return w
    channels, reduced = (tuple(axis + trips for axis in part) for part in (axes.channels, axes.reduced))
    return jnp.where(bits < bitwidth.OFF_BITS, n_of_m(w, method.pattern, (*range(trips), *channels), reduced), w)


def thresholded(w: Any, threshold: Any) -> Any:
    """Weights that the threshold leaves; all of them at 0."""
    return jnp.where(threshold > 0, mask.prune(w, threshold), w).astype(w.dtype)


def weights(site: Operated, w: Any, knobs: SiteKnobs, threshold: Any, method: Method) -> tuple[Any, Any]:
    """Weights in the words of their method, and their share of non-zeros; untouched at 32 bits and threshold 0."""
    if not jnp.issubdtype(w.dtype, jnp.floating):
        return w, jnp.mean(w != 0, dtype=measure_dtype())
    left = patterned(w, site.axes, method, knobs.weight_bits)
    if method.weights == "step_range" and not method.per_channel:
        return _step_range(left, knobs, threshold)
    exact = knobs.weight_bits >= bitwidth.OFF_BITS
    if method.weights == "codebook":
        table = entries(knobs, left.dtype)
        share = codebook.nonzero_share(left, table, threshold)
        left = thresholded(left, threshold)
        share = jnp.where(exact, mask.density(left, jnp.zeros((), left.dtype)), share)
        return jnp.where(exact, left, codebook.shared(left, table)), share.astype(measure_dtype())
    left = thresholded(left, threshold)
    scale = spread(knobs.weight_scale, w.shape, _axes(site).channels) if method.scaled else jnp.ones((), w.dtype)
    operand = Operand(
        knobs.weight_bits, knobs.weight_step, knobs.weight_range, True, w.size, _summed(site, method)
    )  # fmt: skip
    found = _WEIGHTS[method.weights](left / scale, operand)
    cuts = [(s, jnp.where(cut < 0, -1.0, jnp.maximum(threshold, cut * scale))) for s, cut in found.zeros]
    share = _share(left, [(s, jnp.where(exact, threshold, cut)) for s, cut in cuts])
    return jnp.where(exact, left, found.values * scale).astype(w.dtype), share


def entries(knobs: SiteKnobs, dtype: Any) -> Any:
    """The values of a site's table as it stores them: whole multiples of the weights' step."""
    return codebook.fixed_point(knobs.codebook.astype(dtype), jnp.asarray(knobs.weight_step).astype(dtype))


def _step_range(w: Any, knobs: SiteKnobs, threshold: Any) -> tuple[Any, Any]:
    exact = knobs.weight_bits >= bitwidth.OFF_BITS
    out = pruned_words(w, knobs.weight_bits, knobs.weight_step, knobs.weight_range, threshold)
    cut = jnp.where(exact, threshold, jnp.maximum(threshold, knobs.weight_step / 2))
    cut = jnp.where(knobs.weight_bits < bitwidth.SIGN_BITS, -1.0, cut).astype(cut.dtype)  # a sign is never zero
    return out, nonzero_share(w, cut).astype(measure_dtype())


def _step_range_words(w: Any, o: Operand) -> Words:
    cut = jnp.where(o.bits < bitwidth.SIGN_BITS, -1.0, o.step / 2)
    return Words(signed_words(w, o.bits, o.step, o.range_), ((1.0, cut),))


_WEIGHTS: Mapping[str, Any] = {**WEIGHT_QUANTIZERS, "step_range": _step_range_words, "blend": blend}
_INPUTS: Mapping[str, Any] = {**INPUT_QUANTIZERS, "blend": blend}


def _axes(site: Operated) -> Axes:
    assert site.axes is not None  # `site_methods` has seen to it
    return site.axes


def _summed(site: Operated, method: Method) -> tuple[int, ...] | None:
    """Axes over which a scale that is taken from the weights goes; None for all."""
    return _axes(site).reduced if method.weights == "sign" or method.per_channel else None


def _share(x: Any, cuts: Sequence[tuple[Any, Any]]) -> Any:
    """Share of non-zero words, where each share of them is zero up to its cut."""
    seen = [share * (nonzero_share if jnp.ndim(cut) == 0 else mask.density)(x, cut) for share, cut in cuts]
    return sum(seen[1:], seen[0]).astype(measure_dtype())


def inputs(x: Any, knobs: SiteKnobs, signed: bool, method: Method = PLAIN, images: int = 1) -> tuple[Any, Any]:
    """Quantized input, and its share of non-zeros.

    Args:
      images: in x, of which LSQ counts one's words.
    """
    if not jnp.issubdtype(x.dtype, jnp.floating):
        return x, jnp.mean(x != 0, dtype=measure_dtype())
    if method.inputs == "step_range":
        words = signed_words if signed else unsigned_words
        return words(x, knobs.input_bits, knobs.input_step, knobs.input_range), _input_share(x, knobs, signed)
    exact = knobs.input_bits >= bitwidth.OFF_BITS
    operand = Operand(knobs.input_bits, knobs.input_step, knobs.input_range, signed, max(1, x.size // images))
    found = _INPUTS[method.inputs](x, operand)
    counted = x if signed else jnp.where(exact, x, jnp.maximum(x, jnp.zeros_like(x)))
    share = _share(counted, [(s, jnp.where(exact, 0.0, cut)) for s, cut in found.zeros])
    return jnp.where(exact, x, found.values).astype(x.dtype), share


def _input_share(x: Any, knobs: SiteKnobs, signed: bool) -> Any:
    """Share of input words that quantize to something; an unsigned input's negative words do not."""
    exact = knobs.input_bits >= bitwidth.OFF_BITS
    counted = x if signed else jnp.where(exact, x, jnp.maximum(x, jnp.zeros_like(x)))
    return nonzero_share(counted, jnp.where(exact, 0.0, knobs.input_step / 2)).astype(measure_dtype())


def weight_unit(site: Operated, words: Any, knobs: SiteKnobs, method: Method) -> tuple[Any, Any]:
    """What one unit of a stored weight is worth, and the largest magnitude; they broadcast against the words.

    Raises ValueError for dorefa, whose words lie half a unit beside the whole numbers, and for a codebook.
    """
    step, range_ = knobs.weight_step, knobs.weight_range
    if method.weights == "codebook":
        raise ValueError(
            "codebook weights: what is stored of them are labels of a table, no whole numbers of a unit, and they are "
            "not misread; use lsq or step_range"
        )
    if method.weights == "dorefa":
        raise ValueError(
            "dorefa weights: their levels are odd halves of a unit, not whole numbers, and are neither misread nor "
            "exported; use lsq or step_range"
        )
    if method.weights in ("sign", "ternary"):
        step = range_ = jnp.max(jnp.abs(words), axis=_summed(site, method), keepdims=True)
    if method.weights == "blend":
        step = range_ / largest_level(knobs.weight_bits, True)
    if not method.scaled:
        return step, range_
    scale = spread(knobs.weight_scale, words.shape, _axes(site).channels)
    return step * scale, range_ * scale


def input_unit(knobs: SiteKnobs, method: Method, signed: bool) -> Any:
    """What one unit of a stored input is worth."""
    if method.inputs in ("pact", "dorefa", "blend"):
        return knobs.input_range / largest_level(knobs.input_bits, signed)
    return knobs.input_range if method.inputs == "sign" else knobs.input_step
