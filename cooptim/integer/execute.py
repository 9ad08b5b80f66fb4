"""Runs an integer network in numpy integers: the reference that hardware and jax are held against."""

import numpy as np

from cooptim.integer.ops import FUNCTIONS
from cooptim.integer.program import IntegerNetwork


def values(network: IntegerNetwork, x: np.ndarray) -> list[np.ndarray]:
    """The result of every node, in order; x itself first, integers (int64) from its first words on.

    Args:
      x: float inputs of the network's input shape, at any batch size.

    Raises ValueError for an input of another shape or with NaN, and for a value beyond the bound of its node (files
    that were changed by hand).
    """
    x = np.asarray(x)
    _check_input(network, x)
    found: list[np.ndarray] = []
    for node in network.nodes:
        if node.op == "input":
            found.append(x)
            continue
        value = FUNCTIONS[node.op](node.attributes, node.arrays, [found[i] for i in node.inputs])
        if np.issubdtype(value.dtype, np.integer) and value.size and int(np.abs(value).max()) > node.bound:
            raise ValueError(
                f"{network.name}, node {len(found)} ({node.op}, {node.layer or 'input'}): {int(np.abs(value).max())} "
                f"exceeds its bound {node.bound}; the weights are not those that the bound was proven for: export again"
            )
        found.append(value)
    return found


def outputs(network: IntegerNetwork, x: np.ndarray) -> tuple[np.ndarray, ...]:
    """The integer results for a batch of inputs."""
    found = values(network, x)
    return tuple(found[output.node] for output in network.outputs)


def predict(network: IntegerNetwork, x: np.ndarray) -> tuple[np.ndarray, ...]:
    """The numbers that the integer results stand for (float64): each times its step."""
    return tuple(q * output.step for q, output in zip(outputs(network, x), network.outputs, strict=True))


def _check_input(network: IntegerNetwork, x: np.ndarray) -> None:
    wanted = network.input_shape
    if x.ndim != len(wanted) or any(w not in (-1, n) for n, w in zip(x.shape, wanted, strict=True)):
        shape = ["batch" if n == -1 else n for n in wanted]
        raise ValueError(f"{network.name}: x has shape {list(x.shape)}; it takes {shape}: reshape x")
    if x.dtype == object or not (np.issubdtype(x.dtype, np.number) or x.dtype == bool):
        raise ValueError(f"{network.name}: x has dtype {x.dtype}; give an array of numbers")
    if np.isnan(x).any():
        raise ValueError(
            f"{network.name}: x holds {int(np.isnan(x).sum())} NaN, which no integer stands for; remove them"
        )
