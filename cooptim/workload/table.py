"""A workload from a CSV table of layers, one row a layer in order of execution.

| column | | meaning |
|---|---|---|
| layer | required | name, unique; without ';' and '+', not 'input' |
| K, C | required | output and input channels, of all groups together |
| OY, OX | required | rows, columns of the output |
| FY, FX | required | rows, columns of the filter |
| type | conv | conv, dwconv (groups = C), fc (weights on vectors), matmul (activation x activation) |
| N | 1 | images (conv, dwconv), length of the sequence (fc), heads (matmul: K, C, OY are n, k, m of one head) |
| stride | 1 | vertical and horizontal, in positions of the input |
| groups | 1 (dwconv: C) | groups of channels; must divide K and C; 1 for matmul |
| IY, IX | what the windows span | rows, columns of the input without padding |
| inputs | the row above, 'input' in the first | feeding layers or 'input' between ';' (concatenated) or '+' (added) |
| MACs | not checked | N * K * C / groups * OY * OX * FY * FX; a row that contradicts it is refused |
| weights | not checked | K * C / groups * FY * FX, 0 for matmul; a row that contradicts it is refused |
| params | not checked | weights, biases and normalization as trained; at least the weights |

Columns stand in any order, blank cells are missing ones, lines that start with '#' are comments.
"""

import csv
import dataclasses
import os
import pathlib
import re
from collections.abc import Iterator

from cooptim.workload.dims import Bounds
from cooptim.workload.layer import INPUT, Layer, Workload

REQUIRED = ("layer", "K", "C", "OY", "OX", "FY", "FX")
OPTIONAL = ("type", "N", "stride", "groups", "MACs", "params", "weights", "IY", "IX", "inputs")
KINDS = {"conv": "conv", "dwconv": "conv", "fc": "dense", "matmul": "matmul"}
_MOST = 10**9  # of a bound: beyond it stands a typing error


class TableError(ValueError):
    """A table that cannot be read; the message says file, line, layer, what was found, what is legal, the remedy."""


@dataclasses.dataclass(frozen=True)
class _Row:
    """Cells of one line that are not blank, by column."""

    origin: str  # file and line
    cells: dict[str, str]

    def error(self, found: str, legal: str, remedy: str) -> TableError:
        layer = f", layer '{self.cells['layer']}'" if "layer" in self.cells else ""
        return TableError(f"{self.origin}{layer}: found {found}; legal is {legal}; {remedy}")

    def text(self, column: str, default: str) -> str:
        return self.cells.get(column, default)

    def number(self, column: str, default: int = 1, least: int = 1, most: int = _MOST) -> int:
        text = self.cells.get(column, "" if column in REQUIRED else str(default))
        if not re.fullmatch(r"[0-9]{1,30}", text, flags=re.ASCII) or not least <= int(text) <= most:
            legal = f"a whole number from {least} to {most}"
            raise self.error(f"{column} = '{text}'", legal, "write the count in digits, without sign, point or unit")
        return int(text)


def read_csv(path: str | os.PathLike[str]) -> Workload:
    """The workload of a CSV file with the columns of this module's table; its name is the file's, without '.csv'.

    Layers are those that `trace` finds for the same network: K and C per group, a sequence or matrix rows on OX, heads
    on G, inputs in order of execution. Where the windows span more than IY x IX the rest is padding, half on each side
    and an odd row or column behind ('SAME'). `weight_leaves` stay empty, since a table holds no weights.

    Raises TableError with file, line, what was found, what is legal and the remedy.
    """
    path = pathlib.Path(path)
    return workload(path.stem, str(path), _content(path))


