"""The installed jax computes right numbers: some versions did not, silently."""

import pathlib
import tomllib

import jax
import jax.numpy as jnp
import pytest
from packaging.requirements import Requirement
from packaging.version import Version

pytestmark = pytest.mark.optimized
ROOT = pathlib.Path(__file__).resolve().parents[1]


@pytest.mark.float32
def test_vmapped_matvec_and_reduction_over_32769_rows_is_exact_in_float32():
    # Row i is (i, 0, 0), the matrix the identity: the sum of squares of row 32,768 is 2^30, exact in float32.
    assert _last_sum_of_squares(32_769, jnp.float32) == 1_073_741_824  # 0.10.2 gives 1,065,369,600 or 1,071,645,696


def test_vmapped_matvec_and_reduction_over_16385_rows_is_exact_in_float64():
    assert _last_sum_of_squares(16_385, jnp.float64) == 268_435_456  # 2^28; 0.10.2 gives 267,911,424


def _last_sum_of_squares(rows, dtype):
    """Last of `rows` sums of squares of an identity product; source of the case: jax-ml/jax#39103."""
    counts = jnp.arange(rows, dtype=dtype)
    points = jnp.stack((counts, jnp.zeros_like(counts), jnp.zeros_like(counts)), axis=1)
    identity = jnp.eye(3, dtype=dtype)
    return float(jax.jit(jax.vmap(lambda row: jnp.sum((identity @ row) ** 2)))(points)[-1])


def test_versions_with_wrong_numbers_are_excluded():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    jax_range = next(Requirement(line).specifier for line in declared if Requirement(line).name == "jax")
    assert [v for v in ("0.10.0", "0.10.2", "0.11.0") if v in jax_range] == []
    assert [v for v in ("0.10.1", "0.12.0", "0.12.0.1") if v not in jax_range] == []
    assert Version(jax.__version__) in jax_range
