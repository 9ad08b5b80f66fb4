"""Named quantizers of a whole run: which method each layer of a workload takes.

Deep Compression shares the weights of every layer, so `codebook` does; the width of its labels is the user's choice,
one for all layers and all designs of a run. What is left to learn of widths are the inputs': the best uniform design
has the same labels and one width of inputs, the joint one a width of inputs a layer. The 16-bit reference has no
tables.
"""

from collections.abc import Mapping

from cooptim.design.space import require_table
from cooptim.hardware.machine import Machine
from cooptim.relax.method import PLAIN, Method
from cooptim.workload import Layer, Workload

# name -> quantizers of (weights, inputs), as the papers pair them
RECIPES: Mapping[str, tuple[str, str]] = {
    "step_range": ("step_range", "step_range"),
    "blend": ("blend", "blend"),
    "lsq": ("lsq", "lsq"),
    "pact": ("dorefa", "pact"),
    "dorefa": ("dorefa", "dorefa"),
    "ternary": ("ternary", "step_range"),
    "xnor": ("sign", "step_range"),
    "binary": ("sign", "sign"),
    "codebook": ("codebook", "step_range"),
}
_ONE_SCALE = {"dorefa": "scale", "codebook": "table"}  # for all of a tensor
_WIDE_ENDS = ("ternary", "xnor", "binary")  # whose papers leave the first and the last layer as they are
_LEARNED = ("step_range", "blend", "codebook")  # whose widths, of codebooks the inputs', a descent can learn


def methods_of(
    workload: Workload, quantizer: str = "step_range", per_channel: bool = False,
    pattern: tuple[int, int] | None = None, label_bits: int | None = None,
) -> tuple[Method, ...]:  # fmt: skip
    """One method a layer, or () where all are the default.

    Ternary and one-bit recipes leave the first and the last layer at the default quantizer, as their papers do.
    Products of two data operands have neither channels nor a pattern, and keep their operands' steps. A pattern stays
    away from layers that it does not divide.

    Raises ValueError for an unknown recipe, a pattern that divides no layer, and channels where nothing has a scale for
    each.
    """
    if quantizer not in RECIPES:
        raise ValueError(f"quantizer '{quantizer}' is not known; use one of {', '.join(RECIPES)}")
    weights, inputs = RECIPES[quantizer]
    last = len(workload.layers) - 1
    found = []
    for i, layer in enumerate(workload.layers):
        ends = quantizer in _WIDE_ENDS and i in (0, last)
        w, x = ("step_range", "step_range") if ends else (weights, inputs)
        if layer.kind == "matmul":
            found.append(Method("step_range" if w in ("dorefa", "sign", "ternary", "codebook") else w, x))
            continue
        cut = pattern is not None and _words(layer) % pattern[1] == 0
        scaled = per_channel and w not in _ONE_SCALE
        found.append(Method(w, x, scaled, pattern if cut else None, label_bits if w == "codebook" else None))
    if pattern is not None and all(method.pattern is None for method in found):
        words = ", ".join(f"{layer.name} {_words(layer)}" for layer in workload.layers)
        raise ValueError(
            f"pattern {pattern[0]} of {pattern[1]} divides no layer of {workload.name}; weights an output channel "
            f"(C*FY*FX) are {words}: choose an M that divides some"
        )
    if per_channel and not any(method.scaled for method in found):
        if weights in _ONE_SCALE:
            raise ValueError(f"per_channel: {quantizer} has one {_ONE_SCALE[weights]} a tensor; use lsq or step_range")
        raise ValueError(f"per_channel: no layer of {workload.name} has weights in channels; leave it off")
    return () if all(method == PLAIN for method in found) else tuple(found)


def learns_widths(quantizer: str) -> bool:
    """Whether a descent may learn the widths of this recipe; the others' widths are held."""
    return quantizer in _LEARNED


def require_tables(machine: Machine, label_bits: int | None) -> None:
    """Raises ValueError for labels of a codebook that the machine has no table for; None is no codebook."""
    if label_bits is not None:
        require_table(machine, label_bits, "quantizer 'codebook'")


def _words(layer: Layer) -> int:
    return layer.bounds.C * layer.bounds.FY * layer.bounds.FX