def workload(name: str, origin: str, content: str) -> Workload:
    """The workload of a table's text; `origin` names the table in messages. Raises TableError as `read_csv` does."""
    layers: list[Layer] = []
    lines: dict[str, str] = {}
    input_words = 0
    for row in _rows(origin, content):
        layer = _layer(row, lines, layers[-1].name if layers else INPUT)
        if INPUT in layer.inputs:
            input_words = max(input_words, _tensor_words(row, layer))
        layers.append(layer)
        lines[layer.name] = row.origin.rpartition(", ")[2]
    if not layers:
        raise TableError(f"{origin}: found no layer; legal is one row or more below the header; add the network's rows")
    taken = {source for layer in layers for source in layer.inputs}
    outputs = tuple(layer.name for layer in layers if layer.name not in taken)
    return Workload(name, tuple(layers), outputs, input_words)


def _content(path: pathlib.Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise TableError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from None
    except UnicodeDecodeError as error:
        raise TableError(
            f"{path}: found byte {error.object[error.start]:#04x} at {error.start}; legal is UTF-8 text; save it as "
            "CSV in UTF-8"
        ) from None


def _rows(origin: str, content: str) -> Iterator[_Row]:
    """Rows below the header, comments and blank lines left out."""
    lines = ["" if line.startswith("#") else line for line in content.splitlines()]
    reader = csv.reader(lines, strict=True)
    header: list[str] = []
    while True:
        try:
            cells = [cell.strip() for cell in next(reader)]
        except StopIteration:
            break
        except csv.Error as error:
            raise TableError(f"{origin}, line {reader.line_num}: not CSV ({error}); correct its quotes") from None
        where = f"{origin}, line {reader.line_num}"
        if not any(cells):
            continue
        if not header:
            header = _checked_header(where, cells)
            continue
        if len(cells) != len(header):
            raise TableError(
                f"{where}: found {len(cells)} cells; legal is {len(header)}, one a column of the header; add or remove "
                "commas"
            )
        yield _Row(where, {column: cell for column, cell in zip(header, cells, strict=True) if cell})
    if not header:
        raise TableError(
            f"{origin}: found an empty table; legal is a header with {', '.join(REQUIRED)} and one row a layer; fill it"
        )


def _checked_header(where: str, header: list[str]) -> list[str]:
    missing = [column for column in REQUIRED if column not in header]
    unknown = sorted({column for column in header if column not in REQUIRED + OPTIONAL})
    double = sorted({column for column in header if header.count(column) > 1})
    for found, columns in (("no column", missing), ("unknown column", unknown), ("twice the column", double)):
        if columns:
            raise TableError(
                f"{where}: found {found} {', '.join(repr(c) for c in columns)}; legal are {', '.join(REQUIRED)} "
                f"(required) and {', '.join(OPTIONAL)}, separated by commas; correct the header"
            )
    return header


def _layer(row: _Row, lines: dict[str, str], above: str) -> Layer:
    """The layer of a row; `lines` says where each layer above it stands, `above` is the last of them."""
    name = row.text("layer", "")
    if not name or name == INPUT or re.search("[;+]", name):
        raise row.error(f"layer = '{name}'", f"a name without ';' and '+', not '{INPUT}'", "name the layer")
    if name in lines:
        raise row.error(f"a name that stands at {lines[name]} too", "one row a name", "rename one of the two")
    kind = row.text("type", "conv")
    if kind not in KINDS:
        raise row.error(f"type = '{kind}'", ", ".join(KINDS), "write one of these, or leave pooling and adds out")
    bounds = _bounds(row, kind)
    stride = row.number("stride")
    if KINDS[kind] != "conv" and (bounds.FY, bounds.FX, stride) != (1, 1, 1):
        taps = f"FY = {bounds.FY}, FX = {bounds.FX}, stride = {stride}"
        raise row.error(taps, f"1 for each in a row of type {kind}", "count the taps of a window in C, or write conv")
    padding = tuple(
        _padding(row, axis, outputs, taps, stride)
        for axis, outputs, taps in (("IY", row.number("OY"), bounds.FY), ("IX", row.number("OX"), bounds.FX))
    )
    layer = Layer(
        name=name,
        kind=KINDS[kind],
        bounds=bounds,
        stride=(stride, stride),
        padding=(padding[0], padding[1]),
        inputs=_inputs(row, lines, above),
    )
    _check_counts(row, layer)
    return layer


def _bounds(row: _Row, kind: str) -> Bounds:
    """Loop bounds: where the tracer has images, sequences and heads."""
    N, K, C, OY, OX, FY, FX = (row.number(column) for column in ("N", "K", "C", "OY", "OX", "FY", "FX"))
    groups = row.number("groups", default=C if kind == "dwconv" else 1)
    if kind == "matmul" and groups != 1:
        raise row.error(f"groups = {groups}", "1 for matmul", "write the number of heads in N")
    if kind == "dwconv" and groups != C:
        raise row.error(f"groups = {groups}", f"C = {C} for dwconv", "write C, or the type conv")
    for column, channels in (("K", K), ("C", C)):
        if channels % groups:
            legal = f"a multiple of its {groups} groups"
            raise row.error(f"{column} = {channels}", legal, f"correct {column} or groups; {column} counts all groups")
    per_group = Bounds(G=groups, K=K // groups, C=C // groups, FY=FY, FX=FX)
    if KINDS[kind] == "conv":
        return per_group._replace(B=N, OY=OY, OX=OX)
    if kind == "fc":
        return per_group._replace(OX=N * OY * OX)
    return per_group._replace(G=N, OX=OY * OX)


def _padding(row: _Row, axis: str, outputs: int, taps: int, stride: int) -> tuple[int, int]:
    """Padding before and behind one axis of the input, as 'SAME' splits it."""
    span = (outputs - 1) * stride + taps
    size = row.number(axis, default=span)
    # A padding of taps - 1 a side leaves each window one position of data; stride rows more would give another output.
    least, most = max(1, span - 2 * (taps - 1)), span + stride - 1
    if not least <= size <= most:
        windows = f"{outputs} outputs of {taps} taps at stride {stride} read {least} to {most}"
        raise row.error(f"{axis} = {size}", windows, f"correct {axis}, or leave its cell blank for no padding ({span})")
    padding = max(0, span - size)
    return padding // 2, padding - padding // 2


def _inputs(row: _Row, lines: dict[str, str], above: str) -> tuple[str, ...]:
    """Feeding layers in order of execution, 'input' first."""
    names = [name.strip() for name in re.split("[;+]", row.text("inputs", above))]
    order = [INPUT, *lines]
    for name in names:
        if name not in order:
            nearest = ", ".join(order) if len(order) <= 12 else f"{INPUT}, {', '.join(order[-10:])} or one further up"
            raise row.error(f"inputs name '{name}'", nearest, "name layers above this row, as they are spelled there")
    return tuple(sorted(set(names), key=order.index))


def _check_counts(row: _Row, layer: Layer) -> None:
    """Raises TableError where a count of the row contradicts its bounds."""
    weights = 0 if layer.kind == "matmul" else layer.weight_words
    for column, count in (("MACs", layer.macs), ("weights", weights)):
        stated = row.number(column, default=count, least=0, most=10**30)
        if stated != count:
            legal = f"{count}, the product of the row's bounds"
            raise row.error(f"{column} = {stated}", legal, f"correct the bounds, or leave {column} out")
    params = row.number("params", default=weights, least=0, most=10**30)
    if params < weights:
        raise row.error(f"params = {params}", f"{weights} weights or more", "add the weights, or leave params out")


def _tensor_words(row: _Row, layer: Layer) -> int:
    """Words of the whole tensor that the layer reads, with rows and columns that a stride skips."""
    if layer.kind != "conv":
        return layer.input_words
    sizes = (row.number(axis, default=layer.input_extent(k)) for k, axis in enumerate(("IY", "IX")))
    return layer.bounds.B * row.number("C") * next(sizes) * next(sizes)
