import sys

import pytest

from tests.cli.conftest import run as run  # noqa: F401  the fixture that calls a command in this process

NETS = '''
from flax import nnx
import jax
import jax.numpy as jnp

def _flat(x):
    return x.reshape(x.shape[0], -1)

def dense(rngs):
    return {"w": 0.1 * jax.random.normal(jax.random.key(0), (64, 10))}, lambda params, x: _flat(x) @ params["w"]

def five_outputs(rngs):
    return {"w": jnp.ones((64, 5))}, lambda params, x: _flat(x) @ params["w"]

def maps(rngs):
    numbers = ("NHWC", "HWIO", "NHWC")
    conv = lambda params, x: jax.lax.conv_general_dilated(x, params["w"], (1, 1), "SAME", dimension_numbers=numbers)
    return {"w": jnp.ones((3, 3, 1, 10))}, conv

class ByHand(nnx.Module):
    """A depthwise convolution written as shifted products."""
    def __init__(self, rngs):
        self.taps = nnx.Param(jnp.ones((3, 3, 16)))
        self.conv = nnx.Conv(1, 16, (3, 3), rngs=rngs)
        self.fc = nnx.Linear(16, 10, rngs=rngs)
    def __call__(self, x):
        x = self.conv(x)
        p = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        x = sum(p[:, i:i + 8, j:j + 8] * self.taps[i, j] for i in range(3) for j in range(3))
        return self.fc(x.mean((1, 2)))

def by_hand(rngs):
    return ByHand(rngs)

def until_large(rngs):
    def apply(params, x):
        x = jax.lax.while_loop(lambda x: x.sum() < 1e3, lambda x: x @ params["w"], _flat(x))
        return x @ params["out"]
    return {"w": jnp.ones((64, 64)), "out": jnp.ones((64, 10))}, apply

def solved(rngs):
    apply = lambda params, x: jnp.linalg.solve(params["w"], _flat(x).T).T @ params["out"]
    return {"w": jnp.eye(64), "out": jnp.ones((64, 10))}, apply
'''


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current directory but for a module of networks, `nets`."""
    (tmp_path / "nets.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    yield tmp_path
    for name in ("nets", "own_broken"):
        sys.modules.pop(name, None)


@pytest.fixture
def refused(run, here):  # noqa: F811
    """Runs a command that must be refused; returns its one message, after checking that nothing was written."""

    def call(*argv, progress=0):
        before = {path for path in here.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
        code, out, err = run(*argv)
        assert (code, out) == (2, ""), (code, out, err)
        *stages, message = err.splitlines()
        assert len(stages) <= progress and not [line for line in stages if " steps, " not in line], err
        assert message.startswith(f"cooptim {argv[0]}: ") and "Traceback" not in err, err
        written = {path for path in here.rglob("*") if path.is_file() and "__pycache__" not in path.parts} - before
        whole = {path for path in written if "checkpoints" not in path.parts}
        assert whole == set(), "a refused command left files"
        return message

    return call
