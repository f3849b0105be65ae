"""A table of image paths and labels: CSV with a header, or JSON lines."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffjax.data.files import ALL, FileSource, ImageFile, Load, load_upright
from diffjax.data.imagenet import imagenet_classes
from diffjax.data.labels import numbered
from diffjax.errors import DiffjaxError
from diffjax.files import PathLike, read_csv, read_json_lines, user_path

SUFFIXES = (".csv", ".jsonl")
PATHS = ("path", "file_name")  # columns; the latter is the Hugging Face hub's

MAX_PATH = 1000  # characters


@dataclass(frozen=True, kw_only=True)
class _Row:
    where: str  # "FILE, line N", for messages
    path: str
    label: str | int
    id: str


def open_table(path: PathLike, *, load: Load = load_upright) -> FileSource:
    """Open the images that a .csv or .jsonl file lists, in its order.

    Each row has a path (relative to the table; the column may be called file_name, as
    in the Hugging Face hub's metadata.csv and metadata.jsonl), a label and perhaps an
    id, which is the path otherwise. Further columns are not read. If all labels are
    integers they are the class numbers, and names are their digits; else they are
    class names, and the sorted names are the classes. Images are turned by their EXIF
    orientation.

    Args:
        path: the path of the table.
        load: reads an image.

    Raises:
        DiffjaxError: if the table is missing or malformed, an id comes twice, or an
            image is missing, naming the line.
    """
    table = user_path(path)
    rows = list(_read(table))
    if not rows:
        raise DiffjaxError(f"{table} lists no images.")
    lines: dict[str, str] = {}
    for row in rows:
        if row.id in lines:
            raise DiffjaxError(
                f"{row.where}: the id {row.id!r} is that of {lines[row.id]} too. Give "
                "each row an id of its own."
            )
        lines[row.id] = row.where
    names, labels = numbered([(row.where, row.label) for row in rows])
    files = []
    for row, label in zip(rows, labels, strict=True):
        image = table.parent / user_path(row.path)
        if not os.path.isfile(image):  # of Path one raises for a name too long
            raise DiffjaxError(f"{row.where}: there is no image {image}.")
        files.append(ImageFile(path=image, label=label, id=row.id))
    return FileSource(
        name=str(path),
        split=ALL,
        class_names=names,
        files=files,
        load=load,
        model_classes=imagenet_classes(names),
    )


def _read(table: Path) -> Iterator[_Row]:
    if table.suffix.lower() not in SUFFIXES:
        raise DiffjaxError(f"{table} is not a table: name it .csv or .jsonl.")
    cells = (
        read_csv(table, ("label",), "table", wanted="path and label")
        if table.suffix.lower() == ".csv"
        else read_json_lines(table, "table")
    )
    for where, cell in cells:
        yield _row(where, cell)


def _row(where: str, cells: Mapping[str, Any]) -> _Row:
    given = [column for column in PATHS if column in cells]
    if len(given) != 1:
        raise DiffjaxError(
            f"{where}: the columns must include path (or file_name) and label, each "
            f"once, not {', '.join(cells) or 'none'}."
        )
    path, label, name = (cells.get(column) for column in (*given, "label", "id"))
    if not isinstance(path, str) or not path.strip() or "\0" in path:
        raise DiffjaxError(f"{where}: the {given[0]} is missing.")
    if len(path) > MAX_PATH:
        raise DiffjaxError(f"{where}: the {given[0]} is too long: {path[:80]}…")
    if isinstance(label, str):
        label = label.strip()
    if isinstance(label, bool) or not isinstance(label, str | int) or label == "":
        raise DiffjaxError(
            f"{where}: the label must be a class name or number, not {label!r}."
        )
    if name is None or name == "":
        name = path
    if isinstance(name, bool) or not isinstance(name, str | int):
        raise DiffjaxError(f"{where}: the id must be a text or number, not {name!r}.")
    return _Row(where=where, path=path, label=label, id=str(name))
