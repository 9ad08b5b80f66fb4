"""The glossary of loop dimensions and operands; every module uses these names and no others.

| name | loop over | relevant to |
|---|---|---|
| B | images of a batch | I O |
| G | groups (depthwise: one per channel) | W I O |
| K | output channels of one group | W O |
| C | input channels of one group | W I |
| OY OX | rows, columns of the output | I O |
| FY FX | rows, columns of the filter | W I |

Operands: W (weights, or the second data operand of an activation product), I (input), O (output).
"""

from typing import NamedTuple


class Bounds(NamedTuple):
    """Loop bounds of one layer; K and C are per group, so the product is the number of MACs."""

    B: int = 1
    G: int = 1
    K: int = 1
    C: int = 1
    OY: int = 1
    OX: int = 1
    FY: int = 1
    FX: int = 1


DIMS: tuple[str, ...] = Bounds._fields
OPERANDS: tuple[str, ...] = ("W", "I", "O")
RELEVANT: dict[str, tuple[str, ...]] = {
    "W": ("G", "K", "C", "FY", "FX"),
    "I": ("B", "G", "C", "OY", "OX", "FY", "FX"),
    "O": ("B", "G", "K", "OY", "OX"),
}
