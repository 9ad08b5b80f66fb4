"""One published figure beside the model's."""

import dataclasses
from typing import Literal

Relation = Literal["equal", "below", "above", "inside", "range"]
INFORMATIVE = 3.0  # an interval whose ends are further apart than this factor says nothing


@dataclasses.dataclass(frozen=True)
class Row:
    """One figure.

    Attributes:
      published: None where nothing was published; then `note` says what the model's value is worth.
      low, high: the model's value over the machine file's interval, equal to `model` where there is none.
      tolerance: relative; None when the row is for information only.
      relation: whether the published figure is a value, a limit that the model must stay below or above, or lies
        inside the model's interval, whose ends are widened by the tolerance; or is a range, whose ends are widened by
        the tolerance, in which all of the model's interval must lie.
      published_high: upper end of a published range; `published` is then its lower end. None: no range.
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
    published_high: float | None = None

    def __post_init__(self) -> None:
        if (self.relation == "range") != (self.published_high is not None):
            raise ValueError(
                f"{self.name}: relation '{self.relation}' with published_high {self.published_high}; legal: an upper "
                "end with 'range', and with no other; give it or change the relation"
            )

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
        """(model - published) / published; of an interval from its nearer end, 0 inside. None without a figure.

        Of a published range: the end of the model's interval that is furthest out, over the end it passes; 0 inside.
        """
        if self.published is None:
            return None
        if self.published_high is not None:
            below, above = min(self.low / self.published - 1.0, 0.0), max(self.high / self.published_high - 1.0, 0.0)
            return (above if above >= -below else below) + 0.0 * (self.low + self.high)  # NaN at either end stays NaN
        model = self.model
        if self.relation == "inside":
            model = min(max(self.published, self.low), self.high)
        return model / self.published - 1.0

    @property
    def informative(self) -> bool:
        """False for an interval that is so wide that the figure inside it says nothing."""
        return self.relation != "inside" or self.high <= INFORMATIVE * self.low

    @property
    def holds(self) -> bool | None:
        """Whether the model is within the tolerance; None for a row that is not checked. NaN never holds."""
        error = self.error
        if error is None or self.tolerance is None or not self.informative:
            return None
        signed = -error if self.relation == "above" else error if self.relation == "below" else abs(error)
        return signed <= self.tolerance
