"""What a workload's edges say, as numpy constants: who takes whose feature map, and how long each map lives."""

import dataclasses
import functools

import numpy as np
from jaxtyping import Array, Bool, Float

from cooptim.workload.layer import INPUT, Workload


@dataclasses.dataclass(frozen=True, eq=False)
class Facts:
    """Numbers of a workload; numpy constants of a jitted program, but for those that live channels scale.

    Attributes:
      stored_words: weight words that may stay on chip; 0 for activation products.
      map_words: words of the output feature map of one inference.
      outputs: output channels of a group (K).
      produces: [producer, consumer], the consumer's I operand holds the producer's output.
      alive: [producer, layer], the producer's output exists while the layer runs, for later layers of the network.
      from_input, is_output: the layer reads the network's input; its output leaves the network.
    """

    macs: Float[np.ndarray | Array, "layer"]
    stored_words: Float[np.ndarray | Array, "layer"]
    map_words: Float[np.ndarray | Array, "layer"]
    outputs: Float[np.ndarray | Array, "layer"]
    is_product: Bool[np.ndarray, "layer"]
    from_input: Bool[np.ndarray, "layer"]
    is_output: Bool[np.ndarray, "layer"]
    produces: Bool[np.ndarray, "layer layer"]
    alive: Bool[np.ndarray, "layer layer"]


@functools.lru_cache(maxsize=64)
def facts(workload: Workload) -> Facts:
    """The facts of a workload, cached.

    A layer whose output no other layer takes is an output of the network. Raises ValueError when an input or output
    names no layer.
    """
    layers = workload.layers
    n = len(layers)
    produces = np.zeros((n, n), dtype=bool)
    for consumer, layer in enumerate(layers):
        for name in layer.inputs:
            if name != INPUT:
                produces[workload.index(name), consumer] = True
    is_output = np.asarray(~produces.any(axis=1))
    for name in workload.outputs:
        is_output[workload.index(name)] = True
    alive = np.zeros((n, n), dtype=bool)
    for producer in range(n):
        ends = [producer, *np.flatnonzero(produces[producer])]
        if len(ends) > 1:
            alive[producer, min(ends) : max(ends) + 1] = True
    return Facts(
        macs=np.array([layer.macs for layer in layers], dtype=np.float64),
        stored_words=np.array([0 if x.kind == "matmul" else x.weight_words for x in layers], dtype=np.float64),
        map_words=np.array([x.output_words * x.repeat for x in layers], dtype=np.float64),
        outputs=np.array([x.bounds.K for x in layers], dtype=np.float64),
        is_product=np.array([x.kind == "matmul" for x in layers], dtype=bool),
        from_input=np.array([INPUT in x.inputs or not x.inputs for x in layers], dtype=bool),
        is_output=is_output,
        produces=produces,
        alive=alive,
    )


@functools.lru_cache(maxsize=64)
def needed(workload: Workload) -> Bool[np.ndarray, "stage layer"]:
    """Layers that run for an input that leaves at each exit of a workload, and (last row) for one that never does.

    A layer runs when it reaches an exit that the input came by; one that only later stages need does not. Cached.
    Raises ValueError when an exit or an input names no layer.
    """
    known = facts(workload)
    run = np.zeros((len(workload.exits) + 1, len(workload.layers)), dtype=bool)
    run[-1] = True
    for stage, name in enumerate(workload.exits):
        found = np.zeros(len(workload.layers), dtype=bool)
        found[workload.index(name)] = True
        while (more := found | known.produces[:, found].any(axis=1)).sum() > found.sum():
            found = more
        run[stage] = found | (run[stage - 1] if stage else False)
    return run
