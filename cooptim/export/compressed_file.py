"""One file of a compressed network: Huffman-coded labels and runs of zeros, tables, small leaves; read without pickle.

Layout: magic "Czf1", length of the header, CRC-32 of everything behind it (little-endian); the header, JSON squeezed by
zlib; then the leaves in its order. A leaf of shared weights is its table and one stream of `cooptim.export.codes`, of
the code and the order of axes that came out shortest.
"""

import dataclasses
import json
import math
import os
import pathlib
import struct
import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Integer

from cooptim.descent.checkpoint import leaf_data, leaf_like
from cooptim.descent.compression import Compressed
from cooptim.descent.stored import PlainLeaf, ScaledLeaf, SharedLeaf, Stored, require_label_bits, value
from cooptim.export.atomic import write_bytes
from cooptim.export.codes import decode, encode, run_counts
from cooptim.export.weights_file import flat_leaves
from cooptim.hardware.stream_size import (
    bitmask_stream_bits,
    huffman_run_stream_bits,
    huffman_stream_bits,
    run_length_stream_bits,
)
from cooptim.network.trace import Network

_MAGIC = b"Czf1"
_HEAD = struct.Struct("<4sII")  # magic, bytes of the header, CRC-32
_MOST_HEADER = 2**26  # bytes of JSON, so that a damaged length fills no memory
_RUNS = (3, 7, 15, 31, 63, 127, 255)  # candidates for the longest run of the Huffman code of runs
_RUN_BITS = (2, 3, 4, 5, 6)
_BLOCK = 256  # words at least whose density is measured together: of fewer, chance would pass for structure


@dataclasses.dataclass(frozen=True)
class LeafSize:
    """Bytes of one leaf of params in a file.

    Attributes:
      code: of its stream, or how it is kept. density: share of non-zero words. coded: bytes of the stream, or of all.
      table: bytes of its table.
      estimated: bytes of the stream by the differentiable laws of `stream_size`, from measured frequencies of words and
        of runs. by_density: the same from frequencies of words and densities of blocks of rows alone.
    """

    name: str
    words: int
    code: str
    density: float
    coded: int
    table: int
    estimated: float
    by_density: float


@dataclasses.dataclass(frozen=True)
class FileSize:
    """Where the bytes of a file are. `ratio`: float32 bytes of all params over those of the whole file."""

    total: int
    header: int
    state: int
    leaves: tuple[LeafSize, ...]
    ratio: float


def save_compressed(path: str | os.PathLike[str], compressed: Compressed) -> FileSize:
    """Writes a compressed network and its state; says what every part takes.

    Raises ValueError when the file cannot be written.
    """
    parts, entries, sizes = [], [], []
    for name, leaf in zip(compressed.network.param_paths, compressed.leaves, strict=True):
        entry, content, size = _packed_leaf(name, leaf)
        parts.append(content)
        entries.append(entry)
        sizes.append(size)
    state, state_bytes = [], 0
    for name, leaf in flat_leaves("state", compressed.state).items():
        data = leaf_data(leaf)
        parts.append(data.tobytes())
        state.append([name, list(data.shape), data.dtype.name])
        state_bytes += data.nbytes
    described = {"params": entries, "state": state}
    header = zlib.compress(json.dumps(described, separators=(",", ":"), allow_nan=False).encode(), 9)
    body = header + b"".join(parts)
    content = _HEAD.pack(_MAGIC, len(header), zlib.crc32(body)) + body
    write_bytes(pathlib.Path(path), content)
    total = len(content)
    return FileSize(total, _HEAD.size + len(header), state_bytes, tuple(sizes), compressed.float_bytes / total)


def load_compressed(path: str | os.PathLike[str], network: Network) -> tuple[Any, Any]:
    """(params, state) of the network from a file, equal to the last bit to those of the Compressed it was made of.

    Raises ValueError when the file is damaged, truncated, of another network or cannot be read.
    """
    try:
        raw = pathlib.Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"compressed network {path}: cannot be read ({error.strerror}); check the path") from None
    try:
        described, rest = _opened(raw)
        params = _params(described["params"], rest, network)
        offset = sum(entry[4] for entry in described["params"])
        state = _state(described["state"], rest[offset:], network)
    except (KeyError, IndexError, TypeError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"compressed network {path}: its header does not read ({error!r}); write it again") from None
    except ValueError as error:
        raise ValueError(f"compressed network {path}: {error}") from None
    return params, state


