"""Prefilters: another program's candidate classes of each image, CLIP's for one.

A file has a line an image; the classes go by the data set's numbers, in any order:

    id,classes
    test_00000,3 5 17
    test_00001,12 3

or is a parquet table with the columns id (text) and classes (lists of whole numbers).
Images go by the ids that runs have, in the column id of their rows.
"""

import csv
import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from diffjax.errors import DiffjaxError

COLUMNS = ("id", "classes")
SUFFIXES = (".csv", ".parquet")


@dataclass(frozen=True, kw_only=True, eq=False)
class Prefilter:
    """Gives each image its candidate classes.

    Attributes:
        name: of the file or function.
        choose: from an image's id and its pixels [h, w, 3] in [−1, 1], as the model
            sees them, the classes by the data set's numbers.
        fingerprint: 16 hex digits of the file's content; None for a function, whose
            name alone tells it from others.
    """

    name: str
    choose: Callable[[str, Float[np.ndarray, "h w 3"]], Sequence[int]]
    fingerprint: str | None = None

    @classmethod
    def of(
        cls, function: Callable[[Float[np.ndarray, "h w 3"]], Sequence[int]]
    ) -> "Prefilter":
        """A function from pixels to classes."""
        name = getattr(function, "__qualname__", type(function).__qualname__)
        return cls(name=name, choose=lambda _, pixels: function(pixels))

    def describe(self) -> dict[str, Any]:
        """What a run's header says of it."""
        return {"name": self.name, "fingerprint": self.fingerprint}


def read_prefilter(path: str | Path) -> Prefilter:
    """Read a file of candidate classes.

    Raises:
        DiffjaxError: if there is none, or it is malformed.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise DiffjaxError(
            f"{path} is not a file of candidate classes: name it .csv or .parquet."
        )
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DiffjaxError(
            f"The candidate classes {path} cannot be read ({error.strerror})."
        ) from error
    rows = _csv_rows if path.suffix.lower() == ".csv" else _parquet_rows
    table: dict[str, tuple[int, ...]] = {}
    for where, name, classes in rows(path, content):
        if name in table:
            raise DiffjaxError(f"{where}: the image {name} has a line already.")
        if not classes:
            raise DiffjaxError(f"{where}: the image {name} has no candidate classes.")
        table[name] = classes

    def choose(name: str, _: Float[np.ndarray, "h w 3"]) -> tuple[int, ...]:
        if name not in table:
            example = next(iter(table), "none")
            raise DiffjaxError(
                f"{path} has no candidate classes for the image {name}. Its images are "
                f"{example}, …; they must go by the data set's ids."
            )
        return table[name]

    return Prefilter(
        name=path.name,
        choose=choose,
        fingerprint=hashlib.sha256(content).hexdigest()[:16],
    )


def _csv_rows(path: Path, content: bytes) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """(where, id, classes) of each line."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DiffjaxError(f"{path} is not UTF-8 text. Save it as UTF-8.") from None
    # newline="": the csv module finds the ends of lines itself
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        if not set(COLUMNS) <= set(reader.fieldnames or ()):
            raise DiffjaxError(f"{path}: the columns must include id and classes.")
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            parts = (row["classes"] or "").split()
            # no data set has 10⁹ classes, and int() refuses thousands of digits
            if not all(part.isdecimal() and len(part) < 10 for part in parts):
                raise DiffjaxError(
                    f"{where}: the classes must be numbers separated by spaces, not "
                    f"{row['classes']!r}."
                )
            yield where, row["id"], tuple(map(int, parts))
    except csv.Error as error:
        raise DiffjaxError(f"{path}, line {reader.line_num}: {error}.") from None


def _parquet_rows(
    path: Path, content: bytes
) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """(where, id, classes) of each row."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    wanted = pa.schema({"id": pa.string(), "classes": pa.list_(pa.int64())})
    try:
        table = pq.read_table(pa.BufferReader(content), columns=list(COLUMNS))
        rows = table.select(COLUMNS).cast(wanted).to_pylist()
    except (pa.ArrowException, KeyError, ValueError) as error:
        raise DiffjaxError(
            f"{path} is no parquet table with the columns id (text) and classes (lists "
            f"of whole numbers): {error}"
        ) from error
    for number, row in enumerate(rows):
        yield f"{path}, row {number}", str(row["id"]), tuple(row["classes"] or ())
