"""Distillation: the soft loss by hand, whose logits a step sees, and that a run with a teacher is like any other."""

import dataclasses
import inspect
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cooptim
from cooptim.data import data_from_batches
from cooptim.data.augment import crop_flip
from cooptim.descent import step, sweep
from cooptim.descent.checkpoint import Checkpoints
from cooptim.descent.loop import control_at, float_stage, run_stage
from cooptim.descent.plan import Plan
from cooptim.descent.step import init_state
from cooptim.descent.task import build_task, calibrated_knobs, with_teacher
from cooptim.descent.teacher import lesson_logits, taught_loss

STEPS = 25


def test_the_loss_is_the_labels_share_and_the_softened_teachers_share_by_hand():
    # logits (ln 9, 0), teacher (ln 16, 0), temperature 2: probabilities 9/10; softened 3/4 and 4/5
    logits, teacher = jnp.log(jnp.array([[9.0, 1.0]])), jnp.log(jnp.array([[16.0, 1.0]]))
    hard, soft = -np.log(0.9), -(0.8 * np.log(0.75) + 0.2 * np.log(0.25))
    for weight in (0.0, 0.3, 1.0):
        found = taught_loss(jnp.asarray(hard), logits, teacher, jnp.asarray(weight), 2.0)
        np.testing.assert_allclose(found, (1 - weight) * hard + weight * 4.0 * soft, rtol=1e-12)
    sure = jnp.log(jnp.array([[[16.0, 1.0]]]))  # a second stage, which says what the teacher says
    both = jnp.concatenate([logits[None], sure])
    same = -(0.8 * np.log(0.8) + 0.2 * np.log(0.2))
    found = taught_loss(jnp.zeros(()), both, teacher, jnp.ones(()), 2.0)
    np.testing.assert_allclose(found, 4.0 * (soft + same) / 2, rtol=1e-12)


def test_hot_teachers_ask_for_their_logits():
    # Hinton et al. 2015, eq. 4: at a high temperature the slope of the soft loss is (z - v)/N for logits of mean 0
    rng = np.random.default_rng(0)
    z, v = rng.normal(size=(2, 1, 5))
    z, v = z - z.mean(), v - v.mean()
    slope = jax.grad(lambda z: taught_loss(jnp.zeros(()), z, jnp.asarray(v), jnp.ones(()), 1e4))(jnp.asarray(z))
    np.testing.assert_allclose(slope, (z - v) / 5, rtol=2e-3, atol=1e-4)
    still = jax.grad(lambda v: taught_loss(jnp.zeros(()), jnp.asarray(z), v, jnp.ones(()), 2.0))(jnp.asarray(v))
    np.testing.assert_array_equal(still, 0.0)  # nothing learns through the teacher


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"distill_weight": 1.5}, "distill_weight 1.5 is no share of the loss; use 0 to 1"),
        ({"distill_weight": float("nan")}, "distill_weight nan is no share"),
        ({"distill_temperature": 0.0}, "distill_temperature 0 cannot divide logits; use a positive one"),
    ],
)
def test_a_plan_names_what_is_no_weight_and_no_temperature(wrong, said):
    with pytest.raises(ValueError, match=said):
        Plan(**wrong)


def _network(p, x):
    return x.reshape(x.shape[0], -1) @ p["w"]


def _built(plan):
    rng = np.random.default_rng(2)
    y = rng.integers(0, 3, 40)
    rows = ((rng.random((40, 4, 4, 1)) + y[:, None, None, None]).astype(np.float32), y)
    data = data_from_batches(rows, test=rows, val=rows)
    params = {"w": jnp.asarray(rng.normal(size=(16, 3)), jnp.float32)}
    network = cooptim.trace(_network, params, data.sample)

    def unoptimised(function, **options):  # compiling is what these tests spend their time on
        return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0}, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(step, "compiled", unoptimised)
        return build_task(network, cooptim.load_machine("envision"), data, plan, 3, params, network.state)


PLAN = dataclasses.replace(
    Plan(), float_steps=STEPS, batch=16, chunk=16, save_seconds=0.0, stats_images=16, distill_weight=1.0,
    distill_temperature=2.0,
)  # fmt: skip


@pytest.fixture(scope="module")
def task():
    jax.config.update("jax_enable_x64", False)  # as each test below, which is marked float32
    return _built(PLAN)


class Killed(Exception):
    pass


