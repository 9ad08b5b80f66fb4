"""Labels and tables in integers: 0 of 5,000 inputs differ from the quantized function, and odd files are refused."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cooptim.design.design import Operands
from cooptim.export.integer_file import save_integer
from cooptim.integer import load_integer, outputs, predict, values
from cooptim.network import trace
from cooptim.network.integer import IntegerOptions, integer_network, require_float_path, rounded_apply, rounded_values
from cooptim.relax.codebook import entry_unit, fixed_point, table_of
from cooptim.relax.method import PLAIN, Method
from tests.integer.test_layer_kinds import INPUTS, KINDS, lowered

VALUE_BITS = 8  # of a table, so that sums stay below 2^24


def shared_by(network, design, label_bits, threshold=0.0, pattern=None, value_bits=VALUE_BITS):
    """The design with every layer's weights as labels of a table that is clustered on them."""
    leaves = {name: w for name, w in zip(network.layer_names, kernels(network), strict=True)}
    tables = [jnp.asarray(table_of(np.append(w.ravel(), 0.0), label_bits)) for w in leaves.values()]
    units = [entry_unit(table, value_bits) for table in tables]
    count = len(tables)
    return dataclasses.replace(
        design,
        methods=(Method("codebook", pattern=pattern, label_bits=label_bits),) * count,
        weight_bits=np.full(count, label_bits, np.float32),
        weight_step=np.asarray([step for step, _ in units], np.float32),
        weight_range=np.asarray([most for _, most in units], np.float32),
        threshold=np.full(count, threshold, np.float32),
        codebook=tuple(tables),
    )


def kernels(network):
    """Weights of each layer, in order."""
    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(network.params):
        name = ".".join(str(getattr(key, "key", getattr(key, "name", key))) for key in path)
        found[name.removesuffix(".value").removesuffix(".kernel")] = np.asarray(leaf)
    return [
        next(w for name, w in found.items() if name == layer.removesuffix(".kernel")) for layer in network.layer_names
    ]


@pytest.mark.float32
@pytest.mark.parametrize("label_bits", [2, 5])
@pytest.mark.parametrize("kind", ["dense", "conv", "grouped", "depthwise", "dilated", "conv_norm_relu", "residual"])
def test_integers_of_tables_equal_the_float32_function_and_follow_apply(kind, label_bits):
    network, plain, x, _ = lowered(*KINDS[kind]())
    design = shared_by(network, plain, label_bits, threshold=0.02)
    integer = integer_network(network, network.params, network.state, design, x[:1])
    require_float_path(integer)
    assert max(node.bound for node in integer.nodes) < 2**24
    ours = values(integer, np.asarray(x))
    floats = jax.jit(lambda x: rounded_values(integer, x))(x)
    assert sum(int((np.asarray(b, np.float64) != a).sum()) for a, b in zip(ours, floats, strict=True)) == 0
    assert len(ours[0]) == INPUTS and all(np.issubdtype(a.dtype, np.integer) for a in ours[1:])
    for layer in integer.layers:
        arrays = integer.nodes[layer.node].arrays
        assert set(arrays) == {"labels", "table"} and arrays["labels"].max() < 2**label_bits == arrays["table"].size
        assert (layer.weight_bits, layer.table_bits) == (label_bits, VALUE_BITS) and 0 in arrays["table"]
        assert np.abs(arrays["table"]).max() == 127  # the largest value ends its bits
    # The function under the design itself, from the user's own program, whose words are the same.
    y = np.asarray(jax.jit(lambda x: network.apply(network.params, network.state, x, design)[0])(x[:1000]), np.float64)
    p = ours[integer.outputs[0].node][:1000] * integer.outputs[0].step
    spread = y.std(axis=0).mean()
    assert np.sqrt(np.mean((p - y) ** 2)) < 0.012 * spread
    assert np.abs(np.mean(p - y, axis=0)).max() < 0.004 * spread


def dense(params, x):
    return jnp.maximum(x @ params["a"], 0.0) @ params["b"]


W = {"a": np.array([[0.9, -0.2], [0.05, -1.4], [0.6, 0.3]]), "b": np.array([[1.0], [-2.0]])}
TABLES = (np.array([0.0, 0.62, -1.5, 1.1]), np.array([-2.0, 0.0, 1.2, 1.5]))


def by_hand(**changes):
    """Two dense layers with values of 4 bits: steps of 1.5 / 7 and 2 / 7."""
    fields = dict(
        input_signed=(True, False), weight_bits=jnp.array([2.0, 2.0]), weight_step=jnp.array([1.5 / 7, 2 / 7]),
        weight_range=jnp.array([1.5, 2.0]), threshold=jnp.zeros(2), input_bits=jnp.array([4.0, 4.0]),
        input_step=jnp.array([0.5, 1.0]), input_range=jnp.array([3.5, 15.0]),
        methods=(Method("codebook", label_bits=2),) * 2, codebook=tuple(map(jnp.asarray, TABLES)),
    )  # fmt: skip
    return Operands(**fields | changes)


