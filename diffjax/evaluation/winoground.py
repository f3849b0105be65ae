"""Evaluates pairs of captions and images into a run; see ``runs.winoground``."""

import time
import warnings
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from diffjax.classify.classifier import DiffusionClassifier
from diffjax.classify.progress import Progress
from diffjax.data.images import load_image
from diffjax.data.prompts import Prompts
from diffjax.data.winoground import WinogroundExample
from diffjax.errors import DiffjaxError
from diffjax.evaluation.provenance import settings_of, where_from
from diffjax.evaluation.runner import FLUSH_SECONDS
from diffjax.models.conditioner import PROMPTS_AT_ONCE
from diffjax.runs.folder import RunWriter, open_rows, remove_summary, write_summary
from diffjax.runs.header import FORMAT
from diffjax.runs.rows import read_rows
from diffjax.runs.sharing import ALONE, Share
from diffjax.runs.winoground import (
    CAPTIONS,
    TASK,
    cells,
    columns,
    summarise,
    winoground_scores,
)
from diffjax.strategies.exhaustive import Exhaustive

EMPTY = ""
EXAMPLES_AT_ONCE = PROMPTS_AT_ONCE // 2 - 1  # of two captions, and the empty one


def evaluate_winoground(
    examples: Sequence[WinogroundExample],
    classifier: DiffusionClassifier,
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
        examples: as ``data.winoground`` reads them.
        classifier: of a text model, with the exhaustive strategy: means over other
            timesteps for some captions could not be compared.
        path: the run's folder; a run of the same configuration there goes on.
        name: of the set, if it is another one in Winoground's format.
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
    if classifier.model.kind != "text":
        raise DiffjaxError(
            f"{classifier.model.name} takes class numbers; captions need a text model."
        )
    if not isinstance(classifier.settings.strategy, Exhaustive):
        raise DiffjaxError("Captions are compared by the exhaustive strategy alone.")
    progress = progress or Progress()
    share.check()
    _tell_of_unseen(examples, classifier)
    mine = share.of(np.arange(len(examples)))
    header = _header(name, examples, classifier)
    with open_rows(path, header, None, columns(), share) as run:
        opened(run)
        there = run.rows.select(["index", "text"]).to_pydict()
        before = np.asarray(there["text"], bool)[np.isin(there["index"], mine)]
        progress.begin(len(mine), len(before), int(before.sum()))
        flushed = time.monotonic()
        todo = [index for index in map(int, mine) if index not in run.done]
        for place, index in enumerate(todo):
            if place % EXAMPLES_AT_ONCE == 0:
                ahead = todo[place : place + EXAMPLES_AT_ONCE]
                _encode_captions([examples[i] for i in ahead], classifier)
            remove_summary(path)
            row: dict[str, Any] = {"index": index}
            row |= _row(examples[index], classifier, max_pixels, progress)
            run.add(row)
            if time.monotonic() - flushed > FLUSH_SECONDS:
                run.flush()
                flushed = time.monotonic()
            failed = row["error"] is not None
            progress.count(failed=failed, right=row.get("text", False))
        run.flush()
        rows = read_rows(path, columns())[0].to_pylist()
        complete = len(rows) == len(examples)
        lacking = "damaged" if share.count == 1 else "in progress"
        summary = {
            "dataset": name,
            "model": classifier.model.name,
            "task": "image_caption_selection",
            "status": "complete" if complete else lacking,
            "examples_selected": len(examples),
            **summarise(rows),
        }
        if complete:
            write_summary(path, summary)
    return summary


def _encode_captions(
    examples: Sequence[WinogroundExample], classifier: DiffusionClassifier
) -> None:
    """Ask once for the captions of several examples, where answers are remembered.

    A text encoder that is let go after each question is read once for all of them.
    """
    conditioner = classifier.model.text_conditioner
    if conditioner.kept is not None:
        captions = [text for each in examples for text in each.captions]
        conditioner.encode([EMPTY, *captions])


def _tell_of_unseen(
    examples: Sequence[WinogroundExample], classifier: DiffusionClassifier
) -> None:
    """Tell once of the captions with words that a small model was not trained on."""
    model = classifier.model
    if model.limits is None:
        return
    captions = dict.fromkeys(text for each in examples for text in each.captions)
    if line := model.limits.warning(model.name, captions):
        warnings.warn(line, stacklevel=3)


def _row(
    example: WinogroundExample,
    classifier: DiffusionClassifier,
    max_pixels: int | None,
    progress: Progress,
) -> dict[str, Any]:
    """The errors and scores of an example."""
    row: dict[str, Any] = {
        "id": example.id,
        "tag": example.tag,
        "secondary_tag": example.secondary_tag,
        "collapsed_tag": example.collapsed_tag,
        "error": None,
    }
    start = time.perf_counter()
    captions = Prompts(
        prompts=(*example.captions, EMPTY),
        classidx=(0, 1, 2),
        class_names=("", "", ""),  # of captions, _tell_of_unseen has told
    )
    candidates = classifier.candidates(captions)
    key = zlib.crc32(f"winoground {example.id}".encode())  # for both images
    try:
        encoded = [
            replace(
                classifier.encode(load_image(image, max_pixels=max_pixels)), key=key
            )
            for image in example.images
        ]
    except DiffjaxError as error:
        return row | {"error": str(error)}
    found = dict(classifier.score(enumerate(encoded), candidates, progress))
    table, evaluations = np.empty((len(CAPTIONS), 2)), 0
    for i, result in found.items():
        if isinstance(result, DiffjaxError):
            return row | {"error": str(result)}
        table[:, i] = result.table.mean()
        evaluations += result.evaluations
    scores = winoground_scores(table[None, :2], table[None, 2])
    row |= dict(zip(cells(), table.ravel().tolist(), strict=True))
    row |= {name: bool(value[0]) for name, value in scores.items()}
    return row | {"evaluations": evaluations, "seconds": time.perf_counter() - start}


def _header(
    name: str, examples: Sequence[WinogroundExample], classifier: DiffusionClassifier
) -> dict[str, Any]:
    lines = (
        (e.id, e.captions, e.collapsed_tag, [image.name for image in e.images])
        for e in examples
    )
    ids = "\n".join(map(repr, lines))
    captions = [EMPTY, *(caption for e in examples for caption in e.captions)]
    tokens = classifier.model.text_conditioner.tokenize(captions)
    return {
        "format": FORMAT,
        "experiment": {"task": TASK, **settings_of(classifier)},
        "data": {"name": name, "examples": f"{zlib.crc32(ids.encode()):08x}"},
        "class_names": [],
        "classes": [],
        **where_from(classifier, tokens.ids.tolist()),
    }
