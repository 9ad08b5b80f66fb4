"""Example networks as Flax NNX modules; each function `name(rngs)` serves `--model cooptim.network.examples:name`.

`published` has networks of the literature to the last weight, `blocks` and `sequences` small ones of their parts.
"""

import jax
import jax.numpy as jnp

from cooptim.network.examples.blocks import (
    DenseNet,
    InceptionNet,
    XceptionNet,
    densenet,
    inception_net,
    xception_net,
)
from cooptim.network.examples.published import (
    DSCNN,
    AlexNet,
    DigitsCNN,
    LeNet5,
    LeNet300,
    MobileNetV1,
    ResNet8,
    ResNet18,
    alexnet,
    alexnet_ungrouped,
    digits_cnn,
    ds_cnn,
    lenet5,
    lenet_300_100,
    mobilenet_v1,
    resnet8,
    resnet18,
)
from cooptim.network.examples.sequences import (
    LSTMClassifier,
    VisionTransformer,
    lstm_classifier,
    vision_transformer,
)

INPUT_SHAPES: dict[str, tuple[int, int, int]] = {
    "digits_cnn": (8, 8, 1),
    "lenet5": (28, 28, 1),
    "lenet_300_100": (28, 28, 1),
    "alexnet": (227, 227, 3),
    "alexnet_ungrouped": (227, 227, 3),
    "resnet8": (32, 32, 3),
    "resnet18": (224, 224, 3),
    "mobilenet_v1": (224, 224, 3),
    "ds_cnn": (49, 10, 1),
    "densenet": (32, 32, 3),
    "inception_net": (32, 32, 3),
    "xception_net": (32, 32, 3),
    "lstm_classifier": (28, 28, 1),
    "vision_transformer": (32, 32, 3),
}


def example_input(name: str, batch: int = 1) -> jax.ShapeDtypeStruct:
    """Shape of the input of one of the factories here, by its name."""
    return jax.ShapeDtypeStruct((batch, *INPUT_SHAPES[name]), jnp.float32)


__all__ = [
    "DSCNN",
    "INPUT_SHAPES",
    "AlexNet",
    "DenseNet",
    "DigitsCNN",
    "InceptionNet",
    "LSTMClassifier",
    "LeNet300",
    "LeNet5",
    "MobileNetV1",
    "ResNet8",
    "ResNet18",
    "VisionTransformer",
    "XceptionNet",
    "alexnet",
    "alexnet_ungrouped",
    "densenet",
    "digits_cnn",
    "ds_cnn",
    "example_input",
    "inception_net",
    "lenet5",
    "lenet_300_100",
    "lstm_classifier",
    "mobilenet_v1",
    "resnet8",
    "resnet18",
    "vision_transformer",
    "xception_net",
]
