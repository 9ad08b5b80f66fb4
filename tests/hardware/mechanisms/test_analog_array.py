"""Crossbars: columns, reads and conversions by hand, converters as published, noise by a simulation of the cells."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cooptim.hardware.mechanisms import analog_array
from cooptim.hardware.mechanisms.analog_array import (
    AnalogArray,
    column_bits,
    conversion_pj,
    empty_rows_factor,
    input_reads,
    mac_pj,
    noise_std,
    noisy_weights,
    weight_cells,
)

NUMBERS = {
    "rows": 128.0, "cols": 128.0, "cell_bits": 2.0, "dac_bits": 1.0, "adc_bits": 8.0, "adc_linear_pj": 0.194,
    "adc_exponential_pj": 4.2e-4, "dac_drive_pj": 0.4, "cell_read_pj": 0.002, "noise": 0.05,
}  # fmt: skip


@pytest.fixture
def array():
    return AnalogArray(**{name: jnp.array(value) for name, value in NUMBERS.items()})


def test_columns_and_reads_by_hand(array):
    assert weight_cells(array, jnp.array([16.0, 5.0, 4.0, 1.0])).tolist() == [8, 3, 2, 1]
    assert input_reads(array, jnp.array([16.0, 5.0])).tolist() == [16, 5]
    assert input_reads(dataclasses.replace(array, dac_bits=jnp.array(4.0)), jnp.array([16.0, 5.0])).tolist() == [4, 2]


@pytest.mark.parametrize("rows", [1, 16, 100, 128, 1024])
@pytest.mark.parametrize(("cell", "dac"), [(1, 1), (2, 1), (1, 3), (2, 2), (4, 3)])
def test_an_adc_tells_all_sums_of_its_column_apart(rows, cell, dac):
    sums = 1 + rows * (2**cell - 1) * (2**dac - 1)  # with zero
    bits = column_bits(rows, cell, dac, False)
    assert 2**bits >= sums > 2 ** (bits - 1)
    assert column_bits(rows, cell, dac, True) == bits - 1


def test_the_rule_for_adcs_is_that_of_isaac():
    # 128 rows, 2-bit cells, 1-bit DACs: 9 bit, 8 with the encoding.
    assert (column_bits(128, 2, 1, False), column_bits(128, 2, 1, True)) == (9, 8)
    for cell, dac in ((1, 1), (2, 1), (1, 2), (2, 2), (3, 2)):
        expected = math.log2(128) + cell + dac - (1 if min(cell, dac) == 1 else 0)
        assert column_bits(128, cell, dac, False) == expected


def test_conversions_cost_what_the_scaled_adc_of_isaac_costs(array):
    # Energies at 4 to 10 bit in hwcomponents-library (Accelergy), ISAAC's ADC scaled after Saberi et al. 2011.
    listed = {4: 0.79, 5: 0.99, 6: 1.20, 7: 1.42, 8: 1.67, 9: 1.969078145, 10: 2.379022742}
    found = [float(conversion_pj(array, float(bits))) for bits in listed]
    assert found == pytest.approx(list(listed.values()), rel=0.01)


def test_a_product_of_16_bit_by_hand(array):
    # 16 reads of 8 cells; 128 columns share a row's DAC, 128 rows a conversion of 8 bit.
    conversion = 0.194 * 8 + 4.2e-4 * 256
    by_hand = 16 * 8 * (0.002 + 0.4 / 128 + conversion / 128)
    assert float(mac_pj(array, 16.0, 16.0)) == pytest.approx(by_hand)
    # An output of 32 products fills a quarter of the rows: four times the conversions for each.
    quarter = 16 * 8 * (0.002 + 0.4 / 128 + 4 * conversion / 128)
    assert float(mac_pj(array, 16.0, 16.0, 32.0)) == pytest.approx(quarter)


def test_rows_that_hold_nothing_are_read_too(array):
    found = empty_rows_factor(array, jnp.array([128.0, 129.0, 64.0, 256.0]))
    assert found.tolist() == pytest.approx([1.0, 256 / 129, 2.0, 1.0])


def test_the_effect_is_that_of_the_reference_at_full_width_and_full_rows(array, datapath, point):
    full = analog_array.effect(array, datapath(16), point(16.0, 16.0, C=128))
    assert [float(full.cycles), float(full.executed * full.datapath)] == pytest.approx([1.0, 1.0])
    assert full.fetches_w == 0.0 and full.gated_w == full.gated_i == 0.0
    # 4-bit weights take 2 of 8 columns, 8-bit inputs 8 of 16 reads.
    narrow = analog_array.effect(array, datapath(16), point(4.0, 8.0, C=128))
    assert [float(narrow.cycles), float(narrow.executed * narrow.datapath)] == pytest.approx([1 / 8, 1 / 8])
    half = analog_array.effect(array, datapath(16), point(16.0, 16.0, C=16, FY=2, FX=2))
    assert float(half.cycles) == pytest.approx(2.0)


def test_noise_is_that_of_cells_each_off_by_its_own_deviate(array):
    # Cells simulated one by one in plain numpy: offset binary, radix 4, deviates of 5 % of a full cell (3 levels).
    rng = np.random.default_rng(3)
    weights, step = rng.integers(-128, 128, 4000), 0.01
    stored = weights + 128
    cells = np.stack([stored // 4**j % 4 for j in range(4)])
    read = cells + 0.05 * 3 * rng.standard_normal(cells.shape)
    simulated = (np.tensordot(4.0 ** np.arange(4), read, 1) - 128) * step - weights * step
    expected = float(noise_std(array, step, 8.0))
    assert simulated.std() == pytest.approx(expected, rel=4 / np.sqrt(2 * 4000))
    drawn = np.asarray(noisy_weights(jax.random.key(0), jnp.asarray(weights * step), array, step, 8.0)) - weights * step
    assert drawn.std() == pytest.approx(expected, rel=4 / np.sqrt(2 * 4000))
    assert abs(drawn.mean()) < 4 * expected / np.sqrt(4000)
    assert abs(np.corrcoef(drawn, weights)[0, 1]) < 4 / np.sqrt(4000)


def test_noise_is_one_draw_of_its_key_and_none_without_deviation(array):
    weights = jnp.linspace(-1, 1, 7)
    one, again, other = (noisy_weights(jax.random.key(k), weights, array, 0.1, 4.0) for k in (1, 1, 2))
    assert np.array_equal(one, again) and not np.array_equal(one, other)
    quiet = dataclasses.replace(array, noise=jnp.array(0.0))
    assert np.array_equal(noisy_weights(jax.random.key(1), weights, quiet, 0.1, 4.0), weights)


def test_noise_has_gradients_in_weights_and_deviation(array):
    def spread(noise, shift):
        own = dataclasses.replace(array, noise=noise)
        return jnp.sum(noisy_weights(jax.random.key(1), jnp.zeros(5) + shift, own, 0.1, 4.0))

    by_noise, by_weight = jax.grad(spread, argnums=(0, 1))(0.05, 0.0)
    # The sum is linear in the deviation; each weight passes on whole.
    assert float(by_noise) == pytest.approx(float(spread(1.0, 0.0)), rel=1e-9) and float(by_weight) == 5.0


def test_gradients_are_those_of_differences(array, gradients):
    names = ("rows", "cols", "adc_bits", "adc_linear_pj", "adc_exponential_pj", "dac_drive_pj", "cell_read_pj")
    at = [NUMBERS[name] for name in names]

    def energy(*values):
        return mac_pj(dataclasses.replace(array, **dict(zip(names, values, strict=True))), 16.0, 16.0)

    found, slopes = gradients(energy, *at)
    assert np.all(np.abs(slopes) > 1e-4) and found == pytest.approx(slopes, rel=1e-5)
    # Straight-through in the widths: a bit is half a column of 2-bit cells, or a read of 16.
    by_bits, _ = gradients(lambda w, i: mac_pj(array, w, i), 16.0, 16.0)
    assert by_bits == pytest.approx([float(mac_pj(array, 16.0, 16.0)) / 16] * 2)


def test_energy_grows_with_every_width_and_with_the_adc(array):
    widths = jnp.linspace(1.0, 16.0, 16)
    for rising in (mac_pj(array, widths, 8.0), mac_pj(array, 8.0, widths), conversion_pj(array, widths)):
        assert np.all(np.diff(np.asarray(rising)) >= 0)
