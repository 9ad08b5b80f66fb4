"""Each layer kind on 5,000 inputs: numpy integers equal the float32 function, and both follow `Network.apply`."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cooptim.compile import compiled_once
from cooptim.design.design import Operands
from cooptim.export.integer_file import save_integer
from cooptim.integer import load_integer, outputs, predict, values
from cooptim.network import examples, trace
from cooptim.network.integer import IntegerOptions, integer_network, require_float_path, rounded_values

INPUTS = 5000


def conv(c, k, **options):
    return nnx.Conv(c, k, options.pop("taps", (3, 3)), rngs=nnx.Rngs(c + k), **options)


def norm(channels):
    """A normalization as training leaves it: every constant its own, one scale negative and one zero."""
    layer, key = nnx.BatchNorm(channels, rngs=nnx.Rngs(0)), jax.random.split(jax.random.key(3), 4)
    scale = jax.random.uniform(key[0], (channels,), minval=0.3, maxval=1.5).at[0].mul(-1).at[1].set(0.0)
    layer.scale.set_value(scale)
    layer.bias.set_value(jax.random.normal(key[1], (channels,)) * 0.3)
    layer.mean.set_value(jax.random.normal(key[2], (channels,)) * 0.2)
    layer.var.set_value(jax.random.uniform(key[3], (channels,), minval=0.05, maxval=0.5))
    return layer


class Body(nnx.Module):
    """Layers by name, a function that strings them together, and a dense head that reads what comes out."""

    def __init__(self, layers, forward, features, pool=True):
        for name, layer in layers.items():
            setattr(self, name, layer)
        self.forward, self.pool = forward, pool
        self.head = nnx.Linear(features, 5, rngs=nnx.Rngs(9))

    def __call__(self, x):
        y = self.forward(self, x)
        return self.head(y.reshape(y.shape[0], -1))


# id -> a function that makes (network, shape of one input)
relu = nnx.relu
KINDS = {
    "dense": lambda: (Body({"a": nnx.Linear(12, 9, rngs=nnx.Rngs(0))}, lambda m, x: relu(m.a(x)), 9), (12,)),
    "conv": lambda: (Body({"a": conv(3, 4)}, lambda m, x: relu(m.a(x)), 100), (5, 5, 3)),
    "strided": lambda: (Body({"a": conv(3, 4, strides=2)}, lambda m, x: relu(m.a(x)), 36), (5, 5, 3)),
    "grouped": lambda: (Body({"a": conv(4, 6, feature_group_count=2)}, lambda m, x: relu(m.a(x)), 96), (4, 4, 4)),
    "depthwise": lambda: (Body({"a": conv(4, 4, feature_group_count=4)}, lambda m, x: relu(m.a(x)), 64), (4, 4, 4)),
    "dilated": lambda: (Body({"a": conv(2, 3, kernel_dilation=2)}, lambda m, x: relu(m.a(x)), 75), (5, 5, 2)),
    "conv_norm_relu": lambda: (
        Body({"a": conv(2, 6, use_bias=False), "n": norm(6)}, lambda m, x: relu(m.n(m.a(x))), 96),
        (4, 4, 2),
    ),
    "relu_norm": lambda: (Body({"a": conv(2, 6), "n": norm(6)}, lambda m, x: m.n(nnx.relu6(m.a(x))), 96), (4, 4, 2)),
    "residual": lambda: (
        Body(
            {"a": conv(2, 4), "b": conv(4, 4), "n": norm(4)},
            lambda m, x: relu((h := relu(m.a(x))) + m.n(m.b(h))),
            64,
        ),
        (4, 4, 2),
    ),
    "max_pool": lambda: (
        Body({"a": conv(2, 4), "n": norm(4)}, lambda m, x: nnx.max_pool(relu(m.n(m.a(x))), (2, 2), (2, 2)), 16),
        (4, 4, 2),
    ),
    "max_pool_same": lambda: (
        Body({"a": conv(2, 4)}, lambda m, x: nnx.max_pool(m.a(x), (3, 3), (2, 2), padding="SAME"), 36),
        (5, 5, 2),
    ),
    "average_pool": lambda: (
        Body({"a": conv(2, 4)}, lambda m, x: nnx.avg_pool(relu(m.a(x)), (2, 2), (2, 2)), 16),
        (4, 4, 2),
    ),
    "average_pool_same": lambda: (
        Body(
            {"a": conv(2, 4)},
            lambda m, x: nnx.avg_pool(m.a(x), (3, 3), (2, 2), padding="SAME", count_include_pad=False),
            36,
        ),
        (5, 5, 2),
    ),
    "global_average": lambda: (Body({"a": conv(2, 6)}, lambda m, x: relu(m.a(x)).mean((1, 2)), 6), (4, 4, 2)),
    "concatenate": lambda: (
        Body(
            {"a": conv(2, 3), "b": conv(2, 4, taps=(1, 1)), "n": norm(4)},
            lambda m, x: jnp.concatenate([relu(m.a(x)), m.n(m.b(x))], -1),
            112,
        ),
        (4, 4, 2),
    ),
    "moved": lambda: (
        Body(
            {"a": conv(2, 4)},
            lambda m, x: jnp.pad(relu(m.a(x)).transpose(0, 3, 1, 2)[:, :, ::-1, 1:], ((0, 0), (0, 0), (1, 0), (0, 2))),
            100,
        ),
        (4, 4, 2),
    ),
}


def lowered(model, shape, weight_bits=6.0, input_bits=7.0, inputs=INPUTS, options=None):
    """(network, design, inputs, integer network); params as the model holds them."""
    x = jax.random.uniform(jax.random.key(1), (inputs, *shape), jnp.float32, -1.0, 1.0)
    network = trace(model, x[:1])
    seen = compiled_once(lambda x: network.observe(network.params, network.state, x))(x[:64])
    weight_range = np.asarray(seen.weight_max)
    input_range, signed = np.asarray(np.maximum(-seen.input_min, seen.input_max)), np.asarray(seen.signed(), np.float32)
    design = Operands(
        input_signed=seen.signed(),
        weight_bits=np.full(len(signed), weight_bits, np.float32),
        weight_step=weight_range / np.float32(2 ** (weight_bits - 1) - 1),
        weight_range=weight_range,
        threshold=np.zeros(len(signed), np.float32),
        input_bits=np.full(len(signed), input_bits, np.float32),
        input_step=input_range / (2 ** (np.float32(input_bits) - signed) - 1),
        input_range=input_range,
    )
    return network, design, x, integer_network(network, network.params, network.state, design, x[:1], options)


@pytest.mark.float32
@pytest.mark.parametrize("kind", list(KINDS))
def test_integers_equal_the_float32_function_and_follow_apply(kind):
    network, design, x, integer = lowered(*KINDS[kind]())
    require_float_path(integer)
    ours = values(integer, np.asarray(x))
    floats = jax.jit(lambda x: rounded_values(integer, x))(x)
    mismatches = {
        i: int((np.asarray(b, np.float64) != a).sum()) for i, (a, b) in enumerate(zip(ours, floats, strict=True))
    }
    assert sum(mismatches.values()) == 0 and len(ours) == len(integer.nodes)
    assert all(np.issubdtype(a.dtype, np.integer) for a in ours[1:])
    # The function under the unrounded design, from the user's own program: rounding differs, nothing else does.
    some = x[:1000]
    y = compiled_once(lambda x: network.apply(network.params, network.state, x, design)[0])(some)
    y, p = np.asarray(y, np.float64), ours[integer.outputs[0].node][:1000] * integer.outputs[0].step
    assert p.shape == y.shape
    spread = y.std(axis=0).mean()
    assert np.sqrt(np.mean((p - y) ** 2)) < 0.012 * spread
    assert np.abs(np.mean(p - y, axis=0)).max() < 0.004 * spread  # no offset is lost


@pytest.mark.float32
def test_a_small_network_survives_its_files_to_the_last_integer(tmp_path):
    model = examples.digits_cnn(nnx.Rngs(0))
    _, _, x, integer = lowered(model, (8, 8, 1), inputs=32)
    save_integer(tmp_path, integer)
    back = load_integer(tmp_path)
    assert dataclasses.replace(back, nodes=()) == dataclasses.replace(integer, nodes=())
    for a, b in zip(outputs(back, np.asarray(x)), outputs(integer, np.asarray(x)), strict=True):
        assert np.array_equal(a, b)
    assert [layer.name for layer in back.layers] == ["conv1.kernel", "conv2.kernel", "dense.kernel"]
    # conv1 holds 9 taps of weights up to 31 and inputs up to 63
    assert back.nodes[back.layers[0].node].bound <= 9 * 31 * 63


@pytest.mark.float32
def test_words_saturate_at_the_range_of_the_design():
    def dense(params, x):
        return jnp.maximum(x @ params["a"], 0.0) @ params["b"]

    params = {"a": jnp.array([[1.0], [1.0]]), "b": jnp.array([[1.0]])}
    network = trace(dense, params, jnp.zeros((1, 2)))
    knobs = dict(weight_step=jnp.array([1.0, 1.0]), weight_range=jnp.array([1.0, 1.0]), threshold=jnp.zeros(2))
    design = Operands(
        input_signed=(True, False), weight_bits=jnp.array([2.0, 2.0]), input_bits=jnp.array([4.0, 3.0]),
        input_step=jnp.array([0.5, 1.0]), input_range=jnp.array([3.5, 7.0]), **knobs
    )  # fmt: skip
    integer = integer_network(network, params, {}, design, jnp.zeros((1, 2)))
    # x: 100 -> 7 (3.5); -100 -> -7; 1.25 / 0.5 = 2.5 -> 2; sums 14 halves = 7, 9 halves = 4.5 -> 4, -14 -> 0
    x = np.array([[100.0, 100.0], [100.0, 1.25], [-100.0, -100.0], [100.0, 0.0]], np.float32)
    assert outputs(integer, x)[0].ravel().tolist() == [7, 4, 0, 4]  # 3.5 -> 4, a tie as well


@pytest.mark.float32
def test_a_softmax_behind_the_last_layer_is_left_to_floats():
    class Net(nnx.Module):
        def __init__(self):
            self.a = nnx.Linear(4, 3, rngs=nnx.Rngs(0))

        def __call__(self, x):
            return nnx.log_softmax(self.a(x))

    network, design, x, integer = lowered(Net(), (4,), inputs=50)
    assert "exp" in integer.head and len(integer.outputs) == 1 and integer.nodes[-1].op != "max"
    y = network.apply(network.params, network.state, x, design)[0]
    np.testing.assert_allclose(jax.nn.log_softmax(predict(integer, np.asarray(x))[0]), y, atol=2e-3)


@pytest.mark.float32
@pytest.mark.parametrize(
    ("forward", "words"),
    [
        (
            lambda m, x: nnx.gelu(m.a(x)),
            "head.kernel: its input passes '.*' .*behind a.kernel",
        ),
        (lambda m, x: nnx.sigmoid(m.a(x)), "'logistic' behind a.kernel, which has no integer form"),
        (lambda m, x: (h := m.a(x)) * h, "'mul' of two values that depend on x"),
        (lambda m, x: m.a(x - 0.5), "give input_range"),
    ],
)
def test_what_has_no_integer_form_is_refused_by_name(forward, words):
    model = Body({"a": nnx.Linear(4, 4, rngs=nnx.Rngs(0))}, forward, 4)
    with pytest.raises(ValueError, match=words):
        lowered(model, (4,), inputs=8)


@pytest.mark.float32
def test_a_centred_input_gets_words_of_its_own():
    model = Body({"a": nnx.Linear(4, 4, rngs=nnx.Rngs(0))}, lambda m, x: nnx.relu(m.a((x - 0.3) / 0.7)), 4)
    network, design, x, integer = lowered(model, (4,), inputs=500, options=IntegerOptions(input_range=1.0))
    y = np.asarray(network.apply(network.params, network.state, x, design)[0])
    p = predict(integer, np.asarray(x))[0]
    assert np.sqrt(np.mean((p - y) ** 2)) < 0.02 * y.std(axis=0).mean()
    for a, b in zip(values(integer, np.asarray(x)), rounded_values(integer, x), strict=True):
        assert np.array_equal(a, np.asarray(b, np.float64))


@pytest.mark.float32
def test_accumulators_that_do_not_fit_are_refused_by_layer():
    model = Body({"a": nnx.Linear(40, 9, rngs=nnx.Rngs(0))}, lambda m, x: nnx.relu(m.a(x)), 9)
    with pytest.raises(ValueError, match=r"a.kernel: 6 b weights and 7 b .* the accumulators have 12"):
        lowered(model, (40,), inputs=8, options=IntegerOptions(accumulator_bits=12))
    _, _, x, wide = lowered(model, (40,), 15.0, 15.0, inputs=8, options=IntegerOptions(accumulator_bits=48))
    with pytest.raises(ValueError, match=r"a.kernel: node 2 \(dot\) reaches \d+ .*exact below 2\^24"):
        rounded_values(wide, x)
    assert outputs(wide, np.asarray(x))[0].shape == (8, 5)  # integers go on


@pytest.fixture(scope="module")
def small():
    """The integers of a dense layer of four inputs and its head."""
    with jax.enable_x64(False):  # fixtures of modules are made in float64
        model = Body({"a": nnx.Linear(4, 4, rngs=nnx.Rngs(0))}, lambda m, x: nnx.relu(m.a(x)), 4)
        return lowered(model, (4,), inputs=8)[-1]


def broken(change):
    def make(folder):
        path = folder / "integer.json"
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return make


@pytest.mark.float32
@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (broken(lambda c: c.update(schema_version="cooptim-integer/9")), "this version reads 'cooptim-integer/1'"),
        (broken(lambda c: c.update(extra=1)), "unknown field extra"),
        (broken(lambda c: c["nodes"][2].update(op="exec")), "node 2: op is 'exec'; legal: input, quantize"),
        (broken(lambda c: c["nodes"][2].update(inputs=[5])), "node 2: inputs are .5.; write positions of earlier"),
        (broken(lambda c: c["nodes"][1]["attributes"].update(low=0.5)), "node 1: low is 0.5; write int"),
        (broken(lambda c: c["nodes"][2]["arrays"].update(weights=[4, 5])), "keep both files of one export together"),
        (broken(lambda c: c["layers"][0].update(weight_bits=3)), "in 3 b, which hold -4 to 3"),
        (lambda folder: (folder / "integer.npz").write_bytes(b"PK"), "no arrays of an integer network"),
        (lambda folder: (folder / "integer.json").write_text('{"a": NaN}'), "the number NaN"),
        (lambda folder: (folder / "integer.json").unlink(), "cannot be read"),
    ],
)
def test_a_spoiled_file_is_refused_by_name(small, tmp_path, spoil, words):
    save_integer(tmp_path, small)
    spoil(tmp_path)
    with pytest.raises(ValueError, match=words):
        load_integer(tmp_path)


@pytest.mark.float32
@pytest.mark.parametrize(
    ("x", "words"),
    [
        (np.zeros((2, 5)), r"x has shape \[2, 5\]; it takes \['batch', 4\]"),
        (np.full((2, 4), np.nan), "x holds 8 NaN"),
        (np.array([["a"] * 4]), "dtype <U1"),
    ],
)
def test_a_wrong_input_is_refused(small, x, words):
    with pytest.raises(ValueError, match=words):
        outputs(small, x)
