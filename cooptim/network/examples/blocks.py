"""Small networks of the blocks of DenseNet, Inception and Xception, for images of 32x32x3 unless said otherwise.

Dimensions are ours, small enough for a CPU; the blocks are those of Huang et al. 2017 (DenseNet: normalization and
rectifier before the convolution, concatenation, halving transitions), Szegedy et al. 2015 (Inception: four parallel
paths, 1x1 reductions before 3x3 and 5x5) and Chollet 2017 (Xception: separable convolutions beside a 1x1 shortcut).
"""

import jax.numpy as jnp
from flax import nnx

from cooptim.network.examples.parts import Features, Image, Logits, NormalConv, conv


class _DenseLayer(nnx.Module):
    """Normalization, rectifier and a 3x3 convolution to `growth` channels, which join the channels that came in."""

    def __init__(self, channels: int, growth: int, rngs: nnx.Rngs) -> None:
        self.bn = nnx.BatchNorm(channels, rngs=rngs)
        self.conv = conv((channels, growth), (3, 3), rngs)

    def __call__(self, x: Image) -> Features:
        """All channels so far."""
        return jnp.concatenate([x, self.conv(nnx.relu(self.bn(x)))], axis=-1)


class _Transition(nnx.Module):
    """Normalization, rectifier, a 1x1 convolution to half the channels, a mean over 2x2 pixels."""

    def __init__(self, channels: int, rngs: nnx.Rngs) -> None:
        self.bn = nnx.BatchNorm(channels, rngs=rngs)
        self.conv = conv((channels, channels // 2), (1, 1), rngs)

    def __call__(self, x: Image) -> Features:
        """Half the channels at half the resolution."""
        return nnx.avg_pool(self.conv(nnx.relu(self.bn(x))), (2, 2), (2, 2))


class DenseNet(nnx.Module):
    """Dense blocks of `layers` convolutions each, transitions between them, global average, one dense layer."""

    def __init__(
        self,
        rngs: nnx.Rngs,
        growth: int = 12,
        layers: tuple[int, ...] = (4, 4, 4),
        channels: int = 3,
        classes: int = 10,
    ) -> None:
        width = 2 * growth
        self.stem = conv((channels, width), (3, 3), rngs)
        blocks: list[nnx.Module] = []
        for number, depth in enumerate(layers):
            if number:
                blocks.append(_Transition(width, rngs))
                width //= 2
            for _ in range(depth):
                blocks.append(_DenseLayer(width, growth, rngs))
                width += growth
        self.blocks = nnx.List(blocks)
        self.bn = nnx.BatchNorm(width, rngs=rngs)
        self.fc = nnx.Linear(width, classes, rngs=rngs)

    def __call__(self, x: Image) -> Logits:
        """Logits of images."""
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.fc(jnp.mean(nnx.relu(self.bn(x)), axis=(1, 2)))


class _Inception(nnx.Module):
    """Four paths side by side: 1x1; 1x1 then 3x3; 1x1 then 5x5; 3x3 maximum then 1x1."""

    def __init__(self, channels: int, width: int, rngs: nnx.Rngs) -> None:
        half = max(1, width // 2)
        self.one = NormalConv((channels, width), (1, 1), rngs)
        self.three_in = NormalConv((channels, width), (1, 1), rngs)
        self.three = NormalConv((width, 2 * width), (3, 3), rngs)
        self.five_in = NormalConv((channels, half), (1, 1), rngs)
        self.five = NormalConv((half, half), (5, 5), rngs)
        self.pool = NormalConv((channels, half), (1, 1), rngs)

    def __call__(self, x: Image) -> Features:
        """The channels of all four paths: `inception_channels` of them."""
        pooled = nnx.max_pool(x, (3, 3), (1, 1), padding="SAME")
        paths = [self.one(x), self.three(self.three_in(x)), self.five(self.five_in(x)), self.pool(pooled)]
        return jnp.concatenate(paths, axis=-1)


def inception_channels(width: int) -> int:
    """Output channels of an Inception block: width + 2 width + 2 halves of it."""
    return 3 * width + 2 * max(1, width // 2)


class InceptionNet(nnx.Module):
    """A convolution of stride 2, Inception blocks with a 2x2 maximum after each but the last, global average, dense."""

    def __init__(
        self, rngs: nnx.Rngs, widths: tuple[int, ...] = (16, 24), stem: int = 16, channels: int = 3, classes: int = 10
    ) -> None:
        self.stem = NormalConv((channels, stem), (3, 3), rngs, stride=2)
        blocks, width_in = [], stem
        for width in widths:
            blocks.append(_Inception(width_in, width, rngs))
            width_in = inception_channels(width)
        self.blocks = nnx.List(blocks)
        self.fc = nnx.Linear(width_in, classes, rngs=rngs)

    def __call__(self, x: Image) -> Logits:
        """Logits of images."""
        x = self.stem(x)
        for number, block in enumerate(self.blocks):
            x = block(x if number == 0 else nnx.max_pool(x, (2, 2), (2, 2)))
        return self.fc(jnp.mean(x, axis=(1, 2)))


class _SeparableConv(nnx.Module):
    """A rectifier, a 3x3 convolution of each channel alone, a 1x1 over channels, normalization."""

    def __init__(self, channels: tuple[int, int], rngs: nnx.Rngs) -> None:
        self.dw = conv((channels[0], channels[0]), (3, 3), rngs, groups=channels[0])
        self.pw = conv(channels, (1, 1), rngs)
        self.bn = nnx.BatchNorm(channels[1], rngs=rngs)

    def __call__(self, x: Image) -> Features:
        """Activations before the next rectifier."""
        return self.bn(self.pw(self.dw(nnx.relu(x))))


class _Xception(nnx.Module):
    """Two separable convolutions and a maximum of stride 2, beside a 1x1 convolution of stride 2."""

    def __init__(self, channels: tuple[int, int], rngs: nnx.Rngs) -> None:
        self.sep1 = _SeparableConv(channels, rngs)
        self.sep2 = _SeparableConv((channels[1], channels[1]), rngs)
        self.skip = conv(channels, (1, 1), rngs, stride=2)
        self.bn_skip = nnx.BatchNorm(channels[1], rngs=rngs)

    def __call__(self, x: Image) -> Features:
        """Activations at half the resolution."""
        y = nnx.max_pool(self.sep2(self.sep1(x)), (3, 3), (2, 2), padding="SAME")
        return y + self.bn_skip(self.skip(x))


class XceptionNet(nnx.Module):
    """A convolution, Xception blocks from one width to the next, rectifier, global average, one dense layer."""

    def __init__(
        self, rngs: nnx.Rngs, widths: tuple[int, ...] = (16, 32, 64), channels: int = 3, classes: int = 10
    ) -> None:
        self.stem = NormalConv((channels, widths[0]), (3, 3), rngs)
        pairs = zip(widths[:-1], widths[1:], strict=True)
        self.blocks = nnx.List([_Xception(pair, rngs) for pair in pairs])
        self.fc = nnx.Linear(widths[-1], classes, rngs=rngs)

    def __call__(self, x: Image) -> Logits:
        """Logits of images."""
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.fc(jnp.mean(nnx.relu(x), axis=(1, 2)))


def densenet(rngs: nnx.Rngs) -> DenseNet:
    """A DenseNet of three blocks of four layers for 32x32x3 images."""
    return DenseNet(rngs)


def inception_net(rngs: nnx.Rngs) -> InceptionNet:
    """Two Inception blocks for 32x32x3 images."""
    return InceptionNet(rngs)


def xception_net(rngs: nnx.Rngs) -> XceptionNet:
    """Two Xception blocks for 32x32x3 images."""
    return XceptionNet(rngs)
