"""Points of the peers as files, their widths as a design of our space, and who dominates whom; pure."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from cooptim.descent.references import wide_design
from cooptim.design.design import Design
from cooptim.design.space import DesignSpace
from cooptim.network.stats import Stats

NORM_EPSILON = (1e-3, 1e-5)  # Keras's and Flax's; the variance takes up the difference
_FIGURES = ("beta", "ebops", "val_accuracy", "test_accuracy", "cpu_s")
_ARRAYS = ("kernel", "bias", "weight_bits", "input_bits", "input_step", "input_signed", "input_density")


@dataclasses.dataclass(frozen=True)
class Point:
    """One network of a peer, as its own code leaves it.

    Attributes:
      figures: beta (loss a bit operation), ebops, val_accuracy, test_accuracy (fractions), cpu_s.
      layers: what multiplies, first to last. arrays: of each layer its kernel (words, quantized), bias, widths [bit]
        and the step of its input, all as one array a layer or one entry a word, and the share of non-zero inputs.
      norms: scale, bias, mean and var of each batch normalization.
    """

    title: str
    figures: dict[str, float]
    layers: tuple[str, ...]
    arrays: dict[str, dict[str, np.ndarray]]
    norms: dict[str, dict[str, np.ndarray]]


def read_point(path: pathlib.Path) -> Point:
    """The point that `hgq_train.py` wrote; ValueError for a file that lacks something."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            found = {name: stored[name] for name in stored.files}
    except (OSError, ValueError, AttributeError) as error:
        raise ValueError(f"point {path}: no readable .npz of plain arrays ({error}); train it again") from None
    layers = tuple(str(name) for name in found.get("layers", ()))
    wanted = [*_FIGURES, "layers", *(f"{layer}/{name}" for layer in layers for name in _ARRAYS)]
    missing = [name for name in wanted if name not in found]
    if missing:
        raise ValueError(f"point {path}: {', '.join(missing)} missing; write it with hgq_train.py")
    arrays = {layer: {name: found[f"{layer}/{name}"] for name in _ARRAYS} for layer in layers}
    norms: dict[str, dict[str, np.ndarray]] = {}
    for name, value in found.items():
        owner, _, leaf = name.partition("/")
        if leaf in ("scale", "mean", "var") or (leaf == "bias" and owner not in layers):
            norms.setdefault(owner, {})[leaf] = value
    return Point(path.stem, {name: float(found[name]) for name in _FIGURES}, layers, arrays, norms)


def grid_step(words: np.ndarray) -> float:
    """The largest power of two that divides every word; 1 where all are zero."""
    mantissa, exponent = np.frexp(np.asarray(words, np.float64)[np.asarray(words) != 0])
    if mantissa.size == 0:
        return 1.0
    whole = np.abs(mantissa * 2.0**53).astype(np.int64)
    trailing = np.log2((whole & -whole).astype(np.float64)).astype(int)
    return float(2.0 ** np.min(exponent - 53 + trailing))


def signed_bits(words: np.ndarray) -> int:
    """Least width [bit] of a signed integer, its sign apart from -range..range, that holds all words on one grid."""
    largest = round(float(np.max(np.abs(words), initial=0.0)) / grid_step(words))
    return 1 + largest.bit_length()


def point_design(space: DesignSpace, point: Point) -> tuple[Design, Stats]:
    """(the design, hardware not assigned yet, and its zero rates) that run a point's words on a machine.

    The machine holds one width a layer and operand. Weights take the least that holds all words of the layer on the
    grid of the finest, whatever width their quantizer was given; inputs the widest that their quantizer states.

    Raises ValueError where an input goes below zero that the space takes as unsigned.
    """
    layers = len(space.workload.layers)
    if len(point.layers) != layers:
        raise ValueError(f"point {point.title}: {len(point.layers)} layers where {space.workload.name} has {layers}")
    found: dict[str, list[float]] = {name: [] for name in ("wb", "ws", "ib", "is", "ir", "wd", "id")}
    for name, signed in zip(point.layers, space.input_signed, strict=True):
        one = point.arrays[name]
        if bool(np.any(one["input_signed"])) and not signed:
            raise ValueError(f"point {point.title}, {name}: inputs below zero, which the space takes as unsigned")
        bits, live = np.asarray(one["input_bits"], np.float64), np.asarray(one["input_bits"]) > 0
        step = float(np.min(np.asarray(one["input_step"], np.float64)[live], initial=1.0 if not live.any() else np.inf))
        top = max(int(np.max(bits, initial=0.0)), 1 + int(signed))
        found["wb"].append(signed_bits(one["kernel"]))
        found["ws"].append(grid_step(one["kernel"]))
        found["ib"].append(top)
        found["is"].append(step)
        found["ir"].append(step * (2.0 ** (top - int(signed)) - 1.0))
        found["wd"].append(np.mean(one["kernel"] != 0))
        found["id"].append(float(one["input_density"]))
    column = {name: jnp.asarray(values, jnp.float32) for name, values in found.items()}
    design = dataclasses.replace(
        wide_design(space, jnp.ones(layers), jnp.ones(layers)),
        weight_bits=column["wb"], weight_step=column["ws"],
        weight_range=column["ws"] * (2.0 ** (jnp.maximum(column["wb"], 2.0) - 1.0) - 1.0),
        threshold=jnp.zeros(layers), input_bits=column["ib"], input_step=column["is"], input_range=column["ir"],
    )  # fmt: skip
    return design, Stats(column["wd"], column["id"])


def loaded(params: dict[str, Any], state: dict[str, Any], point: Point) -> tuple[dict[str, Any], dict[str, Any]]:
    """(params, state) of our network with a point's words in them, for a run in our own executor."""
    theirs, ours = NORM_EPSILON
    params = {owner: dict(leaves) for owner, leaves in params.items()}
    state = {owner: dict(leaves) for owner, leaves in state.items()}
    for name in point.layers:
        params[name] |= {leaf: jnp.asarray(point.arrays[name][leaf]) for leaf in ("kernel", "bias")}
    for name, norm in point.norms.items():
        params[name] |= {leaf: jnp.asarray(norm[leaf]) for leaf in ("scale", "bias")}
        state[name] |= {"mean": jnp.asarray(norm["mean"]), "var": jnp.asarray(norm["var"] + (theirs - ours))}
    return params, state


def dominates(one: tuple[float, float], other: tuple[float, float]) -> bool:
    """Whether (energy, accuracy) `one` takes no more energy and is no less accurate, and is better in one of them."""
    return one[0] <= other[0] and one[1] >= other[1] and one != other


def undominated(points: Sequence[tuple[float, float]], ours: Sequence[tuple[float, float]]) -> list[int]:
    """Which (energy, accuracy) of `points` none of `ours` dominates."""
    return [i for i, point in enumerate(points) if not any(dominates(one, point) for one in ours)]
