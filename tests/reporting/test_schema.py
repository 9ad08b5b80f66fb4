"""The description of the files is written from their schemas and is what stands in docs/."""

import re
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from cooptim.hardware.load import load_machine_file
from cooptim.hardware.quantity import Flag, Quantity, Rule
from cooptim.reporting.schema import field_rows, schema_markdown


class Inner(BaseModel):
    """A part of it."""

    size: Annotated[Quantity, Rule("size", 1, 8, whole=True)] = Field(description="how large")


class Outer(BaseModel):
    """A made-up file."""

    volts: Annotated[Quantity, Rule("voltage", 0, above=True)] | None = Field(None, description="a supply")
    kind: Literal["a", "b"]
    on: Flag
    parts: list[Inner]
    either: Inner | None = None


def test_a_field_is_described_by_its_type_and_rule():
    rows = {row.name: row for row in field_rows(Outer)}
    volts = rows["volts"]
    assert (volts.kind, volts.units, volts.range, volts.what, volts.optional) == (
        "voltage", "mV, V", "above 0 V", "a supply", True
    )  # fmt: skip
    assert (rows["kind"].kind, rows["kind"].range) == ("one of", "a, b")
    assert rows["on"].range == "true, false" and not rows["on"].optional
    assert (rows["parts"].kind, rows["parts"].inner, rows["parts"].what) == (
        "list of sections", (Inner,), "A part of it."
    )  # fmt: skip
    assert rows["either"].inner == (Inner,) and rows["either"].optional
    assert field_rows(Inner)[0].range == "at least 1, at most 8 bit, whole"


def test_every_number_of_a_machine_file_is_a_described_field():
    text = schema_markdown()
    sections = dict(re.findall(r"^### `([\w.\[\]]+)`\n(.*?)(?=^###? |\Z)", text, flags=re.MULTILINE | re.DOTALL))
    for path in load_machine_file("envision").numbers:
        section, _, name = path.rpartition(".")
        line = next(line for line in sections[section].splitlines() if line.startswith(f"| `{name}` |"))
        assert all(cell.strip() for cell in line.strip("|").split("|")), line  # quantity, units, range and what it is
    assert [line for line in text.splitlines() if line.startswith("| `") and line.endswith("|  |")] == []


def test_the_description_in_docs_is_up_to_date(root):
    stored = (root / "docs" / "machine_files.md").read_text()
    assert stored == schema_markdown(), "run: cooptim machines schema > docs/machine_files.md"
