"""A sweep at toy length: shared parents, one compile, what diverges, files, resuming; then its members in step."""

import dataclasses
import inspect
import json
import math
import pathlib
import types
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import cooptim
from cooptim.data.dataset import split_dataset
from cooptim.descent import sweep as module
from cooptim.descent import together
from cooptim.descent.budget import InfeasibleBudget
from cooptim.descent.checkpoint import Checkpoints
from cooptim.descent.descend import descent_stage
from cooptim.descent.finalize import Limits
from cooptim.descent.front import Point
from cooptim.descent.loop import run_stage
from cooptim.descent.member import all_finite, begun, masked
from cooptim.descent.memory import Estimate, bytes_of, require_room
from cooptim.descent.plan import quick_plan
from cooptim.descent.sweep import Options, members_of
from cooptim.descent.task import signed_task
from cooptim.descent.together import Job, run_together, step_program
from cooptim.design.knobs import OperandKnobs
from cooptim.export import load_design, load_stats, load_weights, read_result
from cooptim.export.front_file import read_front, read_members

pytestmark = pytest.mark.float32
_REFERENCE_PJ = 18_000.0  # about what the network here takes at 16 bits


class Net(nnx.Module):
    def __init__(self, rngs):
        self.hidden, self.out = nnx.Linear(16, 8, rngs=rngs), nnx.Linear(8, 4, rngs=rngs)

    def __call__(self, x):
        return self.out(nnx.relu(self.hidden(x.reshape(x.shape[0], -1))))


class _Killed(Exception):
    pass


class _Progress:
    """Names of stages; raises at one of them."""

    def __init__(self, stop=None):
        self.stages, self.stop = [], stop

    def stage(self, name, total):
        self.stages.append(name)
        if name == self.stop:
            raise _Killed

    def step(self, done, **metrics):
        pass

    def done(self):
        pass


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """What goes in; the network of seed 7 has weights whose products overflow."""
    jax.config.update("jax_enable_x64", False)
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (80, 4, 4), np.uint8), np.arange(80) % 4
    data = split_dataset("noise", (x, y), (x[:20], y[:20]), 0.2, 0)
    plan = dataclasses.replace(
        quick_plan(), float_steps=10, steps=12, finetune_steps=4, finetune_tries=1, batch=16, stats_images=32, chunk=32,
        settle_steps=1, uniform_bits=(4,),
    )  # fmt: skip

    def network(seed):
        found = cooptim.trace(Net(nnx.Rngs(seed)), data.sample)
        huge = jax.tree.map(lambda leaf: leaf + 1e30, found.params)
        return dataclasses.replace(found, params=huge) if seed == 7 else found

    return network, cooptim.load_machine("envision"), data, plan


class _Runs(NamedTuple):
    out: pathlib.Path
    fronts: list  # of the second and the third run
    stages: list  # names, a list a run
    compiled: list  # members a call of each program
    said: list
    before: dict  # member.json after the first run


@pytest.fixture(scope="module")
def programs():
    """Programs by members a call, with whatever builds tasks and programs patched for this module: each task is built
    once and each program compiled and traced once, in all the runs here."""
    tasks, made = {}, {}

    def task_once(*parts):
        if parts[-1] not in tasks:
            tasks[parts[-1]] = signed_task(*parts)
        return tasks[parts[-1]]

    def program_once(task, width, *parts):
        if width not in made:
            made[width] = step_program(task, width, *parts)
        return made[width]

    def traced_once(step):
        chex.clear_trace_counter()
        return chex.assert_max_traces(masked(step), n=1)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "signed_task", task_once)
        patch.setattr(module, "step_program", program_once)
        patch.setattr(together, "masked", traced_once)
        yield made


