"""Exported folders read back from the files that ZigZag reads, and their replay in a Python that has ZigZag."""

import os
import pathlib
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationError

from cooptim.export import zigzag_replay
from cooptim.export.zigzag import EQUATION, TEMPORAL_FORMAT, Assignment
from cooptim.hardware.faults import first_fault
from cooptim.hardware.hierarchy import Hierarchy
from cooptim.hardware.strict_json import read_json
from cooptim.hardware.strict_yaml import StrictYamlError, read_strict_list
from cooptim.hardware.zigzag import read_zigzag
from cooptim.mapping.levels import mapping_from_levels
from cooptim.mapping.nest import LayerShape
from cooptim.workload.dims import DIMS

FILES = ("accelerator.yaml", "workload.yaml", "mapping.yaml", "temporal.json")
INSTALL = "-m pip install zigzag-dse==3.9.1 six"
Whole = Annotated[int, Field(ge=1)]
Dim = Literal["B", "G", "K", "C", "OY", "OX", "FY", "FX"]
_RELATION = r"^{0}=[1-9]\d*\*o{1}\+[1-9]\d*\*f{1}$"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class _Bits(_Strict):
    W: Whole
    I: Whole  # noqa: E741 - the operand
    O: Whole  # noqa: E741 - the operand
    O_final: Whole


class _Source(_Strict):
    W: int
    I: int  # noqa: E741 - the operand


class _Layer(_Strict):
    id: int
    name: str
    operator_type: Literal["Conv"]
    equation: str
    dimension_relations: Annotated[
        tuple[Annotated[str, Field(pattern=_RELATION.format("ix", "x"))],
              Annotated[str, Field(pattern=_RELATION.format("iy", "y"))]], Strict(False)]  # fmt: skip
    loop_dims: list[Dim]
    loop_sizes: list[Whole]
    operand_precision: _Bits
    operand_source: _Source
    pr_loop_dims: list[Literal["IX", "IY"]]
    pr_loop_sizes: Annotated[list[Whole], Field(min_length=2, max_length=2)]


class _Spatial(_Strict):
    name: str
    spatial_mapping: dict[str, list[Annotated[str, Field(pattern=r"^(B|G|K|C|OY|OX|FY|FX), [1-9]\d*$")]]] = {}
    memory_operand_links: dict[str, str] = {}


class _Loops(_Strict):
    W: list[list[Annotated[tuple[Dim, Whole], Strict(False)]]]
    I: list[list[Annotated[tuple[Dim, Whole], Strict(False)]]]  # noqa: E741 - the operand
    O: list[list[Annotated[tuple[Dim, Whole], Strict(False)]]]  # noqa: E741 - the operand


class _Temporal(_Strict):
    format: Literal["cooptim-zigzag-temporal-1"]
    layers: dict[str, _Loops]


