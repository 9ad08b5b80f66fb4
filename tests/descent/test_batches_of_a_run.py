"""What a training step sees: the same images, changed the same way, in a run that was interrupted and resumed."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cooptim
from cooptim.data import data_from_batches
from cooptim.descent import step
from cooptim.descent.checkpoint import Checkpoints
from cooptim.descent.loop import control_at, float_stage, run_stage
from cooptim.descent.plan import Plan
from cooptim.descent.run import optimize
from cooptim.descent.step import init_state
from cooptim.descent.task import build_task, calibrated_knobs

pytestmark = pytest.mark.float32


def _network(p, x):
    return x.reshape(x.shape[0], -1) @ p["w"]


def _batches():
    rng = np.random.default_rng(0)
    while True:
        y = rng.integers(0, 3, 10)
        yield (rng.random((10, 4, 4, 1)) + y[:, None, None, None]).astype(np.float32), y


STEPS = 25
PLAN = dataclasses.replace(Plan(), float_steps=STEPS, batch=16, chunk=16, save_seconds=0.0, stats_images=16)


def _unoptimised(function, **options):
    """`compiled`, where compiling is what a test spends its time on."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0}, **options)


def _built(network, data, plan):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(step, "compiled", _unoptimised)
        return build_task(network, cooptim.load_machine("envision"), data, plan, 3, network.params, network.state)


@pytest.fixture(scope="module")
def task():
    jax.config.update("jax_enable_x64", False)  # as each test below, which is marked float32
    params = {"w": jnp.asarray(np.random.default_rng(1).normal(size=(16, 3)), jnp.float32)}
    held = next(_batches())
    data = data_from_batches(_batches, test=held, val=held, train_images=40)
    network = cooptim.trace(_network, params, data.sample)
    return _built(network, data, dataclasses.replace(PLAN, augment="crop_flip"))


class Killed(Exception):
    pass


def _progress(last):
    def report(done, **_):
        if done > last:
            raise Killed

    return types.SimpleNamespace(stage=lambda *_: None, step=report)


def _trained(task, checkpoints=None, progress=None):
    knobs = calibrated_knobs(task, task.network.params, task.network.state, 8.0)
    params = jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), task.network.params)
    begin = init_state(params, task.network.state, knobs, task.seed)
    end = run_stage(task, float_stage(task), begin, checkpoints, progress)[0]
    return np.asarray(end.params["w"])


@pytest.mark.parametrize("streamed", [True, False])
def test_a_resumed_run_sees_the_same_augmented_images(task, tmp_path, streamed):
    task = task if streamed else dataclasses.replace(task, data=dataclasses.replace(task.data, stream=None))
    whole = _trained(task)
    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(Killed):
        _trained(task, checkpoints, _progress(15))
    assert checkpoints.latest("float") == 20  # killed in the report of the 21st step
    stages: list[tuple[str, int]] = []
    heard = types.SimpleNamespace(stage=lambda *stage: stages.append(stage), step=lambda *_, **__: None)
    resumed = _trained(task, checkpoints, heard)
    assert stages == [("float", task.plan.float_steps)]
    assert np.array_equal(resumed, whole)
    assert not np.array_equal(whole, np.asarray(task.network.params["w"]))


def test_streamed_held_and_unaugmented_runs_differ(task):
    held = dataclasses.replace(task, data=dataclasses.replace(task.data, stream=None))
    plain = _built(task.network, task.data, PLAN)
    ends = [_trained(one) for one in (task, held, plain)]
    assert not any(np.array_equal(ends[a], ends[b]) for a, b in ((0, 1), (0, 2), (1, 2)))


def test_rows_of_features_are_not_augmented(task):
    rows = (np.random.default_rng(0).normal(size=(9, 16)).astype(np.float32), np.arange(9) % 3)
    data = data_from_batches(rows, test=rows, val=rows)
    network = cooptim.trace(_network, task.network.params, data.sample)
    plan = dataclasses.replace(PLAN, augment="crop_flip")
    with pytest.raises(ValueError, match=r"augment 'crop_flip': inputs of shape \[16\] are no images .*use 'none'"):
        optimize(network, task.machine, data, plan=plan)
    with pytest.raises(ValueError, match="plan: augment 'mixup' is not known; use one of none, crop_flip"):
        Plan(augment="mixup")


def test_each_step_changes_the_same_images_another_way(task):
    stage = dataclasses.replace(float_stage(task), weight_rate=0.0)  # nothing learns: only the images may differ
    x, y = task.data.batch(0, 0, 16)
    losses = []
    for _ in range(2):
        knobs = calibrated_knobs(task, task.network.params, task.network.state, 8.0)
        params = jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), task.network.params)
        state = init_state(params, task.network.state, knobs, task.seed)
        for _ in range(3):
            control = control_at(task.plan, stage, state.knobs, 0, stage.phase)
            state, seen = task.step(state, control, x, y)
            losses.append(float(seen.loss))
    assert len(set(losses[:3])) == 3 and losses[:3] == losses[3:]
