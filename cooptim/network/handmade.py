"""Multiply-accumulates written by hand, from elementwise products and sums: found here so that none is priced at zero.

A product of data and weights that is summed along an axis on which the weights differ, or added to another product of a
view of the same tensor, is a dot product. One scale and shift per channel, as in a normalization, is not.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from cooptim.network.flow import SHAPE_ONLY, VIEWS, Flow, Product, all_axes, moved_axes

_SUMS = {"add", "add_any", "sub"}
_KEEP = SHAPE_ONLY | VIEWS | {"neg", "div", "mul", "cumsum", "reduce_window_sum"}


def handmade(eqn: Any, flows: Sequence[Flow], learned: frozenset[int]) -> tuple[Product | None, int, frozenset[int]]:
    """The product that leaves an equation, the hand-written MACs it performs, and the weight leaves in them.

    Args:
      learned: leaves that are parameters; a rotation by constant tables (two terms) is not counted.
    """
    name = eqn.primitive.name
    products = [flow.product for flow in flows]
    if name in ("mul", "div"):
        return _multiplied(eqn, flows, products), 0, frozenset()
    if name in _SUMS and len(flows) == 2:
        return _added(eqn, flows, products, learned)
    present = [(k, p) for k, p in enumerate(products) if p is not None]
    if not present:
        return None, 0, frozenset()
    k, product = present[0]
    if _summed_axes(eqn) & product.axes or name in ("scatter-add", "scatter_add"):
        size = math.prod(eqn.invars[k].aval.shape)
        return None, size if product.terms == 1 else 0, product.leaves
    if name == "reduce_sum":
        kept = [a for a in range(len(eqn.invars[k].aval.shape)) if a not in eqn.params["axes"]]
        axes = frozenset(kept.index(a) for a in product.axes)
        return dataclasses.replace(product, axes=axes), 0, frozenset()
    if name in _KEEP:
        return dataclasses.replace(product, axes=moved_axes(eqn, k, product.axes)), 0, frozenset()
    return None, 0, frozenset()


def _summed_axes(eqn: Any) -> frozenset[int]:
    """Axes of the operand over which the equation sums."""
    name, params = eqn.primitive.name, eqn.params
    if name == "reduce_sum":
        return frozenset(params["axes"])
    if name == "cumsum":
        return frozenset({params["axis"]})
    if name == "reduce_window_sum":
        return frozenset(a for a, n in enumerate(params["window_dimensions"]) if n > 1)
    return frozenset()


def _multiplied(eqn: Any, flows: Sequence[Flow], products: Sequence[Product | None]) -> Product | None:
    """Product of data and a weight; a product scaled once more stays one."""
    if len(flows) != 2 or flows[0].data == flows[1].data:
        return None
    k = 0 if flows[0].data else 1
    data, weight, product = flows[k], flows[1 - k], products[k]
    if eqn.primitive.name == "div" and k == 1:
        return None
    if product is None and not weight.leaves:
        return None
    axes = all_axes(eqn.invars[1 - k].aval) if weight.axes is None else weight.axes
    if product is None:
        return Product(root=data.root, leaves=weight.leaves, axes=axes, terms=1)
    return dataclasses.replace(product, leaves=product.leaves | weight.leaves, axes=product.axes | axes)


def _added(
    eqn: Any, flows: Sequence[Flow], products: Sequence[Product | None], learned: frozenset[int]
) -> tuple[Product | None, int, frozenset[int]]:
    first, second = products
    size = math.prod(eqn.outvars[0].aval.shape)
    if first is not None and second is not None:
        if first.root != second.root:
            return max(first, second, key=lambda p: p.terms), 0, frozenset()
        leaves = first.leaves | second.leaves
        terms = first.terms + second.terms
        merged = Product(first.root, leaves, first.axes | second.axes, terms)
        needed = 2 if leaves & learned else 3
        if terms < needed:
            return merged, 0, frozenset()
        counted = sum(p.terms for p in (first, second) if p.terms < needed)  # the others are counted already
        return merged, size * counted, leaves
    product = first or second
    if product is None:
        return None, 0, frozenset()
    other = flows[1] if product is first else flows[0]
    macs = size if other.carried and product.terms == 1 else 0  # acc += x * w, once a trip
    return product, macs, product.leaves if macs else frozenset()
