"""A layer as the hardware sees it, and the workload that strings layers together."""

import dataclasses
import math

from cooptim.workload.dims import Bounds

INPUT = "input"  # name of the network's data input in `Layer.inputs`


@dataclasses.dataclass(frozen=True)
class Layer:
    """One multiply-accumulate loop nest of a network.

    Attributes:
      name: path of the largest weight leaf that reaches it ('conv1.kernel'), '#2' for a second use; unique.
      kind: 'conv', 'dense' or 'matmul' (both operands are data).
      bounds: loop bounds, K and C per group.
      stride, dilation: (vertical, horizontal), in positions of the input.
      padding: ((top, bottom), (left, right)) positions that the windows reach; negative crops.
      repeat: executions in one inference with the same weights (trips of a scan over constant weights).
      weight_leaves: paths of all weight leaves that reach the W operand, largest first; empty for 'matmul'.
      inputs: names of the layers (or 'input') whose outputs reach the I operand through no other layer.
      transposed: the loop nest runs over input positions (OY, OX are the input's), each scattering FY x FX outputs.
      note: what a reader must know ('cond: dearest of 2 branches'); empty when nothing.
    """

    name: str
    kind: str
    bounds: Bounds
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    padding: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0))
    repeat: int = 1
    weight_leaves: tuple[str, ...] = ()
    inputs: tuple[str, ...] = (INPUT,)
    transposed: bool = False
    note: str = ""

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one inference, repeats included."""
        return math.prod(self.bounds) * self.repeat

    @property
    def weight_words(self) -> int:
        """Words of the W operand (for 'matmul' the second data operand), of one execution."""
        b = self.bounds
        shared = b.G * b.K * b.C * b.FY * b.FX
        return shared * b.B if self.kind == "matmul" else shared

    @property
    def input_words(self) -> int:
        """Distinct words of the I operand that one execution touches, padding not counted."""
        b = self.bounds
        if self.transposed:
            return b.B * b.G * b.C * b.OY * b.OX
        return b.B * b.G * b.C * self.input_extent(0) * self.input_extent(1)

    @property
    def output_words(self) -> int:
        """Words of the O operand of one execution."""
        b = self.bounds
        if not self.transposed:
            return b.B * b.G * b.K * b.OY * b.OX
        rows, cols = ((o - 1) * s + f for o, s, f in zip((b.OY, b.OX), self.stride, (b.FY, b.FX), strict=True))
        return b.B * b.G * b.K * rows * cols

    def input_extent(self, axis: int) -> int:
        """Rows (axis 0) or columns (axis 1) of the unpadded input that the loops touch, gaps left out."""
        b = self.bounds
        outputs, taps = ((b.OY, b.FY), (b.OX, b.FX))[axis]
        stride, dilation, pad = self.stride[axis], self.dilation[axis], self.padding[axis]
        windows = {o * stride + f * dilation for o in range(outputs) for f in range(taps)}
        last = max(windows) - max(0, pad[1])
        return max(1, sum(max(0, pad[0]) <= position <= last for position in windows))


@dataclasses.dataclass(frozen=True)
class Workload:
    """The layers of one network in order of execution, for one input (batch 1); hashable.

    Attributes:
      outputs: names of the layers whose outputs leave the network.
      input_words: words of the network's data input.
      exits: names of the layers that end its early exits, in order: at each an input may leave, the rest go on.
    """

    name: str
    layers: tuple[Layer, ...]
    outputs: tuple[str, ...] = ()
    input_words: int = 0
    exits: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = [layer.name for layer in self.layers]
        double = sorted({name for name in names if names.count(name) > 1})
        if double:
            raise ValueError(f"workload {self.name}: layer names {double} stand twice; names must be unique")

    @property
    def names(self) -> tuple[str, ...]:
        """Layer names, in order; the `layer` axis of every stacked array follows it."""
        return tuple(layer.name for layer in self.layers)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one inference."""
        return sum(layer.macs for layer in self.layers)

    @property
    def weights(self) -> int:
        """Weight words of all layers (a tied weight counts once a use, activation products not at all)."""
        return sum(layer.weight_words for layer in self.layers if layer.kind != "matmul")

    def index(self, name: str) -> int:
        """Position of a layer on the `layer` axis; ValueError names the legal ones."""
        if name not in self.names:
            raise ValueError(f"layer '{name}' is not in workload {self.name}; it has {', '.join(self.names)}")
        return self.names.index(name)
