"""Files that outlive a run: the design, the weights, the figures; no pickle, nothing half-written."""

from cooptim.export.atomic import require_writable
from cooptim.export.design_file import load_design, load_stats, save_design
from cooptim.export.result_file import read_result, write_result
from cooptim.export.weights_file import load_weights, save_weights

__all__ = [
    "load_design",
    "load_stats",
    "load_weights",
    "read_result",
    "require_writable",
    "save_design",
    "save_weights",
    "write_result",
]
