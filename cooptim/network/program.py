"""A user's model as one pure function: (params, state, x, rngs, train) -> (y, state)."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen, nnx

PyTree = Any
_LEGAL = (
    "trace(nnx_module, x), trace(linen_module, x, variables=variables), trace((linen_module, variables), x), "
    "trace(fn, params, x) for fn(params, x), or trace(fn, params, x, state=state, rngs=rngs) for "
    "fn(params, state, x, rngs, train) -> (y, state)"
)


@dataclasses.dataclass(frozen=True)
class Program:
    """A network as a pure function with its parameters and state, both plain pytrees of arrays (or of shapes).

    `given` casts parameters to the model's own dtypes, where `params` are wider (`_held_wide`).
    """

    name: str
    call: Callable[[PyTree, PyTree, PyTree, PyTree, bool], tuple[PyTree, PyTree]]
    params: PyTree
    state: PyTree
    two_modes: bool  # whether train and eval may differ
    given: Callable[[PyTree], PyTree] = lambda params: params


def program_of(
    model: Any, args: tuple[Any, ...], variables: Mapping[str, Any] | None = None, state: PyTree = None
) -> tuple[Program, Any]:
    """The model as a Program, parameters of half precision held in float32, and its example input x.

    Raises ValueError for anything but the forms that `cooptim.trace` documents.
    """
    program, x = _read(model, args, variables, state)
    return _held_wide(program), x


def _read(model: Any, args: tuple[Any, ...], variables: Mapping[str, Any] | None, state: PyTree) -> tuple[Program, Any]:
    if isinstance(model, nnx.Module):
        return _nnx(model), _only(args, "an NNX module")
    if isinstance(model, linen.Module):
        if variables is None:
            raise ValueError(f"{type(model).__name__}: a Linen module comes without variables; legal: {_LEGAL}")
        return _linen(model, variables), _only(args, "a Linen module")
    if isinstance(model, tuple) and len(model) == 2 and isinstance(model[0], linen.Module):
        return _linen(*model), _only(args, "a Linen module")
    if callable(model):
        if len(args) != 2:
            raise ValueError(f"{_name(model)}: got {len(args)} arguments behind the function; legal: {_LEGAL}")
        return _function(model, args[0], state), args[1]
    raise ValueError(f"trace: a {type(model).__name__} is no network; legal: {_LEGAL}")


def _held_wide(program: Program) -> Program:
    """The program with floating-point parameters below 32 bits held in float32 and cast in every call.

    What a training step changes is often less than half a step of theirs and would be lost; so would the running means
    of an optimizer that takes their dtype.
    """
    dtypes = [getattr(leaf, "dtype", None) for leaf in jax.tree.leaves(program.params)]
    half = [d is not None and jnp.issubdtype(d, jnp.floating) and jnp.finfo(d).bits < 32 for d in dtypes]
    if not any(half):
        return program

    def given(params: PyTree) -> PyTree:
        leaves, tree = jax.tree.flatten(params)
        cast = [leaf.astype(d) if small else leaf for leaf, d, small in zip(leaves, dtypes, half, strict=True)]
        return jax.tree.unflatten(tree, cast)

    def call(p: PyTree, s: PyTree, x: Any, rngs: PyTree, train: bool) -> tuple[PyTree, PyTree]:
        return program.call(given(p), s, x, rngs, train)

    def widened(leaf: Any, small: bool) -> Any:
        if not small:
            return leaf
        abstract = isinstance(leaf, jax.ShapeDtypeStruct)
        return jax.ShapeDtypeStruct(leaf.shape, jnp.float32) if abstract else leaf.astype(jnp.float32)

    leaves, tree = jax.tree.flatten(program.params)
    wide = [widened(leaf, small) for leaf, small in zip(leaves, half, strict=True)]
    return dataclasses.replace(program, call=call, params=jax.tree.unflatten(tree, wide), given=given)


def _only(args: tuple[Any, ...], who: str) -> Any:
    if len(args) != 1:
        raise ValueError(f"trace: {who} takes one example input x, found {len(args)}; legal: {_LEGAL}")
    return args[0]


def _name(fn: Any) -> str:
    return getattr(fn, "__name__", type(fn).__name__)


def _function(fn: Callable[..., Any], params: PyTree, state: PyTree) -> Program:
    """fn(params, x), or fn(params, state, x, rngs, train), told apart by the number of positional parameters."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    found = [p for p in inspect.signature(fn).parameters.values() if p.kind in kinds]
    required = [p for p in found if p.default is inspect.Parameter.empty]
    if len(found) == 5 and len(required) > 2:

        def full(p: PyTree, s: PyTree, x: Any, rngs: PyTree, train: bool) -> tuple[PyTree, PyTree]:
            return fn(p, s, x, rngs, train)

        return Program(_name(fn), full, params, {} if state is None else state, two_modes=True)
    if len(required) <= 2 <= len(found) or any(
        p.kind is inspect.Parameter.VAR_POSITIONAL for p in inspect.signature(fn).parameters.values()
    ):

        def plain(p: PyTree, s: PyTree, x: Any, rngs: PyTree, train: bool) -> tuple[PyTree, PyTree]:
            del rngs, train
            return fn(p, x), s

        return Program(_name(fn), plain, params, {} if state is None else state, two_modes=False)
    raise ValueError(
        f"{_name(fn)}: takes ({', '.join(p.name for p in found)}); legal are fn(params, x) and "
        "fn(params, state, x, rngs, train); wrap it in one of them"
    )


