import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cooptim.export import load_weights, save_weights


def _trees(shift=0.0):
    params = {"conv1": {"kernel": jnp.array([0.1, -0.0, jnp.nan]) + shift}, "half": jnp.ones(3, jnp.bfloat16) + shift}
    return params, {"count": np.int64(5), "key": jax.random.key(int(shift)), "list": [jnp.arange(2, dtype=jnp.int32)]}


def test_weights_come_back_bit_equal_and_need_no_pickle(tmp_path):
    params, state = _trees()
    save_weights(tmp_path / "w.npz", params, state)
    with np.load(tmp_path / "w.npz", allow_pickle=False) as stored:
        assert {"params/conv1/kernel", "params/half", "state/count", "state/key", "state/list/0"} < set(stored.files)
    back_params, back_state = load_weights(tmp_path / "w.npz", _trees(1.0))
    assert np.asarray(back_params["conv1"]["kernel"]).tobytes() == np.asarray(params["conv1"]["kernel"]).tobytes()
    assert back_params["half"].dtype == jnp.bfloat16 and back_params["half"].tolist() == [1.0, 1.0, 1.0]
    assert back_state["count"] == 5 and type(back_state["count"]) is np.int64
    assert jax.random.bits(back_state["key"]) == jax.random.bits(state["key"])


@pytest.mark.parametrize(
    ("like", "words"),
    [
        (({"a": np.zeros(3)}, {}), r"params/a is float32\[2\], the network has float64\[3\]"),
        (({"a": np.zeros(2, np.float32), "b": np.zeros(1)}, {}), "params/b is only in the network"),
        (({}, {}), "params/a is only in the file"),
    ],
)
def test_weights_of_another_network_are_refused(tmp_path, like, words):
    save_weights(tmp_path / "w.npz", {"a": np.zeros(2, np.float32)}, {})
    with pytest.raises(ValueError, match=words):
        load_weights(tmp_path / "w.npz", like)


def test_sizes_of_axes_may_differ_where_it_is_said(tmp_path):
    save_weights(tmp_path / "w.npz", {"a": np.arange(2.0, dtype=np.float32)}, {})
    params, _ = load_weights(tmp_path / "w.npz", ({"a": np.zeros(3, np.float32)}, {}), resized=True)
    np.testing.assert_array_equal(params["a"], [0.0, 1.0])
    with pytest.raises(ValueError, match=r"params/a is float32\[2\], the network has float32\[3, 1\]"):
        load_weights(tmp_path / "w.npz", ({"a": np.zeros((3, 1), np.float32)}, {}), resized=True)


def test_a_truncated_file_is_refused(tmp_path):
    save_weights(tmp_path / "w.npz", {"a": np.zeros(1000)}, {})
    (tmp_path / "w.npz").write_bytes((tmp_path / "w.npz").read_bytes()[:500])
    with pytest.raises(ValueError, match="no weights file"):
        load_weights(tmp_path / "w.npz", ({"a": np.zeros(1000)}, {}))
