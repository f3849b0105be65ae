"""Contact sheets: many small images in one, to be looked at."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from diffjax.errors import DiffjaxError
from diffjax.files import atomic

GAP = 2  # pixels between images
LEAST_SIDE = 64  # pixels of an image with a name beside it
MOST_SIDE = 128
LETTERS = 28  # of a name; longer ones are cut


def as_bytes(pixels: np.ndarray) -> UInt8[np.ndarray, "..."]:
    """Pixels in [−1, 1], or about, as 0 to 255."""
    whole: np.ndarray = np.clip(np.round((pixels + 1) * 127.5), 0, 255).astype(np.uint8)
    return whole


def sheet(images: UInt8[np.ndarray, "n H W 3"], columns: int) -> Image.Image:
    """Images beside and below each other."""
    sides = [(0, -len(images) % columns), (0, GAP), (0, GAP), (0, 0)]
    tiles = np.pad(images, sides, constant_values=255)
    rows = [np.hstack(row) for row in tiles.reshape(-1, columns, *tiles.shape[1:])]
    return Image.fromarray(np.vstack(rows))


def named_sheet(rows: Sequence[tuple[str, Sequence[Image.Image]]]) -> Image.Image:
    """Rows of images of one size, each with a name to its left.

    Small images are enlarged by a whole number, so that their pixels stay as they are,
    and large ones made smaller.
    """
    width, height = next(image.size for _, images in rows for image in images)
    edge = max(width, height)
    if edge < LEAST_SIDE:
        times, how = -(-LEAST_SIDE // edge), Image.Resampling.NEAREST
        size = width * times, height * times
    else:
        scale, how = min(1.0, MOST_SIDE / edge), Image.Resampling.LANCZOS
        size = max(1, round(width * scale)), max(1, round(height * scale))
    names = [n if len(n) <= LETTERS else n[: LETTERS - 1] + "…" for n, _ in rows]
    font = ImageFont.load_default()
    left = max(int(font.getlength(_drawn(name))) for name in names) + 4 * GAP
    columns = max(len(images) for _, images in rows)
    step = size[0] + GAP, size[1] + GAP
    paper = (left + columns * step[0], len(rows) * step[1])
    whole = Image.new("RGB", paper, "white")
    pen = ImageDraw.Draw(whole)
    for y, (name, (_, images)) in enumerate(zip(names, rows, strict=True)):
        middle = y * step[1] + size[1] // 2
        pen.text((2 * GAP, middle), _drawn(name), "black", font, anchor="lm")
        for x, image in enumerate(images):
            resized = image.convert("RGB").resize(size, how)
            whole.paste(resized, (left + x * step[0], y * step[1]))
    return whole


def check_sheet(path: Path) -> None:
    """Raise a DiffjaxError unless a sheet can be written there."""
    if path.suffix.lower() != ".png" or not path.parent.is_dir():
        raise DiffjaxError(f"A sheet is a .png in a folder that is there, not {path}.")


def save_png(image: Image.Image, path: Path) -> None:
    """Write a PNG file, whole or not at all."""
    with atomic(path) as partial:
        image.save(partial, "PNG")


def _drawn(name: str) -> str:
    """A name in letters that Pillow's own font has."""
    return name.encode("latin-1", "replace").decode("latin-1")
