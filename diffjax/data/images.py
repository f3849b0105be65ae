"""Anything that holds a picture → the pixels a model reads.

    load_image   path, URL, bytes, PIL image or array → 8-bit RGB image
    preprocess   RGB image → float32 [H, W, 3] in [−1, 1]

Every picture that cannot be read faithfully raises a DiffjaxError; nothing is guessed.
Pillow's global switches are never touched.
"""

import io
import os
import re
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Shaped
from PIL import Image

from diffjax.choices import INTERPOLATIONS
from diffjax.data.decoding import (
    MAX_PIXELS,
    check_pixels,
    damaged,
    open_picture,
    upright,
)
from diffjax.data.downloads import download
from diffjax.errors import DiffjaxError, unknown
from diffjax.files import PathLike, regular_file

ImageSource = PathLike | bytes | Image.Image | np.ndarray

MIN_SIDE = 2  # a single row or column carries no picture
MAX_ASPECT = 50  # the centre crop of a longer strip shows under 2 % of it

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")


def load_image(source: ImageSource, *, max_pixels: int | None = None) -> Image.Image:
    """Read one picture as an upright 8-bit RGB image.

    The EXIF orientation is applied, transparency is laid on white, 16-bit grey is
    scaled to 8 bits, and CMYK is converted. Of an animation the current frame (the
    first, for a file) is taken, with a warning.

    Args:
        source: a path, an http(s) URL, encoded bytes, a PIL image, or an array:
            [H, W], [H, W, 1], [H, W, 3] or [H, W, 4], uint8 or float in [0, 1].
        max_pixels: larger pictures are refused from their header, undecoded; but JPEG
            files of up to four times as many are decoded at half their width and
            height, with a warning. 8192 × 8192 by default.

    Raises:
        DiffjaxError: if the source is missing, unreadable, damaged, too small, too
            large, too elongated, or an array of another shape, dtype or range.
    """
    name = _describe(source)
    max_pixels = MAX_PIXELS if max_pixels is None else max_pixels
    if isinstance(source, np.ndarray):
        return _to_rgb(_from_array(source, name), name, max_pixels)
    if isinstance(source, Image.Image):
        return _to_rgb(source, name, max_pixels)
    if isinstance(source, bytes):
        return _decode(io.BytesIO(source), name, max_pixels)
    if isinstance(source, str) and (scheme := _SCHEME.match(source)):
        if scheme[1].lower() not in ("http", "https"):
            raise DiffjaxError(
                f"{name}: {scheme[1]}:// addresses are not read. Give a local path or "
                "an http(s) address."
            )
        return _decode(io.BytesIO(download(source)), name, max_pixels)
    if isinstance(source, str | os.PathLike):
        with _open_file(Path(source), name) as file:
            return _decode(file, name, max_pixels)
    raise DiffjaxError(
        f"Cannot read an image from {name}. Give a path, a URL, bytes, a PIL image or "
        "a numpy array (numpy.asarray converts JAX arrays)."
    )


def is_url(source: str) -> bool:
    """Whether a text is an address and not a path."""
    return _SCHEME.match(source) is not None


def preprocess(
    image: Image.Image,
    resolution: int,
    *,
    transform: str = "resize_crop",
    interpolation: str = "bicubic",
) -> Float32[np.ndarray, "resolution resolution 3"]:
    """Resize and centre-crop an RGB image to the square that a model reads.

    Args:
        image: an RGB image, as ``load_image`` returns it.
        resolution: side of the result in pixels.
        transform: "resize_crop" brings the shorter edge to the resolution in one
            antialiased step (Stable Diffusion). "adm" first halves with a box filter
            while the shorter edge is at least twice the resolution (DiT).
        interpolation: one of ``choices.INTERPOLATIONS``, for the last resize.

    Returns:
        Pixels in [−1, 1].

    Raises:
        DiffjaxError: if the image is not RGB, or an option is unknown.
    """
    if image.mode != "RGB":
        raise DiffjaxError(
            f"An RGB image is needed, this one is {image.mode}. Pass it through "
            "load_image first."
        )
    if resolution < 1:
        raise DiffjaxError(
            f"The resolution must be at least 1 pixel, not {resolution}."
        )
    if interpolation not in INTERPOLATIONS:
        raise unknown("interpolation", interpolation, INTERPOLATIONS)
    if transform not in TRANSFORMS:
        raise unknown("transform", transform, TRANSFORMS)
    square = TRANSFORMS[transform](
        image, resolution, Image.Resampling[interpolation.upper()]
    )
    return np.asarray(square, np.float32) / np.float32(127.5) - np.float32(1)


def _resize_crop(
    image: Image.Image, resolution: int, resample: Image.Resampling
) -> Image.Image:
    """torchvision's Resize, then CenterCrop, with their roundings."""
    short, long = sorted(image.size)
    longer = int(resolution * long / short)
    wide = image.width > image.height
    image = image.resize(
        (longer, resolution) if wide else (resolution, longer), resample
    )
    # round() goes to the even neighbour at one half, as in torchvision.
    left = round((image.width - resolution) / 2)
    top = round((image.height - resolution) / 2)
    return image.crop((left, top, left + resolution, top + resolution))


