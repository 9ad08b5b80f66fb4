"""Deep compression of a small dense network of the digits: what is held stays so, what is stored is measured."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cooptim
from cooptim.descent.compression import Compression, deep_compression
from cooptim.descent.pruning import magnitude_masks, prune_in_rounds, zero_share
from cooptim.descent.retrain import Lesson, Teacher, Trainer, Weights, built, free_weights
from cooptim.descent.stored import ScaledLeaf, SharedLeaf, shared_leaf, small_leaf, value
from cooptim.export.compressed_file import load_compressed, save_compressed

QUICK = Compression(
    accuracy_drop=0.05,
    sparsities=(0.5, 0.8),
    label_bits=2,
    float_steps=150,
    round_steps=80,
    cluster_steps=80,
    rate=5e-3,
)


def mlp(params, x):
    hidden = jax.nn.relu(x.reshape(x.shape[0], -1) @ params["a"]["w"] + params["a"]["b"])
    return hidden @ params["b"]["w"] + params["b"]["b"]


def start(seed=0, hidden=24):
    rng = np.random.default_rng(seed)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape) / np.sqrt(shape[0]), jnp.float32)  # noqa: E731
    return {
        "a": {"w": draw(64, hidden), "b": jnp.zeros(hidden, jnp.float32)},
        "b": {"w": draw(hidden, 10), "b": jnp.zeros(10, jnp.float32)},
    }


@pytest.fixture(scope="module")
def parts():
    jax.config.update("jax_enable_x64", False)  # as users run; tests of runs are marked float32
    data = cooptim.load_data("digits")
    return cooptim.trace(mlp, start(), data.sample), data


@pytest.fixture(scope="module")
def done(parts):
    jax.config.update("jax_enable_x64", False)
    return deep_compression(*parts, QUICK)


@pytest.mark.float32
def test_what_is_stored_is_the_network_that_was_measured(parts, done):
    network, data = parts
    logits = np.asarray(mlp(jax.tree.map(np.asarray, done.params), data.x_test))
    assert done.test_accuracy == pytest.approx(np.mean(logits.argmax(1) == data.y_test))
    assert done.met and done.val_accuracy >= done.parent_val_accuracy - 0.05 and done.parent_val_accuracy > 0.85
    by_name = dict(zip(network.param_paths, done.leaves, strict=True))
    assert isinstance(by_name["a.b"], ScaledLeaf)
    for name in ("a.w", "b.w"):
        leaf = by_name[name]
        assert isinstance(leaf, SharedLeaf) and leaf.bits == 2 and len(np.unique(value(leaf))) <= 4
    # 0.8 pruned at least, and what training moved to the entry 0 on top.
    assert [round(one, 2) for one, _ in done.rounds] == [0.5, 0.8], done.rounds and done.sparsity >= 0.8
    assert done.sparsity == pytest.approx(
        1 - np.mean(np.concatenate([np.ravel(done.params[k]["w"]) for k in "ab"]) != 0)
    )
    assert done.float_bytes == 4 * (64 * 24 + 24 + 240 + 10)


@pytest.mark.float32
def test_a_file_holds_the_network_to_the_last_bit_and_says_what_it_takes(parts, done, tmp_path):
    network, _ = parts
    size = save_compressed(tmp_path / "net.czf", done)
    params, _ = load_compressed(tmp_path / "net.czf", network)
    pairs = zip(jax.tree.leaves(params), jax.tree.leaves(done.params), strict=True)
    assert all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in pairs)
    total = (tmp_path / "net.czf").stat().st_size
    assert size.total == total == size.header + size.state + sum(one.coded + one.table for one in size.leaves)
    assert size.ratio == done.float_bytes / total > 10
    assert {one.name: one.coded for one in size.leaves}["a.b"] == 24 + 4


@pytest.mark.float32
def test_a_budget_that_no_round_keeps_is_said_and_the_first_round_comes_back(parts):
    hard = dataclasses.replace(
        QUICK, accuracy_drop=0.0, sparsities=(0.97, 0.98), float_steps=150, round_steps=2, cluster_steps=2, distil=0.0
    )
    found = deep_compression(*parts, hard)
    assert not found.met and len(found.rounds) == 1 and found.sparsity >= 0.97


@pytest.mark.float32
def test_masks_and_labels_hold_while_all_else_moves(parts):
    network, data = parts
    trainer = Trainer(network, data, 32, 0)
    params = start()
    leaves = jax.tree.leaves(params)  # a.b, a.w, b.b, b.w
    masks = (None, jnp.asarray(np.arange(64 * 24).reshape(64, 24) % 3 > 0), None, None)
    labels = (None, None, None, jnp.asarray(np.arange(240).reshape(24, 10) % 4))
    tables = (None, None, None, jnp.asarray([0.0, -0.3, 0.2, 0.4], jnp.float32))
    before = Weights(params, masks, tables, labels)
    after, _ = trainer.train(before, {}, Lesson("one", 5, 1e-2, table_share=1.0), Teacher(params, {}))
    new = jax.tree.leaves(built(after))
    assert np.array_equal(np.asarray(new[1]) != 0, masks[1])
    assert np.mean(new[1] != leaves[1]) > 0.8  # all but those of pixels that no image uses
    table = np.asarray(after.tables[3])
    assert table[0] == 0 and np.all(table[1:] != tables[3][1:]) and np.array_equal(new[3], table[labels[3]])
    assert not np.array_equal(new[0], leaves[0])
    assert np.array_equal(jax.tree.leaves(before.params)[1], leaves[1])  # the caller's arrays live on


@pytest.mark.float32
def test_rounds_end_with_the_one_that_misses(parts):
    network, data = parts
    trainer = Trainer(network, data, 32, 0)
    found = prune_in_rounds(trainer, start(), {}, (0.2, 0.4, 0.6), Lesson("p", 1, 0.0), least_accuracy=2.0)
    assert [one.sparsity for one in found] == [pytest.approx(0.2, abs=1e-3)]
    found = prune_in_rounds(trainer, start(), {}, ({"b.w": 0.5}, {"b.w": 0.75}), Lesson("p", 1, 0.0))
    kept = built(found[-1].weights)
    assert np.count_nonzero(kept["a"]["w"]) == 64 * 24 and np.count_nonzero(kept["b"]["w"]) == 60
    assert zero_share(network, kept) == found[-1].sparsity == pytest.approx(180 / (64 * 24 + 240))


def tiny(w, v):
    """A network of two dense layers with these weights."""
    params = {"v": jnp.asarray(v, jnp.float32), "w": jnp.asarray(w, jnp.float32)}
    network = cooptim.trace(lambda p, x: x @ p["w"] @ p["v"], params, np.zeros((1, len(w)), np.float32))
    return network, params


def test_masks_by_hand():
    network, params = tiny([[4.0, 1.0], [2.0, 3.0]], [[0.4], [0.1]])  # v comes first: 0.4, 0.1 | 4, 1, 2, 3
    flat = lambda masks: [np.ravel(m).astype(int).tolist() for m in masks]  # noqa: E731
    assert flat(magnitude_masks(network, params, 0.5, "uniform")) == [[1, 0], [1, 0, 0, 1]]
    # The largest of each layer stays whatever the others are.
    assert flat(magnitude_masks(network, params, 0.5, "global")) == [[1, 0], [1, 0, 0, 1]]
    assert flat(magnitude_masks(network, params, 1 / 6, "global")) == [[1, 0], [1, 1, 1, 1]]
    # LAMP: v 1, 0.01/0.17 = 0.059; w 1, 1/30 = 0.033, 4/29 = 0.138, 9/25 = 0.36.
    assert flat(magnitude_masks(network, params, 1 / 6)) == [[1, 1], [1, 0, 1, 1]]
    assert flat(magnitude_masks(network, params, 2 / 6)) == [[1, 0], [1, 0, 1, 1]]
    assert magnitude_masks(network, params, {"w": 0.5})[0] is None
    # w: 1, 4/13 = 0.31, 4/17 = 0.24; v: 1, 0.36/1.36 = 0.26, 0.007. Over the sum of all squares w's two were equal.
    network, params = tiny([[3.0, 2.0, 2.0]], [[1.0], [0.6], [0.1]])
    assert flat(magnitude_masks(network, params, 0.5)) == [[1, 0, 0], [1, 1, 0]]


@pytest.mark.parametrize(
    ("sparsity", "allocation", "said"),
    [
        (1.0, "lamp", "pruning: sparsity 1 of all layers is out of range; legal are 0 up to"),
        (-0.1, "lamp", "pruning: sparsity -0.1"),
        ({"x": 0.5}, "lamp", "pruning: layer 'x' has no weights to prune; legal: w, v"),
        (0.5, "hope", "pruning: allocation 'hope' is not known; use one of lamp, global, uniform"),
    ],
)
def test_what_cannot_be_pruned_is_refused(sparsity, allocation, said):
    network, params = tiny([[1.0]], [[2.0]])
    with pytest.raises(ValueError, match=said):
        magnitude_masks(network, params, sparsity, allocation)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"label_bits": 9}, "codebook of every other layer: 9 label bits; legal are whole numbers from 1 to 8"),
        ({"label_bits": {"a.w": 0}}, "codebook of a.w: 0 label bits"),
        ({"accuracy_drop": 1.5}, "accuracy_drop 1.5 is no fraction"),
        ({"labels": "loose"}, "labels 'loose' are not known"),
        ({"small": "int7"}, "small leaves as 'int7'; use one of int8, float16, float32"),
        ({"sparsities": ()}, "no round of pruning"),
        ({"distil": -1.0}, "distil -1 is no share"),
    ],
)
def test_settings_that_mean_nothing_are_refused(change, said):
    with pytest.raises(ValueError, match=said):
        Compression(**change)


@pytest.mark.float32
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"label_bits": {"c": 3, "": 2}}, "label_bits of 'c', which has no weights to share; legal: a.w, b.w and ''"),
        ({"label_bits": {"a.w": 3}}, "no label_bits for b.w; give them, or those of all others under ''"),
        ({"sparsities": (0.5, {"a.b": 0.5})}, "layer 'a.b' has no weights to prune; legal: a.w, b.w"),
    ],
)
def test_layers_that_the_network_lacks_are_refused_before_any_training(parts, change, said):
    with pytest.raises(ValueError, match=said):
        deep_compression(*parts, dataclasses.replace(QUICK, **change))


def test_leaves_are_stored_at_the_nearest_value():
    w = np.array([[0.0, -0.9, 2.1], [1.4, 1.6, 0.4]], np.float32)
    leaf = shared_leaf(w, np.array([2.0, 0.0, -1.0, 1.0]), 2)
    assert leaf.table.tolist() == [0.0, -1.0, 1.0, 2.0] and leaf.table.dtype == np.float16
    assert leaf.labels.tolist() == [[0, 1, 3], [2, 3, 0]] and value(leaf).dtype == np.float32
    # 1e-6 is below the normal numbers of float16, which would round it by percents.
    assert shared_leaf(w * 1e-6, np.array([0.0, 1e-6]), 1).table.dtype == np.float32
    small = small_leaf(np.array([-1.27, 0.014, 0.6], np.float32), "int8")
    assert small.words.tolist() == [-127, 1, 60] and value(small)[2] == np.float32(60) * np.float32(
        np.float32(1.27) / 127
    )
    assert value(small_leaf(np.array([0.1, 7e4], np.float32), "float16")).tolist() == np.float32([0.1, 7e4]).tolist()
    assert value(small_leaf(np.array([1, 2]), "int8")).tolist() == [1, 2]


def test_weights_that_nothing_holds_are_the_params(parts):
    params = start()
    assert all(a is b or np.array_equal(a, b) for a, b in zip(
        jax.tree.leaves(built(free_weights(params))), jax.tree.leaves(params), strict=True))  # fmt: skip
