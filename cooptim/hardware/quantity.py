"""Entries of a file that says where they come from: numbers, flags, choices, each with source and assumption."""

import dataclasses
import math
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from cooptim import units


class Strict(BaseModel):
    """A section of such a file: no unknown fields, no conversions, nothing changes it."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Number(Strict):
    """One number as the file states it.

    Attributes:
      interval: lowest and highest value that the sources or the assumption allow, in `unit`; includes `value`.
      assumed: true when no source states the number (fitted, derived, recalled or chosen).
    """

    value: float
    unit: str
    source: str = Field(min_length=1)
    interval: Annotated[list[float], Field(min_length=2, max_length=2)] | None = None
    assumed: bool


class Flag(Strict):
    """One yes or no, with its source."""

    value: bool
    source: str = Field(min_length=1)
    assumed: bool


class Choice(Strict):
    """One of several names, with its source."""

    value: str
    source: str = Field(min_length=1)
    assumed: bool


@dataclasses.dataclass(frozen=True)
class Quantity:
    """A number in coherent units, with where it comes from.

    Attributes:
      value, interval: in the package's coherent unit of `quantity`. stated, unit: as the file writes them.
    """

    value: float
    quantity: str
    stated: float
    unit: str
    source: str
    interval: tuple[float, float] | None
    assumed: bool

    def at(self, value: float) -> "Quantity":
        """The same entry with another value (coherent units), for sweeps; the interval stays."""
        scale = self.value / self.stated if self.stated else 1.0
        return dataclasses.replace(self, value=value, stated=value / scale)


def coherent_unit(name: str) -> str:
    """The coherent unit of a quantity, the one whose factor is 1."""
    return next(unit for unit in units.unit_names(name) if units.convert(1.0, unit, name) == 1.0)


@dataclasses.dataclass(frozen=True)
class Rule:
    """What a field accepts: a Number of this quantity in [low, high], or (low, high] with `above`; made a Quantity."""

    quantity: str
    low: float = 0.0
    high: float = math.inf
    above: bool = False
    whole: bool = False

    def __get_pydantic_core_schema__(self, _: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Tells pydantic to read a Number first and to check it here."""
        return core_schema.no_info_after_validator_function(self.check, handler.generate_schema(Number))

    def check(self, number: Number) -> Quantity:
        """The number in coherent units; ValueError says what was found and what is legal."""
        spelled = units.unit_names(self.quantity)
        if number.unit not in spelled:
            raise ValueError(f"unit '{number.unit}', which is none of {self.quantity}; legal: {', '.join(spelled)}")
        value = units.convert(number.value, number.unit, self.quantity)
        span = [units.convert(x, number.unit, self.quantity) for x in (number.interval or [])]
        for x in [value, *span]:
            if not math.isfinite(x) or x < self.low or (self.above and x <= self.low) or x > self.high:
                raise ValueError(f"{x:g} {coherent_unit(self.quantity)}; legal: {self.text}")
        if self.whole and value != int(value):
            raise ValueError(f"{value:g}; legal: a whole number")
        if span and not span[0] <= value <= span[1]:
            raise ValueError(f"value {number.value:g} outside its own interval {number.interval}; legal: inside it")
        interval = (span[0], span[1]) if span else None
        return Quantity(value, self.quantity, number.value, number.unit, number.source, interval, number.assumed)

    @property
    def text(self) -> str:
        """The legal range in words, in the coherent unit."""
        top = f", at most {self.high:g}" if self.high < math.inf else ""
        return f"a finite number {'above' if self.above else 'at least'} {self.low:g}{top}"


@dataclasses.dataclass(frozen=True, init=False)
class OneOf:
    """What a field accepts: a Choice of one of these names."""

    names: tuple[str, ...]

    def __init__(self, *names: str) -> None:
        object.__setattr__(self, "names", names)

    def __get_pydantic_core_schema__(self, _: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Tells pydantic to read a Choice first and to check it here."""
        return core_schema.no_info_after_validator_function(self.check, handler.generate_schema(Choice))

    def check(self, choice: Choice) -> Choice:
        """The choice itself; ValueError says what was found and what is legal."""
        if choice.value not in self.names:
            raise ValueError(f"'{choice.value}'; legal: {', '.join(self.names)}")
        return choice
