"""Mappings that cannot be, and options of `cooptim map` that contradict each other."""

import copy
import json

import pytest

from tests.badinput.test_one_message import missing

GOOD = {
    "format": "cooptim-mapping-1",
    "machine": "tpu_like",
    "bits": {"W": 8, "I": 8, "psum": 16, "O": 8},
    "layers": {
        "conv1": {
            "bounds": "K64 C8 OX16 FX3",
            "spatial": {"D1": "K32", "D2": "C8"},
            "loops": "FX3 OX16 K2",
            "cuts": {"W": {"rf_128B": 3, "dram": 3}, "I": {"sram_2MB": 3, "dram": 3},
                     "O": {"rf_2B": 1, "sram_2MB": 3, "dram": 3}},
        }
    },
}  # fmt: skip
LAYER = ("layers", "conv1")
WHERE = "mine.json: layer conv1: "


def changed(path, value):
    content = copy.deepcopy(GOOD)
    here = content
    for key in path[:-1]:
        here = here[key]
    if value is ...:
        del here[path[-1]]
    else:
        here[path[-1]] = value
    return content


# Where, what stands there (... for nothing), what the message says: layer, level, operand, demand, bound, remedy.
FAULTS = {
    "factors": ((*LAYER, "loops"), "FX3 OX16 K3",
                (WHERE, "loop K has temporal factors of 3 and 32 units", "its bound 64", "factors of 2")),
    "units beyond the array": ((*LAYER, "spatial", "D1"), "K64",
                               (WHERE, "D1 unrolls K 64 = 64 units beyond the array's 32", "at most 32 units")),
    "units beyond the bound": ((*LAYER, "spatial", "D2"), "C9", (WHERE, "9 units of C on D2", "1 to its bound 8")),
    "unknown array dimension": ((*LAYER, "spatial"), {"D7": "K32"}, (WHERE, "'D7' is not in tpu_like", "D1, D2")),
    "overfilled": ((*LAYER, "cuts", "O", "rf_2B"), 2,
                   (WHERE, r"memory rf_2B must hold 128 bit \(O 128\)", "at most 16", "move loops of O outward")),
    "overfilled weights": (("bits", "W"), 400,
                           (WHERE, r"memory rf_128B must hold 2400 bit \(W 2400\)", "at most 1024", "narrow its data")),
    "unknown level": ((*LAYER, "cuts", "W"), {"rf_128B": 3, "l2": 3},
                      (WHERE, "cuts.W: unknown level 'l2'", "tpu_like holds W in rf_128B, dram")),
    "level that bypasses": ((*LAYER, "cuts", "W"), {"rf_128B": 3, "sram_2MB": 3, "dram": 3},
                            (WHERE, "cuts.W: unknown level 'sram_2MB'", "holds W in rf_128B, dram")),
    "missing level": ((*LAYER, "cuts", "I"), {"dram": 3}, (WHERE, "cuts.I: level 'sram_2MB' missing")),
    "falling cuts": ((*LAYER, "cuts", "O", "sram_2MB"), 0, (WHERE, r"operand O has cuts \(1, 0, 3\)", "never falling")),
    "outermost": ((*LAYER, "cuts", "I", "dram"), 4, (WHERE, "operand I has cuts", "the number of loops, 3")),
    "loop of another name": ((*LAYER, "loops"), "FX3 OX16 Q2", (WHERE, "loops: found 'Q2'", "B, G, K", "such as K32")),
    "factor of zero": ((*LAYER, "loops"), "FX3 OX16 K0", (WHERE, "loops: found 'K0'", "from 1 to")),
    "bound twice": ((*LAYER, "bounds"), "K64 K64", (WHERE, "bounds: K a second time")),
    "endless bound": ((*LAYER, "bounds"), "K1000000000 C1000000000", (WHERE, "multiply-accumulates", r"at most 2\^53")),
    "unknown field": ((*LAYER, "order"), "KC", (WHERE, "order: unknown field")),
    "missing field": ((*LAYER, "loops"), ..., (WHERE, "loops: missing")),
    "a level cut by text": ((*LAYER, "cuts", "W", "dram"), "3", (WHERE, "cuts.W.dram: found '3'", "integer")),
    "stride of zero": ((*LAYER, "stride"), [0, 1], (WHERE, r"stride\[0\]: found int 0")),
    "no layer": (("layers",), {}, ("mine.json: layers:",)),
    "bits of none": (("bits", "I"), 0, ("mine.json: bits.I: found int 0", "greater than 0")),
    "unknown machine": (("machine",), "tpu", ("mine.json: machine: 'tpu'", "neither a file beside it", "tpu_like")),
    "field of the file": (("network_name",), "x", ("mine.json: network_name: unknown field",)),
    "another version": (("format",), "cooptim-mapping-2", ("mine.json: format: found 'cooptim-mapping-2'", "-1'")),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("command", [("map", "--out", "best", "--mapping"), ("export", "zigzag")])
def test_a_mapping_that_cannot_be_is_one_message_and_nothing_is_written(refused, here, command, fault):
    path, value, parts = FAULTS[fault]
    (here / "mine.json").write_text(json.dumps(changed(path, value)))
    assert not missing(refused(*command, "mine.json"), *parts)
    assert not (here / "best").exists() and not (here / "zigzag").exists()


def test_the_mapping_that_the_faults_are_made_of_is_good(run, here):
    (here / "mine.json").write_text(json.dumps(GOOD))
    code, _, err = run("map", "--mapping", "mine.json")
    assert (code, err) == (0, "")


def test_a_layer_twice_and_a_file_that_is_none_are_named(refused, here):
    text = json.dumps(GOOD)
    layer = json.dumps(GOOD["layers"]["conv1"])
    (here / "mine.json").write_text(text.replace('"conv1":', f'"conv1": {layer}, "conv1":'))
    assert not missing(refused("map", "--mapping", "mine.json"), "mine.json: the key 'conv1' a second time", "keep one")
    assert not missing(refused("map", "--mapping", "none.json"), "none.json: cannot be read", "give the path")
    (here / "mine.json").write_text("[]")
    assert not missing(refused("map", "--mapping", "mine.json"), "mine.json: the whole file: found")


NET = ("--network", "lenet5")
OPTIONS = {
    "two sources": ((*NET, "--model", "nets:dense"), ("--network and --model", "give one of --network, --model")),
    "network and mapping": ((*NET, "--mapping", "mine.json"), ("--network and --mapping", "which layers to map")),
    "input without a model": ((*NET, "--input-shape", "8x8x1"), ("--input-shape is the input of --model", "leave")),
    "series without a model": ((*NET, "--series"), ("--series says what --data holds", "leave it out")),
    "data without a model": (("--data", "digits"), ("--data is the input of --model",)),
    "machine beside a file": (("--mapping", "m.json", "--machine", "tpu_like"), ("--machine: m.json says", "leave")),
    "bits beside a file": (("--mapping", "m.json", "--input-bits", "4"), ("--input-bits: m.json says that", "edit")),
    "bits of none": ((*NET, "--weight-bits", "0"), ("--weight-bits 0: not above 0",)),
    "bits that are no number": ((*NET, "--psum-bits", "nan"), ("--psum-bits nan: not above 0 and finite",)),
    "a place under a file": ((*NET, "--out", "nets.py/best"), ("nets.py/best: cannot be written", "with --out")),
    "a model without shape": (("--model", "nets:dense", "--input-shape", "8xx"), ("write sizes without the batch",)),
    "a model that is none": (("--model", "nets:none", "--input-shape", "8x8x1"), ("no callable 'none'",)),
    "hand-written products": (("--model", "nets:by_hand", "--input-shape", "8x8x1"), ("taps: ", "write them as")),
    "sums that no register holds": (
        ("--model", "nets:dense", "--input-shape", "8x8x1", "--psum-bits", "64", "--output-bits", "64"),
        ("w: no mapping fits into the memories of tpu_like", "rf_2B 16 bit", "larger or narrow"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", OPTIONS)
def test_options_that_contradict_each_other_are_named(refused, here, what):
    argv, parts = OPTIONS[what]
    assert not missing(refused("map", *argv), *parts)


def test_a_transposed_convolution_is_refused_by_name(refused, here):
    (here / "nets.py").write_text(
        "from flax import nnx\n"
        "class Net(nnx.Module):\n"
        "    def __init__(self, rngs):\n"
        "        self.up = nnx.ConvTranspose(2, 4, (2, 2), strides=(2, 2), rngs=rngs)\n"
        "    def __call__(self, x):\n"
        "        return self.up(x)\n"
        "def up(rngs):\n"
        "    return Net(rngs)\n"
    )
    message = refused("map", "--model", "nets:up", "--input-shape", "4x4x2")
    assert not missing(message, "up.kernel: a transposed convolution", "write it as a convolution")
