"""What a run comes to, as plain numbers and words: what result.json holds and the tables print."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from cooptim.cost.bound import bound_factors
from cooptim.cost.report import COMPONENTS, CostReport
from cooptim.descent.result import Priced, Result
from cooptim.descent.stages import exit_shares
from cooptim.design.design import Design
from cooptim.mapping.tilings import STATIONARITIES, Tilings
from cooptim.relax.method import method_of

SCHEMA = "cooptim-result/1"
DESIGNS: tuple[str, ...] = ("reference_16b", "best_uniform", "best_uniform_pruned", "final")


def summary(result: Result) -> dict[str, Any]:
    """The run as nested dictionaries of finite numbers, words and None; energies [pJ], latencies [ns], fractions.

    A design that was not made, and a number that is not finite, is None; no key is ever missing.
    """
    found = {key: result.designs.get(key) for key in DESIGNS}
    energy = {key: _energy_pj(priced) for key, priced in found.items()}
    relaxed, bound = _number(result.relaxed.total_energy_pj), _number(result.bound_pj)
    ends = {"reference_16b_dense": _number(result.dense_16b_pj), "relaxed": relaxed, "bound": bound}
    final = found["final"]
    gap = energy["final"] / relaxed if energy["final"] and relaxed else None
    return {
        "schema": SCHEMA,
        "workload": {
            "name": result.workload.name,
            "layers": len(result.workload.layers),
            "macs": result.workload.macs,
            "weights": result.workload.weights,
        },
        "machine": result.machine.name,
        "accuracy": {"float": _number(result.float_test_accuracy), **_each(found, lambda p: p.test_accuracy)},
        "accuracy_val": {"float": _number(result.float_val_accuracy), **_each(found, lambda p: p.val_accuracy)},
        "energy_pj": energy | ends,
        "latency_ns": _each(found, lambda p: p.report.total_latency_ns) | {"mean": _mean_latency_ns(final)},
        "exits": _exits(result, final),
        "widths_held": result.widths_held,
        "channels": {name: list(counts) for name, counts in result.channels.items()},
        "label_bits": None if final is None else _label_bits(final.design),
        "errors": None if result.errors is None else _errors(result.errors, found),
        "area_mm2": None if final is None else _number(final.report.area_mm2),
        "gap": gap,
        "fraction_of_bound": {
            # Where channels have left the final design, the bound is of its network alone.
            key: bound / value if bound and value and (key == "final" or not _smaller(result)) else None
            for key, value in energy.items()
        },
        "bound_factors": _bound_factors(result, found["reference_16b"]),
        "local": {key: value if isinstance(value, str) else _number(value) for key, value in result.local.items()},
        "relaxed_parts": list(result.relaxed_parts),
        "snap_drop": _number(result.snap_drop),
        "budget": {
            "energy_pj": _number(result.budget.energy_pj),
            "energy_ratio": _number(result.budget.energy_ratio),
            "latency_ns": _number(result.budget.latency_ns),
            "area_mm2": _number(result.budget.area_mm2),
            "accuracy_drop": _number(result.budget.accuracy_drop),
            "lifted": result.budget.lift,
        },
        "seed": result.seed,
        "versions": dict(result.versions),
    }


def _smaller(result: Result) -> bool:
    """Whether channels have left the final design's network."""
    return any(after < before for before, after in result.channels.values())


def layer_rows(result: Result, tilings: Tilings, key: str = "final") -> list[dict[str, Any]]:
    """One row a layer of a design: choices, what was measured, cycles and energy [pJ] by component."""
    priced = result.designs[key]
    chosen = choices(priced.design, result, tilings)
    r, stats = priced.report, priced.stats
    rows = []
    for i, layer in enumerate(result.workload.layers):
        rows.append(
            {
                "name": layer.name,
                "kind": layer.kind,
                "macs": layer.macs,
                **chosen[i],
                "weight_density": float(stats.weight_density[i]),
                "input_density": float(stats.input_density[i]),
                "cycles": float(r.cycles[i]),
                "latency_ns": float(r.latency_ns[i]),
                "utilization": float(r.utilization[i]),
                "resident_share": float(r.resident_share[i]),
                "kept_share": float(r.kept_share[i]),
                "energy_pj": float(r.layer_energy_pj[i]),
                **{f"{name}_pj": float(r.energy_pj[name][i]) for name in COMPONENTS},
                **_changes(r, i),
            }
        )
    return rows


