"""Does the model tell the truth: published numbers and what other tools answer beside the model's."""

from cooptim.validate.chips import dvas_rows, simd_rows, yodann_rows
from cooptim.validate.compare import GoldenRow
from cooptim.validate.eie import eie_rows
from cooptim.validate.eyeriss import eyeriss_rows
from cooptim.validate.eyeriss_mapping import mapping_rows
from cooptim.validate.golden import envision_rows
from cooptim.validate.multiplier import multiplier_rows
from cooptim.validate.row import Row

__all__ = [
    "GoldenRow",
    "Row",
    "dvas_rows",
    "eie_rows",
    "envision_rows",
    "eyeriss_rows",
    "mapping_rows",
    "multiplier_rows",
    "simd_rows",
    "yodann_rows",
]
