"""Breaks the package on purpose, one fact at a time, and prints which breaks no test notices.

    python tests/mutants.py            every mutant; exit status 1 when one survives
    python tests/mutants.py --list     their names
    python tests/mutants.py snap sum   those whose names hold one of these words

Energy terms are dropped (from the report and from its sum), knob leaves are cut off from the gradient, snaps land one
step beside; mappings lose transfers, conventions, prices of cuts and parts of their cycles (`mutants_mapping`), chips
gradients and prices, residency its needs, sets of mappings what they compare (`mutants_chip`). The lists come from the
code, so that a new term, leaf or snap without a test shows here. One process collects the tests once and patches
functions in memory; no file changes.
"""

import contextlib
import dataclasses
import functools
import os
import pathlib
import sys
from collections.abc import Callable, Iterator

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
KILLERS: dict[str, tuple[str, ...]] = {  # fast tests, by the first word of a mutant's name
    "term": ("tests/cost/test_oracle.py", "tests/properties/test_energy_sums.py", "tests/cost/test_switching.py"),
    "sum": ("tests/properties/test_energy_sums.py", "tests/cost/test_switching.py"),
    "knob": (
        "tests/properties/test_knobs_reach_the_cost.py",
        "tests/design/test_methods.py",
        "tests/descent/test_stages.py",
        "tests/network/test_codebook_method.py",
    ),
    "snap": ("tests/properties/test_snaps.py",),
}
SLOW = ("[1024]",)  # ids left out


@contextlib.contextmanager
def rebound(old: object, new: object) -> Iterator[None]:
    """Every global of the package and its tests that is `old`, alone or in a tuple, is `new` for a while."""
    undo: list[Callable[[], None]] = []
    for module in list(sys.modules.values()):
        if not getattr(module, "__name__", "").startswith(("cooptim", "tests", "test_")):
            continue
        for name, value in list(vars(module).items()):
            if value is old:
                changed: object = new
            elif type(value) is tuple and any(item is old for item in value):
                changed = tuple(new if item is old else item for item in value)
            else:
                continue
            undo.append(functools.partial(setattr, module, name, value))
            setattr(module, name, changed)
    if not undo:
        raise RuntimeError(f"{old} is bound nowhere: the mutant would change nothing")
    try:
        yield
    finally:
        for back in undo:
            back()


@contextlib.contextmanager
def replaced(owner: type, name: str, new: object) -> Iterator[None]:
    """The attribute of a class is `new` for a while."""
    old = owner.__dict__[name]
    setattr(owner, name, new)
    try:
        yield
    finally:
        setattr(owner, name, old)


def dropped_terms() -> dict[str, Callable[[], contextlib.AbstractContextManager]]:
    """Each energy term of the report set to zero where it is made."""
    import jax.numpy as jnp

    from cooptim.cost.evaluate import evaluate
    from cooptim.cost.report import COMPONENTS, CostReport

    scalars = [f.name for f in dataclasses.fields(CostReport) if f.name.endswith("_pj") and f.name != "energy_pj"]

    def without(term: str) -> Callable:
        @functools.wraps(evaluate)
        def mutant(*args, **kwargs):
            report = evaluate(*args, **kwargs)
            if term in scalars:
                held = getattr(report, term)  # None where the machine has no such term
                return dataclasses.replace(report, **{term: None if held is None else jnp.zeros_like(held)})
            energy = {**report.energy_pj, term: jnp.zeros_like(report.energy_pj[term])}
            return dataclasses.replace(report, energy_pj=energy)

        return mutant

    return {f"term {t}": functools.partial(rebound, evaluate, without(t)) for t in (*COMPONENTS, *scalars)}


def dropped_summands() -> dict[str, Callable[[], contextlib.AbstractContextManager]]:
    """Each energy term left out of the sums of a report."""
    from cooptim.cost.report import COMPONENTS, CostReport

    layer_sum, total = (CostReport.__dict__[name].fget for name in ("layer_energy_pj", "total_energy_pj"))
    short = {
        f"sum {t}": functools.partial(
            replaced, CostReport, "layer_energy_pj", property(lambda r, t=t: layer_sum(r) - r.energy_pj[t])
        )
        for t in COMPONENTS
    }
    whole = {
        "standby_pj": property(lambda r: total(r) - r.standby_pj),
        "switching_pj": property(lambda r: total(dataclasses.replace(r, switching_pj=None))),
    }
    long = {f"sum {t}": functools.partial(replaced, CostReport, "total_energy_pj", p) for t, p in whole.items()}
    return {**short, **long}


def detached_knobs() -> dict[str, Callable[[], contextlib.AbstractContextManager]]:
    """Each leaf of the knobs without a gradient."""
    import jax

    from cooptim.design.knobs import Knobs
    from cooptim.design.space import DesignSpace

    decode = DesignSpace.decode

    def without(leaf: str) -> Callable:
        @functools.wraps(decode)
        def mutant(self, knobs, *args, **kwargs):
            held = jax.lax.stop_gradient(getattr(knobs, leaf))
            return decode(self, dataclasses.replace(knobs, **{leaf: held}), *args, **kwargs)

        return mutant

    leaves = [field.name for field in dataclasses.fields(Knobs)]
    return {f"knob {leaf}": functools.partial(replaced, DesignSpace, "decode", without(leaf)) for leaf in leaves}


