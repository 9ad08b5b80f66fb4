"""Trains HGQ2 along a rising price of bits, and its float twin; run by the experiment in the peers' environment.

    KERAS_BACKEND=jax runs/peers/environment/bin/python experiments/peers/hgq_train.py --data FILE.npz
        --network peers_cnn --granularity tensor --betas 3e-8 1e-7 --epochs 60 --seed 0 --out DIR
FILE.npz holds x_train, y_train, x_val, ... as `run.py` writes them. Weights get one width each tensor or one each
weight, inputs one each tensor. One network is trained through all prices of a bit operation (beta), lowest first, as
HGQ2's schedules do; each price ends in a cosine of its own and gives one point, the look of best validation accuracy
among its last. Writes DIR/GRANULARITY_I.npz a point and DIR/GRANULARITY_time.npz, without pickles.
"""

import argparse
import pathlib
import time

import keras
import numpy as np
from hgq.config import LayerConfigScope, QuantizerConfig
from hgq.layers import QConv2D, QDense
from hgq.utils import trace_minmax

STATS_IMAGES = 512  # on which zero rates are measured, as many as by the package's own plan
TIMED_EPOCHS = 3


class Layers:
    """Convolutions and dense layers, quantized by HGQ2 or float, with the same arguments."""

    def __init__(self, granularity: str | None) -> None:
        self.granularity = granularity

    def _widths(self) -> dict[str, object]:
        if self.granularity is None:
            return {}
        one = () if self.granularity == "tensor" else None
        weights = {"heterogeneous_axis": (), "homogeneous_axis": None} if one == () else {"homogeneous_axis": ()}
        data = {"heterogeneous_axis": (), "homogeneous_axis": None}
        return {
            "kq_conf": QuantizerConfig("kbi", "weight", **weights),
            "bq_conf": QuantizerConfig("kbi", "bias", **data),
            "iq_conf": QuantizerConfig("kif", "datalane", **data),
        }

    def conv(self, name: str, channels: int, taps: int, stride: int = 1, padding: str = "same"):
        """A convolution with bias."""
        kind = keras.layers.Conv2D if self.granularity is None else QConv2D
        return kind(channels, (taps, taps), strides=(stride, stride), padding=padding, name=name, **self._widths())

    def dense(self, name: str, units: int):
        """A dense layer with bias."""
        kind = keras.layers.Dense if self.granularity is None else QDense
        return kind(units, name=name, **self._widths())


def peers_cnn(make: Layers, shape: tuple[int, ...]) -> keras.Model:
    """The network of `bit_operations/run.py`; batch normalization stays float and unpriced, as it does there."""
    x = image = keras.Input(shape)
    x = keras.layers.BatchNormalization(name="norm1")(make.conv("conv1", 16, 3)(x))
    x = keras.layers.ReLU()(x)
    x = keras.layers.BatchNormalization(name="norm2")(make.conv("conv2", 32, 3, stride=2)(x))
    x = keras.layers.Flatten()(keras.layers.ReLU()(x))
    return keras.Model(image, make.dense("dense", 10)(x))


def lenet5(make: Layers, shape: tuple[int, ...]) -> keras.Model:
    """LeNet-5 as `cooptim.network.examples.LeNet5` has it."""
    x = image = keras.Input(shape)
    x = keras.layers.MaxPooling2D(2)(keras.layers.ReLU()(make.conv("c1", 6, 5)(x)))
    x = keras.layers.MaxPooling2D(2)(keras.layers.ReLU()(make.conv("c3", 16, 5, padding="valid")(x)))
    x = keras.layers.Flatten()(keras.layers.ReLU()(make.conv("c5", 120, 5, padding="valid")(x)))
    return keras.Model(image, make.dense("out", 10)(keras.layers.ReLU()(make.dense("f6", 84)(x))))


NETWORKS = {"peers_cnn": peers_cnn, "lenet5": lenet5}


def compiled(model: keras.Model, rate: float, steps: int) -> keras.Model:
    """The model with Adam, whose rate falls to 2 % along a cosine every `steps` steps and starts again."""
    cosine = keras.optimizers.schedules.CosineDecayRestarts(rate, steps, t_mul=1.0, m_mul=1.0, alpha=0.02)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(cosine), loss, metrics=["accuracy"])
    return model


def accuracy(model: keras.Model, x: np.ndarray, y: np.ndarray) -> float:
    """Share of correct labels in inference mode."""
    return float(np.mean(np.argmax(model.predict(x, batch_size=512, verbose=0), axis=-1) == y))


def set_beta(model: keras.Model, beta: float) -> None:
    """Prices every bit operation of every layer."""
    for layer in model.layers:
        if getattr(layer, "_beta", None) is not None:
            layer._beta.assign(beta)


def quantized(model: keras.Model) -> list:
    """The layers that multiply, first to last."""
    return [layer for layer in model.layers if hasattr(layer, "kernel")]


