"""The price of live channels alone: that of the smaller network, and slopes by hand."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cooptim.cost.evaluate import evaluate
from cooptim.cost.live import live_words
from cooptim.cost.words import Words, expected_words
from cooptim.hardware import load_machine
from cooptim.mapping.frontier import tilings
from cooptim.network.stats import Live, Stats
from cooptim.workload import Bounds, Layer, Workload
from tests.cost.cases import MACHINES, SYSTOLIC, conv, design_of

LAYERS = 3


def network(k, hidden):
    return Workload(
        "live",
        (
            conv("a", k, 3, 16),
            conv("b", hidden, k, 16, 3, "a"),
            Layer("c", "dense", Bounds(K=10, C=hidden), inputs=("b",)),
        ),
        ("c",),
        768,
    )


def report(workload, machine, stats, buffer_bits):
    modes = len(machine.modes)
    shares = np.zeros((LAYERS, tilings(workload, machine).rows))
    shares[:, 0] = 1.0  # untiled, which both networks can do
    design = design_of(
        machine, np.full((LAYERS, modes), 1 / modes), shares, np.array([4.0, 3.0, 6.0]), np.array([4.0, 5.0, 2.0]),
        np.full(LAYERS, 0.9), np.full(LAYERS, 0.1), buffer_bits or float(machine.buffer.size_bits),
    )  # fmt: skip
    return evaluate(workload, machine, design, stats, period_ns=1e6)


def both(machine, k, hidden, buffer_bits=None):
    """(report of live channels alone, report of the smaller network)."""
    density, kept = np.array([0.3, 0.2, 0.5]), np.array([1.0, 0.8, 0.6])
    outputs, inputs = np.array([k / 48, hidden / 64, 1.0]), np.array([1.0, k / 48, hidden / 64])
    live = Live(jnp.asarray(outputs), jnp.asarray(inputs), jnp.asarray(kept))
    given = Stats(jnp.asarray(density), jnp.full(LAYERS, 0.5))
    dense = np.minimum(density * kept / (outputs * inputs), 1.0)  # non-zero weights that are left, of weights left
    return (
        report(network(48, 64), machine, dataclasses.replace(given, live=live), buffer_bits),
        report(network(k, hidden), machine, dataclasses.replace(given, weight_density=jnp.asarray(dense)), buffer_bits),
    )


@pytest.mark.parametrize("left", [(40, 50), (40, 50, 480e3), (32, 33), (7, 1), (48, 64)])
def test_every_term_is_that_of_the_network_without_its_dead_channels(left):
    found, wanted = both(MACHINES["dvafs_sized"], *left)
    assert len(left) == 2 or 0.1 < float(wanted.resident_share[1]) < 0.9  # some weights are fetched every time
    for term, energy in wanted.energy_pj.items():
        np.testing.assert_allclose(found.energy_pj[term], energy, rtol=2e-4, err_msg=term)
    for field in ("standby_pj", "latency_ns", "cycles", "macs", "buffer_demand_bits", "resident_share", "kept_share"):
        np.testing.assert_allclose(getattr(found, field), getattr(wanted, field), rtol=2e-4, err_msg=field)


def test_on_a_systolic_array_fill_and_drain_are_scaled_like_the_rest():
    found, wanted = both(SYSTOLIC, 40, 50)
    assert float(found.total_energy_pj) == pytest.approx(float(wanted.total_energy_pj), rel=0.06)
    np.testing.assert_allclose(found.energy_pj["dram_w"], wanted.energy_pj["dram_w"], rtol=2e-4)


def test_words_fall_with_their_channels_and_cycles_with_what_fills_the_array():
    machine = load_machine("envision")  # 16 rows of output channels
    workload = network(48, 64)
    table = tilings(workload, machine)
    words = expected_words(table, jnp.asarray(np.eye(1, table.rows)[[0] * LAYERS]))
    bounds, filled = (np.array([48, 64, 10]), np.array([3, 48, 64])), (np.full(LAYERS, 16), np.ones(LAYERS))
    live = Live(*(jnp.asarray(x) for x in ([0.75, 0.25, 1.0], [1.0, 0.75, 0.25], [1.0] * LAYERS)))

    def slopes(field, side):
        return np.diag(jax.jacobian(lambda live: total_of(live, field))(live)[side])

    def total_of(live, field):
        found = getattr(live_words(words, live, bounds, filled), field)
        return found.reshape(LAYERS, -1).sum(axis=1)

    both = {"dram_w", "tile_w", "sram_w"}
    of_outputs, of_inputs = {"dram_o", "tile_o", "sram_o", "dram_psum", "tile_psum", "sram_psum"}, {"dram_i", "tile_i"}
    for field in both | of_outputs | of_inputs:
        whole = np.asarray(getattr(words, field)).reshape(LAYERS, -1).sum(axis=1)
        by_o = whole * (live.inputs if field in both else 1.0) * (field not in of_inputs)
        by_i = whole * (live.outputs if field in both else 1.0) * (field not in of_outputs)
        np.testing.assert_allclose(slopes(field, 0), by_o, err_msg=field)
        np.testing.assert_allclose(slopes(field, 1), by_i, err_msg=field)
    whole = np.asarray(words.cycles).sum(axis=1)
    # 36 of 48 channels take 3 passes of 3; 16 of 64 take 1 of 4; 10 take the only one
    np.testing.assert_allclose(total_of(live, "cycles"), whole * [3 / 3, 1 / 4, 1.0] * np.asarray(live.inputs))
    # linear beyond the first pass: 48/16 passes a share, of 3; at one pass and below nothing is gained
    np.testing.assert_allclose(slopes("cycles", 0), whole * [48 / 16 / 3, 0.0, 0.0] * np.asarray(live.inputs))
    np.testing.assert_allclose(slopes("cycles", 1), whole * [3 / 3, 1 / 4, 1.0] * [3 / 3, 48 / 48, 64 / 64])
    assert isinstance(live_words(words, live, bounds, filled), Words)


def test_pointers_of_compressed_columns_go_with_output_channels():
    found, wanted = both(load_machine("eie"), 40, 50, 530e3)
    # the middle layer's weights are fetched; which of the others stay depends on ties
    assert float(wanted.resident_share[1]) == 0.0
    np.testing.assert_allclose(found.energy_pj["dram_w"][1], wanted.energy_pj["dram_w"][1], rtol=2e-4)


@pytest.mark.float32
def test_a_layer_of_no_live_channels_has_a_price_and_slopes():
    """With a floor at the least float instead of one pair of channels the slope was 0/0."""
    machine = load_machine("envision")
    given = Stats(jnp.array([0.3, 0.2, 0.5], jnp.float32), jnp.full(LAYERS, 0.5, jnp.float32))

    def energy(outputs, inputs, weights):
        live = Live(outputs, inputs, weights)
        return report(network(48, 64), machine, dataclasses.replace(given, live=live), None).total_energy_pj

    alive = jnp.ones(LAYERS, jnp.float32).at[1].set(0.0)
    price, slopes = jax.value_and_grad(energy, (0, 1, 2))(alive, alive, alive)
    assert 0.0 < float(price) < float(energy(*jnp.ones((3, LAYERS), jnp.float32)))
    assert np.all(np.isfinite(slopes))
