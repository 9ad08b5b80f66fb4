"""Published small networks as Flax NNX modules, and the CNN of the demo.

Dimensions: LeCun et al. 1998 (LeNet-5 with a fully connected C3 and a plain output; LeNet-300-100),
Krizhevsky et al. 2012 (AlexNet), He et al. 2016 (ResNet-18), Howard et al. 2017 (MobileNetV1),
MLPerf Tiny (ResNet-8, DS-CNN).
"""

import jax.numpy as jnp
from flax import nnx

from cooptim.network.examples.parts import Features, Image, Logits, add_separable, conv, separable


class DigitsCNN(nnx.Module):
    """Two 3x3 convolutions at full resolution (8x8), max-pool, global average, one dense layer; 10 classes."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.conv1 = conv((1, 16), (3, 3), rngs)
        self.bn1 = nnx.BatchNorm(16, rngs=rngs)
        self.conv2 = conv((16, 32), (3, 3), rngs)
        self.bn2 = nnx.BatchNorm(32, rngs=rngs)
        self.dense = nnx.Linear(32, 10, rngs=rngs)

    def __call__(self, x: Image) -> Logits:
        """Logits of 8x8x1 images."""
        x = nnx.relu(self.bn1(self.conv1(x)))
        x = nnx.relu(self.bn2(self.conv2(x)))
        x = nnx.max_pool(x, (2, 2), (2, 2))
        return self.dense(jnp.mean(x, axis=(1, 2)))


class LeNet5(nnx.Module):
    """LeNet-5 on 28x28x1 images, which C1 pads to 32x32."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.c1 = conv((1, 6), (5, 5), rngs, bias=True)
        self.c3 = conv((6, 16), (5, 5), rngs, padding="VALID", bias=True)
        self.c5 = conv((16, 120), (5, 5), rngs, padding="VALID", bias=True)
        self.f6 = nnx.Linear(120, 84, rngs=rngs)
        self.out = nnx.Linear(84, 10, rngs=rngs)

    def __call__(self, x: Image) -> Logits:
        """Logits of 28x28x1 images."""
        x = nnx.max_pool(nnx.relu(self.c1(x)), (2, 2), (2, 2))
        x = nnx.max_pool(nnx.relu(self.c3(x)), (2, 2), (2, 2))
        x = nnx.relu(self.c5(x)).reshape(x.shape[0], -1)
        return self.out(nnx.relu(self.f6(x)))