@pytest.fixture(scope="module")
def swept(asked, programs, tmp_path_factory):
    """Three runs in one directory.

    In the first r4-s0 diverges and r2-s0 is killed before its fine-tuning; the second goes on and asks for r8, which no
    design can give; the third lands r4-s0 alone, where it stands.
    """
    jax.config.update("jax_enable_x64", False)
    network, machine, data, plan = asked
    out, said = tmp_path_factory.mktemp("sweep"), []

    def stage_of(task, params, state, limits, *parts):
        assert parts == (module._STAGE, None, 4.0)  # widths are learned, from the uniform width on
        stage, begin = descent_stage(task, params, state, limits, *parts)
        ratio = 0.0 if limits.energy_pj is None else _REFERENCE_PJ / limits.energy_pj
        return (dataclasses.replace(stage, weight_rate=math.inf) if 3.5 < ratio < 4.5 else stage), begin

    def run(progress, ratios, **how):
        budgets = [cooptim.Budget(energy_ratio=ratio) for ratio in ratios]
        return cooptim.pareto(network, machine, data, budgets, (0, 7), out=out, plan=plan, progress=progress, **how)

    progresses = [_Progress("r2-s0 finetune0"), _Progress(), _Progress()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "descent_stage", stage_of)
        with pytest.raises(_Killed):
            run(progresses[0], (4.0, 2.0), said=said.append)
        before = {path.parent.name: path.read_bytes() for path in out.glob("members/*/member.json")}
        fronts = [run(progresses[1], (4.0, 2.0, 8.0), resume=True)]
        fronts += [run(progresses[2], (4.0, 2.0, 8.0), only=("r4-s0",))]
    return _Runs(out, fronts, [one.stages for one in progresses], list(programs), said, before)


@pytest.fixture(scope="module")
def members(asked, swept, programs):
    """(programs of one and of two members a call, a function that makes jobs) on the task that was swept."""
    jax.config.update("jax_enable_x64", False)
    network, machine, data, plan = asked
    start = network(0)
    task = module.signed_task(start, machine, data, plan, 0, (False, False))

    def job(name, energy_pj, seed=0, plan=plan, checkpoints=None, **stage):
        mine = dataclasses.replace(task, seed=seed, plan=plan)
        limits = Limits(energy_pj, 1e6, None, 0.0)
        begin = descent_stage(mine, start.params, start.state, limits, "joint0", None)
        return Job(name, mine, dataclasses.replace(begin[0], **stage), begin[1], checkpoints)

    first = job("a", 9e3)
    return programs[1], module.step_program(task, 2, first.stage, first.begin), job


def _by_name(front):
    return {point.name: point for point in front.points}


def test_one_step_is_compiled_for_all_members_seeds_and_stages(swept):
    assert swept.compiled == [1]  # one member a call


def test_members_of_a_seed_share_its_parent_and_references(swept):
    uniform = ["s0 uniform-4b", "s0 uniform-4b-finetune0"]
    assert swept.stages[0] == ["float", "float", *uniform, "r4-s0", "r2-s0", "r2-s0 finetune0"]


def test_a_resumed_sweep_does_not_repeat_what_has_ended(swept):
    assert sorted(swept.before) == ["r2-s7", "r4-s0", "r4-s7"]
    assert [name for name in swept.stages[1] if name.startswith("r4")] == []
    assert "r2-s0" in swept.stages[1]
    for name in ("r2-s7", "r4-s7"):
        assert (swept.out / "members" / name / "member.json").read_bytes() == swept.before[name]


def test_what_diverges_is_marked_and_stops_no_other(swept):
    found = _by_name(swept.fronts[0])
    status = {name: (point.status, point.energy_pj is None) for name, point in found.items()}
    assert {status[name] for name in ("r4-s0", "r2-s7", "r4-s7", "r8-s7")} == {("diverged", True)}
    assert status["r2-s0"] == ("finished", False) and [p.name for p in swept.fronts[0].on_front] == ["r2-s0"]
    assert "not finite after step 0 of 12" in found["r4-s0"].note and "float parent" in found["r4-s7"].note
    assert not (swept.out / "members" / "r4-s7" / "result.json").exists()


