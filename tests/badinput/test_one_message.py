"""Bad input ends a command with exit code 2, one message of who, what, what is legal and the remedy, and no file."""

import gzip
import importlib.resources
import json
import re
import struct

import numpy as np
import pytest

from cooptim.descent.checkpoint import Checkpoints
from tests.reporting import fake_run

pytestmark = pytest.mark.float32  # as a program of its own runs
TEXT = (importlib.resources.files("cooptim.hardware") / "machines" / "envision.yaml").read_text()
SHAPE = ("--input-shape", "8x8x1")
# The shortest run: one step of everything.
SHORT = ("optimize", "--model", "nets:dense", "--quick", "--steps", "1", "--out", "run")


def missing(message, *parts):
    """What the message does not say, followed by the message; empty when it says all."""
    left_out = [part for part in parts if not re.search(part, message)]
    return [*left_out, message] if left_out else []


# Who, what was found, what is legal, the remedy.
NETWORKS = {
    "by_hand": ("taps: ", "9216 multiply-accumulates beside 9376", "must not be priced at zero", "write them as"),
    "until_large": ("w: its dot_general", "trip count is unknown", "when its length is fixed", "use lax.scan"),
    "solved": ("w: primitive 'custom_linear_solve'", "no known loop nest", "priced are conv_general", "write it with"),
}


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("command", ["trace", "evaluate"])
def test_multiplications_that_have_no_price_are_named(refused, command, network):
    assert not missing(refused(command, "--model", f"nets:{network}", *SHAPE), *NETWORKS[network])


def test_optimize_refuses_a_network_it_cannot_price_before_any_training(refused):
    assert not missing(refused("optimize", "--model", "nets:by_hand", "--out", "run"), *NETWORKS["by_hand"])


def _design_file(path, **changes):
    layer = {
        **{name: 4.0 for name in ("weight_bits", "input_bits", "weight_range", "input_range")},
        **{name: 1.0 for name in ("weight_step", "input_step", "threshold", "supply_v", "freq_ghz")},
        "input_signed": False, "mode": "4x4b", "tile": {"K": 10, "C": 64, "OY": 1, "OX": 1}, "stationary": "W",
    }  # fmt: skip
    content = {"schema": "cooptim-design/1", "workload": "<lambda>", "machine": "envision", "buffer_bits": 1048576.0}
    path.write_text(json.dumps({**content, "layers": {"w": layer}, **changes}))
    return path


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"layers": {"w": {}, "conv9": {}}}, ("design.json", "unknown layer conv9", "has w", "use a design of this")),
        ({"layers": {}}, ("design.json", "missing layer w", "has w", "use a design of this")),
        ({"layers": {"w": {}}}, ("design.json, layer w", "missing", "a layer has")),
        ({}, ("design.json", "not buildable on envision", r"layers\.w\.freq_ghz: clock 1\.0000 GHz", "write 0")),
    ],
)
def test_a_design_of_other_layers_is_named_with_those_of_the_network(refused, here, changes, parts):
    file = _design_file(here / "design.json", **changes)
    assert not missing(refused("evaluate", "--model", "nets:dense", *SHAPE, "--design", file), *parts)


FLOOR = next(line for line in TEXT.splitlines() if line.strip().startswith("floor_v"))
MACHINES = {
    "wrong unit": (FLOOR, FLOOR.replace("unit: V", "unit: pJ"), ("supply.floor_v", "pJ", "mV, V")),
    "negative number": (FLOOR, FLOOR.replace("value: ", "value: -"), ("supply.floor_v", "-0", "above 0")),
    "NaN": (FLOOR, "  floor_v: {value: .nan, unit: V, assumed: false, source: s}", ("floor_v", "nan", "number")),
    "missing number": (FLOOR + "\n", "", ("supply.floor_v", "missing")),
    "missing level": ("buffer:\n", "cache:\n", ("buffer", "missing")),
    "no level at all": (TEXT[TEXT.index("dram:\n") : TEXT.index("area:\n")], "", ("dram", "missing")),
    "key twice": ("name: envision\n", "name: envision\nname: mine\n", ("'name' a second time",)),
}


@pytest.mark.parametrize("fault", MACHINES)
@pytest.mark.parametrize(
    "command", [("machines", "show"), ("validate", "--machine"), ("evaluate", *SHAPE, "--machine")]
)
def test_a_faulty_machine_file_is_named_with_the_field_and_what_is_legal(refused, here, command, fault):
    old, new, parts = MACHINES[fault]
    assert TEXT.count(old) == 1
    (here / "mine.yaml").write_text(TEXT.replace(old, new))
    assert not missing(refused(*command, "mine.yaml"), "machine file mine.yaml", *parts)