def shifted_snaps() -> dict[str, Callable[[], contextlib.AbstractContextManager]]:
    """Each snap one bit, level, mode, row or grid step beside where it should be; up and down."""
    import jax.numpy as jnp

    from cooptim.design.legal import SNAPS

    def moved(space, design, field: str, by: int):
        machine, value = space.machine, getattr(design, field)
        if field in ("mode", "tiling"):
            return jnp.roll(value, by, axis=-1)
        grids = {
            "weight_bits": 1.0,
            "input_bits": 1.0,
            "weight_range": design.weight_step,
            "input_range": design.input_step,
            "supply_v": machine.supply.step_v,
            "freq_ghz": machine.supply.step_ghz,
            "buffer_bits": machine.buffer.step_bits,
        }
        return value + by * grids[field]

    touches = {  # what each snap decides; a new snap must say so here
        "snap_widths": ("weight_bits", "weight_range", "input_bits", "input_range"),
        "snap_mode": ("mode",),
        "snap_buffer": ("buffer_bits",),
        "snap_tiling": ("tiling",),
        "snap_supply": ("supply_v", "freq_ghz"),
    }

    def beside(snap: Callable, field: str, by: int) -> Callable:
        @functools.wraps(snap)
        def mutant(space, design):
            landed = snap(space, design)
            return dataclasses.replace(landed, **{field: moved(space, landed, field, by)})

        return mutant

    return {
        f"snap {snap.__name__} {field} {by:+d}": functools.partial(rebound, snap, beside(snap, field, by))
        for snap in SNAPS
        for field in touches[snap.__name__]
        for by in (1, -1)
    }


def forget() -> None:
    """Empties what was computed or compiled before: caches would hide a mutant."""
    import jax

    jax.clear_caches()
    for module in list(sys.modules.values()):
        if getattr(module, "__name__", "").startswith(("cooptim", "tests", "test_")):
            for value in list(vars(module).values()):
                if callable(getattr(value, "cache_clear", None)):
                    value.cache_clear()


class Hunt:
    """A pytest plugin that runs the collected tests against each mutant until one fails."""

    def __init__(self, words: list[str], only_list: bool) -> None:
        self.words, self.only_list = words, only_list
        self.survivors: list[str] = []
        self.broken: list[str] = []  # tests that fail without any mutant
        self.reason = ""  # of the last failure

    def fails(self, items: list[pytest.Item]) -> str | None:
        """Name of the first test that fails."""
        from _pytest.runner import runtestprotocol

        for item in items:
            failed = [report for report in runtestprotocol(item, log=False, nextitem=None) if report.failed]
            if failed:
                self.reason = failed[0].longreprtext
                return item.name
        return None

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Replaces pytest's own loop."""
        if session.testsfailed:  # collection errors
            self.broken.append("collection")
            return True
        from tests.mutants_chip import chip_mutants
        from tests.mutants_mapping import mapping_mutants

        _without_shrinking()
        mutants = {
            **dropped_terms(),
            **dropped_summands(),
            **detached_knobs(),
            **shifted_snaps(),
            **mapping_mutants(),
            **chip_mutants(),
        }
        mutants = {n: m for n, m in mutants.items() if not self.words or any(word in n for word in self.words)}
        items = {
            kind: [i for i in session.items if i.nodeid.startswith(paths) and not i.name.endswith(SLOW)]
            for kind, paths in _killers().items()
        }
        if self.only_list:
            print("\n".join(mutants))
            return True
        kinds = {name.split()[0] for name in mutants}
        needed = {item.nodeid: item for kind in kinds for item in items[kind]}
        failing = self.fails(list(needed.values()))
        if failing or not all(items[kind] for kind in kinds):
            print(self.reason)
            self.broken.append(failing or "no test was collected for a kind of mutant")
            return True
        for name, mutant in mutants.items():
            forget()
            with mutant():
                killer = self.fails(items[name.split()[0]])
            print(f"{'killed  ' if killer else 'SURVIVES'}  {name}" + (f"  by {killer}" if killer else ""), flush=True)
            if killer is None:
                self.survivors.append(name)
        forget()
        leaked = self.fails(list(needed.values()))  # or the kills above would prove nothing
        if leaked:
            print(self.reason)
            self.broken.append(f"after the last mutant {leaked}")
        print(f"{len(mutants)} mutants, {len(self.survivors)} survive")
        return True


def _killers() -> dict[str, tuple[str, ...]]:
    sys.path[:0] = [] if str(ROOT) in sys.path else [str(ROOT)]
    from tests import mutants_chip, mutants_mapping

    return {**KILLERS, **mutants_mapping.KILLERS, **mutants_chip.KILLERS}


def _without_shrinking() -> None:
    """One counterexample kills; a small one is not needed."""
    from hypothesis import Phase, settings

    phases = (Phase.explicit, Phase.generate)
    settings.register_profile("hunt", phases=phases, report_multiple_bugs=False)
    settings.load_profile("hunt")


def main(arguments: list[str]) -> int:
    """Exit status: 0 when every mutant was killed, 1 when one survives, 2 when the tests fail without any."""
    words = [a for a in arguments if not a.startswith("-")]
    hunt = Hunt(words, "--list" in arguments)
    os.chdir(ROOT)
    files = sorted({path.partition("::")[0] for paths in _killers().values() for path in paths})
    missing = [path for path in files if not (ROOT / path).exists()]
    if missing:
        print(f"mutants: {', '.join(missing)} not found; KILLERS names the tests that must notice")
        return 2
    status = pytest.main([*files, "-qq", "--no-header", "-p", "no:cacheprovider", "-p", "no:randomly"], plugins=[hunt])
    if hunt.broken or status not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        print(f"mutants: {', '.join(hunt.broken) or status} fails without any mutant; mend that first")
        return 2
    return 1 if hunt.survivors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
