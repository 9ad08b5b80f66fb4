"""A network without a design, or under one too wide to change it, is the original to the last bit."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from cooptim.network import examples, trace
from tests.network.cases import Recurrent, design, equal_bits, normal

pytestmark = pytest.mark.float32


class Attention(nnx.Module):
    """One transformer block under remat."""

    def __init__(self, rngs):
        self.attend = nnx.MultiHeadAttention(2, 8, decode=False, dropout_rate=0.1, rngs=rngs)
        self.norm = nnx.LayerNorm(8, rngs=rngs)
        self.up, self.down = nnx.Linear(8, 16, rngs=rngs), nnx.Linear(16, 8, rngs=rngs)

    def __call__(self, x):
        x = self.norm(x + self.attend(x))
        return x + self.down(jax.checkpoint(lambda h: nnx.gelu(self.up(h)))(x))


class Separable(nnx.Module):
    """Depthwise and pointwise convolutions with normalization, a residual and a concatenation."""

    def __init__(self, rngs):
        self.dw = nnx.Conv(4, 4, (3, 3), feature_group_count=4, use_bias=False, rngs=rngs)
        self.pw = nnx.Conv(4, 4, (1, 1), use_bias=False, rngs=rngs)
        self.dw_norm, self.pw_norm = nnx.BatchNorm(4, rngs=rngs), nnx.BatchNorm(4, rngs=rngs)
        self.head = nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, x):
        y = x + self.pw_norm(self.pw(nnx.relu(self.dw_norm(self.dw(x)))))
        return self.head(jnp.concatenate([x, nnx.relu(y)], axis=-1).mean((1, 2)))


def models():
    shapes = {"digits_cnn": (8, 8, 8, 1), "lenet5": (4, 28, 28, 1)}
    for name, shape in shapes.items():
        yield pytest.param(getattr(examples, name), shape, id=name)
    yield pytest.param(Separable, (4, 6, 6, 4), id="separable")
    yield pytest.param(Recurrent, (4, 6, 5), id="lstm")
    yield pytest.param(Attention, (4, 6, 8), id="attention")


def original(model, train):
    graph, params, rest = nnx.split(model, nnx.Param, ...)

    def run(params, rest, x):
        module = nnx.merge(graph, params, rest, copy=True)
        module.train() if train else module.eval()
        return module(x), nnx.to_pure_dict(nnx.split(module, nnx.Param, ...)[2])

    return run, params, rest


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize(("factory", "shape"), models())
def test_untouched_network_equals_the_original_to_the_last_bit(factory, shape, train):
    model, x = factory(nnx.Rngs(0)), normal(1, *shape)
    run, params, rest = original(model, train)
    expected = jax.jit(run)(params, rest, x)
    net = trace(model, x)
    layers = len(net.layer_names)
    wide = design(layers, weight_bits=32.0, input_bits=64.0)
    some = (*net.layer_names[:-1], net.layer_names[-1] + "/W")  # the last input at 32 bits, all else off
    for knobs, off in ((None, ()), (wide, ()) if train else (wide, some)):
        found = jax.jit(lambda p, s, x, k=knobs, o=off: net.apply(p, s, x, k, train=train, off=o)[:2])(
            net.params, net.state, x
        )
        assert equal_bits(found, expected), off
    if not train:
        return
    before = jax.jit(jax.grad(lambda p: jnp.mean(run(p, rest, x)[0] ** 2)))(params)
    after = jax.jit(jax.grad(lambda p: jnp.mean(net.apply(p, net.state, x, wide, train=True)[0] ** 2)))(net.params)
    for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        assert float(jnp.max(jnp.abs(a - b))) <= 1e-6 * float(jnp.max(jnp.abs(a)))
