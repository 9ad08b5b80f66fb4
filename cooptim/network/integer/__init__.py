"""A network under a legal design as integers, and the same integers in jax.

`integer_network` lowers the user's jaxpr: multiply-accumulates on integer words, everything between two of them folded
into one requantization a channel. `rounded_apply` runs the result in float32 jax, equal to the last integer.
"""

from cooptim.network.integer.lower import IntegerOptions, integer_network
from cooptim.network.integer.rounded import require_float_path, rounded_apply, rounded_values

__all__ = ["IntegerOptions", "integer_network", "require_float_path", "rounded_apply", "rounded_values"]
