"""The sizes that Stable Diffusion XL is told of an image: six numbers, in pixels.

    height, width    of the original image, before it was made a square
    top, left        of the crop
    height, width    that were aimed at

Podell et al. 2023, section 2.2: it was trained on images of all sizes, and told of
them. An image that was small is expected to be blurred.
"""

import re

import numpy as np
from jaxtyping import Int

from diffjax.errors import DiffjaxError
from diffjax.models.unet_config import SIZES

OWN = "image"  # the image's own size, no crop, and the model's resolution
MOST = 2**16  # pixels


def read_sizes(text: str) -> tuple[int, ...] | None:
    """The six numbers that a text names; None where each image says its own.

    Raises:
        DiffjaxError: if it names others.
    """
    if text == OWN:
        return None
    numbers = text.split(",")
    whole = all(re.fullmatch(r"\s*[0-9]{1,6}\s*", each) for each in numbers)
    found = tuple(map(int, numbers)) if whole else ()
    least = (1, 1, 0, 0, 1, 1)
    if len(found) != SIZES or not all(
        low <= n <= MOST for low, n in zip(least, found, strict=True)
    ):
        raise DiffjaxError(
            f"The sizes are {text!r}; they are {OWN!r} or six numbers of pixels: "
            "height and width of the original, top and left of the crop, height and "
            "width that were aimed at, such as 512,512,0,0,1024,1024."
        )
    return found


def told_sizes(
    text: str, width: int, height: int, resolution: int
) -> dict[str, Int[np.ndarray, " 6"]]:
    """What an image tells a denoiser of sizes; see ``models.conditions.told_of``.

    Args:
        text: as ``read_sizes`` takes it.
        width: of the image.
        height: of the image.
        resolution: of the square that the model sees.
    """
    own = (height, width, 0, 0, resolution, resolution)
    return {"sizes": np.array(read_sizes(text) or own, np.int32)}
