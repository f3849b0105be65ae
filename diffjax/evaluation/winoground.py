"""Evaluates captions and images into a run; see ``runs.winoground``."""

import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from diffjax.classify.classifier import DiffusionClassifier
from diffjax.classify.progress import Progress
from diffjax.data.choices import ChoiceExample
from diffjax.data.compositional import Example
from diffjax.errors import DiffjaxError, overflowed
from diffjax.evaluation.captions import CaptionModel, DiffusionCaptions
from diffjax.evaluation.runner import FLUSH_SECONDS
from diffjax.runs.folder import RunWriter, open_rows, remove_summary, write_summary
from diffjax.runs.header import FORMAT
from diffjax.runs.rows import read_rows
from diffjax.runs.sharing import ALONE, Share
from diffjax.runs.winoground import (
    CHOICE,
    TASK,
    cells,
    columns,
    summarise,
    winoground_scores,
)


def evaluate_winoground(
    examples: Sequence[Example],
    model: DiffusionClassifier | CaptionModel,
    path: Path,
    *,
    name: str = "winoground",
    max_pixels: int | None = None,
    share: Share = ALONE,
    progress: Progress | None = None,
    opened: Callable[[RunWriter], None] = lambda run: None,
) -> dict[str, Any]:
    """Score the examples, or those that are missing, into the run at ``path``.

    Args:
        examples: as ``data.compositional`` reads them: all of two images, or all of
            one.
        model: of texts; a classifier with the exhaustive strategy, or another model of
            ``evaluation.captions``.
        path: the run's folder; a run of the same configuration there goes on.
        name: of the set.
        max_pixels: of image files; see ``data.images.load_image``.
        share: which of the examples are this process's.
        progress: is told of every example and tile; "correct" counts the text score.
        opened: is called with the run once it is open.

    Returns:
        What summary.json holds: see ``summarise``.

    Raises:
        DiffjaxError: if the model or strategy does not fit, or the folder holds
            something else.
    """
    if isinstance(model, DiffusionClassifier):
        model = DiffusionCaptions(model)
    progress = progress or Progress()
    share.check()
    texts = [text for each in examples for text in each.captions]
    if isinstance(model, DiffusionCaptions):
        model.tell_of_unseen(texts)
    task = CHOICE if isinstance(examples[0], ChoiceExample) else TASK
    mine = share.of(np.arange(len(examples)))
    header = {
        "format": FORMAT,
        "data": {"name": name, "examples": _digest(examples)},
        "class_names": [],
        "classes": [],
        **model.header(texts),
    }
    header["experiment"] = {"task": task, **header["experiment"]}
    with open_rows(path, header, None, columns(task), share) as run:
        opened(run)
        there = run.rows.select(["index", "text"]).to_pydict()
        before = np.asarray(there["text"], bool)[np.isin(there["index"], mine)]
        progress.begin(len(mine), len(before), int(before.sum()))
        flushed = time.monotonic()
        todo = [index for index in map(int, mine) if index not in run.done]
        for start in range(0, len(todo), model.at_once):
            some = todo[start : start + model.at_once]
            asked = time.perf_counter()
            found = model.errors([examples[i] for i in some], max_pixels, progress)
            for index, each in zip(some, found, strict=True):
                remove_summary(path)
                row = {"index": index} | _row(examples[index], each)
                if row["error"] is None:
                    row["seconds"] = time.perf_counter() - asked
                asked = time.perf_counter()
                run.add(row)
                if time.monotonic() - flushed > FLUSH_SECONDS:
                    run.flush()
                    flushed = time.monotonic()
                failed = row["error"] is not None
                progress.count(failed=failed, right=row.get("text", False))
        run.flush()
        rows = read_rows(path, columns(task))[0].to_pylist()
        complete = len(rows) == len(examples)
        lacking = "damaged" if share.count == 1 else "in progress"
        summary = {
            "dataset": name,
            "model": model.name,
            "task": "image_caption_selection",
            "status": "complete" if complete else lacking,
            "examples_selected": len(examples),
            **summarise(rows),
        }
        if complete:
            write_summary(path, summary)
    return summary


def _row(
    example: Example, found: tuple[Float[np.ndarray, "c i"], int] | DiffjaxError
) -> dict[str, Any]:
    """The errors and scores of an example."""
    row: dict[str, Any] = {
        "id": example.id,
        "tag": example.tag,
        "secondary_tag": example.secondary_tag,
        "collapsed_tag": example.collapsed_tag,
        "error": None,
    }
    if isinstance(found, DiffjaxError):
        return row | {"error": str(found)}
    table, evaluations = found
    if not np.isfinite(table).all():
        return row | {"error": str(overflowed("How well a caption fits is not finite"))}
    row["evaluations"] = evaluations
    if isinstance(example, ChoiceExample):
        right, *wrong = table[:, 0].tolist()
        return row | {"caption_errors": [right, *wrong], "text": right < min(wrong)}
    row |= dict(zip(cells(), table.ravel().tolist(), strict=True))
    scores = winoground_scores(table[None, :2], table[None, 2])
    return row | {name: bool(value[0]) for name, value in scores.items()}


def _digest(examples: Sequence[Example]) -> str:
    """Of what examples there are."""
    lines = []
    for each in examples:
        names = [image.name for image in each.images]
        line: tuple[Any, ...] = (each.id, each.captions, each.collapsed_tag, names)
        if isinstance(each, ChoiceExample) and each.box is not None:
            line = (*line, each.box)
        lines.append(repr(line))
    content = "\n".join(lines).encode()
    return f"{zlib.crc32(content):08x}"
