"""Images that a model drew: an image folder that grows and goes on.

    FOLDER/CLASS/00000.png   the images of a class, by number
    FOLDER/sample.json       what made them; whoever goes on must agree
    FOLDER/prompts.csv       file, class, prompt, seed of each image that is there

A class's folder is called by its name, with %2F for a slash.
"""

import csv
import io
from collections.abc import Mapping, Sequence
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
SLASH = "%2F"
MOST_BYTES = 200  # of a name; file systems take 255


def folder_name(class_name: str) -> str:
    """What the folder of a class is called.

    Raises:
        DiffjaxError: if no folder can be called so.
    """
    name = class_name.replace("/", SLASH)
    if name.startswith(".") or "\0" in name or len(name.encode()) > MOST_BYTES:
        raise DiffjaxError(
            f"No folder can be called {class_name!r:.80}: a class's name must not "
            f"begin with a dot, nor be longer than {MOST_BYTES} bytes. Give it another "
            "name, as the classname of a --prompts file."
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
        self, path: Path, class_names: Sequence[str], header: Mapping[str, Any]
    ) -> None:
        """Open a folder; nothing is written yet.

        Args:
            path: the folder.
            class_names: all different.
            header: plain JSON values, ``FREE`` and "seed" among them. What is free is
                taken from a folder that is there, where it is None here.

        Raises:
            DiffjaxError: if the folder holds something else, or images that another
                header made; the message says what differs.
        """
        self.path, self.class_names = path, tuple(class_names)
        self._folders = [folder_name(name) for name in class_names]
        lower = [name.casefold() for name in self._folders]
        if twice := [n for n in self._folders if lower.count(n.casefold()) > 1]:
            raise DiffjaxError(
                f"The classes {', '.join(map(repr, twice[:4]))} differ by capitals "
                "alone, and would share a folder on some systems. Rename them."
            )
        self.header = dict(header)
        there = self._there()
        self.header |= {
            key: (there or {}).get(key) for key in FREE if self.header.get(key) is None
        }
        self._prompts: dict[tuple[int, int], str] = {}

    @property
    def saved(self) -> int:
        """How many of the asked images are there."""
        return len(self._prompts)

    def begin(self) -> None:
        """Write the header, and make the folders of the classes."""
        for name in self._folders:
            (self.path / name).mkdir(parents=True, exist_ok=True)
            for left in (self.path / name).glob(f".*{PARTIAL}"):
                left.unlink(missing_ok=True)  # of a process that was killed
        write_json(self.path / HEADER, self.header)

    def file(self, label: int, number: int) -> str:
        """The path of an image below the folder."""
        return f"{self._folders[label]}/{number:05d}.png"

    def has(self, label: int, number: int, prompt: str) -> bool:
        """Whether an image is there, which the table is to name."""
        there = (self.path / self.file(label, number)).is_file()
        if there:
            self._prompts[label, number] = prompt
        return there

    def add(
        self, label: int, number: int, prompt: str, image: UInt8[np.ndarray, "H W 3"]
    ) -> None:
        """Write an image."""
        save_png(Image.fromarray(image), self.path / self.file(label, number))
        self._prompts[label, number] = prompt

    def flush(self) -> None:
        """Write the table of what is there."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        seed = self.header["seed"]
        for (label, number), prompt in sorted(self._prompts.items()):
            name = self.class_names[label]
            writer.writerow((self.file(label, number), name, prompt, seed))
        write_text(self.path / TABLE, text.getvalue())

    def rows(self, columns: int, most: int) -> list[tuple[str, Sequence[Image.Image]]]:
        """The first images of the first classes, for a sheet."""
        found: list[tuple[str, Sequence[Image.Image]]] = []
        for label, name in enumerate(self.class_names[:most]):
            numbers = sorted(k for c, k in self._prompts if c == label)[:columns]
            files = [self.path / self.file(label, number) for number in numbers]
            found.append((name, [Image.open(file) for file in files]))
        return found

    def _there(self) -> dict[str, Any] | None:
        file = self.path / HEADER
        if not file.exists():
            if self.path.exists() and any(self.path.iterdir()):
                raise DiffjaxError(
                    f"{self.path} holds something else than drawn images, as it has no "
                    f"{HEADER}. Name a new folder."
                )
            return None
        there: dict[str, Any] = read_json_object(file, remedy="Name a new folder.")
        differing = [
            f"  {key}: {_short(there.get(key))} → {_short(self.header.get(key))}"
            for key in sorted(there.keys() | self.header.keys())
            if key not in FREE and there.get(key) != self.header.get(key)
        ]
        if differing:
            raise DiffjaxError(
                f"{self.path} holds images that were drawn otherwise (there → now):\n"
                + "\n".join(differing)
                + "\nName a new folder."
            )
        return there


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:99]}…"
