"""HGQ2 beside ours (experiments/peers): points from files, their widths on our chip, domination; without HGQ2."""

import importlib
import sys
import types

import jax.numpy as jnp
import numpy as np
import pytest

import cooptim
from cooptim.design.space import DesignSpace
from cooptim.mapping.frontier import tilings

MODULES = ("points", "summary")  # a script's: they import each other


@pytest.fixture(scope="module")
def peers(root):
    """The modules of the experiment, which are no package; none of their names is left behind."""
    kept = {name: sys.modules.pop(name, None) for name in MODULES}
    sys.path.insert(0, str(root / "experiments" / "peers"))
    yield types.SimpleNamespace(**{name: importlib.import_module(name) for name in MODULES})
    sys.path.remove(str(root / "experiments" / "peers"))
    for name, module in kept.items():
        del sys.modules[name]
        if module is not None:
            sys.modules[name] = module


def two_layers(w, x):
    return jnp.maximum(x @ w["a"], 0.0) @ w["b"]


@pytest.fixture(scope="module")
def space():
    shapes = {"a": np.ones((4, 3), np.float32), "b": np.ones((3, 2), np.float32)}
    workload = cooptim.trace(two_layers, shapes, np.ones((1, 4), np.float32)).workload
    machine = cooptim.load_machine("envision")
    return DesignSpace(workload, machine, tilings(workload, machine), (False, True))


def written(path, **changes):
    """A point of two layers: words in eighths up to 5/8 and quarters up to 1/4; inputs of 3 and of 2 and 4 bits."""
    content = {
        "layers": np.asarray(["a", "b"]), "beta": 1e-6, "ebops": 123, "val_accuracy": 0.9, "test_accuracy": 0.8,
        "cpu_s": 1.5,
        "a/kernel": np.asarray([[0.625, 0.0, -0.125], [0.0, 0.0, 0.5], [0.0, 0.25, 0.0], [0.0, 0.0, 0.0]]),
        "a/bias": np.zeros(3), "a/weight_bits": np.full((1, 1), 8.0), "a/input_bits": np.full((1, 1), 3.0),
        "a/input_step": np.full((1, 1), 0.25), "a/input_signed": np.asarray(False), "a/input_density": 0.75,
        "b/kernel": np.asarray([[0.25, -0.25], [0.0, 0.25], [0.0, 0.0]]), "b/bias": np.ones(2),
        "b/weight_bits": np.full((3, 2), 2.0), "b/input_bits": np.asarray([[2.0, 4.0, 0.0]]),
        "b/input_step": np.asarray([[0.5, 0.125, 1e-4]]), "b/input_signed": np.asarray(True), "b/input_density": 0.5,
        "n/scale": np.ones(3), "n/bias": np.zeros(3), "n/mean": np.zeros(3), "n/var": np.full(3, 0.5),
    }  # fmt: skip
    np.savez(path, **{name: np.asarray(value) for name, value in (content | changes).items() if value is not None})
    return path


def test_a_point_keeps_words_widths_figures_and_norms(peers, tmp_path):
    point = peers.points.read_point(written(tmp_path / "tensor_3.npz"))
    assert point.title == "tensor_3" and point.layers == ("a", "b")
    assert point.figures == {"beta": 1e-6, "ebops": 123, "val_accuracy": 0.9, "test_accuracy": 0.8, "cpu_s": 1.5}
    assert point.arrays["b"]["kernel"].shape == (3, 2) and set(point.norms) == {"n"}
    assert set(point.norms["n"]) == {"scale", "bias", "mean", "var"}


def test_a_point_without_an_input_step_and_a_text_are_refused(peers, tmp_path):
    with pytest.raises(ValueError, match="b/input_step missing; write it with hgq_train.py"):
        peers.points.read_point(written(tmp_path / "a.npz", **{"b/input_step": None}))
    (tmp_path / "b.npz").write_text("no archive")
    with pytest.raises(ValueError, match="no readable .npz of plain arrays"):
        peers.points.read_point(tmp_path / "b.npz")


def test_the_grid_of_words_is_the_largest_power_of_two_that_divides_them(peers):
    assert peers.points.grid_step(np.float32([0.75, -0.5, 0.0])) == 0.25
    assert peers.points.grid_step(np.float32([6.0, 10.0])) == 2.0
    assert peers.points.grid_step(np.zeros(3)) == 1.0


@pytest.mark.parametrize(
    ("largest", "bits"), [(0, 1), (1, 2), (3, 3), (4, 4), (7, 4), (8, 5)]
)  # one sign and -(2^(b-1) - 1) to 2^(b-1) - 1
def test_signed_words_take_the_least_width_that_holds_the_largest(peers, largest, bits):
    words = np.asarray([-largest, 1.0 * (largest > 0)]) / 16
    assert peers.points.signed_bits(words) == bits


