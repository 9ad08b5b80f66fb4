"""How the programs of a run are compiled: on a CPU, compiling outweighs short training."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

# XLA's older loop emitters. With the newer ones the joint step of LeNet-5 takes 1.6 times the CPU and 4 times the
# memory to compile on jax 0.10.1, and runs no faster (experiments/overhead).
_QUICK: dict[str, Any] = {"xla_cpu_use_fusion_emitters": False}


@functools.cache
def compiler_options() -> dict[str, Any]:
    """Options for `jax.jit` that shorten compilation on a CPU; empty on other devices and where this XLA lacks them."""
    if jax.default_backend() != "cpu":
        return {}
    try:
        jax.jit(lambda: jnp.zeros(()), compiler_options=_QUICK).lower().compile()
    except (jax.errors.JaxRuntimeError, ValueError):  # an option that this version does not know
        return {}
    return _QUICK


def compiled(function: Callable[..., Any], **options: Any) -> Any:
    """`jax.jit(function, **options)`, compiled quickly; not for use inside another `jit` (its `__wrapped__` is)."""
    return jax.jit(function, compiler_options=compiler_options(), **options)
