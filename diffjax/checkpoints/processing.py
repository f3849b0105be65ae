"""How a classifier's images are made ready, by its preprocessor_config.json.

    resize       to size, or the shorter edge to it
    centre crop  what is missing is black
    x = (pixel · rescale_factor − mean) / std

As transformers' image processors do it with Pillow, with what their classes assume
where a file is silent. ConvNext's resizes to size / crop_pct and crops to size, but
squeezes images to a size of 384 or more.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from jaxtyping import Float32
from PIL import Image

from diffjax.errors import DiffjaxError, unknown
from diffjax.files import read_json_object
from diffjax.models.config import Bounds, Edge, NetworkConfig

FILE = "preprocessor_config.json"
SQUEEZED = 384  # of ConvNext's: the least size to which images are squeezed
_TYPE = re.compile(r"(\w+?)(ImageProcessor|FeatureExtractor)(Fast|Pil)?")

Resample = Annotated[int, Bounds(0, 5)]  # Pillow's numbers
Factor = Annotated[float, Bounds(1e-9, 1e9)]
Mean = Annotated[float, Bounds(-1e6, 1e6)]
Triple = Annotated[tuple[Mean, ...], Bounds(3, 3)]
Spread = Annotated[tuple[Factor, ...], Bounds(3, 3)]

_HALF = (0.5, 0.5, 0.5)
_CLIP = {
    "image_mean": (0.48145466, 0.4578275, 0.40821073),
    "image_std": (0.26862954, 0.26130258, 0.27577711),
    "size": {"shortest_edge": 224},
    "crop_size": {"height": 224, "width": 224},
    "do_center_crop": True,
    "resample": 3,
}
# what a class assumes; a size that is a number is of the shorter edge where its own is
PROCESSORS: dict[str, dict[str, Any]] = {
    "ViT": {"size": {"height": 224, "width": 224}, "resample": 2},
    "DeiT": {
        "size": {"height": 256, "width": 256},
        "crop_size": {"height": 224, "width": 224},
        "do_center_crop": True,
        "resample": 3,
    },
    "ConvNext": {"size": {"shortest_edge": 384}, "resample": 3, "crop_pct": 224 / 256},
    "Bit": _CLIP,
    "CLIP": _CLIP,
}
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_FIXED: dict[str, Any] = {
    "do_pad": False,
    "do_reduce_labels": False,
    "use_square_size": False,
}
_IGNORED = {
    "image_processor_type": "chosen by it",
    "feature_extractor_type": "chosen by it",
    "processor_class": "of what is read beside images",
    "do_convert_rgb": "images are RGB",
    "data_format": "the network's own",
    "input_data_format": "the reader's own",
    "return_tensors": "the caller's",
    "device": "the caller's",
    "disable_grouping": "of batches",
    "default_to_square": "the class's own",
}


@dataclass(frozen=True, kw_only=True)
class Processing(NetworkConfig):
    """The settings of an image processor; those of sizes as ``size_height``."""

    fixed, ignored = _FIXED, _IGNORED

    do_resize: bool = True
    resample: Resample = 2
    size_height: Edge | None = None
    size_width: Edge | None = None
    size_shortest_edge: Edge | None = None
    crop_pct: Factor | None = None
    do_center_crop: bool = False
    crop_size_height: Edge | None = None
    crop_size_width: Edge | None = None
    do_rescale: bool = True
    rescale_factor: Factor = 1 / 255
    do_normalize: bool = True
    image_mean: Triple = _HALF
    image_std: Spread = _HALF

    def check(self, source: str) -> None:
        """Raise DiffjaxError unless all images come out as squares of one size."""
        height, width = self._shape()
        if height is None or height != width:
            raise DiffjaxError(
                f"{source} does not make all images squares of one size: its size "
                f"is {self._size()}, its crop_size "
                f"{(self.crop_size_height, self.crop_size_width)}. Set one of them "
                "to the height and width that the network takes."
            )

    @property
    def resolution(self) -> int:
        """Pixels along each edge of what comes out."""
        edge = self._shape()[0]
        assert edge is not None  # as ``check`` saw to
        return edge

    def __call__(self, image: Image.Image) -> Float32[np.ndarray, "H W 3"]:
        """An RGB image as the network sees it."""
        if self.do_resize:
            image = image.resize(self._resized(image), Image.Resampling(self.resample))
        pixels = np.asarray(image)
        edge = self.size_shortest_edge
        if self.do_resize and self.crop_pct is not None and edge and edge < SQUEEZED:
            pixels = self._cropped(pixels, edge, edge)
        if self.do_center_crop:
            assert self.crop_size_height is not None
            assert self.crop_size_width is not None
            pixels = self._cropped(pixels, self.crop_size_height, self.crop_size_width)
        x = pixels.astype(np.float32)
        if self.do_rescale:
            x = (pixels.astype(np.float64) * self.rescale_factor).astype(np.float32)
        if self.do_normalize:
            mean, std = np.array([self.image_mean, self.image_std], np.float32)
            x = (x - mean) / std
        return x

    def describe(self) -> dict[str, Any]:
        """All that decides the pixels; plain JSON values."""
        fields = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in vars(self).items()
            if value is not None
        }
        return {"class": type(self).__name__} | fields

    def _size(self) -> tuple[int | None, int | None] | int | None:
        return self.size_shortest_edge or (self.size_height, self.size_width)

    def _shape(self) -> tuple[int | None, int | None]:
        """Of what comes out; None where it depends on the image."""
        if self.do_center_crop:
            return self.crop_size_height, self.crop_size_width
        if not self.do_resize:
            return None, None
        if self.crop_pct is not None:
            return self.size_shortest_edge, self.size_shortest_edge
        if self.size_shortest_edge is not None:
            return None, None
        return self.size_height, self.size_width

    def _resized(self, image: Image.Image) -> tuple[int, int]:
        """Width and height after the resize."""
        edge = self.size_shortest_edge
        if edge is None:
            assert self.size_width is not None and self.size_height is not None
            return self.size_width, self.size_height
        if self.crop_pct is not None:
            if edge >= SQUEEZED:
                return edge, edge
            edge = int(edge / self.crop_pct)
        short, long = sorted(image.size)
        longer = int(edge * long / short)
        return (longer, edge) if image.width > image.height else (edge, longer)

    def _cropped(self, pixels: np.ndarray, height: int, width: int) -> np.ndarray:
        """The middle; where an edge is too short, black on both sides."""
        for axis, wanted in enumerate((height, width)):
            n = pixels.shape[axis]
            missing = max(wanted - n, 0)
            sides = [(0, 0)] * pixels.ndim
            sides[axis] = (-(-missing // 2), missing // 2)
            start = self._start(n + missing, wanted)
            pixels = np.pad(pixels, sides).take(range(start, start + wanted), axis)
        return pixels

    def _start(self, n: int, wanted: int) -> int:
        return (n - wanted) // 2


@dataclass(frozen=True, kw_only=True)
class TorchvisionProcessing(Processing):
    """As torchvision's presets: a crop that cannot be in the middle goes by halves."""

    resample: Resample = 2
    image_mean: Triple = IMAGENET_MEAN
    image_std: Spread = IMAGENET_STD
    do_center_crop: bool = True

    def _start(self, n: int, wanted: int) -> int:
        return round((n - wanted) / 2)  # to the even neighbour, at one half


