"""Which channels of a network can be removed, and what goes with each: places on axes of leaves, found on the jaxpr.

Every index of every axis of every value has a class; equations tie classes together (a convolution its input channels
to its kernel's, an addition both its operands', a flatten all pixels of a channel), and a class that meets something
that a smaller array would change (an output, a reduction over channels, an unknown primitive) stays.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend import core as jcore

from cooptim.network.flow import Path
from cooptim.network.jaxprs import CALLS, CUSTOM, call_jaxpr, opened
from cooptim.network.plan import Site
from cooptim.network.trace import Network

PyTree = Any
Axis = Any  # classes of the indices of one axis, an array of whole numbers

_STAYS = 0  # the class of all that cannot be removed
_EACH_ELEMENT = frozenset(
    "abs acos add and asin atan atan2 cbrt ceil clamp convert_element_type copy copy_p cos cosh div eq erf erfc exp "
    "exp2 "
    "expm1 floor ge gt integer_pow is_finite le log log1p logistic lt max min mul name ne neg nextafter not or pow "
    "reduce_precision rem round rsqrt select_n sign sin sinh sqrt square stop_gradient sub tan tanh xor "
    "optimization_barrier".split()
)
_REDUCES = frozenset("reduce_sum reduce_max reduce_min reduce_prod reduce_and reduce_or argmax argmin".split())
_WINDOWS = frozenset("reduce_window_sum reduce_window_max reduce_window_min reduce_window".split())


@dataclasses.dataclass(frozen=True)
class Channel:
    """What is removed together.

    Attributes:
      places: (position among the leaves of params and then of state, axis, index).
      makers, readers: those of them on axes of output channels, and of input channels, of weights.
    """

    places: tuple[tuple[int, int, int], ...]
    makers: tuple[tuple[int, int, int], ...]
    readers: tuple[tuple[int, int, int], ...] = ()


class _Classes:
    """Disjoint sets of numbers; 0 is the set of what stays."""

    def __init__(self) -> None:
        self._parent = [0]

    def fresh(self, count: int) -> np.ndarray:
        start = len(self._parent)
        self._parent.extend(range(start, start + count))
        return np.arange(start, start + count)

    def find(self, one: int) -> int:
        while self._parent[one] != one:
            self._parent[one] = self._parent[self._parent[one]]
            one = self._parent[one]
        return one

    def tie(self, first: Any, second: Any) -> None:
        for a, b in zip(first, second, strict=True):
            a, b = self.find(int(a)), self.find(int(b))
            self._parent[max(a, b)] = min(a, b)  # so that what stays wins

    def keep(self, ones: Any) -> None:
        for one in np.ravel(ones):
            self._parent[self.find(int(one))] = _STAYS


class _Ties:
    """One walk over a jaxpr that ties the classes of its values."""

    def __init__(self, sites: Mapping[Path, Site]) -> None:
        self.classes = _Classes()
        self.made: list[np.ndarray] = []  # axes of output channels of weights
        self.fed: list[np.ndarray] = []  # axes of input channels of weights
        self.sites = sites
        self.path: Path = ()  # of the equation at hand

    def value(self, shape: Sequence[int]) -> list[Axis]:
        """Axes of a new value; one of length 1 stays."""
        return [self.classes.fresh(n) if n != 1 else np.zeros(1, int) for n in shape]

    def stay(self, axes: Sequence[Axis]) -> None:
        """Nothing of these axes may be removed."""
        for axis in axes:
            self.classes.keep(axis)

    def same(self, first: Sequence[Axis], second: Sequence[Axis]) -> None:
        """Two values of one shape lose the same indices."""
        for a, b in zip(first, second, strict=True):
            self.classes.tie(a, b)

    def walk(self, jaxpr: Any, ins: Sequence[list[Axis]], prefix: Path = ()) -> list[list[Axis]]:
        """Axes of the outputs, given those of the inputs."""
        inner, consts = opened(jaxpr)
        env: dict[Any, list[Axis]] = dict(zip(inner.invars, ins, strict=True))
        for var, const in zip(inner.constvars, consts, strict=False):
            env[var] = [np.zeros(n, int) for n in np.shape(const)]

        def read(atom: Any) -> list[Axis]:
            if isinstance(atom, jcore.Literal):
                return [np.zeros(n, int) for n in np.shape(atom.val)]
            return env[atom]

        for i, eqn in enumerate(inner.eqns):
            outs = self._step(eqn, [read(atom) for atom in eqn.invars], (*prefix, i))
            env.update(zip(eqn.outvars, outs, strict=True))
        return [read(atom) for atom in inner.outvars]

    def _step(self, eqn: Any, ins: list[list[Axis]], path: Path) -> list[list[Axis]]:
        self.path = path
        name, shapes = eqn.primitive.name, [tuple(getattr(v.aval, "shape", ())) for v in eqn.outvars]
        if name in CALLS or name in CUSTOM:
            return self.walk(call_jaxpr(eqn), ins, (*path, 0))
        if name in _EACH_ELEMENT:
            return [self._each_element(ins, shape) for shape in shapes]
        rule = _RULES.get(name)
        if rule is not None:
            return [rule(self, eqn, ins)]
        for axes in ins:
            self.stay(axes)
        return [[np.zeros(n, int) for n in shape] for shape in shapes]

    def _each_element(self, ins: list[list[Axis]], shape: tuple[int, ...]) -> list[Axis]:
        """Axes of a result of this shape; operands of length 1 are repeated along it."""
        out = []
        for k, n in enumerate(shape):
            whole = [axes[k] for axes in ins if len(axes) == len(shape) and len(axes[k]) == n]
            for axis in whole[1:]:
                self.classes.tie(whole[0], axis)
            out.append(whole[0] if whole else self.value((n,))[0])
        return out


def _conv(ties: _Ties, eqn: Any, ins: list[list[Axis]]) -> list[Axis]:
    numbers, x, w = eqn.params["dimension_numbers"], ins[0], ins[1]
    ties.stay([x[a] for a in numbers.lhs_spec[2:]] + [w[a] for a in numbers.rhs_spec[2:]])
    made, fed, data = w[numbers.rhs_spec[0]], w[numbers.rhs_spec[1]], x[numbers.lhs_spec[1]]
    if eqn.params["feature_group_count"] == 1 and eqn.params["batch_group_count"] == 1:
        ties.classes.tie(data, fed)
        ties.made.append(made)
        ties.fed.append(fed)
    else:  # the number of groups is a constant of the program
        ties.stay([made, fed, data])
    shape = eqn.outvars[0].aval.shape
    out = [np.zeros(n, int) for n in shape]
    out[numbers.out_spec[1]] = made
    ties.stay([x[numbers.lhs_spec[0]]])
    return out


def _dot(ties: _Ties, eqn: Any, ins: list[list[Axis]]) -> list[Axis]:
    (summed, batch), (x, w) = eqn.params["dimension_numbers"], ins
    for pairs in (summed, batch):
        ties.same([x[a] for a in pairs[0]], [w[a] for a in pairs[1]])
    free = [[axis for k, axis in enumerate(side) if k not in (*summed[n], *batch[n])] for n, side in enumerate((x, w))]
    site = ties.sites.get(ties.path)
    if site is not None and not site.product:
        ties.made += free[site.weight]
        ties.fed += [ins[site.weight][a] for a in summed[site.weight]]
    return [*(x[a] for a in batch[0]), *free[0], *free[1]]


def _broadcast(ties: _Ties, eqn: Any, ins: list[list[Axis]]) -> list[Axis]:
    out = ties.value(eqn.params["shape"])
    for axis, place in zip(ins[0], eqn.params["broadcast_dimensions"], strict=True):
        if len(axis) == len(out[place]):
            out[place] = axis
    return out


def _reshape(ties: _Ties, eqn: Any, ins: list[list[Axis]]) -> list[Axis]:
    out = [np.zeros(n, int) for n in eqn.outvars[0].aval.shape]
    for before, after in _runs([len(axis) for axis in ins[0]], [len(axis) for axis in out]):
        flat = _flattened(ties, [ins[0][k] for k in before])
        for place, axis in zip(after, _split(ties, flat, [len(out[k]) for k in after]), strict=True):
            out[place] = axis
    return out


def _runs(before: list[int], after: list[int]) -> list[tuple[list[int], list[int]]]:
    """Axes before and after a reshape that hold the same words."""
    found, i, j = [], 0, 0
    while i < len(before) or j < len(after):
        rows, columns = [], []
        left = right = 1
        if i < len(before):
            rows, left, i = [i], before[i], i + 1
        if j < len(after):
            columns, right, j = [j], after[j], j + 1
        while left != right:
            if left < right:
                rows, left, i = [*rows, i], left * before[i], i + 1
            else:
                columns, right, j = [*columns, j], right * after[j], j + 1
        found.append((rows, columns))
    return found


def _flattened(ties: _Ties, axes: list[Axis]) -> Axis:
    """Classes of the words of several axes as one, last axis fastest; only one of them may have channels."""
    moving = [k for k, axis in enumerate(axes) if any(ties.classes.find(int(c)) != _STAYS for c in axis)]
    shape = tuple(len(axis) for axis in axes)
    if len(moving) != 1:
        ties.stay(axes)
        return np.zeros(math.prod(shape), int)
    ties.stay([axis for k, axis in enumerate(axes) if k != moving[0]])
    view = axes[moving[0]].reshape([n if k == moving[0] else 1 for k, n in enumerate(shape)])
    return np.broadcast_to(view, shape).reshape(-1)


def _split(ties: _Ties, flat: Axis, sizes: list[int]) -> list[Axis]:
    """Axes of these sizes whose words have the classes `flat`: one of them has channels, or all stays."""
    roots = np.array([ties.classes.find(int(c)) for c in flat]).reshape(sizes)
    for k in range(len(sizes)):
        first = np.moveaxis(roots, k, 0).reshape(sizes[k], -1)
        if np.all(first == first[:, :1]):
            return [first[:, 0] if j == k else np.zeros(n, int) for j, n in enumerate(sizes)]
    ties.classes.keep(flat)
    return [np.zeros(n, int) for n in sizes]


def _transpose(ties: _Ties, eqn: Any, ins: list[list[Axis]]) -> list[Axis]:
    return [ins[0][a] for a in eqn.params["permutation"]]


def _squeeze(ties: _Ties, eqn: Any, ins: list[list[Axis]]) -> list[Axis]:
    gone = {a % len(ins[0]) for a in eqn.params["dimensions"]}
    return [axis for k, axis in enumerate(ins[0]) if k not in gone]


def _expand(ties: _Ties, eqn: Any, ins: list[list[Axis]]) -> list[Axis]:
    left, added = list(ins[0]), set(eqn.params["dimensions"])
    return [np.zeros(1, int) if k in added else left.pop(0) for k in range(len(ins[0]) + len(added))]


def _concatenate(ties: _Ties, eqn: Any, ins: list[list[Axis]]) -> list[Axis]:
    along = eqn.params["dimension"]
    for axes in ins[1:]:
        ties.same([a for k, a in enumerate(ins[0]) if k != along], [a for k, a in enumerate(axes) if k != along])
    joined = np.concatenate([axes[along] for axes in ins])
    return [joined if k == along else axis for k, axis in enumerate(ins[0])]


def _slice(ties: _Ties, eqn: Any, ins: list[list[Axis]]) -> list[Axis]:
    starts, limits = eqn.params["start_indices"], eqn.params["limit_indices"]
    steps = eqn.params["strides"] or (1,) * len(starts)
    out = []
    for axis, start, limit, step in zip(ins[0], starts, limits, steps, strict=True):
        if (start, limit, step) != (0, len(axis), 1):
            ties.classes.keep(axis)  # its bounds are constants of the program
        out.append(axis[start:limit:step])
    return out


def _pad(ties: _Ties, eqn: Any, ins: list[list[Axis]]) -> list[Axis]:
    out = []
    for k, (axis, how) in enumerate(zip(ins[0], eqn.params["padding_config"], strict=True)):
        if tuple(how) != (0, 0, 0):
            ties.classes.keep(axis)
            axis = np.zeros(eqn.outvars[0].aval.shape[k], int)
        out.append(axis)
    return out


def _reduce(ties: _Ties, eqn: Any, ins: list[list[Axis]]) -> Any:
    ties.stay([ins[0][a] for a in eqn.params["axes"]])
    return [axis for k, axis in enumerate(ins[0]) if k not in eqn.params["axes"]]


def _window(ties: _Ties, eqn: Any, ins: list[list[Axis]]) -> list[Axis]:
    out = []
    for k, (axis, size) in enumerate(zip(ins[0], eqn.params["window_dimensions"], strict=True)):
        if size != 1 or len(axis) != eqn.outvars[0].aval.shape[k]:
            ties.classes.keep(axis)
            axis = np.zeros(eqn.outvars[0].aval.shape[k], int)
        out.append(axis)
    return out


_RULES = {
    "conv_general_dilated": _conv,
    "dot_general": _dot,
    "broadcast_in_dim": _broadcast,
    "reshape": _reshape,
    "transpose": _transpose,
    "squeeze": _squeeze,
    "expand_dims": _expand,
    "concatenate": _concatenate,
    "slice": _slice,
    "pad": _pad,
    **dict.fromkeys(_REDUCES, _reduce),
    **dict.fromkeys(_WINDOWS, _window),
}


def channels(network: Network, params: PyTree, state: PyTree, x: PyTree) -> tuple[Channel, ...]:
    """The channels that can be removed without touching input and output, in the order in which they are made.

    Args:
      x: an input; its shape counts.
    """
    program = network.eval_program(params, state, x)
    leaves = [*jax.tree.leaves(params), *jax.tree.leaves(state)]
    ties = _Ties(program.plan.sites)
    known = [ties.value(np.shape(leaf)) for leaf in leaves]
    data = [[np.zeros(n, int) for n in v.aval.shape] for v in program.jaxpr.jaxpr.invars[len(leaves) :]]
    outs = ties.walk(program.jaxpr, [*known, *data])
    after = len(jax.tree.leaves(state))
    for axes in outs[: len(outs) - after]:
        ties.stay(axes)
    for axes, old in zip(outs[len(outs) - after :], known[len(known) - after :], strict=True):
        if [len(a) for a in axes] == [len(a) for a in old]:
            ties.same(axes, old)
    return _collected(ties, known)


def _collected(ties: _Ties, known: list[list[Axis]]) -> tuple[Channel, ...]:
    """Classes that may go, with their places; those that no weight makes are left out."""
    makers, readers = ({int(c) for axis in axes for c in axis} for axes in (ties.made, ties.fed))
    places: dict[int, list[tuple[int, int, int]]] = {}
    made: dict[int, list[tuple[int, int, int]]] = {}
    fed: dict[int, list[tuple[int, int, int]]] = {}
    for leaf, axes in enumerate(known):
        for k, axis in enumerate(axes):
            for index, one in enumerate(axis):
                root = ties.classes.find(int(one))
                if root == _STAYS:
                    continue
                places.setdefault(root, []).append((leaf, k, index))
                for kind, found in ((makers, made), (readers, fed)):
                    if int(one) in kind:
                        found.setdefault(root, []).append((leaf, k, index))
    return tuple(
        Channel(tuple(places[root]), tuple(made[root]), tuple(fed.get(root, ()))) for root in places if root in made
    )


def bundles(found: Sequence[Channel], paths: Sequence[str]) -> dict[str, list[int]]:
    """Channels by the weights that make them, such as 'conv1.kernel' or 'a.kernel+b.kernel' for a tied pair.

    Args:
      paths: of the leaves of params.
    """
    out: dict[str, list[int]] = {}
    for number, channel in enumerate(found):
        names = dict.fromkeys(paths[leaf] for leaf, _, _ in channel.makers)
        out.setdefault("+".join(names), []).append(number)
    return out


def kept_indices(leaves: Sequence[Any], gone: Sequence[Channel]) -> dict[tuple[int, int], np.ndarray]:
    """(leaf, axis) -> indices that stay without some channels, of those axes that lose any."""
    cuts: dict[tuple[int, int], set[int]] = {}
    for channel in gone:
        for leaf, axis, index in channel.places:
            cuts.setdefault((leaf, axis), set()).add(index)
    return {
        (leaf, axis): np.setdiff1d(np.arange(np.shape(leaves[leaf])[axis]), sorted(indices))
        for (leaf, axis), indices in cuts.items()
    }


def removed(leaves: Sequence[Any], gone: Sequence[Channel]) -> list[Any]:
    """The leaves without the places of some channels."""
    out = list(leaves)
    for (leaf, axis), kept in kept_indices(leaves, gone).items():
        out[leaf] = jax.numpy.take(jax.numpy.asarray(out[leaf]), kept, axis=axis)
    return out


def silenced(leaves: Sequence[Any], gone: Sequence[Channel]) -> list[Any]:
    """The leaves with zeros at the places of some channels."""
    out = [np.array(leaf) if np.ndim(leaf) else leaf for leaf in leaves]
    for channel in gone:
        for leaf, axis, index in channel.places:
            out[leaf][(slice(None),) * axis + (index,)] = 0
    return out
