"""Reading jaxprs: which equations call others, what they hold, how their parameters are spelled in each jax version."""

from collections.abc import Sequence
from typing import Any

from jax.extend import core as jcore

from cooptim.network.flow import UnpriceableError

CALLS = frozenset({"jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint"})
REMATS = frozenset({"remat", "remat2", "checkpoint"})
CUSTOM = frozenset({"custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"})
# Multiply-accumulates inside that no loop nest here describes.
OPAQUE = frozenset(
    "pallas_call custom_call ffi_call fft triangular_solve cholesky lu qr geqrf eig eigh svd householder_product "
    "tridiagonal tridiagonal_solve hessenberg schur custom_partitioning scaled_matmul".split()
)


def inner_jaxprs(eqn: Any) -> list[Any]:
    """Jaxprs among the parameters of an equation."""
    found = []
    for value in eqn.params.values():
        for item in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(item, (jcore.Jaxpr, jcore.ClosedJaxpr)):
                found.append(item)
    return found


def opened(jaxpr: Any) -> tuple[Any, Sequence[Any]]:
    """A jaxpr and the constants closed over in it, for open and closed jaxprs alike."""
    return getattr(jaxpr, "jaxpr", jaxpr), getattr(jaxpr, "consts", ())


def call_jaxpr(eqn: Any) -> Any:
    """The jaxpr of a call."""
    for key in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        if key in eqn.params:
            return eqn.params[key]
    raise UnpriceableError(f"the call '{eqn.primitive.name}' has no jaxpr to price; use jax.jit, scan, cond or remat")


def scan_split(eqn: Any) -> tuple[int, int]:
    """Numbers of constants and carries of a scan."""
    if "num_consts" in eqn.params:
        return eqn.params["num_consts"], eqn.params["num_carry"]
    consts, carry, _ = eqn.params["ft_in"].unpack()  # from jax 0.12 on
    return len(consts), len(carry)


def holds(jaxpr: Any, primitives: Sequence[str] | frozenset[str]) -> str:
    """Name of the first of `primitives` in a jaxpr, at any depth; empty when there is none."""
    inner, _ = opened(jaxpr)
    for eqn in inner.eqns:
        if eqn.primitive.name in primitives:
            return eqn.primitive.name
        for sub in inner_jaxprs(eqn):
            if found := holds(sub, primitives):
                return found
    return ""
