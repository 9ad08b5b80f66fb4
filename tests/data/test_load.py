import gzip
import struct

import numpy as np
import pytest

from cooptim.data import check_head, load_data, read_idx


def _idx(array, code=0x08):
    header = struct.pack(">BBBB", 0, 0, code, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.tobytes()


def _images(n, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, 5, 4), dtype=np.uint8)


def _labels(n, classes=3):
    return (np.arange(n) % classes).astype(np.uint8)


def _write_npz(path, **changes):
    arrays = {"x_train": _images(30), "y_train": _labels(30), "x_test": _images(9, 1), "y_test": _labels(9)}
    arrays.update(changes)
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})
    return path


def _write_idx(folder, pack=gzip.compress, suffix=".gz"):
    folder.mkdir(exist_ok=True)
    for name, array in (
        ("train-images-idx3-ubyte", _images(30)),
        ("train-labels-idx1-ubyte", _labels(30)),
        ("t10k-images-idx3-ubyte", _images(9, 1)),
        ("t10k-labels-idx1-ubyte", _labels(9)),
    ):
        (folder / (name + suffix)).write_bytes(pack(_idx(array)))
    return folder


def test_digits_is_the_published_set_with_a_fifth_for_testing():
    digits = load_data("digits")
    # 1,797 scans; train_test_split rounds the test share up: ceil(359.4) = 360.
    assert (len(digits.x_train) + len(digits.x_val), len(digits.x_test), digits.classes) == (1437, 360, 10)
    assert digits.image_shape == (8, 8, 1) and digits.x_train.dtype == np.float32 and digits.y_train.dtype == np.int32
    assert (digits.x_train.min(), digits.x_train.max()) == (0.0, 1.0)
    sixteenths = digits.x_test * 16  # 17 grey levels
    assert np.array_equal(sixteenths, np.round(sixteenths))


def test_digits_test_split_is_that_of_train_test_split_with_seed_0():
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    _, rows = train_test_split(np.arange(1797), test_size=0.2, random_state=0)
    digits = load_data("digits", seed=5)
    assert np.array_equal(digits.y_test, load_digits().target[rows])
    assert np.array_equal(digits.x_test[:, :, :, 0] * 16, load_digits().images[rows])


def test_validation_takes_the_same_share_of_each_class_and_shares_no_image_with_training(tmp_path):
    x = np.arange(100, dtype=np.float32).reshape(100, 1, 1)  # each image is its own number
    y = np.repeat([0, 1], [40, 60])
    data = load_data(_write_npz(tmp_path / "d.npz", x_train=x, y_train=y, x_test=x, y_test=y), val_share=0.25)
    assert np.bincount(data.y_val).tolist() == [10, 15] and np.bincount(data.y_train).tolist() == [30, 45]
    assert sorted(np.concatenate([data.x_train, data.x_val]).ravel().tolist()) == list(range(100))
    assert np.array_equal(data.y_val, (data.x_val.ravel() >= 40).astype(int))


