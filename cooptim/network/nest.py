"""Loop bounds of one multiply-accumulate equation, whatever its dimension numbers."""

import math
from typing import Any, NamedTuple

from cooptim.network.flow import UnpriceableError
from cooptim.workload import Bounds

MACS = ("conv_general_dilated", "dot_general", "ragged_dot_general")
_Pairs = tuple[tuple[int, int], tuple[int, int]]


class Nest(NamedTuple):
    """A loop nest without a name; fields as in `cooptim.workload.Layer`."""

    kind: str
    bounds: Bounds
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    padding: _Pairs = ((0, 0), (0, 0))
    transposed: bool = False
    note: str = ""

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one execution."""
        return math.prod(self.bounds)


def loop_nest(eqn: Any, weight: int, name: str) -> Nest:
    """Loop nest of a MAC equation whose W operand stands at position `weight`.

    Raises UnpriceableError, with `name`, for a convolution that no loop nest of B G K C OY OX FY FX describes.
    """
    if eqn.primitive.name == "dot_general":
        return _dot(eqn, weight)
    if eqn.primitive.name == "ragged_dot_general":
        return _ragged(eqn, name)
    return _conv(eqn, weight, name)


class Axes(NamedTuple):
    """Axes of a W operand: of its output channels (groups before channels), and those summed over, channels last."""

    channels: tuple[int, ...]
    reduced: tuple[int, ...]
    sizes: tuple[int, ...]  # of the W operand

    @property
    def words(self) -> int:
        """Weights of one output channel."""
        return math.prod(self.sizes[axis] for axis in self.reduced)

    @property
    def factors(self) -> int:
        """Output channels."""
        return math.prod(self.sizes[axis] for axis in self.channels)


def weight_axes(eqn: Any, weight: int) -> Axes | None:
    """Where the output channels and the summed axes of a W operand stand; None where they mix with something else."""
    sizes = tuple(eqn.invars[weight].aval.shape)
    if eqn.primitive.name == "dot_general":
        contract, batch = (axes[weight] for axes in eqn.params["dimension_numbers"])
        free = [a for a in range(len(sizes)) if a not in {*contract, *batch}]
        return Axes((*batch, *free), tuple(contract), sizes)
    if eqn.primitive.name != "conv_general_dilated" or weight != 1:
        return None
    out, channel, *taps = eqn.params["dimension_numbers"].rhs_spec
    return Axes((out,), (*taps, channel), sizes)


def _pick(shape: tuple[int, ...], axes: Any) -> int:
    return math.prod(shape[a] for a in axes)


def _free(shape: tuple[int, ...], *used: Any) -> int:
    taken = {a for axes in used for a in axes}
    return math.prod(n for a, n in enumerate(shape) if a not in taken)


def _dot(eqn: Any, weight: int) -> Nest:
    """Batch axes are groups (heads), the free axes of the weight are K, those of the data OX."""
    contract, batch = eqn.params["dimension_numbers"]
    w, x = eqn.invars[weight].aval.shape, eqn.invars[1 - weight].aval.shape
    return Nest(
        kind="dense",
        bounds=Bounds(
            G=_pick(w, batch[weight]),
            K=_free(w, contract[weight], batch[weight]),
            C=_pick(w, contract[weight]),
            OX=_free(x, contract[1 - weight], batch[1 - weight]),
        ),
    )


def _ragged(eqn: Any, name: str) -> Nest:
    """One group of weights a row; rows are priced as spread evenly over the groups."""
    numbers = eqn.params["ragged_dot_dimension_numbers"]
    contract, batch = numbers.dot_dimension_numbers
    x, w = eqn.invars[0].aval.shape, eqn.invars[1].aval.shape
    groups = tuple(numbers.rhs_group_dimensions)
    if len(groups) != 1:
        raise UnpriceableError(
            f"{name}: this ragged_dot_general contracts or batches its ragged axis; only one whose rows choose among "
            "groups of weights (rhs_group_dimensions of length 1) has a loop nest; write it as dot_general"
        )
    experts = w[groups[0]]
    rows = _free(x, contract[0], batch[0])
    bounds = Bounds(
        G=experts * _pick(w, batch[1]),
        K=_free(w, contract[1], batch[1], groups),
        C=_pick(w, contract[1]),
        OX=-(-rows // experts),
    )
    return Nest(kind="dense", bounds=bounds, note=f"ragged: rows spread evenly over {experts} groups")


def _reached(padding: Any, sizes: Any, outputs: Any, taps: Any, strides: Any, dilation: Any) -> list[tuple[int, int]]:
    """Padding per axis as far as the last window reaches it: a stride may end before the far padding does."""
    ends = [(o - 1) * s + (f - 1) * d + 1 for o, s, f, d in zip(outputs, strides, taps, dilation, strict=True)]
    return [
        (low, min(high, max(0, end - low - size))) for (low, high), size, end in zip(padding, sizes, ends, strict=True)
    ]


def _conv(eqn: Any, weight: int, name: str) -> Nest:
    params = eqn.params
    numbers = params["dimension_numbers"]
    if weight == 0:
        return _conv_of_weights(eqn, name)
    x, w, y = eqn.invars[0].aval.shape, eqn.invars[1].aval.shape, eqn.outvars[0].aval.shape
    features, images = params["feature_group_count"], params["batch_group_count"]
    dilated_input, strides = params["lhs_dilation"], params["window_strides"]
    transposed = any(d > 1 for d in dilated_input)
    if transposed and any(s > 1 for s in strides):
        raise UnpriceableError(
            f"{name}: a convolution with both lhs_dilation {dilated_input} and window_strides {strides} skips products "
            "irregularly; use a stride or a transposed convolution, not both at once"
        )
    outer = x if transposed else y
    outer_spec = numbers.lhs_spec if transposed else numbers.out_spec
    taps = [w[a] for a in numbers.rhs_spec[2:]]
    dilation = list(params["rhs_dilation"])
    padding = [tuple(p) for p in params["padding"]]
    if transposed:  # positions by which the scattered output is padded; negative crops
        padding = [
            (low - d * (f - 1), high - d * (f - 1)) for (low, high), d, f in zip(padding, dilation, taps, strict=True)
        ]
    else:
        padding = _reached(padding, [x[a] for a in numbers.lhs_spec[2:]], [y[a] for a in numbers.out_spec[2:]], taps,
                           strides, dilation)  # fmt: skip
    spatial, note = _two_axes(
        [outer[a] for a in outer_spec[2:]], taps, list(dilated_input if transposed else strides), dilation, padding
    )
    (rows, cols), (tap_rows, tap_cols), stride, dilation2, padding2 = spatial
    bounds = Bounds(
        B=x[numbers.lhs_spec[0]] // images,
        G=features * images,
        K=w[numbers.rhs_spec[0]] // (features * images),
        C=w[numbers.rhs_spec[1]],
        OY=rows,
        OX=cols,
        FY=tap_rows,
        FX=tap_cols,
    )
    return Nest("conv", bounds, stride, dilation2, padding2, transposed, note)


def _two_axes(
    outer: list[int], taps: list[int], stride: list[int], dilation: list[int], padding: list[Any]
) -> tuple[tuple[Any, ...], str]:
    """Spatial axes as rows and columns: one axis is columns, more than two fold into the rows."""
    if len(outer) < 2:
        missing = 2 - len(outer)
        outer, taps = [1] * missing + outer, [1] * missing + taps
        stride, dilation = [1] * missing + stride, [1] * missing + dilation
        padding = [(0, 0)] * missing + padding
    note = ""
    if len(outer) > 2:
        note = f"{len(outer)}-D: leading axes folded into rows; input halo approximate"
        outer, taps = [math.prod(outer[:-1]), outer[-1]], [math.prod(taps[:-1]), taps[-1]]
        stride, dilation, padding = stride[-2:], dilation[-2:], padding[-2:]
    return (tuple(outer), tuple(taps), tuple(stride), tuple(dilation), tuple(padding)), note


def _conv_of_weights(eqn: Any, name: str) -> Nest:
    """A convolution of a weight image with a filter that is data: a dense product if the output is one pixel."""
    numbers, params = eqn.params["dimension_numbers"], eqn.params
    w, x, y = eqn.invars[0].aval.shape, eqn.invars[1].aval.shape, eqn.outvars[0].aval.shape
    if _pick(y, numbers.out_spec[2:]) != 1 or params["feature_group_count"] != 1 or params["batch_group_count"] != 1:
        raise UnpriceableError(
            f"{name}: convolves a weight image with a filter that is data; no loop nest has its weights there; make "
            "the data the first operand (lhs) of conv_general_dilated"
        )
    taps = _pick(x, numbers.rhs_spec[2:])
    bounds = Bounds(K=w[numbers.lhs_spec[0]], C=x[numbers.rhs_spec[1]] * taps, OX=x[numbers.rhs_spec[0]])
    return Nest(kind="dense", bounds=bounds)
