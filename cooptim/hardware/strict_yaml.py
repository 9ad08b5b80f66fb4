"""A reader of YAML that has no surprises: what a number looks like is a number, and nothing else is.

Plain `safe_load` takes the last of two equal keys, reads 010 as 8, 1:30 as 90, no as False, passes NaN, and expands
aliases without limit. Here all of these are refused, or stay text that a schema then refuses by field.
"""

import re
from typing import Any

import yaml

MAX_BYTES = 262_144  # a machine file is about 10 kB
MAX_DEPTH = 16
_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")


class StrictYamlError(ValueError):
    """Text that is not YAML as this package reads it; the message says where, what and how to mend it."""


class _Loader(yaml.SafeLoader):
    """SafeLoader without anchors, aliases, tags, merges, duplicate keys and implicit types other than our own."""

    yaml_implicit_resolvers: dict[str, Any] = {}
    depth = 0
    repeated_keys = False

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise _error(event, f"anchor or alias '{event.anchor}'", "write the value out where it is used")
        if getattr(event, "tag", None) is not None:
            raise _error(event, f"tag '{event.tag}'", "remove it; types follow from the field")
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise _error(event, f"nesting deeper than {MAX_DEPTH}", "flatten it")
        node = super().compose_node(parent, index)  # type: ignore[no-untyped-call]
        self.depth -= 1
        return node


def _error(at: Any, found: str, remedy: str) -> StrictYamlError:
    mark = at.start_mark
    return StrictYamlError(f"line {mark.line + 1}, column {mark.column + 1}: found {found}; {remedy}")


def _scalar(loader: _Loader, node: yaml.ScalarNode) -> Any:
    """Value of a scalar: quoted is text; plain is an integer, a decimal number, true, false or text."""
    text = node.value
    if node.style is not None:
        return text
    if text in ("", "~", "null"):
        raise _error(node, "an empty value", "give the field a value or remove it")
    if text in ("true", "false"):
        return text == "true"
    if _INT.fullmatch(text):
        return int(text) if len(text) < 20 else float(text)
    if _FLOAT.fullmatch(text):
        value = float(text)
        if value in (float("inf"), float("-inf")):
            raise _error(node, f"the number {text}, which overflows", "give a finite number")
        return value
    return text


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key_node, value_node in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            raise _error(key_node, "a key that is no text", "use plain names as keys")
        key = key_node.value
        if key == "<<":
            raise _error(key_node, "a merge '<<'", "write the fields out")
        if key in out and not loader.repeated_keys:
            raise _error(key_node, f"the key '{key}' a second time", "keep one of the two")
        out[key] = loader.construct_object(value_node, deep=True)  # type: ignore[no-untyped-call]
    return out


def _sequence(loader: _Loader, node: yaml.SequenceNode) -> list[Any]:
    return [loader.construct_object(child, deep=True) for child in node.value]  # type: ignore[no-untyped-call]


_Loader.add_constructor("tag:yaml.org,2002:str", _scalar)
_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)
_Loader.add_constructor("tag:yaml.org,2002:seq", _sequence)


class _LastOfEqualKeys(_Loader):
    repeated_keys = True


def read_strict(data: bytes, *, last_of_equal_keys: bool = False) -> dict[str, Any]:
    """The mapping that these bytes (UTF-8) spell.

    Args:
      last_of_equal_keys: take the last of two equal keys, as other programs read their own files, instead of refusing.

    Raises StrictYamlError for anything that is not plain YAML of at most MAX_BYTES with a mapping at the top.
    """
    value = _read(data, _LastOfEqualKeys if last_of_equal_keys else _Loader)
    if not isinstance(value, dict):
        raise StrictYamlError(f"found {type(value).__name__} at the top; a file is a mapping of sections")
    return value


def read_strict_list(data: bytes) -> list[Any]:
    """The list that these bytes (UTF-8) spell; raises StrictYamlError as `read_strict`."""
    value = _read(data, _Loader)
    if not isinstance(value, list):
        raise StrictYamlError(f"found {type(value).__name__} at the top; this file is a list")
    return value


def _read(data: bytes, loader: type[_Loader]) -> Any:
    if len(data) > MAX_BYTES:
        raise StrictYamlError(f"found {len(data)} bytes; at most {MAX_BYTES} are read: split or shorten the file")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise StrictYamlError(f"found byte {data[error.start]:#04x} at {error.start}; save the file as UTF-8") from None
    try:
        return yaml.load(text, Loader=loader)  # noqa: S506 - a SafeLoader with fewer types than safe_load
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise StrictYamlError(f"{where}not YAML ({problem}); correct the line") from None
