"""What stays on chip, by hand."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from cooptim.mapping.residency import kept_maps, resident_weights
from cooptim.workload import Bounds, Layer, Workload
from cooptim.workload.graph import facts

CHAIN = facts(
    Workload(
        "chain",
        (
            Layer("a", "dense", Bounds(K=4, C=2)),
            Layer("b", "dense", Bounds(K=6, C=4), inputs=("a",)),
            Layer("c", "dense", Bounds(K=3, C=6), inputs=("b", "a")),
        ),
    )
)


def test_a_map_lives_from_its_producer_to_its_last_consumer():
    np.testing.assert_array_equal(CHAIN.alive, [[1, 1, 1], [0, 1, 1], [0, 0, 0]])
    np.testing.assert_array_equal(CHAIN.is_output, [False, False, True])


def test_everything_is_kept_where_it_fits():
    kept, held = kept_maps(CHAIN, jnp.array([500.0, 500.0, 500.0]), jnp.array([64.0, 96.0, 48.0]))
    np.testing.assert_allclose(kept, [1, 1, 0])
    np.testing.assert_allclose(held, [64, 160, 160])


def test_a_map_is_kept_at_the_worst_moment_of_its_life():
    # layer 1 has room for 80 of 160 bit, layer 2 for 120: both maps keep one half
    kept, held = kept_maps(CHAIN, jnp.array([500.0, 80.0, 120.0]), jnp.array([64.0, 96.0, 48.0]))
    np.testing.assert_allclose(kept, [0.5, 0.5, 0])
    np.testing.assert_allclose(held, [32, 80, 80])


def test_no_room_keeps_nothing():
    kept, held = kept_maps(CHAIN, jnp.array([500.0, -10.0, 120.0]), jnp.array([64.0, 96.0, 48.0]))
    np.testing.assert_allclose(kept, 0)
    np.testing.assert_allclose(held, 0)


def test_the_most_valuable_bits_stay_first_and_the_last_in_part():
    # values a bit: 1, 3, 2; room for all of the second, half of the third
    share = resident_weights(jnp.array(30.0), jnp.array([50.0, 10.0, 40.0]), jnp.array([50.0, 30.0, 80.0]))
    np.testing.assert_allclose(share, [0, 1, 0.5])


def test_nothing_that_cannot_stay_takes_room():
    share = resident_weights(jnp.array(30.0), jnp.array([0.0, 30.0]), jnp.array([99.0, 1.0]))
    np.testing.assert_allclose(share, [0, 1])


@pytest.mark.parametrize("seed", range(20))
def test_no_choice_of_bits_saves_more_than_the_greedy_one(seed):
    rng = np.random.default_rng(seed)
    size, value = rng.integers(1, 6, 4), rng.integers(1, 20, 4)
    room = int(rng.integers(0, size.sum()))
    share = resident_weights(jnp.array(float(room)), jnp.asarray(size, float), jnp.asarray(value, float))
    best = max(  # all choices of whole bits
        sum(v * b / s for v, b, s in zip(value, bits, size, strict=True))
        for bits in itertools.product(*(range(s + 1) for s in size))
        if sum(bits) <= room
    )
    assert float(share @ size) <= room + 1e-9
    assert float(share @ value) == pytest.approx(best)