def test_a_share_that_no_design_can_give_is_marked_with_the_bound(swept):
    point = _by_name(swept.fronts[0])["r8-s0"]
    assert point.status == "infeasible" and "is below the bound" in point.note


def test_a_diverged_member_can_be_landed_alone_but_is_not_on_the_front(swept):
    assert [name for name in swept.stages[2] if name.startswith("r")] == ["r4-s0", "r4-s0 finetune0"]
    point = _by_name(swept.fronts[1])["r4-s0"]
    assert point.status == "diverged" and point.energy_pj <= point.budget_pj
    assert [p.name for p in swept.fronts[1].on_front] == ["r2-s0"]
    assert read_result(swept.out / "members" / "r4-s0")[0]["energy_pj"]["final"] == point.energy_pj


def test_members_are_read_back_as_they_were(swept):
    assert read_members(swept.out) == _by_name(swept.fronts[1])


def test_a_member_is_a_run_directory_whose_design_costs_what_it_says(swept, asked, members):
    network, machine, data, _ = asked
    traced, point = network(0), _by_name(swept.fronts[0])["r2-s0"]
    folder = swept.out / "members" / "r2-s0"
    content, rows = read_result(folder)
    assert content["energy_pj"]["final"] == point.energy_pj and len(rows) == 2
    assert content["accuracy"]["final"] == point.test_accuracy
    assert content["energy_pj"]["best_uniform"] == point.uniform_pj
    latency_ns = content["budget"]["latency_ns"]
    design = load_design(folder / "design.json", traced.workload, machine)
    stats = load_stats(folder / "design.json", traced.workload)
    task = members[2]("a", 9e3).task  # its programs alone; nothing of the sweep
    found = task.pricer.report(jax.tree.map(np.float32, design), jax.tree.map(np.float32, stats), latency_ns)
    assert float(found.total_energy_pj) == pytest.approx(point.energy_pj, rel=1e-5)
    params, state = load_weights(folder / "weights.npz", (traced.params, traced.state))
    right, _ = task.measure.accuracy(params, state, jax.tree.map(np.float32, design), data.x_val, data.y_val)
    assert right == pytest.approx(point.val_accuracy)


def test_a_member_meets_its_own_budget(swept):
    point = _by_name(swept.fronts[0])["r2-s0"]
    assert point.energy_pj <= point.budget_pj == pytest.approx(point.reference_pj / 2.0)
    assert point.reference_pj == pytest.approx(_REFERENCE_PJ, rel=0.05) and point.steps == 12


def test_the_memory_is_said_before_anything_trains(swept):
    (found,) = swept.said
    assert (found.members, found.together) == (4, 1)
    assert found.total >= found.resident + found.call > found.resident > 100e6


def test_a_sweep_of_another_plan_is_not_gone_on_with(swept, asked, programs):
    network, machine, data, plan = asked
    with pytest.raises(ValueError, match="of another run: plan.steps 12 there, 13 here"):
        cooptim.pareto(
            network, machine, data, [cooptim.Budget(energy_ratio=4.0)], out=swept.out, resume=True,
            plan=dataclasses.replace(plan, steps=13),
        )  # fmt: skip


@pytest.mark.parametrize(("bits", "ending"), [(None, "MOVES"), (4, "HELD")])
def test_a_member_ends_as_a_run_does(monkeypatch, bits, ending):
    def landing(task, end, phase, history, limits, name, ending, *rest):
        raise FloatingPointError(ending.name)

    ended = types.SimpleNamespace(finite=True, taken=5, train=None, phase=None, history={})
    job = types.SimpleNamespace(stage=types.SimpleNamespace(steps=5), checkpoints=None)
    member, options = types.SimpleNamespace(name="m"), types.SimpleNamespace(only=(), progress=None)
    point = types.SimpleNamespace()
    monkeypatch.setattr(module, "landed", landing)
    monkeypatch.setattr(module, "_point", lambda *_: point)
    monkeypatch.setattr(module, "dataclasses", types.SimpleNamespace(replace=lambda one, **what: what))
    parent = types.SimpleNamespace(task=None)
    outcome = inspect.unwrap(module._outcome)
    assert outcome(member, parent, None, None, None, bits, job, ended, options)[0]["note"] == ending


