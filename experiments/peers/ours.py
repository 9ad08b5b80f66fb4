"""Our side: float parent, joint designs at several energies, a peer's words on the chip, step times."""

import dataclasses
import importlib.util
import pathlib
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from points import Point, loaded, point_design

import cooptim
from cooptim.descent.assign import assign_hardware
from cooptim.descent.descend import descend, descent_stage
from cooptim.descent.finalize import Limits
from cooptim.descent.loop import control_at
from cooptim.descent.plan import Plan
from cooptim.descent.polish import polished
from cooptim.descent.references import reference_16b
from cooptim.descent.result import Priced
from cooptim.descent.run import accuracy_on_test, best_uniform, float_parent, tested
from cooptim.descent.task import Task, build_task, calibrated_knobs, float_design

HERE = pathlib.Path(__file__).parent
KEPT = 0.005  # of validation accuracy that the uniform width may lose
TIE = 1e-6  # moves pixels off ties, which HGQ2 rounds up and our executor to even


@dataclasses.dataclass(frozen=True)
class Ours:
    """One seed: the task on Envision, the float parent, the 16-bit reference that sets the deadline, the best uniform
    width, where descents start."""

    task: Task
    params: Any
    state: Any
    reference: Priced
    float_accuracy: tuple[float, float]  # validation, test
    uniform_bits: int

    @property
    def deadline_ns(self) -> float:
        """Latency of the 16-bit reference, for every design of either side."""
        return float(self.reference.report.total_latency_ns)


def peers_cnn() -> type[nnx.Module]:
    """The network of `bit_operations/run.py`, the one that the peers' published-code figures are of."""
    spec = importlib.util.spec_from_file_location("bit_operations", HERE.parent / "bit_operations" / "run.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.PeersCNN


def begun(module: type[nnx.Module], data: cooptim.Dataset, plan: Plan, seed: int) -> Task:
    """The task of a seed, nothing trained; images and what rectifiers leave are not negative, now or later."""
    network = cooptim.trace(module(rngs=nnx.Rngs(seed)), data.sample)
    return build_task(network, cooptim.load_machine("envision"), data, plan, seed, network.params, network.state)


def trained(task: Task) -> Ours:
    """The float parent of a seed and its 16-bit reference."""
    data, plan = task.data, task.plan
    params, state = float_parent(task, task.network.params, task.network.state, None, None)
    reference, _ = reference_16b(task, params, state)
    plain = float_design(task, calibrated_knobs(task, params, state, plan.start_bits))
    val = task.measure.accuracy(params, state, plain, data.x_val, data.y_val)[0]
    limits = Limits(None, float(reference.report.total_latency_ns), None, val - KEPT)
    _, bits = best_uniform(task, params, state, limits, None, None)
    return Ours(task, params, state, reference, (val, accuracy_on_test(task, params, state, plain)), bits)


def designed(ours: Ours, ratio: float) -> tuple[Priced, float]:
    """(the joint design at 1/ratio of the reference's energy, CPU-s): rounds of fine-tuning until no loss is left."""
    begin = time.process_time()
    energy_pj = float(ours.reference.report.total_energy_pj) / ratio
    limits = Limits(energy_pj, ours.deadline_ns, None, ours.float_accuracy[0])
    found = descend(
        ours.task, ours.params, ours.state, limits, f"joint{ratio:g}", None, None, None, start_bits=ours.uniform_bits
    )  # fmt: skip
    return tested(ours.task, found.final), time.process_time() - begin


def priced_point(task: Task, deadline_ns: float, point: Point) -> tuple[float, tuple[float, ...], float]:
    """(energy [pJ], widths of weights then inputs [bit], validation accuracy in our executor) of a peer's network."""
    design, stats = point_design(task.space, point)
    legal = assign_hardware(task.space, task.pricer, design, stats, deadline_ns)
    legal = polished(task.space, task.pricer, legal, stats, deadline_ns)
    energy_pj = float(task.pricer.report(legal, stats, deadline_ns).total_energy_pj)
    params, state = loaded(task.network.params, task.network.state, point)
    x = task.data.x_val + np.float32(TIE)
    ran = task.measure.accuracy(params, state, legal, x, task.data.y_val)[0]
    return energy_pj, tuple(float(b) for b in (*legal.weight_bits, *legal.input_bits)), ran


def step_times(
    module: type[nnx.Module], task: Task, energy_pj: float, deadline_ns: float, blocks: int = 9, length: int = 20
) -> dict[str, float]:
    """CPU-seconds a step, medians of alternating blocks: float as a user of nnx writes it, and the joint descent.

    energy_pj: what the descent is asked for; it changes no cost, nor do the weights, which are untrained.
    """
    plan = task.plan
    graph, weights, rest = nnx.split(module(rngs=nnx.Rngs(0)), nnx.Param, ...)
    adam = optax.adam(1e-3)

    def loss(weights: Any, rest: Any, x: Any, labels: Any) -> Any:
        model = nnx.merge(graph, weights, rest, copy=True)
        model.train()
        value = jnp.mean(optax.softmax_cross_entropy_with_integer_labels(model(x), labels))
        return value, nnx.state(model, nnx.Not(nnx.Param))

    @jax.jit
    def float_step(state: Any, x: Any, labels: Any) -> Any:
        weights, rest, moments = state
        (value, rest), slope = jax.value_and_grad(loss, has_aux=True)(weights, rest, x, labels)
        update, moments = adam.update(slope, moments)
        return (optax.apply_updates(weights, update), rest, moments), value

    limits = Limits(energy_pj, deadline_ns, None, 0.0)
    stage, joint = descent_stage(task, task.network.params, task.network.state, limits, "timed", None)
    control = control_at(plan, stage, joint.knobs, 10, stage.phase)
    calls = {"float": lambda s, batch: float_step(s, *batch), "joint": lambda s, batch: task.step(s, control, *batch)}
    states: dict[str, Any] = {"float": (weights, rest, adam.init(weights)), "joint": joint}
    found: dict[str, list[float]] = {name: [] for name in calls}
    for block in range(blocks + 1):
        for name, call in calls.items():
            begin = time.process_time()
            for step in range(length):
                states[name], seen = call(states[name], task.data.batch(0, step, plan.batch))
            jax.block_until_ready((states[name], seen))
            if block > 0:  # the first compiles
                found[name].append((time.process_time() - begin) / length)
    return {f"our_{name}_step_s": float(np.median(values)) for name, values in found.items()}
