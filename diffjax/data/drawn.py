"""Images that a model drew: an image folder that grows and goes on.

    FOLDER/CLASS/00000.png   the images of a class, by number
    FOLDER/sample.json       what made them; whoever goes on must agree
    FOLDER/prompts.csv       file, class, prompt, seed of each image that is there

A class's folder is called by its name, with %2F for a slash. An image that is there is
whole: it gets its name when all of it is written.
"""

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from diffjax.data.sheets import save_png
from diffjax.errors import DiffjaxError
from diffjax.files import PARTIAL, read_json_object, write_json, write_text

HEADER, TABLE = "sample.json", "prompts.csv"
COLUMNS = ("file", "class", "prompt", "seed")
FREE = ("model", "batch", "device")  # of a header, that may differ
REMEDY = "Name a new folder."
SLASH = "%2F"
MOST_BYTES = 200  # of a name; file systems take 255


def folder_name(class_name: str) -> str:
    """What the folder of a class is called.

    Raises:
        DiffjaxError: if no folder can be called so.
    """
    name = class_name.replace("/", SLASH)
    taken = name in (HEADER, TABLE)
    if (
        name[:1] in ("", ".")
        or taken
        or "\0" in name
        or len(name.encode()) > MOST_BYTES
    ):
        raise DiffjaxError(
            f"No folder can be called {class_name!r:.80}: a class's name must not "
            f"begin with a dot, nor be longer than {MOST_BYTES} bytes, nor that of "
            "a file beside it. Give another, as the classname of a --prompts file."
        )
    return name


class DrawnFolder:
    """The folder, and which of its images are there.

    Attributes:
        path: the folder.
        class_names: C of them.
        header: what made the images, or makes them now; plain JSON values.
    """

    def __init__(
        self,
        path: Path,
        class_names: Sequence[str],
        prompt: Callable[[int, int], str],
        header: Mapping[str, Any],
    ) -> None:
        """Open a folder; nothing is written yet.

        Args:
            path: the folder.
            class_names: all different.
            prompt: (class, number) → what the image shows.
            header: plain JSON values, "seed" and "batch" among them. A batch that is
                None is taken from a folder that is there.

        Raises:
            DiffjaxError: if the folder holds something else, or images that another
                header made; the message says what differs.
        """
        self.path, self.class_names, self.prompt = path, tuple(class_names), prompt
        self._folders = [folder_name(name) for name in class_names]
        lower = [name.casefold() for name in self._folders]
        if twice := [n for n in self._folders if lower.count(n.casefold()) > 1]:
            raise DiffjaxError(
                f"The classes {', '.join(map(repr, twice[:4]))} differ by capitals "
                "alone, and would share a folder on some systems. Rename them."
            )
        self.header = dict(header)
        there = self._there()
        if self.header["batch"] is None:
            self.header["batch"] = there.get("batch")
        self._images = set(self._stock())
        self._begun = False

    @property
    def saved(self) -> int:
        """How many images are there."""
        return len(self._images)

    def has(self, label: int, number: int) -> bool:
        """Whether an image is there."""
        return (label, number) in self._images

    def begin(self) -> None:
        """Write the header, and make the folders of the classes."""
        for name in self._folders:
            (self.path / name).mkdir(parents=True, exist_ok=True)
            for left in (self.path / name).glob(f".*{PARTIAL}"):
                left.unlink(missing_ok=True)  # of a process that was killed
        write_json(self.path / HEADER, self.header)
        self._begun = True

    def file(self, label: int, number: int) -> str:
        """The path of an image below the folder."""
        return f"{self._folders[label]}/{number:05d}.png"

    def add(self, label: int, number: int, image: UInt8[np.ndarray, "H W 3"]) -> None:
        """Write an image."""
        save_png(Image.fromarray(image), self.path / self.file(label, number))
        self._images.add((label, number))

    def flush(self) -> None:
        """Write the table of what is there."""
        if not self._begun:
            return
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        for label, number in sorted(self._images):
            name, prompt = self.class_names[label], self.prompt(label, number)
            row = (self.file(label, number), name, prompt, self.header["seed"])
            writer.writerow(row)
        write_text(self.path / TABLE, text.getvalue())

    def rows(self, columns: int, most: int) -> list[tuple[str, list[Image.Image]]]:
        """The first images of the first classes, for a sheet."""
        found = []
        for label, name in enumerate(self.class_names[:most]):
            numbers = [k for k in range(columns) if self.has(label, k)]
            files = [self.path / self.file(label, k) for k in numbers]
            found.append((name, [Image.open(file).convert("RGB") for file in files]))
        return found

    def _stock(self) -> Iterator[tuple[int, int]]:
        """The images that are there."""
        for label, name in enumerate(self._folders):
            for file in (self.path / name).glob("*.png"):
                digits = file.stem.isdecimal() and len(file.stem) < 10
                if digits and file.name == f"{int(file.stem):05d}.png":
                    yield label, int(file.stem)

    def _there(self) -> dict[str, Any]:
        """The header of a folder that is there."""
        file = self.path / HEADER
        if not file.exists():
            if self.path.exists() and any(self.path.iterdir()):
                raise DiffjaxError(
                    f"{self.path} holds something else than drawn images, as it has no "
                    f"{HEADER}. Name a new folder."
                )
            return {}
        there: dict[str, Any] = read_json_object(file, remedy=REMEDY)
        differing = [
            f"  {key}: {_short(there.get(key))} → {_short(self.header.get(key))}"
            for key in sorted(there.keys() | self.header.keys())
            if key not in FREE and there.get(key) != self.header.get(key)
        ]
        if differing:
            raise DiffjaxError(
                f"{self.path} holds images that were drawn otherwise (there → now):\n"
                + "\n".join(differing)
                + f"\n{REMEDY}"
            )
        batch = there.get("batch")
        if not isinstance(batch, int) or batch < 1:
            raise DiffjaxError(f"{file}: the batch is {batch!r:.40}. {REMEDY}")
        return there


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:99]}…"
