"""How a layer is cut into tiles between buffer and DRAM, and the words that moves."""

from cooptim.mapping.frontier import frontier_sizes, tilings
from cooptim.mapping.tilings import Tilings

__all__ = ["Tilings", "frontier_sizes", "tilings"]
