"""Loop bounds and MACs of each kind of layer, against counts by hand."""

import math

import jax
import jax.numpy as jnp
import pytest

from cooptim.network import UnpriceableError, trace
from cooptim.workload import Bounds
from tests.network.cases import normal

F = jnp.float32


def conv(x_shape, w_shape, dims=("NHWC", "HWIO", "NHWC"), strides=(1, 1), padding="SAME", **options):
    """The only layer of a network that is one convolution."""

    def fn(params, x):
        return jax.lax.conv_general_dilated(x, params["w"], strides, padding, dimension_numbers=dims, **options)

    net = trace(fn, {"w": jax.ShapeDtypeStruct(w_shape, F)}, jax.ShapeDtypeStruct(x_shape, F))
    (layer,) = net.workload.layers
    return layer


def einsum(formula, x_shape, w_shape):
    def fn(params, x):
        return jnp.einsum(formula, x, params["w"])

    (layer,) = trace(fn, {"w": normal(0, *w_shape)}, normal(1, *x_shape)).workload.layers
    return layer


def test_strided_convolution_counts_its_outputs():
    layer = conv((2, 32, 32, 3), (5, 3, 3, 8), strides=(2, 2))
    assert layer.bounds == Bounds(B=1, G=1, K=8, C=3, OY=16, OX=16, FY=5, FX=3)
    assert layer.macs == 8 * 3 * 16 * 16 * 15
    assert (layer.stride, layer.dilation, layer.kind, layer.name) == ((2, 2), (1, 1), "conv", "w")
    assert layer.padding == ((1, 2), (0, 1))  # 15*2 + 5 - 32 = 3 and 15*2 + 3 - 32 = 1, the odd one behind


def test_dilated_convolution_has_its_taps_apart():
    layer = conv((1, 20, 20, 4), (3, 3, 4, 6), padding="VALID", rhs_dilation=(2, 3))
    assert layer.bounds == Bounds(K=6, C=4, OY=16, OX=14, FY=3, FX=3)  # 20 - 2*2 and 20 - 3*2
    assert layer.dilation == (2, 3)
    assert layer.input_words == 20 * 20 * 4


def test_far_padding_that_no_window_reaches_is_no_padding():
    layer = conv((1, 224, 224, 3), (7, 7, 3, 64), strides=(2, 2), padding=((3, 3), (3, 3)))
    assert layer.padding == ((3, 2), (3, 2))  # the last window ends at 111*2 + 7 - 3 = 226, two rows past the image
    assert layer.input_words == 224 * 224 * 3


def test_rows_between_the_taps_of_a_gapped_filter_are_not_touched():
    layer = conv((1, 20, 21, 2), (2, 3, 2, 5), strides=(4, 2), padding="VALID", rhs_dilation=(6, 2))
    # rows 0 4 8 12 and 6 10 14 18; columns 0 2 .. 20, each also a later window's
    assert layer.input_words == 8 * 11 * 2


def test_grouped_convolution_divides_both_channels():
    layer = conv((1, 8, 8, 12), (3, 3, 4, 30), feature_group_count=3)
    assert layer.bounds == Bounds(G=3, K=10, C=4, OY=8, OX=8, FY=3, FX=3)
    assert layer.weight_words == 3 * 3 * 4 * 30


def test_depthwise_convolution_has_one_group_a_channel():
    layer = conv((1, 8, 8, 16), (3, 3, 1, 16), feature_group_count=16)
    assert layer.bounds == Bounds(G=16, K=1, C=1, OY=8, OX=8, FY=3, FX=3)
    assert layer.macs == 16 * 64 * 9


def test_depth_multiplier_is_output_channels_of_a_group():
    assert conv((1, 8, 8, 16), (3, 3, 1, 32), feature_group_count=16).bounds.K == 2


def test_batch_groups_are_groups_with_their_own_images():
    def fn(params, x):
        folded = x.reshape(3, 6, 6, 5)  # three images of a batch of one network input
        return jax.lax.conv_general_dilated(
            folded, params["w"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), batch_group_count=3
        )

    (layer,) = trace(fn, {"w": normal(0, 3, 3, 5, 6)}, normal(1, 1, 3, 6, 6, 5)).workload.layers
    assert layer.bounds == Bounds(G=3, K=2, C=5, OY=6, OX=6, FY=3, FX=3)
    assert layer.macs == 6 * 36 * 5 * 9  # the output has 6 channels of one image


def test_transposed_convolution_runs_over_its_input():
    layer = conv((1, 7, 5, 4), (4, 4, 4, 6), padding=((2, 2), (2, 2)), lhs_dilation=(2, 2))
    assert layer.transposed
    assert layer.bounds == Bounds(K=6, C=4, OY=7, OX=5, FY=4, FX=4)
    assert layer.macs == 7 * 5 * 16 * 4 * 6
    assert layer.stride == (2, 2)
    assert layer.padding == ((-1, -1), (-1, -1))  # the full output (7-1)*2+4 = 16 rows is cropped to 14
    assert layer.input_words == 7 * 5 * 4


def test_transposed_convolution_of_flax_is_found():
    from flax import nnx

    net = trace(nnx.ConvTranspose(3, 8, (3, 3), strides=2, rngs=nnx.Rngs(0)), normal(0, 2, 5, 5, 3))
    (layer,) = net.workload.layers
    assert layer.transposed and layer.macs == 5 * 5 * 9 * 3 * 8


