"""From what the user names, 'digits', an .npz file, a directory of IDX files or CIFAR-10, to a checked Dataset."""

import os
import pathlib
import zipfile
from typing import NoReturn

import numpy as np

from cooptim.data.cifar import is_cifar10, is_pickled, read_cifar10, refuse_pickled
from cooptim.data.dataset import Dataset, split_dataset
from cooptim.data.idx import read_idx

_NPZ_KEYS = ("x_train", "y_train", "x_test", "y_test")
_NPZ_VAL = ("x_val", "y_val")
_IDX_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def load_data(spec: str | os.PathLike[str], *, val_share: float = 0.2, seed: int = 0, series: bool = False) -> Dataset:
    """The data set that `spec` names; the test split is the source's own, validation is cut from its training set.

    Args:
      spec: 'digits'; an .npz file with x_train, y_train, x_test, y_test, and x_val, y_val where it has its own
        validation; a directory with the four IDX files; CIFAR-10's binary version, the folder of its batches or
        cifar-10-binary.tar.gz as downloaded.
      val_share: share of each class of the training set that becomes validation.
      seed: of that cut.
      series: an .npz file's inputs of three axes are [n, step, feature], not images [n, y, x], and get no channel axis.

    Raises ValueError for what cannot be read or has wrong shape, dtype or labels, and for `series` of another source.
    """
    if spec == "digits":
        if series:
            _refuse_series(spec)
        return _digits(val_share, seed)
    path = pathlib.Path(spec).expanduser()
    if not path.is_dir() and not path.is_file():
        raise ValueError(
            f"data '{spec}': no such file or directory; give 'digits', an .npz file with {', '.join(_NPZ_KEYS)}, a "
            "directory of IDX files, or CIFAR-10's binary version"
        )
    try:
        cifar, pickled = is_cifar10(path), is_pickled(path)
    except OSError as error:
        raise ValueError(f"data {path}: cannot be read ({error.strerror}); check its permissions") from None
    if series and (cifar or (path.is_dir() and not pickled)):
        _refuse_series(spec)
    if cifar:
        return split_dataset("cifar10", *read_cifar10(path), val_share, seed)
    if pickled:
        refuse_pickled(path)
    return _idx_directory(path, val_share, seed) if path.is_dir() else _npz(path, val_share, seed, series)


def _refuse_series(spec: str | os.PathLike[str]) -> NoReturn:
    raise ValueError(f"data '{spec}': holds images, no series; leave `series` out, or give an .npz file")


def _digits(val_share: float, seed: int) -> Dataset:
    """1,797 scans of digits, 8x8, 17 grey levels scaled to [0, 1]; 20 % test.

    Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits" (UCI, 1998), as scikit-learn ships it.
    """
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ImportError:
        raise ValueError("data 'digits': scikit-learn is not installed; pip install 'cooptim[data]'") from None
    x, y = load_digits(return_X_y=True)
    x = (x / 16.0).astype(np.float32).reshape(-1, 8, 8)
    x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=0.2, random_state=0)
    return split_dataset("digits", (x_train, y_train), (x_test, y_test), val_share, seed)


def _npz(path: pathlib.Path, val_share: float, seed: int, series: bool) -> Dataset:
    try:
        with np.load(path, allow_pickle=False) as stored:
            if not isinstance(stored, np.lib.npyio.NpzFile):
                raise ValueError("a single array")
            missing = [key for key in _NPZ_KEYS if key not in stored.files]
            own = [key for key in _NPZ_VAL if key in stored.files]
            arrays = {} if missing else {key: stored[key] for key in (*_NPZ_KEYS, *own)}
            found = ", ".join(stored.files) or "nothing"
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile, TypeError) as error:
        raise ValueError(
            f"data {path}: no readable .npz file of plain arrays ({error}); write it with "
            f"numpy.savez(file, {', '.join(f'{key}=...' for key in _NPZ_KEYS)})"
        ) from None
    if missing:
        raise ValueError(f"data {path}: {', '.join(missing)} missing (found {found}); it needs {', '.join(_NPZ_KEYS)}")
    if len(own) == 1:
        raise ValueError(f"data {path}: {own[0]} without the other; store both of {', '.join(_NPZ_VAL)} or neither")
    train, test = (arrays["x_train"], arrays["y_train"]), (arrays["x_test"], arrays["y_test"])
    val = (arrays["x_val"], arrays["y_val"]) if own else None
    return split_dataset(path.stem, train, test, val_share, seed, val, series=series)


def _idx_directory(path: pathlib.Path, val_share: float, seed: int) -> Dataset:
    files = [next((f for f in (path / f"{n}.gz", path / n) if f.is_file()), None) for n in _IDX_FILES]
    missing = [name for name, file in zip(_IDX_FILES, files, strict=True) if file is None]
    if missing:
        raise ValueError(
            f"data {path}: {', '.join(missing)} missing, gzip'd or plain; it must hold {', '.join(_IDX_FILES)}"
        )
    x_train, y_train, x_test, y_test = (read_idx(file) for file in files if file is not None)
    return split_dataset(path.name, (x_train, y_train), (x_test, y_test), val_share, seed)
