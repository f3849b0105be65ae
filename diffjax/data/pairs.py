"""Pairs of an image and its label, in memory or by their paths."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int32
from PIL import Image

from diffjax.data.files import ALL
from diffjax.data.imagenet import imagenet_classes
from diffjax.data.images import is_url, load_image
from diffjax.data.labels import numbered
from diffjax.data.sources import Example, Source, digest
from diffjax.errors import DiffjaxError
from diffjax.files import user_path

NAME = "images"  # of a data set that has none


@dataclass(frozen=True, kw_only=True)
class _Entry:
    image: Any
    label: Any
    id: str


class PairSource(Source):
    """Labelled images, held as they were given; each is read when it is asked for.

    The fingerprint covers names, labels, and images that are held in memory; of those
    given by their paths it covers the ids alone.
    """

    def __init__(
        self,
        pairs: Any,
        class_names: Sequence[str] | None = None,
        *,
        max_pixels: int | None = None,
    ) -> None:
        """Take stock of the pairs; an iterable is read to its end now.

        Args:
            pairs: what can be iterated, and gives (image, label) or {"image": …,
                "label": …} and perhaps "id", which is else the path, or the place in
                the order. An image is whatever
                ``load_image`` reads, or an array of JAX.
            class_names: as for ``labels.numbered``; by default what the pairs' own
                attribute ``classes`` says, as torchvision's data sets have it.
            max_pixels: as for ``load_image``.

        Raises:
            DiffjaxError: if there are none, one is malformed, a file is missing, or a
                label is no class.
        """
        if class_names is None:
            class_names = _own_names(pairs)
        self._entries = [_entry(place, each) for place, each in enumerate(pairs)]
        if not self._entries:
            raise DiffjaxError("The data set holds no images.")
        where = (f"entry {place} of the data set" for place in range(len(self)))
        labels = [entry.label for entry in self._entries]
        names, numbers = numbered(zip(where, labels, strict=False), class_names)
        self.name, self.split = NAME, ALL
        self.class_names = names
        self.model_classes = imagenet_classes(names)
        self._labels = np.array(numbers, np.int32)
        self._max_pixels = max_pixels
        stock = (
            f"{entry.id}\t{label}\t{_content(entry.image)}"
            for entry, label in zip(self._entries, numbers, strict=True)
        )
        self.fingerprint = digest([*names, *stock])

    def __len__(self) -> int:
        """The number of examples."""
        return len(self._entries)

    def __getitem__(self, index: int) -> Example:
        """The example at an index in [0, len), read now."""
        entry = self._entries[index]
        image = entry.image
        if hasattr(image, "__array__") and not isinstance(image, Image.Image):
            image = np.asarray(image)
        pixels = np.asarray(load_image(image, max_pixels=self._max_pixels))
        return Example(image=pixels, label=int(self._labels[index]), id=entry.id)

    def labels(self) -> Int32[np.ndarray, " n"]:
        """The label of each example, in order."""
        return self._labels


def _own_names(pairs: object) -> Sequence[str] | None:
    names = getattr(pairs, "classes", None)
    if isinstance(names, Sequence) and all(isinstance(name, str) for name in names):
        return names
    return None


def _entry(place: int, given: Any) -> _Entry:
    if isinstance(given, Mapping):
        image, label, name = (given.get(key) for key in ("image", "label", "id"))
        whole = image is not None and label is not None
    else:
        name = None
        whole = isinstance(given, Sequence) and not isinstance(given, str | bytes)
        whole = whole and len(given) == 2
        image, label = given if whole else (None, None)
    if not whole:
        raise DiffjaxError(
            f"Entry {place} of the data set is a {type(given).__name__}; each must be "
            'an image and its label, as (image, label) or {"image": …, "label": …}.'
        )
    if isinstance(image, str | os.PathLike):
        image = os.fspath(image)
        if not is_url(image) and not user_path(image).is_file():
            raise DiffjaxError(f"Entry {place} of the data set: no image {image}.")
        name = image if name is None else name
    name = f"{place:05d}" if name is None else str(name)
    return _Entry(image=image, label=label, id=name)


def _content(image: Any) -> str:
    """What tells an image from another."""
    if isinstance(image, str):
        return ""  # known by its id: it may lie elsewhere tomorrow
    if isinstance(image, bytes):
        return hashlib.sha256(image).hexdigest()
    try:
        array = np.ascontiguousarray(image)
    except Exception as error:  # its row will say what is wrong with it
        return type(error).__name__
    content = hashlib.sha256(array.tobytes()).hexdigest()
    return f"{array.dtype} {array.shape} {content}"
