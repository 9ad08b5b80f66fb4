"""Every example network through a whole run at tiny size: legal designs in time, and every weight trained.

Accuracies mean nothing here; runs of full length are in `experiments/example_networks`.
"""

import warnings

import jax
import numpy as np
import pytest
from flax import nnx

import cooptim
from cooptim import compile
from cooptim.data.dataset import Dataset
from cooptim.descent.plan import KnobRates, Plan
from cooptim.design.legal import violations
from cooptim.design.space import DesignSpace
from cooptim.mapping.frontier import tilings
from cooptim.network.examples import (
    DSCNN,
    DenseNet,
    InceptionNet,
    LeNet5,
    LSTMClassifier,
    ResNet8,
    VisionTransformer,
    XceptionNet,
)

pytestmark = [pytest.mark.float32, pytest.mark.unoptimized]

# Name: network of a key, shape of its images, classes. Published networks keep their channels.
CASES = {
    "lenet5": (LeNet5, (28, 28, 1), 10),
    "resnet8": (ResNet8, (8, 8, 3), 10),
    "ds_cnn": (DSCNN, (10, 4, 1), 12),
    "densenet": (lambda r: DenseNet(r, 2, (1, 1), 1, 3), (4, 4, 1), 3),
    "inception_net": (lambda r: InceptionNet(r, (2,), 3, 1, 3), (4, 4, 1), 3),
    "xception_net": (lambda r: XceptionNet(r, (2, 3), 1, 3), (4, 4, 1), 3),
    "lstm_classifier": (lambda r: LSTMClassifier(r, 4, 3, 3), (5, 4, 1), 3),
    "vision_transformer": (lambda r: VisionTransformer(r, 4, 2, 4, 2, 1, 1, 3), (4, 4, 1), 3),
}


def striped(shape, classes, rng):
    """Noise with a bright row whose place tells the class: a chunk and a quarter of another."""
    labels = np.arange(40, dtype=np.int32) % classes
    images = rng.random((len(labels), *shape), np.float32)
    images[np.arange(len(labels)), labels % shape[0]] += 1.0
    return images, labels


def made_up(shape, classes):
    rng = np.random.default_rng(0)
    splits = [striped(shape, classes, rng) for _ in range(3)]
    return Dataset("stripes", *(part for split in splits for part in split), classes)


def short_plan():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that widths cannot travel far in so few steps
        return Plan(
            float_steps=6, steps=12, finetune_steps=2, finetune_tries=1, batch=8, uniform_bits=(4,), attempts=1,
            stats_images=16, chunk=32, settle_steps=2, knob_rates=KnobRates(weight_log2_step=0.1, log2_threshold=0.1),
        )  # fmt: skip


@pytest.fixture(autouse=True)
def least_effort(monkeypatch):
    """Every program of a run runs a few times here, so that compiling is nearly all it costs."""
    options = compile.compiler_options(once=True)
    monkeypatch.setattr(compile, "compiler_options", lambda *, once=False: options)


@pytest.mark.parametrize("name", CASES)
def test_a_whole_run_ends_in_a_legal_design_in_time(name):
    make, shape, classes = CASES[name]
    data, machine = made_up(shape, classes), cooptim.load_machine("envision")
    network = cooptim.trace(make(nnx.Rngs(0)), data.sample)
    run = cooptim.optimize(network, machine, data, cooptim.Budget(energy_ratio=2.5), plan=short_plan())
    table = tilings(network.workload, machine)
    assert set(run.designs) == {"reference_16b", "best_uniform", "best_uniform_pruned", "final"}
    for label, one in run.designs.items():
        space = DesignSpace(network.workload, machine, table, one.design.input_signed)
        assert violations(space, one.design) == [], label
        assert float(one.report.total_latency_ns) <= run.budget.latency_ns * (1 + 1e-6), label
        assert float(one.report.total_energy_pj) >= run.bound_pj, label
    final = run.designs["final"]
    assert float(final.report.total_energy_pj) <= run.budget.energy_pj
    # What was trained is what was traced, and all of it was trained.
    for (path, before), after in zip(
        jax.tree_util.tree_leaves_with_path(network.params), jax.tree.leaves(final.params), strict=True
    ):
        assert np.shape(before) == np.shape(after) and not np.array_equal(before, after), jax.tree_util.keystr(path)
        assert np.all(np.isfinite(after)), jax.tree_util.keystr(path)
