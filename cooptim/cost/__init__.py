"""What a design costs: energy, latency and area of one inference, and the least that any design can cost.

`cooptim.cost.evaluate.evaluate` prices a design, `cooptim.cost.bound.energy_bound_pj` bounds all of them.
"""

from cooptim.cost.report import COMPONENTS, CostReport

__all__ = ["COMPONENTS", "CostReport"]
