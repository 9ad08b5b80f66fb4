"""Rates at which a network's words are misread and its operations come too late, and where each draw comes from."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from cooptim.network.flow import Path

_INPUT, _TIMING = 1, 2  # folded into a site's key, so that its draws differ


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ErrorRates:
    """What goes wrong in the layers; None injects nothing of that kind. Stacked on the `layer` axis.

    The same `cells` key gives the same stuck cells, of which a lower rate keeps a subset: one chip's map. A new one is
    another chip, or cells that fail anew. Images of a batch lie in cells of their own. Layers that use a leaf as it is
    read it from the same cells, each at its own rate; one that transposes or reshapes it draws cells anew.

    Attributes:
      weight, input: chance that a bit of a stored word is read wrong, in [0, 1/2).
      accumulator: chance that a multiply-accumulate comes too late and leaves its sum as it was, in [0, 1].
      cells, timing: keys (`jax.random.key`) of the cells, and of what comes too late.
    """

    weight: Float[Array, "layer"] | None
    input: Float[Array, "layer"] | None
    accumulator: Float[Array, "layer"] | None
    cells: Any
    timing: Any


class SiteErrors(NamedTuple):
    """Errors of one site; scalars and keys, or one a trip. A rate is None where nothing is injected."""

    weight: Any
    input: Any
    accumulator: Any
    weight_key: Any
    input_key: Any
    timing_key: Any


def site_errors(
    errors: ErrorRates, rows: Mapping[Path, np.ndarray], cell_rows: Mapping[Path, np.ndarray], layers: int
) -> dict[Path, SiteErrors]:
    """The errors, by site, with a key for each row, of weights for each of `cell_rows`.

    Raises ValueError when they are of another number of layers.
    """
    for field in ("weight", "input", "accumulator"):
        rate = getattr(errors, field)
        if rate is not None and np.shape(rate) != (layers,):
            raise ValueError(
                f"errors: {field} has shape {np.shape(rate)}, the network {layers} layers; pass one rate a layer, or "
                "None for none"
            )

    def pick(rate: Any, at: np.ndarray) -> Any:
        return None if rate is None else jnp.asarray(rate)[at]

    found = {}
    for path, at in rows.items():
        cells, timing = (_keys(key, at) for key in (errors.cells, errors.timing))
        found[path] = SiteErrors(
            pick(errors.weight, at),
            pick(errors.input, at),
            pick(errors.accumulator, at),
            _keys(errors.cells, cell_rows[path]),
            _folded(cells, _INPUT),
            _folded(timing, _TIMING),
        )
    return found


def at_trip(errors: SiteErrors, trip: Any, product: bool) -> SiteErrors:
    """Errors in one trip of a scan over constant weights: the weights' cells stay, what else is drawn is drawn anew."""
    weight_key = _folded(errors.weight_key, trip) if product else errors.weight_key
    return errors._replace(
        weight_key=weight_key,
        input_key=_folded(errors.input_key, trip),
        timing_key=_folded(errors.timing_key, trip),
    )


def _keys(key: Any, rows: np.ndarray) -> Any:
    each = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.asarray(rows.ravel(), jnp.uint32))
    return each.reshape(rows.shape)


def _folded(keys: Any, number: Any) -> Any:
    fold = jax.random.fold_in
    for _ in range(keys.ndim):
        fold = jax.vmap(fold, (0, None))
    return fold(keys, number)