def _trained(task, checkpoints=None, last=None, **stage):
    def report(done, **_):
        if last is not None and done > last:
            raise Killed

    knobs = calibrated_knobs(task, task.network.params, task.network.state, 8.0)
    params = jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), task.network.params)
    begin = init_state(params, task.network.state, knobs, task.seed)
    lessons = dataclasses.replace(float_stage(task), **stage)
    progress = types.SimpleNamespace(stage=lambda *_: None, step=report)
    return np.asarray(run_stage(task, lessons, begin, checkpoints, progress)[0].params["w"])


@pytest.mark.float32
def test_a_lesson_is_what_the_teacher_says_of_the_images_of_the_step(task):
    w = np.full((16, 3), 0.5, np.float32) + np.eye(16, 3, dtype=np.float32)
    taught = with_teacher(task, {"w": jnp.asarray(w)}, task.network.state)
    for place in ((3, 0, 16), (3, 1, 16), (1003, 4, 16)):  # another epoch, another order
        x = task.data.batch(*place)[0]
        np.testing.assert_allclose(taught.teacher.lesson(*place), x.reshape(16, -1) @ w, rtol=1e-5)


@pytest.mark.float32
def test_where_images_change_the_teacher_sees_the_changed_ones(task):
    w = jnp.asarray(np.random.default_rng(5).normal(size=(16, 3)), jnp.float32)
    plan = dataclasses.replace(PLAN, augment="crop_flip")
    changing = with_teacher(dataclasses.replace(task, plan=plan), {"w": w}, task.network.state)
    x = crop_flip(jax.random.key(1), jnp.asarray(task.data.x_train[:16]))
    lesson = changing.teacher.lesson(3, 0, 16)
    np.testing.assert_allclose(lesson_logits(task.network, lesson, x), x.reshape(16, -1) @ w, rtol=1e-5)


@pytest.mark.float32
def test_a_design_learns_from_the_teacher_and_the_float_parent_does_not(task):
    other = dataclasses.replace(task.data, y_train=(task.data.y_train + 1) % 3)
    relabelled = dataclasses.replace(task, data=other)
    alone, alone_relabelled = _trained(task), _trained(relabelled)
    assert not np.array_equal(alone, alone_relabelled)  # labels count for the parent
    teacher = {"w": -task.network.params["w"]}
    pupils = [_trained(with_teacher(one, teacher, task.network.state), taught=True) for one in (task, relabelled)]
    np.testing.assert_array_equal(*pupils)  # at weight 1 they do not for its pupil
    assert not np.array_equal(pupils[0], alone)
    np.testing.assert_array_equal(_trained(with_teacher(task, teacher, task.network.state)), alone)
    with pytest.raises(ValueError, match="stage float: the plan's distill_weight is 1 and nobody teaches; give the"):
        _trained(task, taught=True)


@pytest.mark.float32
def test_without_a_weight_there_is_no_teacher(task):
    plain = dataclasses.replace(task, plan=dataclasses.replace(PLAN, distill_weight=0.0))
    assert with_teacher(plain, task.network.params, task.network.state).teacher is None


@pytest.mark.float32
@pytest.mark.parametrize("augment", ["none", "crop_flip"])
def test_a_resumed_pupil_ends_bit_equal(task, tmp_path, augment):
    if augment != "none":
        task = _built(dataclasses.replace(PLAN, augment=augment))
    teacher = {"w": -task.network.params["w"]}
    pupil = with_teacher(task, teacher, task.network.state)
    whole, checkpoints = _trained(pupil, taught=True), Checkpoints(tmp_path)
    with pytest.raises(Killed):
        _trained(pupil, checkpoints, last=15, taught=True)
    assert checkpoints.latest("float") == 20
    np.testing.assert_array_equal(_trained(pupil, checkpoints, taught=True), whole)


@pytest.mark.float32
def test_the_schedule_gives_the_weight_to_every_stage_but_the_parents(task):
    stage = float_stage(task)
    knobs = calibrated_knobs(task, task.network.params, task.network.state, 8.0)
    weights = [
        float(control_at(PLAN, dataclasses.replace(stage, taught=taught), knobs, 5, stage.phase).distill_weight)
        for taught in (False, True)
    ]
    assert weights == [0.0, 1.0]


def test_a_sweep_says_that_it_does_not_teach():
    with pytest.raises(ValueError, match="distill_weight is 1, and members of a sweep have no teacher; use 0, or run"):
        inspect.unwrap(sweep.sweep)(None, None, None, [], [], PLAN, None, {}, None, None)
