"""A reader of JSON without surprises: no repeated keys, no NaN, nothing but one document."""

import json
import os
import pathlib
from typing import Any

MAX_BYTES = 1 << 28  # the 30 cases of a golden file are half a megabyte


def read_json(path: str | os.PathLike[str]) -> Any:
    """The content of a JSON file.

    Raises ValueError that names the file, what was found and how to mend it.
    """
    name = str(path)
    try:
        data = pathlib.Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"{name}: cannot be read ({error.strerror}); give the path of a file you may read") from None
    if len(data) > MAX_BYTES:
        raise ValueError(f"{name}: {len(data)} bytes; at most {MAX_BYTES} are read: split the file")
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=_object, parse_constant=_constant)
    except UnicodeDecodeError as error:
        raise ValueError(f"{name}: byte {data[error.start]:#04x} at {error.start}; save the file as UTF-8") from None
    except json.JSONDecodeError as error:
        at = f"line {error.lineno}, column {error.colno}"
        raise ValueError(f"{name}: no JSON at {at} ({error.msg}); correct the file") from None
    except RecursionError:
        raise ValueError(f"{name}: nested too deeply to be read; flatten it") from None
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key '{key}' a second time in one object; keep one of the two")
        found[key] = value
    return found


def _constant(text: str) -> Any:
    raise ValueError(f"the number {text}; legal: finite numbers")
