"""`cooptim optimize`."""

import argparse
import dataclasses
import math
import re
from typing import Any

import jax
import numpy as np

from cooptim.cli.model import dataset, network
from cooptim.cli.parser import DEFAULT_LABEL_BITS, DEFAULT_RATIO
from cooptim.cli.quantity import positive
from cooptim.descent.faults import faults_of
from cooptim.descent.lean import lean
from cooptim.descent.plan import Plan, plan_for
from cooptim.descent.recipes import require_tables
from cooptim.descent.result import Budget, Result
from cooptim.descent.run import optimize
from cooptim.export import require_writable, write_result
from cooptim.hardware.load import load_machine
from cooptim.network.shrink import UnshrinkableError, dead_channels
from cooptim.network.trace import Network
from cooptim.reporting import Progress, report

_MANY_DEAD = 0.05  # of the channels


def run(options: argparse.Namespace) -> int:
    """Runs the whole job and writes its directory."""
    goal, lengths = budget(options), plan(options)
    if options.lean < 0:
        raise ValueError(f"--lean {options.lean}: write how many descents let channels leave, 0 for none")
    if not 0 <= options.seed < 2**31:
        raise ValueError(f"--seed {options.seed}: write a whole number from 0 to 2147483647")
    machine = load_machine(options.machine)
    require_tables(machine, methods(options)["label_bits"])  # refused before anything is written
    out = require_writable(options.out)
    data = dataset(options)
    lengths = completed(lengths, options, len(data.x_train))
    if lengths is not None:
        faults_of(machine, lengths)  # refused before anything is trained
    traced = network(options, data.sample, options.seed)
    with Progress() as progress:
        result = optimize(
            traced, machine, data, goal, seed=options.seed, plan=lengths, out=out, resume=options.resume,
            progress=progress,
        )  # fmt: skip
    if options.lean == 0:
        report(result, out)
        _say_dead(traced, result, data.sample)
        return 0
    write_result(out, result)  # whatever comes next, the run is not lost
    try:
        with Progress() as progress:
            _, leaner = lean(traced, machine, data, result, rounds=options.lean, plan=lengths, progress=progress)
    except UnshrinkableError as error:
        report(result, out)
        raise UnshrinkableError(f"--lean {options.lean}: {error}; the run is written without it") from None
    report(leaner, out)
    if leaner is result:
        print(f"--lean {options.lean}: no channel is dead, and no descent kept the accuracy for less; none has left")
    return 0


def _say_dead(traced: Network, result: Result, sample: Any) -> None:
    """A line where many channels of the final network do nothing, for the chip pays for each.

    Nothing where the result is not of the traced network's shapes, as one from which channels have left.
    """
    final = result.designs["final"]
    if _shapes(final.params) != _shapes(traced.params):
        return
    counts = dead_channels(traced, final.params, final.state, sample).values()
    dead, all_ = sum(count for count, _ in counts), sum(count for _, count in counts)
    if dead > _MANY_DEAD * all_:
        print(f"{dead} of {all_} channels are dead and cost energy all the same: add --lean 2")


def _shapes(tree: Any) -> tuple[Any, list[tuple[int, ...]]]:
    return jax.tree.structure(tree), [np.shape(leaf) for leaf in jax.tree.leaves(tree)]


def budget(options: argparse.Namespace) -> Budget:
    """The budgets of the command line in coherent units; ValueError names the option that cannot be read."""
    energy_pj, ratio = None, DEFAULT_RATIO
    if options.energy is not None:
        share = re.fullmatch(r"\s*1\s*/\s*(\d+(?:\.\d+)?)\s*", options.energy)
        if share is None:
            energy_pj = positive("--energy", options.energy, "energy")
        ratio = float(share.group(1)) if share else 0.0
        if share and ratio <= 0:
            raise ValueError(f"--energy {options.energy}: not a share; write 1/25 for a 25th of the 16-bit reference")
    if not (math.isfinite(options.drop) and 0 <= options.drop < 100):
        raise ValueError(f"--drop {options.drop}: write points of accuracy from 0 to 100, such as 0.5")
    return Budget(
        energy_pj=energy_pj,
        energy_ratio=None if energy_pj is not None else ratio,
        latency_ns=None if options.latency is None else positive("--latency", options.latency, "time"),
        area_mm2=None if options.area is None else positive("--area", options.area, "area"),
        accuracy_drop=options.drop / 100.0,
        lift=options.energy is None,  # a share that was asked for stands, or is refused
    )


def plan(options: argparse.Namespace) -> Plan | None:
    """The lengths of a shortened run; None for the default. ValueError names the option that is out of range."""
    if not 0.0 <= options.distill <= 1.0:
        raise ValueError(f"--distill {options.distill:g}: write a share of the loss from 0 to 1, such as 0.5")
    if options.steps is not None and options.steps < 1:
        raise ValueError(f"--steps {options.steps}: at least 1")
    if options.finetune is not None and options.finetune < 1:
        raise ValueError(f"--finetune {options.finetune}: at least 1")
    if options.steps is None and not options.quick:
        return None
    steps = options.steps if options.steps is not None else 20
    fields: dict[str, Any] = {"finetune_steps": max(1, steps // 4)} | training(options)
    shorter = Plan(float_steps=steps, steps=steps, **fields)
    return dataclasses.replace(shorter, attempts=1, uniform_bits=(4,), settle_steps=20) if options.quick else shorter


def completed(lengths: Plan | None, options: argparse.Namespace, images: int) -> Plan | None:
    """`plan`'s answer with default lengths where something else of training was asked for; None for the default."""
    chosen = training(options)
    if lengths is None and any(value != getattr(Plan, field) for field, value in chosen.items()):
        return dataclasses.replace(plan_for(images), **chosen)
    return lengths


def training(options: argparse.Namespace) -> dict[str, Any]:
    """Fields of the plan beside lengths: what training does to images and words, who teaches, what goes wrong in it.

    The length of fine-tuning is among them where it is said: it goes with any other.
    """
    wrong = {"errors": options.errors, "error_map": options.error_map}
    said = {} if options.finetune is None else {"finetune_steps": options.finetune}
    return {"augment": options.augment, "distill_weight": options.distill, **methods(options), **wrong, **said}


def methods(options: argparse.Namespace) -> dict[str, Any]:
    """Fields of the plan that say how words are made; ValueError names the option that cannot be read."""
    pattern = None
    if options.pattern is not None:
        found = re.fullmatch(r"(\d+):(\d+)", options.pattern)
        if found is None:
            raise ValueError(f"--pattern {options.pattern}: write N:M, such as 2:4")
        pattern = (int(found.group(1)), int(found.group(2)))
    bits = options.label_bits
    if options.quantizer != "codebook" and bits is not None:
        raise ValueError(f"--label-bits {bits}: says how large the tables of a codebook are; add --quantizer codebook")
    if options.quantizer == "codebook" and bits is None:
        bits = DEFAULT_LABEL_BITS
    said = {"quantizer": options.quantizer, "per_channel": options.per_channel}
    return said | {"pattern": pattern, "label_bits": bits}
