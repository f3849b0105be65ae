"""An image as a model sees it, and as the grid takes it."""

import io
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import jax
import numpy as np
from jaxtyping import Array, Float
from PIL import Image

from diffjax.classify.settings import Settings
from diffjax.classify.sizes import OWN, told_sizes
from diffjax.data.images import ImageSource, load_image, preprocess
from diffjax.errors import DiffjaxError
from diffjax.models.diffusion import DiffusionModel

ONE_IMAGE = (str, bytes, os.PathLike, np.ndarray, jax.Array, Image.Image)
# what can be iterated, but not as images: refused as the one image that it is not
NO_IMAGES = (bytearray, memoryview, io.IOBase, Mapping)


def is_one(image: object) -> bool:
    """Whether this is one image, or to be refused as one, and not several of them."""
    several = isinstance(image, Iterable)
    return not several or isinstance(image, ONE_IMAGE + NO_IMAGES)


@dataclass(frozen=True, kw_only=True, eq=False)
class Seen:
    """An image as the model sees it.

    Attributes:
        pixels: In [−1, 1].
        told: What the image tells the denoiser besides, such as its size, by name.
    """

    pixels: Float[np.ndarray, "H W 3"]
    told: Mapping[str, np.ndarray] = field(default_factory=dict)

    def encoded(
        self,
        z0: Float[np.ndarray, "h w c"],
        key: int,
        among: tuple[int, ...] | None = None,
    ) -> "Encoded":
        """Return it with its latent, as the grid takes it."""
        return Encoded(pixels=self.pixels, told=self.told, z0=z0, key=key, among=among)


@dataclass(frozen=True, kw_only=True, eq=False)
class Encoded(Seen):
    """An image as the grid takes it.

    Attributes:
        z0: The latent.
        key: The number of the image, in [0, 2³²), that decides its noise.
        among: The classes that a prefilter left, at least one; None for all.
    """

    z0: Float[np.ndarray, "h w c"]
    key: int
    among: tuple[int, ...] | None = None


def see(image: ImageSource | Array, settings: Settings) -> Seen:
    """Read an image.

    Args:
        image: A path, URL, PIL image or array.
        settings: A classifier's own: resolution, transform and, where the model is told
            them, sizes are chosen.

    Raises:
        DiffjaxError: If it cannot be read.
    """
    loaded = load_image(np.asarray(image) if isinstance(image, jax.Array) else image)
    assert settings.resolution is not None and settings.transform is not None
    pixels = preprocess(
        loaded,
        settings.resolution,
        transform=settings.transform,
        interpolation=settings.interpolation,
    )
    return Seen(pixels=pixels, told=told(settings, *loaded.size))


def told(settings: Settings, width: int, height: int) -> dict[str, np.ndarray]:
    """Return what an image of a size tells the denoiser besides, by name."""
    if settings.sizes is None or settings.resolution is None:
        return {}
    return told_sizes(settings.sizes, width, height, settings.resolution)


def sizes_for(model: DiffusionModel, asked: str | None) -> str | None:
    """The sizes that a model is told, by default each image's own; None if it is not.

    Raises:
        DiffjaxError: If sizes are asked for that it is not told.
    """
    if model.sizes:
        return asked or OWN
    if asked is not None:
        raise DiffjaxError(
            f"{model.name} is not told sizes, as Stable Diffusion XL is: leave --sizes "
            "(sizes= in Python) away."
        )
    return None
