"""Does the model tell the truth: published numbers beside the model's."""

from cooptim.validate.golden import Row, envision_rows

__all__ = ["Row", "envision_rows"]
