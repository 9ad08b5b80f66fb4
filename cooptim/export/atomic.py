"""Whole files or none: written beside the target, then renamed onto it."""

import os
import pathlib
import tempfile


def require_writable(directory: str | os.PathLike[str]) -> pathlib.Path:
    """The directory, made when it is not there; ValueError when files cannot be written in it."""
    path = pathlib.Path(directory)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise ValueError(
            f"output directory {path}: cannot be written ({error.strerror or error}); choose another with --out or "
            "change its permissions"
        ) from None
    return path


def write_bytes(path: pathlib.Path, content: bytes) -> None:
    """Replaces a file by `content` in one step; ValueError, and the old file stays, when that fails."""
    temporary: str | None = None
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)
        raise ValueError(
            f"{path}: cannot be written ({error.strerror or error}); free space, or choose a directory you may write"
        ) from None
