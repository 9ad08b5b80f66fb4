import argparse
import dataclasses
import json
import re
import sys

import numpy as np
import pytest

from cooptim.cli.model import network
from cooptim.descent.plan import Plan
from cooptim.descent.result import Budget
from cooptim.descent.wide import wide
from cooptim.design.legal import snap
from cooptim.design.space import DesignSpace
from cooptim.export import save_design, write_result
from cooptim.hardware.hierarchy_file import hierarchy_source
from cooptim.mapping.frontier import tilings
from cooptim.network.shrink import UnshrinkableError
from cooptim.units import parse
from tests.reporting import fake_run

NETWORK = """
from flax import nnx
import jax.numpy as jnp

class Net(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(1, 16, (3, 3), rngs=rngs)
        self.fc = nnx.Linear(16, 10, rngs=rngs)
    def __call__(self, x):
        return self.fc(nnx.relu(self.conv(x)).mean((1, 2)))

def net(rngs):
    return Net(rngs)

def pair(rngs):
    return {"w": jnp.ones((64, 10))}, lambda params, x: x.reshape(x.shape[0], -1) @ params["w"]

def words(rngs):
    return {"e": jnp.ones((9, 4)), "w": jnp.ones((4, 10))}, lambda params, x: params["e"][x].mean(1) @ params["w"]

def steps(rngs):
    return {"w": jnp.ones((64, 10))}, lambda params, x: (x @ params["w"]).mean(1)

class Asks(Net):
    def __call__(self, x, train):
        return super().__call__(x)

def asks(rngs):
    return Asks(rngs)

def broken(rngs):
    raise RuntimeError("no luck")

def number(rngs):
    return 3
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A current directory with a module of networks in it."""
    (tmp_path / "own_nets.py").write_text(NETWORK)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    yield tmp_path
    sys.modules.pop("own_nets", None)


@pytest.mark.parametrize("factory", ["net", "pair"])
def test_trace_lists_the_layers_of_a_factory_in_the_current_directory(run, here, factory):
    code, out, err = run("trace", "--model", f"own_nets:{factory}", "--input-shape", "8x8x1")
    assert (code, err) == (0, "")
    # conv: 16 x 9 taps x 64 pixels = 9,216 MACs, dense 16 x 10; the pair: 64 x 10.
    assert ("9,376 MACs" if factory == "net" else "640 MACs") in out


def test_a_row_of_tokens_is_a_shape_with_a_type(run, here):
    code, out, err = run("trace", "--model", "own_nets:words", "--input-shape", "6:int32")
    assert (code, err) == (0, "") and "40 MACs" in out  # the mean of six rows of 4, dense 4 x 10


def test_series_of_an_npz_reach_the_network_as_they_are(run, here):
    x, y = np.zeros((40, 6, 64), np.float32), np.arange(40) % 4
    np.savez(here / "motion.npz", x_train=x, y_train=y, x_test=x[:8], y_test=y[:8])
    code, out, err = run("trace", "--model", "own_nets:steps", "--data", "motion.npz", "--series")
    assert (code, err) == (0, "") and "3,840 MACs" in out  # six steps of 64 to 10
    assert run("trace", "--model", "own_nets:steps", "--data", "motion.npz")[0] == 2  # as an image of 6 x 64


