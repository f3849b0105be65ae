"""A folder of images, one sub-folder per class, perhaps below folders of splits."""

import os
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from diffjax.data.decoding import FORMATS
from diffjax.data.drawn import HEADER, SLASH, TABLE
from diffjax.data.files import ALL, FileSource, ImageFile, Load, load_upright
from diffjax.data.imagenet import imagenet_classes
from diffjax.errors import DiffjaxError, unknown
from diffjax.files import PathLike, user_path

# what folders of splits are called, and the same by other names
SPLITS = (
    ("train", "training"),
    ("val", "valid", "validation", "dev"),
    ("test", "testing"),
)
TABLES = ("metadata.csv", "metadata.jsonl")  # of the Hugging Face hub's image folders


def open_folder(
    path: PathLike, split: str | None = None, *, load: Load = load_upright
) -> FileSource:
    """Open a folder whose sub-folders are the classes.

    The classes are the sub-folders in sorted order; their images are all files in
    them, at any depth, whose suffix Pillow knows (.jpg, .png, .webp and so on), in
    sorted order. Links are followed. An image's id is its path below the folder. What
    is left out is counted in a warning: names that begin with a dot, other suffixes,
    links that lead nowhere or back. Images are turned by their EXIF orientation.
    A slash in a class's name is %2F in its folder's, as `diffjax sample` writes it.
    Sub-folders called by WordNet ids, as ImageNet's are, make ``model_classes`` known.

    Args:
        path: the path of the folder.
        split: where the classes lie in folders called train, val, test or the like,
            the one to open.
        load: reads an image.

    Raises:
        DiffjaxError: if there is no such folder or split, or no image in one of its
            classes, or images lie beside the sub-folders.
    """
    folder = user_path(path)
    if not folder.is_dir():
        raise DiffjaxError(f"There is no folder {folder}. Check the path.")
    below = _split(folder, None if split == ALL else split)
    stock = _Stock(below)
    classes = stock.classes()
    found = {place: stock.images(place) for place in classes}
    empty = [place for place, images in found.items() if not images]
    if empty:
        some = ", ".join(stock.text(place.name) for place in empty[:5])
        raise DiffjaxError(
            f"{len(empty)} of {len(classes)} class folders in {below} hold no images "
            f"that are read here ({some}{', …' if empty[5:] else ''}). Remove those "
            f"that are no classes.{stock.left_out()}"
        )
    files = [
        ImageFile(path=image, label=label, id=stock.id(image))
        for label, images in enumerate(found.values())
        for image in images
    ]
    if len({file.id for file in files}) < len(files):
        raise DiffjaxError(f"{below} has names that differ only in odd bytes.")
    names = tuple(stock.text(place.name).replace(SLASH, "/") for place in classes)
    if left_out := stock.left_out():
        warnings.warn(f"{below}:{left_out}", stacklevel=2)
    return FileSource(
        name=str(path),
        split=ALL if below == folder else below.name,
        class_names=names,
        files=files,
        load=load,
        model_classes=imagenet_classes(names),
    )


