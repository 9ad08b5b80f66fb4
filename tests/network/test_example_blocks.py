"""The small example networks: MACs by hand, and one gradient of task and price together at tiny size.

A whole `optimize` of each takes minutes of compiling; what is run here is the gradient of its objective.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import cooptim
from cooptim.cli.model import find
from cooptim.design.knobs import free_phase
from cooptim.network import examples
from cooptim.network.examples import DenseNet, InceptionNet, LSTMClassifier, VisionTransformer, XceptionNet

pytestmark = [pytest.mark.float32, pytest.mark.unoptimized]


def conv(c, k, pixels, taps):
    return c * k * pixels * taps * taps


def densenet(growth, layers, channels, classes, side):
    """Stem, layers that each see all channels before, 1x1 to half the channels and a quarter of the pixels."""
    width, total = 2 * growth, conv(channels, 2 * growth, side**2, 3)
    for number, depth in enumerate(layers):
        if number:
            total += conv(width, width // 2, side**2, 1)
            width, side = width // 2, side // 2
        for _ in range(depth):
            total += conv(width, growth, side**2, 3)
            width += growth
    return total + width * classes


def inception(widths, stem, channels, classes, side):
    """Stem of stride 2; six convolutions a block; blocks after the first at half the resolution."""
    side //= 2
    total, c = conv(channels, stem, side**2, 3), stem
    for number, w in enumerate(widths):
        side //= 2 if number else 1
        pixels, half = side**2, w // 2
        total += conv(c, w, pixels, 1) + conv(c, w, pixels, 1) + conv(w, 2 * w, pixels, 3)
        total += conv(c, half, pixels, 1) + conv(half, half, pixels, 5) + conv(c, half, pixels, 1)
        c = w + 2 * w + half + half
    return total + c * classes


def xception(widths, channels, classes, side):
    """Stem; a block has 3x3 over each channel alone and 1x1, twice, at full resolution, and a 1x1 at a quarter."""
    total = conv(channels, widths[0], side**2, 3)
    for a, b in zip(widths[:-1], widths[1:], strict=True):
        total += side**2 * (9 * a + a * b + 9 * b + b * b) + (side // 2) ** 2 * a * b
        side //= 2
    return total + widths[-1] * classes


def lstm(rows, features, hidden, classes):
    """Four gates from inputs and from the state, a row at a time."""
    return rows * 4 * hidden * (features + hidden) + hidden * classes


def transformer(side, patch, width, depth, channels, classes):
    """Patches; a block has 3 + 1 + 4 + 4 square products a token and two products of all pairs of tokens."""
    tokens = (side // patch) ** 2
    block = 12 * width**2 * tokens + 2 * tokens**2 * width
    return tokens * patch**2 * channels * width + depth * block + width * classes


# Name: (MACs of the factory's network, tiny network, its input without the batch, its MACs, its layers).
CASES = {
    "densenet": (
        densenet(12, (4, 4, 4), 3, 10, 32), lambda r: DenseNet(r, 2, (1, 1), 1, 3), (4, 4, 1),
        densenet(2, (1, 1), 1, 3, 4), 5,
    ),
    "inception_net": (
        inception((16, 24), 16, 3, 10, 32), lambda r: InceptionNet(r, (2,), 3, 1, 3), (4, 4, 1),
        inception((2,), 3, 1, 3, 4), 8,
    ),
    "xception_net": (
        xception((16, 32, 64), 3, 10, 32), lambda r: XceptionNet(r, (2, 3), 1, 3), (4, 4, 1),
        xception((2, 3), 1, 3, 4), 7,
    ),
    "lstm_classifier": (lstm(28, 28, 64, 10), lambda r: LSTMClassifier(r, 4, 3, 3), (5, 4, 1), lstm(5, 4, 3, 3), 3),
    "vision_transformer": (
        transformer(32, 4, 64, 3, 3, 10), lambda r: VisionTransformer(r, 4, 2, 4, 2, 1, 1, 3), (4, 4, 1),
        transformer(4, 2, 4, 1, 1, 3), 8,
    ),
}  # fmt: skip


def by_shape(make, shape, batch):
    """The traced network, parameters as shapes only."""
    model = nnx.eval_shape(lambda: make(nnx.Rngs(0)))
    return cooptim.trace(model, jax.ShapeDtypeStruct((batch, *shape), jnp.float32))


@pytest.mark.parametrize("name", CASES)
def test_macs_are_those_of_the_formula(name):
    full, make, shape, tiny, layers = CASES[name]
    factory = find(f"cooptim.network.examples:{name}")  # as --model finds it
    assert by_shape(factory, examples.INPUT_SHAPES[name], 3).workload.macs == full
    workload = by_shape(make, shape, 2).workload
    assert (workload.macs, len(workload.layers)) == (tiny, layers)


@pytest.mark.parametrize("name", CASES)
def test_weights_and_knobs_descend_together(name):
    _, make, shape, _, count = CASES[name]
    rng = np.random.default_rng(0)
    network, machine = by_shape(make, shape, 6), cooptim.load_machine("envision")
    fill = lambda leaf: (0.5 + 0.3 * rng.normal(size=leaf.shape)).astype(leaf.dtype)  # noqa: E731
    params, state = jax.tree.map(fill, network.params), jax.tree.map(fill, network.state)
    x, y = rng.random((6, *shape), np.float32), np.arange(6, dtype=np.int32) % 3
    table = cooptim.tilings(network.workload, machine)
    space = cooptim.DesignSpace(network.workload, machine, table, (True,) * count)
    phase = free_phase(count)

    def cost(params, knobs):
        design = space.decode(knobs, 1.0, phase)
        logits, _, stats = network.apply(params, state, x, design, train=True)
        report = cooptim.evaluate(network.workload, machine, design, stats, tilings=table)
        task = optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()
        return task + jnp.log(report.total_energy_pj), report.layer_energy_pj

    def run(params):
        knobs = space.init(jnp.full(count, 2.0), jnp.full(count, 3.0), 8.0, 8.0)
        return jax.value_and_grad(cost, argnums=(0, 1), has_aux=True)(params, knobs)

    fast = {"xla_backend_optimization_level": 0}
    (value, energy_pj), (by_weight, by_knob) = jax.jit(run, compiler_options=fast)(params)
    assert np.isfinite(float(value)) and energy_pj.shape == (count,) and np.all(np.asarray(energy_pj) > 0)
    for path, slope in jax.tree_util.tree_leaves_with_path((by_weight, by_knob)):
        assert np.all(np.isfinite(np.asarray(slope))), jax.tree_util.keystr(path)
    weights = jax.tree_util.tree_leaves_with_path(by_weight)
    still = [jax.tree_util.keystr(path) for path, slope in weights if not np.any(np.asarray(slope))]
    assert still == []
    # A coarser step means fewer bits, so the price pulls at the step of every layer.
    assert np.all(np.asarray(by_knob.weight_log2_step) != 0) and np.all(np.asarray(by_knob.input_log2_step) != 0)
