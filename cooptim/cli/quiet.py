"""What only a program of its own may do: silence other people's logs, keep compiled programs between runs."""

import logging
import os
import pathlib
import sys
import warnings
from typing import Any


def set_up() -> None:
    """Sets the process up before jax is imported: quiet logs, warnings of this package only, compilation cache."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # warm loads of the cache log machine features on jax 0.10.1
    for name in ("absl", "jax", "orbax", "flax"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    warnings.showwarning = _show
    import jax

    jax.config.update("jax_compilation_cache_dir", str(cache_directory()))
    # The defaults skip most kernels of a CPU, which are quick to compile one by one and slow all together.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


def cache_directory() -> pathlib.Path:
    """Where compiled programs are kept: the user's cache directory."""
    base = os.environ.get("XDG_CACHE_HOME") or str(pathlib.Path.home() / ".cache")
    return pathlib.Path(base) / "cooptim" / "jax"


def _show(message: Warning | str, category: type[Warning], filename: str, *_: Any, **__: Any) -> None:
    """Prints a warning of this package as one line; drops those of others."""
    if "cooptim" in pathlib.Path(filename).parts and issubclass(category, UserWarning):
        print(f"cooptim: {message}", file=sys.stderr)
