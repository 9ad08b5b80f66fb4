import os
import pathlib
import signal
import subprocess
import sys
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from cooptim.descent.checkpoint import CheckpointError, Checkpoints


class _Moments(NamedTuple):
    count: object
    mean: object


def _tree(seed=0):
    generator = np.random.default_rng(seed)
    odd = np.array([np.nan, -0.0, np.inf, 5e-324])
    return {
        "params": [jnp.asarray(generator.normal(size=(3, 4)).astype(np.float32)), jnp.zeros((0, 2))],
        "state": _Moments(np.int64(7 + seed), jnp.asarray(odd)),
        "half": np.arange(3).astype(ml_dtypes.bfloat16),
        "flags": np.array([True, False]),
        "key": jax.random.key(seed),
        "step": 12 + seed,
        "loss": 0.1 + seed,
    }


def _bits(leaf):
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return np.asarray(leaf).dtype, np.asarray(leaf).shape, np.asarray(leaf).tobytes()


def test_every_leaf_comes_back_bit_equal_and_of_its_type(tmp_path):
    checkpoints, tree = Checkpoints(tmp_path), _tree()
    checkpoints.save("descent", 40, tree)
    step, back = checkpoints.restore("descent", _tree(seed=1))
    assert step == 40
    assert jax.tree.structure(back) == jax.tree.structure(tree)
    assert [_bits(leaf) for leaf in jax.tree.leaves(back)] == [_bits(leaf) for leaf in jax.tree.leaves(tree)]
    assert [type(leaf) for leaf in jax.tree.leaves(back)] == [type(leaf) for leaf in jax.tree.leaves(tree)]
    assert jax.random.uniform(back["key"]) == jax.random.uniform(tree["key"])


@pytest.mark.float32
def test_wide_numpy_leaves_survive_where_jax_is_narrow(tmp_path):
    tree = {"count": np.int64(2**40 + 1), "mean": np.float64(0.1)}
    Checkpoints(tmp_path).save("a", 0, tree)
    back = Checkpoints(tmp_path).restore("a", {"count": np.int64(0), "mean": np.float64(0)})[1]
    assert back == tree and type(back["count"]) is np.int64


def test_the_last_two_checkpoints_of_each_stage_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.latest("descent") is None
    for step in (0, 5, 10, 15):
        checkpoints.save("descent", step, {"x": np.full(3, step)})
    checkpoints.save("float", 3, {"x": np.zeros(3)})
    assert checkpoints.steps("descent") == [10, 15] and checkpoints.steps("float") == [3]
    assert checkpoints.restore("descent", {"x": np.zeros(3, int)})[1]["x"].tolist() == [15, 15, 15]
    checkpoints.save("descent", 12, {"x": np.full(3, 12)})  # a run that went back: what came later is of another past
    assert checkpoints.steps("descent") == [10, 12]
    checkpoints.clear()
    assert checkpoints.steps("descent") == checkpoints.steps("float") == []


def test_an_empty_tree_and_a_step_saved_twice_are_fine(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save("a", 1, {})
    checkpoints.save("a", 1, {})
    assert checkpoints.restore("a", {}) == (1, {})


def test_a_damaged_file_gives_one_message_with_the_remedy(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2):
        checkpoints.save("descent", step, {"x": np.arange(5000.0)})
    data = [
        file for file in (tmp_path / "descent" / "0000000002").rglob("*") if file.is_file() and file.parent.name == "d"
    ]
    for file in data:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(CheckpointError, match="unreadable or truncated.*delete this folder") as caught:
        checkpoints.restore("descent", {"x": np.zeros(5000)})
    assert "\n" not in str(caught.value) and caught.value.__suppress_context__


@pytest.mark.parametrize(
    "like",
    [{"x": np.zeros(4)}, {"x": np.zeros(3, np.float32)}, {"y": np.zeros(3)}, {"x": np.zeros(3), "y": np.zeros(1)}],
)
def test_a_checkpoint_of_another_run_is_refused(tmp_path, like):
    Checkpoints(tmp_path).save("a", 0, {"x": np.zeros(3)})
    with pytest.raises(CheckpointError, match="of another run"):
        Checkpoints(tmp_path).restore("a", like)


def test_no_checkpoint_and_no_stage_name_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="start without --resume"):
        Checkpoints(tmp_path).restore("a", {})
    with pytest.raises(CheckpointError, match="no name"):
        Checkpoints(tmp_path).save("../up", 0, {})


def test_a_directory_that_cannot_be_made_gives_one_message(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match="cannot be written"):
        Checkpoints(tmp_path / "file").save("a", 0, {"x": np.zeros(3)})


def test_a_killed_process_loses_no_saved_step(tmp_path):
    program = (
        "import sys, numpy as np\n"
        "from cooptim.descent.checkpoint import Checkpoints\n"
        "for step in range(100000):\n"
        "    Checkpoints(sys.argv[1]).save('a', step, {'x': np.full(1000, step)})\n"
        "    print(step, flush=True)\n"
    )
    root = pathlib.Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as process:
        acknowledged = [int(process.stdout.readline()) for _ in range(5)]
        time.sleep(0.013)  # in the middle of a save
        os.kill(process.pid, signal.SIGKILL)
        acknowledged += [int(line) for line in process.stdout.read().split()]
    step, tree = Checkpoints(tmp_path).restore("a", {"x": np.zeros(1000, int)})
    assert step >= acknowledged[-1] and tree["x"].tolist() == [step] * 1000
    Checkpoints(tmp_path).save("a", step + 1, tree)  # and goes on
    assert Checkpoints(tmp_path).steps("a")[-1] == step + 1


def test_saving_says_nothing(tmp_path, capfd, caplog):
    Checkpoints(tmp_path).save("a", 0, {"x": np.zeros(3)})
    Checkpoints(tmp_path).restore("a", {"x": np.zeros(3)})
    assert capfd.readouterr() == ("", "") and caplog.records == []
