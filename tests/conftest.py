"""Set-up of the test run: float64, shape and type checks of the whole package, a persistent compilation cache."""

import gc
import getpass
import os
import pathlib
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # warm loads of the compilation cache log machine features
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import pytest

from tests.checked import install

install()  # before anything imports cooptim

gc.set_threshold(20_000, 20, 20)  # by default a twentieth of the time of tests goes into looking for cycles

ROOT = pathlib.Path(__file__).resolve().parents[1]

jax.config.update("jax_enable_x64", True)
_CACHE = pathlib.Path(tempfile.gettempdir()) / f"cooptim-tests-{getpass.getuser()}"
jax.config.update("jax_compilation_cache_dir", str(_CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


@pytest.fixture(autouse=True)
def _precision(request):
    """float64 everywhere; tests marked `float32` run as a user's program does."""
    wide = request.node.get_closest_marker("float32") is None
    jax.config.update("jax_enable_x64", wide)
    jax.config.update("jax_disable_most_optimizations", request.node.get_closest_marker("unoptimized") is not None)
    yield
    jax.config.update("jax_enable_x64", True)  # as fixtures of modules and sessions, set up before this one, are made
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="session")
def root() -> pathlib.Path:
    """Root of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> pathlib.Path:
    """Reference data beside the checkout, in the nearest folder `shared` up the tree; skips without it."""
    for parent in ROOT.parents:
        if (parent / "shared" / "reference").is_dir():
            return parent / "shared"
    pytest.skip("no folder 'shared' with reference data beside the checkout")
