"""A machine file with another array: the same energy of a MAC, a word and a sum, the same control a MAC and cycle.

Logic, its leakage and its area grow with the MACs, memories stay. Accumulators of a systolic array have no area and no
leakage of their own: what a file's numbers hold of them grows or stays with the part that it stands in. The power of
the reference point and its shares are those that follow. Numbers that follow have no interval: the stated ones are
drawn, and the size is taken after that (`cooptim.hardware.intervals`).
"""

import dataclasses
import math
from typing import Any

from cooptim.hardware.quantity import Quantity
from cooptim.hardware.reference import derived_energies, reference_point
from cooptim.hardware.schema import MachineSchema


def with_array(spec: MachineSchema, rows: int, cols: int) -> MachineSchema:
    """The file of an array of rows x cols MACs; numbers that follow are marked as assumed.

    Its name tells the size, and no silicon checks it. The reference layer grows to whole arrays.

    Raises ValueError where lanes that wait for each other do not follow the size.
    """
    d, r = spec.datapath, spec.reference
    ratio = rows * cols / (d.rows.value * d.cols.value)
    note = f"scaled from {d.rows.value:g}x{d.cols.value:g} to {rows}x{cols}"
    energies, leaking = derived_energies(spec), spec.supply.memory_leakage_share.value
    grows = leaking + (1.0 - leaking) * ratio
    leakage = energies.leakage_mw * grows
    memory = spec.area.total.value * spec.area.memory_share.value
    area = memory + (spec.area.total.value - memory) * ratio

    grown = _copied(spec, {
        "datapath.rows": _chosen(d.rows, rows), "datapath.cols": _chosen(d.cols, cols),
        **{f"reference.layer.{dim}": _chosen(getattr(r.layer, dim), size)
           for dim, size in _whole_arrays(spec, rows, cols).items()},
        "area.total": _follows(spec.area.total, area, note),
        "area.memory_share": _follows(spec.area.memory_share, memory / area, note),
        "supply.memory_leakage_share": _follows(spec.supply.memory_leakage_share, leaking / grows, note),
        **_waiting_lanes(spec, rows, cols),
    })  # fmt: skip
    point = reference_point(grown)
    busy = point.busy_fraction
    parts = {
        "datapath": energies.busy_pj * ratio * point.lanes(d.idle_share.value) / point.divisor + busy * point.extra_pj,
        "sram": energies.access_pj * busy * point.sram_words,
        "leakage": leakage / point.freq_ghz,
    }
    whole = math.fsum([*parts.values(), energies.control_pj * ratio])
    shares = {name: part / whole for name, part in parts.items()}
    shares["control"] = max(1.0 - sum(shares.values()), 0.0)  # rounding leaves less than nothing of none
    chip = None if spec.chip is None else spec.chip.model_copy(update={"peak": None})
    found = _copied(grown, {
        "reference.power": _follows(r.power, whole * point.freq_ghz, note),
        **{f"reference.shares.{name}": _follows(getattr(r.shares, name), x, note) for name, x in shares.items()},
    })  # fmt: skip
    title = f"{spec.title}, {rows}x{cols}"
    return found.model_copy(
        update={"name": f"{spec.name}_{rows}x{cols}", "title": title, "illustrative": True, "chip": chip}
    )


def _whole_arrays(spec: MachineSchema, rows: int, cols: int) -> dict[str, int]:
    """Bounds of the reference layer that fill the new array as often as the old one, at least once."""
    d, layer = spec.datapath, spec.reference.layer
    along = {"K": (d.rows, rows), "OX": (d.cols, cols)}
    if d.systolic is not None:
        along = {"K": (d.cols, cols), "C": (d.rows, rows)}
    return {dim: new * math.ceil(getattr(layer, dim).value / old.value) for dim, (old, new) in along.items()}


def _waiting_lanes(spec: MachineSchema, rows: int, cols: int) -> dict[str, Quantity]:
    """Lanes that wait for each other: with queues the rows deal out a column, so they grow with them."""
    skipping, d = spec.mechanisms.zero_skipping, spec.datapath
    if skipping is None or (rows, cols) == (d.rows.value, d.cols.value):
        return {}
    field, stated = "mechanisms.zero_skipping.lanes", skipping.lanes.value
    own = f"{d.rows.value:g}x{d.cols.value:g}"
    if skipping.queue is None:
        raise ValueError(f"{field}: {stated:g} belong to the {own} of the file; legal: {own} alone")
    lanes = stated * rows / d.rows.value
    if lanes != int(lanes):
        raise ValueError(f"{field}: {stated:g} of {own} are {lanes:g} of {rows}x{cols}; legal: a whole number")
    return {field: _chosen(skipping.lanes, lanes)}


def _copied(node: Any, values: dict[str, Quantity]) -> Any:
    """The section with these numbers by path."""
    below: dict[str, dict[str, Quantity]] = {}
    for path, value in values.items():
        name, _, rest = path.partition(".")
        below.setdefault(name, {})[rest] = value
    update = {name: some[""] if "" in some else _copied(getattr(node, name), some) for name, some in below.items()}
    return node.model_copy(update=update)


def _chosen(q: Quantity, value: float) -> Quantity:
    return dataclasses.replace(q.at(float(value)), interval=None, assumed=True, source="chosen")


def _follows(q: Quantity, value: float, note: str) -> Quantity:
    """A number that follows from the size."""
    return dataclasses.replace(q.at(value), interval=None, assumed=True, source=f"{q.source}; {note}")
