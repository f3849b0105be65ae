"""Rows of a run: their columns, and how they are read from the run's parts."""

import warnings
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int

if TYPE_CHECKING:
    import pyarrow as pa

PARTS = "parts"  # the folder, below the run's
LATER = ("confidence", "candidates")  # columns that runs of earlier versions lack


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
        "differences": pa.list_(pa.float32()),  # Δ per class, to the prediction
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


def read_rows(
    folder: Path, columns: "pa.Schema", *, errors: bool
) -> "tuple[pa.Table, list[Path]]":
    """Rows by index, one an image, and the parts that are damaged.

    Args:
        folder: of the run.
        columns: that every part must have, ``LATER`` ones excepted, which are null
            where they are absent; those of an empty run.
        errors: with the columns that hold tables of errors.

    Raises:
        OSError: if a part cannot be read for another reason than its content.
    """
    import pyarrow as pa

    tables, damaged = [], []
    for part in sorted((folder / PARTS).glob("*.parquet")):
        try:
            tables.append(_read_part(part, columns, errors))
        except Exception as error:  # the reader raises nearly anything on damage
            if isinstance(error, MemoryError) or getattr(error, "errno", None):
                raise  # nothing is wrong with the part
            damaged.append(part)
            warnings.warn(
                f"{part} is damaged and left out ({error}); a rerun of the run's "
                "command does its images again.",
                stacklevel=3,
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


def _read_part(part: Path, columns: "pa.Schema", errors: bool) -> "pa.Table":
    import pyarrow.parquet as pq

    found = [
        field
        for field in pq.read_schema(part)
        if errors or not field.name.startswith("errors")
    ]
    missing = [
        field.name
        for field in columns
        if field not in found
        and field.name not in LATER
        and (errors or not field.name.startswith("errors"))
    ]
    if missing:
        raise ValueError(f"it lacks the column {missing[0]}")
    names = [field.name for field in found]
    return pq.read_table(part, columns=names, page_checksum_verification=True)


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
