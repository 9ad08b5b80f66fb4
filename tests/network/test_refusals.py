"""What cannot be priced is refused by name; normalization is not mistaken for it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from cooptim.network import UnpriceableError, trace
from tests.network.cases import normal

pytestmark = pytest.mark.float32  # as Flax models run


def test_while_of_unknown_length_is_refused_by_name():
    def fn(p, x):
        return jax.lax.while_loop(lambda h: h.sum() < 3.0, lambda h: h @ p["cell"]["w"], x @ p["stem"])

    with pytest.raises(UnpriceableError, match=r"cell\.w.*while loop.*lax\.scan"):
        trace(fn, {"stem": normal(0, 4, 4), "cell": {"w": normal(1, 4, 4)}}, normal(2, 2, 4))


def test_while_without_multiplies_passes():
    def fn(p, x):
        return jax.lax.while_loop(lambda h: h.sum() < 3.0, lambda h: h + 1.0, x @ p)

    assert trace(fn, normal(0, 4, 4), normal(1, 2, 4)).layer_names == ("params",)


def depthwise_by_shifts(x, w):
    """3x3 depthwise convolution as nine shifted multiply-adds."""
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    rows, cols = x.shape[1:3]
    return sum(padded[:, i : i + rows, j : j + cols] * w[i, j] for i in range(3) for j in range(3))


def test_depthwise_by_shifted_sums_is_refused_by_name():
    def fn(p, x):
        return depthwise_by_shifts(x, p["dw"]["kernel"]).mean((1, 2)) @ p["head"]

    with pytest.raises(UnpriceableError, match=r"dw\.kernel.*by hand, 4608 multiply-accumulates beside 64"):
        trace(fn, {"dw": {"kernel": normal(0, 3, 3, 8)}, "head": normal(1, 8, 8)}, normal(2, 1, 8, 8, 8))


def test_reduce_sum_of_products_is_refused_by_name():
    def fn(p, x):
        return jnp.sum(x[:, :, None] * p["w"], axis=1) @ p["head"]

    with pytest.raises(UnpriceableError, match="w: multiplied with data and summed by hand, 48 "):
        trace(fn, {"w": normal(0, 8, 6), "head": normal(1, 6, 2)}, normal(2, 3, 8))


def test_sum_of_stacked_products_is_refused():
    def fn(p, x):
        return jnp.stack([x[:, :-1] * p["w"][0], x[:, 1:] * p["w"][1]]).sum(0) @ p["head"]

    with pytest.raises(UnpriceableError, match="summed by hand"):
        trace(fn, {"w": normal(0, 2), "head": normal(1, 7, 2)}, normal(2, 3, 8))


def test_products_accumulated_by_a_scan_are_refused():
    def fn(p, x):
        def tap(total, item):
            w, i = item
            return total + jax.lax.dynamic_slice_in_dim(x, i, 6, axis=1) * w, None

        total, _ = jax.lax.scan(tap, jnp.zeros((x.shape[0], 6), x.dtype), (p["w"], jnp.arange(3)))
        return total @ p["head"]

    with pytest.raises(UnpriceableError, match="w: multiplied with data and summed by hand, 18 "):
        trace(fn, {"w": normal(0, 3, 6), "head": normal(1, 6, 2)}, normal(2, 3, 8))


def test_small_hand_written_sums_are_let_through():
    def fn(p, x):
        return jnp.sum(x * p["w"], axis=1, keepdims=True) + x @ p["head"]

    assert trace(fn, {"w": normal(0, 8), "head": normal(1, 8, 200)}, normal(2, 3, 8)).workload.macs == 1600


@pytest.mark.parametrize("norm", [nnx.BatchNorm, nnx.LayerNorm, nnx.RMSNorm])
def test_normalization_without_a_rectifier_before_pooling_and_adding_is_no_multiply(norm):
    class Model(nnx.Module):
        def __init__(self, rngs):
            self.a, self.b = (nnx.Conv(4, 4, (1, 1), use_bias=False, rngs=rngs) for _ in range(2))
            self.na, self.nb = norm(4, rngs=rngs), norm(4, rngs=rngs)
            self.again = nnx.LayerNorm(4, rngs=rngs)

        def __call__(self, x):
            both = self.na(self.a(x)) + self.nb(self.b(x))
            pooled = nnx.avg_pool(both, (2, 2), (2, 2)).mean((1, 2))
            return self.again(self.na(self.a(x))).sum((1, 2)) + pooled

    net = trace(Model(nnx.Rngs(0)), normal(0, 2, 4, 4, 4))
    assert net.workload.macs == 2 * 16 * 16 + (16 * 16 if len(net.layer_names) == 3 else 0)


def test_group_norm_passes():
    class Model(linen.Module):
        @linen.compact
        def __call__(self, x):
            return linen.GroupNorm(num_groups=2)(linen.Dense(4)(x)).sum(1)

    x = normal(0, 2, 5, 3)
    model = Model()
    assert trace(model, x, variables=model.init(jax.random.key(0), x)).workload.macs == 60


def test_rotary_position_tables_pass():
    angles = np.linspace(0.0, 1.0, 6)[:, None] * np.ones(4)

    def fn(p, x):
        q = x @ p
        turned = jnp.concatenate([-q[..., 2:], q[..., :2]], -1)
        return q * np.cos(angles) + turned * np.sin(angles)

    assert trace(fn, normal(0, 4, 4), normal(1, 2, 6, 4)).workload.macs == 96


def test_learned_activation_slopes_pass():
    class Model(nnx.Module):
        def __init__(self, rngs):
            self.a, self.act, self.b = nnx.Linear(4, 4, rngs=rngs), nnx.PReLU(), nnx.Linear(4, 4, rngs=rngs)

        def __call__(self, x):
            return self.b(self.act(self.a(x)))

    assert trace(Model(nnx.Rngs(0)), normal(0, 2, 4)).workload.macs == 32


@pytest.mark.parametrize(
    ("hidden", "name"),
    [(lambda h: jnp.fft.fft(h).real, "fft"), (lambda h: jnp.linalg.cholesky(h @ h.T + 9 * jnp.eye(4)), "cholesky")],
)
def test_primitives_that_multiply_unseen_are_refused_by_name(hidden, name):
    def fn(p, x):
        return jax.vmap(lambda image: hidden(image @ p["stem"]))(x)

    with pytest.raises(UnpriceableError, match=f"'?{name}'? multiplies and accumulates|{name}"):
        trace(fn, {"stem": normal(0, 4, 4)}, normal(1, 2, 4, 4))


def test_factorized_weights_are_arithmetic_on_weights():
    def fn(p, x):
        return x @ jnp.linalg.cholesky(p @ p.T)

    net = trace(fn, normal(0, 4, 4), normal(1, 2, 4))
    assert net.layer_names == ("params",) and len(net.weight_products) == 1


def test_network_without_multiplies_is_refused():
    with pytest.raises(UnpriceableError, match="nothing to price"):
        trace(lambda p, x: x + p, jnp.ones(3), jnp.ones((2, 3)))


def test_layers_that_only_training_has_are_named():
    def fn(params, state, x, rngs, train):
        h = x @ params["a"]
        return (h @ params["aux"] if train else h), state

    with pytest.raises(ValueError, match=r"train program has other layers.*\['aux'\]"):
        trace(fn, {"a": normal(0, 4, 4), "aux": normal(1, 4, 4)}, normal(2, 2, 4))


@pytest.mark.parametrize(
    ("call", "found"),
    [
        (lambda: trace(lambda p: p, 1.0), "arguments behind the function"),
        (lambda: trace(lambda p, x, y: p, 1.0, jnp.ones((1, 1))), r"takes \(p, x, y\)"),
        (lambda: trace(3, 1.0), "a int is no network"),
        (lambda: trace(linen.Dense(3), jnp.ones((1, 1))), "without variables"),
        (lambda: trace(nnx.Linear(2, 2, rngs=nnx.Rngs(0))), "one example input"),
        (lambda: trace(lambda p, x: x @ p, jnp.ones((2, 2)), jnp.ones(())), "batch axis"),
    ],
)
def test_unknown_forms_of_call_list_the_legal_ones(call, found):
    with pytest.raises(ValueError, match=found):
        call()


def test_what_the_function_itself_raises_says_how_it_was_called():
    with pytest.raises(TypeError, match="contracting") as found:  # an example without its batch axis
        trace(lambda p, x: x.reshape(-1) @ p, jnp.ones((64, 10)), jnp.ones((8, 8)))
    said = "\n".join(found.value.__notes__)  # jax adds one of its own
    assert "a batch of one image, x of shape (1, 8); axis 0 of the example x must be the batch" in said

    def full(p, s, x, rngs, train):
        return (x @ p) * (rngs["drop"] if train else 1.0), s

    with pytest.raises(TypeError) as found:
        trace(full, jnp.ones((4, 3)), jnp.ones((1, 4)), state={})
    assert "the train program of full fails; does it need rngs?" in "\n".join(found.value.__notes__)