def test_trace_lists_heads_of_exits_and_both_halves_of_a_split_layer(run, here):
    shape = ("--model", "own_nets:net", "--input-shape", "8x8x1")
    code, out, err = run("trace", *shape, "--exits", "conv.kernel", "--exit-grid", "2", "--low-rank", "conv.kernel=3")
    assert (code, err) == (0, "")
    # Behind the mean over the image a head sees 16 words: 16 x 10. The split: 3 x 9 taps and 16 x 3, at 64 pixels each.
    lines = {line.split()[0]: line for line in out.splitlines() if line.strip()}
    assert "160" in lines["exits.conv.kernel.dense"]
    assert "1,728" in lines["conv.kernel.u"] and "3,072" in lines["conv.kernel.v"]
    assert "5,120 MACs" in out  # and the dense layer's 160


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (
            ("--model", "own_nets:net", "--exits", "convv"),
            r"exit 'convv': no such layer or tag .* legal are layers conv.kernel",
        ),
        (("--exit-grid", "2"), "--exit-grid 2: says how heads average, and there are none; add --exits"),
        (("--model", "own_nets:net", "--exits", "conv.kernel", "--exit-grid", "0"), "grid 0"),
        (("--low-rank", "conv.kernel"), "write LAYER=RANK"),
        (("--model", "own_nets:net", "--low-rank", "conv.kernel=10"), "rank 10.*1 to 9"),
        (("--low-rank", "conv.kernel=2", "--low-rank", "conv.kernel=3"), "given twice"),
        (("--model", "own_nets"), "write package.module:factory"),
        (("--model", "nowhere.at_all:f"), "module nowhere.at_all cannot be imported"),
        (("--model", "own_nets:nett"), "no callable 'nett'; it has Asks, Net, asks, broken, net"),
        (("--model", "own_nets:broken"), "the factory failed with RuntimeError: no luck"),
        (("--model", "own_nets:number"), "the factory returned int"),
        (("--model", "own_nets:net", "--input-shape", "8x8x3"), r"cannot run on inputs of shape \[8, 8, 3\]"),
        (("--model", "own_nets:asks"), r"missing 1 required .*'train'; return \(params, apply\) from the factory"),
        (("--input-shape", "8x8x1", "--series"), "--series says what --data holds; .* leave --series out"),
        (("--data", "digits", "--series"), "'digits': holds images, no series"),
        (("--input-shape", "8xx"), "write sizes without the batch"),
        (("--input-shape", "8:int8"), "or 128:int32 for a row of tokens"),
        (("--input-shape", "8x8x1", "--data", "digits"), "give one of them"),
        (("--data", "mnist"), "give 'digits', an .npz file"),
    ],
)
def test_bad_input_is_one_message_with_exit_code_2(run, here, argv, words):
    given = argv if "--input-shape" in argv or "--data" in argv else (*argv, "--input-shape", "8x8x1")
    code, out, err = run("trace", *given)
    assert (code, out) == (2, "") and err.startswith("cooptim trace: ") and err.count("\n") == 1
    assert re.search(words, err)


def test_evaluate_prices_the_16_bit_design(run, here):
    code, out, err = run("evaluate", "--model", "own_nets:net", "--input-shape", "8x8x1")
    assert (code, err) == (0, "") and "conv.kernel" in out and "TOPS/W" in out


def test_evaluate_prices_a_design_file_below_16_bit(run, here):

    options = argparse.Namespace(model="own_nets:net")
    workload, machine = network(options, np.zeros((1, 8, 8, 1), np.float32)).workload, fake_run.machine()
    design, stats = wide(workload, machine)
    space = DesignSpace(workload, machine, tilings(workload, machine), design.input_signed)
    small = dataclasses.replace(design, weight_bits=design.weight_bits / 4, input_bits=design.input_bits / 4)
    narrow_mode = np.eye(len(machine.modes))[[-1] * len(workload.layers)]
    save_design("design.json", workload, machine, snap(space, dataclasses.replace(small, mode=narrow_mode)), stats)
    code, out, err = run("evaluate", "--model", "own_nets:net", "--input-shape", "8x8x1", "--design", "design.json")
    assert (code, err) == (0, "")
    wide_out = run("evaluate", "--model", "own_nets:net", "--input-shape", "8x8x1")[1]
    narrow_pj, wide_pj = (parse("".join(text.split()[:2]), "energy") for text in (out, wide_out))
    assert narrow_pj < wide_pj / 3  # a quarter of the bits on every word, four MACs in the place of one


def test_evaluate_refuses_the_design_of_another_network(run, here):
    save_design("design.json", fake_run.workload(), fake_run.machine(), fake_run.design())
    code, out, err = run("evaluate", "--model", "own_nets:net", "--input-shape", "8x8x1", "--design", "design.json")
    assert (code, out) == (2, "") and "unknown layer conv1.kernel" in err and "conv.kernel" in err


