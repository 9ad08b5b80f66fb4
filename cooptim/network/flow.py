"""What is known about one value of a jaxpr: where it comes from and what was done to it on the way."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

Path = tuple[int, ...]  # where an equation stands: index, then (branch, index) for each call that holds it

# Every element of the output is one element of the input, at another place or type; each reaches the output.
SHAPE_ONLY = frozenset(
    "reshape transpose squeeze expand_dims broadcast_in_dim convert_element_type copy copy_p rev stop_gradient name "
    "reduce_precision optimization_barrier".split()
)
# Of these, what moves no element.
_INTACT = SHAPE_ONLY - frozenset("reshape transpose squeeze expand_dims broadcast_in_dim rev".split())
# The same, but elements may be left out, repeated or surrounded by a constant: shifted views of one tensor.
VIEWS = SHAPE_ONLY | frozenset("slice dynamic_slice pad concatenate stack unstack split gather tile".split())


class UnpriceableError(ValueError):
    """The network holds multiply-accumulates that cannot be told as a loop nest; the message names them."""


@dataclasses.dataclass(frozen=True)
class Product:
    """A value that is a product of data and weights, element by element, not yet summed up."""

    root: int  # identity of the tensor whose views were multiplied
    leaves: frozenset[int]
    axes: frozenset[int]  # along which the weights differ
    terms: int


@dataclasses.dataclass(frozen=True)
class Flow:
    """Provenance of one value."""

    data: bool = False  # depends on the data input
    fixed: bool = True  # no parameter reached it
    leaves: frozenset[int] = frozenset()  # weight leaves that reach it; for values that do not depend on data
    leaf: int | None = None  # the leaf it is, up to shape
    intact: bool = True  # no element of that leaf was moved
    varies: frozenset[Path] = frozenset()  # scans in which this weight differs from trip to trip
    sources: frozenset[str] = frozenset()  # layers (or 'input') that reach it through no other layer
    tag: str = ""
    entry: int | None = None  # operand of the closed call it is, up to shape
    root: int = -1  # tensor it is a (shifted) view of; -1 when unknown
    axes: frozenset[int] | None = None  # axes along which a weight differs; None for all
    product: Product | None = None
    carried: bool = False  # a view of what a scan carried in

    def role(self) -> tuple[Any, ...]:
        """The part that a fixpoint over loop carries must settle."""
        return (self.data, self.fixed, self.leaves, self.leaf, self.intact, self.varies, self.tag, self.entry)


def join(first: Flow, second: Flow) -> Flow:
    """What holds for a value that is either of the two."""

    def same(a: Any, b: Any, other: Any) -> Any:
        return a if a == b else other

    return Flow(
        data=first.data or second.data,
        fixed=first.fixed and second.fixed,
        leaves=first.leaves | second.leaves,
        leaf=same(first.leaf, second.leaf, None),
        intact=first.intact and second.intact,
        varies=first.varies | second.varies,
        sources=first.sources | second.sources,
        tag=same(first.tag, second.tag, ""),
        entry=same(first.entry, second.entry, None),
    )


def passed(eqn: Any, flows: Sequence[Flow], fresh: int) -> Flow:
    """Flow out of an ordinary equation: union of what went in; identity only through shape-only equations."""
    name = eqn.primitive.name
    data = [flow for flow in flows if flow.data]
    shape_only = name in SHAPE_ONLY and len(flows) == 1
    tag = ""
    if len(data) == 1 and math.prod(eqn.outvars[0].aval.shape) == _size(eqn, flows.index(data[0])):
        tag = data[0].tag
    roots = {flow.root for flow in data}
    is_view = name in VIEWS and len(roots) == 1
    return Flow(
        data=bool(data),
        fixed=all(flow.fixed for flow in flows),
        leaves=frozenset() if data else frozenset().union(*(flow.leaves for flow in flows)),
        leaf=flows[0].leaf if shape_only and not data else None,
        intact=all(flow.intact for flow in flows) and name in _INTACT,
        varies=frozenset() if data else frozenset().union(*(flow.varies for flow in flows)),
        sources=frozenset().union(*(flow.sources for flow in flows)),
        tag=tag,
        entry=flows[0].entry if shape_only else None,
        root=roots.pop() if is_view else fresh,
        axes=None if data else weight_axes(eqn, flows),
        carried=name in VIEWS and any(flow.carried for flow in flows),
    )


def all_axes(aval: Any) -> frozenset[int]:
    """Axes longer than 1."""
    return frozenset(i for i, n in enumerate(getattr(aval, "shape", ())) if n > 1)


def weight_axes(eqn: Any, flows: Sequence[Flow]) -> frozenset[int]:
    """Axes of the first output along which a value without data may differ."""
    out: frozenset[int] = frozenset()
    for k, flow in enumerate(flows):
        axes = all_axes(eqn.invars[k].aval) if flow.axes is None else flow.axes
        out |= moved_axes(eqn, k, axes)
    return out


def moved_axes(eqn: Any, operand: int, axes: frozenset[int]) -> frozenset[int]:
    """Where axes of an operand stand in the equation's first output; all axes when that is not known."""
    name, params = eqn.primitive.name, eqn.params
    before = tuple(getattr(eqn.invars[operand].aval, "shape", ()))
    after = tuple(getattr(eqn.outvars[0].aval, "shape", ()))
    if name == "concatenate":
        return axes | {params["dimension"]}
    if name == "stack":
        return frozenset(a + (a >= params["axis"]) for a in axes) | {params["axis"]}
    if not axes:
        return frozenset()
    if name == "broadcast_in_dim":
        return frozenset(params["broadcast_dimensions"][a] for a in axes)
    if name == "transpose":
        return frozenset(params["permutation"].index(a) for a in axes)
    if name == "squeeze":
        kept = [a for a in range(len(before)) if a not in {d % len(before) for d in params["dimensions"]}]
        return frozenset(kept.index(a) for a in axes if a in kept)
    if name == "reshape":
        return _reshaped_axes(before, after, axes)
    if len(before) == len(after) and name in VIEWS | {"cumsum", "reduce_window_sum"}:
        return frozenset(a for a in axes if after[a] > 1)
    if before == after:
        return axes
    return all_axes(eqn.outvars[0].aval)


def _reshaped_axes(before: tuple[int, ...], after: tuple[int, ...], axes: frozenset[int]) -> frozenset[int]:
    """Axes after a reshape, by groups of axes with equal products."""
    out: set[int] = set()
    i = j = 0
    while i < len(before) and j < len(after):
        left, right, rows, cols = before[i], after[j], [i], [j]
        while left != right:
            if left < right:
                i += 1
                left *= before[i]
                rows.append(i)
            else:
                j += 1
                right *= after[j]
                cols.append(j)
        if axes & set(rows):
            out |= {c for c in cols if after[c] > 1}
        i, j = i + 1, j + 1
    return frozenset(out)


def _size(eqn: Any, operand: int) -> int:
    return math.prod(getattr(eqn.invars[operand].aval, "shape", ()))
