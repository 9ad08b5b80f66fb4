"""Mutants of chips, of what stays on them and of sets of even mappings for `tests/mutants.py`; the lists come from the
code."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable

from tests.mutants import rebound, replaced

KILLERS: dict[str, tuple[str, ...]] = {  # fast tests, by the first word of a mutant's name
    "chip": ("tests/mapping/test_chip.py::test_every_number",),
    "paid": ("tests/mapping/test_chip.py::test_area_and_leakage",),
    "needs": (
        "tests/mapping/test_residency.py::test_a_chain_of_two",
        "tests/mapping/test_residency.py::test_relaxed_needs",
        "tests/mapping/test_keeping.py",
    ),
    "family": ("tests/mapping/test_even_frontier.py",),
}
Mutants = dict[str, Callable[[], contextlib.AbstractContextManager]]


def detached_chips() -> Mutants:
    """Each kind of number of a chip without a gradient in what its machine costs."""
    import jax

    from cooptim.hardware.chip import Chip, with_chip

    def without(field: str) -> Callable:
        @functools.wraps(with_chip)
        def mutant(machine, chip):
            held = jax.lax.stop_gradient(getattr(chip, field))
            return with_chip(machine, dataclasses.replace(chip, **{field: held}))

        return mutant

    fields = [f.name for f in dataclasses.fields(Chip) if f.name != "sides"]  # sides are passed on beside the machine
    return {f"chip {field}": functools.partial(rebound, with_chip, without(field)) for field in fields}


def unpaid_silicon() -> Mutants:
    """Area and leakage of each part left out."""
    from cooptim.hardware.chip import chip_area_mm2, chip_leakage_mw
    from cooptim.hardware.hierarchy import Hierarchy, Memory

    parts = [
        (law, owner, f.name)
        for law, word in ((chip_area_mm2, "area"), (chip_leakage_mw, "leakage"))
        for owner in (Hierarchy, Memory)
        for f in dataclasses.fields(owner)
        if word in f.name
    ]

    def without(law: Callable, owner: type, field: str) -> Callable:
        @functools.wraps(law)
        def mutant(machine, sides=None):
            if owner is Hierarchy:
                return law(dataclasses.replace(machine, **{field: 0.0}), sides)
            memories = tuple(dataclasses.replace(m, **{field: 0.0}) for m in machine.memories)
            return law(dataclasses.replace(machine, memories=memories), sides)

        return mutant

    return {f"paid {field}": functools.partial(rebound, law, without(law, owner, field)) for law, owner, field in parts}


def forgotten_needs() -> Mutants:
    """Each number that layers ask of the homes, or save by them, zero."""
    from cooptim.mapping.residency import Needs, stay

    def without(field: str) -> Callable:
        @functools.wraps(stay)
        def mutant(known, needs, *args, **kwargs):
            return stay(known, dataclasses.replace(needs, **{field: 0.0 * getattr(needs, field)}), *args, **kwargs)

        return mutant

    fields = [f.name for f in dataclasses.fields(Needs) if f.name.endswith(("_pj", "_bits"))]
    return {f"needs {field}": functools.partial(rebound, stay, without(field)) for field in fields}


def dropped_families() -> Mutants:
    """Each family of functions by which the rows of a box compete left out."""
    from cooptim.mapping.even_box import Features

    families = ("rooms", "ports", "fills")  # without energy nothing competes at all

    return {f"family {name}": functools.partial(replaced, Features, name, lambda self: []) for name in families}


def chip_mutants() -> Mutants:
    """All of them by name."""
    return {**detached_chips(), **unpaid_silicon(), **forgotten_needs(), **dropped_families()}
