"""No valid design gives a NaN or an infinity in value or gradient (a small part of experiments/random_designs)."""

import numpy as np
import pytest
from flax import nnx

import cooptim
from cooptim.network import examples
from experiments.random_designs.run import count_sound, machines, random_designs

EACH = 500


@pytest.mark.parametrize("machine", machines(), ids=lambda m: m.name)
def test_random_designs_of_three_layers_and_their_gradients_are_finite(machine):
    workload = cooptim.trace(examples.digits_cnn(nnx.Rngs(0)), examples.example_input("digits_cnn")).workload
    assert count_sound(workload, machine, EACH, EACH, np.random.default_rng(1)) == EACH


@pytest.mark.float32
def test_random_designs_of_resnet8_and_their_gradients_are_finite_in_float32():
    workload = cooptim.trace(examples.resnet8(nnx.Rngs(0)), examples.example_input("resnet8")).workload
    machine = machines()[1]
    assert count_sound(workload, machine, 100, 100, np.random.default_rng(2)) == 100


def test_the_random_designs_reach_their_corners():
    workload = cooptim.trace(examples.digits_cnn(nnx.Rngs(0)), examples.example_input("digits_cnn")).workload
    machine = machines()[2]
    table = cooptim.tilings(workload, machine)
    design, stats, period = random_designs(workload, machine, table, 1000, np.random.default_rng(3))
    for bits in (design.weight_bits, design.input_bits):
        assert {2.0, 16.0, 32.0} <= set(np.asarray(bits).ravel().tolist())
    for density in (stats.weight_density, stats.input_density):
        assert {0.0, 1.0} <= set(np.asarray(density).ravel().tolist())
    volts, s = np.asarray(design.supply_v), machine.supply
    assert volts.min() == pytest.approx(float(s.floor_v)) and volts.max() == pytest.approx(float(s.ceiling_v))
    for choice in (design.mode, design.tiling):
        np.testing.assert_allclose(np.sum(choice, axis=-1), 1.0, rtol=1e-9)
        hard = np.asarray(choice).max(axis=-1) == 1.0
        assert 0.2 < hard.mean() < 0.9
    assert not np.any(np.asarray(design.tiling)[:, np.asarray(table.valid) == 0])
    assert {0.0, 1e9} <= set(np.asarray(period).tolist())
