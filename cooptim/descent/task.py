"""Everything a run needs that does not change while it runs, built once."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cooptim.compile import compiled
from cooptim.data import Dataset, batch_indices
from cooptim.data.augment import augmentation
from cooptim.descent.clusters import label_bits, with_clusters
from cooptim.descent.faults import Faults, faults_of, safe_machine
from cooptim.descent.measure import Measure
from cooptim.descent.plan import Plan
from cooptim.descent.price import Pricer
from cooptim.descent.recipes import methods_of
from cooptim.descent.result import Priced
from cooptim.descent.stages import without_exits
from cooptim.descent.step import make_step
from cooptim.descent.teacher import TeacherLogits
from cooptim.design.design import Design
from cooptim.design.knobs import Knobs, Phase, float_phase
from cooptim.design.space import DesignSpace
from cooptim.hardware.machine import Machine
from cooptim.mapping.frontier import tilings
from cooptim.network.liveness import Liveness
from cooptim.network.ranges import extremes
from cooptim.network.stats import Stats
from cooptim.network.trace import Network

# Range over standard deviation that loses least to rounding and clipping together, by width [bit]: for signed normal
# data with 2^b - 1 levels, and for its positive half with 2^b levels.
# Source: mean squared error minimised numerically over 400,000 normal samples.
_CLIP_SIGNED = {2: 1.2, 3: 1.95, 4: 2.5, 5: 2.9, 6: 3.25, 7: 3.6, 8: 3.9}
_ONE_SIGNED, _ONE_UNSIGNED = 0.80, 1.22  # the same for +R or -R, and for 0 or R: Max, IRE Trans. IT-6 (1960), table I
_CLIP_UNSIGNED = {2: 1.95, 3: 2.5, 4: 2.9, 5: 3.25, 6: 3.6, 7: 3.9, 8: 4.15}


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """Network, machine, data and compiled programs of one run."""

    network: Network
    machine: Machine
    data: Dataset
    plan: Plan
    seed: int
    space: DesignSpace
    measure: Measure
    pricer: Pricer
    step: Any
    init: Any  # DesignSpace.init and decode as programs: op by op they compile fifty small ones
    decode: Any
    faults: Faults | None = None  # what goes wrong; None: nothing does, and no supply is below the safe one
    teacher: TeacherLogits | None = None  # the float parent, once it is trained, where the plan asks for one

    @property
    def stats_images(self) -> tuple[np.ndarray, np.ndarray]:
        """The training images on which zero rates are measured, the same for every design."""
        n = min(self.plan.stats_images, len(self.data.x_train))
        return self.data.x_train[:n], self.data.y_train[:n]

    @property
    def layers(self) -> int:
        """Number of layers."""
        return len(self.space.workload.layers)


def build_task(
    network: Network, machine: Machine, data: Dataset, plan: Plan, seed: int, params: Any, state: Any
) -> Task:
    """A Task whose signs of inputs are those seen with these parameters."""
    return signed_task(network, machine, data, plan, seed, _signs(network, params, state, data, plan))


def signed_task(
    network: Network, machine: Machine, data: Dataset, plan: Plan, seed: int, signed: tuple[bool, ...]
) -> Task:
    """A Task with the given signs of inputs; what its plan lets go wrong decides which supplies are legal."""
    faults = faults_of(machine, plan)
    machine = safe_machine(machine) if faults is None else machine
    methods = methods_of(network.workload, plan.quantizer, plan.per_channel, plan.pattern, plan.label_bits)
    space = DesignSpace(network.workload, machine, tilings(network.workload, machine), signed, methods)
    return Task(
        network,
        machine,
        data,
        plan,
        seed,
        space,
        Measure(network, plan.chunk, faults),
        Pricer(space),
        step_of(network, space, data, plan, faults),
        compiled(space.init),
        compiled(space.decode),
        faults,
    )


def step_of(
    network: Network, space: DesignSpace, data: Dataset, plan: Plan, faults: Faults | None,
    channels: Liveness | None = None,
) -> Any:  # fmt: skip
    """The training step of a task, as a program; `channels` as in `make_loss`."""
    images = augmentation(plan.augment, data.image_shape)
    return make_step(
        network, space, images, faults=faults, temperature=plan.distill_temperature, channels=channels
    )  # fmt: skip


def with_teacher(task: Task, params: Any, state: Any) -> Task:
    """The task whose designs learn from these parameters, the float parent's; itself where its plan does without."""
    if task.plan.distill_weight == 0.0:
        return task
    augmented = task.plan.augment != "none"
    teacher = TeacherLogits(task.network, params, state, task.data, task.plan.chunk, augmented=augmented)
    return dataclasses.replace(task, teacher=teacher)


def seen_signs(task: Task, params: Any, state: Any) -> tuple[bool, ...]:
    """Whether an input of each layer goes below 0 with these parameters."""
    return _signs(task.network, params, state, task.data, task.plan)


def _signs(network: Network, params: Any, state: Any, data: Dataset, plan: Plan) -> tuple[bool, ...]:
    seen = observe(network, params, state, data, plan.chunk)
    return tuple(bool(low < 0) for low in np.asarray(seen.input_min))