def _changes(report: CostReport, layer: int) -> dict[str, float]:
    """What entering a layer takes, where it takes anything, and how often it runs, where inputs leave early."""
    found = {"switching_pj": report.switching_pj, "switching_ns": report.switching_ns, "reach": report.reach}
    return {name: float(value[layer]) for name, value in found.items() if value is not None}


def choices(design: Design, result: Result, tilings: Tilings) -> list[dict[str, Any]]:
    """Per layer, what a designer would write down: widths, mode, tile sizes, supply and clock.

    Where a layer has a table of weights, all say how many values theirs has, and `weight_bits` are those of a label.
    """
    modes, rows = np.argmax(np.asarray(design.mode), axis=-1), np.argmax(np.asarray(design.tiling), axis=-1)
    listed, layers = [], len(result.workload.layers)
    tables = [method_of(design.methods, i).entries for i in range(layers)]
    for i in range(layers):
        *tile, stationary = (int(n) for n in tilings.factors[i, rows[i]])
        listed.append(
            {
                "weight_bits": int(design.weight_bits[i]),
                "input_bits": int(design.input_bits[i]),
                **({"table_values": tables[i]} if any(tables) else {}),
                "mode": result.machine.modes[int(modes[i])].name,
                **{f"tile_{name}": size for name, size in zip(("K", "C", "OY", "OX"), tile, strict=True)},
                "stationary": STATIONARITIES[stationary],
                "supply_v": float(design.supply_v[i]),
                "freq_ghz": float(design.freq_ghz[i]),
            }
        )
    return listed


def _label_bits(design: Design) -> int | None:
    """Width of the labels of shared weights, the widest where layers differ; None where no layer has a table."""
    return max((method.label_bits for method in design.methods if method.label_bits is not None), default=None)


def _bound_factors(result: Result, reference: Priced | None) -> dict[str, float | None] | None:
    """The bound's gain over the 16-bit reference as mode gain x gating ceiling x DRAM share."""
    if reference is None or result.bound is None:
        return None
    factors = bound_factors(result.bound, reference.report)
    names = ("mode_gain", "gating_ceiling", "dram_gain", "total")
    return {name: _number(getattr(factors, name)) for name in names}


def _mean_latency_ns(final: Priced | None) -> float | None:
    """Mean over inputs of the final design, where some leave early."""
    return None if final is None or final.report.reach is None else _number(final.report.mean_latency_ns)


def _exits(result: Result, final: Priced | None) -> dict[str, float] | None:
    """Share of inputs that leaves the final design at each exit, by the layer that ends it."""
    return None if final is None or final.report.reach is None else exit_shares(result.workload, final.report.reach)


def _errors(what: tuple[str, str], found: Mapping[str, Priced | None]) -> dict[str, Any]:
    """What was injected, and the spread of the test accuracies over the draws."""
    drawn = {key: None if one is None or not one.test_draws else one.test_draws for key, one in found.items()}
    return {
        "injected": what[0],
        "map": what[1],
        "draws": max((len(draws) for draws in drawn.values() if draws is not None), default=0),
        "accuracy_std": {
            key: None if x is None or len(x) < 2 else float(np.std(x, ddof=1)) for key, x in drawn.items()
        },
        "accuracy_min": {key: None if x is None else float(np.min(x)) for key, x in drawn.items()},
    }


def _each(found: Mapping[str, Priced | None], of: Any) -> dict[str, float | None]:
    return {key: None if priced is None else _number(of(priced)) for key, priced in found.items()}


def _energy_pj(priced: Priced | None) -> float | None:
    return None if priced is None else _number(priced.report.total_energy_pj)


def _number(value: Any) -> float | None:
    """A finite float, or None where there is none."""
    if value is None or not math.isfinite(float(value)):
        return None
    return float(value)
