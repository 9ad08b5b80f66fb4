"""Code lengths by hand, against encoders that share no code with them, and gradients against differences."""

import heapq
import itertools
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cooptim.hardware.codes import (
    bitmask_bits,
    entropy_bits,
    equal_shares,
    huffman_bits,
    huffman_run_bits,
    run_length_bits,
)

ZEROS = [0.0, 0.3, 0.6, 0.8, 0.9, 0.95]


def stream(zeros, bits, words=60_000, seed=5):
    """Random words, 30 kB raw at 4 bit; non-zero ones from a skewed distribution; zeros fall independently."""
    rng = np.random.default_rng(seed)
    values = 1 + np.minimum(rng.geometric(8.0 / 2**bits, words) - 1, 2**bits - 2)
    return np.where(rng.random(words) < zeros, 0, values)


def pairs(words, longest):
    """(zeros before it, word) pairs; the last may hold a zero that pads."""
    run = 0
    for word in words:
        if word == 0 and run < longest:
            run += 1
        else:
            yield run, int(word)
            run = 0
    if run:
        yield run - 1, 0


def unpaired(found):
    return [x for run, word in found for x in (*[0] * run, word)]


def huffman_code(symbols):
    """A code book {symbol: string of 0 and 1} from counts, by a heap."""
    counts, ties = {}, itertools.count()
    for symbol in symbols:
        counts[symbol] = counts.get(symbol, 0) + 1
    heap = [(count, next(ties), [symbol]) for symbol, count in counts.items()]
    heapq.heapify(heap)
    code = {symbol: "0" if len(counts) == 1 else "" for symbol in counts}
    while len(heap) > 1:
        (a, _, left), (b, _, right) = heapq.heappop(heap), heapq.heappop(heap)
        for bit, side in (("0", left), ("1", right)):
            for symbol in side:
                code[symbol] = bit + code[symbol]
        heapq.heappush(heap, (a + b, next(ties), left + right))
    return code


def decoded(text, code):
    """Symbols of a string of 0 and 1 under a prefix code."""
    book, found, start = {word: symbol for symbol, word in code.items()}, [], 0
    for end in range(1, len(text) + 1):
        if text[start:end] in book:
            found.append(book[text[start:end]])
            start = end
    assert start == len(text)
    return found


def test_bits_of_a_word_by_hand():
    # 1 + 0.25 * 4; (2 + 4) over 1 + z + z^2 + z^3 with z = 0.5; Huffman lengths 1, 2, 3, 3 of 0.4, 0.3, 0.2, 0.1.
    assert float(bitmask_bits(0.25, 4.0)) == 2.0
    assert float(run_length_bits(0.5, 4.0, 2)) == pytest.approx(6 / (1 + 0.5 + 0.25 + 0.125))
    assert float(huffman_bits(jnp.array([0.3, 0.1, 0.4, 0.2]))) == pytest.approx(0.4 + 0.6 + 0.9)
    assert float(entropy_bits(jnp.array([0.5, 0.25, 0.25, 0.0]))) == pytest.approx(1.5)
    # Runs 0, 1 and full (2 zeros) at half the words: shares 0.5, 0.25, 0.25, lengths 1, 2, 2, values on 3 of 4 symbols
    # of 4 bits, 1.5 words a symbol.
    assert float(huffman_run_bits(0.5, 4.0, 2)) == pytest.approx((1.5 + 0.75 * 4) / 1.5)


def test_ends_of_the_range_by_hand():
    # No zeros: each pair holds one word. Nothing but zeros: each pair holds 2^r words.
    assert run_length_bits(np.array([1.0, 0.0]), 16.0, 5).tolist() == [21.0, 21 / 32]
    assert bitmask_bits(np.array([1.0, 0.0]), 16.0).tolist() == [17.0, 1.0]
    # A lone symbol takes a bit, absent ones none; eight equal ones three.
    assert huffman_bits(jnp.array([[0.0, 1.0, 0.0], [0.5, 0.5, 0.0]])).tolist() == [1.0, 1.0]
    assert huffman_bits(equal_shares(7 / 8, 3)).tolist() == pytest.approx(3.0)
    assert equal_shares(np.array([0.3, 1.0]), 2).tolist() == [
        pytest.approx([0.7, 0.1, 0.1, 0.1]),
        [0, 1 / 3, 1 / 3, 1 / 3],
    ]


@pytest.mark.parametrize("zeros", ZEROS)
@pytest.mark.parametrize("run_bits", [2, 4, 5])
def test_run_length_is_that_of_an_encoder(zeros, run_bits):
    words = stream(zeros, 4)
    found = list(pairs(words, 2**run_bits - 1))
    assert unpaired(found) == words.tolist()
    size = len(found) * (run_bits + 8)
    model = float(run_length_bits(float(np.mean(words != 0)), 8.0, run_bits)) * words.size
    assert model == pytest.approx(size, rel=0.02)


@pytest.mark.parametrize("zeros", ZEROS)
def test_bit_mask_is_that_of_an_encoder_wherever_zeros_fall(zeros):
    words = np.sort(stream(zeros, 4))
    flags, values = np.packbits(words != 0), words[words != 0].astype(np.uint8)  # values of one byte
    model = float(bitmask_bits(float(np.mean(words != 0)), 8.0)) * words.size
    assert model == pytest.approx(8 * (flags.size + values.size), rel=1e-4)


