"""CIFAR-10's binary version as it is downloaded: record by record by hand, and what is wrong with it by name."""

import io
import pickle
import tarfile

import numpy as np
import pytest

from cooptim.data import load_data

NAMES = (*(f"data_batch_{n}.bin" for n in range(1, 6)), "test_batch.bin")
FOLDER = "cifar-10-batches-bin"
COUNT = 20  # records a file


def record(label, image):
    """One record by the published description: label, then red, green and blue planes row by row."""
    planes = [
        bytes(int(image[row, column, colour]) for row in range(32) for column in range(32)) for colour in range(3)
    ]
    return bytes([label]) + b"".join(planes)


def fast_record(label, image):
    return bytes([label]) + np.moveaxis(image, -1, 0).tobytes()


@pytest.fixture(scope="module")
def made():
    """(contents by name, images, labels) of six small files."""
    rng = np.random.default_rng(3)
    images = rng.integers(0, 256, (6, COUNT, 32, 32, 3), dtype=np.uint8)
    labels = np.tile(np.arange(COUNT) % 10, (6, 1))
    assert record(7, images[0, 0]) == fast_record(7, images[0, 0])
    contents = {
        name: b"".join(fast_record(int(labels[f, r]), images[f, r]) for r in range(COUNT))
        for f, name in enumerate(NAMES)
    }
    return contents, images, labels


def folder(path, contents):
    path.mkdir(parents=True)
    for name, raw in contents.items():
        (path / name).write_bytes(raw)
    return path


def archive(path, members, mode="w:gz"):
    """A tar file of (name or TarInfo, content)."""
    with tarfile.open(path, mode) as tar:
        for member, raw in members:
            info = member if isinstance(member, tarfile.TarInfo) else tarfile.TarInfo(member)
            info.size = len(raw)
            tar.addfile(info, io.BytesIO(raw))
    return path


def members(contents, where=FOLDER):
    return [(f"{where}/{name}", raw) for name, raw in contents.items()]


def test_folder_parent_and_archives_hold_the_same_images(tmp_path, made):
    contents, images, labels = made
    inner = folder(tmp_path / "down" / FOLDER, {**contents, "batches.meta.txt": b"airplane\n", "readme.html": b""})
    packed = archive(tmp_path / "cifar-10-binary.tar.gz", [(f"{FOLDER}/readme.html", b"x"), *members(contents)])
    plain = archive(tmp_path / "cifar.tar", members(contents), "w")
    sets = [load_data(path, val_share=0.25) for path in (inner, tmp_path / "down", packed, plain)]
    one = sets[0]
    assert (one.name, one.image_shape, one.classes) == ("cifar10", (32, 32, 3), 10)
    assert (len(one.x_train), len(one.x_val)) == (80, 20)  # 2 of the 10 images of each class
    assert np.array_equal(np.round(one.x_test * 255), images[5]) and np.array_equal(one.y_test, labels[5])
    both = np.concatenate([one.x_train, one.x_val])
    rows = {image.tobytes() for image in np.round(both * 255).astype(np.uint8)}
    assert rows == {image.tobytes() for image in images[:5].reshape(-1, 32, 32, 3)}
    for other in sets[1:]:
        assert np.array_equal(other.x_train, one.x_train) and np.array_equal(other.y_val, one.y_val)
        assert np.array_equal(other.x_test, one.x_test)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cifar-10-binary.tar.gz", "cifar.tar", "down"]


def test_the_subset_of_the_shared_npz_has_its_stated_counts(shared):
    data = load_data(shared / "data" / "cifar10.npz", val_share=0.1)
    assert (data.image_shape, data.classes, len(data.x_train), len(data.x_val), len(data.x_test)) == (
        (32, 32, 3), 10, 10800, 1200, 5000,
    )  # fmt: skip
    assert np.bincount(data.y_val).tolist() == [120] * 10 and np.bincount(data.y_test).tolist() == [500] * 10
    # Channel means of the full training set as widely published; those of 24 % of it are near.
    assert np.allclose(data.x_train.mean((0, 1, 2), np.float64), [0.4914, 0.4822, 0.4465], atol=0.01)


