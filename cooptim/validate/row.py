"""One published figure beside the model's."""

import dataclasses
from typing import Literal

Relation = Literal["equal", "below", "above"]


@dataclasses.dataclass(frozen=True)
class Row:
    """One figure.

    Attributes:
      published: None where nothing was published; then `note` says what the model's value is worth.
      low, high: the model's value over the machine file's interval, equal to `model` where there is none.
      tolerance: relative; None when the row is for information only.
      relation: whether the published figure is a value, or a limit that the model must stay below or above.
    """

    name: str
    unit: str
    published: float | None
    model: float
    low: float
    high: float
    tolerance: float | None
    source: str
    note: str = ""
    relation: Relation = "equal"

    @classmethod
    def of(
        cls,
        name: str,
        unit: str,
        published: float | None,
        model: float,
        tolerance: float | None,
        source: str,
        note: str = "",
        relation: Relation = "equal",
    ) -> "Row":
        """A row whose model value has no interval."""
        return cls(name, unit, published, model, model, model, tolerance, source, note, relation)

    @property
    def error(self) -> float | None:
        """(model - published) / published; None where nothing was published."""
        return None if self.published is None else self.model / self.published - 1.0

    @property
    def holds(self) -> bool | None:
        """Whether the model is within the tolerance; None for a row that is not checked. NaN never holds."""
        error = self.error
        if error is None or self.tolerance is None:
            return None
        signed = {"equal": abs(error), "below": error, "above": -error}[self.relation]
        return signed <= self.tolerance
