"""Encoders and decoders of sparse streams, and the laws of their sizes held against the bytes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cooptim.export.codes import CODES, code_lengths, decode, encode, run_counts
from cooptim.hardware.codes import run_shares
from cooptim.hardware.stream_size import (
    bitmask_stream_bits,
    huffman_run_stream_bits,
    huffman_stream_bits,
    run_length_stream_bits,
)

ZEROS = [0.0, 0.3, 0.6, 0.8, 0.9, 0.95]


def stream(zeros, bits, words, seed=5):
    """Random words; non-zero ones from a skewed distribution; zeros fall independently."""
    rng = np.random.default_rng(seed)
    values = 1 + np.minimum(rng.geometric(8.0 / 2**bits, words) - 1, 2**bits - 2)
    return np.where(rng.random(words) < zeros, 0, values)


@st.composite
def cases(draw):
    bits = draw(st.integers(1, 16))
    zeros = st.integers(0, 70).map(lambda n: [0] * n)
    word = st.integers(0, 2**bits - 1).map(lambda w: [w])
    words = sum(draw(st.lists(st.one_of(zeros, word), max_size=30)), [])
    return np.array(words, np.int64), bits, draw(st.integers(1, 6)), draw(st.integers(1, 40))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(cases(), st.sampled_from(CODES))
def test_what_is_decoded_is_what_was_encoded(case, code):
    words, bits, run_bits, longest_run = case
    assert decode(encode(words, bits, code, run_bits=run_bits, longest_run=longest_run)).tolist() == words.tolist()


def test_bytes_by_hand():
    words = np.array([0, 0, 5, 0, 7, 0, 0, 0])
    # Header: "Cz", code, 3 bits, run, spare, 8 words, symbols.
    head = lambda code, run, n: b"Cz" + bytes([code, 3, run, 0, 0, 0, 8, 0, 0, 0, n, 0, 0, 0])  # noqa: E731
    assert encode(words, 3, "bitmask") == head(0, 0, 2) + bytes([0b00101000, 0b10111100])
    # Runs of 1 bit: (1, 0), (0, 5), (1, 7): the zeros at the end are not sent.
    assert encode(words, 3, "run_length", run_bits=1) == head(1, 1, 3) + bytes([0b10000101, 0b11110000])
    # Six zeros, a 5, a 7: lengths 1, 2, 2, so 0, 10, 11. Table: longest 2; counts 1, 2 of 4 bits; 0, 5, 7 of 3 bits.
    table = bytes([2, 0b00010010, 0b00010111, 0b10000000])
    assert encode(words, 3, "huffman") == head(2, 0, 8) + table + bytes([0b00100110, 0b00000000])
    # Runs of at most 2: 2, 0 (5), 1 (7), each once: 2 has length 1 or the others; lengths 1, 2, 2 in some order.
    assert sorted(code_lengths(np.array([1, 1, 1])).tolist()) == [1, 2, 2]


def test_code_lengths_are_the_least_and_fill_krafts_inequality():
    rng = np.random.default_rng(0)
    for _ in range(20):
        counts = rng.integers(0, 50, 12)
        lengths = code_lengths(counts)
        assert np.all((lengths > 0) == (counts > 0)) and (2.0 ** -lengths[counts > 0]).sum() == 1.0
        heap = sorted(counts[counts > 0].tolist())
        total = 0
        while len(heap) > 1:  # the sum of all merged nodes, from sorted lists
            merged = heap[0] + heap[1]
            total, heap = total + merged, sorted([*heap[2:], merged])
        assert int(lengths @ counts) == total


def law_of(code, words, bits, density):
    count = float(words.size)
    shares = np.bincount(words, minlength=2**bits) / words.size
    if code == "bitmask":
        return bitmask_stream_bits(count, density, float(bits))
    if code == "run_length":
        return run_length_stream_bits(count, density, float(bits), 4)
    if code == "huffman":
        return huffman_stream_bits(count, shares, bits)
    values = shares.copy()
    values[0] = 0.0
    return huffman_run_stream_bits(count, density, values / values.sum(), bits, 16)


@pytest.mark.parametrize("zeros", ZEROS)
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("code", CODES)
def test_the_law_is_within_two_percent_of_the_bytes(code, bits, zeros):
    words = stream(zeros, bits, 220_000)
    packed = encode(words, bits, code)
    assert len(packed) > 1e4
    assert np.array_equal(decode(packed), words)
    law = float(law_of(code, words, bits, float(np.mean(words != 0))))
    assert law == pytest.approx(8 * len(packed), rel=0.02)
    if code in ("bitmask", "huffman"):  # wherever zeros fall, to the padding of parts
        assert abs(law - 8 * len(packed)) <= 7 * 4 + 1


@pytest.mark.parametrize("code", CODES)
def test_clustered_zeros_need_densities_of_blocks(code):
    # Rows of 64 words, each with a density of its own, as the pruned weights of pixels at the border and in the middle.
    rng = np.random.default_rng(1)
    rows = rng.beta(0.3, 1.2, (6000, 1))
    words = np.where(rng.random((6000, 64)) < rows, 1 + rng.integers(0, 15, (6000, 64)), 0)
    packed = 8 * len(encode(words, 4, code))
    flat = words.reshape(-1)
    blocks = float(law_of(code, flat, 4, np.mean(words != 0, axis=1)))
    whole = float(law_of(code, flat, 4, float(np.mean(flat != 0))))
    assert blocks == pytest.approx(packed, rel=0.03)
    if code == "run_length":
        assert abs(whole / packed - 1) > 0.1


LAWS = {
    "bitmask": lambda d: bitmask_stream_bits(9000.0, d, 5.0),
    "run_length": lambda d: run_length_stream_bits(9000.0, d, 5.0, 3),
    "huffman": lambda d: huffman_stream_bits(9000.0, jnp.stack([1 - d[0], *(d[0] * jnp.array([0.5, 0.3, 0.2]))]), 2),
    "huffman_runs": lambda d: huffman_run_stream_bits(9000.0, d, jnp.array([0.0, 0.5, 0.3, 0.2]), 2, 6),
}


@pytest.mark.parametrize("code", CODES)
def test_gradients_in_the_density_are_those_of_differences(code):
    law = jax.jit(LAWS[code])
    for at in (np.array([0.07, 0.13, 0.61]), np.array([0.42, 0.3, 0.9])):
        found = np.asarray(jax.jit(jax.grad(LAWS[code]))(at))
        for one in range(3):
            move = 1e-6 * np.eye(3)[one]
            slope = float(law(at + move) - law(at - move)) / 2e-6
            assert found[one] == pytest.approx(slope, rel=1e-5, abs=1e-4), one


@pytest.mark.parametrize("code", CODES)
def test_the_gradient_is_the_slope_of_the_bytes(code):
    # Bytes of two streams that differ in their density alone, same draws: the slope of an encoder, not of a law.
    rng, size = np.random.default_rng(4), 400_000
    draws, values = rng.random(size), 1 + rng.integers(0, 3, size)
    low, high = (np.where(draws < d, values, 0) for d in (0.16, 0.24))
    slope = 8 * (len(encode(high, 2, code)) - len(encode(low, 2, code))) / 0.08

    def law(d):
        third = jnp.array([0.0, 1.0, 1.0, 1.0]) / 3
        return {
            "bitmask": lambda: bitmask_stream_bits(float(size), d, 2.0),
            "run_length": lambda: run_length_stream_bits(float(size), d, 2.0, 4),
            "huffman": lambda: huffman_stream_bits(float(size), third * d + jnp.array([1.0, 0, 0, 0]) * (1 - d), 2),
            "huffman_runs": lambda: huffman_run_stream_bits(float(size), d, third, 2, 16),
        }[code]()

    assert float(jax.grad(law)(0.2)) == pytest.approx(slope, rel=0.05)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"code": "lzw"}, "code 'lzw' is not known; use one of bitmask, run_length"),
        ({"bits": 17}, "17 bits a word, legal are 1 to 16"),
        ({"bits": 2}, "word 5 does not fit 2 bits, legal are 0 to 3"),
        ({"words": np.array([-1])}, "word -1 does not fit 3 bits, .*mask signed words"),
        ({"code": "run_length", "run_bits": 0}, "run_bits = 0, legal are 1 to 16"),
        ({"code": "huffman_runs", "longest_run": 0}, "longest_run = 0, legal are 1 to 65535"),
    ],
)
def test_what_cannot_be_encoded_is_named(change, words):
    with pytest.raises(ValueError, match=words):
        encode(**({"words": np.array([0, 5]), "bits": 3, "code": "bitmask"} | change))


@pytest.mark.parametrize("code", CODES)
def test_truncated_and_longer_streams_are_named(code):
    whole = encode(stream(0.6, 4, 400), 4, code)
    for damaged in (whole[:-2], whole[:20], whole[:7], whole + b"\0", b"PK" + whole[2:]):
        with pytest.raises(ValueError, match="^stream: .*fetch it again"):
            decode(damaged)


def test_measured_runs_give_the_bytes_wherever_zeros_fall_and_the_gradient_of_the_law():
    # Zeros of two kinds of columns take turns, so that no density of a block says how they fall.
    rng = np.random.default_rng(2)
    chance = np.where(np.arange(30_000) // 5 % 4 == 0, 0.5, 0.01)
    words = np.where(rng.random(30_000) < chance, rng.integers(1, 8, 30_000), 0)
    packed = 8 * len(encode(words, 3, "huffman_runs", longest_run=7))
    runs = run_counts(words, 7)
    # By hand: each non-zero word ends one run, whatever whole runs of 7 zeros stand before it.
    gaps = np.diff(np.flatnonzero(words), prepend=-1) - 1
    assert runs[:7].tolist() == np.bincount(gaps % 7, minlength=7).tolist() and runs[7] == (gaps // 7).sum()
    shares = np.bincount(words, minlength=8) / np.count_nonzero(words) * (np.arange(8) > 0)
    density = np.array([np.mean(words != 0)])

    def runs_of(d):
        chances, span = run_shares(d[0], 7)
        return np.asarray(chances / span)

    size = jax.jit(jax.value_and_grad(lambda d, runs: huffman_run_stream_bits(30_000.0, d, shares, 3, 7, runs)))
    assert abs(float(size(density, runs / 30_000)[0]) - packed) <= 4 * 8
    by_law, slope = size(density, runs_of(density))
    assert abs(float(by_law) / packed - 1) > 0.03
    low, high = (float(size(density + move, runs_of(density + move))[0]) for move in (-1e-6, 1e-6))
    assert float(slope[0]) == pytest.approx((high - low) / 2e-6, rel=1e-4)
