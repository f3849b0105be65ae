"""A table of image paths and labels: CSV with a header, or JSON lines."""

import csv
import io
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffjax.data.files import ALL, FileSource, ImageFile, load_upright
from diffjax.data.imagenet import imagenet_classes
from diffjax.errors import DiffjaxError

SUFFIXES = (".csv", ".jsonl")
COLUMNS = ("path", "label", "id")  # the last one may be absent

MAX_CLASSES = 10**6  # a larger label is a slip, not a class


@dataclass(frozen=True, kw_only=True)
class _Row:
    where: str  # "FILE, line N", for messages
    path: str
    label: str | int
    id: str


def open_table(path: str | os.PathLike[str]) -> FileSource:
    """Open the images that a .csv or .jsonl file lists, in its order.

    Each row has a path (relative to the table), a label and perhaps an id, which is
    the path otherwise. If all labels are integers they are the class numbers, and
    names are their digits; else they are class names, and the sorted names are the
    classes. Images are turned by their EXIF orientation.

    Raises:
        DiffjaxError: if the table is missing or malformed, an id comes twice, or an
            image is missing, naming the line.
    """
    table = Path(path).expanduser()
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
    names, labels = _classes(rows)
    files = []
    for row, label in zip(rows, labels, strict=True):
        image = table.parent / Path(row.path).expanduser()
        if not image.is_file():
            raise DiffjaxError(f"{row.where}: there is no image {image}.")
        files.append(ImageFile(path=image, label=label, id=row.id))
    return FileSource(
        name=str(path),
        split=ALL,
        class_names=names,
        files=files,
        load=load_upright,
        model_classes=imagenet_classes(names),
    )


def _classes(rows: list[_Row]) -> tuple[tuple[str, ...], list[int]]:
    """The class names, and the label of each row."""
    numbers = [_integer(row.label) for row in rows]
    if all(number is not None for number in numbers):
        labels = [number for number in numbers if number is not None]
        for row, label in zip(rows, labels, strict=True):
            if not 0 <= label < MAX_CLASSES:
                raise DiffjaxError(
                    f"{row.where}: the label {label} is not a class number from 0 up."
                )
        return tuple(map(str, range(max(labels) + 1))), labels
    texts = [str(row.label) for row in rows]
    names = tuple(sorted(set(texts)))
    place = {name: i for i, name in enumerate(names)}
    return names, [place[text] for text in texts]


def _integer(label: str | int) -> int | None:
    """The label as a number, if it is written as one."""
    if isinstance(label, int):
        return label
    digits = label.removeprefix("-")
    # no class has a number of ten digits, and int() refuses thousands of them
    return int(label) if digits.isdecimal() and len(digits) < 10 else None


def _read(table: Path) -> Iterator[_Row]:
    if table.suffix.lower() not in SUFFIXES:
        raise DiffjaxError(f"{table} is not a table: name it .csv or .jsonl.")
    try:
        # utf-8-sig: spreadsheets put a byte-order mark in front of the header.
        text = table.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DiffjaxError(f"There is no table {table}. Check the path.") from None
    except UnicodeDecodeError:
        raise DiffjaxError(f"{table} is not UTF-8 text. Save it as UTF-8.") from None
    except OSError as error:
        raise DiffjaxError(f"{table} cannot be read ({error.strerror}).") from error
    cells = _csv_cells if table.suffix.lower() == ".csv" else _json_cells
    for where, cell in cells(table, text):
        yield _row(where, cell)


def _csv_cells(table: Path, text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """("FILE, line N", {column: text}) of each row."""
    # newline="": the csv module finds the ends of lines itself, quoted ones too.
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] | None = None
    try:
        for fields in reader:
            where = f"{table}, line {reader.line_num}"
            if not fields:  # a blank line
                continue
            if header is None:
                header = [field.strip() for field in fields]
                if len(set(header)) < len(header) or not {"path", "label"} <= set(
                    header
                ):
                    raise DiffjaxError(
                        f"{where}: the columns must include path and label, each "
                        f"once, not {', '.join(header)}."
                    )
            elif len(fields) != len(header):
                raise DiffjaxError(
                    f"{where}: {len(fields)} fields instead of {len(header)}. Put "
                    "double quotes around a text that contains a comma."
                )
            else:
                yield where, dict(zip(header, fields, strict=True))
    except csv.Error as error:
        raise DiffjaxError(f"{table}, line {reader.line_num}: {error}.") from None


def _json_cells(table: Path, text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """("FILE, line N", the object) of each line."""
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        where = f"{table}, line {number}"
        try:
            cells = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DiffjaxError(f"{where} is not JSON ({error}).") from None
        if not isinstance(cells, dict):
            raise DiffjaxError(
                f"{where} must be an object with path and label, not {line.strip()!r}."
            )
        yield where, cells


def _row(where: str, cells: dict[str, Any]) -> _Row:
    path, label, name = (cells.get(column) for column in COLUMNS)
    if not isinstance(path, str) or not path.strip() or "\0" in path:
        raise DiffjaxError(f"{where}: the path is missing.")
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
