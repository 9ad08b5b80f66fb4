"""Batches from what a user iterates over: lists, generators, functions that return either, Grain's loaders.

The protocol, by its methods alone (no library is imported):
- a source yields pairs (images, labels) of a batch, or of one example whose label has no axis;
- it is an iterable (a list of batches, Grain's DataLoader, MapDataset and IterDataset), a function without arguments
  that returns one, an object with `len` and indices, or one pair of arrays;
- it may end or go on for ever. One that can be iterated again (everything but an iterator itself, such as a generator)
  must yield the same batches each time, for that is how a resumed run finds its place.
"""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Int, Real

from cooptim.data.arrays import check_images, kind, labels, scaled

HELD_BYTES = 4 * 2**30  # images of one split in memory, as float32
_FORM = "yield pairs (images, labels) of arrays, such as by .map(lambda e: (e['image'], e['label']))"


def restarts(source: Any) -> bool:
    """Whether the source can be iterated from its start again."""
    return not hasattr(source, "__iter__") or iter(source) is not source


def raw_batches(source: Any, who: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Checked batches (images, labels) of one pass over the source; dtype of the images as stored, labels int32.

    Raises ValueError, naming the batch, for what is no pair, no image or no label, and for images unlike the first's.
    """
    first: np.ndarray | None = None
    for number, element in enumerate(_elements(source, who)):
        place = f"{who}, batch {number}"
        if not isinstance(element, tuple | list) or len(element) != 2:
            raise ValueError(f"{place}: found {_said(element)}; {_FORM}")
        try:
            x, y = (np.asarray(part) for part in element)
        except (ValueError, TypeError) as error:  # ragged lists
            raise ValueError(f"{place}: no array ({error}); {_FORM}") from None
        if y.ndim == 0:  # one example
            x, y = x[None], y[None]
        check_images(x, place)
        if first is None:
            first = x[:0]
        if x.shape[1:] != first.shape[1:] or kind(x) != kind(first):
            raise ValueError(
                f"{place}: images {x.dtype}{list(x.shape[1:])}, those before are {first.dtype}{list(first.shape[1:])}; "
                "make them equal"
            )
        yield x, labels(y, len(x), place)


def _elements(source: Any, who: str) -> Iterator[Any]:
    """What one pass over the source yields."""
    if isinstance(source, tuple) and len(source) == 2 and all(hasattr(part, "shape") for part in source):
        return iter([source])
    if hasattr(source, "__iter__"):
        return iter(source)
    if callable(source):
        return _elements(source(), who)
    if hasattr(source, "__getitem__") and hasattr(source, "__len__"):
        return (source[index] for index in range(len(source)))
    raise ValueError(f"{who}: a {type(source).__name__} cannot be iterated; {_FORM}, or give a function that does")


def _said(element: Any) -> str:
    if isinstance(element, dict):
        return f"a dict of {', '.join(map(str, element))}"
    size = f" of {len(element)}" if isinstance(element, tuple | list) else ""
    return f"a {type(element).__name__}{size}"


def read_whole(source: Any, who: str, most: int | None = None) -> tuple[np.ndarray, np.ndarray, bool]:
    """(images, labels, whether the source ended) of at most `most` images, as stored.

    Raises ValueError for an empty source, and for one that does not end within `HELD_BYTES`.
    """
    found: list[tuple[np.ndarray, np.ndarray]] = []
    count, held = 0, 0
    for x, y in raw_batches(source, who):
        found.append((np.array(x), y))  # a loader may fill the same memory again
        count, held = count + len(x), held + 4 * x.size
        if most is not None and count > most:
            break
        if held > HELD_BYTES:
            raise ValueError(
                f"{who}: has not ended after {count} images ({held / 2**30:.1f} GiB, legal are "
                f"{HELD_BYTES / 2**30:.0f}); say with train_images how many to hold, and training streams the rest"
            )
    if not found:
        raise ValueError(f"{who}: yields no batch; give at least one")
    images, names = (np.concatenate(part) for part in zip(*found, strict=True))
    ended = most is None or count <= most
    return (images, names, True) if ended else (images[:most], names[:most], False)


class BatchStream:
    """Training batches of one size cut from a source that can start again; holds the place where it reads.

    Step s sees images s * size to (s + 1) * size of the source, repeated for ever. Steps asked for in order are read
    once; an earlier one starts the source anew.
    """

    def __init__(self, source: Any, who: str, classes: int, series: bool = False) -> None:
        self._source, self._who, self._classes, self._series = source, who, classes, series
        self._batches: Iterator[tuple[np.ndarray, np.ndarray]] = iter(())
        self._left: list[tuple[np.ndarray, np.ndarray]] = []
        self._place = (0, -1)  # size, next step

    def batch(self, step: int, size: int) -> tuple[Real[np.ndarray, "b *image"], Int[np.ndarray, "b"]]:
        """(images, labels) of step `step`.

        Raises ValueError for a source that yields nothing, and as `raw_batches` does.
        """
        if self._place[0] != size or self._place[1] < 0 or self._place[1] > step:
            self._batches, self._left, self._place = self._endless(), [], (size, 0)
        while True:
            x, y = self._take(size)
            at, self._place = self._place[1], (size, self._place[1] + 1)
            if at == step:
                return scaled(x, self._series), y

    def _endless(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for turn in itertools.count():
            empty = True
            for x, y in raw_batches(self._source, f"{self._who}, pass {turn}"):
                if int(y.max()) >= self._classes:
                    raise ValueError(
                        f"{self._who}, pass {turn}: label {int(y.max())} is out of range; {self._classes} classes end "
                        f"at {self._classes - 1}: give classes={int(y.max()) + 1} or relabel the data"
                    )
                empty = False
                yield x, y
            if empty:
                raise ValueError(f"{self._who}, pass {turn}: yields no batch; it must start again from its beginning")

    def _take(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        """The next `size` images as stored; what is left of a batch is kept for the next."""
        have = sum(len(y) for _, y in self._left)
        while have < size:
            x, y = next(self._batches)
            self._left.append((np.array(x), y))
            have += len(y)
        images, names = (np.concatenate(part) for part in zip(*self._left, strict=True))
        self._left = [(images[size:], names[size:])]
        return images[:size], names[:size]
