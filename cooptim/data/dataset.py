"""A labelled image set in three splits, checked when it is built."""

import dataclasses

import numpy as np
from jaxtyping import Float, Int


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Images NHWC in float32 (or rows of features) and labels 0..classes-1; validation is part of no other split."""

    name: str
    x_train: Float[np.ndarray, "train *image"]
    y_train: Int[np.ndarray, "train"]
    x_val: Float[np.ndarray, "val *image"]
    y_val: Int[np.ndarray, "val"]
    x_test: Float[np.ndarray, "test *image"]
    y_test: Int[np.ndarray, "test"]
    classes: int

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of one input, without the batch axis."""
        return tuple(self.x_train.shape[1:])

    @property
    def sample(self) -> Float[np.ndarray, "1 *image"]:
        """One training image with its batch axis, to trace a network with."""
        return self.x_train[:1]


def check_head(dataset: Dataset, outputs: int) -> None:
    """Raises ValueError unless a head of `outputs` logits can name every label of the dataset."""
    highest = max(int(labels.max()) for labels in (dataset.y_train, dataset.y_val, dataset.y_test))
    if highest >= outputs:
        raise ValueError(
            f"data {dataset.name}: label {highest} is out of range of a network with {outputs} outputs; "
            f"labels may be 0..{outputs - 1}: give the last layer {highest + 1} outputs or relabel the data"
        )


def images(array: np.ndarray, who: str) -> Float[np.ndarray, "n *image"]:
    """Images as float32 with a channel axis: uint8 scaled to [0, 1], floats kept, rows of features left as they are.

    Raises ValueError when dtype or shape is none of these, or a number is not finite.
    """
    if array.dtype != np.uint8 and not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f"{who}: dtype {array.dtype} is no image; store uint8 (0..255, scaled to [0, 1]) or floats")
    if array.ndim not in (2, 3, 4) or 0 in array.shape:
        raise ValueError(
            f"{who}: shape {array.shape} is no set of images; legal are [n, y, x], [n, y, x, channel] and "
            "[n, features], none empty"
        )
    if array.dtype == np.uint8:
        scaled = np.multiply(array, np.float32(1.0 / 255.0), dtype=np.float32)
    else:
        scaled = array.astype(np.float32)
        if not np.isfinite(scaled).all():
            raise ValueError(f"{who}: {int((~np.isfinite(scaled)).sum())} values are NaN or infinite; remove them")
    return scaled[..., None] if array.ndim == 3 else scaled


def labels(array: np.ndarray, count: int, who: str) -> Int[np.ndarray, "n"]:
    """Labels as int32, one an image.

    Raises ValueError for another shape, a dtype that is not whole numbers, a count unlike the images', or a label < 0.
    """
    if not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"{who}: dtype {array.dtype} is no label; store whole numbers from 0")
    if array.shape != (count,):
        raise ValueError(f"{who}: shape {array.shape} does not fit {count} images; store one label an image, [{count}]")
    if count and (int(array.min()) < 0 or int(array.max()) > 1_000_000):
        worst = int(array.min()) if int(array.min()) < 0 else int(array.max())
        raise ValueError(f"{who}: label {worst} is out of range; number the classes from 0")
    return array.astype(np.int32)


def split_dataset(
    name: str, train: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray], val_share: float, seed: int
) -> Dataset:
    """A checked Dataset from raw training and test arrays; validation is cut from the training set, class by class.

    Args:
      val_share: share of each class of the training set that becomes validation, in (0, 1).
      seed: of the cut.
    """
    if not 0.0 < val_share < 1.0:
        raise ValueError(f"data {name}: val_share {val_share} is out of range; use a share in (0, 1), such as 0.2")
    x_train, x_test = images(train[0], f"data {name}, x_train"), images(test[0], f"data {name}, x_test")
    y_train = labels(train[1], len(x_train), f"data {name}, y_train")
    y_test = labels(test[1], len(x_test), f"data {name}, y_test")
    if x_train.shape[1:] != x_test.shape[1:]:
        raise ValueError(
            f"data {name}: training images are {x_train.shape[1:]}, test images {x_test.shape[1:]}; make them equal"
        )
    classes = int(y_train.max()) + 1
    if int(y_test.max()) >= classes:
        raise ValueError(
            f"data {name}, y_test: label {int(y_test.max())} is out of range; the training labels end at {classes - 1}"
        )
    held = validation_mask(y_train, val_share, seed)
    if not held.any() or held.all():
        raise ValueError(
            f"data {name}: {len(y_train)} training images leave no validation or no training split; add images"
        )
    kept = ~held
    return Dataset(name, x_train[kept], y_train[kept], x_train[held], y_train[held], x_test, y_test, classes)


def validation_mask(y: Int[np.ndarray, "n"], share: float, seed: int) -> np.ndarray:
    """True for the rows that become validation: the same share of each class, rounded, chosen by `seed`."""
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence(seed)))
    mask = np.zeros(len(y), dtype=bool)
    for label in np.unique(y):
        rows = np.flatnonzero(y == label)
        mask[generator.permutation(rows)[: round(share * len(rows))]] = True
    return mask
