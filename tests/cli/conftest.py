import logging
import warnings

import pytest

from cooptim.cli import main


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs a command in this process with 120 columns; returns (exit code, stdout, stderr)."""
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr("cooptim.cli.quiet.cache_directory", lambda: __import__("jax").config.jax_compilation_cache_dir)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # put back at the end
    levels = {name: logging.getLogger(name).level for name in ("absl", "jax", "orbax", "flax")}

    def call(*argv):
        code = main([str(part) for part in argv])
        return code, *capsys.readouterr()

    yield call
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
