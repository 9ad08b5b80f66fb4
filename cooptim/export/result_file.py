"""The files of a run: result.json, layers.csv, design.json, weights.npz."""

import csv
import io
import json
import os
import pathlib
from typing import Any

from cooptim.descent.result import Result
from cooptim.descent.summary import SCHEMA, layer_rows, summary
from cooptim.export.atomic import require_writable, write_bytes
from cooptim.export.design_file import save_design
from cooptim.export.weights_file import save_weights
from cooptim.mapping.frontier import tilings as all_tilings
from cooptim.mapping.tilings import Tilings


def write_result(out_dir: str | os.PathLike[str], result: Result, *, tilings: Tilings | None = None) -> None:
    """Writes result.json, layers.csv, design.json and weights.npz of a finished run into a directory.

    Raises ValueError when the directory cannot be written; no file is ever half-written.
    """
    out = require_writable(out_dir)
    table = all_tilings(result.workload, result.machine) if tilings is None else tilings
    if "final" in result.designs:
        final = result.designs["final"]
        save_weights(out / "weights.npz", final.params, final.state)
        save_design(out / "design.json", result.workload, result.machine, final.design, final.stats, tilings=table)
        write_bytes(out / "layers.csv", _csv(layer_rows(result, table)))
    # Last, so that a result.json says that the rest is there.
    write_bytes(out / "result.json", json.dumps(summary(result), indent=1, allow_nan=False).encode() + b"\n")


def read_result(out_dir: str | os.PathLike[str]) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """(result.json, rows of layers.csv) of a run's directory; ValueError when there is no readable run in it."""
    folder = pathlib.Path(out_dir)
    try:
        content = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        table = folder / "layers.csv"
        rows = list(csv.DictReader(io.StringIO(table.read_text(encoding="utf-8")))) if table.is_file() else []
    except OSError as error:
        raise ValueError(f"{folder}: no finished run in it ({error.strerror}); give the --out of a run") from None
    except ValueError as error:
        raise ValueError(f"{folder}/result.json: no JSON ({error}); run `cooptim optimize` again") from None
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        found = content.get("schema") if isinstance(content, dict) else type(content).__name__
        raise ValueError(f"{folder}/result.json: schema {found!r}; this version reads {SCHEMA!r}: run it again")
    return content, rows


def _csv(rows: list[dict[str, Any]]) -> bytes:
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]) if rows else ["name"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue().encode()
