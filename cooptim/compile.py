"""How programs are compiled: on a CPU, compiling outweighs short training and descents of tilings."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

# XLA's older loop emitters. With the newer ones the joint step of LeNet-5 takes 1.6 times the CPU and 4 times the
# memory to compile on jax 0.10.1, and runs no faster (experiments/overhead).
_QUICK: dict[str, Any] = {"xla_cpu_use_fusion_emitters": False}
# The price of a small network with its gradient compiles in 0.4 CPU-s, in 0.6 when split over threads, in 3.7 without
# options.
_ONCE: dict[str, Any] = {
    **_QUICK, "xla_backend_optimization_level": 0, "xla_cpu_parallel_codegen_split_count": 1,
}  # fmt: skip


@functools.cache
def compiler_options(*, once: bool = False) -> dict[str, Any]:
    """Options for `jax.jit` that shorten compilation on a CPU; empty on other devices and where this XLA lacks them.

    Args:
      once: for a program that runs a few times only, so that its own speed does not count.
    """
    options = _ONCE if once else _QUICK
    if jax.default_backend() != "cpu":
        return {}
    try:
        jax.jit(lambda: jnp.zeros(()), compiler_options=options).lower().compile()
    except (jax.errors.JaxRuntimeError, ValueError):  # an option that this version does not know
        return {}
    return options


def compiled(function: Callable[..., Any], **options: Any) -> Any:
    """`jax.jit(function, **options)`, compiled quickly; not for use inside another `jit` (its `__wrapped__` is)."""
    return jax.jit(function, compiler_options=compiler_options(), **options)


def compiled_once(function: Callable[..., Any], **options: Any) -> Any:
    """`jax.jit(function, **options)` for a program that runs a few times: compiled with the least effort."""
    return jax.jit(function, compiler_options=compiler_options(once=True), **options)
