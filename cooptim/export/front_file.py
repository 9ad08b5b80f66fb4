"""The files of a sweep: front.json, front.csv, and a run directory for every member with its member.json."""

import csv
import dataclasses
import io
import json
import os
import pathlib
from typing import Any

from cooptim.descent.front import SCHEMA, Front, Point, front_content
from cooptim.descent.result import Result
from cooptim.descent.sweep import MEMBERS
from cooptim.export.atomic import require_writable, write_bytes
from cooptim.export.result_file import write_result

MEMBER_SCHEMA = "cooptim-member/1"


def write_member(out_dir: str | os.PathLike[str], point: Point, result: Result | None) -> None:
    """Writes members/NAME as `optimize` writes its directory, and member.json.

    Without a legal design member.json alone, which says why. Raises ValueError when it cannot be written.
    """
    folder = require_writable(pathlib.Path(out_dir) / MEMBERS / point.name)
    if result is not None:
        write_result(folder, result)
    # Last, so that a member.json says that the rest is there.
    write_bytes(folder / "member.json", _json({"schema": MEMBER_SCHEMA, **dataclasses.asdict(point)}))


def read_members(out_dir: str | os.PathLike[str]) -> dict[str, Point]:
    """The members that have ended, by name; ValueError names a file that is no member's."""
    found = {}
    for path in sorted((pathlib.Path(out_dir) / MEMBERS).glob("*/member.json")):
        content = _read(path, MEMBER_SCHEMA)
        names = {field.name for field in dataclasses.fields(Point)}
        odd = sorted(set(content) ^ names)
        if odd:
            raise ValueError(f"{path}: {odd[0]} is missing or unknown; delete the file to run this member again")
        found[content["name"]] = Point(**content)
    return found


def forget_members(out_dir: str | os.PathLike[str]) -> None:
    """Removes every member.json, for a sweep that starts anew."""
    for path in (pathlib.Path(out_dir) / MEMBERS).glob("*/member.json"):
        path.unlink(missing_ok=True)


def write_front(out_dir: str | os.PathLike[str], front: Front) -> None:
    """Writes front.csv and front.json; ValueError when the directory cannot be written."""
    out, content = require_writable(out_dir), front_content(front)
    file = io.StringIO()
    writer = csv.DictWriter(file, list(content["members"][0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(content["members"])
    write_bytes(out / "front.csv", file.getvalue().encode())
    write_bytes(out / "front.json", _json(content))


def read_front(out_dir: str | os.PathLike[str]) -> dict[str, Any]:
    """front.json of a sweep's directory; ValueError when there is none or it is of another version."""
    return _read(pathlib.Path(out_dir) / "front.json", SCHEMA) | {"schema": SCHEMA}


def _read(path: pathlib.Path, schema: str) -> dict[str, Any]:
    """The content of a JSON file of this schema, without the schema."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}); give the --out of a sweep") from None
    except ValueError as error:
        raise ValueError(f"{path}: no JSON ({error}); run `cooptim pareto` again") from None
    found = content.get("schema") if isinstance(content, dict) else type(content).__name__
    if found != schema:
        raise ValueError(f"{path}: schema {found!r}; this version reads {schema!r}: run the sweep again")
    return {name: value for name, value in content.items() if name != "schema"}


def _json(content: dict[str, Any]) -> bytes:
    return json.dumps(content, indent=1, allow_nan=False).encode() + b"\n"
