"""Streams of words with zeros as bytes on disk, and back: bit mask, run length, Huffman, Huffman of runs.

A stream says itself how it is read: 16 bytes of header (magic "Cz", code, bits a word, bits or length of a run, number
of words, number of symbols; little-endian), then its parts, each padded to a byte. Zeros at the very end are not sent.
`cooptim.hardware.stream_size` has the sizes as differentiable laws.

Words are whole numbers 0 to 2^bits - 1; signed ones travel as two's complement (`words & (2**bits - 1)`).
"""

import heapq
import struct

import numpy as np
from jaxtyping import Int

from cooptim.hardware.stream_size import HEADER_BITS, run_symbol_bits

CODES = ("bitmask", "run_length", "huffman", "huffman_runs")
_MAGIC = b"Cz"
_HEADER = struct.Struct("<2sBBHHII")  # magic, code, bits, run, spare, words, symbols
assert 8 * _HEADER.size == HEADER_BITS
_MOST_BITS, _LONGEST_CODE = 16, 56  # of a word; of a code word, which no stream of 2^32 words reaches


def encode(words: Int[np.ndarray, "..."], bits: int, code: str, *, run_bits: int = 4, longest_run: int = 16) -> bytes:
    """The words as bytes, in C order.

    Args:
      bits: of a word, 1 to 16.
      code: one of CODES. 'bitmask': a flag a word, non-zero words raw. 'run_length': pairs of up to 2^run_bits - 1
        zeros and one word. 'huffman': a canonical Huffman code of the words. 'huffman_runs': one of the runs of up to
        longest_run zeros and one of the non-zero words.
      run_bits: 1 to 16, of 'run_length'. longest_run: 1 to 65535, of 'huffman_runs'.

    Raises ValueError for an unknown code and for what is out of range.
    """
    flat = np.asarray(words).reshape(-1).astype(np.int64)
    run = {"run_length": run_bits, "huffman_runs": longest_run}.get(code, 0)
    _require_legal(code, bits, run)
    if flat.size >= 2**32:
        raise ValueError(f"stream: {flat.size} words, legal are up to {2**32 - 1}; encode them in parts")
    if flat.size and (flat.min() < 0 or flat.max() >= 2**bits):
        worst = int(flat.min() if flat.min() < 0 else flat.max())
        raise ValueError(
            f"stream: word {worst} does not fit {bits} bits, legal are 0 to {2**bits - 1}; mask signed words with "
            "2**bits - 1"
        )
    full = np.flatnonzero(flat)
    if code == "bitmask":
        count, body = full.size, _packed(flat != 0, 1) + _packed(flat[full], bits)
    elif code == "huffman":
        count, body = flat.size, _huffman(flat, bits)
    elif code == "run_length":
        runs, values = _pairs(flat, full, 2**run_bits)
        count, body = runs.size, _packed(runs << bits | values, run_bits + bits)
    else:
        runs = _full_runs(full, longest_run)
        count, body = runs.size, _huffman(runs, run_symbol_bits(longest_run)) + _huffman(flat[full], bits)
    return _HEADER.pack(_MAGIC, CODES.index(code), bits, run, 0, flat.size, count) + body