class LeNet300(nnx.Module):
    """LeNet-300-100 on 28x28x1 images: dense layers of 300, 100 and 10."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.f1 = nnx.Linear(784, 300, rngs=rngs)
        self.f2 = nnx.Linear(300, 100, rngs=rngs)
        self.out = nnx.Linear(100, 10, rngs=rngs)

    def __call__(self, x: Image) -> Logits:
        """Logits of 28x28x1 images."""
        x = nnx.relu(self.f1(x.reshape(x.shape[0], -1)))
        return self.out(nnx.relu(self.f2(x)))


class AlexNet(nnx.Module):
    """AlexNet on 227x227x3 images; `groups` is 2 as published on two GPUs, or 1."""

    def __init__(self, rngs: nnx.Rngs, groups: int = 2) -> None:
        self.conv1 = conv((3, 96), (11, 11), rngs, stride=4, padding="VALID", bias=True)
        self.conv2 = conv((96, 256), (5, 5), rngs, groups=groups, bias=True)
        self.conv3 = conv((256, 384), (3, 3), rngs, bias=True)
        self.conv4 = conv((384, 384), (3, 3), rngs, groups=groups, bias=True)
        self.conv5 = conv((384, 256), (3, 3), rngs, groups=groups, bias=True)
        self.fc6 = nnx.Linear(9216, 4096, rngs=rngs)
        self.fc7 = nnx.Linear(4096, 4096, rngs=rngs)
        self.fc8 = nnx.Linear(4096, 1000, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x: Image) -> Logits:
        """Logits of 227x227x3 images."""
        x = nnx.max_pool(nnx.relu(self.conv1(x)), (3, 3), (2, 2))
        x = nnx.max_pool(nnx.relu(self.conv2(x)), (3, 3), (2, 2))
        x = nnx.relu(self.conv4(nnx.relu(self.conv3(x))))
        x = nnx.max_pool(nnx.relu(self.conv5(x)), (3, 3), (2, 2)).reshape(x.shape[0], -1)
        x = self.dropout(nnx.relu(self.fc6(x)))
        x = self.dropout(nnx.relu(self.fc7(x)))
        return self.fc8(x)


class _ResidualStage(nnx.Module):
    """ResNet-8's stage: two 3x3 convolutions beside the identity, or beside a 1x1 convolution where shapes change."""

    def __init__(self, channels: tuple[int, int], stride: int, rngs: nnx.Rngs) -> None:
        self.conv1 = conv(channels, (3, 3), rngs, stride=stride, bias=True)
        self.bn1 = nnx.BatchNorm(channels[1], rngs=rngs)
        self.conv2 = conv((channels[1], channels[1]), (3, 3), rngs, bias=True)
        self.bn2 = nnx.BatchNorm(channels[1], rngs=rngs)
        self.down = conv(channels, (1, 1), rngs, stride=stride, bias=True) if stride != 1 else None

    def __call__(self, x: Image) -> Features:
        """Activations after the second rectifier."""
        y = self.bn2(self.conv2(nnx.relu(self.bn1(self.conv1(x)))))
        return nnx.relu(y + (x if self.down is None else self.down(x)))


class ResNet8(nnx.Module):
    """ResNet-8 of MLPerf Tiny; images 32x32x3 as published, or of any size and `channels`."""

    def __init__(self, rngs: nnx.Rngs, channels: int = 3) -> None:
        self.conv0 = conv((channels, 16), (3, 3), rngs, bias=True)
        self.bn0 = nnx.BatchNorm(16, rngs=rngs)
        self.s1 = _ResidualStage((16, 16), 1, rngs)
        self.s2 = _ResidualStage((16, 32), 2, rngs)
        self.s3 = _ResidualStage((32, 64), 2, rngs)
        self.fc = nnx.Linear(64, 10, rngs=rngs)

    def __call__(self, x: Image) -> Logits:
        """Logits; the average before the last layer is over whatever positions are left."""
        x = nnx.relu(self.bn0(self.conv0(x)))
        x = self.s3(self.s2(self.s1(x)))
        return self.fc(jnp.mean(x, axis=(1, 2)))


class _BasicBlock(nnx.Module):
    """ResNet-18's block; without biases, and with a normalized 1x1 convolution where the shape changes."""

    def __init__(self, channels: tuple[int, int], stride: int, rngs: nnx.Rngs) -> None:
        self.conv1 = conv(channels, (3, 3), rngs, stride=stride)
        self.bn1 = nnx.BatchNorm(channels[1], rngs=rngs)
        self.conv2 = conv((channels[1], channels[1]), (3, 3), rngs)
        self.bn2 = nnx.BatchNorm(channels[1], rngs=rngs)
        self.down = conv(channels, (1, 1), rngs, stride=stride) if stride != 1 else None
        self.bn_down = nnx.BatchNorm(channels[1], rngs=rngs) if stride != 1 else None

    def __call__(self, x: Image) -> Features:
        """Activations after the second rectifier."""
        y = self.bn2(self.conv2(nnx.relu(self.bn1(self.conv1(x)))))
        return nnx.relu(y + (x if self.down is None or self.bn_down is None else self.bn_down(self.down(x))))