def observe(network: Network, params: Any, state: Any, data: Dataset, chunk: int) -> Any:
    """Extrema and root mean squares of every operand on the first training images."""
    return _observer(network)(params, state, data.x_train[:chunk])


@functools.lru_cache(maxsize=2)
def _observer(network: Network) -> Any:
    return compiled(network.observe)


def calibrated_knobs(task: Task, params: Any, state: Any, bits: float) -> Knobs:
    """Knobs at one width everywhere, labels at their own; ranges clip what a normal distribution seldom reaches."""
    seen = jax.tree.map(np.asarray, observe(task.network, params, state, task.data, task.plan.chunk))
    clip_signed, clip_unsigned = (np.float32(clips.get(int(bits), 1e9)) for clips in (_CLIP_SIGNED, _CLIP_UNSIGNED))
    labels = label_bits(task.space)
    weight_bits: Any = float(bits)
    clip_weight: Any = clip_signed
    if labels.any():  # thresholds start at half a step, which is near half the least value of a table of so many bits
        weight_bits = np.where(labels > 0, labels, bits).astype(np.float32)
        clip_weight = np.asarray([_CLIP_SIGNED.get(int(width), 1e9) for width in weight_bits], np.float32)
    weight_max = np.minimum(seen.weight_max, clip_weight * seen.weight_rms)
    # A rectified normal keeps half of its mean square, so its standard deviation is sqrt(2) times what was seen.
    clip = np.where(task.space.signed > 0, clip_signed, np.float32(np.sqrt(2.0)) * clip_unsigned)
    if any(method.inputs == "sign" for method in task.space.methods):
        one = np.where(task.space.signed > 0, _ONE_SIGNED, np.sqrt(2.0) * _ONE_UNSIGNED)
        clip = np.where([method.inputs == "sign" for method in task.space.methods], one, clip).astype(np.float32)
    input_max = np.maximum(np.abs(seen.input_min), np.abs(seen.input_max))
    input_max = np.minimum(input_max, clip * seen.input_rms)
    start = (jnp.asarray(weight_max), jnp.asarray(input_max), weight_bits, float(bits))
    if not any(method.scaled for method in task.space.methods):
        return with_clusters(task.network, task.space, params, task.init(*start))
    # A channel is clipped by the share by which its layer is.
    shares = weight_max / np.maximum(seen.weight_max, np.finfo(np.float32).tiny)
    channels = zip(shares, _channels(task, params, state), strict=True)
    return with_clusters(
        task.network, task.space, params, task.init(*start, tuple(share * most for share, most in channels))
    )


def _channels(task: Task, params: Any, state: Any) -> tuple[Any, ...]:
    """Largest magnitude of each output channel, size 0 for layers whose method has none."""
    scaled = tuple(method.scaled for method in task.space.methods)
    found = _extremes(task.network, scaled)(params, state, task.data.x_train[:1]).channel_max
    missing = [name for i, name in enumerate(task.space.workload.names) if scaled[i] and i not in found]
    if missing:
        raise ValueError(f"the output channels of {', '.join(missing)} cannot be told; leave per_channel off")
    return tuple(found.get(i, jnp.zeros(0)) for i in range(task.layers))


@functools.lru_cache(maxsize=2)
def _extremes(network: Network, scaled: tuple[bool, ...]) -> Any:
    return compiled(lambda params, state, x: extremes(network, params, state, x, scaled))


def settled(task: Task, params: Any, state: Any, design: Design) -> Any:
    """State with up-to-date batch statistics under this design."""
    x, size = task.data.x_train, min(task.plan.batch, len(task.data.x_train))
    order = (batch_indices(task.seed + 7, step, len(x), size) for step in range(task.plan.settle_steps))
    return task.measure.settled(params, state, design, (x[index] for index in order))


def decode(task: Task, knobs: Knobs, phase: Phase) -> Design:
    """The design at the end of the anneal."""
    return task.decode(knobs, task.plan.end_temperature, phase)


def float_design(task: Task, knobs: Knobs) -> Design:
    """A design that leaves the network in float, and lets no input leave early."""
    return without_exits(decode(task, knobs, float_phase(task.layers)))


def rates(task: Task, params: Any, state: Any, design: Design) -> Stats:
    """Zero rates on the statistics images; which layers run, where inputs leave early, on all validation images.

    Training images leave earlier than others, for the network is surer of them.
    """
    stats = task.measure.stats(params, state, design, *task.stats_images)
    if design.exit_margin is None:
        return stats
    reach = task.measure.reach(params, state, design, task.data.x_val)
    return dataclasses.replace(stats, reach=reach.astype(stats.weight_density.dtype))


def priced(task: Task, title: str, params: Any, state: Any, design: Design, period_ns: float) -> Priced:
    """One legal design with its figures; the test accuracy is filled in at the end of the run."""
    stats = rates(task, params, state, design)
    val_accuracy, val_loss = task.measure.accuracy(params, state, design, task.data.x_val, task.data.y_val)
    report = task.pricer.report(design, stats, period_ns)
    return Priced(title, params, state, design, stats, report, val_accuracy, float("nan"), val_loss)
