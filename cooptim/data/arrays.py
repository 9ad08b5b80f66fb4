"""Checks of raw arrays of inputs and labels, and the numbers that training sees."""

import numpy as np
from jaxtyping import Int, Real

_LARGEST_LABEL = 1_000_000


def kind(array: np.ndarray) -> str | None:
    """What its numbers are: "bytes" of images, "floats", "tokens" (rows of whole numbers) or None, nothing of these."""
    if array.dtype == np.uint8:
        return "bytes"
    if np.issubdtype(array.dtype, np.floating):
        return "floats"
    return "tokens" if np.issubdtype(array.dtype, np.integer) and array.ndim == 2 else None


def check_images(array: np.ndarray, who: str) -> None:
    """Raises ValueError unless `array` is a set of inputs.

    Legal are uint8 or finite floats of two to four axes, and rows of tokens: other whole numbers within int32.
    """
    found = kind(array)
    if found is None:
        raise ValueError(
            f"{who}: dtype {array.dtype} of shape {array.shape} is no image; store uint8 (0..255, scaled to [0, 1]) or "
            "floats, or rows of tokens as int32 [n, positions]"
        )
    if array.ndim not in (2, 3, 4) or 0 in array.shape:
        raise ValueError(
            f"{who}: shape {array.shape} is no set of images; legal are [n, y, x], [n, y, x, channel], "
            "[n, step, feature] of series and [n, features], none empty"
        )
    if found == "floats":
        with np.errstate(over="ignore"):  # beyond float32 is not finite, and is said below
            lost = int((~np.isfinite(array.astype(np.float32))).sum())
        if lost:
            raise ValueError(f"{who}: {lost} values are NaN or infinite; remove them")
    if found == "tokens":
        limits = np.iinfo(np.int32)
        for extreme in (int(array.min()), int(array.max())):
            if not limits.min <= extreme <= limits.max:
                raise ValueError(f"{who}: token {extreme} is out of the range of int32; number tokens from 0")


def scaled(array: np.ndarray, series: bool = False) -> Real[np.ndarray, "n *image"]:
    """Checked inputs as a network sees them: uint8 over 255, floats as they are, both float32; tokens int32.

    Images without a channel axis get one; rows of features and of tokens stay rows. With `series` what has three axes
    is [n, step, feature], not [n, y, x], and stays as it is.
    """
    found = kind(array)
    if found == "tokens":
        return array.astype(np.int32)
    if found == "bytes":
        numbers = np.multiply(array, np.float32(1.0 / 255.0), dtype=np.float32)
    else:
        numbers = array.astype(np.float32)
    return numbers[..., None] if array.ndim == 3 and not series else numbers


def labels(array: np.ndarray, count: int, who: str) -> Int[np.ndarray, "n"]:
    """Labels as int32, one an image.

    Raises ValueError for another shape, a dtype that is not whole numbers, a count unlike the images', or a label < 0.
    """
    if not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"{who}: dtype {array.dtype} is no label; store whole numbers from 0")
    if array.shape != (count,):
        raise ValueError(f"{who}: shape {array.shape} does not fit {count} images; store one label an image, [{count}]")
    if count and (int(array.min()) < 0 or int(array.max()) > _LARGEST_LABEL):
        worst = int(array.min()) if int(array.min()) < 0 else int(array.max())
        raise ValueError(f"{who}: label {worst} is out of range; number the classes from 0")
    return array.astype(np.int32)
