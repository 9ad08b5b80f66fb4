"""A whole sweep at toy length: shared parents, one compile, a seed that diverges, files, resuming; no real accuracy."""

import dataclasses
import json
import math
import pathlib
from typing import NamedTuple

import chex
import jax
import numpy as np
import pytest
from flax import nnx

import cooptim
from cooptim.data.dataset import split_dataset
from cooptim.descent import sweep as module
from cooptim.descent import together
from cooptim.descent.budget import InfeasibleBudget
from cooptim.descent.descend import descent_stage
from cooptim.descent.front import Point
from cooptim.descent.member import masked
from cooptim.descent.memory import Estimate, bytes_of, require_room
from cooptim.descent.plan import quick_plan
from cooptim.descent.sweep import Options, members_of
from cooptim.descent.together import step_program
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
def swept(asked, tmp_path_factory):
    """Three runs in one directory, with programs that are compiled once and traced once.

    In the first r4-s0 diverges and r2-s0 is killed before its fine-tuning; the second goes on and asks for r8, which no
    design can give; the third lands r4-s0 alone, where it stands.
    """
    jax.config.update("jax_enable_x64", False)
    network, machine, data, plan = asked
    out = tmp_path_factory.mktemp("sweep")
    tasks, programs, said = {}, {}, []

    def task_once(*parts):
        if parts[-1] not in tasks:
            tasks[parts[-1]] = module_task(*parts)
        return tasks[parts[-1]]

    def program_once(task, width, *parts):
        if width not in programs:
            programs[width] = step_program(task, width, *parts)
        return programs[width]

    def traced_once(step):
        chex.clear_trace_counter()
        return chex.assert_max_traces(masked(step), n=1)

    def stage_of(task, params, state, limits, *parts):
        stage, begin = descent_stage(task, params, state, limits, *parts)
        ratio = 0.0 if limits.energy_pj is None else _REFERENCE_PJ / limits.energy_pj
        return (dataclasses.replace(stage, weight_rate=math.inf) if 3.5 < ratio < 4.5 else stage), begin

    def run(progress, ratios, **how):
        budgets = [cooptim.Budget(energy_ratio=ratio) for ratio in ratios]
        return cooptim.pareto(network, machine, data, budgets, (0, 7), out=out, plan=plan, progress=progress, **how)

    module_task = module.signed_task
    progresses = [_Progress("r2-s0 finetune0"), _Progress(), _Progress()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "signed_task", task_once)
        patch.setattr(module, "step_program", program_once)
        patch.setattr(module, "descent_stage", stage_of)
        patch.setattr(together, "masked", traced_once)
        with pytest.raises(_Killed):
            run(progresses[0], (4.0, 2.0), said=said.append)
        before = {path.parent.name: path.read_bytes() for path in out.glob("members/*/member.json")}
        fronts = [run(progresses[1], (4.0, 2.0, 8.0), resume=True)]
        fronts += [run(progresses[2], (4.0, 2.0, 8.0), resume=True, only=("r4-s0",))]
    return _Runs(out, fronts, [one.stages for one in progresses], list(programs), said, before)


def _by_name(front):
    return {point.name: point for point in front.points}


def test_one_step_is_compiled_for_all_members_seeds_and_stages(swept):
    assert swept.compiled == [1]  # one member a call


def test_members_of_a_seed_share_its_parent_and_references(swept):
    uniform = ["s0 uniform-4b", "s0 uniform-4b-finetune0"]
    assert swept.stages[0] == ["float", "float", "r4-s0", *uniform, "r2-s0", "r2-s0 finetune0"]


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


def test_a_member_is_a_run_directory_whose_design_costs_what_it_says(swept, asked):
    network, machine, data, _ = asked
    traced, point = network(0), _by_name(swept.fronts[0])["r2-s0"]
    folder = swept.out / "members" / "r2-s0"
    content, rows = read_result(folder)
    assert content["energy_pj"]["final"] == point.energy_pj and len(rows) == 2
    assert content["accuracy"]["final"] == point.test_accuracy
    assert content["energy_pj"]["best_uniform"] == point.uniform_pj
    design = load_design(folder / "design.json", traced.workload, machine)
    stats = load_stats(folder / "design.json", traced.workload)
    deadline = content["budget"]["latency_ns"]
    found = jax.jit(lambda *parts: cooptim.evaluate(traced.workload, machine, *parts, period_ns=deadline))(
        design, stats
    )
    assert float(found.total_energy_pj) == pytest.approx(point.energy_pj, rel=1e-5)
    params, state = load_weights(folder / "weights.npz", (traced.params, traced.state))
    logits = jax.jit(lambda params: traced.apply(params, state, data.x_val, design)[0])(params)
    assert float(np.mean(np.argmax(np.asarray(logits), -1) == data.y_val)) == pytest.approx(point.val_accuracy)


def test_a_member_meets_its_own_budget(swept):
    point = _by_name(swept.fronts[0])["r2-s0"]
    assert point.energy_pj <= point.budget_pj == pytest.approx(point.reference_pj / 2.0)
    assert point.reference_pj == pytest.approx(_REFERENCE_PJ, rel=0.05) and point.steps == 12


def test_the_memory_is_said_before_anything_trains(swept):
    (found,) = swept.said
    assert (found.members, found.together) == (4, 1)
    assert found.total >= found.resident + found.call > found.resident > 100e6


def test_a_sweep_of_another_plan_is_not_gone_on_with(swept, asked):
    network, machine, data, plan = asked
    with pytest.raises(ValueError, match="of another run: plan.steps 12 there, 13 here"):
        cooptim.pareto(
            network, machine, data, [cooptim.Budget(energy_ratio=4.0)], out=swept.out, resume=True,
            plan=dataclasses.replace(plan, steps=13),
        )  # fmt: skip


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


def test_an_energy_below_the_bound_is_refused_before_anything_trains(asked, tmp_path):
    network, machine, data, plan = asked
    budgets = [cooptim.Budget(energy_pj=energy, latency_ns=1e5) for energy in (1e6, 1.0)]
    with pytest.raises(InfeasibleBudget, match="energy budget 0.001 nJ is below the bound"):
        cooptim.pareto(network, machine, data, budgets, out=tmp_path, plan=plan)


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
