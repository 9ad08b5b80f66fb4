"""Weights as labels of a table: a method of a layer, from knobs over the forward pass to price and file."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cooptim
from cooptim.descent.clusters import with_clusters
from cooptim.descent.step import project
from cooptim.design.legal import snap, violations
from cooptim.design.space import DesignSpace
from cooptim.export import load_design, save_design
from cooptim.network.kept import weight_unit
from cooptim.relax.codebook import linear_table, nonzero_share
from cooptim.relax.mask import density
from cooptim.relax.method import PLAIN, Method

CODEBOOK = Method("codebook", label_bits=2)


@pytest.fixture(scope="module")
def case():
    rng = np.random.default_rng(0)
    params = {"a": jnp.asarray(rng.normal(size=(6, 5))), "b": jnp.asarray(rng.normal(size=(5, 2)))}
    network = cooptim.trace(lambda p, x: jnp.tanh(x @ p["a"]) @ p["b"], params, np.zeros((1, 6)))
    machine = cooptim.load_machine("eie")  # which has tables of shared weights
    table = cooptim.tilings(network.workload, machine, most=3)
    space = DesignSpace(network.workload, machine, table, (True, True), (CODEBOOK, PLAIN))
    return network, params, space, space.init(jnp.array([2.0, 2.5]), jnp.ones(2), 4.0, 8.0)


def test_a_table_starts_evenly_and_its_labels_are_the_width(case):
    _, _, space, knobs = case
    np.testing.assert_allclose(knobs.codebook[0], [0.0, -2.0, 1.0, 2.0])
    assert knobs.codebook[1].size == 0
    np.testing.assert_allclose(linear_table(8.0, 3), [0, -8, -16 / 3, -8 / 3, 2, 4, 6, 8])
    np.testing.assert_allclose(linear_table(3.0, 1), [0.0, 3.0])
    design = space.decode(knobs, 1.0)
    assert design.weight_bits.tolist() == [2.0, 4.0]
    assert design.weight_range[0] == 2.0 and float(design.weight_step[0]) == pytest.approx(2.0 / 32767)


def test_the_forward_pass_takes_the_nearest_value_and_its_gradient_reaches_table_and_weights(case):
    network, params, space, knobs = case
    x = jnp.asarray(np.random.default_rng(1).normal(size=(3, 6)))
    values = np.array([0.0, -1.1, 0.7, 1.9])
    # Weights of 0.35 to 0.6 are cut, though 0.7 is nearer to them than 0.
    cut = jnp.full(2, np.log2(0.6))
    knobs = dataclasses.replace(knobs, codebook=(jnp.asarray(values), knobs.codebook[1]), log2_threshold=cut)
    w = np.asarray(params["a"])
    left = np.where(np.abs(w) > 0.6, w, 0.0)
    # EIE stores values of 16 bits: whole multiples of a 32767th of the largest.
    values = np.round(values / 1.9 * 32767) * (1.9 / 32767)
    label = np.abs(left[..., None] - values).argmin(-1)

    def out(params, knobs):
        y, _, stats = network.apply(params, {}, x, space.decode(knobs, 1.0), off=("a/I", "b"))
        return jnp.sum(y[:, 0]), (y, stats)

    (d_params, d_knobs), (y, stats) = jax.jit(jax.grad(out, argnums=(0, 1), has_aux=True))(params, knobs)
    np.testing.assert_allclose(y, np.tanh(np.asarray(x) @ values[label]) @ np.asarray(params["b"]), rtol=1e-12)
    assert float(stats.weight_density[0]) == pytest.approx(np.mean(label != 0))
    # The gradient in a weight, cut or not, and its sum over the weights of an entry; the zero entry has none.
    hidden = np.asarray(x) @ values[label]
    by_weight = np.asarray(x).T @ ((1 - np.tanh(hidden) ** 2) * np.asarray(params["b"])[:, 0])
    np.testing.assert_allclose(d_params["a"], by_weight, rtol=1e-9)
    sums = [by_weight[label == k].sum() if k else 0.0 for k in range(4)]
    np.testing.assert_allclose(d_knobs.codebook[0], sums, rtol=1e-9)


def test_the_share_of_nonzero_labels_is_counted_and_has_the_slope_of_a_ramp():
    w, table = jnp.asarray([0.2, -0.6, 1.4, 0.0, -0.1]), jnp.asarray([0.0, 1.0, -1.0])
    assert float(nonzero_share(w, table)) == 2 / 5
    slope = jax.grad(nonzero_share)(w, table)
    np.testing.assert_allclose(slope, jax.grad(lambda w: density(w, jnp.asarray(0.5)))(w))


def test_a_design_with_a_table_is_legal_saved_and_read_back(case, tmp_path):
    network, _, space, knobs = case
    design = snap(space, space.decode(knobs, 1.0))
    assert violations(space, design) == []
    save_design(tmp_path / "d.json", network.workload, space.machine, design, tilings=space.tilings)
    back = load_design(tmp_path / "d.json", network.workload, space.machine, tilings=space.tilings)
    assert back.methods == (CODEBOOK, PLAIN)
    np.testing.assert_allclose(back.codebook[0], design.codebook[0], rtol=1e-6)


def test_a_snapped_table_is_what_the_forward_pass_has_rounded_anyway(case):
    network, params, space, knobs = case
    knobs = dataclasses.replace(knobs, codebook=(jnp.asarray([0.0, -1.1, 0.7123, 1.9]), knobs.codebook[1]))
    relaxed = space.decode(knobs, 1.0)
    legal = snap(space, relaxed)
    units = np.asarray(legal.codebook[0]) / (1.9 / 32767)
    np.testing.assert_allclose(units, np.round(np.array([0.0, -1.1, 0.7123, 1.9]) / 1.9 * 32767), atol=1e-6)
    x = jnp.asarray(np.random.default_rng(2).normal(size=(4, 6)))
    for one in (legal, snap(space, legal), space.decode(space.encode(legal), 1.0)):
        ours = dataclasses.replace(relaxed, codebook=one.codebook, weight_step=one.weight_step)
        y, same = (network.apply(params, {}, x, design)[0] for design in (relaxed, ours))
        np.testing.assert_allclose(y, same, rtol=1e-12)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"codebook": [0.0, 1.0, 2.0]}, "a: codebook of 3 values, its method asks for 4 that are finite"),
        ({"codebook": [1.0, -2.0, 0.5, 2.0]}, "a: codebook without a 0, which pruned weights take"),
        ({"weight_step": 0.4}, "a: codebook value 1.00003 is no whole multiple of the step 0.4 within 2"),
        ({"weight_range": 1.0}, "a: codebook value -2 is no whole multiple of the step 6.10"),
        ({"weight_step": 1e-6}, "a: weight range 2 at step 1e-06 is no table of 16 b values"),
        ({"weight_bits": 3.0}, "a: weight width 3 b, its labels have 2"),
    ],
)
def test_what_no_table_stores_is_no_legal_design(case, change, said):
    _, _, space, knobs = case
    design = snap(space, space.decode(knobs, 1.0))
    (field, value), *_ = change.items()
    if field == "codebook":
        odd = {field: (jnp.asarray(value), design.codebook[1])}
    else:
        odd = {field: getattr(design, field).at[0].set(value)}
    found = violations(space, dataclasses.replace(design, **odd))
    assert found and found[0].startswith(said)


def test_a_pruned_weight_and_a_label_of_zero_are_the_same_to_the_price(case):
    network, params, space, knobs = case
    design = space.decode(knobs, 1.0)  # values 0, -2, 1 and 2
    w = np.abs(np.asarray(params["a"]))

    def share(threshold):
        one = dataclasses.replace(design, threshold=jnp.stack([threshold, jnp.zeros(())]))
        return network.apply(params, {}, jnp.ones((1, 6)), one)[2].weight_density[0]

    negative = np.asarray(params["a"]) < 0  # -2 is the nearest below -1, 1 the nearest above 0.5
    named = np.where(negative, w > 1.0, w > 0.5)
    for threshold in (0.1, 1.2):
        found, slope = jax.value_and_grad(share)(jnp.asarray(threshold))
        assert float(found) == np.mean(named & (w > threshold))
        wanted = jax.grad(lambda cut: density(params["a"], cut))(jnp.asarray(1.2)) if threshold > 0.5 else 0.0
        np.testing.assert_allclose(slope, wanted)
    assert wanted < 0  # what is pruned saves energy


def test_a_threshold_of_a_finished_design_stays_where_fine_tuning_begins(case):
    _, _, space, knobs = case
    design = snap(space, space.decode(knobs, 1.0))
    for cut in (1e-3, 0.4):
        kept = project(space, space.encode(dataclasses.replace(design, threshold=jnp.full(2, cut))))
        assert 2.0 ** kept.log2_threshold[0] == pytest.approx(cut)


def other_space(space, machine, method):
    machine = cooptim.load_machine(machine)
    table = cooptim.tilings(space.workload, machine, most=1)
    return DesignSpace(space.workload, machine, table, (True, True), (PLAIN, method))


@pytest.mark.parametrize(
    ("machine", "label_bits", "legal"),
    [("envision", 4, "none: it has no table of shared weights"), ("eie", 5, "1 to 4"), ("eie", 8, "1 to 4")],
)
def test_only_a_machine_with_a_table_so_large_takes_a_codebook(case, machine, label_bits, legal):
    said = f"b: a codebook of {label_bits} label bits on {machine}; legal are {legal}; take a machine with shared_wei"
    with pytest.raises(ValueError, match=said):
        other_space(case[2], machine, Method("codebook", label_bits=label_bits))


def test_a_label_of_one_bit_is_one_bit_and_what_is_cut_stays_cut(case):
    space = other_space(case[2], "eie", Method("codebook", label_bits=1))
    design = space.decode(space.init(jnp.ones(2), jnp.ones(2), 4.0, 8.0), 1.0)
    assert design.weight_bits.tolist() == [4.0, 1.0] and float(design.threshold[1]) > 0
    legal = snap(space, design)
    assert violations(space, legal) == []
    assert legal.weight_bits.tolist() == [4.0, 1.0] and legal.threshold.tolist() == design.threshold.tolist()


def test_a_design_without_its_table_is_refused_by_name(case):
    network, params, space, knobs = case
    design = space.decode(knobs, 1.0)
    for tables, size in ((None, 0), ((design.codebook[0][:3], design.codebook[1]), 3)):
        with pytest.raises(ValueError, match=f"a: codebook has {size} values for 2 label bits; give 4"):
            network.apply(params, {}, jnp.ones((1, 6)), dataclasses.replace(design, codebook=tables))


def test_every_user_of_a_tied_leaf_starts_at_the_clusters_of_its_weights(case):
    values = np.array([-1.0, 0.5, 2.0])
    w = jnp.asarray(np.resize(values, (6, 6)))
    network = cooptim.trace(lambda p, x: jnp.tanh(x @ p) @ p, w, np.zeros((1, 6)))
    _, _, space, _ = case
    table = cooptim.tilings(network.workload, space.machine, most=1)
    tied = DesignSpace(network.workload, space.machine, table, (True, True), (CODEBOOK, CODEBOOK))
    knobs = with_clusters(network, tied, w, tied.init(jnp.ones(2), jnp.ones(2)))
    for found in knobs.codebook:
        np.testing.assert_allclose(found, [0.0, *values], rtol=1e-6)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"weights": "codebook"}, "codebook with None label_bits; legal are whole numbers from 1 to 8"),
        ({"weights": "codebook", "label_bits": 9}, "codebook with 9 label_bits"),
        ({"label_bits": 3}, "label_bits 3 of step_range weights; they are for codebook"),
        ({"weights": "codebook", "label_bits": 3, "per_channel": True}, "a codebook serves a whole tensor"),
    ],
)
def test_methods_that_no_table_can_follow_are_refused(fields, said):
    with pytest.raises(ValueError, match=said):
        Method(**fields)


def test_what_a_memory_misreads_of_a_codebook_are_no_words():
    with pytest.raises(ValueError, match="codebook weights: what is stored of them are labels of a table"):
        weight_unit(None, jnp.ones(2), type("K", (), {"weight_step": 1.0, "weight_range": 1.0})(), CODEBOOK)