def test_members_to_work_on_are_those_that_have_not_ended_or_are_named():
    wanted = members_of([cooptim.Budget(energy_ratio=ratio) for ratio in (2.0, 4.0)], [0])
    ended = Point("r2-s0", 0, "finished", 5, 1.0, 2.0, energy_pj=1.0, val_accuracy=0.5)
    lost = Point("r4-s0", 0, "diverged", 5, 1.0, 4.0)
    known = {"r2-s0": ended, "r4-s0": lost}
    names = lambda known, **how: [one.name for one in module._todo(wanted, known, Options(**how))]  # noqa: E731
    assert names({}) == ["r2-s0", "r4-s0"] and names({"r2-s0": ended}) == ["r4-s0"] and names(known) == []
    assert names(known, only=("r4-s0",)) == ["r4-s0"] and names(known, only=("r2-s0",)) == []
    with pytest.raises(ValueError, match="no member r9-s0; it has r2-s0, r4-s0"):
        names(known, only=("r9-s0",))
    with pytest.raises(ValueError, match="0 members in a call; at least 1"):
        names(known, together=0)


@pytest.mark.parametrize(
    ("budgets", "seeds", "words"),
    [
        ([], [0], "no budgets or no seeds"),
        ([cooptim.Budget()], [0], "budget 0 asks for no energy"),
        ([cooptim.Budget(energy_ratio=4.0)] * 2, [0], "member r4-s0 comes twice"),
        ([cooptim.Budget(energy_ratio=4.0)], [1, 1], "member r4-s1 comes twice"),
        (
            [cooptim.Budget(energy_ratio=4.0), cooptim.Budget(energy_ratio=5.0, latency_ns=1e3)],
            [0],
            "budget 1 has latency_ns 1000.0, budget 0 None; .* run one sweep for each",
        ),
    ],
)
def test_what_is_no_sweep_is_refused_with_the_remedy(budgets, seeds, words):
    with pytest.raises(ValueError, match=words):
        members_of(budgets, seeds)


def test_an_energy_below_the_bound_is_refused_before_anything_trains(asked, programs, tmp_path):
    network, machine, data, plan = asked
    budgets = [cooptim.Budget(energy_pj=energy, latency_ns=1e5) for energy in (1e6, 1.0)]
    with pytest.raises(InfeasibleBudget, match="energy budget 0.001 nJ is below the bound"):
        cooptim.pareto(network, machine, data, budgets, out=tmp_path, plan=plan)


def test_what_is_there_goes_once_all_has_been_checked_and_not_before(asked, programs, tmp_path, monkeypatch):
    network, machine, data, plan = asked
    ended, step = tmp_path / "members" / "r2-s0" / "member.json", Checkpoints(tmp_path / "seeds" / "0" / "checkpoints")
    ended.parent.mkdir(parents=True)
    ended.write_text("{}")  # no member's: a sweep that starts anew does not read it
    step.save("float", 3, {"a": np.ones(1)})
    monkeypatch.setattr(module, "_programs", lambda *_: (types.SimpleNamespace(step=None), None, _estimate()))

    def refused(found, batch):
        assert ended.exists() and step.latest("float") == 3
        raise ValueError("no room")

    def begun(*_):
        raise _Killed

    def start(energy_pj=None):
        ratio = None if energy_pj else 2.0
        budget = cooptim.Budget(energy_pj=energy_pj, energy_ratio=ratio, latency_ns=1e5)
        cooptim.pareto(network, machine, data, [budget], out=tmp_path, plan=plan)

    monkeypatch.setattr(module, "require_room", refused)
    for energy_pj, words in ((1.0, "below the bound"), (None, "no room")):
        with pytest.raises(ValueError, match=words):
            start(energy_pj)
        assert ended.exists() and step.latest("float") == 3
    monkeypatch.setattr(module, "require_room", lambda *_, **__: None)
    monkeypatch.setattr(module, "trained", begun)
    with pytest.raises(_Killed):
        start()
    assert not ended.exists() and step.latest("float") is None


