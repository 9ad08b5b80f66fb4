"""From --model and --data or --input-shape to a traced network."""

import argparse
import importlib
import pathlib
import re
import sys
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from cooptim.data import Dataset, load_data
from cooptim.export import load_weights
from cooptim.network import Network, trace
from cooptim.network.exits import with_exits
from cooptim.network.low_rank import low_rank
from cooptim.network.trace import retraced


def dataset(options: argparse.Namespace) -> Dataset:
    """The data set of --data."""
    return load_data("digits" if options.data is None else options.data, series=options.series)


def network(options: argparse.Namespace, x: Any, seed: int = 0) -> Network:
    """The network that --model names, traced at the input `x` (with batch axis), with --low-rank and --exits.

    Raises ValueError when the factory cannot be found, fails, or returns something else, and for a layer that cannot be
    split or left.
    """
    return rewritten(_traced(options, x, seed), options, seed)


def as_saved(traced: Network, weights: pathlib.Path, x: Any) -> tuple[Network, Any, Any]:
    """(network, params, state) of saved weights: the network traced anew where channels have left them."""

    def shapes(*trees: Any) -> list[tuple[int, ...]]:
        return [np.shape(leaf) for leaf in jax.tree.leaves(trees)]

    params, state = load_weights(weights, (traced.params, traced.state), resized=True)
    if shapes(params, state) != shapes(traced.params, traced.state):
        traced = retraced(traced, params, state, x)
    return traced, params, state


def rewritten(traced: Network, options: argparse.Namespace, seed: int) -> Network:
    """The network with its layers split and its exits, as the command asks; commands without these options ask none."""
    ranks = [_rank_of(text) for text in getattr(options, "low_rank", None) or ()]
    exits, grid = getattr(options, "exits", None) or (), getattr(options, "exit_grid", None)
    if grid is not None and not exits:
        raise ValueError(f"--exit-grid {grid}: says how heads average, and there are none; add --exits LAYER")
    for name, _ in ranks:
        if [other for other, _ in ranks].count(name) > 1:
            raise ValueError(f"--low-rank {name}: given twice; one rank a layer")
    if exits:
        cells = {} if grid is None else {"grid": grid}
        traced = with_exits(traced, tuple(exits), key=jax.random.key(seed), **cells)
    return low_rank(traced, dict(ranks)) if ranks else traced  # last: an exit stands at a layer that is still whole


def _rank_of(text: str) -> tuple[str, int]:
    match = re.fullmatch(r"(.+)=(\d+)", text)
    if match is None:
        raise ValueError(f"--low-rank {text}: write LAYER=RANK, such as c5.kernel=20; `cooptim trace` lists the layers")
    return match.group(1), int(match.group(2))


def _traced(options: argparse.Namespace, x: Any, seed: int) -> Network:
    from flax import nnx

    factory = find(options.model)
    try:
        made = factory(nnx.Rngs(seed))
    except Exception as error:
        raise ValueError(
            f"--model {options.model}: the factory failed with {type(error).__name__}: {error}; it is called with "
            "flax.nnx.Rngs and returns an NNX module or (params, apply)"
        ) from error
    pair = isinstance(made, tuple) and len(made) == 2 and callable(made[1])
    if pair or isinstance(made, nnx.Module):
        try:
            return trace(made[1], made[0], x) if pair else trace(made, x)
        except Exception as error:  # what a network raises when it gets another input than it is made for
            if isinstance(error, ValueError) and _raised_here(error):
                raise
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            remedy = "give data of the shape it is made for"
            if isinstance(error, TypeError) and "argument" in reason:
                remedy = "return (params, apply) from the factory, with an apply(params, x) that passes the rest"
            raise ValueError(
                f"--model {options.model}: cannot run on inputs of shape {list(x.shape[1:])}: {reason}; {remedy}"
            ) from error
    raise ValueError(
        f"--model {options.model}: the factory returned {type(made).__name__}; legal are a flax.nnx.Module and a pair "
        "(params, apply)"
    )


def _raised_here(error: BaseException) -> bool:
    """Whether this package raised the error, and so said what to do about it."""
    trace_back = error.__traceback__
    while trace_back is not None and trace_back.tb_next is not None:
        trace_back = trace_back.tb_next
    return trace_back is not None and trace_back.tb_frame.f_globals.get("__name__", "").startswith("cooptim.")


def find(spec: str) -> Callable[..., Any]:
    """The callable that 'package.module:factory' names; modules of the current directory count."""
    match = re.fullmatch(r"([A-Za-z_][\w.]*):([A-Za-z_]\w*)", spec)
    if match is None:
        raise ValueError(f"--model {spec}: write package.module:factory, such as cooptim.network.examples:lenet5")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        module = importlib.import_module(match.group(1))
    except ImportError as error:
        raise ValueError(
            f"--model {spec}: module {match.group(1)} cannot be imported ({error}); run from the directory that holds "
            "it or install it"
        ) from None
    except Exception as error:  # whatever the user's module does when it is imported
        reason = " ".join(str(error).split())
        raise ValueError(
            f"--model {spec}: module {match.group(1)} fails on import with {type(error).__name__}: {reason}; mend it"
        ) from error
    factory = getattr(module, match.group(2), None)
    if not callable(factory):
        have = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        names = ", ".join(sorted(have)[:12])
        raise ValueError(f"--model {spec}: {match.group(1)} has no callable '{match.group(2)}'; it has {names}")
    return factory


def require_model_of_input(options: argparse.Namespace) -> None:
    """Raises ValueError where an option says what the input of a model is and none is named."""
    if options.model is not None:
        return
    for name in ("input_shape", "data"):
        if getattr(options, name) is not None:
            raise ValueError(f"--{name.replace('_', '-')} is the input of --model; give --model, or leave it out")
    if options.series:
        raise ValueError("--series says what --data holds, the input of --model; give both, or leave it out")


def sample(options: argparse.Namespace) -> Any:
    """One input with its batch axis, of the data set or just the shape and type of --input-shape."""
    if options.input_shape is None:
        return dataset(options).sample
    if options.series:
        raise ValueError("--series says what --data holds; --input-shape is taken as it is written: leave --series out")
    if options.data is not None:
        raise ValueError("--data and --input-shape both say what the input is; give one of them")
    match = re.fullmatch(r"([1-9]\d*(?:[x,][1-9]\d*)*)(:int32)?", options.input_shape)
    if match is None:
        raise ValueError(
            f"--input-shape {options.input_shape}: write sizes without the batch, such as 28x28x1, or 128:int32 for a "
            "row of tokens"
        )
    shape = tuple(int(n) for n in re.split("[x,]", match.group(1)))
    return jax.ShapeDtypeStruct((1, *shape), np.float32 if match.group(2) is None else np.int32)
