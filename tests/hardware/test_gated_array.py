"""The zero-gating array by hand arithmetic, its link against an encoder, its gradients against differences."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cooptim.hardware.gated_array import (
    GatedArray,
    at_supply,
    coded_bits_per_word,
    energy_pj,
    power_mw,
    processing_ns,
    total_ns,
)

NUMBERS = {
    "supply_v": 1.0, "clock_ghz": 0.5, "threshold_v": 0.4, "alpha": 2.0, "always_on_mw": 100.0, "busy_mac_pj": 2.0,
    "zero_mac_pj": 0.5, "cycles_per_mac": 1.25, "buffer_bit_per_ns": 32.0, "link_bit_per_ns": 4.0,
    "code_bits_per_value": 64 / 3,
}  # fmt: skip
ARRAY = GatedArray(
    name="hand", rows=2, cols=5, word_bits=16, **{name: jnp.asarray(value) for name, value in NUMBERS.items()}
)


def test_power_adds_what_always_runs_busy_and_gated_macs():
    # 1000 MACs in 10 ns, a quarter gated: 100 mW + (750 * 2 + 250 * 0.5) pJ / 10 ns.
    assert float(power_mw(ARRAY, 1000.0, 0.25, 10.0)) == pytest.approx(262.5)
    assert float(energy_pj(ARRAY, 1000.0, 0.25, 10.0)) == pytest.approx(2625.0)


def test_processing_takes_as_long_as_the_busier_of_macs_and_buffer():
    # 1000 MACs on 8 units at 0.5 GHz and 1.25 cycles each: 312.5 ns; the buffer moves 10,000 bits in that time.
    found = processing_ns(ARRAY, 1000.0, 8.0, np.array([0.0, 9_999.0, 10_000.0, 16_000.0]))
    assert found.tolist() == pytest.approx([312.5, 312.5, 312.5, 500.0])


def test_link_traffic_comes_on_top():
    assert float(total_ns(ARRAY, 312.5, 400.0)) == pytest.approx(412.5)


def test_another_supply_scales_energy_with_its_square_and_time_with_the_gates_speed():
    # (0.8 - 0.4)^2 / 0.8 over 0.6^2 / 1 = 0.2 / 0.36 = 5/9 of the clock, 0.64 of the energy.
    low = at_supply(ARRAY, 0.8)
    assert float(low.clock_ghz) == pytest.approx(0.5 * 5 / 9)
    assert [float(low.busy_mac_pj), float(low.zero_mac_pj)] == pytest.approx([1.28, 0.32])
    assert float(low.always_on_mw) == pytest.approx(100 * 0.64 * 5 / 9)
    time, slow = (float(total_ns(one, processing_ns(one, 1e3, 8.0, 16e3), 400.0)) for one in (ARRAY, low))
    assert slow == pytest.approx(time * 9 / 5)
    # On one rail without leakage the energy of the same work falls with V^2 whatever the clock.
    assert float(energy_pj(low, 1e3, 0.3, slow)) == pytest.approx(0.64 * float(energy_pj(ARRAY, 1e3, 0.3, time)))
    assert jax.tree_util.tree_all(jax.tree_util.tree_map(lambda a, b: jnp.allclose(a, b), at_supply(ARRAY, 1.0), ARRAY))


def encoded_bits(words, longest_run=31, word_bits=64, pairs=3):
    """Bits of a run-length code: (zeros before it, value) pairs, three in a word of 64 bits."""
    count, run = 0, 0
    for word in words:
        if word == 0 and run < longest_run:
            run += 1
        else:
            count, run = count + 1, 0
    count += run > 0
    return -(-count // pairs) * word_bits


@pytest.mark.parametrize("clustered", [False, True])
@pytest.mark.parametrize("zeros", [0.3, 0.6, 0.9, 0.99])
def test_no_run_length_code_takes_fewer_bits_than_the_floor(zeros, clustered):
    words = (np.random.default_rng(3).random(6000) >= zeros).astype(int)
    words = np.sort(words) if clustered else words
    floor = float(coded_bits_per_word(ARRAY, float(np.mean(words == 0)))) * words.size
    assert floor <= min(encoded_bits(words), 16 * words.size) + 1e-6


def test_coded_words_are_raw_where_that_is_shorter():
    assert coded_bits_per_word(ARRAY, np.array([0.0, 0.25, 0.5, 1.0])).tolist() == pytest.approx([16, 16, 32 / 3, 0])


@pytest.mark.parametrize("name", [*NUMBERS, "macs", "zeros", "units", "buffer_bits", "link_bits", "volts"])
@pytest.mark.parametrize("buffer_bits", [2e3, 5e4])
def test_gradients_of_power_and_time_are_those_of_differences(name, buffer_bits):
    start = NUMBERS | {
        "macs": 1e3, "zeros": 0.3, "units": 8.0, "buffer_bits": buffer_bits, "link_bits": 300.0, "volts": 0.9,
    }  # fmt: skip

    def both(value):
        x = start | {name: value}
        chip = dataclasses.replace(ARRAY, **{key: jnp.asarray(x[key]) for key in NUMBERS})
        chip = at_supply(chip, x["volts"])
        time = total_ns(chip, processing_ns(chip, x["macs"], x["units"], x["buffer_bits"]), x["link_bits"])
        return jnp.stack([time, power_mw(chip, x["macs"], x["zeros"], time), coded_bits_per_word(chip, x["zeros"])])

    step = 1e-5 * start[name]
    slope = np.asarray((both(start[name] + step) - both(start[name] - step)) / (2 * step))
    assert np.asarray(jax.jacfwd(both)(start[name])) == pytest.approx(slope, rel=1e-6, abs=1e-7)
    # The resource that is not the busier one moves nothing, energies never move time.
    compute, buffer = {"units", "macs", "cycles_per_mac", "clock_ghz"}, {"buffer_bits", "buffer_bit_per_ns"}
    hidden = compute if buffer_bits > 1e4 else buffer
    energies = {"zeros", "always_on_mw", "busy_mac_pj", "zero_mac_pj", "code_bits_per_value"}
    assert (np.abs(slope[0]) > 0) == (name not in hidden | energies)