def _estimate(**changes):
    gib = 2**30
    plain = Estimate(
        resident=gib, held=0, call=8 * gib, total=9 * gib, available=4 * gib, members=32, together=16
    )  # fmt: skip
    return dataclasses.replace(plain, **changes)


def test_a_sweep_that_does_not_fit_says_the_figure_and_what_fits():
    require_room(_estimate(available=None), batch=64)
    require_room(_estimate(available=8 * 2**30), batch=64)
    # 8 GiB for 16 members: half a GiB each, so that 4 GiB hold 8.
    with pytest.raises(ValueError, match="16 in a call: .* about 8 GiB, 4 GiB are available; .*--together 8"):
        require_room(_estimate(), batch=64)
    # One member of 8 GiB at a batch of 64: 4 GiB hold a batch of 32.
    with pytest.raises(ValueError, match="not even one fits: use batches of about 32"):
        require_room(_estimate(together=1), batch=64)


def test_bytes_are_counted_leaf_by_leaf():
    assert bytes_of((np.zeros((3, 5), np.float32), np.zeros(2, np.int8))) == 62


def test_front_files_are_of_a_schema(swept, tmp_path):
    content = json.loads((swept.out / "front.json").read_text())
    assert content["schema"] == "cooptim-front/1" and len(content["members"]) == 6
    assert (swept.out / "front.csv").read_text().count("\n") == 7
    with pytest.raises(ValueError, match="give the --out of a sweep"):
        read_front(tmp_path)
    (tmp_path / "front.json").write_text('{"schema": "other/2"}')
    with pytest.raises(ValueError, match="schema 'other/2'; this version reads 'cooptim-front/1'"):
        read_front(tmp_path)


def _numbers(end):
    return [np.asarray(leaf) for leaf in jax.tree.leaves((end.train, end.phase, end.history))]


def _same(one, two, **tolerance):
    for a, b in zip(_numbers(one), _numbers(two), strict=True):
        np.testing.assert_allclose(a, b, **tolerance)


def test_a_member_takes_the_steps_of_a_run_of_its_own(members):
    single, _, job = members
    one = job("a", 9e3)
    (end,) = run_together(single, [one], None)
    alone = job("a", 9e3)
    state, phase, history = run_stage(
        dataclasses.replace(alone.task, step=single.step), alone.stage, alone.begin, None, None
    )
    assert (end.taken, end.finite) == (12, True) and float(end.phase.frozen) == 1.0
    for a, b in zip(_numbers(end), jax.tree.leaves((state, phase, history)), strict=True):
        np.testing.assert_array_equal(a, b)