def is_export(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder is one that `write_zigzag` wrote."""
    return all((pathlib.Path(folder) / name).is_file() for name in FILES)


def read_export(folder: str | os.PathLike[str]) -> tuple[Hierarchy, list[Assignment]]:
    """The machine and the mapped layers of an exported folder, from the files that ZigZag reads.

    Raises ValueError that names file and field, what was found and what is legal.
    """
    path = pathlib.Path(folder)
    machine = read_zigzag(path / "accelerator.yaml")
    shapes = [_shape(layer, path) for layer in _list(path / "workload.yaml", _Layer)]
    spatial = {entry.name: entry for entry in _list(path / "mapping.yaml", _Spatial)}
    temporal = _loops(path / "temporal.json")
    found: list[Assignment] = []
    for name, shape in shapes:
        for file, held in (("mapping.yaml", spatial), ("temporal.json", temporal)):
            if name not in held:
                raise ValueError(f"{path / file}: layer {name}: missing; export the folder again")
        units = {axis: [_pair(text) for text in pairs] for axis, pairs in spatial[name].spatial_mapping.items()}
        levels = {operand: getattr(temporal[name], operand) for operand in ("W", "I", "O")}
        try:
            mapping = mapping_from_levels(units, levels, machine)
        except ValueError as error:
            raise ValueError(f"{path / 'temporal.json'}: layer {name}: {error}") from None
        found.append((name, shape, mapping))
    return machine, found


def _list(path: pathlib.Path, model: type[Any]) -> list[Any]:
    try:
        content = read_strict_list(path.read_bytes())
        return [_checked(model, entry, (i,)) for i, entry in enumerate(content)]
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}); export the folder again") from None
    except (StrictYamlError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None


def _checked(model: type[Any], entry: Any, place: tuple[int, ...] = ()) -> Any:
    try:
        return model.model_validate(entry)
    except ValidationError as error:
        raise ValueError(first_fault(error, place)) from None


def _loops(path: pathlib.Path) -> dict[str, _Loops]:
    content = read_json(path)
    try:
        found: dict[str, _Loops] = _checked(_Temporal, content).layers
    except ValueError as error:
        raise ValueError(f"{path}: {error}; legal is the format {TEMPORAL_FORMAT}") from None
    return found


def _pair(text: str) -> tuple[str, int]:
    dim, units = text.split(", ")
    return dim, int(units)


def _factors(relation: str) -> tuple[int, int]:
    """(stride, dilation) of 'ix=2*ox+1*fx'."""
    outputs, taps = relation.split("=")[1].split("+")
    return int(outputs.split("*")[0]), int(taps.split("*")[0])


def _shape(layer: _Layer, path: pathlib.Path) -> tuple[str, LayerShape]:
    legal = (("loop_dims", layer.loop_dims, list(DIMS)), ("equation", layer.equation, EQUATION),
             ("pr_loop_dims", layer.pr_loop_dims, ["IX", "IY"]))  # fmt: skip
    for field, found, wanted in legal:
        if found != wanted:
            raise ValueError(f"{path / 'workload.yaml'}: layer {layer.name}: {field}: found {found}; legal: {wanted}")
    if len(layer.loop_sizes) != len(DIMS):
        raise ValueError(
            f"{path / 'workload.yaml'}: layer {layer.name}: {len(layer.loop_sizes)} loop_sizes; legal: one a loop dim"
        )
    (sx, dx), (sy, dy) = (_factors(relation) for relation in layer.dimension_relations)
    bits = layer.operand_precision
    return layer.name, LayerShape(
        tuple(layer.loop_sizes), (sy, sx), (dy, dx), (layer.pr_loop_sizes[1], layer.pr_loop_sizes[0]),
        bits.W, bits.I, bits.O, bits.O_final,
    )  # fmt: skip


def replay(folders: Sequence[str | os.PathLike[str]], python: str) -> list[dict[str, Any]]:
    """What ZigZag answers for each exported folder: the content of its results.json, written by this replay.

    The script that runs is the one of this package, whatever the folders hold.

    Args:
      python: the interpreter that has zigzag-dse and six.

    Raises ValueError when that Python cannot be run, lacks a module (with the line that installs it), or fails.
    """
    places = [str(pathlib.Path(folder).resolve()) for folder in folders]
    try:
        # Alone in a folder of its own: a script's folder comes first on its path, and would hide modules of ZigZag.
        with tempfile.TemporaryDirectory() as scratch:
            script = shutil.copy(zigzag_replay.__file__, pathlib.Path(scratch) / "replay.py")
            done = subprocess.run([python, script, *places], cwd=scratch, capture_output=True, text=True, check=False)
    except OSError as error:
        raise ValueError(f"--python {python}: cannot be run ({error.strerror}); give the path of a Python") from None
    if done.returncode == zigzag_replay.MISSING:
        raise ValueError(
            f"{python} has no module '{done.stderr.strip()}', which the replay needs; run `{python} {INSTALL}`, or "
            "name a Python that has it with --python"
        )
    if done.returncode != 0:
        last = (done.stderr.strip() or "no message").splitlines()[-1]
        raise ValueError(f"replay by {python} failed with exit code {done.returncode}: {last}")
    return [read_json(pathlib.Path(folder) / "results.json") for folder in folders]