@pytest.mark.parametrize("zeros", ZEROS)
def test_huffman_is_that_of_an_encoder(zeros):
    words = stream(zeros, 4).tolist()
    code = huffman_code(words)
    text = "".join(code[word] for word in words)
    assert decoded(text, code) == words
    shares = np.bincount(words, minlength=16) / len(words)
    assert float(huffman_bits(shares)) * len(words) == pytest.approx(len(text), rel=1e-9)
    # A table of 16 lengths of 4 bits goes with the stream.
    assert float(huffman_bits(shares)) * len(words) == pytest.approx(len(text) + 16 * 4, rel=0.02)
    assert float(entropy_bits(shares)) <= float(huffman_bits(shares)) < float(entropy_bits(shares)) + 1


@pytest.mark.parametrize("zeros", ZEROS)
def test_huffman_is_zlibs_within_two_percent(zeros):
    # zlib without matches is a Huffman coder of bytes with a table every 32 thousand of them and an end in each block.
    words = stream(zeros, 8, 200_000)
    coder = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zlib.Z_HUFFMAN_ONLY)
    packed = coder.compress(words.astype(np.uint8).tobytes()) + coder.flush()
    assert len(packed) > 1e4
    shares = np.bincount(words, minlength=256) / words.size
    assert float(huffman_bits(shares)) * words.size == pytest.approx(8 * len(packed), rel=0.02)


@pytest.mark.parametrize("zeros", ZEROS)
def test_huffman_of_runs_is_that_of_an_encoder(zeros):
    words, longest = stream(zeros, 4), 16
    runs, values, run = [], [], 0
    for word in words.tolist():
        run += word == 0
        if word or run == longest:
            runs.append(longest if not word else run)
            run = 0
        if word:
            values.append(word)
    codes = huffman_code(runs), huffman_code(values)
    texts = ["".join(code[one] for one in found) for code, found in zip(codes, (runs, values), strict=True)]
    assert [decoded(text, code) for text, code in zip(texts, codes, strict=True)] == [runs, values]
    density = float(np.mean(words != 0))
    value_bits = huffman_bits(np.bincount(values, minlength=16) / len(values))
    model = float(huffman_run_bits(density, value_bits, longest)) * words.size
    assert model == pytest.approx(sum(len(text) for text in texts) + (17 + 16) * 4, rel=0.02)


def test_huffman_is_the_least_of_all_prefix_codes():
    # Brute force over all lengths that satisfy Kraft's inequality with equality or less.
    rng = np.random.default_rng(2)
    for _ in range(5):
        shares = rng.dirichlet(np.ones(5))
        lengths = (x for x in itertools.product(range(1, 5), repeat=5) if sum(2.0**-n for n in x) <= 1)
        assert float(huffman_bits(shares)) == pytest.approx(min(float(np.dot(x, shares)) for x in lengths))


LAWS = {
    "bit mask": lambda d: bitmask_bits(d, 7.0),
    "run length": lambda d: run_length_bits(d, 7.0, 4),
    "Huffman": lambda d: huffman_bits(equal_shares(d, 3)),
    "Huffman of skewed words": lambda d: huffman_bits(jnp.stack([1 - d, 0.5 * d, 0.3 * d, 0.2 * d])),
    "Huffman of runs": lambda d: huffman_run_bits(d, 3.0, 6),
    "entropy": lambda d: entropy_bits(equal_shares(d, 3)),
}


@pytest.mark.parametrize("name", LAWS)
def test_gradients_in_the_density_are_those_of_differences_and_finite_at_both_ends(name):
    law, densities = jax.jit(jax.vmap(LAWS[name])), np.array([0.0, 0.07, 0.31, 0.45, 0.52, 1.0])
    slope = np.asarray(law(densities + 1e-6) - law(densities - 1e-6))[1:-1] / 2e-6
    found = np.asarray(jax.jit(jax.vmap(jax.grad(LAWS[name])))(densities))
    assert np.all(slope != 0) and found[1:-1] == pytest.approx(slope, rel=1e-6)
    assert np.all(np.isfinite(found))


def test_gradient_in_a_frequency_is_the_length_of_its_code_word():
    assert jax.grad(huffman_bits)(jnp.array([0.3, 0.1, 0.4, 0.2])).tolist() == [2.0, 3.0, 1.0, 3.0]


def test_gradients_in_the_width_are_those_of_differences():
    for law in (
        lambda b: bitmask_bits(0.3, b),
        lambda b: run_length_bits(0.3, b, 3),
        lambda b: huffman_run_bits(0.3, b, 4),
    ):
        slope = float((law(5.001) - law(4.999)) / 0.002)
        assert slope > 0 and float(jax.jit(jax.grad(law))(5.0)) == pytest.approx(slope, rel=1e-6)


def test_codes_without_runs_are_refused():
    with pytest.raises(ValueError, match="run_bits = 0; legal: 1 bit or more"):
        run_length_bits(0.5, 4.0, 0)
    with pytest.raises(ValueError, match="longest_run = 0; legal: 1 or more"):
        huffman_run_bits(0.5, 4.0, 0)
