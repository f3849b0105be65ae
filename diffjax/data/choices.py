"""Images with the caption that fits and captions that do not, and where images lie."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from diffjax.errors import DiffjaxError

Box = tuple[int, int, int, int]  # left, upper, right, lower


@dataclass(frozen=True, kw_only=True)
class ChoiceExample:
    """An image, and captions to choose from.

    Attributes:
        id: of the example in its set.
        captions: the right one, then one or more that are wrong.
        image: its file.
        tag: what the wrong captions change, finely.
        collapsed_tag: the same, coarsely.
        box: the part of the image that is meant; None for all of it.
    """

    id: str
    captions: tuple[str, ...]
    image: Path
    tag: str
    collapsed_tag: str
    box: Box | None = None
    secondary_tag: str = ""

    @property
    def images(self) -> tuple[Path, ...]:
        """The one image."""
        return (self.image,)


class ImageFolder:
    """Finds images by their names, in a folder or anywhere below it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def find(self, name: str, where: str, advice: str) -> Path:
        """The file of an image.

        Args:
            name: as the set has it.
            where: the entry that names it, for messages.
            advice: a sentence on what to fetch if it is missing.

        Raises:
            DiffjaxError: if it is missing, or there are several of its name.
        """
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise DiffjaxError(f"{where}: {name!r:.100} is no name of an image.")
        path = self.root / name
        if os.path.isfile(path):  # of Path one raises for a name too long
            return path
        found = self._below.get(Path(name).name, [])
        if len(found) > 1:
            raise DiffjaxError(
                f"{where}: there are {len(found)} images {name}, {found[0]} and "
                f"{found[1]}; name the folder of the right one with --images."
            )
        if not found:
            raise DiffjaxError(
                f"{where}: there is no image {name} in {self.root} or below. {advice}"
            )
        return found[0]

    @cached_property
    def _below(self) -> dict[str, list[Path]]:
        found: dict[str, list[Path]] = {}
        for folder, _, names in os.walk(self.root):
            for name in names:
                found.setdefault(name, []).append(Path(folder) / name)
        return found


def text_of(entry: Any, key: str, where: str) -> str:
    """A text of an entry.

    Raises:
        DiffjaxError: if it is none.
    """
    value = entry.get(key) if isinstance(entry, Mapping) else None
    if not isinstance(value, str) or not value:
        raise DiffjaxError(
            f"{where}: {key} must be a text, not {value!r:.60}. Fetch the file again."
        )
    return value