def _adm_crop(
    image: Image.Image, resolution: int, resample: Image.Resampling
) -> Image.Image:
    """The centre crop of ADM (Dhariwal and Nichol, 2021); DiT was trained with it."""
    while min(image.size) >= 2 * resolution:
        image = image.resize(
            (image.width // 2, image.height // 2), Image.Resampling.BOX
        )
    scale = resolution / min(image.size)
    image = image.resize(
        (round(image.width * scale), round(image.height * scale)), resample
    )
    left = (image.width - resolution) // 2
    top = (image.height - resolution) // 2
    return image.crop((left, top, left + resolution, top + resolution))


TRANSFORMS: dict[str, Callable[[Image.Image, int, Image.Resampling], Image.Image]] = {
    "resize_crop": _resize_crop,
    "adm": _adm_crop,
}


def _decode(
    stream: io.BytesIO | io.BufferedReader, name: str, max_pixels: int
) -> Image.Image:
    return _to_rgb(open_picture(stream, name, max_pixels), name, max_pixels)


def _to_rgb(image: Image.Image, name: str, max_pixels: int) -> Image.Image:
    _check_size(image.size, name, max_pixels)
    try:
        # An MPO file is a still photograph with a preview or a second view behind it.
        animated = getattr(image, "is_animated", False) and image.format != "MPO"
        image.load()
        frame = image.tell() + 1
        turned = upright(image, name)
        if turned.mode == "F" or turned.mode.startswith("I"):
            turned = _to_grey8(turned, name)
        # White, because the page behind a web image is: img2dataset, which fetched
        # LAION, lays transparency on white too. convert("RGB") alone would uncover
        # whatever colour lies under it.
        if turned.has_transparency_data:
            white = Image.new("RGBA", turned.size, "white")
            turned = Image.alpha_composite(white, turned.convert("RGBA"))
        rgb = turned.convert("RGB")
        rgb.info = {}  # else it would be turned once more when it is read again
    except DiffjaxError:
        raise
    except Exception as error:  # decoders raise nearly anything on damage
        raise damaged(name, error) from error
    if animated:
        warnings.warn(
            f"{name} has several frames; only frame {frame} is read.", stacklevel=3
        )
    return rgb


def _to_grey8(image: Image.Image, name: str) -> Image.Image:
    """Wide grey as 8-bit grey: I and I;16 hold 0 to 65535, F holds 0 to 1."""
    values = np.asarray(image)
    if image.mode == "F":
        return _from_array(values, name)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise DiffjaxError(
            f"{name} holds grey values from {low} to {high}, beyond 16 bits. "
            "Scale it to 8 or 16 bits first."
        )
    return Image.fromarray(np.rint(values / 257).astype(np.uint8))  # 65535 = 255 × 257


def _from_array(array: Shaped[np.ndarray, "..."], name: str) -> Image.Image:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise DiffjaxError(
            f"{name}: give one image as [H, W], [H, W, 1], [H, W, 3] or [H, W, 4], "
            "channels last."
        )
    if 0 in array.shape:
        raise DiffjaxError(f"{name} holds no pixels.")
    if np.issubdtype(array.dtype, np.floating):
        low, high = float(array.min()), float(array.max())
        if not (low >= 0 and high <= 1):  # false for NaN too
            raise DiffjaxError(
                f"{name} has values from {low:g} to {high:g}; floats must lie in "
                "[0, 1]. Use x / 255 for [0, 255] and (x + 1) / 2 for [−1, 1]."
            )
        array = np.rint(array.astype(np.float64) * 255).astype(np.uint8)
    if array.dtype != np.uint8:
        raise DiffjaxError(
            f"{name}: the dtype must be uint8, or float with values in [0, 1]."
        )
    return Image.fromarray(array)


def _check_size(size: tuple[int, int], name: str, max_pixels: int) -> None:
    width, height = size
    short, long = sorted(size)
    if short < MIN_SIDE:
        raise DiffjaxError(
            f"{name} is {width}×{height} pixels; a picture needs at least {MIN_SIDE} "
            "in each direction."
        )
    check_pixels(size, name, max_pixels)
    if long > MAX_ASPECT * short:
        raise DiffjaxError(
            f"{name} is {width}×{height} pixels, more than {MAX_ASPECT} times as long "
            "as wide; a centre crop would miss nearly all of it. Crop it first."
        )


def _open_file(path: Path, name: str) -> io.BufferedReader:
    place = regular_file(path, "image")
    try:
        if place.stat().st_size == 0:
            raise DiffjaxError(f"{name} is empty. Fetch or save it again.")
        return place.open("rb")
    except OSError as error:
        raise DiffjaxError(f"{name} cannot be opened ({error}).") from error


def _describe(source: object) -> str:
    """How error messages name the source, in one short line."""
    if isinstance(source, np.ndarray):
        return f"Array of shape {source.shape} and dtype {source.dtype}"
    if isinstance(source, Image.Image):
        file = getattr(source, "filename", "")
        return f"PIL image {file}" if file else "PIL image"
    if isinstance(source, bytes):
        return f"Image of {len(source)} bytes"
    if isinstance(source, str | os.PathLike):
        text = os.fspath(source)
        return repr(text if len(text) <= 200 else text[:200] + "…")
    return f"a {type(source).__name__}"
