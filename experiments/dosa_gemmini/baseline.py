"""DOSA's own best design, from `reference/dosa_baseline.json`."""

import dataclasses
import json
import pathlib

from model import ACCUMULATOR_ORDER, DIMS, Hardware, Layer, Mapping


@dataclasses.dataclass(frozen=True)
class Baseline:
    """The best rounded design of DOSA's gradient run and what DOSA's code prices it at."""

    layers: tuple[Layer, ...]
    mappings: tuple[Mapping, ...]
    energy_uj: float
    cycles: float
    edp: float
    hardware: Hardware


def find() -> pathlib.Path | None:
    """The file in the nearest folder `shared` up the tree, or None."""
    for parent in pathlib.Path(__file__).resolve().parents:
        path = parent / "shared" / "reference" / "dosa_baseline.json"
        if path.is_file():
            return path
    return None


def _order(ranks: list[float]) -> str:
    """Dims from the innermost out, by rank."""
    return "".join(dim for _, dim in sorted(zip(ranks, DIMS, strict=True)))


def mapping_of(name: str, flat: list[int]) -> Mapping:
    """A mapping from DOSA's 84 numbers: per level (DRAM, scratchpad, accumulator, register) spatial, temporal, order.

    Factors of P and Q at the register are the innermost loops, which DOSA's code merges with the accumulator's.
    Raises ValueError for what the map space does not allow.
    """
    if len(flat) != 84:
        raise ValueError(f"{name}: a flat mapping has 84 numbers (4 levels x 3 x 7 dims), this one {len(flat)}")
    parts = [[flat[7 * (3 * level + kind) :][:7] for kind in range(3)] for level in range(4)]
    (dram_space, dram, dram_order), (sp_space, sp, _), (acc_space, acc, acc_order), (reg_space, reg, _) = parts
    ones = dram_space + sp + reg_space + sp_space[:5] + sp_space[6:] + acc_space[:4] + acc_space[5:]
    ones += [n for dim, n in zip(DIMS, reg, strict=True) if dim not in "PQ"] + [acc[6]]
    if any(n != 1 for n in ones) or _order(acc_order) != ACCUMULATOR_ORDER:
        raise ValueError(
            f"{name}: the map space has spatial C at the accumulator and K at the scratchpad, no temporal loop at the "
            f"scratchpad, and {ACCUMULATOR_ORDER} at the accumulator; this mapping has other factors or order"
        )
    inner = [a * b for a, b in zip(acc, reg, strict=True)][:6]
    mapping = Mapping(acc_space[4], sp_space[5], tuple(inner), _order(dram_order))
    bounds = [int(n) for n in name.split("_")]
    if [mapping.tile(dim) * n for dim, n in zip(DIMS, dram, strict=True)] != bounds[:7]:
        raise ValueError(f"{name}: factors multiply to other bounds than {bounds[:7]} (RSPQCKN)")
    return mapping


def load(path: pathlib.Path) -> Baseline:
    """The baseline; ValueError names what a file of another kind lacks."""
    try:
        run = json.loads(path.read_text())["measured_here"]["gradient_run"]
        best = min(run["trace"], key=lambda row: row["rounded_best_order"])
        rows, edp, chip = run["best_mappings"], run["best_edp_uJ_cycles"], run["best_hw"]
        energy, slow = best["energy_uJ"], best["cycles"]
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: no record of DOSA's gradient run ({error}); give dosa_baseline.json") from error
    layers = []
    for row in rows:
        bounds = [int(n) for n in row["layer"].split("_")]  # RSPQCKN, Wstride, Hstride, dilations
        layers.append(Layer(row["layer"], *bounds[:6], bounds[7], bounds[8], row["count"]))
    mappings = tuple(mapping_of(row["layer"], row["flat"]) for row in rows)
    return Baseline(tuple(layers), mappings, energy, slow, edp, Hardware(*chip))
