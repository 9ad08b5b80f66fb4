"""Convolutions that multiply nothing: their kernel, made of constants alone, picks one element for each output."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core as jcore
from jaxtyping import Shaped

from cooptim.network.interpret import bind

_LARGEST = 2**24  # elements of a kernel that is looked at


def picks_elements(eqn: Any, before: Sequence[Any]) -> bool:
    """Whether an equation is a convolution that only moves data, as `jax.lax.conv_general_dilated_patches` does.

    Args:
      before: the equations of the same jaxpr before it, of which the kernel may be made.
    """
    if eqn.primitive.name != "conv_general_dilated" or math.prod(eqn.invars[1].aval.shape) > _LARGEST:
        return False
    kernel = _evaluated(eqn.invars[1], before)
    return kernel is not None and is_selection(eqn, kernel)


def is_selection(eqn: Any, kernel: Shaped[np.ndarray, "..."]) -> bool:
    """Whether a convolution's kernel has one 1 for each output channel and else zeros."""
    rows = _rows(eqn, kernel)
    rows = rows.reshape(rows.shape[0], -1)
    ones = np.all((rows == 0) | (rows == 1)) and np.all(np.count_nonzero(rows, axis=1) == 1)
    return bool(ones) and eqn.params["batch_group_count"] == 1


def as_slices(eqn: Any, kernel: Shaped[np.ndarray, "..."]) -> Callable[[Any], Any]:
    """The convolution of such a kernel as a padding, a slice for each output channel, and their concatenation."""
    p, numbers, rows = eqn.params, eqn.params["dimension_numbers"], _rows(eqn, kernel)
    feature, space = numbers.lhs_spec[1], numbers.lhs_spec[2:]
    sizes = [eqn.outvars[0].aval.shape[a] for a in numbers.out_spec[2:]]
    an_output_group = rows.shape[0] // p["feature_group_count"]
    picked = [np.unravel_index(int(np.argmax(row)), row.shape) for row in rows]
    order = [numbers.lhs_spec[numbers.out_spec.index(a)] for a in range(len(numbers.out_spec))]

    def moved(x: Any) -> Any:
        edges = [(0, 0, 0)] * x.ndim
        for a, (low, high), between in zip(space, p["padding"], p["lhs_dilation"], strict=True):
            edges[a] = (low, high, between - 1)
        x = lax.pad(x, jnp.zeros((), x.dtype), edges)
        parts = []
        for k, (channel, *tap) in enumerate(picked):
            start, limit, stride = [0] * x.ndim, list(x.shape), [1] * x.ndim
            start[feature] = (k // an_output_group) * rows.shape[1] + int(channel)
            limit[feature] = start[feature] + 1
            for i, a in enumerate(space):
                start[a], stride[a] = int(tap[i]) * p["rhs_dilation"][i], p["window_strides"][i]
                limit[a] = start[a] + (sizes[i] - 1) * stride[a] + 1
            parts.append(lax.slice(x, start, limit, stride))
        return lax.transpose(lax.concatenate(parts, feature), order)

    return moved


def _rows(eqn: Any, kernel: np.ndarray) -> np.ndarray:
    """The kernel as [output channel, input channel of a group, tap ...]."""
    return np.transpose(kernel, eqn.params["dimension_numbers"].rhs_spec)


def _evaluated(atom: Any, before: Sequence[Any]) -> np.ndarray | None:
    """Value of an atom that is made of literals alone; None where anything else reaches it."""
    makers = {var: eqn for eqn in before for var in eqn.outvars}
    needed, open_atoms = set(), [atom]
    while open_atoms:
        one = open_atoms.pop()
        if isinstance(one, jcore.Literal):
            continue
        if one not in makers:
            return None
        if id(makers[one]) not in needed:
            needed.add(id(makers[one]))
            open_atoms += makers[one].invars
    values: dict[Any, Any] = {}

    def read(one: Any) -> Any:
        return one.val if isinstance(one, jcore.Literal) else values[one]

    with jax.ensure_compile_time_eval():
        for eqn in before:
            if id(eqn) in needed:
                values.update(zip(eqn.outvars, bind(eqn, [read(one) for one in eqn.invars]), strict=True))
        return np.asarray(read(atom))
