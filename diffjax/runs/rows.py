"""Rows of a run: their columns, and how they are kept in the run's parts.

A part is whole or it is damaged: its pages have checksums, and the rest of the file has
one at the end of its name.
"""

import hashlib
import io
import os
import re
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from diffjax.choices import TEMPERATURE
from diffjax.classify.record import log_scores, settled_differences
from diffjax.errors import DiffjaxError
from diffjax.files import atomic

if TYPE_CHECKING:
    import pyarrow as pa

PARTS = "parts"  # the folder, below the run's
LATER = (
    "confidence",
    "candidates",
    "scores",
)  # columns that runs of earlier versions lack
KEPT = b"diffjax run.json, zlib, base64"  # the run's header, in each part
TABLE = "errors"  # how the names of columns with tables of errors begin
SAVED = ("timesteps", "noises", TABLE)  # and those that come along with them
_NAMED = re.compile(r"-([0-9a-f]{16})$")  # a checksum at the end of a part's name
OTHER_PART = (
    "It belongs to another run, or another version of diffjax wrote it. Move it out of "
    "the folder, and the command that began the run does its images again."
)


def schema(losses: Sequence[str], save_errors: bool) -> "pa.Schema":
    """The columns of a run's rows.

    Args:
        losses: evaluated besides the one that decided.
        save_errors: with the tables of errors.
    """
    import pyarrow as pa

    columns = {
        "index": pa.int64(),  # place in the data set
        "id": pa.string(),  # what the data set calls the image
        "label": pa.int32(),
        "prediction": pa.int32(),  # null for an image that failed
        "candidates": pa.list_(pa.int32()),  # that a prefilter left; null for all
        "ranking": pa.list_(pa.int32()),  # best first
        "scores": pa.list_(pa.float32()),  # per class; they sum to 1
        "differences": pa.list_(pa.float32()),  # Δ per class, of which scores are made
        "standard_errors": pa.list_(pa.float32()),  # of Δ
        "n_samples": pa.list_(pa.int32()),  # per class
        "margin": pa.float32(),  # Δ of the runner-up
        "margin_error": pa.float32(),  # its standard error
        "confidence": pa.float32(),  # of the strategy; null where it says nothing
        "evaluations": pa.int32(),
        "seconds": pa.float32(),
        "error": pa.string(),  # what went wrong; null for most
        "thumbnail": pa.binary(),  # JPEG, of images that were mistaken
    }
    columns |= {f"prediction_{loss}": pa.int32() for loss in losses}
    if save_errors:
        # [P, S] row by row, NaN if not evaluated; large: offsets of 64 bits
        table = pa.large_list(pa.float32())
        columns |= {"timesteps": pa.list_(pa.int32()), "noises": pa.list_(pa.int32())}
        columns |= {"errors": table}
        columns |= {f"errors_{loss}": table for loss in losses}
    return pa.schema(columns)


def scores_of(
    row: Mapping[str, Any], header: Mapping[str, Any]
) -> Float[np.ndarray, "C"] | None:
    """The scores of C candidates by a row's ranking and differences; None without.

    Args:
        row: of a run.
        header: of the run, which has the temperature and the candidates.
    """
    if row.get("differences") is None:
        return None
    classes: list[int] = header["classes"]
    local = {c: place for place, c in enumerate(classes)}
    ranking = np.array([local[int(c)] for c in row["ranking"]])
    settled = settled_differences(np.asarray(row["differences"], float), ranking)
    temperature = header["experiment"].get("temperature", TEMPERATURE)
    scores: np.ndarray = np.exp(log_scores(settled, float(temperature)))
    return scores


def read_rows(
    folder: Path,
    columns: "pa.Schema",
    *,
    errors: bool = False,
    check: bool = False,
    n_prompts: int | None = None,
    ours: Callable[[bytes], bool] = lambda kept: True,
) -> "tuple[pa.Table, list[Path]]":
    """Rows by index, one an image, and the parts that are damaged.

    Rows whose numbers cannot be are rows of images that failed.

    Args:
        folder: the folder of the run.
        columns: that every part must have, ``LATER`` ones excepted, which are null
            where they are absent; those of an empty run.
        errors: with the tables of errors, where they were saved.
        check: look at these tables even if they are not asked for, part by part.
        n_prompts: rows of such a table, if known.
        ours: whether the header that a part has kept is this run's.

    Raises:
        DiffjaxError: if a part is whole, but not of such a run.
        OSError: if a part cannot be read for another reason than its content.
    """
    import pyarrow as pa

    tables, damaged = [], []
    for part in sorted((folder / PARTS).glob("*.parquet")):
        try:
            table = _read_part(part, columns, errors or check, ours)
            table = _mended(table, n_prompts)
        except DiffjaxError:
            raise
        except Exception as error:  # the reader raises nearly anything on damage
            if isinstance(error, MemoryError) or getattr(error, "errno", None):
                raise  # nothing is wrong with the part
            damaged.append(part)
            warnings.warn(
                f"{part} is damaged and left out ({error}); a rerun of the run's "
                "command does its images again.",
                stacklevel=3,
            )
            continue
        if not errors:
            table = table.drop_columns(_saved(table))
        tables.append(table)
        if _saved(table) != _saved(tables[0]):
            raise DiffjaxError(
                f"{part} and the parts before it were not saved with the same tables "
                f"of errors. {OTHER_PART}"
            )
    if not tables:
        return columns.empty_table(), damaged
    rows = pa.concat_tables(tables, promote_options="default")
    for name in LATER:
        if name in columns.names and name not in rows.column_names:
            rows = rows.append_column(
                columns.field(name), pa.nulls(len(rows), columns.field(name).type)
            )
    return rows.take(_one_each(rows)), damaged