def _near(one, two):
    """Equal but for rounding, after few steps. Not the tilings: where a gradient is 0, Adam steps by its rounding."""
    names = [field.name for field in dataclasses.fields(OperandKnobs)]
    trains = one.train, two.train
    parts = [(t.params, t.multipliers, [getattr(t.knobs, name) for name in names]) for t in trains]
    parts = list(zip(parts, (one.history, two.history), strict=True))
    for a, b in zip(jax.tree.leaves(parts[0]), jax.tree.leaves(parts[1]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3)


def test_two_in_a_call_move_as_each_alone(members):
    single, double, job = members
    asked = (("a", 9e3), {"steps": 4, "weight_rate": 0.05}), (("b", 6e3, 3), {"steps": 4, "weight_rate": 0.05})
    ends = run_together(double, [job(*how, **more) for how, more in asked], None)
    assert np.max(np.abs(ends[0].train.params["hidden"]["kernel"] - ends[1].train.params["hidden"]["kernel"])) > 0.05
    for end, (how, more) in zip(ends, asked, strict=True):
        _near(end, run_together(single, [job(*how, **more)], None)[0])


def test_a_shorter_member_stands_still_while_the_other_goes_on(members):
    single, double, job = members
    short, long = run_together(double, [job("a", 9e3, steps=3), job("b", 6e3, weight_rate=0.05)], None)
    assert (short.taken, long.taken) == (3, 12)
    _near(short, run_together(single, [job("a", 9e3, steps=3)], None)[0])


def test_a_call_that_is_not_full_is_filled_and_only_its_member_comes_back(members):
    single, double, job = members
    (end,) = run_together(double, [job("a", 9e3, steps=4)], None)
    assert (end.finite, end.taken) == (True, 4)
    _near(end, run_together(single, [job("a", 9e3, steps=4)], None)[0])


@pytest.mark.parametrize("width", [1, 2])
def test_a_member_that_diverges_is_frozen_finite_and_stops_no_other(members, width, tmp_path):
    single, double, job = members
    lost = job("a", 9e3, weight_rate=1e400, checkpoints=Checkpoints(tmp_path))
    begin = jax.tree.map(np.array, lost.begin.params)
    jobs = [lost, job("b", 6e3)]
    ends = run_together(double, jobs, None) if width == 2 else [run_together(single, [one], None)[0] for one in jobs]
    assert [(end.finite, end.taken) for end in ends] == [(False, 0), (True, 12)]
    chex.assert_trees_all_equal(ends[0].train.params, begin)
    assert bool(all_finite(ends[0].train)) and bool(all_finite(ends[1].train))
    assert Checkpoints(tmp_path).latest("joint0") == 0


def test_a_member_that_diverged_since_the_last_look_is_saved_where_it_stands(members, tmp_path):
    _, _, job = members
    run = together._Run.restored(job("a", 9e3, checkpoints=Checkpoints(tmp_path)))
    run.member = dataclasses.replace(run.member, finite=np.asarray(False), taken=np.asarray(3, np.int32))
    run.step = 5  # two that did not move it
    run.save()
    assert Checkpoints(tmp_path).latest("joint0") == 3 and not run.goes_on


def test_an_interrupted_member_goes_on_bit_equal(members, tmp_path):
    single, _, job = members
    plan = dataclasses.replace(job("a", 9e3).task.plan, save_seconds=0.0)

    def jobs(checkpoints):
        return [job("a", 9e3, 0, plan, checkpoints)]

    def stop(done, **_):
        if done > 10:
            raise _Killed

    (whole,) = run_together(single, jobs(None), None)
    with pytest.raises(_Killed):
        run_together(single, jobs(Checkpoints(tmp_path)), types.SimpleNamespace(stage=lambda *_: None, step=stop))
    assert Checkpoints(tmp_path).latest("joint0") == 10  # after the freeze
    (halted,) = run_together(single, jobs(Checkpoints(tmp_path)), None, halt=True)
    assert (halted.taken, halted.finite) == (10, True)
    (again,) = run_together(single, jobs(Checkpoints(tmp_path)), None)
    _same(again, whole, rtol=0, atol=0)


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
def test_the_mask_lets_through_finite_steps_of_running_members_alone(members, running, x, loss, moves, finite):
    start = dataclasses.replace(members[2]("a", 9e3).begin, params=jnp.ones(2))
    member, _ = masked(_toy)(begun(start, 4), None, jnp.asarray(running), jnp.asarray(x), jnp.asarray(loss))
    assert (bool(member.finite), int(member.taken)) == (finite, 4 + moves)
    np.testing.assert_array_equal(member.train.params, 1.0 + moves)
    if not finite:  # and never moves again
        again, _ = masked(_toy)(member, None, jnp.asarray(True), jnp.asarray(1.0), jnp.asarray(1.0))
        assert not bool(again.finite) and int(again.taken) == 4
