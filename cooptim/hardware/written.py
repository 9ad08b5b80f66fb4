"""A section of a machine file as the YAML reader would hand it over, so that the schema can check it anew."""

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel

from cooptim import units
from cooptim.hardware.quantity import Quantity

Spell = Callable[[str, Quantity], Quantity]


def as_written(node: Any, spell: Spell | None = None, path: str = "") -> Any:
    """A section as the YAML reader would hand it over: dictionaries, lists and plain values.

    Args:
      spell: what becomes of each number, given its path ('supply.floor_v'); None keeps them.
    """
    if isinstance(node, Quantity):
        q = node if spell is None else spell(path, node)
        scale = units.convert(1.0, q.unit, q.quantity)
        span = None if q.interval is None else [end / scale for end in q.interval]
        return {"value": q.value / scale, "unit": q.unit, "source": q.source, "interval": span, "assumed": q.assumed}
    if isinstance(node, BaseModel):
        below = {name: (getattr(node, name), f"{path}.{name}".removeprefix(".")) for name in type(node).model_fields}
        return {name: as_written(value, spell, at) for name, (value, at) in below.items() if value is not None}
    if isinstance(node, list | tuple):
        return [as_written(one, spell, f"{path}.{getattr(one, 'name', i)}") for i, one in enumerate(node)]
    return node
