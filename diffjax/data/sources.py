"""Labelled images: what every data set looks like to the rest of the package.

A source is a sequence of examples that decodes an image only when it is asked for it.
``datasets.open_source`` opens one by name or path.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int32, UInt8

from diffjax.errors import DiffjaxError
from diffjax.files import PathLike, user_path

DataDir = PathLike | None  # the folder that holds data sets


@dataclass(frozen=True, kw_only=True)
class Example:
    """One labelled image.

    Attributes:
        image: RGB pixels, 0 to 255.
        label: the class, an index into the source's ``class_names``.
        id: what the data set calls the image; independent of the order of reading.
    """

    image: UInt8[np.ndarray, "h w 3"]
    label: int
    id: str


@runtime_checkable
class Source(Protocol):
    """What the evaluation and the training read from.

    Attributes:
        name: of the data set, as it was asked for.
        split: the part of the data set.
        class_names: C names; a label is an index into them.
        fingerprint: 16 hex digits that change when the stored data change.
        model_classes: for each class the ids, among ImageNet's 1,000 in the usual
            order, that mean it; None if the data set has no such mapping.
    """

    name: str
    split: str
    class_names: tuple[str, ...]
    fingerprint: str
    model_classes: tuple[tuple[int, ...], ...] | None

    def __len__(self) -> int:
        """The number of examples."""

    def __getitem__(self, index: int) -> Example:
        """The example at an index in [0, len), decoded now.

        Raises:
            DiffjaxError: if its image is broken; the others can still be read.
        """

    def __iter__(self) -> Iterator[Example]:
        """All examples in order."""
        return (self[index] for index in range(len(self)))

    def labels(self) -> Int32[np.ndarray, " n"]:
        """The label of each example, in order; no image is decoded."""


def load_arrays(
    source: Source,
) -> tuple[UInt8[np.ndarray, "n h w 3"], Int32[np.ndarray, " n"]]:
    """Read a whole source of equally sized images into memory, in its order.

    Returns:
        The images, 0 to 255, and their labels. CIFAR-10's 50,000 training images are
        154 MB.

    Raises:
        DiffjaxError: if the images differ in size, or one cannot be read.
    """
    shape = source[0].image.shape
    images = np.empty((len(source), *shape), np.uint8)
    labels = np.empty(len(source), np.int32)
    for index, example in enumerate(source):
        if example.image.shape != shape:
            raise DiffjaxError(
                f"The images of {source.name} {source.split} differ in size "
                f"({example.id} is {example.image.shape}, the first {shape}), so they "
                "do not fit in one array. Read and resize them one by one."
            )
        images[index], labels[index] = example.image, example.label
    return images, labels


def data_root(data_dir: DataDir) -> Path:
    """The folder that holds data sets: the given one, or the usual one.

    Without one it is ``TFDS_DATA_DIR`` or ``~/tensorflow_datasets``.
    """
    if data_dir is None:
        data_dir = os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
    return user_path(data_dir).absolute()


def digest(parts: Iterable[str | bytes]) -> str:
    """16 hex digits of SHA-256 over texts, or bytes, and their lengths."""
    state = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            part = part.encode("utf-8", "surrogateescape")
        state.update(b"%d:" % len(part) + part)
    return state.hexdigest()[:16]