def test_optimize_reads_the_machine_before_it_makes_a_directory(refused, here):
    (here / "mine.yaml").write_text(TEXT.replace(FLOOR, FLOOR.replace("unit: V", "unit: mW")))
    assert not missing(refused(*SHORT, "--machine", "mine.yaml"), "mine.yaml", "supply.floor_v", "mW", "mV, V")
    assert not (here / "run").exists()


def _npz(path, **changes):
    images = np.zeros((30, 8, 8), np.uint8)
    labels = (np.arange(30) % 3).astype(np.uint8)
    np.savez(path, **{"x_train": images, "y_train": labels, "x_test": images, "y_test": labels} | changes)
    return path


DATA = {
    "shape": ({"x_train": np.zeros((30, 2, 2, 2, 2), np.uint8)}, ("x_train: shape", r"legal are \[n, y, x\]")),
    "dtype": ({"x_test": np.zeros((30, 8, 8), np.int64)}, ("x_test: dtype int64", "store uint8")),
    "labels beyond the training's": ({"y_test": np.full(30, 7)}, ("y_test: label 7", "end at 2")),
    "labels below zero": ({"y_train": np.full(30, -2)}, ("y_train: label -2", "number the classes from 0")),
    "one label too few": ({"y_train": np.zeros(29, int)}, ("y_train: shape", "one label an image")),
    "labels beyond the network's": (
        {"y_train": np.arange(30) % 12, "y_test": np.zeros(30, int)},
        ("label 11 is out of range of a network with 10 outputs", r"may be 0\.\.9", "relabel the data"),
    ),
    "images of another size": (
        {name: np.zeros((30, 9, 9), np.uint8) for name in ("x_train", "x_test")},
        (r"--model nets:dense: cannot run on inputs of shape \[9, 9, 1\]", "give data of the shape"),
    ),
}


@pytest.mark.parametrize("fault", DATA)
def test_data_that_do_not_fit_are_refused_before_any_training(refused, here, fault):
    changes, parts = DATA[fault]
    assert not missing(refused(*SHORT, "--data", _npz(here / "mine.npz", **changes)), *parts)