@pytest.mark.parametrize(
    ("dims", "x_shape", "w_shape"),
    [
        (("NCHW", "OIHW", "NCHW"), (1, 3, 12, 10), (8, 3, 5, 3)),
        (("NHWC", "OHWI", "NHWC"), (1, 12, 10, 3), (8, 5, 3, 3)),
        (("CHWN", "IHWO", "CHWN"), (3, 12, 10, 1), (3, 5, 3, 8)),
        (("HNWC", "HOWI", "HNWC"), (12, 1, 10, 3), (5, 8, 3, 3)),
    ],
)
def test_any_dimension_numbers_give_the_same_bounds(dims, x_shape, w_shape):
    def fn(params, x):
        return jax.lax.conv_general_dilated(x, params["w"], (1, 1), "VALID", dimension_numbers=dims)

    net = trace(fn, {"w": normal(0, *w_shape)}, normal(1, *x_shape), batch_axis=dims[0].index("N"))
    assert net.workload.layers[0].bounds == Bounds(K=8, C=3, OY=8, OX=8, FY=5, FX=3)


def test_one_dimensional_convolution_is_one_row():
    layer = conv((1, 50, 4), (7, 4, 6), dims=("NHC", "HIO", "NHC"), strides=(1,))
    assert layer.bounds == Bounds(K=6, C=4, OY=1, OX=50, FY=1, FX=7)


def test_three_dimensional_convolution_folds_depth_into_rows_and_says_so():
    layer = conv((1, 4, 6, 8, 2), (3, 3, 3, 2, 5), dims=("NDHWC", "DHWIO", "NDHWC"), strides=(1, 1, 1))
    assert layer.bounds == Bounds(K=5, C=2, OY=24, OX=8, FY=9, FX=3)
    assert layer.macs == 4 * 6 * 8 * 27 * 2 * 5
    assert "folded" in layer.note


def test_stride_and_input_dilation_together_are_refused():
    with pytest.raises(ValueError, match="w: a convolution with both"):
        conv((1, 8, 8, 3), (3, 3, 3, 4), strides=(2, 2), padding=((1, 1), (1, 1)), lhs_dilation=(2, 2))


def test_weight_image_under_a_data_filter_is_refused():
    def fn(params, x):
        return jax.lax.conv(params["image"], x, (1, 1), "VALID")

    with pytest.raises(UnpriceableError, match="image: convolves a weight image"):
        trace(fn, {"image": normal(0, 1, 3, 9, 9)}, normal(1, 4, 3, 3, 3))


def test_dense_layer_of_a_vector_has_no_positions():
    assert einsum("bc,ck->bk", (7, 30), (30, 11)).bounds == Bounds(K=11, C=30)


def test_dense_layer_of_a_sequence_has_its_length_as_positions():
    layer = einsum("btc,ck->btk", (7, 20, 30), (30, 11))
    assert layer.bounds == Bounds(K=11, C=30, OX=20)
    assert (layer.kind, layer.macs) == ("dense", 20 * 30 * 11)


def test_role_follows_data_not_operand_order():
    def fn(params, x):
        return params["w"] @ x.T

    (layer,) = trace(fn, {"w": normal(0, 11, 30)}, normal(1, 7, 30)).workload.layers
    assert layer.bounds == Bounds(K=11, C=30)


def test_per_head_weights_are_groups():
    layer = einsum("bthc,hcd->bthd", (2, 9, 4, 8), (4, 8, 5))
    assert layer.bounds == Bounds(G=4, K=5, C=8, OX=9)
    assert layer.weight_words == 4 * 8 * 5


def test_vmapped_dense_layer_equals_the_batched_one():
    def fn(params, x):
        return jax.vmap(lambda row: row @ params["w"])(x)

    (layer,) = trace(fn, {"w": normal(0, 30, 11)}, normal(1, 7, 30)).workload.layers
    assert layer.bounds == Bounds(K=11, C=30)


def test_product_of_two_activations_has_two_data_operands():
    def fn(params, x):
        h = x @ params["w"]
        return jnp.einsum("bthd,bshd->bhts", h.reshape(-1, 6, 2, 4), h.reshape(-1, 6, 2, 4))

    dense, matmul = trace(fn, {"w": normal(0, 8, 8)}, normal(1, 3, 6, 8)).workload.layers
    assert (matmul.kind, matmul.name, matmul.weight_leaves) == ("matmul", "matmul", ())
    assert matmul.bounds == Bounds(G=2, K=6, C=4, OX=6)
    assert matmul.inputs == (dense.name,)


def test_ragged_product_is_priced_as_even_routing():
    def fn(params, x):
        sizes = jnp.array([4, 2])
        return jax.lax.ragged_dot(x.reshape(-1, 3), params["experts"], sizes)

    (layer,) = trace(fn, {"experts": normal(0, 2, 3, 5)}, normal(1, 1, 6, 3)).workload.layers
    assert layer.macs == 6 * 3 * 5 and layer.weight_words == 2 * 3 * 5
    assert "evenly" in layer.note


def test_bounds_multiply_to_the_macs():
    layer = conv((1, 9, 9, 4), (3, 3, 2, 6), feature_group_count=2)
    assert layer.macs == math.prod(layer.bounds) == 9 * 9 * 9 * 2 * 6
