"""Evaluates a data set, image by image, into a run that survives interruptions.

    images ──► pixels ──► latents (a batch at a time) ──► a record each ──► rows

What is known of an image depends on the run's configuration and the image alone, so it
does not matter which images were done before an interruption and which after.
"""

import io
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from PIL import Image

from diffjax.classify.candidates import Candidates
from diffjax.classify.classifier import DiffusionClassifier
from diffjax.classify.record import Record
from diffjax.classify.search import Encoded, ImageSearch
from diffjax.data.sources import Example
from diffjax.errors import DiffjaxError, NotFiniteError
from diffjax.evaluation.latents import BATCH, Latents
from diffjax.evaluation.provenance import make_header
from diffjax.evaluation.task import Task
from diffjax.runs.folder import (
    RunWriter,
    open_run,
    read_run,
    remove_summary,
    write_summary,
)
from diffjax.runs.metrics import summary
from diffjax.runs.outcomes import decision_columns
from diffjax.runs.sharing import ALONE, Share

FLUSH_SECONDS = 30.0  # what a kill can cost
THUMBNAIL = 96  # pixels along the longer edge


@dataclass(frozen=True, kw_only=True)
class Tally:
    """How a run stands.

    Attributes:
        total: images of the run.
        done: images done, now and before; failed ones are among them.
        failed: images that could not be read or scored.
        correct: predictions that are right.
        evaluations: forward passes, in this process alone.
    """

    total: int
    done: int = 0
    failed: int = 0
    correct: int = 0
    evaluations: int = 0

    @property
    def judged(self) -> int:
        """Images with a prediction."""
        return self.done - self.failed


class Watch(NamedTuple):
    """Who is told how far a run is.

    ``begin`` with the run that was opened; ``image`` after each image; ``tile`` for
    each image in a tile, with the number of its evaluations that the tile has done.
    """

    begin: Callable[[RunWriter], None] = lambda run: None

    image: Callable[[Tally], None] = lambda tally: None
    tile: Callable[[ImageSearch, int], None] = lambda search, cells: None


def evaluate(
    task: Task,
    classifier: DiffusionClassifier,
    path: Path,
    *,
    asked: dict[str, Any] | None = None,
    save_errors: bool = False,
    cache: Path | None = None,
    flush_seconds: float = FLUSH_SECONDS,
    share: Share = ALONE,
    watch: Watch | None = None,
) -> dict[str, Any]:
    """Evaluate a task, or what is missing of it, into the run at ``path``.

    Args:
        task: images and classes.
        classifier: the model and how to classify.
        path: the run's folder; a run of the same configuration there goes on.
        asked: further settings to keep in the header, as JSON values; a run goes on
            only under the same.
        save_errors: keep the error of every class and sample.
        cache: a folder of latents, used and added to.
        flush_seconds: how often rows are written.
        share: which of the images are this process's.
        watch: is told of every image and tile.

    Returns:
        What summary.json holds; of the images that are done, where other processes
        are still at work.

    Raises:
        DiffjaxError: if the folder holds something else, the classes, the strategy or
            the noise or the prefilter do not fit, or the disk is full; rows written
            before are safe.
    """
    watch = watch or Watch()
    candidates = task.candidates(classifier)
    header = make_header(
        task, classifier, candidates, {**(asked or {}), "save_errors": save_errors}
    )
    latents = Latents(classifier, cache)
    share.check()
    _check_strategy(classifier, candidates)
    _check_prefilter(task, classifier)
    mine = share.of(task.indices)
    with open_run(
        path, header, candidates.prompts, save_errors=save_errors, share=share
    ) as run:
        watch.begin(run)
        tally = _tally(run, mine)
        watch.image(tally)
        todo = [int(i) for i in mine if int(i) not in run.done]
        if todo:
            remove_summary(path)
        flushed = time.monotonic()
        for row in _rows(
            task, classifier, candidates, latents, todo, watch, save_errors
        ):
            run.add(row)
            tally = _count(tally, row)
            if time.monotonic() - flushed > flush_seconds:
                run.flush()
                flushed = time.monotonic()
            watch.image(tally)
        run.flush()
        found = read_run(path, errors=False)
        result = summary(found)
        if len(found.rows) == len(task.indices):  # the last process sees all
            write_summary(path, result)
    return result


def _check_strategy(classifier: DiffusionClassifier, candidates: Candidates) -> None:
    """Complain now, before a run is begun, of what would fail for every image."""
    classidx = np.asarray(candidates.prompts.classidx)
    n_timesteps = classifier.model.schedule.n_timesteps
    state = classifier.settings.strategy.start(len(classidx), n_timesteps, classidx)
    classifier.grid.check(state.samples.noises)