def _opened(raw: bytes) -> tuple[dict[str, Any], bytes]:
    """(what the header says, the leaves)."""
    if len(raw) < _HEAD.size or raw[:4] != _MAGIC:
        raise ValueError(f"it starts with {raw[:4]!r} and not with {_MAGIC!r}; give a file of `cooptim compress`")
    _, length, checksum = _HEAD.unpack_from(raw)
    body = raw[_HEAD.size :]
    if zlib.crc32(body) != checksum:
        raise ValueError("damaged or truncated, its checksum does not match; fetch or write it again")
    if length > len(body):
        raise ValueError(f"truncated, a header of {length} bytes in {len(body)}; fetch or write it again")
    try:
        text = zlib.decompressobj().decompress(body[:length], _MOST_HEADER)
    except zlib.error as error:
        raise ValueError(f"damaged in its header ({error}); fetch or write it again") from None
    return json.loads(text), body[length:]


def _params(entries: list[list[Any]], rest: bytes, network: Network) -> Any:
    """The params of the network, leaf by leaf."""
    wanted, tree = jax.tree.flatten(network.params)
    _require_names([entry[0] for entry in entries], list(network.param_paths))
    out, at = [], 0
    for entry, leaf in zip(entries, wanted, strict=True):
        name, shape, _, _, size = entry[:5]
        if list(np.shape(leaf)) != shape:
            raise ValueError(f"{name} is {shape}, the network has {list(np.shape(leaf))}; load it into its own network")
        out.append(jnp.asarray(value(_unpacked_leaf(entry, rest[at : at + size]))))
        at += size
    return jax.tree.unflatten(tree, out)


def _state(entries: list[list[Any]], rest: bytes, network: Network) -> Any:
    """The state of the network, leaf by leaf."""
    wanted = flat_leaves("state", network.state)
    _require_names([entry[0] for entry in entries], list(wanted))
    out, at = [], 0
    for (name, shape, dtype), leaf in zip(entries, wanted.values(), strict=True):
        kind = jnp.dtype(dtype)
        size = math.prod(shape) * kind.itemsize
        if list(leaf_data(leaf).shape) != shape:
            raise ValueError(f"{name} is {shape}, the network has {list(leaf_data(leaf).shape)}")
        array = np.frombuffer(rest[at : at + size], kind).reshape(shape)
        out.append(leaf_like(leaf, array.copy()))
        at += size
    return jax.tree.unflatten(jax.tree.structure(network.state), out)


def _require_names(found: list[str], wanted: list[str]) -> None:
    if found != wanted:
        odd = sorted(set(found) ^ set(wanted))
        what = f"{odd[0]} is only in {'the file' if odd[0] in found else 'the network'}" if odd else "the order differs"
        raise ValueError(f"of another network: {what}; load it into the network it was made of")


def _packed_leaf(name: str, leaf: Stored) -> tuple[list[Any], bytes, LeafSize]:
    """(header entry, bytes, sizes) of one leaf; the entry is [name, shape, dtype, form, bytes, ...]."""
    if isinstance(leaf, SharedLeaf):
        entries = int(leaf.labels.max(initial=0)) + 1
        table = leaf.table[:entries].tobytes()
        stream, turned, code = _shortest(leaf.labels, leaf.bits)
        described = [leaf.table.dtype.name, entries, leaf.bits, int(turned)]
        words = _ordered(leaf.labels, turned).astype(np.int64)
        estimated, by_density = (_estimated_bytes(words, leaf.bits, stream, runs) for runs in (True, False))
        density = float(np.mean(leaf.labels != 0)) if leaf.labels.size else 1.0
        size = LeafSize(name, leaf.labels.size, code, density, len(stream), len(table), estimated, by_density)
        content = table + stream
        return [name, list(leaf.labels.shape), leaf.dtype, "shared", len(content), *described], content, size
    if isinstance(leaf, ScaledLeaf):
        content, array = struct.pack("<f", leaf.step) + leaf.words.astype(np.int8).tobytes(), leaf.words
        form = "int8"
    else:
        content, array, form = leaf.numbers.tobytes(), leaf.numbers, leaf.numbers.dtype.name
    size = LeafSize(name, array.size, form, 1.0, len(content), 0, float(len(content)), float(len(content)))
    return [name, list(array.shape), leaf.dtype, form, len(content)], content, size


