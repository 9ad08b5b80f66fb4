"""What another tool answered beside what we answer: one row a quantity, one kind of row for every golden format."""

import dataclasses
import math


@dataclasses.dataclass(frozen=True)
class GoldenRow:
    """One quantity of one case.

    Attributes:
      quantity: its path in the file, with the unit where it has one, such as 'levels.W[0].accesses.read_to_low'.
      tolerance: relative; 0 asks for equal numbers, None is for information only.
      note: why a row is not checked, or what is known about its difference.
    """

    case: str
    quantity: str
    expected: float
    ours: float
    tolerance: float | None
    note: str = ""

    @property
    def relative_error(self) -> float:
        """(ours - expected) / |expected|; 0 where both are equal, infinite where 0 was expected and is not found."""
        if self.ours == self.expected:
            return 0.0
        if self.expected == 0:
            return math.copysign(math.inf, self.ours)
        return (self.ours - self.expected) / abs(self.expected)

    @property
    def holds(self) -> bool | None:
        """Whether the tolerance is kept; None for a row that is not checked. NaN never holds."""
        return None if self.tolerance is None else abs(self.relative_error) <= self.tolerance