def decode(stream: bytes) -> Int[np.ndarray, "word"]:
    """The words that `encode` was given, flat.

    Raises ValueError for what is no stream, truncated, longer than it says or damaged where that shows.
    """
    if len(stream) < _HEADER.size or stream[:2] != _MAGIC or stream[2] >= len(CODES):
        raise ValueError(f"stream: no header of {_HEADER.size} bytes with magic {_MAGIC!r} and a code; fetch it again")
    _, kind, bits, run, _, words, count = _HEADER.unpack_from(stream)
    code = CODES[kind]
    _require_legal(code, bits, run)
    rest, found = stream[_HEADER.size :], np.zeros(words, np.int64)
    if code == "bitmask":
        mask, rest = _unpacked(rest, words, 1)
        values, rest = _unpacked(rest, count, bits)
        places = np.flatnonzero(mask)
    elif code == "huffman":
        values, rest = _unhuffman(rest, count, bits)
        places = np.arange(values.size)
    elif code == "run_length":
        pairs, rest = _unpacked(rest, count, run + bits)
        values = pairs & (2**bits - 1)
        places = np.cumsum((pairs >> bits) + 1) - 1
    else:
        runs, rest = _unhuffman(rest, count, run_symbol_bits(run))
        ends = np.cumsum(np.where(runs < run, runs + 1, run))  # a full run brings no word
        places = ends[runs < run] - 1
        values, rest = _unhuffman(rest, places.size, bits)
    if rest or places.size != values.size or (places.size and places[-1] >= words):
        raise ValueError(f"stream: damaged, {code} of {words} words does not end with its bytes; fetch it again")
    found[places] = values
    return found


def _require_legal(code: str, bits: int, run: int) -> None:
    """Raises ValueError unless the code is known and its numbers are in range."""
    if code not in CODES:
        raise ValueError(f"stream: code '{code}' is not known; use one of {', '.join(CODES)}")
    most = {"run_length": 16, "huffman_runs": 65535}.get(code, 0)
    if not 1 <= bits <= _MOST_BITS:
        raise ValueError(f"stream: {bits} bits a word, legal are 1 to {_MOST_BITS}")
    if most and not 1 <= run <= most:
        name = "run_bits" if code == "run_length" else "longest_run"
        raise ValueError(f"stream: {name} = {run}, legal are 1 to {most}")


def _gaps(full: np.ndarray) -> np.ndarray:
    """Zeros before each non-zero word."""
    return np.diff(full, prepend=-1) - 1


def _pairs(flat: np.ndarray, full: np.ndarray, longest: int) -> tuple[np.ndarray, np.ndarray]:
    """(zeros before it, word) of each pair; `longest` zeros are a pair of their own, whose word is a zero."""
    gaps = _gaps(full)
    before = gaps // longest  # whole pairs of zeros ahead of each non-zero word
    ends = np.cumsum(before + 1) - 1
    runs, values = np.full(int((before + 1).sum()), longest - 1), np.zeros(int((before + 1).sum()), np.int64)
    runs[ends], values[ends] = gaps % longest, flat[full]
    return runs, values


def _full_runs(full: np.ndarray, longest: int) -> np.ndarray:
    """Runs of zeros: `longest` without a word after it, fewer with one."""
    gaps = _gaps(full)
    before = gaps // longest
    runs = np.full(int((before + 1).sum()), longest)
    runs[np.cumsum(before + 1) - 1] = gaps % longest
    return runs


def run_counts(words: Int[np.ndarray, "..."], longest_run: int) -> Int[np.ndarray, "run"]:
    """How many symbols of each length of run, 0 to longest_run zeros, 'huffman_runs' sends of these words."""
    return np.bincount(_full_runs(np.flatnonzero(words), longest_run), minlength=longest_run + 1)


def code_lengths(counts: Int[np.ndarray, "symbol"]) -> Int[np.ndarray, "symbol"]:
    """Lengths of the words of a Huffman code of these counts; 0 for a symbol that never comes, 1 for a lone one.

    Source: Huffman, Proc. IRE 40(9), 1952.
    """
    lengths = np.zeros(len(counts), np.int64)
    nodes = [(int(counts[symbol]), int(symbol), [int(symbol)]) for symbol in np.flatnonzero(counts)]
    if len(nodes) == 1:
        lengths[nodes[0][1]] = 1
    heapq.heapify(nodes)
    while len(nodes) > 1:
        (a, first, left), (b, _, right) = heapq.heappop(nodes), heapq.heappop(nodes)
        lengths[left + right] += 1
        heapq.heappush(nodes, (a + b, first, left + right))  # `first` differs between nodes and so settles ties
    return lengths


