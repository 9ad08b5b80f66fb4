"""Does the model tell the truth: published numbers and what other tools answer beside the model's."""

from cooptim.validate.compare import GoldenRow
from cooptim.validate.golden import Row, envision_rows

__all__ = ["GoldenRow", "Row", "envision_rows"]
