"""What the mechanisms of a machine do to the layers of a workload."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from cooptim.hardware.machine import Machine
from cooptim.hardware.mechanisms import Effect, LayerPoint, layer_effect
from cooptim.workload import Workload
from cooptim.workload.dims import DIMS


def workload_effect(
    machine: Machine,
    workload: Workload,
    weight_bits: Float[ArrayLike, "layer"],
    input_bits: Float[ArrayLike, "layer"],
    weight_density: Float[ArrayLike, "layer"],
    input_density: Float[ArrayLike, "layer"],
    supply_v: Float[ArrayLike, "layer"],
    cycles: Float[Array, "layer mode"],
    words_w: Float[Array, "layer mode"],
    words_i: Float[Array, "layer mode"],
) -> Effect | None:
    """The combined effect, fields [layer, mode]; None for a machine that switches nothing on.

    Args:
      weight_bits, input_bits: as the design has them. cycles, words_w, words_i: of the tilings, without mechanisms.
    """
    if not machine.mechanisms.names:
        return None

    def column(values: Any) -> Array:
        return jnp.asarray(values)[:, None]  # broadcasts against the modes

    bounds = {dim: np.array([[getattr(layer.bounds, dim)] for layer in workload.layers]) for dim in DIMS}
    point = LayerPoint(
        weight_bits=column(weight_bits),
        input_bits=column(input_bits),
        weight_density=column(weight_density),
        input_density=column(input_density),
        supply_v=column(supply_v),
        cycles=cycles,
        words_w=words_w,
        words_i=words_i,
        bounds=bounds,
    )
    return layer_effect(machine.mechanisms, machine.datapath, point)
