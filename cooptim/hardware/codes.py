"""Codes of a stream with zeros: mean bits a word, differentiable in the share of non-zero words.

Pure functions; zeros fall independently unless said otherwise. Tables (Huffman) and headers are not counted here, but
by `cooptim.hardware.stream_size`. An encoder that may send words raw takes the smaller of the code and the width.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float


def bitmask_bits(density: Float[ArrayLike, "*#n"], bits: Float[ArrayLike, "*#n"]) -> Float[Array, "..."]:
    """Bits of a word under one flag a word and the non-zero words raw: 1 + density * bits, wherever the zeros fall.

    It is also the two-symbol Huffman code of zero against non-zero (`cooptim.cost.energy.link_bits`).
    """
    return 1.0 + jnp.asarray(density) * bits


def run_length_bits(
    density: Float[ArrayLike, "*#n"], bits: Float[ArrayLike, "*#n"], run_bits: int
) -> Float[Array, "..."]:
    """Bits of a word in (zeros before it, value) pairs of run_bits + bits.

    A pair takes at most 2^run_bits - 1 zeros and then one word, zero or not. So it spans k + 1 words at least with the
    chance (1 - density)^k, on average the sum of these powers, a product of run_bits factors. Four-bit runs before
    four-bit labels are the compressed columns of EIE.

    Raises ValueError when run_bits is below 1.

    Source: the mean of a geometric variable cut at 2^run_bits - 1.
    """
    if run_bits < 1:
        raise ValueError(f"run-length code: run_bits = {run_bits}; legal: 1 bit or more; use bitmask_bits for none")
    zeros = 1.0 - jnp.asarray(density)
    span = jnp.ones_like(zeros)
    for _ in range(run_bits):
        span, zeros = span * (1.0 + zeros), zeros * zeros  # 1 + z, 1 + z^2, 1 + z^4 ...
    return (run_bits + jnp.asarray(bits)) / span


def huffman_bits(shares: Float[ArrayLike, "*n symbol"]) -> Float[Array, "*n"]:
    """Mean bits of a symbol under the Huffman code of these frequencies, times their sum; exact.

    A symbol of frequency 0 gets no code word. A single symbol takes 1 bit. The gradient in a frequency is the length of
    its code word, for no other code is shorter there; kinks where two codes are equally short, and at 0.

    Source: Huffman, Proc. IRE 40(9), 1952: two least frequent merge; the mean length is the sum of all merged nodes.
    """
    lengths: Float[Array, "*n"] = jnp.vectorize(_merged, signature="(s)->()")(jnp.asarray(shares))
    return lengths


def huffman_run_bits(
    density: Float[ArrayLike, ""], value_bits: Float[ArrayLike, ""], longest_run: int
) -> Float[Array, ""]:
    """Bits of a word when runs of zeros are symbols of a Huffman code, each before a value of value_bits on average.

    Symbols: k zeros and a non-zero word for k < longest_run, or longest_run zeros without one. Goes below 1 bit a word,
    which no code of single words does.

    Raises ValueError when longest_run is below 1.

    Source: as `huffman_bits`, over the geometric distribution of the runs.
    """
    shares, span = run_shares(density, longest_run)
    return (huffman_bits(shares) + (1.0 - shares[-1]) * value_bits) / span


def run_shares(density: Float[ArrayLike, ""], longest_run: int) -> tuple[Float[Array, "run"], Float[Array, ""]]:
    """(frequencies of runs of 0 to longest_run zeros, mean words a run): a run shorter than longest_run ends in a word.

    Raises ValueError when longest_run is below 1.

    Source: the geometric distribution, cut at longest_run.
    """
    if longest_run < 1:
        raise ValueError(f"Huffman code of runs: longest_run = {longest_run}; legal: 1 or more")
    full = jnp.asarray(density)
    begun = jnp.cumprod(jnp.concatenate([jnp.ones(1), jnp.full(longest_run, 1.0) * (1.0 - full)]))
    return jnp.concatenate([full * begun[:-1], begun[-1:]]), jnp.sum(begun[:-1])


def entropy_bits(shares: Float[ArrayLike, "*n symbol"]) -> Float[Array, "*n"]:
    """Entropy of these frequencies [bit a symbol]; no code of independent symbols takes less.

    Source: Shannon, 1948.
    """
    found = jnp.asarray(shares)
    seen = found > 0
    return -jnp.sum(jnp.where(seen, found * jnp.log2(jnp.where(seen, found, 1.0)), 0.0), axis=-1)


def equal_shares(density: Float[ArrayLike, "*n"], bits: int) -> Float[Array, "*n symbol"]:
    """Frequencies of all words of so many bits, zero first, when the non-zero ones are equally frequent.

    Of all distributions with this share of zeros the one that codes worst.
    """
    full = jnp.asarray(density)[..., None]
    others = 2**bits - 1
    return jnp.concatenate([1.0 - full, jnp.broadcast_to(full / others, (*full.shape[:-1], others))], axis=-1)


def _merged(shares: Float[Array, "symbol"]) -> Float[Array, ""]:
    """Sum of the frequencies of all inner nodes of the Huffman tree."""
    present = shares > 0
    live = jnp.where(present, shares, jnp.inf)  # inf: no node

    def merge(live: Array, _: None) -> tuple[Array, Array]:
        first = jnp.argmin(live)
        rest = live.at[first].set(jnp.inf)
        second = jnp.argmin(rest)
        both = jnp.isfinite(rest[second])
        node = jnp.where(both, live[first], 0.0) + jnp.where(both, rest[second], 0.0)
        return jnp.where(both, rest.at[second].set(node), live), node

    _, nodes = jax.lax.scan(merge, live, None, length=shares.shape[0] - 1)
    alone = jnp.sum(present) == 1
    return jnp.sum(nodes) + jnp.where(alone, jnp.sum(shares), 0.0)
