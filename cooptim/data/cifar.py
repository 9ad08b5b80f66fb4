"""Reader of CIFAR-10's binary version: the folder of its batches, or the archive as it is downloaded.

Source of the format: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images" (2009), the data set's
page: a record is one byte of label, 0 to 9, and 3,072 bytes of a 32x32 image, red, then green, then blue, row by row.
"""

import pathlib
import tarfile
import zlib
from collections.abc import Iterator

import numpy as np

from cooptim.data.dataset import Raw

FOLDER, _PICKLED_FOLDER = "cifar-10-batches-bin", "cifar-10-batches-py"
TRAIN_FILES = tuple(f"data_batch_{n}.bin" for n in range(1, 6))
TEST_FILE = "test_batch.bin"
_FILES = (*TRAIN_FILES, TEST_FILE)
_OTHERS = tuple(name.removesuffix(".bin") + end for name in _FILES for end in ("", ".mat"))  # pickled, and Matlab's
_RECORD, _CLASSES = 3073, 10
_MOST_BYTES = 2**28  # of one file; the published ones have 30,730,000
_MOST_ARCHIVE = 2**30  # of an archive, unpacked
_REMEDY = "download the binary version (cifar-10-binary.tar.gz) and give that file or its folder"


def is_pickled(path: pathlib.Path) -> bool:
    """Whether a file or directory is the Python or Matlab version, which is not read."""
    if path.is_dir():
        names = {entry.name for entry in path.iterdir()}
        return bool(names & {_PICKLED_FOLDER, *_OTHERS})
    with path.open("rb") as file:
        return path.name in _OTHERS or file.read(1) == b"\x80"  # a pickle of protocol 2 or later starts so


def refuse_pickled(path: pathlib.Path, member: str = "") -> None:
    """Raises the ValueError that names the version that is not read, and the one that is."""
    raise ValueError(
        f"data {path}{member and ', '}{member}: pickled version of CIFAR-10 (Python's or Matlab's); a pickle runs code "
        f"when it is opened and is never read here: {_REMEDY}"
    )


def is_cifar10(path: pathlib.Path) -> bool:
    """Whether a directory holds binary batches or their folder, or a file is a tar archive or one of the batches."""
    if path.is_dir():
        return (path / FOLDER).is_dir() or any((path / name).is_file() for name in _FILES)
    if path.name in _FILES or path.suffix == ".tar":
        return True
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def read_cifar10(path: pathlib.Path) -> tuple[Raw, Raw]:
    """((x_train, y_train), (x_test, y_test)) as uint8 [n, 32, 32, 3] and labels 0..9.

    Nothing is extracted from an archive: its batches are read in memory, and members that are links, leave the
    archive's folder, come twice or are too large are refused.

    Raises ValueError that names the file, and the record, for what is missing, truncated or out of range.
    """
    if path.name in _FILES and path.is_file():
        raise ValueError(f"data {path}: one of {len(_FILES)} batches; give the folder that holds them all")
    if path.is_dir():
        folder = path / FOLDER if (path / FOLDER).is_dir() else path
        contents = dict(_folder_files(folder))
        place = str(folder)
    else:
        contents, place = dict(_archive_files(path)), str(path)
    missing = [name for name in _FILES if name not in contents]
    if missing:
        raise ValueError(f"data {place}: {', '.join(missing)} missing; CIFAR-10 has {', '.join(_FILES)}: {_REMEDY}")
    batches = {name: _records(contents.pop(name), f"data {place}, {name}") for name in _FILES}
    x, y = (np.concatenate(part) for part in zip(*(batches[name] for name in TRAIN_FILES), strict=True))
    return (x, y), batches[TEST_FILE]


def _records(raw: bytes, who: str) -> Raw:
    """Images NHWC and labels of one file of records."""
    count, over = divmod(len(raw), _RECORD)
    if over or not count:
        raise ValueError(
            f"{who}: {len(raw)} bytes are {count} records of {_RECORD} and {over} bytes over, so record {count} is "
            f"truncated; fetch it again (the published files have 10000 records, {10_000 * _RECORD} bytes)"
        )
    rows = np.frombuffer(raw, np.uint8).reshape(count, _RECORD)
    wrong = np.flatnonzero(rows[:, 0] >= _CLASSES)
    if wrong.size:
        raise ValueError(
            f"{who}: record {int(wrong[0])} has label {int(rows[wrong[0], 0])}, legal are 0 to {_CLASSES - 1} "
            f"({wrong.size} such records); fetch it again"
        )
    images = rows[:, 1:].reshape(count, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), rows[:, 0].copy()


def _folder_files(folder: pathlib.Path) -> Iterator[tuple[str, bytes]]:
    """(name, content) of the batches in a folder."""
    for name in _FILES:
        path = folder / name
        if not path.is_file():
            continue
        try:
            _require_size(path.stat().st_size, f"data {path}")
            yield name, path.read_bytes()
        except OSError as error:
            raise ValueError(f"data {path}: cannot be read ({error.strerror}); check its permissions") from None


def _archive_files(path: pathlib.Path) -> Iterator[tuple[str, bytes]]:
    """(name, content) of the batches in a tar archive, gzip'd or plain; nothing is written."""
    seen: set[str] = set()
    unpacked = 0
    try:
        with tarfile.open(path, "r:*") as archive:
            for member in archive:
                parts = pathlib.PurePosixPath(member.name).parts
                if member.name.startswith("/") or ".." in parts:
                    raise ValueError(f"data {path}: member '{member.name}' leaves the archive's folder; {_REMEDY}")
                unpacked += member.size
                if unpacked > _MOST_ARCHIVE:
                    raise ValueError(f"data {path}: unpacks to more than {_MOST_ARCHIVE} bytes; {_REMEDY}")
                name = parts[-1] if parts else ""
                if name in _OTHERS:
                    refuse_pickled(path, member.name)
                if name not in _FILES:
                    continue
                if not member.isreg() or name in seen:
                    what = "comes twice" if name in seen else "is a link or no file"
                    raise ValueError(f"data {path}: member '{member.name}' {what}; {_REMEDY}")
                _require_size(member.size, f"data {path}, {name}")
                seen.add(name)
                content = archive.extractfile(member)
                assert content is not None  # a regular member
                yield name, content.read()
            while unpacked <= _MOST_ARCHIVE and archive.fileobj and (rest := archive.fileobj.read(2**20)):
                unpacked += len(rest)  # to the end, where gzip keeps the checksum of it all
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise ValueError(f"data {path}: damaged or truncated archive ({error}); {_REMEDY}") from None


def _require_size(size: int, who: str) -> None:
    if size > _MOST_BYTES:
        raise ValueError(f"{who}: {size} bytes, legal are up to {_MOST_BYTES}; {_REMEDY}")
