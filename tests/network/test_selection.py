"""Image patches by a convolution with a kernel of one 1 an output: moved data, no layer, in floats and in integers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cooptim
from cooptim.descent.recipes import methods_of
from cooptim.integer import predict
from cooptim.network.integer import integer_network
from cooptim.network.selection import as_slices, is_selection

pytestmark = pytest.mark.float32
NHWC = ("NHWC", "HWIO", "NHWC")


def patches(x, size=(3, 3), stride=(1, 1), padding="SAME", **how):
    return jax.lax.conv_general_dilated_patches(x, size, stride, padding, **{"dimension_numbers": NHWC, **how})


def net(p, x):
    x = jax.nn.relu(patches(x) @ p["w"])
    x = jax.nn.relu(patches(x, stride=(2, 2), padding="VALID") @ p["v"])
    return x.mean((1, 2)) @ p["f"]


@pytest.fixture(scope="module")
def known():
    rng = np.random.default_rng(0)
    shapes = {"w": (18, 6), "v": (54, 8), "f": (8, 3)}
    params = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    x = rng.normal(size=(40, 9, 9, 2)).astype(np.float32)
    return cooptim.trace(net, params, x), params, x


def test_patches_are_no_layers_and_no_macs(known):
    network, params, x = known
    assert network.layer_names == ("w", "v", "f")
    assert network.workload.macs == 81 * 18 * 6 + 16 * 54 * 8 + 8 * 3
    assert network.workload.layers[0].inputs == ("input",) and network.workload.layers[1].inputs == ("w",)
    np.testing.assert_array_equal(jax.jit(lambda x: network.apply(params, {}, x)[0])(x), jax.jit(net)(params, x))
    # The papers' exemption of the first layer is for the first that multiplies.
    assert [method.weights for method in methods_of(network.workload, "xnor")] == ["step_range", "sign", "step_range"]


def test_patches_go_to_integers(known):
    network, params, x = known
    design = cooptim.calibrate(network, params, {}, x, cooptim.load_machine("envision"), 8)
    found = predict(integer_network(network, params, {}, design, x[:1]), x)[0]
    wanted = np.asarray(jax.jit(lambda x: network.apply(params, {}, x, design)[0])(x))
    assert np.max(np.abs(found - wanted)) < 0.02 * np.max(np.abs(wanted))


def test_a_kernel_that_is_learned_or_adds_is_a_layer():
    x = np.ones((1, 6, 6, 1), np.float32)

    def learned(p, x):
        kernel = jnp.eye(4).reshape(2, 2, 1, 4) * p["scale"]
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=NHWC).mean((1, 2)) @ p["f"]

    def adds(p, x):
        kernel = (jnp.arange(4) < 2).astype(jnp.float32).reshape(2, 2, 1, 1)  # the sum of a pair
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=NHWC).mean((1, 2)) @ p["f"]

    params = {"scale": np.ones((1, 1, 1, 4), np.float32), "f": np.ones((4, 3), np.float32)}
    assert cooptim.trace(learned, params, x).layer_names == ("scale", "f")
    assert cooptim.trace(adds, {"f": np.ones((1, 3), np.float32)}, x).layer_names == ("const", "f")


HOWS = {
    "as usual": {},
    "strided and dilated": {"size": (3, 2), "stride": (2, 1), "padding": "VALID", "rhs_dilation": (1, 2)},
    "uneven edges": {"size": (2, 3), "padding": ((0, 2), (1, 0))},
    "spread input": {"size": (2, 2), "padding": ((1, 1), (0, 1)), "lhs_dilation": (2, 3)},
    "channels first": {"dimension_numbers": ("NCHW", "OIHW", "NCHW")},
    "another layout out": {"dimension_numbers": ("NHWC", "OIHW", "NCHW")},
}


@pytest.mark.parametrize("how", HOWS)
def test_slices_are_the_convolution(how):
    shape = (2, 3, 7, 6) if how == "channels first" else (2, 7, 6, 3)
    x = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    seen = []

    def note(eqn, args):
        seen.append((eqn, np.asarray(args[1])))

    jaxpr = jax.make_jaxpr(lambda x: patches(x, **HOWS[how]))(x)
    env = {}
    read = lambda atom: atom.val if hasattr(atom, "val") else env[atom]  # noqa: E731
    env[jaxpr.jaxpr.invars[0]] = x
    for eqn in jaxpr.jaxpr.eqns:
        args = [read(atom) for atom in eqn.invars]
        if eqn.primitive.name == "conv_general_dilated":
            note(eqn, args)
        out = eqn.primitive.bind(*args, **eqn.params)
        env.update(zip(eqn.outvars, out if eqn.primitive.multiple_results else [out], strict=True))
    ((eqn, kernel),) = seen
    assert is_selection(eqn, kernel) and not is_selection(eqn, 2 * kernel) and not is_selection(eqn, 0 * kernel)
    np.testing.assert_array_equal(as_slices(eqn, kernel)(jnp.asarray(x)), read(jaxpr.jaxpr.outvars[0]))