def test_a_truncated_idx_file_is_named(refused, here):
    (here / "idx").mkdir()
    for name, array in (
        ("train-images-idx3-ubyte", np.zeros((30, 8, 8), np.uint8)),
        ("train-labels-idx1-ubyte", np.zeros(30, np.uint8)),
        ("t10k-images-idx3-ubyte", np.zeros((9, 8, 8), np.uint8)),
        ("t10k-labels-idx1-ubyte", np.zeros(9, np.uint8)),
    ):
        header = struct.pack(">BBBB", 0, 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
        (here / "idx" / f"{name}.gz").write_bytes(gzip.compress(header + array.tobytes()[:-5]))
    assert not missing(
        refused(*SHORT, "--data", "idx"), "train-images-idx3-ubyte.gz: truncated", "1931 bytes.* needs 1936", "fetch it"
    )


ENERGY = ("below the bound", "gap .* times", "ask for more energy", "deadline")


@pytest.mark.parametrize(
    ("argv", "parts", "stages"),
    [
        (("--energy", "1pJ"), ("energy budget 0.001 nJ", *ENERGY), 1),
        (("--energy", "1pJ", "--latency", "1ms"), ("energy budget 0.001 nJ", *ENERGY), 0),
        (("--energy", "1/9000"), ("energy budget", *ENERGY), 1),
        (("--latency", "1ns"), ("deadline 1 ns", "no legal design is faster than", "gap .* times", "more time"), 0),
        (("--area", "0.5mm2"), ("area budget 0.5 mm2", "below the bound 1.87 mm2", "gap 3.74", "allow more area"), 0),
    ],
)
def test_a_budget_below_any_legal_design_names_demand_bound_gap_and_levers(refused, here, argv, parts, stages):
    """What needs no trained network is refused before the first stage."""
    assert not missing(refused(*SHORT, *argv, progress=stages), *parts)
    assert not (here / "run" / "result.json").exists()


def test_outputs_that_are_no_row_of_logits_are_named_with_their_shape(refused):
    message = refused("optimize", "--model", "nets:maps", "--quick", "--steps", "1", "--out", "run")
    assert not missing(
        message, r"network .*it returns shape \[256, 8, 8, 10\]", r"\[256, classes\] logits", "pool before the last"
    )


def test_a_refused_budget_leaves_the_checkpoints_of_the_run_before_it(refused, here):
    checkpoints = Checkpoints(here / "run" / "checkpoints")
    checkpoints.save("float", 1, {"x": np.arange(5.0)})
    refused(*SHORT, "--latency", "1ns")
    assert checkpoints.latest("float") == 1


def test_a_resumed_run_with_another_seed_and_budget_is_named_with_both(refused, here):
    refused(*SHORT, "--energy", "1pJ", progress=1)  # stops after the float network
    message = refused(*SHORT, "--energy", "1/30", "--seed", "7", "--resume")
    assert not missing(
        message, "run/checkpoints: of another run", "seed 0 there, 7 here", "budget.energy_ratio none there, 30.0 here"
    )


def test_a_truncated_checkpoint_is_named_with_the_way_on(refused, here):
    checkpoints = Checkpoints(here / "run" / "checkpoints")
    checkpoints.save("float", 1, {"x": np.arange(5000.0)})
    folder = here / "run" / "checkpoints" / "float" / "0000000001"
    for file in folder.rglob("*"):
        if file.is_file() and file.parent.name == "d":
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    message = refused(*SHORT, "--resume")
    assert not missing(
        message, "run/checkpoints/float/0000000001: unreadable or truncated", "delete this folder", "without --resume"
    )


def test_a_checkpoint_of_another_network_is_named_with_the_way_on(refused, here):
    Checkpoints(here / "run" / "checkpoints").save("float", 1, {"x": np.arange(5000.0)})
    assert not missing(refused(*SHORT, "--resume"), "of another run", "resume with the model", "without --resume")


def test_a_directory_under_a_file_cannot_be_written(refused, here):
    message = refused(*SHORT[:-1], "nets.py/run")
    assert not missing(message, "output directory nets.py/run: cannot be written", "choose another with --out")
    message = refused(*SHORT[:-1], "nets.py")
    assert not missing(message, "output directory nets.py: cannot be written", "choose another with --out")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema": "cooptim-result/0"}'])
def test_a_directory_without_a_readable_result_is_named(refused, here, content):
    (here / "run").mkdir()
    (here / "run" / "result.json").write_text(content)
    assert not missing(refused("report", "run"), "run/result.json", "run `cooptim optimize` again|this version reads")


def test_a_directory_without_a_run_is_named(refused):
    assert not missing(refused("report", "nowhere"), "nowhere: no finished run in it", "give the --out of a run")


def test_a_failing_report_leaves_the_run_before_it_whole(run, here, monkeypatch):
    from cooptim.cli import optimize as command

    monkeypatch.setattr(command, "optimize", lambda *_, **__: fake_run.result())
    assert run("optimize", "--model", "nets:dense", "--out", "run")[0] == 0
    before = (here / "run" / "result.json").read_bytes()

    def infeasible(*_, **__):
        raise ValueError("energy budget 1 nJ is below the bound 2 nJ; ask for more")

    monkeypatch.setattr(command, "optimize", infeasible)
    assert run("optimize", "--model", "nets:dense", "--out", "run", "--energy", "1nJ")[0] == 2
    assert (here / "run" / "result.json").read_bytes() == before and not list(here.glob("run/.*"))


@pytest.mark.parametrize(
    ("source", "found"),
    [("def f(: pass", "SyntaxError: invalid syntax"), ("raise RuntimeError('no luck')", "RuntimeError: no luck")],
)
def test_a_module_that_fails_on_import_is_named(refused, here, source, found):
    (here / "own_broken.py").write_text(source)
    assert not missing(
        refused("trace", "--model", "own_broken:f", *SHAPE), "--model own_broken:f", f"fails on import with {found}"
    )


@pytest.mark.parametrize("seed", ["-1", "2147483648"])
def test_a_seed_out_of_range_is_named_with_the_range(refused, here, seed):
    assert not missing(refused(*SHORT, f"--seed={seed}"), f"--seed {seed}: ", "from 0 to 2147483647")
    assert not (here / "run").exists()


@pytest.mark.parametrize("text", ["0ns", "-3ns", "1e999ns"])
def test_a_period_that_is_no_time_is_named(refused, text):
    assert not missing(
        refused("evaluate", *SHAPE, f"--period={text}"), f"--period {text}: not above 0 and finite", "such as 2ms"
    )


def test_an_input_larger_than_memory_is_only_a_shape(run, here):
    code, out, err = run("trace", "--model", "nets:maps", "--input-shape", "99999x99999x1")
    assert (code, err) == (0, "") and f"{99999 * 99999 * 90:,} MACs" in out
