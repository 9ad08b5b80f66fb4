"""Bits of a whole encoded stream, header and tables included, differentiable in its statistics.

The streams are those of `cooptim.export.codes`, which writes and reads them; the tests hold each size against its
bytes. Bits a word come from `cooptim.hardware.codes`. Left out: the padding to a byte of each part (at most 4 bytes a
stream), and what zeros at the very end save. Where zeros do not fall independently, give densities of blocks of words
in place of one: the laws are averaged over the blocks.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from cooptim.hardware.codes import bitmask_bits, huffman_bits, run_length_bits, run_shares

HEADER_BITS = 8 * 16  # magic, code, bits a word, bits or length of a run, number of words, number of symbols
_LENGTH_BITS = 8  # longest code word


def bitmask_stream_bits(
    words: Float[ArrayLike, ""], density: Float[ArrayLike, "*block"], bits: Float[ArrayLike, ""]
) -> Float[Array, ""]:
    """Size of so many words under `bitmask_bits` [bit]."""
    return HEADER_BITS + jnp.asarray(words) * jnp.mean(bitmask_bits(density, bits))


def run_length_stream_bits(
    words: Float[ArrayLike, ""], density: Float[ArrayLike, "*block"], bits: Float[ArrayLike, ""], run_bits: int
) -> Float[Array, ""]:
    """Size of so many words under `run_length_bits` [bit]."""
    return HEADER_BITS + jnp.asarray(words) * jnp.mean(run_length_bits(density, bits, run_bits))


def huffman_stream_bits(words: Float[ArrayLike, ""], shares: Float[ArrayLike, "symbol"], bits: int) -> Float[Array, ""]:
    """Size of so many words of `bits` bits under `huffman_bits` of their frequencies, with the table [bit].

    The table counts as a constant in the gradient: a symbol that vanishes takes its entry along in a step.
    """
    return HEADER_BITS + table_bits(shares, bits) + words * huffman_bits(shares)


def huffman_run_stream_bits(
    words: Float[ArrayLike, ""],
    density: Float[ArrayLike, "*block"],
    value_shares: Float[ArrayLike, "symbol"],
    bits: int,
    longest_run: int,
    runs: Float[ArrayLike, "run"] | None = None,
) -> Float[Array, ""]:
    """Size of so many words when runs of zeros and the non-zero words each have a Huffman code, with both tables [bit].

    Args:
      value_shares: frequencies of all words among the non-zero ones (that of zero is 0); they sum to 1.
      longest_run: as in `cooptim.hardware.codes.huffman_run_bits`.
      runs: symbols a word of each length of run, as measured (`cooptim.export.codes.run_counts` over the words), for
        zeros that do not fall independently: the size is theirs, its gradient in the densities that of the law.
    """
    full = jnp.ravel(jnp.asarray(density))
    law, spans = jax.vmap(lambda one: run_shares(one, longest_run))(full)
    per_word = jnp.mean(law / spans[:, None], axis=0)  # symbols a word, of each length of run
    if runs is not None:
        per_word = jnp.asarray(runs) + (per_word - jax.lax.stop_gradient(per_word))
    run_table = table_bits(per_word, run_symbol_bits(longest_run))
    values = jnp.mean(full) * huffman_bits(value_shares)
    return HEADER_BITS + run_table + table_bits(value_shares, bits) + words * (huffman_bits(per_word) + values)


def run_symbol_bits(longest_run: int) -> int:
    """Bits of a run as a symbol, 0 to longest_run."""
    return max(1, int(longest_run).bit_length())


def table_bits(shares: Float[ArrayLike, "symbol"], bits: int) -> Float[Array, ""]:
    """Size of the table of a canonical Huffman code: its longest length, a count for each length, the symbols [bit].

    Source: ITU-T T.81 (1992), B.2.4.2, with counts of bits + 1 bits.
    """
    found = jax.lax.stop_gradient(jnp.asarray(shares))
    lengths = jnp.where(found > 0, jax.grad(huffman_bits)(found), 0.0)  # the slope in a frequency is its length
    return _LENGTH_BITS + jnp.max(lengths) * (bits + 1) + jnp.sum(found > 0) * bits
