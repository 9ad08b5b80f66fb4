"""Reader of IDX files, gzip'd or plain.

Source of the format: Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits": two zero bytes, a type
byte, the number of dimensions, each dimension as a big-endian uint32, then the data, big-endian, last axis fastest.
"""

import gzip
import math
import pathlib
import zlib

import numpy as np

_TYPES: dict[int, str] = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read_idx(path: pathlib.Path) -> np.ndarray:
    """The array in an IDX file, in the machine's byte order.

    Raises ValueError when the file is truncated, longer than it says, or no IDX file.
    """
    raw = _bytes(path)
    if len(raw) < 4 or raw[:2] != b"\0\0" or raw[2] not in _TYPES or not 1 <= raw[3] <= 8:
        raise ValueError(
            f"{path}: no IDX file (it starts with {raw[:4].hex() or 'nothing'}, legal is 0000, a type of "
            f"{', '.join(f'{code:02x}' for code in _TYPES)}, 1 to 8 dimensions); fetch it again"
        )
    dtype, rank = np.dtype(_TYPES[raw[2]]), raw[3]
    start = 4 + 4 * rank
    if len(raw) < start:
        raise ValueError(f"{path}: truncated in its header at {len(raw)} of {start} bytes; fetch it again")
    shape = tuple(int(n) for n in np.frombuffer(raw, ">u4", rank, 4))
    expected = start + math.prod(shape) * dtype.itemsize
    if len(raw) != expected:
        what = "truncated" if len(raw) < expected else "longer than its header says"
        raise ValueError(f"{path}: {what} ({len(raw)} bytes, shape {shape} needs {expected}); fetch it again")
    return np.frombuffer(raw, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("="))


def _bytes(path: pathlib.Path) -> bytes:
    """Content of a file, gunzipped when it is gzip'd."""
    try:
        raw = path.read_bytes()
        return gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path}: damaged or truncated gzip file ({error}); fetch it again") from None
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from None