def _check_prefilter(task: Task, classifier: DiffusionClassifier) -> None:
    """Likewise: a prefilter that does not know the images by their ids."""
    if task.prefilter is None:
        return
    try:
        example = task.source[int(task.indices[0])]
        pixels = classifier.pixels(example.image)
    except DiffjaxError:
        return  # this one cannot be read; others may
    task.among(example.id, pixels)


def _rows(
    task: Task,
    classifier: DiffusionClassifier,
    candidates: Candidates,
    latents: Latents,
    todo: Sequence[int],
    watch: Watch,
    save_errors: bool,
) -> Iterator[dict[str, Any]]:
    """A row for every image to do, as they get done."""
    unreadable: list[_Read] = []

    def encoded() -> Iterator[Encoded]:
        for start in range(0, len(todo), BATCH):
            read = [_read(task, classifier, i) for i in todo[start : start + BATCH]]
            good = [item for item in read if item.error is None]
            unreadable.extend(item for item in read if item.error is not None)
            z0 = latents.of([item.pixels for item in good])
            for item, latent in zip(good, z0, strict=True):
                assert item.example is not None  # of the good ones
                # known by its id, an image keeps its noise in every subset
                key = zlib.crc32(item.example.id.encode())
                yield Encoded(
                    pixels=item.pixels,
                    z0=latent,
                    key=key,
                    among=item.among,
                    source=item,
                )

    for image, result in classifier.score(encoded(), candidates, watch.tile):
        row = _known(image.source)
        if isinstance(result, NotFiniteError):
            row["error"] = str(result)
        else:
            row |= _columns(result, task, row["label"], save_errors)
        yield row
        while unreadable:
            yield _known(unreadable.pop())
    yield from map(_known, unreadable)


def _known(item: "_Read") -> dict[str, Any]:
    """What a row says of an image that was read, or was not."""
    # an image that cannot be read goes by its place
    row: dict[str, Any] = {"index": item.place, "id": f"image {item.place}"}
    row["error"] = item.error
    if item.example is not None:
        row |= {"id": item.example.id, "label": item.example.label}
    return row


class _Read(NamedTuple):
    """An image that was read, or why it was not."""

    place: int  # in the data set
    example: Example | None = None
    pixels: Float[np.ndarray, "H W 3"] = np.empty((0, 0, 3), np.float32)
    among: tuple[int, ...] | None = None
    error: str | None = None


def _read(task: Task, classifier: DiffusionClassifier, index: int) -> _Read:
    example = None
    try:
        example = task.source[index]
        pixels = classifier.pixels(example.image)
        return _Read(index, example, pixels, task.among(example.id, pixels))
    except DiffjaxError as error:
        return _Read(index, example, error=str(error))


def _columns(
    record: Record, task: Task, label: int, save_errors: bool
) -> dict[str, Any]:
    """What a row says of an image that was classified."""
    classes = np.asarray(task.classes)
    columns = decision_columns(
        record.table.errors, record.prompt_decision, record.classidx, classes
    )
    columns["seconds"] = record.seconds
    if record.among is not None:
        columns["candidates"] = classes[list(record.among)]
    if columns["prediction"] != label:
        columns["thumbnail"] = _thumbnail(record.pixels)
    for loss, verdict in record.also.items():
        columns[f"prediction_{loss}"] = int(classes[verdict.decision.winner])
    if save_errors:
        columns["timesteps"] = record.samples.timesteps
        columns["noises"] = record.samples.noises
        columns["errors"] = record.table.errors.ravel()
        for loss, verdict in record.also.items():
            columns[f"errors_{loss}"] = verdict.table.errors.ravel()
    return columns


def _thumbnail(pixels: Float[np.ndarray, "H W 3"]) -> bytes:
    """A small JPEG of what the model saw."""
    image = Image.fromarray(np.rint((pixels + 1) * 127.5).astype(np.uint8))
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def _tally(run: RunWriter, indices: Int[np.ndarray, " n"]) -> Tally:
    """Of the rows that were there."""
    mine = np.isin(run.rows["index"].to_numpy(), indices)
    labels, predictions = (run.rows[c].to_numpy() for c in ("label", "prediction"))
    return Tally(
        total=len(indices),
        done=int(mine.sum()),
        correct=int((labels == predictions)[mine].sum()),
    )


def _count(tally: Tally, row: dict[str, Any]) -> Tally:
    """The tally with one more row."""
    return replace(
        tally,
        done=tally.done + 1,
        failed=tally.failed + (row["error"] is not None),
        correct=tally.correct
        + (row["error"] is None and row["prediction"] == row["label"]),
        evaluations=tally.evaluations + row.get("evaluations", 0),
    )