def write_part(folder: Path, rows: "pa.Table") -> None:
    """Write rows to a part of their own; it is there whole, or not at all."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = pa.BufferOutputStream()
    pq.write_table(rows, buffer, compression="zstd", write_page_checksum=True)
    content = buffer.getvalue().to_pybytes()
    # the time leads, so that files sort by it; pages have checksums within the file,
    # and what describes them has its own at the end of the name
    name = f"{time.time_ns():020d}-{_digest(io.BytesIO(content))}.parquet"
    with atomic(folder / PARTS / name) as partial:
        partial.write_bytes(content)


def _digest(file: io.BufferedIOBase) -> str:
    """16 hex digits of all in a Parquet file that is not pages: they have checksums."""
    end = file.seek(0, os.SEEK_END) - 8
    file.seek(max(0, end))
    length = int.from_bytes(file.read(4), "little")
    file.seek(max(0, end - length))
    return hashlib.sha256(file.read()).hexdigest()[:16]


def intact(part: Path) -> bool:
    """Whether a part's end is as it was written, as far as its name tells."""
    digest = _NAMED.search(part.stem)
    if digest is None:  # of an earlier version
        return True
    with part.open("rb") as file:
        return _digest(file) == digest[1]


def _read_part(
    part: Path, columns: "pa.Schema", errors: bool, ours: Callable[[bytes], bool]
) -> "pa.Table":
    import pyarrow.parquet as pq

    if not intact(part):
        raise ValueError("its end is not as it was written")
    found = pq.read_schema(part)
    kept = (found.metadata or {}).get(KEPT)
    if kept is not None and not ours(kept):
        raise DiffjaxError(
            f"{part} holds rows of another configuration than run.json says. Move it "
            "out of the folder; or, if run.json was changed, remove that: the files of "
            "rows hold it too."
        )
    for field in columns:
        present = field.name in found.names
        if field.name in LATER and not present:
            continue
        if not present or found.field(field.name).type != field.type:
            raise DiffjaxError(
                f"{part} has no column {field.name} of {field.type}. {OTHER_PART}"
            )
    names = [
        name
        for name in found.names
        if (errors if name.startswith(SAVED) else name in columns.names)
    ]
    return pq.read_table(part, columns=names, page_checksum_verification=True)


def _saved(rows: "pa.Table") -> list[str]:
    """Names of the columns about saved errors."""
    return sorted(name for name in rows.column_names if name.startswith(SAVED))


def _mended(rows: "pa.Table", n_prompts: int | None) -> "pa.Table":
    """The rows, those whose numbers cannot be with an error."""
    import pyarrow as pa

    if "differences" not in rows.column_names:
        return rows
    problems: list[str | None] = rows["error"].to_pylist()
    for i, problem in enumerate(_problems(rows, n_prompts)):
        problems[i] = problems[i] or problem
    place = rows.column_names.index("error")
    return rows.set_column(place, "error", pa.array(problems, pa.string()))


def _problems(rows: "pa.Table", n_prompts: int | None) -> Iterator[str | None]:
    """What is wrong with the numbers of each row; None where nothing is."""
    import pyarrow.compute as pc

    names = [name for name in _saved(rows) if name.startswith(TABLE)]
    sizes = [0] * len(rows)
    if names:
        sizes = pc.list_value_length(rows["timesteps"]).fill_null(0).to_pylist()
    columns = (lists(rows[name]) for name in ("differences", *names))
    for n_samples, differences, *tables in zip(sizes, *columns, strict=True):
        problem = None
        if len(differences):  # else it failed
            n_cells = None if n_prompts is None else n_prompts * n_samples
            problem = _problem(differences, tables, n_cells)
        yield problem and f"{problem} Evaluate this image again."


def _problem(
    differences: np.ndarray, tables: Sequence[np.ndarray], n_cells: int | None
) -> str | None:
    seen = [~np.isnan(table) for table in tables]
    if not (differences == 0).any():
        return "The differences to the best class are not numbers."
    if any(np.isinf(table).any() for table in tables):
        return "An error is infinite."
    if any(len(table) != n_cells for table in tables if n_cells is not None):
        return "The table of errors is not of all prompts and samples."
    if any(not each.any() or not np.array_equal(each, seen[0]) for each in seen):
        return "The errors of a loss are not numbers."
    return None


def _one_each(rows: "pa.Table") -> Int[np.ndarray, " n"]:
    """Positions of one row an image, by index: a later row wins, a good one more."""
    index = rows["index"].to_numpy()
    good = np.array([error is None for error in rows["error"].to_pylist()], bool)
    # the last of each index after sorting by (index, good, position)
    order = np.lexsort((np.arange(len(index)), good, index))
    last = np.append(index[order][1:] != index[order][:-1], True)
    chosen: np.ndarray = order[last]
    return chosen


def lists(column: "pa.ChunkedArray") -> Iterable[np.ndarray]:
    """The lists of a column as arrays, without Python numbers in between."""
    for chunk in column.chunks:
        values = chunk.values.to_numpy(zero_copy_only=False)
        offsets = chunk.offsets.to_numpy()
        for start, stop in pairwise(offsets):
            yield values[start:stop]
