"""A Dataset from batches that a user yields."""

import dataclasses
from typing import Any

from cooptim.data.dataset import Dataset, split_dataset
from cooptim.data.stream import BatchStream, read_whole, restarts


def data_from_batches(
    train: Any, *, test: Any, val: Any = None, train_images: int | None = None, classes: int | None = None,
    name: str = "batches", val_share: float = 0.2, seed: int = 0, series: bool = False,
) -> Dataset:  # fmt: skip
    """A Dataset from sources of (images, labels) batches, such as generators and Grain's loaders.

    Args:
      train, val, test: sources as `cooptim.data.stream` says; `test` and `val` have to end. Without `val`, validation
        is cut from the training images, class by class, as everywhere.
      train_images: None reads `train` whole into memory, where each step shuffles by its own key. For a source that
        does not end or does not fit: so many of its first images are held for ranges and zero rates, and every step
        trains on the next batch of the source in its own order, which starts again for each stage of a run. A mere
        iterator cannot start again: of it the held images are all that is trained on. A source that goes on beyond
        `train_images` needs `val`, for images cut from a stream would come by again in training.
      classes: number of classes, where the held labels may not show all of them.
      val_share, seed: of the cut.
      series: inputs of three axes are [n, step, feature], not images [n, y, x], and get no channel axis.

    Raises ValueError that names the split and the batch for what is no labelled image or unlike the rest.
    """
    if train_images is not None and train_images < 1:
        raise ValueError(f"data {name}: train_images {train_images} is out of range; hold at least 1, such as 1000")
    x, y, ended = read_whole(train, f"data {name}, train", train_images)
    if not ended and val is None:
        raise ValueError(
            f"data {name}, train: goes on beyond train_images={train_images}, so no validation can be cut from it; "
            "give val"
        )
    held_test = read_whole(test, f"data {name}, test")[:2]
    held_val = None if val is None else read_whole(val, f"data {name}, val")[:2]
    if not ended and classes is None:
        classes = 1 + max(int(names.max()) for names in (y, held_test[1], (held_val or held_test)[1]))
    data = split_dataset(name, (x, y), held_test, val_share, seed, held_val, classes, series)
    if ended or not restarts(train):
        return data
    return dataclasses.replace(data, stream=BatchStream(train, f"data {name}, train", data.classes, series))
