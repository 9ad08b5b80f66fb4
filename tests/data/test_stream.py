"""Sets from batches that a user yields: held or streamed, by the methods of the sources alone."""

import itertools

import numpy as np
import pytest

from cooptim.data import check_head, data_from_batches, standardized, stream


def image(n):
    return np.full((2, 3, 1), n, np.uint8)


def pairs(count, size, classes=3, first=0):
    """Batches of `size` of the images `first` to `count`, each its own number; the last may be shorter."""
    for start in range(first, count, size):
        rows = range(start, min(start + size, count))
        yield np.stack([image(n) for n in rows]), np.array([n % classes for n in rows])


class Loader:
    """Iterable again and again, as a list of batches or Grain's DataLoader."""

    def __init__(self, count, size):
        self.count, self.size = count, size

    def __iter__(self):
        return pairs(self.count, self.size)


class Rows:
    """A data source with a length and indices, and nothing else; one example an index."""

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, n):
        return image(n), np.int64(n % 3)


class Mapped(Rows):
    """Grain's MapDataset: indices wrap, so it must be iterated, not indexed, until it ends."""

    def __getitem__(self, n):
        return super().__getitem__(n % self.count)

    def __iter__(self):
        return (self[n] for n in range(self.count))


TEST = (np.stack([image(n) for n in range(200, 206)]), np.arange(6) % 3)
SOURCES = {
    "generator": lambda: pairs(60, 7),
    "list of batches": lambda: list(pairs(60, 7)),
    "function": lambda: lambda: pairs(60, 7),
    "function of a loader": lambda: lambda: Loader(60, 7),
    "loader": lambda: Loader(60, 7),
    "indices": lambda: Rows(60),
    "map data set": lambda: Mapped(60),
    "pair of arrays": lambda: tuple(np.concatenate(part) for part in zip(*pairs(60, 7), strict=True)),
}


def numbers(x):
    return np.round(x[:, 0, 0, 0] * 255).astype(int).tolist()


@pytest.mark.parametrize("name", SOURCES)
def test_a_source_that_ends_is_held_whole(name):
    data = data_from_batches(SOURCES[name](), test=TEST, val_share=0.2, name="mine")
    assert (data.image_shape, data.classes, data.stream) == ((2, 3, 1), 3, None)
    assert sorted(numbers(data.x_train) + numbers(data.x_val)) == list(range(60))
    assert np.bincount(data.y_val).tolist() == [4, 4, 4] and numbers(data.x_test) == list(range(200, 206))
    assert [n % 3 for n in numbers(data.x_train)] == data.y_train.tolist()
    # Each step is a function of seed and step, and an epoch shows each image once.
    steps = [numbers(data.batch(5, step, 8)[0]) for step in range(6)]
    assert len(set(itertools.chain(*steps))) == 48 == len(data.x_train)
    assert numbers(data.batch(5, 3, 8)[0]) == steps[3] and numbers(data.batch(6, 3, 8)[0]) != steps[3]


def endless():
    while True:
        yield from pairs(20, 6)


@pytest.mark.parametrize("source", [endless, lambda: pairs(20, 6), lambda: Loader(20, 6)])
def test_a_stream_shows_its_images_in_order_whatever_the_batches(source):
    data = data_from_batches(source, test=TEST, val=TEST, train_images=8)
    assert numbers(data.x_train) == list(range(8)) and data.stream is not None
    # Step 4 of 5 images are images 20 to 25, the source repeated.
    assert numbers(data.batch(0, 4, 5)[0]) == [0, 1, 2, 3, 4]
    x, y = data.batch(0, 3, 7)
    assert numbers(x) == [1, 2, 3, 4, 5, 6, 7] and y.tolist() == [1, 2, 0, 1, 2, 0, 1]
    assert (x.dtype, y.dtype, x.shape) == (np.float32, np.int32, (7, 2, 3, 1))