class ResNet18(nnx.Module):
    """ResNet-18 on 224x224x3 images."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.conv1 = conv((3, 64), (7, 7), rngs, stride=2)
        self.bn1 = nnx.BatchNorm(64, rngs=rngs)
        widths = (64, 64, 128, 256, 512)
        stages = [
            nnx.List(
                [_BasicBlock((widths[n], widths[n + 1]), 1 if n == 0 else 2, rngs)]
                + [_BasicBlock((widths[n + 1], widths[n + 1]), 1, rngs)]
            )
            for n in range(4)
        ]
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.fc = nnx.Linear(512, 1000, rngs=rngs)

    def __call__(self, x: Image) -> Logits:
        """Logits of 224x224x3 images."""
        x = nnx.max_pool(nnx.relu(self.bn1(self.conv1(x))), (3, 3), (2, 2), padding="SAME")
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            for block in stage:
                x = block(x)
        return self.fc(jnp.mean(x, axis=(1, 2)))


class MobileNetV1(nnx.Module):
    """MobileNetV1 (width 1.0) on 224x224x3 images."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.conv0 = conv((3, 32), (3, 3), rngs, stride=2)
        self.bn0 = nnx.BatchNorm(32, rngs=rngs)
        widths = (32, 64, 128, 128, 256, 256, *[512] * 6, 1024, 1024)
        self.strides = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)
        for n, stride in enumerate(self.strides):
            add_separable(self, n + 1, (widths[n], widths[n + 1]), stride, False, rngs)
        self.fc = nnx.Linear(1024, 1000, rngs=rngs)

    def __call__(self, x: Image) -> Logits:
        """Logits of 224x224x3 images."""
        x = nnx.relu(self.bn0(self.conv0(x)))
        for n in range(len(self.strides)):
            x = separable(self, n + 1, x)
        return self.fc(jnp.mean(x, axis=(1, 2)))


class DSCNN(nnx.Module):
    """DS-CNN (keyword spotting, MLPerf Tiny) on 49x10x1 spectrograms."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.conv0 = conv((1, 64), (10, 4), rngs, stride=2, bias=True)
        self.bn0 = nnx.BatchNorm(64, rngs=rngs)
        for n in range(4):
            add_separable(self, n + 1, (64, 64), 1, True, rngs)
        self.fc = nnx.Linear(64, 12, rngs=rngs)

    def __call__(self, x: Image) -> Logits:
        """Logits of 49x10x1 spectrograms."""
        x = nnx.relu(self.bn0(self.conv0(x)))
        for n in range(4):
            x = separable(self, n + 1, x)
        return self.fc(jnp.mean(x, axis=(1, 2)))


def digits_cnn(rngs: nnx.Rngs) -> DigitsCNN:
    """The demo's CNN for 8x8x1 digits."""
    return DigitsCNN(rngs)


def lenet5(rngs: nnx.Rngs) -> LeNet5:
    """LeNet-5 for 28x28x1 images."""
    return LeNet5(rngs)


def lenet_300_100(rngs: nnx.Rngs) -> LeNet300:
    """LeNet-300-100 for 28x28x1 images."""
    return LeNet300(rngs)


def alexnet(rngs: nnx.Rngs) -> AlexNet:
    """AlexNet with its two groups."""
    return AlexNet(rngs)


def alexnet_ungrouped(rngs: nnx.Rngs) -> AlexNet:
    """AlexNet without groups."""
    return AlexNet(rngs, groups=1)


def resnet8(rngs: nnx.Rngs) -> ResNet8:
    """ResNet-8 for 32x32x3 images."""
    return ResNet8(rngs)


def resnet18(rngs: nnx.Rngs) -> ResNet18:
    """ResNet-18 for 224x224x3 images."""
    return ResNet18(rngs)


def mobilenet_v1(rngs: nnx.Rngs) -> MobileNetV1:
    """MobileNetV1 for 224x224x3 images."""
    return MobileNetV1(rngs)


def ds_cnn(rngs: nnx.Rngs) -> DSCNN:
    """DS-CNN for 49x10x1 spectrograms."""
    return DSCNN(rngs)
