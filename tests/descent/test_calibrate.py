"""Post-training calibration: ranges by hand, no worse than the extremes, and a legal design that predicts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cooptim
from cooptim.descent.calibrate import RATIOS, calibrate, calibrated_ranges
from cooptim.design.legal import violations
from cooptim.design.space import DesignSpace
from cooptim.hardware.dvafs import standby_mw
from cooptim.network import trace
from cooptim.relax.codebook import clustered
from cooptim.relax.method import Method


def model(p, x):
    return jnp.maximum(x @ p["a"] + p["c"], 0.0) @ p["b"]


@pytest.fixture(scope="module")
def trained():
    """Random features and a readout by least squares on the digits; (network, parameters, images, labels)."""
    data = cooptim.load_data("digits")
    x, y = np.asarray(data.x_train, float).reshape(len(data.x_train), -1)[:700], np.asarray(data.y_train)[:700]
    rng = np.random.default_rng(0)
    a, c = rng.normal(size=(64, 48)) * rng.uniform(0.2, 3.0, 48) / 8, rng.normal(size=48) / 4
    h = np.maximum(x @ a + c, 0)
    b = np.linalg.lstsq(h.T @ h + 0.1 * np.eye(48), h.T @ np.eye(10)[y], rcond=None)[0]
    params = {"a": jnp.asarray(a), "b": jnp.asarray(b), "c": jnp.asarray(c)}
    assert np.mean(np.argmax(h @ b, axis=1) == y) > 0.9
    return trace(model, params, jnp.asarray(x)), params, jnp.asarray(x), y


@pytest.fixture(scope="module")
def envision():
    return cooptim.load_machine("envision")


def ranged(trained, machine, bits, ranges, per_channel=False, images=300):
    network, params, x, _ = trained
    return calibrated_ranges(network, params, {}, x[:images], machine, bits, ranges=ranges, per_channel=per_channel)[1]


def squared_error(x, range_, step, signed):
    low = -range_ if signed else 0.0
    return np.mean((np.round(np.clip(x, low, range_) / step) * step - x) ** 2, axis=0)


def test_minmax_reaches_the_largest_magnitude_and_mse_loses_least(trained, envision):
    _, params, x, _ = trained
    x = np.asarray(x[:300])
    tensors = (np.asarray(params["a"]), np.asarray(params["b"]))
    data = (x, np.maximum(x @ tensors[0] + np.asarray(params["c"]), 0))
    widest, best = (ranged(trained, envision, (3, 4), r) for r in ("minmax", "mse"))
    assert widest.input_signed == (False, False)
    for i in range(2):
        np.testing.assert_allclose(widest.weight_range[i], np.abs(tensors[i]).max())
        np.testing.assert_allclose(widest.input_range[i], data[i].max())
        np.testing.assert_allclose(widest.weight_step[i] * 3, widest.weight_range[i])  # 3 bits: 3 steps and a sign
        np.testing.assert_allclose(widest.input_step[i] * 15, widest.input_range[i])  # 4 bits without
        for flat, range_, levels, signed in (
            (tensors[i].ravel(), "weight_range", 3, True), (data[i].ravel(), "input_range", 15, False)
        ):  # fmt: skip
            most = float(getattr(widest, range_)[i])
            tried = [float(squared_error(flat, r * most, r * most / levels, signed)) for r in RATIOS]
            np.testing.assert_allclose(getattr(best, range_)[i], RATIOS[int(np.argmin(tried))] * most)
    assert float(best.weight_range[1]) < float(widest.weight_range[1])  # some clip does help at 3 bits


def test_each_channel_has_the_range_that_suits_it_and_the_error_falls(trained, envision):
    _, params, _, _ = trained
    w = np.asarray(params["a"])
    widest, best = (ranged(trained, envision, 4, r, per_channel=True) for r in ("minmax", "mse"))
    whole = ranged(trained, envision, 4, "mse")
    np.testing.assert_allclose(widest.weight_scale[0] * widest.weight_range[0], np.abs(w).max(axis=0))
    errors = []
    for design in (widest, best):
        range_ = np.asarray(design.weight_scale[0]) * float(design.weight_range[0])
        errors.append(squared_error(w, range_, range_ / 7, True))
    assert (errors[1] <= errors[0]).all() and errors[1].sum() < 0.98 * errors[0].sum()
    one = squared_error(w.ravel(), float(whole.weight_range[0]), float(whole.weight_step[0]), True)
    assert errors[1].mean() < 0.7 * one  # channels differ by up to 15 times here


def test_eight_bits_keep_the_predictions_of_a_trained_network_on_a_legal_design(trained, envision):
    network, params, x, y = trained
    design = calibrate(network, params, {}, x[:300], envision, 8, per_channel=True)
    space = DesignSpace(
        network.workload, envision, cooptim.tilings(network.workload, envision), design.input_signed, design.methods
    )
    assert violations(space, design) == []
    assert set(np.asarray(design.weight_bits)) == {8.0} == set(np.asarray(design.input_bits))
    logits = jax.jit(lambda x: network.apply(params, {}, x, design)[0])(x)
    exact = np.argmax(model(params, x), axis=1)
    assert np.mean(np.argmax(logits, axis=1) == exact) >= 0.99
    assert abs(np.mean(np.argmax(logits, axis=1) == y) - np.mean(exact == y)) <= 0.005


def test_without_a_deadline_the_hardware_takes_least_of_all(trained, envision):
    network, params, x, _ = trained
    found = {}
    for deadline_ns in (np.inf, 3e3, 3e5):
        design = calibrate(network, params, {}, x[:300], envision, 8, ranges="minmax", deadline_ns=deadline_ns)
        stats = network.apply(params, {}, x[:300], design)[2]
        period_ns = deadline_ns if np.isfinite(deadline_ns) else None
        report = cooptim.evaluate(network.workload, envision, design, stats, period_ns=period_ns)
        # What one inference takes while it runs: standby of a longer period is no part of it.
        idle = 0.0 if period_ns is None else float(standby_mw(envision, envision.buffer.size_bits))
        found[deadline_ns] = float(report.total_energy_pj) - idle * max(
            (period_ns or 0) - float(report.total_latency_ns), 0
        )
    assert found[np.inf] <= min(found.values()) * (1 + 1e-6)


def test_whole_chunks_of_many_images_are_seen_and_the_rest_is_not(trained, envision):
    _, params, x, y = trained
    part = x[:512]
    many = jnp.concatenate([part, 2 * part, 9 * x[:100]])
    found = ranged((trained[0], params, many, y), envision, 8, "minmax", images=len(many))
    np.testing.assert_allclose(found.input_range[0], 2 * np.max(part))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"ranges": "max"}, "ranges 'max' is not known; use one of minmax, mse"),
        ({"bits": 20}, r"20 bits of weights; envision takes whole numbers in 2..16, one for all or one for each of 2"),
        ({"bits": (8, [8, 8, 8])}, r"\[8, 8, 8\] bits of inputs"),
        ({"bits": 3.5}, "3.5 bits of weights"),
    ],
)
def test_bad_input_is_named(trained, envision, given, words):
    arguments = {"bits": 8, "ranges": "minmax"} | given
    with pytest.raises(ValueError, match=words):
        ranged(trained, envision, **arguments)


def test_tables_are_the_clusters_of_the_weights_and_say_their_own_step(trained):
    network, params, x, _ = trained
    machine = cooptim.load_machine("eie")
    methods = (Method("codebook", label_bits=3), Method())
    space = DesignSpace(network.workload, machine, cooptim.tilings(network.workload, machine), (True, True), methods)
    found = cooptim.calibrate(network, params, {}, x[:300], space, (4, 8))
    w = np.asarray(params["a"], np.float64).ravel()
    centres = np.asarray(clustered(w[w != 0], 7))
    step = np.abs(centres).max() / 32767
    np.testing.assert_allclose(found.codebook[0], np.append(0.0, np.round(centres / step) * step), rtol=1e-5)
    np.testing.assert_allclose(found.weight_step[0], step, rtol=1e-6)
    assert found.weight_bits.tolist() == [3, 4] and found.codebook[1].size == 0 and violations(space, found) == []


def test_a_space_keeps_its_own_methods(trained, envision):
    network, params, x, _ = trained
    table = cooptim.tilings(network.workload, envision)
    methods = (Method("ternary"), Method("lsq", "sign"))
    space = DesignSpace(network.workload, envision, table, (True, True), methods)
    found = calibrated_ranges(network, params, {}, x[:300], space, 4, ranges="mse", per_channel=False)[1]
    assert found.weight_bits.tolist() == [2, 4] and found.input_bits.tolist() == [4, 2] and found.methods == methods
    h = np.maximum(np.asarray(x[:300] @ params["a"] + params["c"]), 0)
    tried = [
        np.mean((np.where(h < 0, -1, 1) * r * h.max() - h) ** 2) for r in RATIOS
    ]  # range or -range, as a sign says
    np.testing.assert_allclose(found.input_range[1], RATIOS[int(np.argmin(tried))] * h.max())
    np.testing.assert_allclose(found.input_step[1], found.input_range[1])
    with pytest.raises(ValueError, match="per_channel beside a design space"):
        ranged((network, params, x, None), space, 4, "minmax", per_channel=True)
