"""A run on disk: what was asked, and a row an image.

    RUN/run.json        the header: all that decides the results, and where they arose
    RUN/prompts.csv     the rows of the error tables, with LOCAL class numbers 0 … C − 1
    RUN/parts/*.parquet rows, a file each time some are flushed, whole or not at all
    RUN/summary.json    accuracy and cost, when the run is complete

Classes of a data set may be restricted to candidates. The header's "classes" gives the
data set's number of each local class; labels, predictions and rankings are in the data
set's numbering, lists "per class" in local order.

Columns of a row: see ``rows.schema``. A run is written by one process at a time and
read by any number at any time.
"""

import json
import os
import threading
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffjax.data.prompts import Prompts
from diffjax.errors import DiffjaxError
from diffjax.files import PARTIAL, json_text, read_json_object, write_json
from diffjax.runs.header import (
    CLASSIFIES,
    HEADER,
    begun_before,
    differences,
    kept_header,
    read_header,
    require,
    same_run,
    with_header,
    write_header,
)
from diffjax.runs.rows import PARTS, read_rows, schema, scores_of, write_part
from diffjax.runs.run import Run, with_names
from diffjax.runs.sharing import ALONE, LOCK, Share, lock

if TYPE_CHECKING:
    import pyarrow as pa

PROMPTS, SUMMARY = "prompts.csv", "summary.json"


def read_run(path: str | os.PathLike[str], *, errors: bool = True) -> Run:
    """Read a run; it may still be going on.

    Args:
        path: its folder.
        errors: with the tables of errors, which may be large, where they were saved.

    Raises:
        DiffjaxError: if there is none, or a file of it is damaged.
    """
    folder = Path(path)
    header = read_header(folder)
    if not header["classes"]:
        raise DiffjaxError(f"{folder} is not a run of classifications.")
    if not (folder / PROMPTS).exists():
        raise DiffjaxError(
            f"{folder / PROMPTS} is missing. The command that began the run makes it "
            "again; `diffjax import` does not: take another folder for it."
        )
    require(header, CLASSIFIES, folder)
    columns = schema(header["experiment"].get("also", ()), save_errors=False)
    prompts = _read_prompts(folder)
    rows, damaged = read_rows(
        folder,
        columns,
        errors=errors,
        n_prompts=len(prompts.prompts),
        ours=same_run(header),
    )
    run = Run(
        path=folder, header=header, prompts=prompts, rows=rows, damaged=tuple(damaged)
    )
    if not _belong_together(run):
        raise DiffjaxError(
            f"{folder}: {HEADER}, {PROMPTS} and the rows are not of one run. Take the "
            "former two from a copy, or repeat the command with another folder."
        )
    return replace(run, rows=with_names(rows, run.class_names))


def _belong_together(run: Run) -> bool:
    """Whether the rows of a run are about its classes, prompts and timesteps."""
    import pyarrow.compute as pc

    good = run.good

    def values(column: "pa.ChunkedArray") -> set[int | None]:
        return set(pc.unique(column).to_pylist())

    lists = {name: good[name] for name in ("ranking", "differences")}
    lengths = [values(pc.list_value_length(each)) for each in lists.values()]
    chosen = values(good["prediction"]) | values(pc.list_flatten(lists["ranking"]))
    n_timesteps, timesteps = run.header["model"].get("n_timesteps", 0), set()
    if run.has_errors:
        timesteps = values(pc.list_flatten(good["timesteps"]))
    C = len(run.classes)
    return (
        len(run.prompts.class_names) == C
        and all(each <= {C} for each in lengths)
        and chosen <= set(run.classes.tolist())
        and values(good["label"]) <= set(range(len(run.class_names)))
        and timesteps <= set(range(n_timesteps))
    )


