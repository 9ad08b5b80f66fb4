"""Serial MACs: steps by hand, cycles and energy in proportion to the serial operand, published ratios at 8 bit."""

import csv
import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from cooptim.hardware.mechanisms import bit_serial
from cooptim.hardware.mechanisms.bit_serial import CAMUS_8B, BitSerial, serial_steps


def serial(operand, digit=1.0, units=8.0, ratio=1.0):
    return BitSerial(operand, jnp.array(digit), jnp.array(units), jnp.array(ratio))


def test_ratios_are_the_verified_row_of_the_reference_table(shared):
    with open(shared / "reference" / "memory_energy.csv", newline="") as file:
        (row,) = [row for row in csv.DictReader(file) if row["item"] == "1D bit serial"]
    assert row["verified"] == "yes" and row["size_or_width"] == "8b"
    assert float(row["energy"]) == CAMUS_8B["one", 1]
    assert f"2D bit serial {CAMUS_8B['both', 1]:g}x; 1D 4b-serial {CAMUS_8B['one', 4]:g}x" in row["note"]


def test_steps_by_hand():
    assert [float(serial_steps(serial("W"), w, 8.0)) for w in (1.0, 5.0, 8.0)] == [1, 5, 8]
    assert float(serial_steps(serial("I"), 5.0, 3.0)) == 3
    assert float(serial_steps(serial("both"), 5.0, 3.0)) == 15
    assert [float(serial_steps(serial("W", 4.0), w, 8.0)) for w in (1.0, 4.0, 5.0, 8.0)] == [1, 1, 2, 2]


def test_half_the_bits_take_half_the_cycles_and_energy(datapath, point):
    full, half = (bit_serial.effect(serial("W"), datapath(8), point(bits, 8.0)) for bits in (8.0, 4.0))
    assert float(full.cycles) == 1.0 and float(half.cycles) == 0.5
    assert [float(x.executed * x.datapath) for x in (full, half)] == [1.0, 0.5]


@pytest.mark.parametrize(("operand", "digit", "key"), [("W", 1, "one"), ("I", 4, "one"), ("both", 1, "both")])
def test_eight_bits_cost_the_published_multiple_of_a_gated_parallel_mac(datapath, point, operand, digit, key):
    # As many units as steps keep the throughput; then an operation is the energy of a busy lane, over the parallel one.
    steps = {"both": 64.0}.get(operand, 8.0 / digit)
    chip = serial(operand, float(digit), steps, CAMUS_8B[key, digit])
    found = bit_serial.effect(chip, datapath(8), point(8.0, 8.0))
    assert float(found.cycles) == 1.0
    assert float(found.executed * found.datapath) == pytest.approx(CAMUS_8B[key, digit])


def test_fewer_units_are_slower_at_the_same_energy(datapath, point):
    fast, slow = (bit_serial.effect(serial("W", 1.0, n), datapath(8), point(6.0, 8.0)) for n in (8.0, 2.0))
    assert float(slow.cycles) == 4 * float(fast.cycles)
    assert float(slow.executed * slow.datapath) == pytest.approx(float(fast.executed * fast.datapath))


def test_only_the_parallel_operand_gates_low_bits(datapath):
    assert [float(x) for x in bit_serial.array_bits(serial("W"), datapath(8), jnp.array(3.0), jnp.array(5.0))] == [8, 5]
    assert [float(x) for x in bit_serial.array_bits(serial("I"), datapath(8), jnp.array(3.0), jnp.array(5.0))] == [3, 8]
    both = bit_serial.array_bits(serial("both"), datapath(8), jnp.array(3.0), jnp.array(5.0))
    assert [float(x) for x in both] == [8, 8]


def test_gradients_are_those_of_the_straight_law(datapath, point, gradients):
    def energy(w, i, units, ratio):
        chip = dataclasses.replace(serial("both", 4.0), units=units, energy_ratio=ratio)
        found = bit_serial.effect(chip, datapath(16), point(w, i))
        return found.cycles * 1.0 + found.executed * found.datapath

    # By hand: steps 2 * 3 of 16; cycles 6 / units, energy ratio * 6 / 16; a bit is a quarter of a step.
    found, slopes = gradients(energy, 8.0, 12.0, 16.0, 3.0)
    by_bits = np.array([3.0 / 4, 2.0 / 4]) * (1 / 16 + 3 / 16)
    assert found[:2] == pytest.approx(by_bits)
    assert found[2:] == pytest.approx([-6 / 16**2, 6 / 16]) and slopes[2:] == pytest.approx(found[2:], rel=1e-6)
