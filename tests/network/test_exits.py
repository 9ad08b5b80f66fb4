"""Early exits: what the heads see, what the layers around them cost, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cooptim
from cooptim.network import tag, trace
from cooptim.network.exits import with_exits
from cooptim.workload.graph import needed
from tests.network.cases import design, equal_bits, layer_of, normal

NHWC = ("NHWC", "HWIO", "NHWC")


def convolve(x, w, numbers=NHWC):
    return jax.lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=numbers)


def staged(p, s, x, rngs, train):
    """A residual network: its shortcut joins `first` and `second`; training moves a statistic and drops by key."""
    first = jax.nn.relu(convolve(x, p["first"]) + p["bias"])
    joined = tag(first + convolve(first, p["second"]), "joined")
    kept = joined * jax.random.bernoulli(rngs, 0.5, joined.shape) if train else joined
    moved = {"mean": 0.9 * s["mean"] + 0.1 * jnp.mean(kept)} if train else s
    hidden = jax.nn.relu(jnp.mean(convolve(kept, p["third"]), axis=(1, 2)))
    return hidden @ p["head"], moved


@pytest.fixture(scope="module")
def nets():
    params = {
        "bias": normal(1, 3),
        "first": normal(2, 3, 3, 2, 3),
        "second": normal(3, 3, 3, 3, 3),
        "third": normal(4, 1, 1, 3, 5),
        "head": normal(5, 5, 4),
    }
    x, key, state = normal(6, 6, 7, 7, 2), jax.random.key(7), {"mean": jnp.zeros(())}
    net = trace(staged, params, x, state=state, rngs=key)
    return net, with_exits(net, ("joined", "first"), key=jax.random.key(8), grid=3), x, key


def test_the_last_stage_is_the_network_itself_in_both_modes(nets):
    net, early, x, key = nets
    for train, rngs in ((False, None), (True, key)):
        if train:
            ours, state, _ = early.apply(early.params, early.state, x, train=True, rngs=rngs)
            plain, plain_state, _ = net.apply(net.params, net.state, x, train=True, rngs=rngs)
        else:
            ours, state, _ = early.apply(early.params, early.state, x)
            plain, plain_state, _ = net.apply(net.params, net.state, x)
        assert ours.shape == (3, 6, 4)
        assert equal_bits(ours[-1], plain) and equal_bits(state, plain_state)


def cells(x):
    """Means of 3 x 3 cells of a 7 x 7 map by hand: strides of 2, windows of 7 - 2*2 = 3."""
    x = np.asarray(x)
    rows = [x[:, r : r + 3, c : c + 3].mean(axis=(1, 2)) for r in (0, 2, 4) for c in (0, 2, 4)]
    return np.stack(rows, axis=1).reshape(len(x), -1)


def test_a_head_sees_what_enters_the_next_layer_or_bears_the_tag(nets):
    _, early, x, _ = nets
    p = early.params
    y = early.apply(p, early.state, x)[0]
    first = jax.nn.relu(convolve(x, p["first"]) + p["bias"])
    joined = first + convolve(first, p["second"])
    for stage, (label, seen) in enumerate((("first", first), ("joined", joined))):
        head = p["exits"][label]
        assert head["dense"].shape == (3 * 3 * 3, 4)
        np.testing.assert_allclose(y[stage], cells(seen) @ head["dense"] + head["bias"], rtol=1e-10)


def test_weights_before_an_exit_learn_from_its_head(nets):
    _, early, x, _ = nets

    def first_logits(w):
        return jnp.sum(jnp.sin(early.apply({**early.params, "first": w}, early.state, x)[0][0]))

    w = early.params["first"]
    slope, step = jax.grad(first_logits)(w), 1e-6 * jax.random.normal(jax.random.key(9), w.shape)
    want = float(first_logits(w + step) - first_logits(w - step)) / 2.0
    np.testing.assert_allclose(float(jnp.sum(slope * step)), want, rtol=1e-6)


def test_heads_are_layers_in_order_of_execution_and_know_what_they_need(nets):
    net, early, _, _ = nets
    names = ("first", "exits.first.dense", "second", "exits.joined.dense", "third", "head")
    assert early.layer_names == names and early.workload.exits == (names[1], names[3])
    assert layer_of(early, names[1]).macs == 27 * 4 and layer_of(early, names[3]).inputs == ("first", "second")
    assert early.workload.macs == net.workload.macs + 2 * 27 * 4
    np.testing.assert_array_equal(needed(early.workload), [[1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]])


def test_a_layer_that_only_later_stages_need_does_not_run_for_an_early_input():
    def fn(p, x):
        side = x @ p["side"]
        a = jax.nn.relu(x @ p["a"])
        return jax.nn.relu(a @ p["b"]) @ p["c"] + side

    params = {"side": normal(0, 4, 3), "a": normal(1, 4, 5), "b": normal(2, 5, 5), "c": normal(3, 5, 3)}
    early = with_exits(trace(fn, params, normal(4, 2, 4)), ("a",), key=jax.random.key(0))
    assert early.layer_names == ("side", "a", "exits.a.dense", "b", "c")
    np.testing.assert_array_equal(needed(early.workload)[0], [0, 1, 1, 0, 0])


def test_a_design_quantizes_and_prunes_the_heads_like_any_layer(nets):
    _, early, x, _ = nets
    one = design(6, weight_bits=jnp.array([32, 2, 32, 32, 32, 32.0]), input_bits=32.0, weight_step=1.0)
    one.weight_range = jnp.ones(6)
    p = early.params
    y = early.apply(p, early.state, x, one)[0]
    ternary = np.clip(np.round(p["exits"]["first"]["dense"]), -1, 1)  # 2 bits, step 1: -1, 0, 1
    seen = cells(jax.nn.relu(convolve(x, p["first"]) + p["bias"]))
    np.testing.assert_allclose(y[0], seen @ ternary + p["exits"]["first"]["bias"], rtol=1e-9, atol=1e-12)


def test_heads_of_a_network_of_half_precision_are_held_in_float32_like_its_weights():
    half = {"stem": normal(0, 3, 3, 2, 4).astype(jnp.bfloat16), "head": normal(1, 4, 3).astype(jnp.bfloat16)}

    def model(p, x):
        return jnp.mean(jax.nn.relu(convolve(x.astype(jnp.bfloat16), p["stem"])), axis=(1, 2)) @ p["head"]

    net = with_exits(trace(model, half, normal(2, 1, 5, 5, 2)), ["stem"], key=jax.random.key(0))
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(net.params)} == {"float32"}
    slopes = jax.grad(lambda p: net.apply(p, {}, normal(3, 4, 5, 5, 2), design(3))[0].astype(float).sum())(net.params)
    assert all(leaf.dtype == jnp.float32 and jnp.any(leaf != 0) for leaf in jax.tree.leaves(slopes))


def test_channels_come_first_where_the_convolution_says_so_and_the_batch_may_stand_anywhere():
    def fn(p, x):  # [channels, batch, time]
        h = jax.lax.conv_general_dilated(x, p["a"], (1,), "SAME", dimension_numbers=("CNW", "OIW", "CNW"))
        h = jax.lax.conv_general_dilated(h, p["b"], (1,), "SAME", dimension_numbers=("CNW", "OIW", "CNW"))
        return jnp.mean(h, axis=2).T

    params, x = [normal(0, 6, 2, 3), normal(1, 4, 6, 1)], normal(2, 2, 5, 8)
    net = trace(lambda p, x: fn(dict(zip("ab", p, strict=True)), x), params, x, batch_axis=1)
    early = with_exits(net, (net.layer_names[0],), key=jax.random.key(0), grid=2)
    h = jax.lax.conv_general_dilated(x, params[0], (1,), "SAME", dimension_numbers=("CNW", "OIW", "CNW"))
    seen = jnp.stack([h[:, :, :4].mean(axis=2), h[:, :, 4:].mean(axis=2)]).transpose(2, 0, 1).reshape(5, 12)
    y = early.apply(early.params, early.state, x)[0]
    (head,) = early.params["exits"].values()
    np.testing.assert_allclose(y[0], seen @ head["dense"], rtol=1e-10)
    assert early.layer_names[0] == "network." + net.layer_names[0]


def chain(p, x):
    h = jax.nn.relu(x @ p["a"])
    h, _ = jax.lax.scan(lambda c, _: (jnp.tanh(c @ p["loop"]), None), h, None, length=3)
    folded = h.reshape(1, -1, 4) @ p["fold"]
    return folded.reshape(-1, 3) @ p["out"]


@pytest.mark.parametrize(
    ("at", "grid", "message"),
    [
        (
            ("nowhere",),
            4,
            r"exit 'nowhere': no such layer or tag in .*; legal are layers a, loop, fold and tags \(none",
        ),
        (("out",), 4, "exit 'out': no other layer takes its output"),
        (("a", "a"), 4, r"at \['a', 'a'\], grid 4; name one tensor or more, each once"),
        ((), 4, r"at \[\]"),
        (("a",), 0, "grid 0"),
        (("a",), 4, "exit 'a': its tensor exists inside a scan, cond, remat or custom"),
        (("fold",), 4, r"exit 'fold': its tensor is \[6, 3\] for 2 images and \[9, 3\] for 3"),
    ],
)
def test_what_cannot_have_an_exit_is_refused_by_name(at, grid, message):
    params = {"a": normal(0, 12, 12), "loop": normal(1, 12, 12), "fold": normal(2, 4, 3), "out": normal(3, 3, 2)}

    def fn(p, x):
        return jnp.sum(chain(p, x).reshape(x.shape[0], 3, 2), axis=1)

    with pytest.raises(ValueError, match=message):
        with_exits(trace(fn, params, normal(4, 2, 12)), at, key=jax.random.key(0), grid=grid)


def test_exits_are_named_once_and_need_logits(nets):
    _, early, _, _ = nets
    with pytest.raises(ValueError, match="staged with exits: it has exits already"):
        with_exits(early, ("second",), key=jax.random.key(0))
    net = trace(lambda p, x: (x @ p["a"] @ p["b"], x), {"a": normal(0, 4, 4), "b": normal(1, 4, 2)}, normal(2, 3, 4))
    with pytest.raises(ValueError, match=r"for 2 images it returns tuple; exits need logits \[batch, class\]"):
        with_exits(net, ("a",), key=jax.random.key(0))
    taken = {"exits": normal(0, 4, 4), "b": normal(1, 4, 2)}
    net = trace(lambda p, x: x @ p["exits"] @ p["b"], taken, normal(2, 3, 4))
    with pytest.raises(ValueError, match="hold 'exits' already"):
        with_exits(net, ("exits",), key=jax.random.key(0))
    twice = trace(
        lambda p, x: tag(tag(x @ p["a"], "t") * 2, "t") @ p["b"],
        {"a": taken["b"].T @ taken["b"], "b": taken["b"].T},
        normal(2, 3, 2),
    )
    with pytest.raises(ValueError, match="2 tensors bear this tag"):
        with_exits(twice, ("t",), key=jax.random.key(0))


def test_every_public_name_is_where_the_package_says():
    assert [name for name in cooptim.__all__ if not hasattr(getattr(cooptim, name), "__module__")] == []
    assert cooptim.tag is tag and cooptim.with_exits is with_exits