@dataclass(kw_only=True)
class RunWriter:
    """Adds rows to a run. Made by ``open_run``; a context manager.

    Attributes:
        path: the run's folder.
        done: indices of the images that need not be done again.
        rows: rows that were there already, those of failed images left out.
        saved: how many rows are safe, those of failed images left out.
    """

    path: Path
    done: set[int]
    rows: "pa.Table"
    saved: int
    _schema: "pa.Schema"
    _header: Mapping[str, Any]
    _release: Callable[[], None]
    _waiting: list[dict[str, Any]] = field(default_factory=list)
    _lock: Any = field(default_factory=threading.RLock)

    def __enter__(self) -> "RunWriter":
        """Use the writer."""
        return self

    def __exit__(self, *_: object) -> None:
        """Write what is waiting, also after an error, and let others write."""
        try:
            self.flush()
        finally:
            self._release()

    def add(self, row: Mapping[str, Any]) -> None:
        """Add a row, safe after the next ``flush``; scores are made of the others."""
        self._waiting.append({**row, "scores": scores_of(row, self._header)})

    def flush(self) -> None:
        """Write the waiting rows to a file of their own.

        Raises:
            DiffjaxError: if the disk is full, for one; the rows go on waiting.
        """
        import pyarrow as pa

        with self._lock:  # an interrupted process is ended by another thread
            if not self._waiting:
                return
            table = pa.Table.from_pylist(self._waiting, schema=self._schema)
            try:
                write_part(self.path, table)
            except OSError as error:
                raise DiffjaxError(
                    f"{len(table)} rows cannot be written to {self.path / PARTS} "
                    f"({error.strerror or error}). Earlier ones are safe: once there "
                    "is room, the same command goes on."
                ) from error
            self.saved += table["error"].null_count
            self._waiting.clear()


def open_run(
    path: Path,
    header: Mapping[str, Any],
    prompts: Prompts,
    *,
    save_errors: bool,
    share: Share = ALONE,
) -> RunWriter:
    """Begin a run of classifications, or go on with it; see ``open_rows``.

    Args:
        path: its folder, which may not exist yet.
        header: see ``Run``; it needs what ``DECIDING`` names.
        prompts: rows of the error tables.
        save_errors: whether rows will hold tables of errors.
        share: the part of this process.
    """
    columns = schema(header["experiment"].get("also", ()), save_errors)
    return open_rows(path, header, prompts, columns, share)


def open_rows(
    path: Path,
    header: Mapping[str, Any],
    prompts: Prompts | None,
    columns: "pa.Schema",
    share: Share = ALONE,
) -> RunWriter:
    """Begin a run of any kind of rows, or go on with it.

    Args:
        path: its folder, which may not exist yet.
        header: with what ``DECIDING`` names.
        prompts: of all rows; None if rows have prompts of their own.
        columns: of the rows; index and error must be among them.
        share: the part of this process.

    Raises:
        DiffjaxError: if the folder holds a run with another header or something else,
            or another process writes to it.
    """
    _check_folder(path)
    try:
        (path / PARTS).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DiffjaxError(
            f"The folder {path} cannot be made ({error.strerror}). Choose another one."
        ) from error
    release = lock(path, share)
    try:
        header = json.loads(json_text(dict(header)))  # as it will be read: no tuples
        # a header alone is of a command that failed before its first image
        begun = any((path / PARTS).glob("*.*"))
        if begun or (share.count > 1 and (path / HEADER).exists()):
            _go_on(path, header, prompts)
        else:
            if prompts is not None:
                prompts.write_csv(path / PROMPTS)
                if _read_prompts(path) != prompts:  # now, not when the work is done
                    raise DiffjaxError("Prompts with odd line breaks cannot be kept.")
            write_header(path, header)
        # what was saved is looked at as a whole: nobody else does before it is needed
        n_prompts = None if prompts is None else len(prompts.prompts)
        kept = read_json_object(path / HEADER)
        rows, damaged = read_rows(
            path, columns, check=True, n_prompts=n_prompts, ours=same_run(kept)
        )
        if share.count == 1:  # else another process may be about to finish a file
            for place in (path, path / PARTS):
                for partial in place.glob(f".*{PARTIAL}"):
                    partial.unlink()  # of a process that was killed
            for part in damaged:
                part.rename(part.with_suffix(".damaged"))
        rows = rows.filter(rows["error"].is_null())
        return RunWriter(
            path=path,
            done=set(rows["index"].to_pylist()),
            rows=rows,
            saved=len(rows),
            _schema=with_header(columns, kept),
            _header=kept,
            _release=release,
        )
    except BaseException:
        release()
        raise


