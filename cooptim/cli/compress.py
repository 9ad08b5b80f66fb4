"""`cooptim compress`."""

import argparse
import dataclasses
import math
import pathlib

from rich.console import Console
from rich.table import Table

from cooptim.cli.model import dataset, network
from cooptim.descent.compression import Compression, compression_for, deep_compression
from cooptim.descent.measure import Measure
from cooptim.export import require_writable
from cooptim.export.compressed_file import FileSize, load_compressed, save_compressed
from cooptim.reporting import Progress


def run(options: argparse.Namespace) -> int:
    """Compresses a network, writes its file, reads it back and measures what was read."""
    settings = _settings(options)
    require_writable(pathlib.Path(options.out).parent)
    data = dataset(options)
    if options.steps is None:
        longer = compression_for(len(data.x_train))
        lengths = ("float_steps", "round_steps", "cluster_steps")
        settings = dataclasses.replace(settings, **{name: getattr(longer, name) for name in lengths})
    traced = network(options, data.sample, options.seed)
    with Progress() as progress:
        found = deep_compression(traced, data, settings, seed=options.seed, progress=progress)
    size = save_compressed(options.out, found)
    params, state = load_compressed(options.out, traced)
    test = Measure(traced, 256).accuracy(params, state, None, data.x_test, data.y_test)[0]
    console = Console()
    console.print(_table(size))
    console.print(
        f"{found.float_bytes} bytes as float32, {size.total} in the file: {size.ratio:.1f} times smaller; header "
        f"{size.header}, state {size.state} bytes"
    )
    console.print(
        f"test accuracy {100 * test:.2f} %, float network {100 * found.parent_test_accuracy:.2f} %; validation "
        f"{100 * found.val_accuracy:.2f} and {100 * found.parent_val_accuracy:.2f} %"
    )
    if not found.met:
        console.print(f"the first round already loses more than {options.drop:g} points: prune less or train longer")
    console.print(f"written to {options.out}")
    return 0


def _settings(options: argparse.Namespace) -> Compression:
    """The compression of the command line; ValueError names the option that cannot be."""
    if not (math.isfinite(options.drop) and 0 <= options.drop < 100):
        raise ValueError(f"--drop {options.drop}: write points of accuracy from 0 to 100, such as 0.5")
    if not 0 <= options.seed < 2**31:
        raise ValueError(f"--seed {options.seed}: write a whole number from 0 to 2147483647")
    if options.steps is not None and options.steps < 1:
        raise ValueError(f"--steps {options.steps}: at least 1")
    settings = Compression(accuracy_drop=options.drop / 100.0, label_bits=options.label_bits)
    if options.sparsity:
        settings = dataclasses.replace(settings, sparsities=tuple(options.sparsity))
    if options.steps is not None:
        part = max(1, options.steps // 4)
        settings = dataclasses.replace(settings, float_steps=options.steps, round_steps=part, cluster_steps=part)
    return settings


def _table(size: FileSize) -> Table:
    """Where the bytes are."""
    table = Table(title="bytes of each leaf", title_justify="left")
    table.add_column("leaf")
    table.add_column("kept as")
    for name in ("words", "non-zero", "bytes", "by the size law", "table"):
        table.add_column(name, justify="right")
    for leaf in size.leaves:
        table.add_row(
            leaf.name, leaf.code, str(leaf.words), f"{100 * leaf.density:.1f} %", str(leaf.coded),
            f"{leaf.estimated:.0f}", str(leaf.table),
        )  # fmt: skip
    return table
