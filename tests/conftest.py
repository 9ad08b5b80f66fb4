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

from tests import checked, compiling

checked.install()  # before anything imports cooptim

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
    yield
    jax.config.update("jax_enable_x64", True)  # as fixtures of modules and sessions, set up before this one, are made


@pytest.fixture(autouse=True, scope="session")
def _compiling():
    compiling.install()
    compiling.few_optimizations("small")


@pytest.fixture(autouse=True)
def _optimizations(request):
    """Few for small programs; in tests marked `unoptimized` for all, in tests marked `optimized` for none."""
    asked = [name for name in ("optimized", "unoptimized") if request.node.get_closest_marker(name)]
    compiling.few_optimizations({"optimized": "none", "unoptimized": "all"}[asked[0]] if asked else "small")
    yield
    compiling.few_optimizations("small")


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
