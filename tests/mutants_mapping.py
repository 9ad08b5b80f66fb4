"""Mutants of the mapping modules for `tests/mutants.py`; the lists come from the code."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.mutants import rebound, replaced

KILLERS: dict[str, tuple[str, ...]] = {  # fast tests, by the first word of a mutant's name
    "moved": ("tests/mapping/test_cycles_oracle.py",),
    "rules": ("tests/mapping/test_rules.py",),
    "cut": (
        "tests/mapping/test_search.py::test_tiles_in_a_shared_memory_fit_together",
        *(
            f"tests/mapping/test_search.py::test_energy_is_the_least_of_all_orders_and_uneven_cuts[{i}]"
            for i in (0, 1, 2)
        ),
        "tests/mapping/test_network_search.py::test_chains_under_a_limit_on_stalls_trade_energy_for_cycles",
    ),
    "cycles": ("tests/mapping/test_cycles_oracle.py",),
    "total": ("tests/mapping/test_rules.py",),
    "legal": ("tests/mapping/test_nest.py", "tests/badinput/test_mapping.py"),
    "size": ("tests/hardware/test_hierarchy_file.py",),
}
Mutants = dict[str, Callable[[], contextlib.AbstractContextManager]]


def _example():
    """A layer, its nest and a machine in which every operand has two levels."""
    from cooptim.hardware.hierarchy_file import load_hierarchy
    from cooptim.mapping.nest import LayerShape
    from cooptim.mapping.search import unrolled

    shape = LayerShape((1, 1, 4, 4, 4, 4, 3, 3), (1, 1), (1, 1), (6, 6), 8, 8, 16, 8)
    machine = load_hierarchy("tpu_like")
    return unrolled("layer", shape, {}, machine), shape, machine


def dropped_transfers() -> Mutants:
    """Each direction of each operand never moves."""
    from cooptim.mapping.rules import HARDWARE
    from cooptim.mapping.transfers import traffic

    kinds = sorted({(operand, direction) for operand, _, direction in traffic(*_example(), HARDWARE).transfers})

    def without(operand: str, direction: str) -> Callable:
        @functools.wraps(traffic)
        def mutant(*args, **kwargs):
            moved = traffic(*args, **kwargs)
            still = {
                key: dataclasses.replace(t, active=False) if key[::2] == (operand, direction) else t
                for key, t in moved.transfers.items()
            }
            return dataclasses.replace(moved, transfers=still)

        return mutant

    return {f"moved {o} {d}": functools.partial(rebound, traffic, without(o, d)) for o, d in kinds}


def flipped_rules() -> Mutants:
    """Each option of each named set of conventions the other way."""
    from cooptim.mapping.rules import HARDWARE, ZIGZAG

    found: Mutants = {}
    for rules in (HARDWARE, ZIGZAG):
        for field in dataclasses.fields(rules):
            value = getattr(rules, field.name)
            other = not value if isinstance(value, bool) else {"transfer": "none", "none": "transfer"}.get(value)
            if other is not None:
                wrong = dataclasses.replace(rules, **{field.name: other})
                found[f"rules {rules.name} {field.name}"] = functools.partial(rebound, rules, wrong)
    return found


def zeroed_columns() -> Mutants:
    """Each column of the table of cuts zero; where a cut may not lie stays."""
    from cooptim.mapping.lattice import Cut, cut_table

    def without(column: str) -> Callable:
        @functools.wraps(cut_table)
        def mutant(*args, **kwargs):
            table = cut_table(*args, **kwargs)
            cuts = {
                operand: tuple(
                    dataclasses.replace(cut, **{column: np.where(np.isfinite(getattr(cut, column)), 0.0, np.inf)})
                    for cut in held
                )
                for operand, held in table.cuts.items()
            }
            return dataclasses.replace(table, cuts=cuts)

        return mutant

    columns = [f.name for f in dataclasses.fields(Cut) if f.name.endswith(("_pj", "_bits", "_cycles"))]
    return {f"cut {column}": functools.partial(rebound, cut_table, without(column)) for column in columns}


def dropped_cycles() -> Mutants:
    """Each part of the cycles zero where it is made, and left out of their total."""
    from cooptim.mapping.stalls import Cycles, cycles_of

    plain = [f.name for f in dataclasses.fields(Cycles) if f.type is Any]
    example = Cycles(
        **dict.fromkeys(plain, 1.0), **{f.name: {} for f in dataclasses.fields(Cycles) if f.type is not Any}
    )
    parts = [name for name in plain if dataclasses.replace(example, **{name: 0.0}).total < example.total]
    total = Cycles.__dict__["total"].fget

    def without(part: str) -> Callable:
        @functools.wraps(cycles_of)
        def mutant(*args, **kwargs):
            return dataclasses.replace(cycles_of(*args, **kwargs), **{part: 0.0})

        return mutant

    made = {f"cycles {part}": functools.partial(rebound, cycles_of, without(part)) for part in plain}
    summed = {
        f"total {part}": functools.partial(
            replaced, Cycles, "total", property(lambda c, part=part: total(c) - getattr(c, part))
        )
        for part in parts
    }
    return {**made, **summed}


def lenient() -> Mutants:
    """An overfilled memory that nobody minds."""
    from cooptim.mapping.legal import require_legal

    return {"legal require_legal": functools.partial(rebound, require_legal, lambda *args, **kwargs: None)}


def detached_sizes() -> Mutants:
    """The energy of an access without each of the numbers of a memory that it follows."""
    from cooptim.hardware.hierarchy import Memory

    law = Memory.access_scale

    def without(field: str) -> Callable:
        def mutant(self):
            neutral = {"size_bits": self.nominal_bits, "size_exponent": 0.0, "size_table": ()}[field]
            return law(dataclasses.replace(self, **{field: neutral}))

        return mutant

    fields = [f.name for f in dataclasses.fields(Memory) if f.name.startswith("size_")]
    return {f"size {field}": functools.partial(replaced, Memory, "access_scale", without(field)) for field in fields}


def mapping_mutants() -> Mutants:
    """All of them by name."""
    return {
        **dropped_transfers(), **flipped_rules(), **zeroed_columns(), **dropped_cycles(), **lenient(),
        **detached_sizes(),
    }  # fmt: skip
