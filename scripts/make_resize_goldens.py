"""Write what torchvision makes of small images, to compare our resize with.

    python scripts/make_resize_goldens.py [tests/goldens/resize.npz]

It needs torch and torchvision (0.28 beside torch 2.13 made the stored file). The wheel
of torchvision on PyPI wants CUDA's libraries for its operators; no transform uses
those, so `pip install --no-deps torchvision` beside a torch for CPUs is enough here.

The file holds, for every IMAGE and its sizes,

    IMAGE                                 uint8 [h, w, 3], the input
    IMAGE:RESOLUTION:INTERPOLATION:pil    Resize and CenterCrop of the PIL image, which
                                          is what the authors' program does
    IMAGE:RESOLUTION:INTERPOLATION:tensor the same of a uint8 tensor, antialiased

PIL rounds and clips to 8 bits after the horizontal pass and again after the vertical
one; of a tensor torchvision does so once, at the end. Where bicubic overshoots, as in
enlarged noise, that is several levels; elsewhere the two differ by at most one.
"""

import sys
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from PIL import Image

# Without the operators torchvision fails where it describes them to torch.compile.
with mock.patch("torch.library.register_fake", lambda name: lambda function: function):
    from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

# image: (height, width), resolutions; up and down, wide and tall, odd and even
SIZES = {
    "noise-wide": ((11, 19), (5, 8, 11, 16)),
    "noise-tall": ((23, 14), (6, 14, 15)),
    "smooth-wide": ((30, 47), (8, 13)),
    "smooth-small": ((8, 6), (13, 16)),
}
INTERPOLATIONS = ("bilinear", "bicubic")


def noise(height: int, width: int) -> np.ndarray:
    """Every value independent: the hardest case."""
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def smooth(height: int, width: int) -> np.ndarray:
    """Slow waves, another in each channel: closer to a photograph."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 5 + y / 9), np.cos(x / 7 - y / 4), np.sin((x + 2 * y) / 8)]
    return np.rint(127.5 + 100 * np.stack(waves, axis=-1)).astype(np.uint8)


def main(out: Path = Path("tests/goldens/resize.npz")) -> None:
    """Write the file."""
    arrays = {}
    for name, (size, resolutions) in SIZES.items():
        image = (noise if name.startswith("noise") else smooth)(*size)
        arrays[name] = image
        tensor = torch.from_numpy(image).permute(2, 0, 1)
        for resolution in resolutions:
            for interpolation in INTERPOLATIONS:
                mode = InterpolationMode(interpolation)
                transform = Compose([Resize(resolution, mode), CenterCrop(resolution)])
                key = f"{name}:{resolution}:{interpolation}"
                arrays[f"{key}:pil"] = np.asarray(transform(Image.fromarray(image)))
                arrays[f"{key}:tensor"] = transform(tensor).permute(1, 2, 0).numpy()
    out.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(out, **arrays)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
