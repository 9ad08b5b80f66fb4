"""Random changes of training images, by name; pure, keyed, and part of the jitted step."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

Augmentation = Callable[
    [PRNGKeyArray, Float[Array, "batch row column channel"]], Float[Array, "batch row column channel"]
]
_PAD = 4  # pixels on each side


def crop_flip(
    key: PRNGKeyArray, x: Float[Array, "batch row column channel"]
) -> Float[Array, "batch row column channel"]:
    """Each image padded with 4 zeros on every side, cut back to its size at a random place, and mirrored or not.

    Source: He et al. 2016 (section 4.2), the usual one for CIFAR-10.
    """
    where, mirror = jax.random.split(key)
    corners = jax.random.randint(where, (x.shape[0], 2), 0, 2 * _PAD + 1)
    padded = jnp.pad(x, ((0, 0), (_PAD, _PAD), (_PAD, _PAD), (0, 0)))

    def cut(image: Array, corner: Array) -> Array:
        return jax.lax.dynamic_slice(image, (corner[0], corner[1], jnp.zeros_like(corner[0])), x.shape[1:])

    cropped = jax.vmap(cut)(padded, corners)
    mirrored = jax.random.bernoulli(mirror, 0.5, (x.shape[0], 1, 1, 1))
    return jnp.where(mirrored, cropped[:, :, ::-1], cropped)


AUGMENTATIONS: dict[str, Augmentation | None] = {"none": None, "crop_flip": crop_flip}


def augmentation(name: str, image_shape: tuple[int, ...]) -> Augmentation | None:
    """The augmentation of this name; None for 'none'.

    Raises ValueError for another name, and for inputs that are no images [row, column, channel].
    """
    if name not in AUGMENTATIONS:
        raise ValueError(f"augment '{name}' is not known; use one of {', '.join(AUGMENTATIONS)}")
    if AUGMENTATIONS[name] is not None and len(image_shape) != 3:
        raise ValueError(
            f"augment '{name}': inputs of shape {list(image_shape)} are no images [row, column, channel]; use 'none'"
        )
    return AUGMENTATIONS[name]
