"""Two dense layers on digits, the smallest network that a task is made of."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import cooptim


def two_layers(p: Any, x: Any) -> Any:
    """Logits of 8x8 images."""
    return jax.nn.relu(x.reshape(x.shape[0], -1) @ p["a"]) @ p["b"]


def traced() -> tuple[Any, dict[str, Any], Any]:
    """(network, its weights, digits)."""
    rng = np.random.default_rng(0)
    params = {"a": jnp.asarray(rng.normal(size=(64, 8)) / 8), "b": jnp.asarray(rng.normal(size=(8, 10)) / 3)}
    data = cooptim.load_data("digits")
    return cooptim.trace(two_layers, params, data.x_train[:1]), params, data