def read_processing(folder: Path, usual: str) -> Processing:
    """Read a folder's preprocessor_config.json.

    Args:
        folder: that has it.
        usual: a key of ``PROCESSORS``, for files that name no class.

    Raises:
        DiffjaxError: if it is missing or damaged, or asks for what is not implemented.
    """
    path = folder / FILE
    raw = read_json_object(path, FILE, "Download it again.")
    return processing_of(raw, usual, str(path))


def processing_of(raw: Mapping[str, Any], usual: str, source: str) -> Processing:
    """The same of a parsed file; ``source`` is its name, for messages."""
    name = raw.get("image_processor_type") or raw.get("feature_extractor_type")
    match = _TYPE.fullmatch(name) if isinstance(name, str) else None
    kind = usual if name is None else match[1] if match else str(name)
    if kind not in PROCESSORS:
        raise DiffjaxError(f"{source}: {unknown('image processor', kind, PROCESSORS)}")
    assumed = PROCESSORS[kind]
    given = {key: value for key, value in raw.items() if value is not None}
    flat: dict[str, Any] = {}
    for key, value in (assumed | given).items():
        if key not in ("size", "crop_size"):
            flat[key] = value
            continue
        if isinstance(value, int) and not isinstance(value, bool):
            square = key == "crop_size" or "height" in assumed[key]
            names = ("height", "width") if square else ("shortest_edge",)
            value = dict.fromkeys(names, value)
        if not isinstance(value, dict):
            raise DiffjaxError(
                f"{source}: {key}={value!r} must be a whole number, or numbers by "
                "their names, as height and width."
            )
        flat |= {f"{key}_{name}": number for name, number in value.items()}
    return Processing.from_dict(flat, source)
