"""One layer at one point, as a mechanism sees it."""

import jax.numpy as jnp
import numpy as np

from cooptim.hardware.mechanisms import LayerPoint


def point(modes=3, **changes):
    """8-bit weights of which a quarter, 6-bit inputs of which half is not zero; 128 output channels."""
    fields = {
        "weight_bits": jnp.array([8.0]), "input_bits": jnp.array([6.0]), "weight_density": jnp.array([0.25]),
        "input_density": jnp.array([0.5]), "supply_v": jnp.array([1.0]), "cycles": jnp.full(modes, 100.0),
        "words_w": jnp.full(modes, 40.0), "words_i": jnp.full(modes, 20.0), "bounds": {"K": np.array([128])},
    }  # fmt: skip
    return LayerPoint(**(fields | changes))
