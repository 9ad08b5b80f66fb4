"""Names, repeats, edges and roles of layers in networks of every shape."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

import cooptim.network as network
from cooptim.network import trace
from cooptim.workload import INPUT, Bounds
from tests.network.cases import layer_of, normal

pytestmark = pytest.mark.float32  # as Flax models run


def test_residual_and_concatenation_join_their_sources():
    def fn(p, x):
        a = jax.nn.relu(x @ p["a"])
        b = a + a @ p["b"]
        c = jnp.concatenate([b @ p["c"], x], axis=-1)
        return c @ p["d"]

    params = {"a": normal(0, 8, 8), "b": normal(1, 8, 8), "c": normal(2, 8, 8), "d": normal(3, 16, 4)}
    net = trace(fn, params, normal(4, 2, 8))
    assert {layer.name: layer.inputs for layer in net.workload.layers} == {
        "a": (INPUT,),
        "b": ("a",),
        "c": ("a", "b"),
        "d": (INPUT, "c"),
    }
    assert net.workload.outputs == ("d",)
    assert net.workload.input_words == 8


def test_every_output_is_listed():
    def fn(p, x):
        h = x @ p["a"]
        return h @ p["b"], {"aux": h}

    assert trace(fn, {"a": normal(0, 4, 4), "b": normal(1, 4, 2)}, normal(2, 3, 4)).workload.outputs == ("a", "b")


def test_dead_layers_are_not_priced():
    def fn(p, x):
        _ = x @ p["unused"]
        return x @ p["used"]

    net = trace(fn, {"unused": normal(0, 4, 4), "used": normal(1, 4, 2)}, normal(2, 3, 4))
    assert net.layer_names == ("used",)


def test_second_use_of_a_tied_weight_is_numbered():
    def fn(p, x):
        return jnp.tanh(x @ p["w"]) @ p["w"].T

    assert trace(fn, {"w": normal(0, 4, 9)}, normal(2, 3, 4)).layer_names == ("w", "w#2")


def test_closed_over_arrays_are_called_const():
    table, other = np.ones((4, 5), np.float32), np.ones((5, 3), np.float32)

    def fn(p, x):
        return ((x @ table) @ other) @ p

    assert trace(fn, normal(0, 3, 2), normal(2, 3, 4)).layer_names == ("const", "const#2", "params")


def test_low_rank_update_is_named_after_the_largest_leaf_and_its_product_is_no_layer():
    def fn(p, x):
        return x @ (p["w0"] + p["a"] @ p["b"])

    params = {"a": normal(0, 16, 2), "b": normal(1, 2, 16), "w0": normal(2, 16, 16)}
    net = trace(fn, params, normal(3, 5, 16))
    (layer,) = net.workload.layers
    assert (layer.name, layer.weight_leaves, layer.macs) == ("w0", ("w0", "a", "b"), 16 * 16)
    assert [(p.name, p.macs) for p in net.weight_products] == [("a", 16 * 2 * 16)]


def test_scanned_weights_are_one_layer_a_trip():
    def fn(p, x):
        def block(h, w):
            return jnp.tanh(h @ w["first"]) @ w["second"], None

        return jax.lax.scan(block, x @ p["stem"], p["cell"])[0]

    params = {"stem": normal(0, 4, 4), "cell": {"first": normal(1, 3, 4, 6), "second": normal(2, 3, 6, 4)}}
    net = trace(fn, params, normal(3, 5, 4))
    names = ("cell.first[0]", "cell.second[0]", "cell.first[1]", "cell.second[1]", "cell.first[2]", "cell.second[2]")
    assert net.layer_names == ("stem", *names)
    assert [layer.inputs for layer in net.workload.layers] == [(INPUT,), *((name,) for name in ("stem", *names[:-1]))]
    assert all(layer.repeat == 1 and layer.macs == 24 for layer in net.workload.layers[1:])
    assert net.workload.outputs == ("cell.second[2]",)


def test_reversed_scan_runs_its_last_weights_first():
    def fn(p, x):
        return jax.lax.scan(lambda h, w: (h @ w, None), x, p["w"], reverse=True)[0]

    net = trace(fn, {"w": normal(0, 3, 4, 4)}, normal(1, 2, 4))
    assert net.layer_names == ("w[2]", "w[1]", "w[0]")


def test_weights_indexed_by_the_loop_counter_are_one_layer_a_trip():
    def fn(p, x):
        return jax.lax.fori_loop(0, 3, lambda i, h: h @ p["w"][i], x)

    assert trace(fn, {"w": normal(0, 3, 4, 4)}, normal(1, 2, 4)).layer_names == ("w[0]", "w[1]", "w[2]")


def test_nested_scans_number_both_loops():
    def fn(p, x):
        def outer(h, ws):
            return jax.lax.scan(lambda h, w: (h @ w, None), h, ws)[0], None

        return jax.lax.scan(outer, x, p["w"])[0]

    net = trace(fn, {"w": normal(0, 2, 2, 4, 4)}, normal(1, 2, 4))
    assert net.layer_names == ("w[0][0]", "w[0][1]", "w[1][0]", "w[1][1]")


def lstm(p, xs):
    """An LSTM by scan: gates from the input and from the hidden state."""
    hidden = p["h"].shape[0]

    def cell(carry, x):
        h, c = carry
        i, f, g, o = jnp.split(x @ p["x"] + h @ p["h"], 4, axis=-1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        return (jax.nn.sigmoid(o) * jnp.tanh(c), c), None

    zeros = jnp.zeros((xs.shape[0], hidden), xs.dtype)
    (h, _), _ = jax.lax.scan(cell, (zeros, zeros), jnp.swapaxes(xs, 0, 1))
    return h @ p["out"]


def test_lstm_by_scan_repeats_its_constant_weights():
    params = {"x": normal(0, 5, 32), "h": normal(1, 8, 32), "out": normal(2, 8, 3)}
    net = trace(lstm, params, normal(3, 4, 11, 5))
    assert [(layer.name, layer.repeat, layer.macs) for layer in net.workload.layers] == [
        ("x", 11, 11 * 5 * 32),
        ("h", 11, 11 * 8 * 32),
        ("out", 1, 24),
    ]
    # the zeros that h starts from make it no weight: it is data from the second trip on
    assert layer_of(net, "h").inputs == ("x", "h")
    assert layer_of(net, "out").inputs == ("x", "h")


@pytest.mark.parametrize(("cell", "gates"), [(nnx.OptimizedLSTMCell, 4), (nnx.GRUCell, 3)])
def test_recurrent_cells_of_flax_cost_their_gates_every_step(cell, gates):
    class Model(nnx.Module):
        def __init__(self, rngs):
            self.rnn = nnx.RNN(cell(5, 8, rngs=rngs))
            self.head = nnx.Linear(8, 3, rngs=rngs)

        def __call__(self, x):
            return self.head(self.rnn(x)[:, -1])

    net = trace(Model(nnx.Rngs(0)), normal(0, 2, 7, 5))
    assert net.workload.macs == 7 * gates * 8 * (5 + 8) + 8 * 3
    assert {layer.repeat for layer in net.workload.layers[:-1]} == {7}


def test_attention_has_its_projections_and_two_activation_products():
    model = nnx.MultiHeadAttention(num_heads=2, in_features=8, qkv_features=8, decode=False, rngs=nnx.Rngs(0))
    net = trace(model, normal(0, 3, 6, 8))
    kinds = [layer.kind for layer in net.workload.layers]
    assert kinds.count("dense") == 4 and kinds.count("matmul") == 2
    assert net.workload.macs == 4 * 6 * 8 * 8 + 2 * 2 * 6 * 6 * 4
    scores, mixed = [layer for layer in net.workload.layers if layer.kind == "matmul"]
    assert set(scores.inputs) == {"query.kernel", "key.kernel"}
    assert set(mixed.inputs) == {"matmul", "value.kernel"}
    assert scores.bounds.G == mixed.bounds.G == 2


def test_tags_name_products_and_tell_who_feeds_them():
    def fn(p, x):
        q = network.tag(x @ p["q"], "scores")
        k = x @ p["k"]
        return network.tag(jnp.einsum("btc,bsc->bts", q / 2.0, k), "attention")

    net = trace(fn, {"q": normal(0, 4, 4), "k": normal(1, 4, 4)}, normal(2, 1, 6, 4))
    assert net.layer_names == ("q", "k", "scores")
    assert dict(net.tags) == {"scores": ("q",), "attention": ("scores",)}


def test_normalization_and_dropout_are_no_layers_but_pass_sources_on():
    class Model(nnx.Module):
        def __init__(self, rngs):
            self.a = nnx.Linear(4, 6, rngs=rngs)
            self.norms = nnx.List([nnx.BatchNorm(6, rngs=rngs), nnx.LayerNorm(6, rngs=rngs), nnx.RMSNorm(6, rngs=rngs)])
            self.drop = nnx.Dropout(0.5, rngs=rngs)
            self.b = nnx.Linear(6, 2, rngs=rngs)

        def __call__(self, x):
            x = self.a(x)
            for norm in self.norms:
                x = norm(x)
            return self.b(self.drop(x))

    net = trace(Model(nnx.Rngs(0)), normal(0, 5, 4))
    assert [(layer.name, layer.inputs) for layer in net.workload.layers] == [
        ("a.kernel", (INPUT,)),
        ("b.kernel", ("a.kernel",)),
    ]


def test_nested_jit_remat_and_vmap_are_looked_into():
    def fn(p, x):
        h = jax.jit(jax.jit(lambda x: x @ p["a"]))(x)
        h = jax.checkpoint(lambda h: jnp.tanh(h @ p["b"]))(h)
        return jax.vmap(lambda row: p["c"] @ row)(h)

    net = trace(fn, {name: normal(0, 4, 4) for name in "abc"}, normal(1, 3, 4))
    assert net.layer_names == ("a", "b", "c") and net.workload.macs == 48


@pytest.mark.parametrize("dearest", [0, 1])
def test_cond_is_priced_by_its_dearest_branch_and_says_so(dearest):
    def fn(p, x):
        branches = [lambda x: x @ p["small"] @ p["back"]]
        branches.insert(dearest, lambda x: jnp.tanh(x @ p["big"]))
        return jax.lax.switch(jnp.int32(x[0, 0]), branches, x @ p["stem"]) @ p["big"]

    params = {"stem": normal(0, 8, 8), "small": normal(1, 8, 2), "back": normal(2, 2, 8), "big": normal(3, 8, 8)}
    net = trace(fn, params, normal(4, 3, 8))
    assert net.layer_names == ("stem", "big", "big#2")
    assert layer_of(net, "big").note == "cond: dearest of 2 branches"
    assert layer_of(net, "big#2").inputs == ("big",)
    assert net.workload.macs == 3 * 64


def test_embedding_is_no_layer_but_its_tied_projection_is():
    class Model(nnx.Module):
        def __init__(self, rngs):
            self.embed = nnx.Embed(20, 6, rngs=rngs)

        def __call__(self, tokens):
            return self.embed.attend(self.embed(tokens))

    net = trace(Model(nnx.Rngs(0)), jnp.zeros((2, 5), jnp.int32))
    (layer,) = net.workload.layers
    assert (layer.name, layer.inputs) == ("embed.embedding", (INPUT,))
    assert layer.bounds == Bounds(K=20, C=6, OX=5)


def test_linen_layers_are_named_by_their_variables():
    class Model(linen.Module):
        @linen.compact
        def __call__(self, x, train=False):
            x = linen.BatchNorm(use_running_average=not train)(linen.Conv(4, (3, 3))(x))
            return linen.Dense(3)(x.reshape(x.shape[0], -1))

    model, x = Model(), normal(0, 2, 6, 6, 1)
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    for net in (trace(model, x, variables=variables), trace((model, variables), x)):
        assert net.layer_names == ("Conv_0.kernel", "Dense_0.kernel")
        assert net.workload.macs == 36 * 9 * 4 + 36 * 4 * 3
        assert set(net.param_paths) >= {"Conv_0.kernel", "BatchNorm_0.scale"}
        assert list(net.state) == ["batch_stats"]


def test_weights_made_by_indexing_state_are_weights():
    def fn(params, state, x, rngs, train):
        return x @ (params["w"] * state["gain"]), state

    net = trace(fn, {"w": normal(0, 4, 4)}, normal(1, 2, 4), state={"gain": jnp.ones(4)})
    assert layer_of(net, "w").weight_leaves == ("w", "gain")
