"""A directory of checkpoints knows its run: another one is named by what differs."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

import cooptim
from cooptim.data import Dataset
from cooptim.descent.checkpoint import CheckpointError
from cooptim.descent.fingerprint import FILE, claim, fingerprint
from cooptim.descent.plan import Plan
from cooptim.descent.result import Budget


def _data(name="dots", value=0.5):
    x, y = np.full((4, 6), value, np.float32), np.arange(4, dtype=np.int32) % 2
    return Dataset(name, x, y, x[:2], y[:2], x[2:], y[2:], 2)


def _network(outputs=2, weight=0.1):
    params = {"w": jnp.full((6, outputs), weight)}
    return cooptim.trace(lambda p, x: x @ p["w"], params, _data().sample)


def _run(**changes):
    run = {
        "network": _network(), "machine": cooptim.load_machine("envision"), "data": _data(),
        "budget": Budget(energy_ratio=20.0), "plan": Plan(), "seed": 3,
    }  # fmt: skip
    return fingerprint(**(run | changes))


def _warm(machine):
    return dataclasses.replace(machine, dram=dataclasses.replace(machine.dram, access_pj_per_bit=jnp.array(4.0)))


def test_the_same_run_goes_on_and_its_file_stays(tmp_path):
    claim(tmp_path, _run(), resume=False)
    before = (tmp_path / FILE).read_bytes()
    claim(tmp_path, _run(), resume=True)
    assert (tmp_path / FILE).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_time_between_checkpoints_does_not_make_another_run(tmp_path):
    claim(tmp_path, _run(), resume=False)
    before = (tmp_path / FILE).read_bytes()
    claim(tmp_path, _run(plan=Plan(save_seconds=1.0)), resume=True)
    assert (tmp_path / FILE).read_bytes() == before


# What is another on resume, and what the message says of it.
OTHER = {
    "seed": (lambda: {"seed": 4}, ("seed 3 there, 4 here",)),
    "labels": (
        lambda: {"plan": Plan(quantizer="codebook", label_bits=3)},
        ("plan.label_bits none there, 3 here", "plan.quantizer step_range there, codebook here"),
    ),
    "length": (lambda: {"plan": Plan(steps=900)}, (f"plan.steps {Plan().steps} there, 900 here",)),
    "rate of a knob": (
        lambda: {"plan": dataclasses.replace(Plan(), knob_rates=dataclasses.replace(Plan().knob_rates, supply=0.5))},
        ("plan.knob_rates.supply", "0.5 here"),
    ),
    "budget": (lambda: {"budget": Budget(energy_ratio=25.0)}, ("budget.energy_ratio 20.0 there, 25.0 here",)),
    "deadline": (
        lambda: {"budget": Budget(energy_ratio=20.0, latency_ns=5.0)}, ("budget.latency_ns none there, 5.0 here",)
    ),
    "machine": (
        lambda: {"machine": cooptim.load_machine("dvafs_sized")}, ("machine.name envision there, dvafs_sized here",)
    ),
    "number of the machine": (lambda: {"machine": _warm(cooptim.load_machine("envision"))}, ("machine.numbers",)),
    "layers": (lambda: {"network": _network(3)}, ("workload.layers.0 w dense",)),
    "weights": (lambda: {"network": _network(weight=0.2)}, ("parameters",)),
    "name of the data": (lambda: {"data": _data("dashes")}, ("data.name dots there, dashes here",)),
    "images": (lambda: {"data": _data(value=0.25)}, ("data.content.0 [4, 6]", "data.content.2")),
}  # fmt: skip


@pytest.mark.parametrize("what", OTHER)
def test_another_run_is_refused_with_what_differs(tmp_path, what):
    changes, said = OTHER[what]
    claim(tmp_path, _run(), resume=False)
    with pytest.raises(CheckpointError) as caught:
        claim(tmp_path, _run(**changes()), resume=True)
    message = str(caught.value)
    assert message.startswith(f"checkpoints {tmp_path}: of another run: ") and message.endswith("without --resume")
    assert [part for part in said if part not in message] == [], message
    claim(tmp_path, _run(**changes()), resume=False)  # a new start takes the directory over
    claim(tmp_path, _run(**changes()), resume=True)


def test_other_versions_are_named(tmp_path):
    mine = _run()
    claim(tmp_path, mine | {"versions": mine["versions"] | {"jax": "0.9.0"}}, resume=False)
    with pytest.raises(CheckpointError, match=r"versions\.jax 0\.9\.0 there, "):
        claim(tmp_path, mine, resume=True)


def test_of_many_differences_four_are_named_and_the_rest_counted(tmp_path):
    claim(tmp_path, {name: 1 for name in "abcdefg"}, resume=False)
    with pytest.raises(CheckpointError, match=r"run: a 1 there, 2 here; b .*; c .*; d 1 there, 2 here and 3 more;"):
        claim(tmp_path, {name: 2 for name in "abcdefg"}, resume=True)


def test_an_unreadable_file_is_one_message(tmp_path):
    (tmp_path / FILE).write_text("{")
    with pytest.raises(CheckpointError, match="run.json: unreadable .*; start without --resume"):
        claim(tmp_path, _run(), resume=True)


def test_a_directory_that_cannot_be_written_is_one_message(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be written .*--out"):
        claim(tmp_path / "file" / "checkpoints", _run(), resume=False)
