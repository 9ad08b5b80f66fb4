"""Names for tensors inside a network."""

from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array


def tag(x: Array, name: str) -> Array:
    """x itself, known to `trace` as `name`.

    A tagged operand names the activation product that it enters; `Network.tags` tells which layers feed a tag.
    """
    return checkpoint_name(x, name)
