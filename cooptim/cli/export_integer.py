"""`cooptim export integer`."""

import argparse
import pathlib

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from cooptim.cli.model import as_saved, dataset, network
from cooptim.export import load_design
from cooptim.export.integer_file import save_integer
from cooptim.hardware.load import load_machine
from cooptim.integer import IntegerNetwork, load_integer, predict
from cooptim.network.integer import IntegerOptions, integer_network

_CHUNK = 256  # images at a time


def run(options: argparse.Namespace) -> int:
    """Writes a run's final network in integers, reads it back, and runs it beside the float function."""
    folder, data = pathlib.Path(options.directory), dataset(options)
    machine = load_machine(options.machine)
    traced, params, state = as_saved(network(options, data.sample), folder / "weights.npz", data.sample)
    design = load_design(folder / "design.json", traced.workload, machine)
    settings = IntegerOptions(
        accumulator_bits=min(machine.datapath.accumulator_bits, 62), input_range=options.input_range
    )
    save_integer(options.out, integer_network(traced, params, state, design, data.sample, settings))
    integer = load_integer(options.out)
    console = Console()
    console.print(_table(integer))
    if integer.head:
        console.print(f"left to floats behind the integers: {', '.join(integer.head)}")
    apply = jax.jit(lambda x: traced.apply(params, state, x, design)[0])
    if len(integer.outputs) == 1:
        parts = [data.x_test[i : i + _CHUNK] for i in range(0, len(data.x_test), _CHUNK)]
        floats = np.concatenate([np.argmax(np.asarray(apply(part)), -1) for part in parts])
        wholes = np.concatenate([np.argmax(predict(integer, part)[0], -1) for part in parts])
        console.print(
            f"test set, {len(floats)} images: float function {_share(floats, data.y_test)}, integers "
            f"{_share(wholes, data.y_test)}, same prediction {_share(wholes, floats)}"
        )
    console.print(f"written to {options.out}: integer.json, integer.npz")
    return 0


def _share(found: np.ndarray, wanted: np.ndarray) -> str:
    return f"{100 * float(np.mean(found == wanted)):.2f} %"


def _table(integer: IntegerNetwork) -> Table:
    """Words and accumulators of each layer."""
    shared = ", weights as labels of table values" if any(layer.table_bits for layer in integer.layers) else ""
    table = Table(title=f"{integer.name} in integers{shared}", title_justify="left")
    table.add_column("layer")
    for name in ("weights [bit]", "inputs [bit]", "accumulators [bit]"):
        table.add_column(name, justify="right")
    for layer in integer.layers:
        signed = "signed" if layer.input_signed else "unsigned"
        words = f"{layer.weight_bits} of {layer.table_bits}" if layer.table_bits else str(layer.weight_bits)
        table.add_row(layer.name, words, f"{layer.input_bits} {signed}", str(layer.accumulator_bits))
    return table
