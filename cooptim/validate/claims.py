"""Published claims of the systems that the survey cites, classed before any run, and what the model predicts of them.

`published/claims.csv` has one row a claim. Classes: input (the model takes it, or an identity of what it takes), fitted
(a constant was fitted to it), predicted (neither; these count) and 'no public inputs' (the reason says what is
missing). Tolerances of predicted claims: 10 % for a ratio of one chip with itself, 25 % across chips.
"""

import csv
import dataclasses
import functools
import importlib.resources

from cooptim.validate.row import Relation, Row

CLASSES = ("input", "fitted", "predicted", "no public inputs")
SHARE_ASKED = 0.70  # of the predicted claims that are inside their tolerance


@dataclasses.dataclass(frozen=True)
class Prediction:
    """A model's value of a claim and its interval; `relation` where the claim's own does not say it."""

    model: float
    low: float
    high: float
    relation: Relation | None = None

    @classmethod
    def of(cls, model: float) -> "Prediction":
        """A value without interval."""
        return cls(model, model, model)


@dataclasses.dataclass(frozen=True)
class Claim:
    """One claim as the file states it.

    Attributes:
      value: as printed; ranges 'a-b', pairs 'a / b'.
      tolerance: relative; None unless the class is predicted.
      relation: 'equal', 'below', 'above', 'range' (all of the prediction lies in it) or 'true'.
      reason: from what it is predicted, or what is missing.
    """

    system: str
    claim: str
    value: str
    unit: str
    kind: str
    tolerance: float | None
    relation: str
    reason: str
    source: str

    @property
    def number(self) -> float:
        """The value as a number; 'true' is 1, 'a to b' is b. ValueError for a range or a pair."""
        return 1.0 if self.value == "true" else float(self.value.split(" to ")[-1])

    @property
    def pair(self) -> tuple[float, float]:
        """Both numbers of a value 'a / b', or both ends of a range 'a-b'. ValueError for any other."""
        sign = "-" if self.relation == "range" else " / "
        low, high = self.value.split(sign)
        return float(low), float(high)

    def row(self, low: float, model: float, high: float, relation: Relation | None = None) -> Row:
        """The claim beside a prediction and its interval; of a pair 'a / b', a is given and b predicted."""
        limits: dict[str, Relation] = {"below": "below", "above": "above", "range": "range"}
        limit = relation or limits.get(self.relation, "equal")
        name = f"{self.system}: {self.claim}"
        ends = self.pair if self.relation == "range" else None
        published = ends[0] if ends else self.pair[1] if " / " in self.value else self.number
        return Row(
            name, self.unit, published, model, low, high, self.tolerance, self.source, self.reason, limit,
            ends[1] if ends else None,
        )  # fmt: skip


@functools.cache
def published_claims() -> tuple[Claim, ...]:
    """Every claim of the file, in its order."""
    entry = importlib.resources.files("cooptim.validate") / "published" / "claims.csv"
    rows = csv.DictReader(entry.read_text(encoding="utf-8").splitlines())
    return tuple(_claim(row) for row in rows)


def _claim(row: dict[str, str]) -> Claim:
    same = {name: row[name] for name in ("system", "claim", "value", "unit", "relation", "reason", "source")}
    return Claim(kind=row["class"], tolerance=float(row["tolerance"]) if row["tolerance"] else None, **same)


def claim_of(system: str, claim: str) -> Claim:
    """The claim of this system and name; ValueError lists the system's claims for any other."""
    for one in published_claims():
        if (one.system, one.claim) == (system, claim):
            return one
    have = ", ".join(one.claim for one in published_claims() if one.system == system) or "none"
    raise ValueError(f"claim '{claim}' of '{system}' is not known; claims of that system: {have}")
