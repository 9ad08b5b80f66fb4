"""Members that descend in one program: each as if alone, frozen where it diverges or ends, resumed bit-equal."""

import dataclasses
import types

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import cooptim
from cooptim.data.dataset import split_dataset
from cooptim.descent import together
from cooptim.descent.checkpoint import Checkpoints
from cooptim.descent.descend import descent_stage
from cooptim.descent.finalize import Limits
from cooptim.descent.loop import run_stage
from cooptim.descent.member import all_finite, begun, masked
from cooptim.descent.plan import quick_plan
from cooptim.descent.task import build_task
from cooptim.descent.together import Job, run_together, step_program

STEPS = 12  # widths freeze before step 9


class Net(nnx.Module):
    def __init__(self, rngs):
        self.hidden, self.out = nnx.Linear(16, 8, rngs=rngs), nnx.Linear(8, 4, rngs=rngs)

    def __call__(self, x):
        return self.out(nnx.relu(self.hidden(x.reshape(x.shape[0], -1))))


@pytest.fixture(scope="module")
def sweep():
    """(task, programs of one and of two members a call, a function that makes jobs); each program traced once."""
    jax.config.update("jax_enable_x64", True)
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (80, 4, 4), np.uint8), np.arange(80) % 4
    data = split_dataset("noise", (x, y), (x[:20], y[:20]), 0.2, 0)
    plan = dataclasses.replace(quick_plan(), steps=STEPS, batch=16, stats_images=32, chunk=32, settle_steps=1)
    plan = dataclasses.replace(plan, save_seconds=1e9)
    network = cooptim.trace(Net(nnx.Rngs(0)), data.sample)
    task = build_task(network, cooptim.load_machine("envision"), data, plan, 0, network.params, network.state)

    def job(name, energy_pj, seed=0, plan=plan, checkpoints=None, **stage):
        mine = dataclasses.replace(task, seed=seed, plan=plan)
        limits = Limits(energy_pj, 1e6, None, 0.0)
        begin = descent_stage(mine, network.params, network.state, limits, "joint0", None)
        return Job(name, mine, dataclasses.replace(begin[0], **stage), begin[1], checkpoints)

    def once(step):
        chex.clear_trace_counter()
        return chex.assert_max_traces(masked(step), n=1)

    together.masked = once
    first = job("a", 300.0)
    try:
        programs = [step_program(task, width, first.stage, first.begin) for width in (1, 2)]
    finally:
        together.masked = masked
    return *programs, job


def _numbers(end):
    return [np.asarray(leaf) for leaf in jax.tree.leaves((end.train, end.phase, end.history))]


def _same(one, two, **tolerance):
    for a, b in zip(_numbers(one), _numbers(two), strict=True):
        np.testing.assert_allclose(a, b, **tolerance)


