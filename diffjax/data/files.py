"""Image files as a source: what folders, tables and published layouts share."""

import io
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int32, UInt8

from diffjax.data.decoding import damaged, open_picture
from diffjax.data.images import load_image
from diffjax.data.sources import Example, Source, digest
from diffjax.errors import DiffjaxError
from diffjax.files import regular_file

ALL = "all"  # the split of what is not divided

Load = Callable[[Path], UInt8[np.ndarray, "h w 3"]]


@dataclass(frozen=True, kw_only=True)
class ImageFile:
    """One image of a data set, where it lies.

    Attributes:
        path: the path of the file.
        label: the class, an index into the source's ``class_names``.
        id: what the data set calls the image.
    """

    path: Path
    label: int
    id: str


class FileSource(Source):
    """Labelled image files; each is decoded when it is asked for.

    The fingerprint covers names and labels of the files, not their content: that would
    mean to read everything. A broken image may so be mended while a run is going on.
    """

    def __init__(
        self,
        *,
        name: str,
        split: str,
        class_names: tuple[str, ...],
        files: Sequence[ImageFile],
        load: Load,
        model_classes: tuple[tuple[int, ...], ...] | None = None,
    ) -> None:
        """Take stock of the files.

        Raises:
            DiffjaxError: if there are none, or one is missing.
        """
        if not files:
            raise DiffjaxError(f"{name} {split} holds no images.")
        self.name = name
        self.split = split
        self.class_names = class_names
        self.model_classes = model_classes
        self.files = tuple(files)
        self._load = load
        _require([file.path for file in files])
        stock = (f"{file.id}\t{file.label}" for file in files)
        self.fingerprint = digest([*class_names, *stock])

    def __len__(self) -> int:
        """The number of examples."""
        return len(self.files)

    def __getitem__(self, index: int) -> Example:
        """The example at an index in [0, len), decoded now."""
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name} {self.split} has no example {index}.")
        file = self.files[index]
        return Example(image=self._load(file.path), label=file.label, id=file.id)

    def labels(self) -> Int32[np.ndarray, " n"]:
        """The label of each example, in order."""
        return np.array([file.label for file in self.files], np.int32)


def load_upright(
    path: Path, max_pixels: int | None = None
) -> UInt8[np.ndarray, "h w 3"]:
    """An image of one's own: turned by its EXIF orientation, as ``load_image`` does."""
    return np.asarray(load_image(path, max_pixels=max_pixels))


def load_plain(path: Path) -> UInt8[np.ndarray, "h w 3"]:
    """An image of a published set: converted to RGB and nothing else.

    Published accuracies were measured so, without a turn by EXIF.

    Raises:
        DiffjaxError: if the file cannot be decoded.
    """
    with regular_file(path, "image").open("rb") as file:
        return decode_plain(file, str(path))


def decode_plain(
    stream: io.BytesIO | io.BufferedReader, name: str
) -> UInt8[np.ndarray, "h w 3"]:
    """Decode the bytes of an image as ``load_plain`` does those of a file."""
    image = open_picture(stream, name)
    try:
        return np.asarray(image.convert("RGB"))
    except Exception as error:  # decoders raise nearly anything on damage
        raise damaged(name, error) from error


def _require(paths: Sequence[Path]) -> None:
    """Raise DiffjaxError if a file is missing."""
    missing = [path for path in paths if not os.path.isfile(path)]
    if missing:
        raise DiffjaxError(
            f"{len(missing)} of {len(paths)} image files are missing; the first is "
            f"{missing[0]}."
        )