def test_validation_split_follows_its_seed_alone():
    one, same, other = (load_data("digits", seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(one.x_val, same.x_val) and not np.array_equal(one.x_val, other.x_val)


def test_npz_scales_bytes_by_255_and_adds_the_channel_axis(tmp_path):
    data = load_data(_write_npz(tmp_path / "toy.npz"))
    assert (data.name, data.image_shape, data.classes) == ("toy", (5, 4, 1), 3)
    np.testing.assert_allclose(data.x_test[..., 0], _images(9, 1) / 255.0, rtol=1e-6)
    assert data.x_test.max() <= 1.0


def test_npz_keeps_floats_and_channels_as_they_are(tmp_path):
    x = np.linspace(-3, 3, 30 * 24).reshape(30, 2, 4, 3)
    data = load_data(_write_npz(tmp_path / "f.npz", x_train=x, x_test=x[:9]))
    assert data.image_shape == (2, 4, 3) and np.array_equal(data.x_test, x[:9].astype(np.float32))


def test_series_of_three_axes_get_no_channel_axis(tmp_path):
    x = np.random.default_rng(0).normal(size=(30, 5, 4))
    path = _write_npz(tmp_path / "motion.npz", x_train=x, x_test=x[:9])
    found, images = load_data(path, series=True), load_data(path)
    assert found.image_shape == (5, 4) and images.image_shape == (5, 4, 1)
    assert np.array_equal(found.x_train[..., None], images.x_train)
    flat = _write_npz(tmp_path / "flat.npz", x_train=x[:, 0], x_test=x[:9, 0])
    assert load_data(flat, series=True).image_shape == (4,)


def test_series_come_from_npz_files_alone_whatever_their_name(tmp_path):
    folder, packed = _write_idx(tmp_path / "mnist"), tmp_path / "cifar-10-binary.tar.gz"
    packed.write_bytes(gzip.compress(b""))
    for source in ("digits", folder, packed):
        with pytest.raises(ValueError, match=f"'{source}': holds images, no series; leave `series` out"):
            load_data(source, series=True)
    x = np.ones((30, 5, 4))
    named = _write_npz(tmp_path / "motion.npz", x_train=x, x_test=x[:9]).rename(tmp_path / "MOTION.NPZ")
    assert load_data(named, series=True).image_shape == (5, 4)


@pytest.mark.parametrize(("pack", "suffix"), [(gzip.compress, ".gz"), (bytes, "")])
def test_idx_directory_reads_gzipped_and_plain_files(tmp_path, pack, suffix):
    data = load_data(_write_idx(tmp_path / "set", pack, suffix))
    assert (len(data.x_train) + len(data.x_val), len(data.x_test), data.image_shape) == (30, 9, (5, 4, 1))
    np.testing.assert_allclose(data.x_test[..., 0] * 255, _images(9, 1), atol=1e-4)
    assert np.array_equal(data.y_test, _labels(9))


def test_idx_reads_big_endian_words(tmp_path):
    path = tmp_path / "words"
    path.write_bytes(_idx(np.array([[1, 258], [-1, 7]], ">i4"), 0x0C))
    assert read_idx(path).tolist() == [[1, 258], [-1, 7]]


def test_fashion_mnist_has_its_published_counts(shared):
    data = load_data(shared / "data" / "fashion-mnist")
    assert (len(data.x_train) + len(data.x_val), len(data.x_test), data.image_shape) == (60000, 10000, (28, 28, 1))
    assert data.classes == 10 and np.bincount(data.y_test).tolist() == [1000] * 10  # class-balanced by its makers


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"x_test": None}, "x_test missing"),
        ({"x_train": np.zeros((30, 5, 4), np.int32)}, "x_train: dtype int32"),
        ({"x_train": np.zeros(30, np.uint8)}, r"x_train: shape \(30,\)"),
        ({"x_train": np.full((30, 5, 4), np.nan)}, "NaN or infinite"),
        ({"x_test": np.zeros((9, 4, 4), np.uint8)}, "make them equal"),
        (
            {"x_test": np.full((9, 5, 4), 200.0)},
            "x_train holds bytes, x_test floats; bytes become 0..1 and floats stay",
        ),
        ({"y_train": np.zeros((30, 10), np.uint8)}, "y_train: shape"),
        ({"y_train": np.zeros(29, np.uint8)}, "does not fit 30 images"),
        ({"y_train": np.zeros(30)}, "y_train: dtype float64"),
        ({"y_train": np.full(30, -1)}, "label -1 is out of range"),
        ({"y_test": np.full(9, 12)}, "label 12 is out of range"),
        ({"y_train": np.array([None] * 30, object)}, "no readable .npz"),
        ({"x_train": _images(3), "y_train": _labels(3)}, "add images"),
    ],
)
def test_wrong_arrays_are_refused_with_what_was_found(tmp_path, changes, words):
    with pytest.raises(ValueError, match=words):
        load_data(_write_npz(tmp_path / "bad.npz", **changes))


@pytest.mark.parametrize("content", [b"", b"no zip at all", b"PK\x03\x04 half a zip"])
def test_a_file_that_is_no_npz_is_refused(tmp_path, content):
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(ValueError, match="no readable .npz"):
        load_data(tmp_path / "x.npz")


def test_a_name_that_is_nothing_says_what_is_legal():
    with pytest.raises(ValueError, match="give 'digits', an .npz file"):
        load_data("mnist")


def test_a_val_share_outside_0_to_1_is_refused():
    with pytest.raises(ValueError, match="val_share 1.0"):
        load_data("digits", val_share=1.0)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda raw: gzip.compress(raw[:-1]), "truncated"),
        (lambda raw: gzip.compress(raw[:10]), "truncated in its header"),
        (lambda raw: gzip.compress(raw + b"x"), "longer than its header says"),
        (lambda raw: gzip.compress(raw)[:-20], "truncated gzip"),
        (lambda raw: b"\x89PNG" + raw, "no IDX file"),
        (lambda raw: b"", "no IDX file"),
    ],
)
def test_damaged_idx_files_are_refused(tmp_path, damage, words):
    folder = _write_idx(tmp_path / "set")
    file = folder / "train-images-idx3-ubyte.gz"
    file.write_bytes(damage(gzip.decompress(file.read_bytes())))
    with pytest.raises(ValueError, match=words):
        load_data(folder)


def test_a_missing_idx_file_is_named(tmp_path):
    folder = _write_idx(tmp_path / "set")
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(ValueError, match="t10k-labels-idx1-ubyte missing"):
        load_data(folder)


def test_a_head_with_too_few_outputs_is_refused(tmp_path):
    data = load_data(_write_npz(tmp_path / "d.npz"))
    check_head(data, 3)
    with pytest.raises(ValueError, match="label 2 is out of range of a network with 2 outputs"):
        check_head(data, 2)
