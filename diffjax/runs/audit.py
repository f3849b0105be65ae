"""What a training filter would leave of a data set: a table that is gone on with.

    size        of the shorter side, in pixels        is left if  ≥ 512
    aesthetic   score of LAION's head                             ≥ 4.5
    unsafe      probability of LAION's detector                   < 0.1

as Stable Diffusion 2's images were chosen: at 256 pixels by the last two, at 512 by all
three. Li et al. 2023, table 2. A folder has

    audit.json   whose images, judged by which models; and what was found last
    images.csv   index, id, label, width, height, aesthetic, unsafe, error

The images' figures do not depend on where the filters' limits are.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffjax.choices import FILTERS
from diffjax.errors import DiffjaxError
from diffjax.files import json_text, read_csv, read_json_object, write_json, write_text
from diffjax.runs.metrics import wilson
from diffjax.runs.spreadsheets import csv_text, plain

FORMAT = 1
HEADER, TABLE = "audit.json", "images.csv"
SCORES = FILTERS[1:]  # what models give
COLUMNS = ("index", "id", "label", "width", "height", *SCORES, "error")
_DECIDES = "data", "models"  # what is the same of all rows


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What is left.

    Attributes:
        size: pixels that the shorter side has at least.
        aesthetic: the least score.
        unsafe: above every probability.
    """

    size: int = 512
    aesthetic: float = 4.5
    unsafe: float = 0.1

    def __post_init__(self) -> None:
        """Raise DiffjaxError for limits that are no numbers."""
        if not math.isfinite(self.aesthetic) or not math.isfinite(self.unsafe):
            raise DiffjaxError(
                f"The limits of the filters must be finite, not {self.aesthetic} for "
                f"aesthetic and {self.unsafe} for unsafe."
            )

    def keep(self, name: str, row: Mapping[str, Any]) -> bool:
        """Whether a filter leaves an image."""
        if name == "size":
            return bool(min(row["width"], row["height"]) >= self.size)
        if name == "aesthetic":
            return bool(row["aesthetic"] >= self.aesthetic)
        return bool(row["unsafe"] < self.unsafe)


@dataclass(kw_only=True, eq=False)
class Audit:
    """A table that is being filled. ``open_audit`` makes it.

    Attributes:
        path: of its folder.
        header: what audit.json says besides the result.
        rows: by the images' indices; those that failed have an error.
    """

    path: Path
    header: Mapping[str, Any]
    rows: dict[int, dict[str, Any]] = field(default_factory=dict)
    saved: int = 0

    def add(self, row: Mapping[str, Any]) -> None:
        """Add an image's figures, to six digits."""
        rounded = {
            key: float(f"{value:.6g}") if isinstance(value, float) else value
            for key, value in row.items()
        }
        self.rows[row["index"]] = dict.fromkeys(COLUMNS) | rounded

    def flush(self) -> None:
        """Write the table."""
        rows = [self.rows[index] for index in sorted(self.rows)]
        if rows:
            write_text(self.path / TABLE, csv_text(rows))
        self.saved = len(rows)

    def finish(
        self, indices: Sequence[int], filters: Sequence[str], limits: Limits
    ) -> dict[str, Any]:
        """Count what some filters leave of some images, and write it.

        Returns:
            The result, plain JSON values.

        Raises:
            DiffjaxError: if none of the images could be judged.
        """
        result = counted([self.rows[index] for index in indices], filters, limits)
        whole = {**self.header, "result": result}
        write_json(self.path / HEADER, whole)
        return whole

    @property
    def scores(self) -> tuple[str, ...]:
        """Those that the rows have."""
        return tuple(name for name in SCORES if name in self.header["models"])


def open_audit(path: Path, header: Mapping[str, Any]) -> Audit:
    """Begin a table in a folder, or go on with the one that is there.

    Args:
        path: of the folder.
        header: "data", a description of the data set, and "models", by "clip" and the
            scores those that give them; further keys tell more.

    Raises:
        DiffjaxError: if something else is there, or it is damaged.
    """
    header = {"format": FORMAT, **header}
    audit = Audit(path=path, header=header)
    if not (path / HEADER).exists():
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise DiffjaxError(
                f"{path} holds something other than an audit. Name another folder with "
                "--out."
            )
        path.mkdir(parents=True, exist_ok=True)
        write_json(path / HEADER, header)
        return audit
    there = read_json_object(path / HEADER, "audit", "Take another folder with --out.")
    if there.get("format") != FORMAT:
        raise DiffjaxError(
            f"{path / HEADER} has the format {there.get('format')!r}; this version "
            f"reads {FORMAT}. Take another folder with --out."
        )
    if differs := [key for key in _DECIDES if there.get(key) != header[key]]:
        raise DiffjaxError(
            f"{path} has an audit of other {' and '.join(differs)}: there "
            f"{json_text(there.get(differs[0]))[:200]}, here "
            f"{json_text(header[differs[0]])[:200]}. Take another folder with --out."
        )
    if (path / TABLE).exists():
        audit.rows = _rows(path / TABLE, audit.scores)
        audit.saved = len(audit.rows)
    return audit


def counted(
    rows: Sequence[Mapping[str, Any]], filters: Sequence[str], limits: Limits
) -> dict[str, Any]:
    """How many images each filter takes away, and filters together.

    Args:
        rows: of the images, with those that failed.
        filters: of ``FILTERS``, those that there are figures for.
        limits: of these.

    Raises:
        DiffjaxError: if all failed, or there are none.
    """
    judged = [row for row in rows if row["error"] is None]
    if not judged:
        first = f" The first: {rows[0]['error']}" if rows else ""
        raise DiffjaxError(f"None of the {len(rows):,} images could be read.{first}")
    together: list[tuple[str, ...]] = [(name,) for name in filters]
    if set(filters) == set(FILTERS):
        together.append(SCORES)  # at 256 pixels size was no matter
    if len(filters) > 1:
        together.append(tuple(filters))
    found, n = {}, len(judged)
    for names in together:
        gone = sum(not all(limits.keep(f, row) for f in names) for row in judged)
        found["+".join(names)] = {
            "filtered_out": gone,
            "share": gone / n,
            "interval": list(wilson(gone, n)),
        }
    return {
        "images": n,
        "failed_images": len(rows) - n,
        "limits": {name: getattr(limits, name) for name in filters},
        "filters": found,
    }


def _rows(path: Path, scores: Sequence[str]) -> dict[int, dict[str, Any]]:
    """The rows of a table, by their indices."""
    found: dict[int, dict[str, Any]] = {}
    for where, cells in read_csv(path, COLUMNS, "table of images"):
        row: dict[str, Any] = dict.fromkeys(COLUMNS)
        row |= {name: plain(cells[name]) for name in ("id", "label")}
        row["error"] = plain(cells["error"]) or None
        try:
            row["index"] = int(cells["index"])
            if row["error"] is None:
                row |= {side: int(cells[side]) for side in ("width", "height")}
                row |= {name: float(cells[name]) for name in scores}
        except ValueError:
            raise _wrong(where, "a number is missing or malformed") from None
        numbers = [row[name] for name in COLUMNS[3:-1] if row[name] is not None]
        if row["index"] in found or row["index"] < 0:
            raise _wrong(where, "its index is that of another line, or less than 0")
        if not all(math.isfinite(value) for value in numbers):
            raise _wrong(where, "a number is not finite")
        found[row["index"]] = row
    return found


def _wrong(where: str, what: str) -> DiffjaxError:
    return DiffjaxError(f"{where}: {what}. Delete the file to judge its images again.")
