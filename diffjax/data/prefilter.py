"""Prefilters: another program's candidate classes of each image, CLIP's for one.

A file has a line an image; the classes go by the data set's numbers, in any order:

    id,classes
    test_00000,3 5 17
    test_00001,12 3

or is a parquet table with the columns id (text) and classes (lists of whole numbers).
Images go by the ids that runs have, in the column id of their rows.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from diffjax.data.sources import Example
from diffjax.errors import DiffjaxError
from diffjax.files import decode_text, parse_csv, read_bytes, user_path

COLUMNS = ("id", "classes")
SUFFIXES = (".csv", ".parquet")
MAX_BYTES = 2**30


@dataclass(frozen=True, kw_only=True, eq=False)
class Prefilter:
    """Gives each image its candidate classes.

    Attributes:
        name: the name of the file or function.
        choose: from an example and its pixels [h, w, 3] in [−1, 1], as the model sees
            them, the classes by the data set's numbers.
        fingerprint: 16 hex digits of the file's content; None for a function, whose
            name alone tells it from others.
        most: of classes, that it leaves of any image, if that is known.
        flops: that it takes for an image; 0 where somebody else did the work.
    """

    name: str
    choose: Callable[[Example, Float[np.ndarray, "h w 3"]], Sequence[int]]
    fingerprint: str | None = None
    most: int | None = None
    flops: Callable[[], float] = lambda: 0.0

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
    path = user_path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise DiffjaxError(
            f"{path} is not a file of candidate classes: name it .csv or .parquet."
        )
    content = read_bytes(path, "file of candidate classes", MAX_BYTES)
    rows = _csv_rows if path.suffix.lower() == ".csv" else _parquet_rows
    table: dict[str, tuple[int, ...]] = {}
    for where, name, classes in rows(path, content):
        if name in table:
            raise DiffjaxError(f"{where}: the image {name} has a line already.")
        if not classes:
            raise DiffjaxError(f"{where}: the image {name} has no candidate classes.")
        table[name] = classes

    def choose(example: Example, _: Float[np.ndarray, "h w 3"]) -> tuple[int, ...]:
        name = example.id
        if name not in table:
            first = next(iter(table), "none")
            raise DiffjaxError(
                f"{path} has no candidate classes for the image {name}. Its images are "
                f"{first}, …; they must go by the data set's ids."
            )
        return table[name]

    return Prefilter(
        name=path.name,
        choose=choose,
        fingerprint=hashlib.sha256(content).hexdigest()[:16],
    )


def _csv_rows(path: Path, content: bytes) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """(where, id, classes) of each line."""
    text = decode_text(content, path)
    for where, row in parse_csv(text, str(path), COLUMNS, wanted="id and classes"):
        parts = row["classes"].split()
        # no data set has 10⁹ classes, and int() refuses thousands of digits
        if not all(part.isdecimal() and len(part) < 10 for part in parts):
            raise DiffjaxError(
                f"{where}: the classes must be numbers separated by spaces, not "
                f"{row['classes']!r}."
            )
        yield where, row["id"], tuple(map(int, parts))


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
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise DiffjaxError(
            f"{path} is no parquet table with the columns id (text) and classes (lists "
            f"of whole numbers): {error}"
        ) from error
    for number, row in enumerate(rows):
        yield f"{path}, row {number}", str(row["id"]), tuple(row["classes"] or ())