def test_a_step_of_a_stream_is_the_same_in_order_and_out_of_order():
    data = data_from_batches(endless, test=TEST, val=TEST, train_images=8)
    forward = [numbers(data.batch(0, step, 6)[0]) for step in range(9)]
    for step in (8, 3, 3, 4, 0, 7):
        assert numbers(data.batch(1, step, 6)[0]) == forward[step]
    other = data_from_batches(endless, test=TEST, val=TEST, train_images=8)
    assert numbers(other.batch(0, 7, 6)[0]) == forward[7]  # a run that was resumed


def test_steps_in_order_read_the_source_once():
    calls = []

    def source():
        calls.append(0)
        return endless()

    data = data_from_batches(source, test=TEST, val=TEST, train_images=8)
    calls.clear()
    for step in range(30):
        data.batch(0, step, 6)
    assert len(calls) == 1


def test_an_iterator_that_cannot_start_again_trains_on_what_is_held():
    data = data_from_batches(endless(), test=TEST, val=TEST, train_images=8)
    assert data.stream is None and numbers(data.x_train) == list(range(8))


def test_a_source_that_ends_before_train_images_is_held_and_cut():
    data = data_from_batches(Loader(60, 7), test=TEST, train_images=60)
    assert data.stream is None and len(data.x_val) == 12


def test_classes_that_the_held_images_do_not_show_are_counted():
    few = data_from_batches(lambda: pairs(60, 7), test=(TEST[0], TEST[1] * 0), val=TEST, train_images=2, classes=5)
    assert few.classes == 5
    check_head(few, 5)
    with pytest.raises(ValueError, match="label 4 is out of range of a network with 3 outputs"):
        check_head(few, 3)


def ragged():
    yield from pairs(12, 6)
    yield np.zeros((6, 4, 3, 1), np.uint8), np.zeros(6, int)


