"""Winoground: which of two captions of the same words belongs to which of two images.

With e(c, i) the mean error of image i under caption c over evenly spaced timesteps, its
noise shared by both images and all captions, and s(c, i) = −e(c, i):

    text    s(c0, i0) > s(c1, i0)  and  s(c1, i1) > s(c0, i1)
    image   s(c0, i0) > s(c0, i1)  and  s(c1, i1) > s(c1, i0)
    group   both

Chance is 25 %, 25 % and 16.7 %. Some images have smaller errors under any caption,
which makes the plain image score unsound. Normalised scores take
s(c, i) = e("", i) − e(c, i), with the empty caption; the text score is the same.

Sources: Thrush et al. 2022 (arXiv 2204.03162) for the scores; Li et al. 2023, section
4.2 and the appendix, for diffusion models.
"""

import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float

from diffjax.classify.classifier import DiffusionClassifier
from diffjax.classify.progress import Progress
from diffjax.data.images import load_image
from diffjax.data.prompts import Prompts
from diffjax.data.winoground import WinogroundExample
from diffjax.errors import DiffjaxError
from diffjax.evaluation.provenance import settings_of, where_from
from diffjax.evaluation.runner import FLUSH_SECONDS
from diffjax.runs.folder import RunWriter, open_rows, remove_summary, write_summary
from diffjax.runs.header import FORMAT
from diffjax.runs.metrics import wilson
from diffjax.runs.rows import read_rows
from diffjax.strategies.exhaustive import Exhaustive

if TYPE_CHECKING:
    import pyarrow as pa

SCORES = ("text", "image", "group", "image_normalised", "group_normalised")
CAPTIONS = ("caption 0", "caption 1", "empty")  # rows of an example's errors
EMPTY = ""


def winoground_scores(
    errors: Float[np.ndarray, "n 2 2"], empty: Float[np.ndarray, "n 2"]
) -> dict[str, Bool[np.ndarray, " n"]]:
    """The five scores of each example; a tie counts as wrong.

    Args:
        errors: e of caption c on image i at [c, i].
        empty: e of the empty caption on each image.
    """

    def image(s: Float[np.ndarray, "n 2 2"]) -> Bool[np.ndarray, " n"]:
        return (s[:, 0, 0] > s[:, 0, 1]) & (s[:, 1, 1] > s[:, 1, 0])

    s = -errors
    text = (s[:, 0, 0] > s[:, 1, 0]) & (s[:, 1, 1] > s[:, 0, 1])
    plain, normalised = image(s), image(empty[:, None, :] - errors)
    return {
        "text": text,
        "image": plain,
        "group": text & plain,
        "image_normalised": normalised,
        "group_normalised": text & normalised,
    }


def columns() -> "pa.Schema":
    """Of a run's rows: one an example."""
    import pyarrow as pa

    texts = ("id", "tag", "secondary_tag", "collapsed_tag", "error")
    return pa.schema(
        {"index": pa.int64(), "seconds": pa.float32(), "evaluations": pa.int32()}
        | {name: pa.string() for name in texts}
        | {name: pa.float32() for name in _cells()}
        | {score: pa.bool_() for score in SCORES}
    )


def evaluate_winoground(
    examples: Sequence[WinogroundExample],
    classifier: DiffusionClassifier,
    path: Path,
    *,
    name: str = "winoground",
    max_pixels: int | None = None,
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
    with open_rows(path, _header(name, examples, classifier), None, columns()) as run:
        opened(run)
        before = run.rows["text"].to_pylist()
        progress.begin(len(examples), len(before), sum(before))
        flushed = time.monotonic()
        for index, example in enumerate(examples):
            if index in run.done:
                continue
            remove_summary(path)
            row = {"index": index} | _row(example, classifier, max_pixels, progress)
            run.add(row)
            if time.monotonic() - flushed > FLUSH_SECONDS:
                run.flush()
                flushed = time.monotonic()
            failed = row["error"] is not None
            progress.count(failed=failed, right=row.get("text", False))
        run.flush()
        rows = read_rows(path, columns())[0].to_pylist()
        complete = len(rows) == len(examples)
        summary = {
            "dataset": name,
            "model": classifier.model.name,
            "task": "image_caption_selection",
            "status": "complete" if complete else "damaged",
            "examples_selected": len(examples),
            **summarise(rows),
        }
        if complete:
            write_summary(path, summary)
    return summary


def summarise(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The scores over all examples, by collapsed tag and by tag.

    Args:
        rows: of a run, as dictionaries.

    Returns:
        "overall", and "by_collapsed_tag" and "by_tag" by their names: the number of
        examples "n", and each of ``SCORES`` as a proportion with its 95 % interval
        (Wilson). Rows that failed count in "failed_examples" alone.
    """
    good = [row for row in rows if row["error"] is None]
    return {
        "overall": _proportions(good),
        "by_collapsed_tag": _by(good, "collapsed_tag"),
        "by_tag": _by(good, "tag"),
        "examples": len(good),
        "failed_examples": len(rows) - len(good),
    }


def _by(rows: Sequence[Mapping[str, Any]], tag: str) -> dict[str, Any]:
    tags = sorted({row[tag] for row in rows})
    return {t: _proportions([row for row in rows if row[tag] == t]) for t in tags}


def _proportions(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    n = len(rows)
    if not n:
        return {"n": 0}
    counts = {score: sum(bool(row[score]) for row in rows) for score in SCORES}
    return {"n": n} | {
        score: {"score": k / n, "interval": list(wilson(k, n))}
        for score, k in counts.items()
    }


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
        prompts=(*example.captions, EMPTY), classidx=(0, 1, 2), class_names=CAPTIONS
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
    row |= dict(zip(_cells(), table.ravel().tolist(), strict=True))
    row |= {name: bool(value[0]) for name, value in scores.items()}
    return row | {"evaluations": evaluations, "seconds": time.perf_counter() - start}


def _cells() -> list[str]:
    """Names of an example's mean errors, row by row."""
    return [f"{c.replace(' ', '_')}_image_{i}" for c in CAPTIONS for i in (0, 1)]


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
        "experiment": {"task": "winoground", **settings_of(classifier)},
        "data": {"name": name, "examples": f"{zlib.crc32(ids.encode()):08x}"},
        "class_names": [],
        "classes": [],
        **where_from(classifier, tokens.ids.tolist()),
    }
