"""`cooptim validate --with zigzag`: mappings replayed in ZigZag, and its answers beside ours."""

import dataclasses
import pathlib
import tempfile
from typing import Any

from pydantic import ValidationError

from cooptim.export.mapping_file import is_mapping_file, read_mappings
from cooptim.export.zigzag import Assignment, write_zigzag
from cooptim.export.zigzag_folder import is_export, read_export, replay
from cooptim.hardware.faults import first_fault
from cooptim.hardware.hierarchy import Hierarchy
from cooptim.hardware.strict_json import read_json
from cooptim.reporting.golden import Comparison
from cooptim.validate import GoldenRow
from cooptim.validate.zigzag import Results, ZigzagCase, cases_of, require_answers
from cooptim.validate.zigzag_rows import CYCLES, ENERGY, result_rows


def replayed(paths: list[str], python: str) -> list[Comparison]:
    """A comparison for each golden file, mapping.json and exported folder (or folder of these).

    Raises ValueError for a path that is neither, and when ZigZag cannot be run.
    """
    return [_folder(path, python) if pathlib.Path(path).is_dir() else _file(path, python) for path in paths]


@dataclasses.dataclass(frozen=True)
class Job:
    """Layers mapped on one machine, which share a folder of this name."""

    name: str
    machine: Hierarchy
    layers: tuple[Assignment, ...]


def jobs(path: str) -> tuple[Job, ...]:
    """What there is to replay in a file: each case of a golden file of ZigZag, or the network of a mapping.json.

    Raises ValueError for a fault in it, and for any other file.
    """
    content = read_json(path)
    if is_mapping_file(content):
        mapped = read_mappings(path)
        layers = tuple((layer.name, layer.shape, layer.mapping) for layer in mapped.layers)
        return (Job(mapped.network, mapped.machine, layers),)
    cases: tuple[ZigzagCase, ...] = cases_of(content, path)
    return tuple(Job(case.id, case.machine, ((case.id, case.shape, case.mapping),)) for case in cases)


def _file(path: str, python: str) -> Comparison:
    with tempfile.TemporaryDirectory() as scratch:
        folders = [
            write_zigzag(pathlib.Path(scratch) / str(i), job.machine, job.layers) for i, job in enumerate(jobs(path))
        ]
        return _compared(path, folders, python)


def _folder(path: str, python: str) -> Comparison:
    here = pathlib.Path(path)
    folders = [here] if is_export(here) else sorted(entry for entry in here.iterdir() if is_export(entry))
    if not folders:
        raise ValueError(f"{path}: no exported mapping in it; write one with `cooptim export zigzag FILE --out {path}`")
    return _compared(path, folders, python)


def _compared(source: str, folders: list[pathlib.Path], python: str) -> Comparison:
    exports = [read_export(folder) for folder in folders]
    answers = replay(folders, python)
    cases, versions = [], set()
    for folder, (machine, layers), answer in zip(folders, exports, answers, strict=True):
        versions.add(str(answer["zigzag_version"]))
        cases += _rows(str(folder), machine, layers, answer)
    title = f"{source}, replayed by zigzag-dse {', '.join(sorted(versions))}"
    return Comparison(title, tuple(cases), ENERGY, CYCLES)


def _rows(
    folder: str, machine: Hierarchy, layers: list[Assignment], answer: dict[str, Any]
) -> list[tuple[str, tuple[GoldenRow, ...]]]:
    found = []
    for name, shape, mapping in layers:
        refused = answer["layers"][name].get("refused")
        if refused is not None:
            raise ValueError(
                f"{folder}: layer {name}: ZigZag stopped with {refused}; leave it out to compare the others"
            )
        try:
            results = Results.model_validate(answer["layers"][name])
            require_answers(results, machine)
        except ValidationError as error:
            raise ValueError(f"{folder}: results.json: layer {name}: {first_fault(error)}") from None
        except ValueError as error:
            raise ValueError(f"{folder}: results.json: layer {name}: {error}") from None
        found.append((name, tuple(result_rows(name, machine, shape, mapping, results))))
    return found
