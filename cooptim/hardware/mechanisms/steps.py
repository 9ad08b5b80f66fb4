"""What several mechanisms share: whole steps of a narrow unit, datapaths without subwords, leaves from a file."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from cooptim.hardware.quantity import Quantity

_SLACK = 1e-4  # a quotient this little above a whole number counts as that number


def whole_steps(bits: Float[ArrayLike, "*#n"], step_bits: Float[ArrayLike, "*#n"]) -> Float[Array, "..."]:
    """ceil(bits / step_bits), at least 1; the gradient is that of the quotient (straight-through)."""
    share = jnp.asarray(bits) / step_bits
    whole = jnp.maximum(jnp.ceil(share - _SLACK), 1.0)
    return jax.lax.stop_gradient(whole) + (share - jax.lax.stop_gradient(share))


def subwords_fault(spec: Any, where: str, instead: str, name: str) -> str | None:
    """What is wrong with a datapath that splits into subwords (`spec` is a MachineSchema), or None."""
    lanes = spec.datapath.lanes.value
    if lanes == [1]:
        return None
    return (
        f": subwords (datapath.lanes {lanes}) in {where}; legal: datapath.lanes [1], {instead}; remove the other modes "
        f"or {name}"
    )


def leaf(quantity: Quantity) -> Float[Array, ""]:
    """The number as a scalar of jax's default float dtype, in coherent units."""
    return jnp.asarray(quantity.value, dtype=jnp.result_type(float))
