"""Errors against supply: tenfolds by hand, saturation, slack and overclocking, replays, gradients."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from cooptim.hardware.mechanisms import error_prone_supply
from cooptim.hardware.mechanisms.error_prone_supply import (
    ErrorProneSupply,
    bit_error_rate,
    lowest_supply_v,
    replay_share,
    timing_error_rate,
    wrong_result_rate,
)

NUMBERS = {
    "floor_v": 0.5, "safe_v": 0.8, "safe_rate": 1e-6, "decades_per_v": 20.0, "tolerated_rate": 0.1,
    "detected_share": 0.75, "replay_cycles": 4.0, "memory_safe_v": 0.7, "memory_safe_rate": 1e-8,
    "memory_decades_per_v": 30.0,
}  # fmt: skip


@pytest.fixture
def chip():
    return ErrorProneSupply(**{name: jnp.array(value) for name, value in NUMBERS.items()})


def test_a_tenth_of_a_volt_makes_two_tenfolds(chip):
    assert float(timing_error_rate(chip, 0.8)) == pytest.approx(1e-6, rel=1e-6)
    assert float(timing_error_rate(chip, 0.7)) == pytest.approx(1e-4, rel=1e-4)
    assert float(timing_error_rate(chip, 0.9)) == pytest.approx(1e-8, rel=1e-6)
    assert float(bit_error_rate(chip, 0.6)) == pytest.approx(1e-5, rel=1e-4)


def test_rates_end_where_all_is_late_and_bits_are_random(chip):
    assert float(timing_error_rate(chip, 0.3)) == pytest.approx(1.0)
    assert float(bit_error_rate(chip, 0.3)) == pytest.approx(0.5)
    # One event expected in an operation: none with the chance 1/e.
    assert float(timing_error_rate(chip, 0.5)) == pytest.approx(1 - np.exp(-1))


def test_a_volt_in_hand_counts_like_a_volt_more(chip):
    law = float(timing_error_rate(chip, 0.7))
    assert float(timing_error_rate(chip, 0.7, 0.7)) == law
    assert float(timing_error_rate(chip, 0.7, 0.65)) == pytest.approx(float(timing_error_rate(chip, 0.75)))
    assert float(timing_error_rate(chip, 0.7, 0.75)) == pytest.approx(float(timing_error_rate(chip, 0.65)))


def test_late_operations_are_replayed_or_wrong(chip):
    late = float(timing_error_rate(chip, 0.6))
    assert float(wrong_result_rate(chip, 0.6)) == pytest.approx(late / 4)
    assert float(replay_share(chip, 0.6)) == pytest.approx(0.75 * late * 4)


def test_the_lowest_supply_has_the_tolerated_rate(chip):
    lowest = float(lowest_supply_v(chip))
    assert 0.5 < lowest < 0.8
    assert float(wrong_result_rate(chip, lowest)) == pytest.approx(0.1, rel=1e-9)
    for change in ({"detected_share": 1.0}, {"tolerated_rate": 1.0}):  # all is noticed, all is stood
        free = dataclasses.replace(chip, **{name: jnp.array(value) for name, value in change.items()})
        assert float(lowest_supply_v(free)) == 0.5


def test_errors_only_grow_as_the_supply_falls(chip):
    volts = jnp.linspace(1.0, 0.5, 51)
    for rate in (timing_error_rate, bit_error_rate, wrong_result_rate, replay_share):
        assert np.all(np.diff(np.asarray(rate(chip, volts))) > 0)


def test_replays_keep_the_array_busy(chip, datapath, point):
    found = error_prone_supply.effect(chip, datapath(16), point(16.0, 16.0, supply_v=0.6))
    more = 1 + 0.75 * 4 * (1 - np.exp(-(10.0 ** (20 * 0.2 - 6))))
    assert float(found.cycles) == pytest.approx(more) and float(found.executed) == pytest.approx(more)


def test_gradients_are_those_of_differences(chip, gradients):
    def late(supply_v, needed_v, safe_v, safe_rate, decades_per_v):
        own = dataclasses.replace(chip, safe_v=safe_v, safe_rate=safe_rate, decades_per_v=decades_per_v)
        return timing_error_rate(own, supply_v, needed_v)

    found, slopes = gradients(late, 0.62, 0.6, 0.8, 1e-3, 20.0)
    assert np.all(np.abs(slopes) > 1e-4) and found == pytest.approx(slopes, rel=1e-5)
    found, slopes = gradients(lambda v: bit_error_rate(chip, v), 0.5)
    assert slopes[0] < -1e-3 and found == pytest.approx(slopes, rel=1e-5)
    assert found[0] == pytest.approx(-np.log(10) * 30 * 1e-2 * np.exp(-2e-2))

    def replayed(supply_v, detected_share, replay_cycles):
        own = dataclasses.replace(chip, detected_share=detected_share, replay_cycles=replay_cycles)
        return replay_share(own, supply_v)

    found, slopes = gradients(replayed, 0.55, 0.75, 4.0)
    assert np.all(np.abs(slopes) > 1e-4) and found == pytest.approx(slopes, rel=1e-5)