def test_a_member_takes_the_steps_of_a_run_of_its_own(sweep):
    single, _, job = sweep
    one = job("a", 300.0)
    (end,) = run_together(single, [one], None)
    alone = job("a", 300.0)
    state, phase, history = run_stage(
        dataclasses.replace(alone.task, step=single.step), alone.stage, alone.begin, None, None
    )
    assert (end.taken, end.finite) == (STEPS, True) and float(end.phase.frozen) == 1.0
    for a, b in zip(_numbers(end), jax.tree.leaves((state, phase, history)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_two_in_a_call_move_as_each_alone(sweep):
    single, double, job = sweep
    ends = run_together(double, [job("a", 300.0), job("b", 400.0, seed=3)], None)
    alone = [run_together(single, [job(*how)], None)[0] for how in (("a", 300.0), ("b", 400.0, 3))]
    assert not np.allclose(ends[0].train.knobs.log2_threshold, ends[1].train.knobs.log2_threshold)
    for end, one in zip(ends, alone, strict=True):
        _same(end, one, rtol=1e-6, atol=1e-9)  # float64; histories are kept in float32


def test_a_shorter_member_stands_still_while_the_other_goes_on(sweep):
    single, double, job = sweep
    short, long = run_together(double, [job("a", 300.0, steps=5), job("b", 400.0)], None)
    assert (short.taken, long.taken) == (5, STEPS)
    _same(short, run_together(single, [job("a", 300.0, steps=5)], None)[0], rtol=1e-6, atol=1e-9)


def test_a_call_that_is_not_full_is_filled_and_only_its_member_comes_back(sweep):
    single, double, job = sweep
    (end,) = run_together(double, [job("a", 300.0)], None)
    _same(end, run_together(single, [job("a", 300.0)], None)[0], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("width", [1, 2])
def test_a_member_that_diverges_is_frozen_finite_and_stops_no_other(sweep, width, tmp_path):
    single, double, job = sweep
    lost = job("a", 300.0, weight_rate=1e400, checkpoints=Checkpoints(tmp_path))
    begin = jax.tree.map(np.array, lost.begin.params)
    jobs = [lost, job("b", 400.0)]
    ends = run_together(double, jobs, None) if width == 2 else [run_together(single, [one], None)[0] for one in jobs]
    assert [(end.finite, end.taken) for end in ends] == [(False, 0), (True, STEPS)]
    chex.assert_trees_all_equal(ends[0].train.params, begin)
    assert bool(all_finite(ends[0].train)) and bool(all_finite(ends[1].train))
    assert Checkpoints(tmp_path).latest("joint0") == 0


class _Interrupted(Exception):
    pass


@pytest.mark.parametrize("width", [1, 2])
def test_an_interrupted_member_goes_on_bit_equal(sweep, width, tmp_path):
    program, job = sweep[width - 1], sweep[2]
    plan = dataclasses.replace(job("a", 300.0).task.plan, save_seconds=0.0)

    def jobs():
        made = [job("a", 300.0, 0, plan, Checkpoints(tmp_path / "a")), job("b", 400.0, 3, plan, None)]
        return made[:width]

    def stop(done, **_):
        if done > 10:
            raise _Interrupted

    whole = run_together(program, [dataclasses.replace(one, checkpoints=None) for one in jobs()], None)
    with pytest.raises(_Interrupted):
        run_together(program, jobs(), types.SimpleNamespace(stage=lambda *_: None, step=stop))
    assert Checkpoints(tmp_path / "a").latest("joint0") == 10  # after the freeze
    halted = run_together(program, jobs(), None, halt=True)[0]
    assert (halted.taken, halted.finite) == (10, True)
    again = run_together(program, jobs(), None)
    for end, one in zip(again, whole, strict=True):
        _same(end, one, rtol=0, atol=0)


def _toy(old, control, x, labels):
    """A step that adds x to everything; its loss is the labels."""
    new = dataclasses.replace(old, params=old.params + x, multipliers=old.multipliers + 1)
    return new, types.SimpleNamespace(loss=labels)


@pytest.mark.parametrize(
    ("running", "x", "loss", "moves", "finite"),
    [
        (True, 1.0, 1.0, True, True),
        (False, 1.0, 1.0, False, True),
        (True, np.inf, 1.0, False, False),
        (True, 1.0, np.nan, False, False),
        (False, np.nan, np.nan, False, True),  # what stands still diverges no more
    ],
)
def test_the_mask_lets_through_finite_steps_of_running_members_alone(sweep, running, x, loss, moves, finite):
    start = dataclasses.replace(sweep[2]("a", 300.0).begin, params=jnp.ones(2))
    member, _ = masked(_toy)(begun(start, 4), None, jnp.asarray(running), jnp.asarray(x), jnp.asarray(loss))
    assert (bool(member.finite), int(member.taken)) == (finite, 4 + moves)
    np.testing.assert_array_equal(member.train.params, 1.0 + moves)
    if not finite:  # and never moves again
        again, _ = masked(_toy)(member, None, jnp.asarray(True), jnp.asarray(1.0), jnp.asarray(1.0))
        assert not bool(again.finite) and int(again.taken) == 4