def test_machines_lists_and_shows_every_number_with_source(run):
    # 16 x 16 MACs in four lanes, two operations, 200 MHz: 409.6 GOPS.
    out = run("machines")[1]
    assert re.search(r"envision +28 nm +410 GOPS +ISSCC 2017 14.5 +Envision", out)
    assert re.search(r"dvafs_sized .*Illustrative", out) and "(no silicon check)" in out
    code, out, _ = run("machines", "show", "envision")
    assert code == 0 and "reference.power" in out and "300 mW" in out and "290 to 300" in out and "assumed:" in out
    assert "memories.sram.size" in out  # the hierarchy of the same name


def test_machines_lists_and_shows_hierarchies_and_circuits(run, tmp_path):
    out = " ".join(run("machines")[1].split())
    # 16 x 16 MACs of two operations at 0.5 GHz.
    assert "edge_45nm 256 GOPS A chip to size, 45 nm, 8 bit (256 MACs, 6 memories on chip, no silicon check, 14" in out
    assert "tpu_like" in out and "eyeriss" in out
    code, out, _ = run("machines", "show", "edge_45nm")
    assert code == 0 and "memories.w_buffer.ports.r.max_width" in out and "1024 bit" in out
    assert "busy_mac" in run("machines", "show", "eyeriss")[1]
    own = tmp_path / "own.yaml"
    own.write_bytes(hierarchy_source("gemmini"))
    assert "memories.scratchpad.read" in run("machines", "show", own)[1]


def test_an_unknown_machine_is_one_message(run):
    code, out, err = run("machines", "show", "eyeriss9")
    assert (code, out) == (2, "") and "eyeriss9" in err and "envision" in err and err.count("\n") == 1
    assert "gemmini" in err


def test_validate_holds_for_envision(run):
    code, out, err = run("validate")
    assert (code, err) == (0, "") and "16.7" in out and "NOT" not in out
    assert "Eyeriss" in out and "2.63 pJ" in out
    code, out, err = run("validate", "--machine", "envision")
    assert (code, err) == (0, "") and "16.7" in out and "Eyeriss" not in out
    code, out, err = run("validate", "--machine", "eie")
    assert (code, err) == (0, "") and "EIE, power" in out and "Envision" not in out and "16.7" not in out
    code, out, err = run("validate", "--machine", "yodann")
    assert (code, err) == (0, "") and "YodaNN" in out and "Envision" not in out and "EIE" not in out
    code, out, err = run("validate", "--machine", "tpu_v1")
    assert (code, out) == (2, "") and "--machine tpu_v1: no figures of this chip are held; legal: envision, dvas" in err


def test_validate_claims_says_what_is_off_and_what_is_not_modelled(run):
    code, out, err = run("validate", "--claims")
    assert (code, err) == (1, "") and "NOT within 10 %" in out and "uninformative" in out
    words = " ".join(out.split())
    assert "32 claims are predicted" in words and "not yet modelled" not in words and "VGG16 FC6" in words


def test_report_prints_a_run_again(run, tmp_path):
    write_result(tmp_path, fake_run.result())
    code, out, err = run("report", tmp_path)
    assert (code, err) == (0, "") and "joint" in out and "25x" in out and "conv1.kernel" in out
    assert run("report", tmp_path / "none")[0] == 2


@pytest.fixture
def fake_optimize(monkeypatch):
    """The run replaced by a finished one; returns what it was called with."""
    seen = {}

    def optimize(network, machine, data, budget, **options):
        seen.update(options, network=network, machine=machine, data=data, budget=budget)
        options["progress"].stage("float", 2)
        options["progress"].step(2, loss=0.5)
        options["progress"].done()
        return fake_run.result()

    monkeypatch.setattr("cooptim.cli.optimize.optimize", optimize)
    return seen