def write_summary(path: Path, summary: Mapping[str, Any]) -> None:
    """Write RUN/summary.json."""
    write_json(path / SUMMARY, dict(summary))


def remove_summary(path: Path) -> None:
    """Remove RUN/summary.json, which tells that a run is complete."""
    (path / SUMMARY).unlink(missing_ok=True)


def _check_folder(path: Path) -> None:
    if path.exists() and not path.is_dir():
        raise DiffjaxError(f"{path} is a file; a run needs a folder of its own.")
    if not path.exists():
        return
    # Another process may be beginning the run just now: what is seen here is judged by
    # the header and the parts that are there afterwards, which nobody takes away.
    seen = [p.name for p in (*path.iterdir(), *(path / PARTS).glob("*"))]
    if (path / HEADER).exists() or kept_header(path):
        return
    # parts come first: without them the rest is someone else's
    ours = {PROMPTS, PARTS} if (path / PARTS).is_dir() else set()
    strange = [
        name
        for name in seen
        if name not in ours
        and not name.endswith(PARTIAL)
        and not (ours and name.startswith(LOCK))
    ]
    if strange:
        raise DiffjaxError(
            f"{path} is not a run but holds other files ({sorted(strange)[0]}); a run "
            "needs a folder of its own."
        )


def _whole(path: Path) -> bool:
    try:
        read_json_object(path)
    except DiffjaxError:
        return False
    return True


def _read_prompts(folder: Path) -> Prompts:
    with warnings.catch_warnings():
        # of classes that share a prompt or a name it was warned when the run began
        warnings.simplefilter("ignore")
        return Prompts.read_csv(folder / PROMPTS)


def _go_on(path: Path, header: Mapping[str, Any], prompts: Prompts | None) -> None:
    """Go on with a run, if it is of the same configuration."""
    there = read_header(path)
    found = differences(there, header)
    if prompts is not None and not (path / PROMPTS).exists():
        if "ids" not in there["model"]:  # by which the prompts are known
            found.append(f"prompts: {path / PROMPTS} is missing")
        elif not found:
            prompts.write_csv(path / PROMPTS)
    elif prompts is not None and _read_prompts(path) != prompts:
        found.append(f"prompts: other than in {path / PROMPTS}")
    if found:
        remedy = "Repeat its command to go on with it, or choose another folder."
        told = "\n".join(found)
        if ".strategy.estimate:" in told and ".strategy.name:" not in told:
            remedy = (
                "Racing estimates and drops otherwise than when it was begun, so that "
                "it cannot go on: choose another folder."
            )
        raise DiffjaxError(
            f"{path} holds a run of another configuration:\n  "
            + "\n  ".join(found)
            + f"\n{remedy}"
        )
    if not _whole(path / HEADER):
        write_header(path, there)
    if "spaces" in header and "spaces" not in there:  # begun before there were any
        there["spaces"] = header["spaces"]
        write_header(path, there)
    if there["data"].get("n", 0) < header["data"].get("n", 0):  # more of its pool
        remove_summary(path)
        there["experiment"] |= {"limit": header["experiment"].get("limit")}
        there["data"] |= header["data"]
        write_header(path, there)
    if begun_before(there, header):
        warnings.warn(
            f"{path} was begun by a version of diffjax that kept the weights of its "
            "model alone. It goes on as if schedule, configs and tokenizer were as "
            "they are now, and from here on keeps them too.",
            stacklevel=4,
        )
        there["model"] |= header["model"]
        write_header(path, there)