def _unpacked_leaf(entry: list[Any], content: bytes) -> Stored:
    """The leaf that `_packed_leaf` was given; ValueError, naming it, where the bytes do not fit."""
    name, shape, dtype, form, _ = entry[:5]
    words = math.prod(shape)
    try:
        if form == "shared":
            kind, entries, bits, turned = entry[5:9]
            require_label_bits("this leaf", bits)
            if not 0 < entries <= 2**bits:
                raise ValueError(f"its table has {entries} entries, and {bits} bits name 1 to {2**bits}")
            start = entries * np.dtype(kind).itemsize
            if start > len(content):
                raise ValueError(f"its table of {start} bytes does not fit into {len(content)}")
            table = np.zeros(2**bits, kind)
            table[:entries] = np.frombuffer(content[:start], kind)
            if int.from_bytes(content[start + 8 : start + 12], "little") != words:
                raise ValueError(f"its stream is not of {words} words")
            found = decode(content[start:])
            if found.size and found.max() >= entries:
                raise ValueError(f"its stream names entry {found.max()} of {entries}")
            labels = found.reshape(shape[::-1]).T if turned else found.reshape(shape)
            return SharedLeaf(table, labels.astype(np.uint8), dtype)
        if form == "int8":
            array = np.frombuffer(content[4:], np.int8).reshape(shape)
            return ScaledLeaf(array, np.float32(struct.unpack("<f", content[:4])[0]), dtype)
        return PlainLeaf(np.frombuffer(content, jnp.dtype(form)).reshape(shape), dtype)
    except (ValueError, TypeError, struct.error) as error:
        raise ValueError(f"leaf {name}: {error}") from None


def _ordered(labels: Integer[np.ndarray, "..."], turned: bool) -> Integer[np.ndarray, "row word"]:
    """Labels as rows in the order they are sent: last axis fastest, or, turned, first axis fastest."""
    array = labels.T if turned else labels
    return array.reshape(-1, array.shape[-1]) if array.ndim else array.reshape(1, 1)


def _shortest(labels: Integer[np.ndarray, "..."], bits: int) -> tuple[bytes, bool, str]:
    """(stream, whether the axes were turned, code) of the shortest of all codes."""
    found = []
    for turned in (False, True)[: max(1, min(labels.ndim, 2))]:
        words = _ordered(labels, turned).astype(np.int64)
        tried: list[tuple[str, dict[str, int]]] = [("huffman", {}), ("bitmask", {})]
        if not np.all(words != 0):
            tried += [("huffman_runs", {"longest_run": run}) for run in _RUNS]
            tried += [("run_length", {"run_bits": run}) for run in _RUN_BITS]
        found += [(encode(words, bits, code, **options), turned, code) for code, options in tried]
    return min(found, key=lambda one: len(one[0]))


def _estimated_bytes(words: Integer[np.ndarray, "row word"], bits: int, stream: bytes, measured: bool) -> float:
    """Size of the stream by the law of its code; with runs `measured`, or those of the densities of blocks of rows."""
    code, run = stream[2], int.from_bytes(stream[4:6], "little")
    count, shares = float(words.size), np.bincount(words.reshape(-1), minlength=2**bits) / words.size
    density = _densities(words)
    if code == 0:
        return float(bitmask_stream_bits(count, density, float(bits))) / 8
    if code == 1:
        return float(run_length_stream_bits(count, density, float(bits), run)) / 8
    if code == 2:
        return float(huffman_stream_bits(count, shares, bits)) / 8
    values = np.where(np.arange(shares.size) > 0, shares, 0.0)
    runs = run_counts(words, run) / count if measured else None
    return float(huffman_run_stream_bits(count, density, values / values.sum(), bits, run, runs)) / 8


def _densities(words: Integer[np.ndarray, "row word"]) -> Float[np.ndarray, "block"]:
    """Share of non-zero words of blocks of equal numbers of whole rows."""
    rows = max(1, min(len(words), -(-_BLOCK // words.shape[1])))
    whole = len(words) // rows * rows
    full = np.mean(words != 0, axis=1)
    blocks = np.mean(full[:whole].reshape(-1, rows), axis=1)
    rest = full[whole:]
    # The laws average over blocks of equal size, so what is left over stands for the words that it has.
    return np.concatenate([np.repeat(blocks, rows), np.full(rest.size, rest.mean())]) if rest.size else blocks