def test_optimize_reads_its_options_runs_and_writes_the_directory(run, here, fake_optimize):
    argv = ("optimize", "--model", "own_nets:net", "--energy", "50nJ", "--latency", "2ms", "--drop", "1", "--seed", "4")
    code, out, err = run(*argv, "--out", "runs/own", "--resume", "--steps", "800")
    assert code == 0 and err.startswith("float: 2 steps") and "joint" in out
    assert fake_optimize["budget"] == Budget(energy_pj=50e3, latency_ns=2e6, accuracy_drop=0.01)
    assert (fake_optimize["seed"], fake_optimize["resume"], fake_optimize["plan"].steps) == (4, True, 800)
    assert fake_optimize["data"].name == "digits" and fake_optimize["network"].workload.macs == 9376
    content = json.loads((here / "runs" / "own" / "result.json").read_text())
    assert content["energy_pj"]["final"] == 6000.0 and (here / "runs" / "own" / "energy.png").is_file()


def test_optimize_defaults_to_a_25th_and_takes_a_share(run, here, fake_optimize):
    run("optimize", "--model", "own_nets:net", "--out", "a")
    assert (
        fake_optimize["budget"] == Budget(energy_ratio=25.0, accuracy_drop=0.005, lift=True)
        and fake_optimize["plan"] is None
    )
    run("optimize", "--model", "own_nets:net", "--out", "a", "--energy", "1/40", "--area", "2mm2")
    assert fake_optimize["budget"] == Budget(energy_ratio=40.0, area_mm2=2.0, accuracy_drop=0.005)


def test_optimize_trains_as_asked_at_default_and_at_given_lengths(run, here, fake_optimize):
    train = ("optimize", "--model", "own_nets:net", "--out", "a", "--distill", "0.5", "--augment", "crop_flip")
    for lengths, steps in (((), Plan().steps), (("--steps", "800"), 800), (("--quick", "--steps", "800"), 800)):
        assert run(*train, *lengths)[0] == 0
        plan = fake_optimize["plan"]
        assert (plan.steps, plan.distill_weight, plan.augment) == (steps, 0.5, "crop_flip")


def test_optimize_fine_tunes_as_long_as_asked_whatever_else_is_said(run, here, fake_optimize):
    train = ("optimize", "--model", "own_nets:net", "--out", "a", "--finetune", "700")
    for lengths, steps in (((), Plan().steps), (("--steps", "800"), 800)):
        assert run(*train, *lengths)[0] == 0
        assert (fake_optimize["plan"].steps, fake_optimize["plan"].finetune_steps) == (steps, 700)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("--energy", "50"), "--energy: "),
        (("--energy", "50ms"), "no unit of energy; use one of fJ, pJ"),
        (("--energy=-5nJ",), "not above 0"),
        (("--latency", "0ms"), "not above 0"),
        (("--drop", "nan"), "points of accuracy"),
        (("--steps", "0"), "at least 1"),
        (("--finetune", "0"), "--finetune 0: at least 1"),
        (("--distill", "1.5"), "--distill 1.5: write a share of the loss from 0 to 1"),
        (("--distill", "nan"), "--distill nan: write a share"),
        (("--lean", "-1"), "--lean -1: write how many descents let channels leave, 0 for none"),
        (("--out", "own_nets.py/run"), "output directory own_nets.py/run: cannot be written"),
        (("--machine", "tpu"), "tpu"),
    ],
)
def test_optimize_refuses_bad_options_before_any_work(run, here, fake_optimize, argv, words):
    code, out, err = run("optimize", "--model", "own_nets:net", *argv)
    assert (code, out, err.count("\n")) == (2, "", 1) and words in err and fake_optimize == {}


