"""What a network asks of the hardware: loop nests and the words they touch."""

from cooptim.workload import zoo
from cooptim.workload.dims import DIMS, OPERANDS, RELEVANT, Bounds
from cooptim.workload.layer import INPUT, Layer, Workload

__all__ = ["DIMS", "INPUT", "OPERANDS", "RELEVANT", "Bounds", "Layer", "Workload", "zoo"]
