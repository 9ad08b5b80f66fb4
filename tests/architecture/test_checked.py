"""The checks of the test run themselves: wrong shapes, dtypes and types are caught, in functions of both kinds."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from beartype.roar import BeartypeCallHintParamViolation
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree, TypeCheckError

from cooptim.data.batches import steps_per_epoch
from cooptim.relax.bit_errors import late_sum
from tests.checked import speaks_of_arrays


@pytest.mark.parametrize(
    "hint",
    [
        Float[Array, "n"],
        Int[np.ndarray, ""] | None,
        dict[str, tuple[Float[Array, "*n"], ...]],
        Callable[[Float[Array, "n"]], float],
        Callable[[int], Float[Array, "n"]],
        PRNGKeyArray,
        PyTree[Float[Array, "..."]],
        "Float[Array, 'n']",
    ],
)
def test_hints_of_arrays_are_found_wherever_they_stand(hint):
    assert speaks_of_arrays(hint)


@pytest.mark.parametrize("hint", [int, float | None, dict[str, tuple[int, ...]], Callable[[int], str], Array, None])
def test_other_hints_speak_of_no_array(hint):
    assert not speaks_of_arrays(hint)


def test_shapes_that_do_not_fit_and_dtypes_are_caught():
    total, key = jnp.ones(3), jax.random.key(0)
    late_sum(total, jnp.ones(3), 0.1, key)
    with pytest.raises(TypeCheckError):
        late_sum(total, jnp.ones(4), 0.1, key)
    with pytest.raises(TypeCheckError):
        late_sum(total.astype(int), jnp.ones(3), 0.1, key)


def test_plain_types_are_caught_where_no_array_is_spoken_of():
    assert steps_per_epoch(10, 5) == 2
    with pytest.raises(BeartypeCallHintParamViolation):
        steps_per_epoch("ten", 5)