def test_optimize_takes_dead_channels_out_as_often_as_asked(run, here, fake_optimize, monkeypatch):
    asked = []

    def leaner(network, machine, data, result, *, rounds, plan, progress):
        asked.append((network.workload.macs, machine.name, data.name, rounds, plan.steps))
        return network, dataclasses.replace(result, channels={"conv1.kernel": (8, 5), "fc.kernel": (4, 4)})

    monkeypatch.setattr("cooptim.cli.optimize.lean", leaner)
    argv = ("optimize", "--model", "own_nets:net", "--out", "a", "--steps", "800")
    assert run(*argv)[0] == 0 and asked == []
    code, out, _ = run(*argv, "--lean", "2")
    assert code == 0 and asked == [(9376, "envision", "digits", 2, 800)]
    assert "dead channels left the joint network (conv1.kernel 8 to 5); the bound is that of what is" in out
    content = json.loads((here / "a" / "result.json").read_text())
    assert content["channels"] == {"conv1.kernel": [8, 5], "fc.kernel": [4, 4]}
    assert [key for key, share in content["fraction_of_bound"].items() if share is not None] == ["final"]
    monkeypatch.setattr("cooptim.cli.optimize.lean", lambda network, machine, data, result, **_: (network, result))
    code, out, _ = run(*argv, "--lean", "1")
    assert code == 0 and out.endswith(
        "--lean 1: no channel is dead, and no descent kept the accuracy for less; none has left\n"
    )


@pytest.mark.parametrize(("dead", "said"), [(3, True), (1, False)])
def test_optimize_says_how_many_channels_are_dead_where_many_are(run, here, fake_optimize, monkeypatch, dead, said):
    def counts(network, params, state, x):
        return {"conv1.kernel": (dead, 20), "fc.kernel": (0, 10)} if len(x) == 1 else {}

    monkeypatch.setattr("cooptim.cli.optimize.dead_channels", counts)
    code, out, _ = run("optimize", "--model", "own_nets:net", "--out", "a")
    assert code == 0 and "channels are dead" not in out  # its parameters are not those of the network

    def of_the_network(network, *rest, **options):
        result = fake_run.result()
        final = dataclasses.replace(result.designs["final"], params=network.params, state=network.state)
        return dataclasses.replace(result, designs=result.designs | {"final": final})

    monkeypatch.setattr("cooptim.cli.optimize.optimize", of_the_network)
    code, out, _ = run("optimize", "--model", "own_nets:net", "--out", "a")
    assert code == 0 and ("3 of 30 channels are dead and cost energy all the same: add --lean 2\n" in out) == said


def test_channels_that_cannot_leave_lose_no_run(run, here, fake_optimize, monkeypatch):
    def refused(*_, **__):
        raise UnshrinkableError("Net: its function does not take fewer channels of fc.kernel")

    monkeypatch.setattr("cooptim.cli.optimize.lean", refused)
    code, out, err = run("optimize", "--model", "own_nets:net", "--out", "a", "--lean", "1")
    assert code == 2 and "joint" in out and (here / "a" / "result.json").is_file()
    assert err.splitlines()[-1].endswith("does not take fewer channels of fc.kernel; the run is written without it")


def test_an_interrupt_while_channels_leave_loses_no_run(run, here, fake_optimize, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("cooptim.cli.optimize.lean", interrupted)
    code, _, err = run("optimize", "--model", "own_nets:net", "--out", "a", "--lean", "1")
    assert code == 130 and err.endswith("--out a --lean 1 --resume\n")
    assert json.loads((here / "a" / "result.json").read_text())["energy_pj"]["final"] == 6000.0


def test_an_interrupt_says_how_to_go_on(run, here, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("cooptim.cli.optimize.optimize", interrupted)
    code, _, err = run("optimize", "--model", "own_nets:net", "--out", "with space")
    assert code == 130
    assert err.endswith("resume with --resume: cooptim optimize --model own_nets:net --out 'with space' --resume\n")


def test_an_error_of_the_run_is_one_message(run, here, monkeypatch):
    def infeasible(*_, **__):
        raise ValueError("energy budget 1 nJ is below the bound 5 nJ; ask for more")

    monkeypatch.setattr("cooptim.cli.optimize.optimize", infeasible)
    code, out, err = run("optimize", "--model", "own_nets:net")
    assert (code, err) == (2, "cooptim optimize: energy budget 1 nJ is below the bound 5 nJ; ask for more\n")