FAULTS = {
    "truncated": (
        "data_batch_2.bin",
        lambda raw: raw[:-1],
        "data_batch_2.bin: .* 19 records of 3073 and 3072 bytes over, so record 19 is truncated; fetch it again",
    ),
    "empty": ("test_batch.bin", lambda raw: b"", "test_batch.bin: 0 bytes are 0 records"),
    "label": (
        "data_batch_4.bin",
        lambda raw: raw[: 3 * 3073] + b"\x0b" + raw[3 * 3073 + 1 :],
        r"data_batch_4.bin: record 3 has label 11, legal are 0 to 9 \(1 such records\)",
    ),
    "missing": ("data_batch_5.bin", None, "data_batch_5.bin missing; .*download the binary version"),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_file_is_named_with_its_record(tmp_path, made, fault, packed):
    name, damage, words = FAULTS[fault]
    contents = {key: raw if key != name else damage(raw) for key, raw in made[0].items() if key != name or damage}
    path = archive(tmp_path / "c.tgz", members(contents)) if packed else folder(tmp_path / FOLDER, contents)
    with pytest.raises(ValueError, match=words) as caught:
        load_data(path)
    assert str(path) in str(caught.value)


def test_the_pickled_version_is_refused_and_never_opened(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("a pickle was opened",))

    raw = pickle.dumps(Bomb(), protocol=2)
    old = folder(tmp_path / "cifar-10-batches-py", {"data_batch_1": raw, "batches.meta": raw})
    packed = archive(tmp_path / "cifar-10-python.tar.gz", [("cifar-10-batches-py/data_batch_1", raw)])
    other = tmp_path / "mine.npz"
    other.write_bytes(raw)
    for path in (old, tmp_path, old / "data_batch_1", packed, other):
        with pytest.raises(ValueError, match="pickled version .* download the binary version"):
            load_data(path)


def _linked(kind, name=f"{FOLDER}/data_batch_1.bin"):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, "/etc/passwd"
    return info


TRICKS = {
    "climbs": ([("../data_batch_1.bin", b"x")], "'../data_batch_1.bin' leaves the archive's folder"),
    "climbs inside": ([(f"{FOLDER}/../../x", b"x")], "leaves the archive's folder"),
    "absolute": ([("/data_batch_1.bin", b"x")], "'/data_batch_1.bin' leaves"),
    "symbolic link": ([(_linked(tarfile.SYMTYPE), b"")], "is a link or no file"),
    "hard link": ([(_linked(tarfile.LNKTYPE), b"")], "is a link or no file"),
    "device": ([(_linked(tarfile.FIFOTYPE), b"")], "is a link or no file"),
    "twice": ([(f"{FOLDER}/data_batch_1.bin", b"x"), ("b/data_batch_1.bin", b"y")], "comes twice"),
}


@pytest.mark.parametrize("trick", TRICKS)
def test_an_archive_with_path_tricks_is_refused(tmp_path, trick):
    inside, words = TRICKS[trick]
    path = archive(tmp_path / "c.tar.gz", inside)
    with pytest.raises(ValueError, match=words):
        load_data(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["c.tar.gz"]


def test_a_member_of_a_gibibyte_is_refused_before_it_is_unpacked(tmp_path):
    path = tmp_path / "c.tar"
    info = tarfile.TarInfo("huge")
    info.size = 2**30 + 1  # its header alone
    path.write_bytes(info.tobuf())
    with pytest.raises(ValueError, match="unpacks to more than 1073741824 bytes"):
        load_data(path)


@pytest.mark.parametrize("cut", [1, 30, 4000])
def test_a_cut_download_is_named(tmp_path, made, cut):
    path = archive(tmp_path / "c.tar.gz", members(made[0]))
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(ValueError, match=r"c\.tar\.gz: damaged or truncated archive .*download the binary version"):
        load_data(path)


def test_one_batch_alone_is_refused(tmp_path, made):
    path = folder(tmp_path / FOLDER, made[0]) / "data_batch_1.bin"
    with pytest.raises(ValueError, match="one of 6 batches; give the folder"):
        load_data(path)


def test_an_archive_whose_checksum_is_wrong_is_named(tmp_path, made):
    path = archive(tmp_path / "c.tar.gz", members(made[0]))
    raw = bytearray(path.read_bytes())
    raw[-8] ^= 1
    path.write_bytes(raw)
    with pytest.raises(ValueError, match="damaged or truncated archive"):
        load_data(path)