FAULTS = {
    "other shape": (ragged, r"train, batch 2: images uint8\[4, 3, 1\], those before are uint8\[2, 3, 1\]; make them"),
    "other type": (
        lambda: [*pairs(12, 6), (np.zeros((6, 2, 3, 1)), np.zeros(6, int))], r"batch 2: images float64\[2, 3, 1\]"
    ),
    "no pair": (lambda: [np.zeros((6, 2, 3, 1))], "batch 0: found a ndarray; yield pairs"),
    "a dictionary": (lambda: [{"image": 1, "label": 2}], r"0: found a dict of image, label; yield .*e\['image'\]"),
    "three": (lambda: [(1, 2, 3)], "batch 0: found a tuple of 3; yield pairs"),
    "fewer labels": (lambda: [(np.zeros((6, 2, 3, 1)), np.zeros(5, int))], "batch 0: shape .5,. does not fit 6 images"),
    "label below zero": (lambda: [(np.zeros((1, 2, 3, 1)), np.array([-1]))], "batch 0: label -1 is out of range"),
    "label of a fraction": (lambda: [(np.zeros((1, 2, 3, 1)), np.array([0.5]))], "batch 0: dtype float64 is no label"),
    "text": (lambda: [(np.array(["a"] * 4), np.zeros(4, int))], "batch 0: dtype <U1 of shape .4,. is no image"),
    "ragged list": (lambda: [([[1], [1, 2]], [0, 1])], "batch 0: no array"),
    "not finite": (lambda: [(np.full((3, 2, 3, 1), np.nan), np.zeros(3, int))], "batch 0: 18 values are NaN"),
    "empty": (lambda: [], "train: yields no batch"),
    "no source": (lambda: 7, "train: a int cannot be iterated"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_batch_is_named(fault):
    source, words = FAULTS[fault]
    with pytest.raises(ValueError, match=words):
        data_from_batches(source(), test=TEST, name="mine")


def test_an_endless_source_says_what_to_give(monkeypatch):
    monkeypatch.setattr(stream, "HELD_BYTES", 4 * 6 * 100)  # 100 images of 6 numbers
    with pytest.raises(ValueError, match="has not ended after 10[2-8] images .*train_images"):
        data_from_batches(endless, test=TEST)
    with pytest.raises(ValueError, match="no validation can be cut from it; give val"):
        data_from_batches(endless, test=TEST, train_images=30)
    with pytest.raises(ValueError, match="train_images 0 is out of range; hold at least 1"):
        data_from_batches(endless, test=TEST, train_images=0)


def test_a_label_that_comes_late_in_a_stream_is_named():
    def late():
        yield from pairs(12, 6)
        yield np.zeros((6, 2, 3, 1), np.uint8), np.full(6, 9)

    data = data_from_batches(late, test=TEST, val=TEST, train_images=6)
    data.batch(0, 1, 6)
    with pytest.raises(ValueError, match="label 9 is out of range; 3 classes end at 2: give classes=10"):
        data.batch(0, 2, 6)


def test_a_stream_that_does_not_start_again_is_named():
    passes = iter([pairs(20, 6), pairs(20, 6)])
    data = data_from_batches(lambda: next(passes, iter(())), test=TEST, val=TEST, train_images=8)
    with pytest.raises(ValueError, match="pass 1: yields no batch; it must start again"):
        data.batch(0, 5, 6)


def test_standardizing_measures_the_training_split_alone():
    rng = np.random.default_rng(0)
    x, y = rng.normal([2.0, -1.0], [3.0, 0.5], (90, 4, 4, 2)), np.arange(90) % 3
    data = standardized(data_from_batches((x, y), test=(x[:6] + 5, y[:6])))
    assert np.allclose(data.x_train.mean((0, 1, 2)), 0, atol=1e-5)
    assert np.allclose(data.x_train.std((0, 1, 2)), 1, atol=1e-5)
    assert np.all(data.x_test.mean((0, 1, 2)) > 1)  # moved with the training split, not by its own mean
    with pytest.raises(ValueError, match="channel 1 is the same in every training image"):
        standardized(data_from_batches((x * [1, 0], y), test=(x[:6], y[:6])))


def test_a_given_validation_set_is_kept_and_the_training_set_not_cut(tmp_path):
    from cooptim.data import load_data

    ((x, y),) = [tuple(np.concatenate(part) for part in zip(*pairs(30, 7), strict=True))]
    arrays = {"x_train": x, "y_train": y, "x_test": x[:9], "y_test": y[:9], "x_val": x[20:26], "y_val": y[20:26]}
    np.savez(tmp_path / "v.npz", **arrays)
    data = load_data(tmp_path / "v.npz")
    assert numbers(data.x_train) == list(range(30)) and numbers(data.x_val) == list(range(20, 26))
    for change, words in (
        ({"y_val": None}, "x_val without the other; store both"),
        ({"x_val": x[:6, :1]}, r"validation images \(1, 3, 1\); make them equal"),
        ({"y_val": y[:6] + 4}, "y_val: label 6 is out of range; the training labels end at 2"),
    ):
        np.savez(tmp_path / "w.npz", **{k: v for k, v in (arrays | change).items() if v is not None})
        with pytest.raises(ValueError, match=words):
            load_data(tmp_path / "w.npz")


def test_batches_of_series_get_no_channel_axis_held_or_streamed():
    def motion():
        return (np.ones((6, 2, 3), np.float32), np.arange(6) % 3)

    held = data_from_batches([motion(), motion()], test=motion(), series=True)
    assert held.batch(0, 0, 4)[0].shape == (4, 2, 3) and held.x_test.shape == (6, 2, 3)
    endless = lambda: itertools.repeat(motion())  # noqa: E731
    streamed = data_from_batches(endless, test=motion(), val=motion(), train_images=6, series=True)
    assert streamed.stream is not None and streamed.batch(0, 3, 4)[0].shape == (4, 2, 3)