def _canonical(lengths_sorted: np.ndarray) -> np.ndarray:
    """Code words of ascending lengths: each the one before and one, shifted to its own length (ITU-T T.81, annex C)."""
    words, word = np.zeros(len(lengths_sorted), np.int64), 0
    for at, length in enumerate(lengths_sorted):
        if at:
            word = (word + 1) << int(length - lengths_sorted[at - 1])
        words[at] = word
    return words


def _huffman(symbols: np.ndarray, bits: int) -> bytes:
    """Table and bits of symbols of so many bits: longest length, a count for each length, the symbols, the stream."""
    lengths = code_lengths(np.bincount(symbols, minlength=1)) if symbols.size else np.zeros(1, np.int64)
    order = np.lexsort((np.arange(lengths.size), lengths))
    order = order[lengths[order] > 0]
    longest = int(lengths.max())
    counts = np.bincount(lengths[order], minlength=longest + 1)[1:]
    words = np.zeros_like(lengths)
    words[order] = _canonical(lengths[order])
    table = bytes([longest]) + _packed(counts, bits + 1) + _packed(order, bits)
    return table + _packed(words[symbols], lengths[symbols])


def _unhuffman(stream: bytes, count: int, bits: int) -> tuple[np.ndarray, bytes]:
    """(symbols, what follows them); the codes that begin at every bit are looked up at once, then followed."""
    if not stream or stream[0] > _LONGEST_CODE:
        raise ValueError("stream: truncated or damaged in a table of lengths; fetch it again")
    longest = stream[0]
    counts, rest = _unpacked(stream[1:], longest, bits + 1)
    order, rest = _unpacked(rest, int(counts.sum()), bits)
    if count == 0:
        return np.zeros(0, np.int64), rest
    lengths = np.repeat(np.arange(1, longest + 1), counts)
    if lengths.size == 0 or float((2.0 ** -lengths.astype(float)).sum()) > 1.0:
        raise ValueError("stream: damaged, its table is no prefix code; fetch it again")
    first = _canonical(lengths) << (longest - lengths)  # left-aligned, ascending
    flags = np.unpackbits(np.frombuffer(rest, np.uint8))
    ahead = np.concatenate([flags, np.zeros(longest, np.uint8)]).astype(np.int64)
    window = np.zeros(flags.size, np.int64)
    for bit in range(longest):
        window = window << 1 | ahead[bit : bit + flags.size]
    entry = np.searchsorted(first, window, side="right") - 1
    steps, at = lengths[entry].tolist(), 0
    places = np.zeros(count, np.int64)
    for number in range(count):
        if at >= flags.size:
            raise ValueError("stream: truncated in its code words; fetch it again")
        places[number] = at
        at += steps[at]
    return order[entry[places]], rest[-(-at // 8) :]


def _packed(values: np.ndarray, widths: np.ndarray | int) -> bytes:
    """Values of so many bits each, most significant first, padded with zeros to a byte."""
    numbers, sizes = values.astype(np.int64), np.broadcast_to(np.asarray(widths, np.int64), values.shape)
    ends = np.cumsum(sizes)
    total = int(ends[-1]) if ends.size else 0
    below = np.repeat(ends, sizes) - 1 - np.arange(total)  # bits of the same word after this one
    return np.packbits((np.repeat(numbers, sizes) >> below & 1).astype(np.uint8)).tobytes()


def _unpacked(stream: bytes, count: int, width: int) -> tuple[np.ndarray, bytes]:
    """(count numbers of `width` bits each, what follows them)."""
    size = -(-count * width // 8)
    if len(stream) < size:
        raise ValueError(f"stream: truncated, {size} bytes needed and {len(stream)} left; fetch it again")
    flags = np.unpackbits(np.frombuffer(stream[:size], np.uint8))[: count * width].reshape(count, width)
    numbers = np.zeros(count, np.int64)
    for column in range(width):
        numbers = numbers << 1 | flags[:, column]
    return numbers, stream[size:]