def _nested(pairs: Any) -> dict[Any, Any]:
    """{path: value} pairs as nested dictionaries."""
    out: dict[Any, Any] = {}
    for path, value in pairs:
        node = out
        for key in path[:-1]:
            node = node.setdefault(key, {})
        node[path[-1]] = value
    return out


def _at(tree: Mapping[Any, Any], path: tuple[Any, ...]) -> Any:
    for key in path:
        tree = tree[key]
    return tree


def _nnx(model: nnx.Module) -> Program:
    """Parameters are `nnx.Param`, all other variables (statistics, keys and counters of random streams) are state.

    Every call merges a copy, so the module itself never changes.
    """
    parts: tuple[Any, ...] = nnx.split(model, nnx.Param, ...)
    graph, params, rest = parts
    flat_params, flat_rest = dict(nnx.to_flat_state(params)), dict(nnx.to_flat_state(rest))

    def refilled(template: Mapping[Any, Any], values: PyTree) -> nnx.State:
        return nnx.from_flat_state({path: var.replace(_at(values, path)) for path, var in template.items()})

    def call(p: PyTree, s: PyTree, x: Any, rngs: PyTree, train: bool) -> tuple[PyTree, PyTree]:
        if rngs is not None:
            s = _reseeded(s, rngs)
        module = nnx.merge(graph, refilled(flat_params, p), refilled(flat_rest, s), copy=True)
        if train:
            module.train()
        else:
            module.eval()
        y = module(x)
        changed: tuple[Any, ...] = nnx.split(module, nnx.Param, ...)
        after = dict(nnx.to_flat_state(changed[2]))
        return y, _nested((path, after[path].get_value()) for path in flat_rest)

    return Program(
        type(model).__name__,
        call,
        _nested((path, var.get_value()) for path, var in flat_params.items()),
        _nested((path, var.get_value()) for path, var in flat_rest.items()),
        two_modes=True,
    )


def _reseeded(state: PyTree, key: Any) -> PyTree:
    """State with each random key replaced by one derived from `key`."""
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        key = jax.random.wrap_key_data(key)
    leaves, tree = jax.tree.flatten(state)
    out = []
    for i, leaf in enumerate(leaves):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            own = jax.random.fold_in(key, i)
            leaf = jax.random.split(own, leaf.shape) if leaf.shape else own
        out.append(leaf)
    return jax.tree.unflatten(tree, out)


def _linen(module: linen.Module, variables: Mapping[str, Any]) -> Program:
    """Collection 'params' are the parameters, all other collections are state.

    A `train` (or `training`) argument of the module gets the mode, `deterministic` and `use_running_average` its
    opposite. A key as rngs feeds the stream 'dropout'; a dictionary is passed on.
    """
    accepted = inspect.signature(type(module).__call__).parameters
    state = {name: tree for name, tree in variables.items() if name != "params"}

    def call(p: PyTree, s: PyTree, x: Any, rngs: PyTree, train: bool) -> tuple[PyTree, PyTree]:
        modes = {"train": train, "training": train, "deterministic": not train, "use_running_average": not train}
        options: dict[str, Any] = {name: mode for name, mode in modes.items() if name in accepted}
        options["rngs"] = rngs if rngs is None or isinstance(rngs, Mapping) else {"dropout": rngs}
        if train and s:
            y, changed = module.apply({"params": p, **s}, x, mutable=list(s), **options)
            return y, {**s, **changed}
        return module.apply({"params": p, **s}, x, **options), s

    return Program(type(module).__name__, call, variables.get("params", {}), state, two_modes=True)
