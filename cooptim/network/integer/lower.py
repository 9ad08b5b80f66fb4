"""From a traced network and a design to an integer network, by abstract interpretation of the network's own jaxpr."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core as jcore

from cooptim.integer.program import IntegerLayer, IntegerNetwork, Node, Output
from cooptim.network.flow import Path
from cooptim.network.integer.build import Builder, CannotLower, IntegerOptions
from cooptim.network.integer.elementwise import ELEMENTWISE
from cooptim.network.integer.shapes import SHAPES
from cooptim.network.integer.site import Site, lower_site
from cooptim.network.integer.value import Value, is_plain, magnitude
from cooptim.network.interpret import bind
from cooptim.network.jaxprs import CALLS, CUSTOM, call_jaxpr, opened, scan_split
from cooptim.network.kept import site_methods
from cooptim.network.quantized import Off, OperandDesign, quantizing, site_knobs
from cooptim.network.selection import as_slices
from cooptim.network.trace import Network
from cooptim.relax.method import PLAIN

__all__ = ["IntegerOptions", "integer_network"]
OUTPUT_BITS = 24  # of results with offsets or a step a channel
LOWERED = (
    "products with and additions of constants, max and min with constants, additions of two values, pooling, "
    "sums, reshape, transpose, slice, pad and concatenate"
)


@dataclasses.dataclass(frozen=True)
class Stuck:
    """A value that stays a float: what stopped it, and the last values before."""

    reason: str
    layer: str
    sources: tuple[Value, ...]


def integer_network(
    network: Network,
    params: Any,
    state: Any,
    design: OperandDesign,
    x: Any,
    options: IntegerOptions | None = None,
) -> IntegerNetwork:
    """The network in evaluation mode under a legal design, in integers.

    Each layer's words are those of the design. Everything between two layers is folded into a requantization a channel;
    what waits for an addition or is averaged is kept in `options.word_bits`. What follows the last layer and has no
    integer form (a softmax) is left to the caller and named in `head`.

    Args:
      params, state: arrays of the network's structure.
      x: an example input, one array of any batch size (only its shape is read).
      options: how integers are kept where the design says nothing.

    Raises ValueError that names the layer for a width beyond quantizing, an accumulator that is too narrow, and an
    operation between two layers that has no integer form.
    """
    return _Lowering(network, design, options or IntegerOptions()).network_of(params, state, x)


class _Lowering:
    """One walk over one jaxpr at batch 1; constants are evaluated on the way."""

    def __init__(self, network: Network, design: OperandDesign, options: IntegerOptions) -> None:
        self.network, self.design, self.options = network, design, options
        self.build = Builder(options, network.workload.name)
        self.layers: list[IntegerLayer] = []
        self.stuck: list[str] = []
        self.trips: dict[Path, int] = {}

    def network_of(self, params: Any, state: Any, x: Any) -> IntegerNetwork:
        """See `integer_network`."""
        name, axis = self.network.workload.name, self.network.batch_axis
        if len(jax.tree.leaves(x)) != 1:
            raise ValueError(
                f"{name}: x has {len(jax.tree.leaves(x))} arrays; an integer network takes one: stack them"
            )
        program = self.network.eval_program(params, state, x)
        self.plan, self.rows = program.plan, program.rows
        self.tokens = np.issubdtype(program.jaxpr.invars[-1].aval.dtype, np.integer)
        layers = len(self.network.layer_names)
        off = Off(frozenset(), frozenset())
        self.knobs = site_knobs(self.design, program.rows, program.mask_rows, off, layers)
        self.methods = site_methods(self.design, program.rows, self.plan, self.network.layer_names)
        self.probe = quantizing(self.design.input_signed, program.rows, off, methods=self.methods)
        shape = tuple(program.x_shape)
        one = np.ones((1,) * len(shape))
        zero = np.zeros_like(one, dtype=np.int64)
        image = Value(0, shape, axis % len(shape), one, 0 * one, -np.inf * one, np.inf * one, zero, zero, real=True)
        arrays = [jnp.asarray(leaf) for leaf in jax.tree.leaves((params, state))]
        outs = self.run(program.jaxpr, [*arrays, image], ())
        results = jax.tree.leaves(jax.tree.unflatten(program.out_tree, outs)[0])
        found = self._outputs(results)
        nodes, kept = live(self.build.nodes, [out.node for out in found])
        return IntegerNetwork(
            name=name,
            input_shape=tuple(-1 if a == image.batch else n for a, n in enumerate(shape)),
            nodes=nodes,
            layers=tuple(dataclasses.replace(la, node=kept[la.node]) for la in self.layers if la.node in kept),
            outputs=tuple(dataclasses.replace(out, node=kept[out.node]) for out in found),
            multiplier_bits=self.options.multiplier_bits,
            head=tuple(dict.fromkeys(self.stuck)) if any(isinstance(r, Stuck) for r in results) else (),
        )

    # -- equations ----------------------------------------------------------------------------------------------------

    def run(self, jaxpr: Any, args: Sequence[Any], prefix: Path) -> list[Any]:
        """Outputs of a jaxpr, given arrays and values."""
        inner, consts = opened(jaxpr)
        env: dict[Any, Any] = dict(zip(inner.constvars, consts, strict=True))
        env.update(zip(inner.invars, args, strict=True))

        def read(atom: Any) -> Any:
            return atom.val if isinstance(atom, jcore.Literal) else env[atom]

        for i, eqn in enumerate(inner.eqns):
            outs = self._step(eqn, [read(atom) for atom in eqn.invars], prefix + (i,))
            env.update(zip(eqn.outvars, outs, strict=True))
        return [read(atom) for atom in inner.outvars]

    def _step(self, eqn: Any, args: list[Any], path: Path) -> list[Any]:
        name = eqn.primitive.name
        if path in self.plan.sites:
            return [self._site(eqn, args, path)]
        if path in self.plan.boundaries:
            layers = [str(n) for b in self.plan.boundaries[path] for n in self.plan.names[b.site].ravel()]
            raise ValueError(
                f"{', '.join(layers)}: stands inside the custom derivative rule '{name}', which integers cannot enter; "
                "take the layer out of the rule"
            )
        if path in self.plan.opened and name == "scan":
            return self._scan(eqn, args, path)
        if name == "cond" and not _is_data(args[0]):
            branch = min(max(int(args[0]), 0), len(eqn.params["branches"]) - 1)
            return self.run(eqn.params["branches"][branch], args[1:], path + (branch,))
        if name in CALLS and path in self.plan.opened:
            return self.run(call_jaxpr(eqn), args, path + (0,))
        for operand, site in self.plan.masked.get(path, {}).items():
            if not _is_data(args[operand]):
                args[operand] = self.probe.mask(self.plan.sites[site], args[operand], self._own(site))
        if not any(_is_data(arg) for arg in args):
            return bind(eqn, args)
        if name in CALLS | CUSTOM:
            return self.run(call_jaxpr(eqn), args, path + (0,))
        if name == "conv_general_dilated" and isinstance(args[0], Value):  # no layer: it only moves data
            moved = jax.make_jaxpr(as_slices(eqn, np.asarray(args[1])))(eqn.invars[0].aval)
            return self.run(moved, [args[0]], path + (0,))
        return self._ordinary(eqn, args)

    def _ordinary(self, eqn: Any, args: list[Any]) -> list[Any]:
        name = eqn.primitive.name
        stuck = [arg for arg in args if isinstance(arg, Stuck)]
        values = [arg for arg in args if isinstance(arg, Value)]
        lower: Any = ELEMENTWISE.get(name) or SHAPES.get(name)
        if not stuck and lower is not None:
            try:
                outs = lower(self.build, eqn, [a if isinstance(a, Value) else _numbers(a) for a in args])
                return list(outs) if isinstance(outs, (list, tuple)) else [outs]
            except CannotLower as error:
                reason = str(error)
        else:
            reason = stuck[0].reason if stuck else f"'{name}'"
        self.stuck.append(name)
        layer = stuck[0].layer if stuck else values[0].layer
        sources = [s for arg in stuck for s in arg.sources] + [v.derived or v for v in values]
        return [Stuck(reason, layer, tuple(dict.fromkeys(sources)))] * len(eqn.outvars)

    # -- layers -------------------------------------------------------------------------------------------------------

    def _trip(self, path: Path) -> tuple[int, ...]:
        return tuple(self.trips[scan] for scan, _ in self.plan.sites[path].scans)

    def _own(self, path: Path) -> Any:
        """Knobs of a site in this trip of its scans."""
        return jax.tree.map(lambda leaf: leaf[self._trip(path)], self.knobs[path])

    def _site(self, eqn: Any, args: list[Any], path: Path) -> Any:
        site = self.plan.sites[path]
        name = str(self.plan.names[path][self._trip(path)])
        weight, data = args[site.weight], args[site.data]
        if _is_data(weight):
            raise ValueError(
                f"{name}: both operands of this {eqn.primitive.name} are data, and an integer network holds weights in "
                "one of them; export the part of the network before it"
            )
        if isinstance(data, Stuck):
            if self.tokens:
                raise ValueError(
                    f"{name}: its input is looked up by whole numbers ({data.reason} behind {data.layer}), which has "
                    "no integer form; export what is behind its embedding, with embedded rows as input"
                )
            raise ValueError(
                f"{name}: its input passes {data.reason} behind {data.layer}, which has no integer form; lowered are "
                f"{LOWERED}; replace it (by relu, say), or export the part of the network before it"
            )
        if not isinstance(data, Value):
            raise ValueError(f"{name}: its input does not depend on x; fold it into a constant")
        signed = any(self.design.input_signed[row] for row in self.rows[path].ravel())
        method = self.methods.get(path, PLAIN)
        where = Site(name, weight, site.weight, self._own(path), bool(signed), site.product, site.axes, method)
        out, layer = lower_site(self.build, eqn, where, data)
        self.layers.append(layer)
        return out

    def _scan(self, eqn: Any, args: list[Any], path: Path) -> list[Any]:
        """A scan with layers inside, trip by trip; what runs along with its trips must be constant."""
        n_const, n_carry = scan_split(eqn)
        consts, carry, xs = args[:n_const], list(args[n_const : n_const + n_carry]), args[n_const + n_carry :]
        length = eqn.params["length"]
        if any(_is_data(x) for x in xs):
            raise ValueError(
                f"{self.network.workload.name}: a scan runs over data; integers follow a straight line: unroll the "
                "loop over time, or export the part of the network before it"
            )
        ys: list[list[Any]] = []
        for trip in reversed(range(length)) if eqn.params["reverse"] else range(length):
            self.trips[path] = trip
            outs = self.run(eqn.params["jaxpr"], [*consts, *carry, *(x[trip] for x in xs)], path + (0,))
            carry = outs[:n_carry]
            ys.append(outs[n_carry:])
        ys = ys[::-1] if eqn.params["reverse"] else ys
        return [*carry, *(self._stacked(list(column)) for column in zip(*ys, strict=True))]

    def _stacked(self, column: list[Any]) -> Any:
        data = [item for item in column if _is_data(item)]
        if not data:
            return jnp.stack(column)
        sources = [s for item in data for s in (item.sources if isinstance(item, Stuck) else (item,))]
        return Stuck("the results of a scan, stacked", data[0].layer, tuple(dict.fromkeys(sources)))

    # -- results ------------------------------------------------------------------------------------------------------

    def _outputs(self, results: Sequence[Any]) -> list[Output]:
        wanted: list[Value] = []
        for result in results:
            wanted += result.sources if isinstance(result, Stuck) else [result] if isinstance(result, Value) else []
        if not self.layers or not wanted:
            raise ValueError(f"{self.network.workload.name}: no layer reaches its output; there is nothing to run")
        return [self._output(v) for v in dict.fromkeys(wanted)]

    def _output(self, v: Value) -> Output:
        """Plain integers: the accumulators where nothing is added, else in OUTPUT_BITS or the accumulators' own.

        A bias is rarely a multiple of the accumulators' step, which is coarse behind words of few bits: where all
        channels share that step, it is halved as often as OUTPUT_BITS hold, which keeps the accumulators exact.
        """
        v = self.build.integers(v)
        limit = 2**31 - 1
        if is_plain(v):
            return Output(v.node, v.scale.item())
        finest = magnitude(v) / (2 ** (OUTPUT_BITS - 1) - 1)
        if v.scale.size == 1 and v.scale.item() > 0:
            room = math.floor(math.log2(v.scale.item() / finest)) if finest > 0.0 else 0
            step = v.scale.item() / 2.0 ** max(0, min(room, self.options.multiplier_bits - 1))
        else:
            # Not finer than the multiplier can tell the channels' steps apart.
            coarse = float(np.abs(v.scale).max()) / (2**self.options.multiplier_bits - 1)
            step = max(finest, coarse) or 1.0
        return Output(self.build.at_step(v, step, -limit, limit).node, step)


def live(nodes: Sequence[Node], roots: Sequence[int]) -> tuple[tuple[Node, ...], dict[int, int]]:
    """Nodes that the roots need, and the new position of each."""
    needed = {0, *roots}
    for i in reversed(range(len(nodes))):
        if i in needed:
            needed |= set(nodes[i].inputs)
    kept = {old: new for new, old in enumerate(sorted(needed))}
    return tuple(
        dataclasses.replace(nodes[old], inputs=tuple(kept[i] for i in nodes[old].inputs)) for old in kept
    ), kept


def _is_data(arg: Any) -> bool:
    return isinstance(arg, (Value, Stuck))


def _numbers(array: Any) -> np.ndarray:
    return np.asarray(array, np.float64)
