"""What the example networks are made of."""

from flax import nnx
from jaxtyping import Array, Float

Image = Float[Array, "batch row column channel"]
Features = Float[Array, "batch out_row out_column out_channel"]
Logits = Float[Array, "batch label"]


def conv(
    channels: tuple[int, int],
    taps: tuple[int, int],
    rngs: nnx.Rngs,
    stride: int = 1,
    padding: str = "SAME",
    groups: int = 1,
    bias: bool = False,
) -> nnx.Conv:
    """A convolution from channels[0] to channels[1], without bias unless it is asked for."""
    return nnx.Conv(
        *channels, taps, strides=stride, padding=padding, feature_group_count=groups, use_bias=bias, rngs=rngs
    )


def add_separable(
    module: nnx.Module, number: int, channels: tuple[int, int], stride: int, bias: bool, rngs: nnx.Rngs
) -> None:
    """Sets dw<number>, pw<number> and their normalizations on `module`."""
    c_in, c_out = channels
    setattr(module, f"dw{number}", conv((c_in, c_in), (3, 3), rngs, stride=stride, groups=c_in, bias=bias))
    setattr(module, f"bn_dw{number}", nnx.BatchNorm(c_in, rngs=rngs))
    setattr(module, f"pw{number}", conv((c_in, c_out), (1, 1), rngs, bias=bias))
    setattr(module, f"bn_pw{number}", nnx.BatchNorm(c_out, rngs=rngs))


def separable(module: nnx.Module, number: int, x: Image) -> Features:
    """Output of the pair of convolutions that `add_separable` made, rectified after each."""
    for kind in ("dw", "pw"):
        x = nnx.relu(getattr(module, f"bn_{kind}{number}")(getattr(module, f"{kind}{number}")(x)))
    return x


class NormalConv(nnx.Module):
    """Convolution, batch normalization, rectifier."""

    def __init__(self, channels: tuple[int, int], taps: tuple[int, int], rngs: nnx.Rngs, stride: int = 1) -> None:
        self.conv = conv(channels, taps, rngs, stride=stride)
        self.bn = nnx.BatchNorm(channels[1], rngs=rngs)

    def __call__(self, x: Image) -> Features:
        """Rectified activations."""
        return nnx.relu(self.bn(self.conv(x)))