def point(model: keras.Model, x: np.ndarray) -> dict[str, np.ndarray]:
    """What the hardware sees of a traced model: words of weights and inputs, their widths, shares of zeros."""
    layers = quantized(model)
    taps = keras.Model(model.input, [layer.input for layer in layers])
    found: dict[str, np.ndarray] = {"layers": np.asarray([layer.name for layer in layers])}
    for layer, seen in zip(layers, taps.predict(x, batch_size=512, verbose=0), strict=True):
        words = np.asarray(layer.iq(seen, training=False))
        inside = layer.iq.quantizer
        found |= {
            f"{layer.name}/kernel": np.asarray(layer.qkernel),
            f"{layer.name}/bias": np.asarray(layer.qbias),
            f"{layer.name}/weight_bits": np.asarray(layer.kq.fbits),  # sign included
            f"{layer.name}/input_bits": np.asarray(layer.iq.fbits),
            f"{layer.name}/input_step": 2.0 ** -np.asarray(inside.f, np.float64),
            f"{layer.name}/input_max": np.max(np.abs(words)),
            f"{layer.name}/input_signed": np.any(words < 0),
            f"{layer.name}/input_density": np.mean(words != 0),
        }
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            names = ("scale", "bias", "mean", "var")
            values = (layer.gamma, layer.beta, layer.moving_mean, layer.moving_variance)
            found |= {f"{layer.name}/{name}": np.asarray(v) for name, v in zip(names, values, strict=True)}
    return found


def front(model: keras.Model, data: dict[str, np.ndarray], args: argparse.Namespace, x_stats: np.ndarray) -> None:
    """Trains through all prices and writes one file a price."""
    fit = {"batch_size": args.batch, "verbose": 0, "shuffle": True}
    for i, beta in enumerate(args.betas):
        begin, best = time.process_time(), None
        set_beta(model, beta)
        model.fit(data["x_train"], data["y_train"], epochs=args.epochs - args.looks * args.look_epochs, **fit)
        for _ in range(args.looks):
            model.fit(data["x_train"], data["y_train"], epochs=args.look_epochs, **fit)
            weights = model.get_weights()
            ebops = trace_minmax(model, data["x_train"])
            reached = accuracy(model, data["x_val"], data["y_val"])
            if best is None or reached > best["val_accuracy"]:
                best = {"val_accuracy": reached, "ebops": ebops, "beta": beta} | point(model, x_stats)
                best["test_accuracy"] = accuracy(model, data["x_test"], data["y_test"])
            model.set_weights(weights)  # tracing moved integer bits and signs
        assert best is not None
        best["cpu_s"] = time.process_time() - begin
        np.savez(args.out / f"{args.granularity}_{i}.npz", **{k: np.asarray(v) for k, v in best.items()})
        print(f"{args.granularity} beta {beta:g}: validation {best['val_accuracy']:.4f}, EBOPs {best['ebops']}, "
              f"{best['cpu_s']:.0f} CPU-s", flush=True)  # fmt: skip


def step_s(model: keras.Model, data: dict[str, np.ndarray], batch: int, images: int) -> float:
    """CPU-seconds of a training step by `fit`, all threads, after one call that compiles: the median of three."""
    x, y, found = data["x_train"][:images], data["y_train"][:images], []
    for _ in range(TIMED_EPOCHS + 1):
        begin = time.process_time()
        model.fit(x, y, batch_size=batch, epochs=1, verbose=0)
        found.append((time.process_time() - begin) / -(-len(x) // batch))
    return float(np.median(found[1:]))


def main() -> None:
    """The float twin, the timing, the points."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--network", choices=NETWORKS, required=True)
    parser.add_argument("--granularity", choices=["tensor", "weight", "float"], required=True)
    parser.add_argument("--betas", type=float, nargs="*", default=[])
    parser.add_argument("--epochs", type=int, required=True, help="of one price; of the float twin")
    parser.add_argument("--looks", type=int, default=4, help="at validation, at the end of a price")
    parser.add_argument("--look-epochs", type=int, default=1, help="before each look")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--timed-images", type=int, default=0, help="0 times nothing")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(args.seed)
    with np.load(args.data, allow_pickle=False) as stored:
        data = {name: stored[name] for name in stored.files}
    shape = data["x_train"].shape[1:]
    steps = args.epochs * -(-len(data["x_train"]) // args.batch)
    build, name = NETWORKS[args.network], f"{args.granularity}_time.npz"
    if args.granularity == "float":
        model = compiled(build(Layers(None), shape), args.rate, steps)
        model.fit(data["x_train"], data["y_train"], batch_size=args.batch, epochs=args.epochs, verbose=0)
        found = {f"{s}_accuracy": accuracy(model, data[f"x_{s}"], data[f"y_{s}"]) for s in ("val", "test")}
    else:
        with LayerConfigScope(enable_ebops=True, beta0=args.betas[0] if args.betas else 0.0):
            model = compiled(build(Layers(args.granularity), shape), args.rate, steps)
        front(model, data, args, data["x_train"][:STATS_IMAGES])
        found = {}
    if args.timed_images:
        found["step_s"] = step_s(model, data, args.batch, args.timed_images)
    np.savez(args.out / name, **{k: np.asarray(v) for k, v in found.items()})


if __name__ == "__main__":
    main()
