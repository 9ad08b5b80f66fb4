"""`cooptim export zigzag` and `cooptim export integer`."""

import argparse
import pathlib
import re

from cooptim.cli.replay import Job, jobs
from cooptim.export.zigzag import write_zigzag


def run(options: argparse.Namespace) -> int:
    """Runs the exporter that was named."""
    if options.target == "integer":
        from cooptim.cli.export_integer import run as run_integer

        return run_integer(options)
    return _zigzag(options)


def _zigzag(options: argparse.Namespace) -> int:
    """Writes mappings for replay in another tool: a folder a case of a golden file, or one for a whole mapping.json."""
    chosen = _chosen(jobs(options.file), options)
    out = pathlib.Path(options.out)
    for job in chosen:
        folder = write_zigzag(out / _plain(job.name), job.machine, job.layers)
        many = f"{job.name} ({len(job.layers)} layers)" if len(job.layers) > 1 else job.name
        print(f"{many}: {folder}")
    print(f"replay and compare: cooptim validate --with zigzag {out}")
    return 0


def _chosen(found: tuple[Job, ...], options: argparse.Namespace) -> tuple[Job, ...]:
    if options.case is None:
        names = [_plain(job.name) for job in found]
        clash = next((job for job in found if names.count(_plain(job.name)) > 1), None)
        if clash is not None:
            raise ValueError(
                f"{options.file}: case {clash.name}: shares the folder {_plain(clash.name)} with another; rename, or "
                "use --case"
            )
        return found
    alone = [Job(layer[0], job.machine, (layer,)) for job in found for layer in job.layers]
    chosen = tuple(job for job in alone if job.name == options.case)
    if not chosen:
        raise ValueError(f"--case {options.case}: not in {options.file}; it has {', '.join(job.name for job in alone)}")
    return chosen


def _plain(name: str) -> str:
    """A name that is a folder on every system."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name).lstrip(".") or "_"
