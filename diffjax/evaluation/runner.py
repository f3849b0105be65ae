"""Evaluates a data set, image by image, into a run that survives interruptions.

    images ──► pixels ──► latents (a batch at a time) ──► a record each ──► rows

What is known of an image depends on the run's configuration and the image alone, so it
does not matter which images were done before an interruption and which after.
"""

import io
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image

from diffjax.classify.candidates import Candidates
from diffjax.classify.classifier import DiffusionClassifier
from diffjax.classify.progress import Progress
from diffjax.classify.record import Record
from diffjax.classify.seen import Encoded, Seen, see
from diffjax.errors import DiffjaxError
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
    progress: Progress | None = None,
    opened: Callable[[RunWriter], None] = lambda run: None,
) -> dict[str, Any]:
    """Evaluate a task, or what is missing of it, into the run at ``path``.

    Args:
        task: The images and classes.
        classifier: The model and how to classify.
        path: The run's folder; a run of the same configuration there goes on.
        asked: Further settings to keep in the header, as JSON values; a run goes on
            only under the same.
        save_errors: Whether to keep the error of every class and sample.
        cache: A folder of latents, used and added to.
        flush_seconds: How often rows are written.
        share: Which of the images are this process's.
        progress: An object that is told of every image and tile.
        opened: A function that is called with the run once it is open.

    Returns:
        What summary.json holds; of the images that are done, where other processes
        are still at work.

    Raises:
        DiffjaxError: If the folder holds something else, the classes, the strategy, the
            noise or the prefilter do not fit, or the disk is full; rows written before
            are safe.
    """
    progress = progress or Progress()
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
        opened(run)
        rows = run.rows.select(["index", "label", "prediction"]).to_pydict()
        before = np.isin(rows["index"], mine)
        right = np.equal(rows["label"], rows["prediction"])
        progress.begin(len(mine), int(before.sum()), int((right & before).sum()))
        todo = [int(i) for i in mine if int(i) not in run.done]
        if todo:
            remove_summary(path)
        flushed = time.monotonic()
        images = encoded(task, classifier, latents, todo)
        for row, known in classifier.score(images, candidates, progress):
            if isinstance(known, DiffjaxError):
                row["error"] = str(known)
            else:
                row |= _columns(known, task, row["label"], save_errors)
            run.add(row)
            if time.monotonic() - flushed > flush_seconds:
                run.flush()
                flushed = time.monotonic()
            failed = row["error"] is not None
            right = not failed and row["prediction"] == row["label"]
            progress.count(failed=failed, right=right)
        run.flush()
        found = read_run(path, errors=False)
        result = summary(found)
        if found.status == "complete":  # the last process sees all
            write_summary(path, result)
    return result


def _check_strategy(classifier: DiffusionClassifier, candidates: Candidates) -> None:
    """Complain now, before a run is begun, of what would fail for every image."""
    classidx = np.asarray(candidates.prompts.classidx)
    n_timesteps = classifier.model.schedule.n_timesteps
    settings = classifier.settings
    state = settings.strategy.start(
        len(classidx), n_timesteps, classidx, settings.given
    )
    classifier.grid.check(state.samples.timesteps, state.samples.noises)


def _check_prefilter(task: Task, classifier: DiffusionClassifier) -> None:
    """Complain now, too, of a prefilter that does not know the images by their ids."""
    if task.prefilter is None:
        return
    try:
        example = task.source[int(task.indices[0])]
        pixels = classifier.pixels(example.image)
    except DiffjaxError:
        return  # this one cannot be read; others may
    task.among(example, pixels)


def encoded(
    task: Task, classifier: DiffusionClassifier, latents: Latents, todo: Sequence[int]
) -> Iterator[tuple[dict[str, Any], Encoded | DiffjaxError]]:
    """The images to do, or why one cannot be read, each with a row that is begun."""
    for start in range(0, len(todo), BATCH):
        batch = [_read(task, classifier, i) for i in todo[start : start + BATCH]]
        good = [read for _, read in batch if not isinstance(read, DiffjaxError)]
        z0 = iter(latents.of([seen.pixels for seen, _ in good]))
        for row, read in batch:
            if isinstance(read, DiffjaxError):
                yield row, read
                continue
            seen, among = read
            # known by its id, an image keeps its noise in every subset
            key = zlib.crc32(row["id"].encode())
            yield row, seen.encoded(next(z0), key, among)


def _read(
    task: Task, classifier: DiffusionClassifier, index: int
) -> tuple[dict[str, Any], tuple[Seen, tuple[int, ...] | None] | DiffjaxError]:
    """The row of an image; and what the model sees, and the classes to choose from."""
    # an image that cannot be read goes by its place
    row: dict[str, Any] = {"index": index, "id": f"image {index}", "error": None}
    try:
        example = task.source[index]
        row |= {"id": example.id, "label": example.label}
        seen = see(example.image, classifier.settings)
        return row, (seen, task.among(example, seen.pixels))
    except DiffjaxError as error:
        return row, error


def _columns(
    record: Record, task: Task, label: int, save_errors: bool
) -> dict[str, Any]:
    """What a row says of an image that was classified."""
    classes = np.asarray(task.classes)
    columns = decision_columns(
        record.compared, record.prompt_decision, record.classidx, classes
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
