"""Rows of tokens as inputs: kept as the whole numbers they are, from files and batches, into networks that look up."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import cooptim
from cooptim.data import data_from_batches, load_data, standardized
from cooptim.descent.plan import quick_plan
from cooptim.descent.tokens import check_tokens
from cooptim.network.integer import integer_network

WORDS, POSITIONS, CLASSES = 12, 5, 3


def rows(count, seed, words=WORDS, dtype=np.int16):
    """Noise in which every other token is of the class's own third of the vocabulary."""
    rng = np.random.default_rng(seed)
    y = np.arange(count) % CLASSES
    x = rng.integers(0, words, (count, POSITIONS))
    x[:, ::2] = y[:, None] * 4 + rng.integers(0, 4, (count, 3))
    return x.astype(dtype), y


class Bag(nnx.Module):
    def __init__(self, rngs):
        self.table = nnx.Embed(WORDS, 4, rngs=rngs)
        self.hidden = nnx.Conv(4, 6, (3,), rngs=rngs)
        self.head = nnx.Linear(6, CLASSES, rngs=rngs)

    def __call__(self, x):
        return self.head(nnx.relu(self.hidden(self.table(x))).mean(1))


def written(path, **changes):
    train, test = rows(30, 0), rows(9, 1)
    arrays = {"x_train": train[0], "y_train": train[1], "x_test": test[0], "y_test": test[1]} | changes
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize("dtype", [np.int8, np.uint16, np.int64])
def test_tokens_stay_whole_numbers_and_rows(tmp_path, dtype):
    x = rows(30, 0)[0].astype(dtype)
    data = load_data(written(tmp_path / "text.npz", x_train=x))
    assert data.x_train.dtype == data.x_val.dtype == data.x_test.dtype == data.sample.dtype == np.int32
    assert data.image_shape == (POSITIONS,)
    found = sorted(map(tuple, np.concatenate([data.x_train, data.x_val])))
    assert found == sorted(map(tuple, x.tolist()))


def test_streamed_tokens_are_those_of_the_source():
    endless = lambda: (rows(10, seed) for seed in itertools.count())  # noqa: E731
    data = data_from_batches(endless, test=rows(9, 99), val=rows(9, 98), train_images=20)
    x, _ = data.batch(0, 1, 15)
    source = np.concatenate([rows(10, seed)[0] for seed in range(3)])
    assert x.dtype == np.int32 and np.array_equal(x, source[15:30])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"x_test": np.zeros((9, POSITIONS), np.float32)}, "x_train holds tokens, x_test floats; store tokens as"),
        ({"x_train": np.full((30, POSITIONS), 2**31, np.int64)}, "token 2147483648 is out of the range of int32"),
        ({"x_train": np.full((30, POSITIONS), 2**63, np.uint64)}, "x_train: token 9223372036854775808 is out"),
        ({"x_train": np.zeros((30, POSITIONS, 2), np.int32)}, r"int32 of shape \(30, 5, 2\) is no image; .*tokens"),
        ({"x_train": np.zeros((30, POSITIONS), bool)}, "dtype bool .* is no image"),
        ({"x_train": np.zeros((30, 0), np.int32)}, "is no set of images; .* none empty"),
    ],
)  # fmt: skip
def test_what_is_no_row_of_tokens_is_refused(tmp_path, changes, words):
    with pytest.raises(ValueError, match=words):
        load_data(written(tmp_path / "bad.npz", **changes))


def test_a_source_that_changes_from_tokens_to_numbers_is_refused():
    x, y = rows(6, 0)
    with pytest.raises(ValueError, match=r"batch 1: images float64\[5\], those before are int16\[5\]; make them equal"):
        data_from_batches([(x, y), (x.astype(float), y)], test=(x, y))


def test_tokens_are_not_standardized():
    with pytest.raises(ValueError, match="data batches: tokens are names"):
        standardized(data_from_batches([rows(30, 0)], test=rows(9, 1)))


@pytest.mark.float32
def test_a_token_beyond_the_vocabulary_is_named_before_training(tmp_path):
    x, y = rows(9, 1)
    x[4, 3] = WORDS
    data = data_from_batches([rows(30, 0)], test=(x, y))
    network = cooptim.trace(Bag(nnx.Rngs(0)), data.sample)
    with pytest.raises(ValueError, match="x_test: row 4 makes network Bag return NaN .* 0 to 11: number tokens from 0"):
        check_tokens(network, data, 4)
    machine, plan = cooptim.load_machine("envision"), quick_plan()
    budgets = [cooptim.Budget(energy_ratio=4.0)]
    for run in (
        lambda: cooptim.optimize(network, machine, data, plan=plan),
        lambda: cooptim.pareto(network, machine, data, budgets, [0], out=tmp_path, plan=plan),
    ):
        with pytest.raises(ValueError, match="x_test: row 4 makes network Bag"):
            run()


@pytest.mark.float32
def test_rows_with_exits_are_told_apart_by_image_not_by_stage():
    x, y = rows(30, 0)
    x[7, 0] = WORDS
    data = data_from_batches([rows(30, 3)], test=(x, y), val=(x[:3], y[:3]))
    network = cooptim.trace(Bag(nnx.Rngs(0)), data.sample)
    network = cooptim.with_exits(network, ("hidden.kernel",), key=jax.random.key(0), grid=1)
    with pytest.raises(ValueError, match="x_test: row 7 makes"):
        check_tokens(network, data, 30)


@pytest.mark.float32
@pytest.mark.unoptimized
def test_a_network_of_tokens_descends_whole():
    """The embedding learns (its rows move) and the design is priced: layers are those behind the embedding."""
    data = data_from_batches([rows(120, 0)], test=rows(30, 1), val=rows(30, 2))
    network = cooptim.trace(Bag(nnx.Rngs(0)), data.sample)
    assert network.layer_names == ("hidden.kernel", "head.kernel")
    plan = dataclasses.replace(quick_plan(), float_steps=150, stats_images=30, chunk=30, batch=30, uniform_bits=(4,))
    budget = cooptim.Budget(energy_ratio=3.0, accuracy_drop=0.2)
    result = cooptim.optimize(network, cooptim.load_machine("envision"), data, budget, plan=plan)
    joint = result.designs["final"]
    before, after = (jax.tree.leaves(p)[_table(p)] for p in (network.params, joint.params))
    assert float(jnp.abs(after - before).max()) > 1e-3
    assert result.float_val_accuracy > 0.8  # three classes told by three tokens of five
    with pytest.raises(ValueError, match=r"hidden.kernel: its input is looked up by whole numbers .* behind its embed"):
        integer_network(network, joint.params, joint.state, joint.design, data.sample)


def _table(params):
    shapes = [leaf.shape for leaf in jax.tree.leaves(params)]
    return shapes.index((WORDS, 4))
