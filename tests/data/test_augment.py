"""Crops and mirrors against a loop over pixels, and what keys do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cooptim.cli.parser import build_parser
from cooptim.data.augment import AUGMENTATIONS, augmentation, crop_flip


def every_view(image):
    """{bytes: (row, column, mirrored)} of all 9 x 9 x 2 views of an image, pixel by pixel."""
    rows, columns, _ = image.shape
    found = {}
    for top in range(9):
        for left in range(9):
            for mirrored in (False, True):
                view = np.zeros_like(image)
                for row in range(rows):
                    for column in range(columns):
                        y, x = row + top - 4, column + left - 4
                        if 0 <= y < rows and 0 <= x < columns:
                            view[row, columns - 1 - column if mirrored else column] = image[y, x]
                found[view.tobytes()] = (top, left, mirrored)
    return found


def test_every_image_becomes_one_of_its_162_views_and_all_shifts_are_as_likely():
    rng = np.random.default_rng(1)
    one = rng.normal(size=(5, 6, 2)) + 3.0
    views = every_view(one)
    assert len(views) == 162
    many = np.asarray(jax.jit(crop_flip)(jax.random.key(0), jnp.asarray(np.repeat(one[None], 3000, 0))))
    seen = np.array([views[image.tobytes()] for image in many])
    for axis, options in ((0, 9), (1, 9), (2, 2)):
        counts, expected = np.bincount(seen[:, axis], minlength=options), 3000 / options
        assert np.all(np.abs(counts - expected) < 5 * np.sqrt(expected)), (axis, counts)
    assert abs(np.corrcoef(seen.T)[np.triu_indices(3, 1)]).max() < 0.1


def test_the_same_key_gives_the_same_images_and_another_key_others():
    x, change = jnp.asarray(np.random.default_rng(2).normal(size=(8, 6, 6, 3))), jax.jit(crop_flip)
    one = change(jax.random.key(4), x)
    assert jnp.array_equal(one, change(jax.random.key(4), x)) and one.dtype == x.dtype
    assert not jnp.array_equal(one, change(jax.random.key(5), x))


def test_names_are_those_of_the_command_line_and_others_are_refused():
    options = vars(build_parser().parse_args(["optimize"]))
    assert options["augment"] == "none"
    for name in AUGMENTATIONS:
        assert build_parser().parse_args(["optimize", "--augment", name]).augment == name
    assert augmentation("none", (64,)) is None and augmentation("crop_flip", (8, 8, 1)) is crop_flip
    with pytest.raises(ValueError, match="augment 'mixup' is not known; use one of none, crop_flip"):
        augmentation("mixup", (8, 8, 1))
    with pytest.raises(ValueError, match=r"inputs of shape \[64\] are no images"):
        augmentation("crop_flip", (64,))
