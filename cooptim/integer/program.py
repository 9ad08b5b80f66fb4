"""An integer network as a straight line of nodes, each one operation on the results of earlier ones."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Op:
    """What one operation takes.

    Attributes:
      inputs: how many earlier nodes; 0 for any number above none.
      attributes: name -> 'int', 'ints', 'table' (a list of lists of int) or 'float'.
      arrays: names of its integer arrays. SHARED may take the place of `weights`.
    """

    inputs: int
    attributes: Mapping[str, str]
    arrays: tuple[str, ...] = ()


SHARED = ("labels", "table")  # weights that are table[labels]
_WINDOW = {"window": "ints", "strides": "ints", "padding": "table", "dilation": "ints"}
# Axes and shapes count the batch axis; in a shape it is written -1.
OPS: Mapping[str, Op] = {
    "input": Op(-1, {}),
    # words of a float: clip(round(float32(x) * float32(scale)), low, high), ties to even
    "quantize": Op(1, {"scale": "float", "low": "int", "high": "int"}),
    # clip((x * multiplier + bias) / 2**shift rounded, ties to even, low, high), by element or by channel
    "requantize": Op(1, {}, ("multiplier", "shift", "bias", "low", "high")),
    # specs as jax.lax.ConvDimensionNumbers: positions of (batch, feature, space) or (out feature, in feature, space)
    "conv": Op(
        1,
        {
            "strides": "ints", "padding": "table", "input_dilation": "ints", "kernel_dilation": "ints",
            "groups": "int", "input_spec": "ints", "kernel_spec": "ints", "output_spec": "ints",
        },
        ("weights",),
    ),
    # contracted and batched axes of the left and the right operand; `side` 0: x is the left one
    "dot": Op(
        1,
        {"left": "ints", "right": "ints", "left_batch": "ints", "right_batch": "ints", "side": "int"},
        ("weights",),
    ),
    "add": Op(2, {}),
    "sum": Op(1, {"axes": "ints"}),
    "max": Op(1, {"axes": "ints"}),
    "sum_window": Op(1, _WINDOW),
    "max_window": Op(1, _WINDOW),
    "reshape": Op(1, {"shape": "ints"}),
    "broadcast": Op(1, {"shape": "ints"}),
    "transpose": Op(1, {"order": "ints"}),
    "reverse": Op(1, {"axes": "ints"}),
    "slice": Op(1, {"axis": "int", "start": "int", "stop": "int", "step": "int"}),
    "pad": Op(1, {"edges": "table", "value": "int"}),  # (before, after, between) for each axis; negative crops
    "concatenate": Op(0, {"axis": "int"}),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Node:
    """One operation.

    Attributes:
      op: a name of OPS.
      inputs: positions of earlier nodes.
      bound: no value, and no partial sum on the way to one, is larger in magnitude, whatever the input; 0 on floats.
      layer: the layer it belongs to, or the one before it; for messages.
    """

    op: str
    inputs: tuple[int, ...]
    attributes: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]
    bound: int
    layer: str = ""


@dataclasses.dataclass(frozen=True)
class IntegerLayer:
    """One multiply-accumulate layer: words of W and I, and the node that holds its accumulators.

    An accumulator counts in steps of weight_step * input_step; `accumulator_bits` hold it with its sign. Where weights
    are labels of a table, `weight_bits` are those of a label and `table_bits` those of a value, sign included; else 0.
    """

    name: str
    node: int
    weight_bits: int
    input_bits: int
    input_signed: bool
    weight_step: float
    input_step: float
    accumulator_bits: int
    table_bits: int = 0


@dataclasses.dataclass(frozen=True)
class Output:
    """An integer result: the number it stands for is `step` times it."""

    node: int
    step: float


@dataclasses.dataclass(frozen=True)
class IntegerNetwork:
    """A network that runs in integers.

    Attributes:
      input_shape: shape of x, its batch axis written -1.
      multiplier_bits: magnitude of every multiplier of a requantization is at most 2**multiplier_bits - 1.
      head: primitives behind the integer outputs that were left to floats (a softmax), in order; empty when none.
    """

    name: str
    input_shape: tuple[int, ...]
    nodes: tuple[Node, ...]
    layers: tuple[IntegerLayer, ...]
    outputs: tuple[Output, ...]
    multiplier_bits: int
    head: tuple[str, ...] = ()