def test_a_layer_gets_the_width_that_its_widest_word_needs_and_its_share_of_zeros(peers, space, tmp_path):
    design, stats = peers.points.point_design(space, peers.points.read_point(written(tmp_path / "a.npz")))
    # a: up to 5 steps of 1/8, so 3 bits and a sign, of the 8 that its quantizer has; b: one step of 1/4.
    assert design.weight_bits.tolist() == [4.0, 2.0] and design.weight_step.tolist() == [0.125, 0.25]
    assert design.input_bits.tolist() == [3.0, 4.0]  # b: the widest of its three
    assert design.input_step.tolist() == [0.25, 0.125]  # b: the finest of those that hold anything
    assert design.input_range.tolist() == [1.75, 0.875]  # 7 steps unsigned, 7 steps and a sign
    assert stats.weight_density.tolist() == pytest.approx([4 / 12, 3 / 6])
    assert stats.input_density.tolist() == pytest.approx([0.75, 0.5])


def test_a_signed_input_where_the_space_has_none_is_refused(peers, space, tmp_path):
    point = peers.points.read_point(written(tmp_path / "a.npz", **{"a/input_signed": np.asarray(True)}))
    with pytest.raises(ValueError, match="a: inputs below zero"):
        peers.points.point_design(space, point)


def test_words_and_statistics_reach_our_network_with_its_own_epsilon(peers, tmp_path):
    point = peers.points.read_point(written(tmp_path / "a.npz"))
    none = {name: {} for name in ("a", "b", "n")}
    params, state = peers.points.loaded(none, {"n": {}}, point)
    assert params["b"]["bias"].tolist() == [1.0, 1.0] and params["a"]["kernel"].shape == (4, 3)
    # 0.5 + 0.001 of Keras is 0.50099 + 0.00001 of Flax.
    assert np.asarray(state["n"]["var"]) + 1e-5 == pytest.approx(0.501, abs=1e-9)
    assert none == {"a": {}, "b": {}, "n": {}}


def test_to_dominate_is_to_be_no_worse_in_both_and_better_in_one(peers):
    one = (10.0, 0.9)
    assert peers.points.dominates(one, (11.0, 0.9)) and peers.points.dominates(one, (10.0, 0.8))
    assert not peers.points.dominates(one, one)
    assert not peers.points.dominates(one, (9.0, 0.8)) and not peers.points.dominates(one, (11.0, 0.91))
    assert peers.points.undominated([(11.0, 0.9), (9.0, 0.5), (12.0, 0.95)], [one, (12.0, 0.94)]) == [1, 2]


def row(kind, energy, val, test, seed=0, setting=1.0):
    return {
        "seed": seed, "kind": kind, "setting": setting, "energy_pj": energy, "val": val, "test": test,
        "bit_operations": 1.0, "cpu_s": 1.0,
    }  # fmt: skip


def test_the_peers_front_is_chosen_on_validation_and_judged_on_what_is_asked(peers):
    rows = [
        row("ours", 9.0, 0.9, 0.7),
        row("ours", 9.5, 0.8, 0.99),  # nor on ours
        row("hgq2 tensor", 10.0, 0.9, 0.8),
        row("hgq2 tensor", 11.0, 0.8, 0.6),  # not on its front: dearer and worse on validation
        row("hgq2 weight", 20.0, 0.5, 0.5),
    ]
    assert [(found["energy_pj"], done) for found, done in peers.summary.verdicts(rows, "val")] == [
        (10.0, True),
        (20.0, True),
    ]
    assert [done for _, done in peers.summary.verdicts(rows, "test")] == [False, True]


def test_bit_operations_are_counted_alike_for_every_side(peers):
    found = {"widths": "2 3 4 5", "weight_density": "0.5 0.25", "kind": "ours"}  # weights of 2 and 3 b, inputs 4 and 5
    counted = peers.summary.counted(found, np.asarray([10.0, 20.0]))
    assert counted == found | {"dense_bit_operations": 80.0 + 300.0, "bit_operations": 40.0 + 75.0}


def test_rows_are_written_in_one_order_and_lack_what_they_lack(peers, tmp_path):
    peers.summary.write_rows(tmp_path / "a.csv", [row("ours float", 2.0, 0.5, 0.25)])
    head, line = (tmp_path / "a.csv").read_text().splitlines()
    assert head.startswith("seed,kind,setting,energy_pj,val,test,") and line.startswith(
        "0,ours float,1.0,2.0,0.5,0.25,,"
    )


def test_means_are_over_seeds_and_leave_out_what_has_no_price(peers):
    rows = [row("ours", 8.0, 0.9, 0.7), row("ours", 10.0, 0.8, 0.9, seed=1), row("hgq2 float", "", 0.9, 0.9)]
    (mean,) = peers.summary.means(rows)
    assert (mean["energy_pj"], mean["val"], mean["seeds"]) == (9.0, pytest.approx(0.85), 2)
    assert mean["test_deviation"] == pytest.approx(np.sqrt(0.02))  # 0.7 and 0.9 around 0.8, one degree of freedom
