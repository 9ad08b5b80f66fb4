"""Golden files: which format a file has, and its cases beside ours."""

import dataclasses
from collections.abc import Callable
from typing import Any

from cooptim.hardware.strict_json import read_json
from cooptim.reporting.golden import Comparison
from cooptim.validate import GoldenRow, timeloop, timeloop_rows, zigzag, zigzag_rows


@dataclasses.dataclass(frozen=True)
class Format:
    """One golden format.

    Attributes:
      title: what it is, for the list of legal ones.
      recognises: whether a file's content is meant in this format, however faulty.
      cases: (case, rows) of a content whose file has this name; ValueError names file, case and field.
      energy, cycles: quantities that stand for a case.
    """

    title: str
    recognises: Callable[[Any], bool]
    cases: Callable[[Any, str], list[tuple[str, list[GoldenRow]]]]
    energy: str
    cycles: str


def _is_zigzag(content: Any) -> bool:
    return isinstance(content, dict) and (
        "zigzag_version" in content or str(content.get("format", "")).startswith("cooptim-zigzag")
    )


def _zigzag(content: Any, origin: str) -> list[tuple[str, list[GoldenRow]]]:
    return [(case.id, zigzag_rows.case_rows(case)) for case in zigzag.cases_of(content, origin)]


def _is_timeloop(content: Any) -> bool:
    fields = {"arch_kind", "levels", "mapping", "expected"}
    return isinstance(content, list) and any(isinstance(case, dict) and fields & set(case) for case in content)


def _timeloop(content: Any, origin: str) -> list[tuple[str, list[GoldenRow]]]:
    return [(case.id, timeloop_rows.case_rows(case)) for case in timeloop.cases_of(content, origin)]


FORMATS: tuple[Format, ...] = (
    Format(
        f"{zigzag.FORMAT} (ZigZag: an object with that `format`)",
        _is_zigzag, _zigzag, zigzag_rows.ENERGY, zigzag_rows.CYCLES,
    ),
    Format(
        "Timeloop's (a list of objects with arch_kind, levels, mapping, expected)",
        _is_timeloop, _timeloop, "storage_plus_mac_energy_pJ", "cycles",
    ),
)  # fmt: skip


def golden(path: str) -> Comparison:
    """The comparison that a golden file asks for; ValueError when it cannot be read or has no known format."""
    content = read_json(path)
    for form in FORMATS:
        if form.recognises(content):
            cases = form.cases(content, path)
            return Comparison(path, tuple((name, tuple(rows)) for name, rows in cases), form.energy, form.cycles)
    legal = "; ".join(form.title for form in FORMATS)
    raise ValueError(f"{path}: {_shape(content)}, which is no golden format; legal: {legal}")


def _shape(content: Any) -> str:
    if isinstance(content, dict):
        named = f"format {content['format']!r}" if "format" in content else "an object without `format`"
        return f"found {named}"
    first = content[0] if isinstance(content, list) and content else None
    fields = f" of objects with {', '.join(sorted(first)[:6])}" if isinstance(first, dict) else ""
    return f"found {type(content).__name__}{fields}"