@dataclass
class _Stock:
    """What a folder holds, and what of it is left out."""

    folder: Path
    hidden: int = 0
    odd: int = 0  # names that are not UTF-8
    other: Counter[str] = field(default_factory=Counter)  # files by suffix
    broken: int = 0  # links that lead nowhere
    cycles: int = 0  # links that lead back

    def __post_init__(self) -> None:
        known = Image.registered_extensions().items()
        self._suffixes = {suffix for suffix, kind in known if kind in FORMATS}
        self._above = {_identity(p) for p in self.folder.resolve().parents}

    def classes(self) -> list[Path]:
        """The sub-folders.

        Raises:
            DiffjaxError: if there are none, or images lie beside them.
        """
        places, files = self._entries(self.folder)
        stray = [file for file in files if file.suffix.lower() in self._suffixes]
        if stray:
            table = next((t for t in TABLES if (self.folder / t).is_file()), None)
            raise DiffjaxError(
                f"{self.folder} holds images beside its sub-folders ({stray[0].name}). "
                + (
                    f"Open the table that names their classes, {self.folder / table}."
                    if table
                    else "Each image must lie in the sub-folder of its class."
                )
            )
        if not places:
            raise DiffjaxError(
                f"{self.folder} holds no sub-folders. Give each class a sub-folder "
                "with its images, or list paths and labels in a CSV file."
            )
        self.other.update(_suffix(f) for f in files if f.name not in (HEADER, TABLE))
        return places

    def images(self, place: Path) -> list[Path]:
        """The images in a class's folder and below it, in sorted order."""
        return sorted(self._below(place, self._above | {_identity(self.folder)}))

    def id(self, image: Path) -> str:
        """What the data set calls an image: its path below the folder."""
        return self.text(image.relative_to(self.folder).as_posix())

    def text(self, name: str) -> str:
        """A name as text; bytes that are not UTF-8 are written as ``\\xe9``."""
        try:
            name.encode()
        except UnicodeEncodeError:
            self.odd += 1
            return os.fsencode(name).decode("utf-8", "backslashreplace")
        return name

    def left_out(self) -> str:
        """One sentence, after a space; nothing if all is taken as it is."""
        suffixes = ", ".join(f"{n} {s}" for s, n in self.other.most_common(5))
        counts = {
            "file(s) of other suffixes than images have": sum(self.other.values()),
            "name(s) that begin with a dot": self.hidden,
            "link(s) that lead nowhere": self.broken,
            "link(s) that lead back": self.cycles,
        }
        parts = [f"{n:,} {what}" for what, n in counts.items() if n]
        if suffixes:
            parts[0] += f" ({suffixes}{', …' if len(self.other) > 5 else ''})"
        text = f" Left out: {'; '.join(parts)}." if parts else ""
        if self.odd:
            text += " Names that are not UTF-8 have \\x… for their odd bytes."
        return text

    def _below(self, place: Path, above: set[tuple[int, int]]) -> Iterator[Path]:
        here = _identity(place)
        if here in above:
            self.cycles += 1
            return
        places, files = self._entries(place)
        for file in files:
            if file.suffix.lower() in self._suffixes:
                yield file
            else:
                self.other[_suffix(file)] += 1
        for inner in places:
            yield from self._below(inner, above | {here})

    def _entries(self, place: Path) -> tuple[list[Path], list[Path]]:
        """Sub-folders and files, sorted; the rest is counted."""
        places, files = [], []
        for entry in _listed(place):
            if entry.name.startswith("."):
                self.hidden += 1
            elif entry.is_dir():
                places.append(entry)
            elif entry.exists():
                files.append(entry)
            else:
                self.broken += 1
        return places, files


def _split(folder: Path, split: str | None) -> Path:
    """The folder that holds the classes.

    Raises:
        DiffjaxError: if they are divided and no split is named, or another one, or
            one is named and they are not.
    """
    places = [p for p in _listed(folder) if p.is_dir() and not p.name.startswith(".")]
    named = [place for place in places if _meaning(place.name) is not None]
    deep = [place for place in named if any(e.is_dir() for e in _listed(place))]
    others = [place for place in places if place not in named and _holds_images(place)]
    if not deep or others:
        if split is not None:
            raise DiffjaxError(
                f"{folder} has no splits, so there is no {split!r}. Name the folder or "
                "the table of that split instead."
            )
        if named and len(named) == len(places):
            raise DiffjaxError(
                f"{folder} holds {_names(named)}, called like splits, without "
                "folders of classes in them. List paths and labels in a CSV file."
            )
        if deep:
            warnings.warn(
                f"{folder}: {_names(deep)} are taken for classes, not for splits, "
                f"since images lie in {others[0].name} too.",
                stacklevel=3,
            )
        return folder
    if split is None:
        last = deep[-1].name
        raise DiffjaxError(
            f"{folder} is divided into {_names(deep)}. Name one of them, as in --split "
            f"{last}, or its folder, {folder / last}."
        )
    exact = [place for place in deep if place.name == split]
    alike = [p for p in deep if _meaning(split) and _meaning(p.name) == _meaning(split)]
    found = exact or alike
    if len(found) != 1:
        names = [place.name for place in deep]
        raise unknown(f"split of {folder} called", split, names)
    return found[0]


def _meaning(name: str) -> tuple[str, ...] | None:
    """The split that a folder is called after."""
    return next((names for names in SPLITS if name.lower() in names), None)


def _holds_images(place: Path) -> bool:
    stock = _Stock(place)
    return next(stock._below(place, stock._above), None) is not None


def _listed(place: Path) -> list[Path]:
    try:
        return sorted(place.iterdir())
    except OSError as error:
        raise DiffjaxError(f"{place} cannot be read ({error.strerror}).") from error


def _names(places: Sequence[Path]) -> str:
    return ", ".join(place.name for place in places)


def _identity(place: Path) -> tuple[int, int]:
    known = place.stat()
    return known.st_dev, known.st_ino


def _suffix(file: Path) -> str:
    return file.suffix.lower() or "without"
