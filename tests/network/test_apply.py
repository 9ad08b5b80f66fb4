"""The same program under a design: quantized, masked, measured, differentiated."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from cooptim.network import UnpriceableError, dense_stats, examples, trace
from cooptim.relax import bitwidth, mask, quantizers
from tests.network.cases import KNOBS, Recurrent, design, equal_bits, normal, quantized

pytestmark = pytest.mark.unoptimized


def test_callers_model_never_changes():
    model, x = examples.digits_cnn(nnx.Rngs(0)), normal(1, 4, 8, 8, 1).astype(jnp.float32)
    before = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(model)))
    modes = (model.bn1.use_running_average, model.bn2.use_running_average)
    net = trace(model, x)

    @jax.jit
    def step(p):
        y, state, _ = net.apply(p, net.state, x, design(3), train=True)
        return y.sum(), state

    _, state = jax.grad(step, has_aux=True)(net.params)
    assert equal_bits(before, nnx.to_pure_dict(nnx.state(model)))
    assert modes == (model.bn1.use_running_average, model.bn2.use_running_average)
    assert not equal_bits(state, net.state)


def two_layers(p, x):
    return jax.nn.relu(x @ p["a"] + p["bias"]) @ p["b"]


PARAMS = {"a": normal(0, 6, 5), "b": normal(1, 5, 3), "bias": normal(2, 5)}
X = normal(3, 20, 6)


def test_operands_are_masked_and_quantized_as_by_hand():
    net = trace(two_layers, PARAMS, X)
    knobs = design(2, threshold=[0.5, 0.25], weight_step=[0.5, 0.25], weight_range=[1.5, 1.75], signed=True)
    knobs.input_signed = (True, False)
    y, _, stats = net.apply(PARAMS, {}, X, knobs)
    wa = quantized(np.where(np.abs(PARAMS["a"]) > 0.5, PARAMS["a"], 0), 0.5, 1.5)
    wb = quantized(np.where(np.abs(PARAMS["b"]) > 0.25, PARAMS["b"], 0), 0.25, 1.75)
    ia = quantized(X, 0.25, 1.75)
    hidden = np.maximum(ia @ wa + np.asarray(PARAMS["bias"]), 0)
    ib = quantized(hidden, 0.25, 1.75, signed=False)
    np.testing.assert_allclose(y, ib @ wb, rtol=1e-12)
    sizes = np.array([wa.size, wb.size]), np.array([ia.size, ib.size])
    found = np.stack([stats.weight_density * sizes[0], stats.input_density * sizes[1]])
    np.testing.assert_allclose(found, [[np.sum(w != 0) for w in ws] for ws in ((wa, wb), (ia, ib))], rtol=1e-14)


def test_negative_words_of_an_unsigned_input_count_as_zeros():
    net = trace(lambda p, x: x @ p, jnp.eye(4), jnp.ones((1, 4)))
    x = jnp.array([[-3.0, 0.1, 0.2, 5.0]])
    _, _, stats = net.apply(jnp.eye(4), {}, x, design(1, signed=False))
    assert float(stats.input_density[0]) == 0.5  # 0.2 rounds to 0.25, 0.1 to 0
    _, _, stats = net.apply(jnp.eye(4), {}, x, design(1, signed=True))
    assert float(stats.input_density[0]) == 0.75


def test_wide_operands_count_their_nonzero_words():
    net = trace(lambda p, x: x @ p, jnp.eye(4), jnp.ones((1, 4)))
    x = jnp.array([[-3.0, 0.0, 0.0, 1e-9]])
    _, _, stats = net.apply(jnp.eye(4), {}, x, design(1, weight_bits=32.0, input_bits=32.0, signed=False))
    assert (float(stats.weight_density[0]), float(stats.input_density[0])) == (0.25, 0.5)
    weights = jnp.array([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6], [0.7, 0.8]])
    net = trace(lambda p, x: x @ p, weights, x)
    y, _, stats = net.apply(weights, {}, x, design(1, weight_bits=32.0, input_bits=32.0, threshold=0.45))
    assert float(stats.weight_density[0]) == 0.5
    np.testing.assert_allclose(y, x @ jnp.where(weights > 0.45, weights, 0.0))


def test_off_is_a_choice_for_each_tensor():
    net = trace(two_layers, PARAMS, X)
    for off, dense in ((("a",), (1, 1)), (("a/W",), (1, 0)), (("a/I",), (0, 1))):
        _, _, stats = net.apply(PARAMS, {}, X, design(2, threshold=0.5, weight_step=0.5), off=off)
        assert (stats.weight_density[0] == 1, stats.input_density[0] == 1) == tuple(map(bool, dense))
        assert stats.weight_density[1] < 1
    y, state, stats = net.apply(PARAMS, {}, X, design(2), off="all")
    assert equal_bits(y, two_layers(PARAMS, X)) and equal_bits(stats, dense_stats(2)) and state == {}


def test_unknown_layer_or_wrong_length_is_named():
    net = trace(two_layers, PARAMS, X)
    with pytest.raises(ValueError, match="off: layer 'conv' is not in the network.*a, b"):
        net.apply(PARAMS, {}, X, design(2), off=("conv",))
    with pytest.raises(ValueError, match="weight_bits has shape .3,., the network 2 layers"):
        net.apply(PARAMS, {}, X, design(3))


def test_tied_leaf_wears_one_mask_also_where_it_is_looked_up():
    def fn(p, tokens):
        return jnp.tanh(p["table"][tokens] @ p["mix"]) @ p["table"].T

    params = {"table": normal(0, 9, 4), "mix": normal(1, 4, 4)}
    tokens = jnp.arange(9)[None]
    net = trace(fn, params, tokens)
    assert net.layer_names == ("mix", "table")
    wide = dict(weight_bits=32.0, input_bits=32.0)
    y, _, _ = net.apply(params, {}, tokens, design(2, threshold=[0.0, 0.6], **wide))
    stored = jnp.where(jnp.abs(params["table"]) > 0.6, params["table"], 0.0)
    np.testing.assert_allclose(y, fn({**params, "table": stored}, tokens), rtol=1e-12)


def test_second_use_of_a_leaf_takes_the_first_ones_threshold():
    def fn(p, x):
        return jnp.tanh(x @ p) @ p.T.reshape(5, 6)

    w = normal(0, 6, 5)
    net = trace(fn, w, X)
    y, _, stats = net.apply(w, {}, X, design(2, threshold=[0.7, 0.0], weight_bits=32.0, input_bits=32.0))
    np.testing.assert_allclose(y, fn(jnp.where(jnp.abs(w) > 0.7, w, 0.0), X), rtol=1e-12)
    np.testing.assert_allclose(stats.weight_density, np.mean(np.abs(w) > 0.7), rtol=1e-14)


def test_mask_of_a_computed_weight_is_at_its_operand():
    def fn(p, x):
        return x @ (p["w0"] + p["a"] @ p["b"])

    params = {"w0": normal(0, 6, 6), "a": normal(1, 6, 2), "b": normal(2, 2, 6)}
    net = trace(fn, params, X)
    y, _, _ = net.apply(params, {}, X, design(1, threshold=0.8, weight_bits=32.0, input_bits=32.0))
    w = params["w0"] + params["a"] @ params["b"]
    np.testing.assert_allclose(y, X @ jnp.where(jnp.abs(w) > 0.8, w, 0.0), rtol=1e-12)


def test_scanned_weights_have_their_own_knobs_each_trip():
    def fn(p, x):
        return jax.lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x, p["w"])[0]

    params, x = {"w": normal(0, 3, 4, 4)}, normal(1, 5, 4)
    net = trace(fn, params, x)
    knobs = design(3, weight_step=[0.5, 0.25, 0.125], weight_range=2.0, input_step=[0.5, 0.25, 0.125], input_range=4.0)
    y, _, stats = net.apply(params, {}, x, knobs)
    h, shares = np.asarray(x), []
    for w, step in zip(np.asarray(params["w"]), (0.5, 0.25, 0.125), strict=True):
        wq, iq = quantized(w, step, 2.0), quantized(h, step, 4.0)
        shares.append((np.mean(wq != 0), np.mean(iq != 0)))
        h = np.tanh(iq @ wq)
    np.testing.assert_allclose(y, h, rtol=1e-12)
    np.testing.assert_allclose(np.stack([stats.weight_density, stats.input_density], 1), shares, rtol=1e-12)
    _, _, stats = net.apply(params, {}, x, knobs, off=("w[1]",))
    assert float(stats.weight_density[0]) == pytest.approx(shares[0][0]) and float(stats.weight_density[1]) == 1.0


def test_inputs_of_a_scan_are_averaged_over_its_trips():
    def fn(p, x):
        return jax.lax.scan(lambda h, row: (h + row @ p["w"], None), jnp.zeros((x.shape[0], 3)), x.swapaxes(0, 1))[0]

    params, x = {"w": normal(0, 4, 3)}, normal(1, 5, 7, 4)
    net = trace(fn, params, x)
    y, _, stats = net.apply(params, {}, x, design(1))
    wq, iq = quantized(params["w"], 0.125, 0.875), quantized(x, 0.25, 1.75)
    np.testing.assert_allclose(y, np.sum(iq @ wq, axis=1), rtol=1e-12)
    assert float(stats.input_density[0]) == pytest.approx(np.mean(iq != 0), rel=1e-12)
    assert float(stats.weight_density[0]) == pytest.approx(np.mean(wq != 0), rel=1e-12)


def test_both_branches_of_a_cond_are_quantized():
    def fn(p, x):
        return jax.lax.cond(x.sum() > 0, lambda x: x @ p["small"] @ p["back"], lambda x: x @ p["big"], x)

    params = {"small": normal(0, 6, 1), "back": normal(1, 1, 6), "big": normal(2, 6, 6)}
    net = trace(fn, params, X)
    assert net.layer_names == ("big",)
    knobs = design(1, weight_step=0.5, weight_range=3.5, input_step=0.5, input_range=3.5)
    for x in (jnp.abs(X), -jnp.abs(X)):
        y, _, stats = jax.jit(lambda p, x: net.apply(p, {}, x, knobs))(params, x)
        h = quantized(x, 0.5, 3.5)
        if x.sum() > 0:
            h = quantized(h @ quantized(params["small"], 0.5, 3.5), 0.5, 3.5) @ quantized(params["back"], 0.5, 3.5)
        else:
            h = h @ quantized(params["big"], 0.5, 3.5)
            share = np.mean(quantized(params["big"], 0.5, 3.5) != 0)
            assert float(stats.weight_density[0]) == pytest.approx(share, rel=1e-14)
        np.testing.assert_allclose(y, h, rtol=1e-10)


def test_remat_and_nested_jit_are_quantized_inside():
    def fn(p, x):
        h = jax.checkpoint(lambda x: jnp.tanh(x @ p["a"]))(x)
        return jax.jit(lambda h: h @ p["b"])(h)

    net = trace(fn, PARAMS, X)
    y, _, _ = net.apply(PARAMS, {}, X, design(2))
    h = np.tanh(quantized(X, 0.25, 1.75) @ quantized(PARAMS["a"], 0.125, 0.875))
    np.testing.assert_allclose(y, quantized(h, 0.25, 1.75) @ quantized(PARAMS["b"], 0.125, 0.875), rtol=1e-10)


@jax.custom_vjp
def clipped_dense(x, w):
    """A dense layer whose gradients are clipped to 1."""
    return x @ w


clipped_dense.defvjp(
    lambda x, w: (x @ w, (x, w)),
    lambda saved, g: (jnp.clip(g @ saved[1].T, -1, 1), jnp.clip(saved[0].T @ g, -1, 1)),
)


def test_custom_gradient_is_kept_and_its_operands_are_quantized():
    def fn(p, x):
        return 249.0 * clipped_dense(x, p["w"]).sum()[None]

    params = {"w": normal(0, 6, 4)}
    net = trace(fn, params, X)
    (layer,) = net.workload.layers
    assert layer.macs == 24 and "custom_vjp_call" in layer.note
    for knobs in (design(1), design(1, weight_bits=32.0, input_bits=32.0)):
        slope = jax.grad(lambda p, k=knobs: net.apply(p, {}, X, k)[0].sum())(params)["w"]
        assert float(jnp.max(jnp.abs(slope))) == 1.0
    y, _, stats = net.apply(params, {}, X, design(1))
    wq = quantized(params["w"], 0.125, 0.875)
    np.testing.assert_allclose(y, 249.0 * (quantized(X, 0.25, 1.75) @ wq).sum()[None], rtol=1e-10)
    assert float(stats.weight_density[0]) == pytest.approx(np.mean(wq != 0), rel=1e-14)


def test_custom_gradient_that_hides_an_operand_is_refused_by_name():
    @jax.custom_jvp
    def hidden(x, w):
        return jnp.tanh(x) @ w

    hidden.defjvp(lambda primals, tangents: (hidden(*primals), tangents[0] @ primals[1]))
    with pytest.raises(UnpriceableError, match="w: its dot_general stands inside a custom_jvp_call"):
        trace(lambda p, x: hidden(x, p["w"]), {"w": normal(0, 6, 4)}, X)


def test_densities_pull_on_steps_thresholds_and_weights():
    net = trace(two_layers, PARAMS, X)
    knobs = design(2, threshold=0.3, weight_step=0.25, weight_range=1.75)

    def total(fields):
        stats = net.apply(PARAMS, {}, X, types.SimpleNamespace(**fields, input_signed=knobs.input_signed))[2]
        return stats.weight_density.sum() + stats.input_density.sum()

    slopes = jax.grad(total)({name: getattr(knobs, name) for name in KNOBS})
    assert (slopes["threshold"] < 0).all()  # a higher threshold leaves fewer weights
    assert (slopes["input_step"] < 0).all()

    def weights_only(step, threshold):
        moved = types.SimpleNamespace(**{**vars(knobs), "weight_step": step, "threshold": threshold})
        return net.apply(PARAMS, {}, X, moved)[2].weight_density.sum()

    in_step, in_threshold = jax.grad(weights_only, (0, 1))(jnp.full(2, 0.8), knobs.threshold)
    assert (in_step < 0).all() and (in_threshold == 0).all()  # half a step is above the threshold

    def share(w):
        return net.apply({**PARAMS, "a": w}, {}, X, knobs)[2].weight_density[0]

    pull = jax.grad(share)(PARAMS["a"])
    near = np.abs(PARAMS["a"]) < 0.6
    assert (np.sign(pull)[near] == np.sign(PARAMS["a"])[near]).all() and (pull[~near] == 0).all()


@pytest.mark.parametrize(("signed", "width"), [(True, 4.0), (False, 4.0), (True, 1.0)])
def test_written_out_slopes_are_those_of_relax(signed, width):
    from cooptim.network import fake

    knobs = (jnp.array(0.13), jnp.array(0.91))
    x, g, bits = normal(0, 400), normal(1, 400), jnp.array(width)
    words = fake.signed_words if signed else fake.unsigned_words
    mine = jax.vjp(lambda x, *k: words(x, bits, *k), x, *knobs)
    relaxed = jax.vjp(lambda x, *k: bitwidth.quantize(x, bits, *k, signed), x, *knobs)
    assert equal_bits(mine[0], relaxed[0])
    for a, b in zip(mine[1](g), relaxed[1](g), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("signed", "width"), [(True, 3.3), (False, 3.3), (True, 4.0), (False, 1.4), (True, 2.2)])
def test_written_out_slopes_of_a_blend_are_those_of_relax(signed, width):
    from cooptim.network import fake

    def through(quantizer):
        def words(x, bits, range_):
            found = quantizer(x, quantizers.Operand(bits, jnp.ones(()), range_, signed, 1))
            return found.values, jnp.stack([n for pair in found.zeros for n in pair])

        return words

    args, g = (normal(0, 400), jnp.array(width), jnp.array(0.91)), (normal(1, 400), normal(2, 4))
    mine, relaxed = (jax.vjp(through(quantizer), *args) for quantizer in (fake.blend, quantizers.blend))
    assert equal_bits(mine[0], relaxed[0])
    for a, b in zip(mine[1](g), relaxed[1](g), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)
    assert np.isfinite(jax.grad(lambda b: through(fake.blend)(args[0], b, args[2])[0].sum())(40.0))


def test_written_out_slopes_of_masks_and_densities_are_those_of_relax():
    from cooptim.network import fake

    x, g, bits, cut = normal(0, 400), normal(1, 400), jnp.array(4.0), jnp.array(0.21)
    knobs = (jnp.array(0.13), jnp.array(0.91), cut)
    mine = jax.vjp(lambda x, *k: fake.pruned_words(x, bits, *k), x, *knobs)
    relaxed = jax.vjp(lambda x, s, r, t: bitwidth.quantize(mask.prune(x, t), bits, s, r, True), x, *knobs)
    assert equal_bits(mine[0], relaxed[0])
    for a, b in zip(mine[1](g), relaxed[1](g), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)
    mine, relaxed = (jax.value_and_grad(f, (0, 1))(x, cut) for f in (fake.nonzero_share, mask.density))
    for a, b in zip(jax.tree.leaves(mine), jax.tree.leaves(relaxed), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-15)


@pytest.mark.float32
def test_threshold_zero_has_a_finite_gradient_in_float32():
    params, x = jax.tree.map(lambda a: a.astype(jnp.float32), (PARAMS, X))
    net = trace(two_layers, params, x)
    knobs = design(2)

    def loss(threshold):
        y, _, stats = net.apply(params, {}, x, types.SimpleNamespace(**{**vars(knobs), "threshold": threshold}))
        return y.sum() + stats.weight_density.sum()

    assert jnp.isfinite(jax.grad(loss)(jnp.zeros(2))).all()


def test_gradients_of_a_first_layer_agree_whether_or_not_its_image_moves():
    params, x = {"w": normal(0, 3, 3, 2, 4)}, normal(1, 3, 6, 6, 2)

    def fn(p, x):
        return jax.lax.conv_general_dilated(x, p["w"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    net = trace(fn, params, x)
    knobs = design(1)

    def loss(step, range_, w, x):
        moved = types.SimpleNamespace(**{**vars(knobs), "input_step": step, "input_range": range_})
        return jnp.sum(jnp.sin(net.apply({"w": w}, {}, x, moved)[0]))

    args = (knobs.input_step, knobs.input_range, params["w"], x)
    still, moving = jax.jit(lambda: (jax.grad(loss, (0, 1, 2))(*args), jax.grad(loss, (0, 1, 2, 3))(*args)))()
    for a, b in zip(still, moving, strict=False):
        np.testing.assert_allclose(a, b, rtol=1e-9)
    _, forward = jax.jvp(lambda s: loss(s, *args[1:]), (args[0],), (jnp.ones(1),))
    np.testing.assert_allclose(forward, still[0][0], rtol=1e-9)


def test_integer_data_and_half_floats_keep_their_types():
    net = trace(lambda p, x: x.astype(jnp.int32) @ jnp.round(p).astype(jnp.int32), jnp.eye(4), jnp.ones((2, 4), int))
    y, _, stats = net.apply(jnp.eye(4), {}, jnp.ones((2, 4), int), design(1))
    assert y.dtype == jnp.int32 and stats.weight_density[0] == 0.25
    net = trace(lambda p, x: x @ p, jnp.eye(4, dtype=jnp.bfloat16), jnp.ones((2, 4), jnp.bfloat16))
    y, _, _ = net.apply(net.params, {}, jnp.ones((2, 4), jnp.bfloat16), design(1))
    assert y.dtype == jnp.bfloat16


def test_observation_finds_extrema_over_trips_and_layers():
    net = trace(two_layers, PARAMS, X)
    seen = jax.jit(net.observe)(PARAMS, {}, X)
    hidden = jax.nn.relu(X @ PARAMS["a"] + PARAMS["bias"])
    np.testing.assert_allclose(seen.weight_max, [jnp.abs(PARAMS["a"]).max(), jnp.abs(PARAMS["b"]).max()])
    np.testing.assert_allclose(seen.input_min, [X.min(), 0.0])
    np.testing.assert_allclose(seen.input_max, [X.max(), hidden.max()])
    np.testing.assert_allclose(seen.input_rms, [jnp.sqrt((v**2).mean()) for v in (X, hidden)])
    np.testing.assert_allclose(seen.weight_rms[0], jnp.sqrt((PARAMS["a"] ** 2).mean()))
    assert seen.signed() == (True, False)

    def scanned(p, x):
        return jax.lax.scan(lambda h, row: (h + row @ p["w"], None), jnp.zeros((x.shape[0], 3)), x.swapaxes(0, 1))[0]

    x = normal(1, 5, 7, 4)
    seen = trace(scanned, {"w": normal(0, 4, 3)}, x).observe({"w": normal(0, 4, 3)}, {}, x)
    np.testing.assert_allclose([seen.input_min[0], seen.input_max[0]], [x.min(), x.max()])


def test_random_streams_are_reseeded_by_a_key_and_carried_without_one():
    model = Recurrent(nnx.Rngs(0))
    x = normal(1, 4, 6, 5).astype(jnp.float32)
    jax.config.update("jax_enable_x64", False)
    net = trace(model, x)
    run = jax.jit(lambda s, key: net.apply(net.params, s, x, design(len(net.layer_names)), train=True, rngs=key)[:2])
    a, state = run(net.state, jax.random.key(1))
    b, _ = run(net.state, jax.random.key(1))
    c, _ = run(net.state, jax.random.key(2))
    assert equal_bits(a, b) and not equal_bits(a, c)
    d, later = run(state, None)
    e, _ = run(later, None)
    assert not equal_bits(d, e)  # the counters went on


def test_linen_state_and_dropout_go_through_apply():
    class Model(linen.Module):
        @linen.compact
        def __call__(self, x, train=False):
            x = linen.BatchNorm(use_running_average=not train)(linen.Dense(8)(x))
            return linen.Dense(3)(linen.Dropout(0.5, deterministic=not train)(x))

    jax.config.update("jax_enable_x64", False)
    model, x = Model(), normal(0, 16, 4)
    variables = model.init(jax.random.key(0), x)
    net = trace(model, x, variables=variables, rngs=jax.random.key(0))
    assert net.layer_names == ("Dense_0.kernel", "Dense_1.kernel")

    def run(v, key):
        return model.apply(v, x, train=True, rngs={"dropout": key}, mutable=["batch_stats"])

    expected, changed = jax.jit(run)(variables, jax.random.key(3))
    wide = design(2, weight_bits=32.0, input_bits=32.0)
    y, state, _ = jax.jit(lambda p, s, key: net.apply(p, s, x, wide, train=True, rngs=key))(
        net.params, net.state, jax.random.key(3)
    )
    assert equal_bits(y, expected) and equal_bits(state, dict(changed))


def test_full_functions_get_their_mode_and_state():
    def fn(params, state, x, rngs, train):
        noise = jax.random.normal(rngs, x.shape) if train else 0.0
        return (x + noise) @ params["w"], {"steps": state["steps"] + train}

    params, state = {"w": normal(0, 6, 3)}, {"steps": jnp.zeros((), jnp.int32)}
    net = trace(fn, params, X, state=state, rngs=jax.random.key(0))
    y, state, _ = net.apply(params, state, X, design(1), train=True, rngs=jax.random.key(1))
    assert int(state["steps"]) == 1
    noisy = quantized(X + jax.random.normal(jax.random.key(1), X.shape), 0.25, 1.75)
    np.testing.assert_allclose(y, noisy @ quantized(params["w"], 0.125, 0.875), rtol=1e-12)


def test_each_shape_is_traced_once():
    calls = []

    def fn(p, x):
        calls.append(x.shape)
        return x @ p

    net = trace(fn, jnp.eye(4), jnp.ones((3, 4)))
    for batch in (5, 5, 7, 7, 5):
        net.apply(jnp.eye(4), {}, jnp.ones((batch, 4)), design(1))
    assert calls == [(1, 4), (5, 4), (7, 4)]


@pytest.mark.float32
def test_numpy_images_of_another_precision_are_taken_as_jax_takes_them():
    params, image = np.eye(4), np.full((2, 4), 0.3)  # float64, which becomes float32 here
    net = trace(lambda p, x: x @ p, params, image)
    y, _, _ = net.apply(params, {}, image, design(1, weight_range=2.0))
    np.testing.assert_array_equal(y, np.full((2, 4), 0.25))
    assert y.dtype == jnp.float32


def test_sweep_over_designs_maps():
    net = trace(two_layers, PARAMS, X)
    base = design(2)
    steps = jnp.array([[0.1, 0.1], [0.3, 0.2]])

    def one(step):
        return net.apply(PARAMS, {}, X, types.SimpleNamespace(**{**vars(base), "weight_step": step}))[0]

    np.testing.assert_allclose(jax.vmap(one)(steps), jnp.stack([one(s) for s in steps]), rtol=1e-12)


@pytest.mark.parametrize("kind", [jnp.bfloat16, jnp.float16])
def test_half_precision_weights_are_held_in_float32_and_cast_in_every_call(kind):
    seen = []

    def model(p, x):
        seen.append(p["w"].dtype)
        return x.astype(kind) @ p["w"] + p["bias"].astype(kind)  # jax refuses operands of two dtypes in a convolution

    params = {"w": jnp.full((4, 3), 0.5, kind), "bias": jnp.zeros(3, jnp.float64)}
    net = trace(model, params, jnp.ones((2, 4)))
    assert [net.params[name].dtype for name in ("w", "bias")] == [jnp.float32, jnp.float64]

    wide = design(1, weight_bits=32.0, input_bits=32.0)

    def loss(p):
        return jnp.sum(net.apply(p, {}, jnp.eye(4), wide)[0].astype(jnp.float32))

    slope = jax.grad(loss)(net.params)
    assert slope["w"].dtype == jnp.float32 and jnp.all(slope["w"] == 1.0)
    held = net.params["w"]
    for _ in range(64):  # each change is a 32nd of the spacing of bfloat16 at a half, half that of float16's at most
        held = held + jnp.float32(2.0**-14)
    moved = {**net.params, "w": held}
    assert net.given(moved)["w"].dtype == kind and jnp.all(net.given(moved)["w"] == 0.5 + 2.0**-8)
    assert net.given(moved)["bias"].dtype == jnp.float64
    assert loss(moved) == 4 * 3 * (0.5 + 2.0**-8)
    assert set(seen) == {jnp.dtype(kind)}
    again = trace(model, net.given(moved), jnp.ones((2, 4)))
    assert jnp.all(again.params["w"] == 0.5 + 2.0**-8)