@pytest.fixture
def network():
    return trace(dense, jax.tree.map(jnp.asarray, W), jnp.zeros((1, 3)))


@pytest.mark.float32
def test_labels_table_and_sums_by_hand(network):
    integer = integer_network(network, network.params, {}, by_hand(), jnp.zeros((1, 3)))
    first, second = (integer.nodes[layer.node].arrays for layer in integer.layers)
    # 0.62 / (1.5 / 7) = 2.89 -> 3, 1.1 -> 5.13 -> 5; 1.2 / (2 / 7) = 4.2 -> 4, 1.5 -> 5.25 -> 5.
    assert first["table"].tolist() == [0, 3, -7, 5] and second["table"].tolist() == [-7, 0, 4, 5]
    # Values 0, 0.643, -1.5, 1.071: between 0.643 and 1.071 the middle is 0.857, so that 0.9 takes the larger.
    assert first["labels"].tolist() == [[3, 0], [0, 2], [1, 0]] and second["labels"].tolist() == [[2], [0]]
    assert first["labels"].dtype == np.uint8 and first["table"].dtype == np.int32
    x = np.array([[1.0, -2.0, 3.5]], np.float32)  # words 2, -4, 7
    sums = values(integer, x)[integer.layers[0].node]
    assert sums.tolist() == [[2 * 5 + 7 * 3, -4 * -7]] == [[31, 28]]
    # 31 x 1.5 / 7 x 0.5 = 3.32 -> 3, 28 x ... = 3: 3 x 4 - 3 x 7 = -9, each worth 2 / 7.
    assert outputs(integer, x)[0].tolist() == [[-9]]
    np.testing.assert_allclose(predict(integer, x)[0], [[-9 * 2 / 7]], rtol=1e-6)
    np.testing.assert_allclose(rounded_apply(integer, jnp.asarray(x))[0], [[-9 * 2 / 7]], rtol=1e-6)
    assert [layer.accumulator_bits for layer in integer.layers] == [7, 8]  # 7 x 8, 7 x 7; 15 x 11


@pytest.mark.float32
def test_words_of_a_table_are_those_of_the_forward_pass(network):
    integer = integer_network(network, network.params, {}, by_hand(), jnp.zeros((1, 3)))
    arrays = integer.nodes[integer.layers[0].node].arrays
    y = network.apply(network.params, {}, jnp.eye(3), by_hand(), off=("a/I", "b"))[0]
    words = np.asarray(fixed_point(jnp.asarray(TABLES[0]), jnp.asarray(1.5 / 7)))[arrays["labels"]]
    np.testing.assert_allclose(words, arrays["table"][arrays["labels"]] * (1.5 / 7), rtol=1e-6)
    np.testing.assert_allclose(y, np.maximum(words, 0.0) @ W["b"], rtol=1e-6)


@pytest.mark.float32
def test_what_pattern_and_threshold_cut_has_the_label_of_zero():
    network = trace(lambda p, x: x @ p, jnp.asarray([[0.9], [0.5], [-0.4], [0.1]]), jnp.zeros((1, 4)))
    one = {
        "weight_bits": 1.0, "weight_step": 0.25, "weight_range": 0.5, "threshold": 0.0, "input_bits": 4.0,
        "input_step": 1.0, "input_range": 7.0,
    }  # fmt: skip
    for change, labels in (({}, [1, 1, 0, 0]), ({"threshold": 0.5}, [1, 0, 0, 0]), ({"pattern": (1, 2)}, [1, 0, 0, 0])):
        method = Method("codebook", pattern=change.pop("pattern", None), label_bits=1)
        arrays = {name: jnp.asarray([value]) for name, value in (one | change).items()}
        design = Operands((True,), methods=(method,), codebook=(jnp.asarray([0.0, 0.5]),), **arrays)
        integer = integer_network(network, network.params, {}, design, jnp.zeros((1, 4)))
        stored = integer.nodes[integer.layers[0].node].arrays
        assert stored["labels"].ravel().tolist() == labels and stored["table"].tolist() == [0, 2]


@pytest.mark.float32
@pytest.mark.parametrize(
    ("changes", "options", "said"),
    [
        ({"weight_step": [1e-5, 2 / 7]}, {}, r"a: its table reaches 150000 steps of 1e-05; integers need a 0 and valu"),
        ({"codebook": (TABLES[0] + 2, TABLES[1])}, {}, "a: its table reaches 14 steps of 0.214286; integers need a 0"),
        ({"weight_bits": [3.0, 2.0]}, {}, "a: its weight width is 3 b and its labels have 2; take a legal design"),
        (
            {},
            {"accumulator_bits": 6},
            r"a: 2 b labels of 4 b values and 4 b inputs accumulate to at most 56, 7 bits .* have 6; narrow the "
            r"layer's operands \(values of a table by the machine's mechanisms.shared_weights.decoded\) or widen",
        ),
    ],
)
def test_tables_that_integers_do_not_hold_are_refused_by_layer(network, changes, options, said):
    changes = {
        name: tuple(map(jnp.asarray, v)) if name == "codebook" else jnp.asarray(v) for name, v in changes.items()
    }
    with pytest.raises(ValueError, match=said):
        integer_network(
            network, network.params, {}, by_hand(**changes), jnp.zeros((1, 3)), IntegerOptions(**options)
        )  # fmt: skip


