"""Any JAX network as a workload, and the same network under a design.

`trace` reads the jaxpr of the user's function and finds its multiply-accumulate layers; `Network.apply` runs the same
jaxpr with quantized and masked operands. The network is never rewritten.
"""

from cooptim.network.errors import ErrorRates
from cooptim.network.flow import UnpriceableError
from cooptim.network.stats import Observation, Stats, dense_stats
from cooptim.network.tag import tag
from cooptim.network.trace import Network, OperandDesign, trace

__all__ = [
    "ErrorRates",
    "Network",
    "Observation",
    "OperandDesign",
    "Stats",
    "UnpriceableError",
    "dense_stats",
    "tag",
    "trace",
]
