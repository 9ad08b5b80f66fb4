"""What is wrong with a file, in one line, from pydantic's list of faults."""

from collections.abc import Sequence

from pydantic import ValidationError


def place(path: Sequence[str | int]) -> str:
    """A path inside a file as people write it: memories[0].ports[2].name."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def first_fault(error: ValidationError, prefix: Sequence[str | int] = ()) -> str:
    """The first fault: field path, what was found, what is legal, how to mend it; and how many more there are."""
    faults = error.errors(include_url=False)
    first = faults[0]
    field = place([*prefix, *first["loc"]]) or "the whole file"
    kind, found = first["type"], first.get("input")
    if kind == "missing":
        text = f"{field}: missing; add it, the field is needed"
    elif kind == "extra_forbidden":
        text = f"{field}: unknown field; remove it or correct its spelling"
    elif kind == "value_error":
        text = f"{field}: {first['ctx']['error']}"
    else:
        shown = f"'{found}' (text)" if isinstance(found, str) else f"{type(found).__name__} {found}"
        legal = first["msg"].removeprefix("Input should be ")
        text = f"{field}: found {shown[:80]}; legal: {legal}; correct the file"
    return text + (f" ({len(faults) - 1} more faults)" if len(faults) > 1 else "")
