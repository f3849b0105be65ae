"""Labelled images on disk: tensorflow-datasets directories, read without tensorflow.

A source is a sequence of examples that decodes an image only when it is asked for it.
"""

import io
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int32, UInt8
from PIL import Image

from diffjax.errors import DiffjaxError

_READ_AT_ONCE = 64  # examples: amortises a call, bounds the memory
_VERSION = re.compile(r"\d+\.\d+\.\d+")


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
    """What the evaluation and the training read from."""

    name: str
    split: str
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        """The number of examples."""

    def __getitem__(self, index: int) -> Example:
        """The example at an index in [0, len), decoded now."""

    def __iter__(self) -> Iterator[Example]:
        """All examples in order."""


class TfdsSource:
    """One split of a prepared tensorflow-datasets directory, in its stored order.

    tensorflow-datasets shuffles when it prepares; ``Example.id`` tells the first place.
    """

    def __init__(
        self,
        name: str,
        split: str,
        class_names: tuple[str, ...],
        stored: Any,
    ) -> None:
        self.name = name
        self.split = split
        self.class_names = class_names
        self._stored = stored

    def __len__(self) -> int:
        """The number of examples."""
        return len(self._stored)

    def __getitem__(self, index: int) -> Example:
        """The example at an index in [0, len), decoded now."""
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name} {self.split} has no example {index}.")
        return self._read([index])[0]

    def __iter__(self) -> Iterator[Example]:
        """All examples in order; faster than one at a time, since read in runs."""
        for start in range(0, len(self), _READ_AT_ONCE):
            yield from self._read(range(start, min(start + _READ_AT_ONCE, len(self))))

    def _read(self, indices: Sequence[int]) -> list[Example]:
        try:
            stored = self._stored.__getitems__(list(indices))
            return [self._decode(*pair) for pair in zip(indices, stored, strict=True)]
        except Exception as error:  # the readers raise nearly anything on damage
            which = f"{indices[0]} to {indices[-1]}" if indices[1:] else f"{indices[0]}"
            raise DiffjaxError(
                f"{self.name} {self.split}: example {which} cannot be read ({error}). "
                "Prepare the data set again."
            ) from error

    def _decode(self, index: int, stored: dict[str, Any]) -> Example:
        # Plain RGB, no EXIF rotation: published accuracies were measured so.
        with Image.open(io.BytesIO(stored["image"])) as image:
            pixels = np.asarray(image.convert("RGB"))
        name = stored.get("id", stored.get("file_name", f"{self.split}_{index:05d}"))
        return Example(
            image=pixels,
            label=int(stored["label"]),
            id=name.decode() if isinstance(name, bytes) else str(name),
        )


def open_tfds(
    name: str, split: str, data_dir: str | os.PathLike[str] | None = None
) -> TfdsSource:
    """Open one split of a data set that was prepared as array_record.

    Nothing is downloaded or prepared, and no network is tried.

    Args:
        name: as in its catalogue: "cifar10", "name/config", or "name:1.0.0". Without a
            version the newest one on disk is taken.
        split: a split or a slice of one: "test", "train[:100]", "train[50%:]".
        data_dir: the folder that holds the data sets; ``TFDS_DATA_DIR`` or
            ``~/tensorflow_datasets`` by default.

    Raises:
        DiffjaxError: if the data set is not there, is stored in another file format,
            has no such split, or is not one of labelled images.
    """
    if data_dir is None:
        data_dir = os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
    root = Path(data_dir).expanduser().absolute()
    folder = _find(name, root)
    _check_format(folder, name)

    import tensorflow_datasets as tfds  # takes most of a second

    try:
        builder = tfds.builder_from_directory(folder)
        features = dict(builder.info.features.items())
    except Exception as error:  # a damaged features.json raises nearly anything
        raise DiffjaxError(
            f"{folder} cannot be read ({error}). Prepare the data set again."
        ) from error
    wanted = {"image": tfds.features.Image, "label": tfds.features.ClassLabel}
    for key, kind in wanted.items():
        if not isinstance(features.get(key), kind):
            raise DiffjaxError(
                f"{folder} is not a set of labelled images: it has the features "
                f"{', '.join(sorted(features))}, and needs image and label."
            )
    try:
        # Encoded images are left to Pillow, as everywhere else in this package.
        examples = builder.as_data_source(
            split=split, decoders={"image": tfds.decode.SkipDecoding()}
        )
        count = len(examples)
    except Exception as error:
        splits = ", ".join(builder.info.splits) or "none"
        raise DiffjaxError(
            f"Cannot open the split {split!r} of {folder} ({error}). Its splits are: "
            f"{splits}; a slice is written as in 'test[:100]'."
        ) from error
    if count == 0:
        raise DiffjaxError(f"The split {split!r} of {folder} holds no examples.")
    return TfdsSource(name, split, tuple(features["label"].names), examples)


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


def _find(name: str, root: Path) -> Path:
    """The newest (or the named) version's folder: root/name[/config]/version."""
    dataset, _, version = name.partition(":")
    parent = root / dataset
    found = {
        path.parent.name: path.parent for path in parent.glob("*/dataset_info.json")
    }
    versions = sorted(
        (v for v in found if _VERSION.fullmatch(v)),
        key=lambda v: tuple(map(int, v.split("."))),
    )
    if version in versions:
        return found[version]
    if versions and not version:
        return found[versions[-1]]
    configs = sorted({p.parts[-3] for p in parent.glob("*/*/dataset_info.json")})
    if versions:
        advice = f"Versions on disk: {', '.join(versions)}."
    elif configs:
        advice = (
            f"Name a configuration: {', '.join(f'{dataset}/{c}' for c in configs)}."
        )
    else:
        advice = _how_to_prepare(dataset, root)
    raise DiffjaxError(f"There is no data set {name} in {root}. {advice}")


def _check_format(folder: Path, name: str) -> None:
    try:
        info = json.loads((folder / "dataset_info.json").read_text(encoding="utf-8"))
        stored = info.get("fileFormat", "tfrecord")  # absent in old directories
    except (OSError, ValueError, AttributeError) as error:
        raise DiffjaxError(
            f"{folder / 'dataset_info.json'} cannot be read ({error}). Prepare "
            "the data set again."
        ) from error
    if stored != "array_record":
        raise DiffjaxError(
            f"{folder} is stored as {stored}, which only tensorflow reads. Prepare it "
            f"once more in another folder. {_how_to_prepare(name, Path('FOLDER'))}"
        )


def _how_to_prepare(name: str, root: Path) -> str:
    if name.partition(":")[0] == "cifar10":
        command = f"python scripts/prepare_cifar10.py ARCHIVE --data-dir {root}"
        return f"Prepare it with: {command}"
    command = f"tfds build {name} --file_format array_record --data_dir {root}"
    return f"Many sets need tensorflow for this step. Prepare it with: {command}"
