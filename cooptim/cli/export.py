"""`cooptim export zigzag`."""

import argparse
import pathlib
import re

from cooptim.cli.replay import golden_cases
from cooptim.export.zigzag import write_zigzag
from cooptim.validate.zigzag import ZigzagCase


def run(options: argparse.Namespace) -> int:
    """Writes the mappings of a golden file for replay in another tool, one folder a case."""
    cases = _chosen(golden_cases(options.file), options)
    out = pathlib.Path(options.out)
    for case in cases:
        folder = write_zigzag(out / _plain(case.id), case.machine, [(case.id, case.shape, case.mapping)])
        print(f"{case.id}: {folder}")
    print(f"replay and compare: cooptim validate --with zigzag {out}")
    return 0


def _chosen(cases: tuple[ZigzagCase, ...], options: argparse.Namespace) -> tuple[ZigzagCase, ...]:
    if options.case is None:
        names = [_plain(case.id) for case in cases]
        clash = next((case for case in cases if names.count(_plain(case.id)) > 1), None)
        if clash is not None:
            raise ValueError(f"{clash.where}: shares the folder {_plain(clash.id)} with another; rename, or use --case")
        return cases
    chosen = tuple(case for case in cases if case.id == options.case)
    if not chosen:
        raise ValueError(f"--case {options.case}: not in {options.file}; it has {', '.join(case.id for case in cases)}")
    return chosen


def _plain(name: str) -> str:
    """A name that is a folder on every system."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name).lstrip(".") or "_"
