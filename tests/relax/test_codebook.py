"""Tables of shared weights: clusters by hand and by a slow oracle, gradients by the sums that they promise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cooptim.relax.codebook import clustered, entry_unit, fixed_point, labels, nonzero_share, shared, table_of
from cooptim.relax.mask import density


def test_clusters_by_hand():
    # Linear start 0, 5, 10: {0, 1}, {}, {9, 10, 11}; the middle one is empty and stays; 11 pulls the end to 10.
    np.testing.assert_allclose(clustered(np.array([0.0, 1.0, 9.0, 10.0]), 2), [0.5, 9.5])
    np.testing.assert_allclose(clustered(np.array([11.0, 0.0, 10.0, 1.0, 9.0]), 3), [0.5, 5.5, 10.0])
    np.testing.assert_allclose(clustered(np.array([3.0, 3.0]), 2), [3.0, 3.0])
    np.testing.assert_allclose(clustered(np.array([0.0, 4.0, 10.0]), 3), [0.0, 4.0, 10.0])  # one value is a mean too


def test_clusters_are_those_of_plain_lloyd():
    values = np.random.default_rng(0).normal(size=400) ** 3
    centres = np.linspace(values.min(), values.max(), 7)
    for _ in range(200):
        nearest = np.abs(values[:, None] - centres).argmin(1)
        centres = np.array([values[nearest == k].mean() if np.any(nearest == k) else centres[k] for k in range(7)])
    np.testing.assert_allclose(clustered(values, 7, rounds=200), centres, atol=1e-12)


def test_a_table_has_a_zero_where_the_weights_have_one():
    pruned = table_of(np.array([0.0, -1.0, 2.0, 3.0]), 2)
    np.testing.assert_allclose(pruned, [0.0, -1.0, 2.0, 3.0])
    np.testing.assert_allclose(table_of(np.array([-1.0, 2.0]), 1), [-1.0, 2.0])
    np.testing.assert_array_equal(table_of(np.zeros(3), 1), [0.0, 0.0])


@pytest.mark.parametrize("entries", [5, 64])  # compared with all thresholds, and searched
def test_every_weight_takes_its_nearest_entry_whatever_the_order_of_the_table(entries):
    rng = np.random.default_rng(1)
    w, table = rng.normal(size=(30, 7)), rng.permutation(rng.normal(size=entries))
    nearest = np.abs(w[..., None] - table).argmin(-1)
    np.testing.assert_array_equal(labels(jnp.asarray(w), jnp.asarray(table)), nearest)
    np.testing.assert_array_equal(shared(jnp.asarray(w), jnp.asarray(table)), table[nearest])


def test_a_weight_half_way_takes_the_smaller_entry():
    assert np.asarray(shared(jnp.asarray([1.0, -1.0]), jnp.asarray([2.0, 0.0, -2.0]))).tolist() == [0.0, -2.0]


def test_entries_get_the_sum_of_their_weights_gradients_and_zero_stays():
    w, table = jnp.asarray([0.1, 0.9, 1.2, -2.0, -0.1]), jnp.asarray([1.0, 0.0, -1.5])
    pull = jnp.asarray([1.0, 10.0, 100.0, 1000.0, 10000.0])
    d_w, d_table = jax.grad(lambda w, t: jnp.vdot(pull, shared(w, t)), argnums=(0, 1))(w, table)
    np.testing.assert_array_equal(d_w, pull)
    np.testing.assert_array_equal(d_table, [110.0, 0.0, 1000.0])


def test_values_in_fixed_point_by_hand():
    table = jnp.asarray([0.0, -1.1, 0.7, 2.1])
    step, range_ = entry_unit(table, 4)  # 7 steps of 0.3
    assert float(step) == pytest.approx(0.3) and float(range_) == 2.1
    np.testing.assert_allclose(fixed_point(table, step), [0.0, -1.2, 0.6, 2.1])
    np.testing.assert_allclose(fixed_point(fixed_point(table, step), step), [0.0, -1.2, 0.6, 2.1])
    # What is nearer to 0 than half a step stays one step away from it, or it would learn no more.
    np.testing.assert_allclose(fixed_point(jnp.asarray([0.01, -0.14, 0.0]), step), [0.3, -0.3, 0.0])
    np.testing.assert_array_equal(fixed_point(jnp.zeros(2), jnp.zeros(())), [0.0, 0.0])
    step, range_ = entry_unit(table, 16)
    assert float(range_ / step) == pytest.approx(2**15 - 1)


def test_rounding_of_a_table_passes_the_whole_gradient_to_its_entries_and_none_to_the_step():
    table = jnp.asarray([0.0, -1.1, 0.7, 2.1])
    pull = jnp.asarray([1.0, 10.0, 100.0, 1000.0])
    slope = jax.grad(lambda t: jnp.vdot(pull, fixed_point(t, entry_unit(t, 4)[0])))(table)
    np.testing.assert_array_equal(slope, pull)
    for unit in (0, 1):
        assert not jax.grad(lambda t, unit=unit: entry_unit(t, 4)[unit])(table).any()


def test_a_threshold_above_half_the_least_value_counts_and_has_the_slope():
    w, table = jnp.asarray([0.2, -0.6, 1.4, 0.0, -0.9, 0.7]), jnp.asarray([0.0, 1.0, -1.0])
    # Nearest to 0: 0.2 and 0; up to 0.65 there is -0.6 as well.
    for threshold, left in ((0.0, 4), (0.3, 4), (0.65, 3)):
        share, slopes = jax.value_and_grad(nonzero_share, argnums=(0, 2))(w, table, jnp.asarray(threshold))
        assert float(share) == left / 6
        smooth = jax.grad(density, argnums=(0, 1))(w, jnp.asarray(max(threshold, 0.5)))
        np.testing.assert_allclose(slopes[0], smooth[0])
        np.testing.assert_allclose(slopes[1], smooth[1] if threshold > 0.5 else 0.0)
        assert threshold < 0.5 or float(slopes[1]) < 0


@pytest.mark.parametrize(
    ("w", "bits", "said"),
    [
        (np.ones(3), 0, "codebook: 0 label bits; legal are whole numbers from 1 to 8"),
        (np.ones(3), 9, "codebook: 9 label bits"),
        (np.array([1.0, np.nan]), 2, "codebook: a weight is not finite"),
        (np.zeros(0), 2, "clusters: 0 values"),
    ],
)
def test_what_no_table_can_be_made_of_is_refused(w, bits, said):
    with pytest.raises(ValueError, match=said):
        table_of(w, bits) if w.size else clustered(w, 2)