@pytest.fixture
def folder(network, tmp_path):
    """An export whose first layer has a table, its second none."""
    half = by_hand(methods=(Method("codebook", label_bits=2), PLAIN), codebook=(jnp.asarray(TABLES[0]), jnp.zeros(0)))
    save_integer(tmp_path, integer_network(network, network.params, {}, half, jnp.zeros((1, 3))))
    return tmp_path


def described(folder):
    return json.loads((folder / "integer.json").read_text())


@pytest.mark.float32
def test_labels_and_tables_survive_their_files_and_layers_without_say_nothing_of_them(folder, network):
    back = load_integer(folder)
    first, second = back.layers
    assert (first.weight_bits, first.table_bits, second.table_bits) == (2, 4, 0)
    assert back.nodes[first.node].arrays["table"].tolist() == [0, 3, -7, 5]
    assert back.nodes[first.node].arrays["labels"].tolist() == [[3, 0], [0, 2], [1, 0]]
    assert "table_bits" in described(folder)["layers"][0] and "table_bits" not in described(folder)["layers"][1]
    with np.load(folder / "integer.npz") as stored:
        assert stored["2/labels"].dtype == np.uint8 and "2/weights" not in stored.files


def told(change):
    """Changes the description."""

    def spoil(folder):
        content = described(folder)
        change(content)
        (folder / "integer.json").write_text(json.dumps(content))

    return spoil


def stored(**changes):
    """Puts arrays of node 2 in the place of others, and says their shapes."""

    def spoil(folder):
        with np.load(folder / "integer.npz") as file:
            arrays = {name: file[name] for name in file.files}
        for name, array in changes.items():
            arrays[f"2/{name}"] = array
        np.savez(folder / "integer.npz", **arrays)
        told(lambda c: [c["nodes"][2]["arrays"].update({n: list(a.shape)}) for n, a in changes.items()])(folder)

    return spoil


def u8(*rows):
    return np.array(rows, np.uint8)


@pytest.mark.float32
@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (
            stored(labels=u8([3, 0], [0, 4], [1, 0])),
            "node 2: a label of 4, and its table has 4 values, 0 to 3; keep both files",
        ),
        (stored(table=np.array([0, 3, -7], np.int32)), r"node 2: its table has shape \[3\]; legal are 2, 4, 8"),
        (stored(table=np.zeros((2, 2), np.int32)), r"node 2: its table has shape \[2, 2\]"),
        (
            stored(table=np.zeros(512, np.int32)),
            r"its table has shape \[512\]; legal are 2, 4, 8 ... 256 values in one",
        ),
        (stored(table=np.array([1, 3, -7, 5], np.int32)), "node 2: its table has no 0"),
        (stored(table=np.array([0, 3, -7, 5])), r"2/table is int64\[4\], the description says int32\[4\]"),
        (stored(labels=np.zeros((3, 2), np.int64)), r"2/labels is int64\[3, 2\], the description says uint8"),
        (stored(table=np.array([0, 3, -9, 5], np.int32)), "a has a value of -9 in 4 b, which hold -8 to 7"),
        (stored(table=np.arange(8, dtype=np.int32)), "a has labels of 2 b and a table of 8 values"),
        (told(lambda c: c["layers"][0].update(table_bits=17)), "a has table_bits 17; legal for the values .* 2 to 16"),
        (told(lambda c: c["layers"][0].pop("table_bits")), "a has table_bits 0; legal"),
        (told(lambda c: c["layers"][0].update(table_bits="4")), "table_bits is '4'; write int"),
        (told(lambda c: c["layers"][0].update(weight_bits=3)), "a has labels of 3 b and a table of 4 values"),
        (told(lambda c: c["layers"][1].update(table_bits=4)), "b has table_bits 4 and no table"),
        (told(lambda c: c["nodes"][2]["arrays"].pop("table")), "node 2, arrays: table missing; legal: labels, table"),
        (told(lambda c: c["nodes"][2]["arrays"].update(weights=[3, 2])), "arrays: unknown field weights"),
        (told(lambda c: c["nodes"][1]["arrays"].update(labels=[1])), "node 1, arrays: unknown field labels"),
    ],
)
def test_a_spoiled_table_is_refused_by_name(folder, spoil, said):
    load_integer(folder)
    spoil(folder)
    with pytest.raises(ValueError, match=said):
        load_integer(folder)
