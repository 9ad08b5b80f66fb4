"""Differentiable hardware/software co-optimization: weights and hardware knobs in one gradient descent.

The names below are loaded on first use, so that `import cooptim` costs nothing and changes no global state.
"""

import importlib
from typing import Any

_HOME: dict[str, str] = {
    "trace": "cooptim.network.trace",
    "tag": "cooptim.network.tag",
    "with_exits": "cooptim.network.exits",
    "low_rank": "cooptim.network.low_rank",
    "lean": "cooptim.descent.lean",
    "learn_ranks": "cooptim.descent.ranks",
    "Network": "cooptim.network.trace",
    "Stats": "cooptim.network.stats",
    "dense_stats": "cooptim.network.stats",
    "Workload": "cooptim.workload",
    "Layer": "cooptim.workload",
    "Bounds": "cooptim.workload",
    "load_machine": "cooptim.hardware.load",
    "machine_names": "cooptim.hardware.load",
    "Machine": "cooptim.hardware.machine",
    "tilings": "cooptim.mapping.frontier",
    "DesignSpace": "cooptim.design.space",
    "Design": "cooptim.design.design",
    "Method": "cooptim.relax.method",
    "Knobs": "cooptim.design.knobs",
    "Phase": "cooptim.design.knobs",
    "evaluate": "cooptim.cost.evaluate",
    "CostReport": "cooptim.cost.report",
    "energy_bound_pj": "cooptim.cost.bound",
    "load_data": "cooptim.data",
    "data_from_batches": "cooptim.data",
    "Dataset": "cooptim.data",
    "Budget": "cooptim.descent.result",
    "Result": "cooptim.descent.result",
    "Plan": "cooptim.descent.plan",
    "optimize": "cooptim.descent.run",
    "calibrate": "cooptim.descent.calibrate",
    "deep_compression": "cooptim.descent.compression",
    "Compression": "cooptim.descent.compression",
    "save_compressed": "cooptim.export.compressed_file",
    "load_compressed": "cooptim.export.compressed_file",
    "report": "cooptim.reporting.run",
    "pareto": "cooptim.reporting.pareto",
    "report_front": "cooptim.reporting.pareto",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"cooptim has no name '{name}'; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
