"""A labelled image set in three splits, checked when it is built."""

import dataclasses
import functools

import numpy as np
from jaxtyping import Int, Real

from cooptim.data.arrays import check_images, kind, labels, scaled
from cooptim.data.batches import batch_indices
from cooptim.data.stream import BatchStream

Raw = tuple[np.ndarray, np.ndarray]  # images and labels as they were stored


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Labelled inputs in three splits; validation is part of no other. Labels are 0..classes-1.

    Inputs are images NHWC, series [n, step, feature] or rows of features in float32, or rows of tokens in int32.

    Attributes:
      stream: where training batches come from when the training set is not held whole; then x_train and y_train are
        its first images, on which ranges and zero rates are measured.
    """

    name: str
    x_train: Real[np.ndarray, "train *image"]
    y_train: Int[np.ndarray, "train"]
    x_val: Real[np.ndarray, "val *image"]
    y_val: Int[np.ndarray, "val"]
    x_test: Real[np.ndarray, "test *image"]
    y_test: Int[np.ndarray, "test"]
    classes: int
    stream: BatchStream | None = None

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of one input, without the batch axis."""
        return tuple(self.x_train.shape[1:])

    @property
    def sample(self) -> Real[np.ndarray, "1 *image"]:
        """One training image with its batch axis, to trace a network with."""
        return self.x_train[:1]

    def batch(self, seed: int, step: int, size: int) -> tuple[Real[np.ndarray, "b *image"], Int[np.ndarray, "b"]]:
        """(images, labels) of training step `step`, the same whenever they are asked for.

        Of a held set: a function of `seed` and `step` (`batch_indices`), at most the whole set. Of a stream: its images
        in its own order, whatever the seed, from the start again when it ends.
        """
        if self.stream is not None:
            return self.stream.batch(step, size)
        index = self.rows(seed, step, size)
        return self.x_train[index], self.y_train[index]

    def rows(self, seed: int, step: int, size: int) -> Int[np.ndarray, "b"]:
        """Rows of a held training set that `batch` gives for these arguments."""
        return batch_indices(seed, step, len(self.x_train), min(size, len(self.x_train)))


def check_head(dataset: Dataset, outputs: int) -> None:
    """Raises ValueError unless a head of `outputs` logits can name every label of the dataset."""
    found = (int(names.max()) for names in (dataset.y_train, dataset.y_val, dataset.y_test))
    highest = max(*found, dataset.classes - 1)
    if highest >= outputs:
        raise ValueError(
            f"data {dataset.name}: label {highest} is out of range of a network with {outputs} outputs; "
            f"labels may be 0..{outputs - 1}: give the last layer {highest + 1} outputs or relabel the data"
        )


def standardized(dataset: Dataset) -> Dataset:
    """The same set with mean 0 and deviation 1 in every channel, both measured on the training split alone.

    Raises ValueError for a stream, which standardizes its own images, for tokens, and for a channel that never changes.
    """
    if kind(dataset.x_train) == "tokens":
        raise ValueError(f"data {dataset.name}: tokens are names, not quantities; leave them as they are")
    if dataset.stream is not None:
        raise ValueError(f"data {dataset.name}: a stream is not held; let it yield images of mean 0 and deviation 1")
    axes = tuple(range(dataset.x_train.ndim - 1))
    mean, deviation = dataset.x_train.mean(axes, np.float64), dataset.x_train.std(axes, dtype=np.float64)
    if not np.all(deviation > 0):
        raise ValueError(
            f"data {dataset.name}: channel {int(np.argmin(deviation))} is the same in every training image; remove it"
        )
    shift, factor = mean.astype(np.float32), (1.0 / deviation).astype(np.float32)
    moved = {name: (getattr(dataset, name) - shift) * factor for name in ("x_train", "x_val", "x_test")}
    return dataclasses.replace(dataset, **moved)


def split_dataset(
    name: str, train: Raw, test: Raw, val_share: float, seed: int, val: Raw | None = None, classes: int | None = None,
    series: bool = False,
) -> Dataset:  # fmt: skip
    """A checked Dataset from raw arrays; without `val`, validation is cut from the training set, class by class.

    Args:
      val_share: share of each class of the training set that becomes validation, in (0, 1).
      seed: of the cut.
      classes: number of classes; default the training labels' highest and one.
      series: inputs of three axes are [n, step, feature] and get no channel axis.
    """
    if not 0.0 < val_share < 1.0:
        raise ValueError(f"data {name}: val_share {val_share} is out of range; use a share in (0, 1), such as 0.2")
    ready = functools.partial(scaled, series=series)
    given = {"train": train, "test": test} | ({} if val is None else {"val": val})
    names: dict[str, np.ndarray] = {}
    for split, (x, y) in given.items():
        check_images(x, f"data {name}, x_{split}")
        names[split] = labels(y, len(x), f"data {name}, y_{split}")
    shapes = {split: ready(x[:1]).shape[1:] for split, (x, _) in given.items()}
    for split, said in (("test", "test"), ("val", "validation")):
        if shapes.get(split, shapes["train"]) != shapes["train"]:
            raise ValueError(
                f"data {name}: training images are {shapes['train']}, {said} images {shapes[split]}; make them equal"
            )
    kinds = {split: kind(x) for split, (x, _) in given.items()}
    for split, found in kinds.items():
        if (found == "tokens") != (kinds["train"] == "tokens"):
            raise ValueError(
                f"data {name}: x_train holds {kinds['train']}, x_{split} {found}; store tokens as whole numbers in all"
            )
        if found != kinds["train"]:
            raise ValueError(
                f"data {name}: x_train holds {kinds['train']}, x_{split} {found}; bytes become 0..1 and floats stay as "
                "they are, so store all splits alike"
            )
    count = int(names["train"].max()) + 1 if classes is None else classes
    for split, y in names.items():
        if int(y.max()) >= count:
            why = (
                f"the training labels end at {count - 1}" if classes is None else f"{count} classes end at {count - 1}"
            )
            raise ValueError(f"data {name}, y_{split}: label {int(y.max())} is out of range; {why}")
    x_test, y_test = ready(test[0]), names["test"]
    if val is not None:
        return Dataset(
            name, ready(train[0]), names["train"], ready(val[0]), names["val"], x_test, y_test, count
        )  # fmt: skip
    held = validation_mask(names["train"], val_share, seed)
    if not held.any() or held.all():
        raise ValueError(
            f"data {name}: {len(held)} training images leave no validation or no training split; add images"
        )
    (x, y), kept = (train[0], names["train"]), ~held
    return Dataset(name, ready(x[kept]), y[kept], ready(x[held]), y[held], x_test, y_test, count)


def validation_mask(y: Int[np.ndarray, "n"], share: float, seed: int) -> np.ndarray:
    """True for the rows that become validation: the same share of each class, rounded, chosen by `seed`."""
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence(seed)))
    mask = np.zeros(len(y), dtype=bool)
    for label in np.unique(y):
        rows = np.flatnonzero(y == label)
        mask[generator.permutation(rows)[: round(share * len(rows))]] = True
    return mask
