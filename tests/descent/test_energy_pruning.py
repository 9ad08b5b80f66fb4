"""Weights pruned where they save energy, and channels removed in rounds: by hand, and on a machine of the package."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cooptim
from cooptim.descent.channel_pruning import prune_channels, wide_costs
from cooptim.descent.energy_pruning import energy_aware_masks, layers_by_energy, price_of
from cooptim.descent.pruning import prune_in_rounds
from cooptim.descent.retrain import Lesson, Teacher, Trainer, built
from cooptim.descent.wide import wide


def mlp(params, x):
    return jax.nn.relu(x.reshape(x.shape[0], -1) @ params["a"]) @ params["b"]


def start(hidden=16, dtype=jnp.float32):
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape) / np.sqrt(shape[0]), dtype)  # noqa: E731
    return {"a": draw(64, hidden), "b": draw(hidden, 10)}


@pytest.fixture(scope="module")
def parts():
    jax.config.update("jax_enable_x64", False)
    data = cooptim.load_data("digits")
    return cooptim.trace(mlp, start(), data.sample), data


def counts(masks):
    return [int(np.sum(~mask)) for mask in masks]


def test_weights_go_where_energy_over_error_is_largest(parts):
    network, _ = parts
    params = {"a": jnp.asarray(np.full((64, 16), 2.0)), "b": jnp.asarray(np.full((16, 10), 3.0))}
    # Equal weights in each layer: error is the share pruned. a saves 1 pJ for all of it, b 5 pJ.
    masks = energy_aware_masks(network, lambda d: 1.0 * d[0] + 5.0 * d[1], params, 5.0)
    assert counts(masks) == [0, 16 + 14 + 13]  # 0.1 of 160, of 144, of 130: 5 * 43/160 > 1 >= 5 * 30/160
    # The dearer layer by weights is not the dearer by energy.
    assert counts(energy_aware_masks(network, lambda d: 7.0 * d[0] + 5.0 * d[1], params, 11.5)) == [102, 0]
    # With one weight of b small, its first step costs least whatever the energy.
    light = params | {"b": params["b"].at[:2, :8].set(1e-3)}
    masks = energy_aware_masks(network, lambda d: 7.0 * d[0] + 5.0 * d[1], light, 11.6)
    assert counts(masks) == [0, 16] and not np.any(masks[1][:2, :8])


def test_weights_that_are_gone_stay_gone_and_every_layer_keeps_some(parts):
    network, _ = parts
    params = jax.tree.map(np.array, start())
    params["a"][:, :4] = 0.0
    masks = energy_aware_masks(network, lambda d: d[0] + d[1], params, 0.0225)
    assert counts(masks) == [1024 - 10, 160 - 2] and not np.any(masks[0][:, :4])
    with pytest.raises(ValueError, match="0.01 pJ is out of reach, pruned weights bring it to 0.022"):
        energy_aware_masks(network, lambda d: d[0] + d[1], params, 0.01)
    with pytest.raises(ValueError, match="1 pJ is out of reach, pruned weights bring it to 2 pJ; ask for more"):
        energy_aware_masks(network, lambda d: 2.0, params, 1.0)


@pytest.mark.float32
def test_rounds_reach_their_energy_by_the_cost_model(parts):
    network, data = parts
    machine = cooptim.load_machine("envision")
    design, stats = wide(network.workload, machine)
    report = cooptim.evaluate(network.workload, machine, design, stats)
    price = price_of(network, machine, design, stats)
    full = float(report.total_energy_pj)
    assert price(np.ones(2)) == pytest.approx(full, rel=1e-6)
    half = dataclasses.replace(stats, reach=jnp.full(2, 0.5, jnp.float32))  # as where half of the inputs left before
    want = float(cooptim.evaluate(network.workload, machine, design, half).total_energy_pj)
    assert want < 0.8 * full and price_of(network, machine, design, half)(np.ones(2)) == pytest.approx(want, rel=1e-6)
    assert layers_by_energy(network, report)[0] == "a" == network.layer_names[0]
    trainer = Trainer(network, data, 32, 0)
    found = prune_in_rounds(
        trainer, start(), {}, (0.9 * full, 0.8 * full), Lesson("energy", 2, 1e-3),
        masks_of=functools.partial(energy_aware_masks, network, price),
    )  # fmt: skip
    for one, share in zip(found, (0.9, 0.8), strict=True):
        kept = built(one.weights)
        density = np.array([np.mean(np.asarray(kept[name]) != 0) for name in "ab"])
        # Not further than a step below the target.
        assert share - 0.1 < price(density) / full <= share


@pytest.mark.float32
def test_channels_leave_in_rounds_and_the_smaller_network_costs_less(parts):
    network, data = parts
    trainer = Trainer(network, data, 32, 0)
    lesson = Lesson("slim", 60, 5e-3)
    found = prune_channels(trainer, start(), {}, (0.25, {"a": 0.5}), lesson, teacher=Teacher(start(), {}, share=0.1))
    assert [one.channels for one in found] == [{"a": (16, 12)}, {"a": (12, 6)}]
    last = found[-1].network
    logits = np.asarray(mlp(last.params, data.x_val))
    assert found[-1].val_accuracy == pytest.approx(np.mean(logits.argmax(1) == data.y_val)) and logits.shape[1] == 10
    assert found[-1].val_accuracy > 0.5 and last.params["a"].shape == (64, 6)
    assert last.workload.macs == 64 * 6 + 60
    machine = cooptim.load_machine("envision")
    before, after = wide_costs(network, machine), wide_costs(last, machine)
    assert float(after.total_energy_pj) < float(before.total_energy_pj)
    assert len(prune_channels(trainer, start(), {}, (0.5, 0.5), Lesson("s", 1, 0.0), least_accuracy=2.0)) == 1
