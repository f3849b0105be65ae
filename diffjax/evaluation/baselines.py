"""Evaluates a model to compare with into a run like those of diffusion models.

The difference Δ of a class is log p(prediction) − log p(class), and the run's
temperature is 1, so that the scores of a report are the classifier's probabilities.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from diffjax.baselines.classifier import (
    Baseline,
    Classifier,
    ImageClassifier,
    device,
)
from diffjax.classify.progress import Progress
from diffjax.data.prompts import Prompts
from diffjax.errors import DiffjaxError, overflowed
from diffjax.evaluation.provenance import environment
from diffjax.evaluation.task import Task
from diffjax.models.network import digest
from diffjax.runs.folder import RunWriter, open_run, read_run, write_summary
from diffjax.runs.header import FORMAT
from diffjax.runs.metrics import summary

CHUNK = 512  # images read at once
CHUNK_BYTES = 2**27  # that their pixels take at most


def evaluate_baseline(
    task: Task,
    model: Baseline,
    path: Path,
    *,
    asked: dict[str, Any] | None = None,
    progress: Progress | None = None,
    opened: Callable[[RunWriter], None] = lambda run: None,
) -> dict[str, Any]:
    """Evaluate a task, or what is missing of it, into the run at ``path``.

    Args:
        task: images and classes; prompts matter to zero-shot models alone.
        model: trained on the classes of the data set, or told of them by the prompts.
        path: the run's folder; a run of the same configuration there goes on.
        asked: further settings to keep in the header, as JSON values.
        progress: is told of every image.
        opened: is called with the run once it is open.

    Returns:
        What summary.json holds.

    Raises:
        DiffjaxError: if the classifier lacks a class, or the folder holds something
            else.
    """
    classifier, columns, prompts = _told(task, model)
    header = _header(task, classifier, columns, asked or {})
    with open_run(path, header, prompts, save_errors=False) as run:
        opened(run)
        progress = progress or Progress()
        right = run.rows["label"].to_numpy() == run.rows["prediction"].to_numpy()
        progress.begin(len(task.indices), len(run.rows), int(right.sum()))
        todo = [int(i) for i in task.indices if int(i) not in run.done]
        chunk = min(CHUNK, max(1, CHUNK_BYTES // (12 * classifier.resolution**2)))
        for start in range(0, len(todo), chunk):
            for row in _rows(task, classifier, columns, todo[start : start + chunk]):
                run.add(row)
                failed = row.get("error") is not None
                right = not failed and row["prediction"] == row["label"]
                progress.count(failed=failed, right=right)
            run.flush()
    result = summary(read_run(path, errors=False)) | {"task": "image_classification"}
    if result["status"] == "complete":
        write_summary(path, result)
    return result


def _told(
    task: Task, model: Baseline
) -> tuple[Classifier, Sequence[tuple[int, ...]], Prompts]:
    """A classifier, the ids by which it knows each class, and what a run keeps."""
    if not isinstance(model, ImageClassifier):
        one_to_one = [(c,) for c in range(len(task.classes))]
        return model.of(task.prompts), one_to_one, task.prompts
    columns = task.model_ids(len(model.class_names), model.known_names)
    names = tuple(task.class_names[c] for c in task.classes)
    numbers = tuple(range(len(names)))
    prompts = Prompts(prompts=names, classidx=numbers, class_names=names)
    return model, columns, prompts


def _rows(
    task: Task,
    classifier: Classifier,
    columns: Sequence[tuple[int, ...]],
    indices: Sequence[int],
) -> Iterator[dict[str, Any]]:
    """A row for each image."""
    start = time.perf_counter()
    read: list[tuple[dict[str, Any], np.ndarray]] = []
    for index in indices:
        row: dict[str, Any] = {"index": index, "id": f"image {index}"}
        try:
            example = task.source[index]
            row |= {"id": example.id, "label": example.label}
            read.append((row, classifier.pixels(example.image)))
        except DiffjaxError as error:
            yield row | {"error": str(error)}
    if not read:
        return
    found = classifier.log_probabilities(np.stack([pixels for _, pixels in read]))
    if len(columns) == found.shape[1] and all(
        ids == (c,) for c, ids in enumerate(columns)
    ):
        scores = found
    else:  # a class of the data set may be several of the classifier's
        scores = np.stack(
            [np.logaddexp.reduce(found[:, list(ids)], axis=1) for ids in columns],
            axis=1,
        )
    seconds = (time.perf_counter() - start) / len(read)
    for (row, _), each in zip(read, scores, strict=True):
        if np.isfinite(each).all():
            row |= decision(each, np.asarray(task.classes)) | {"seconds": seconds}
        else:
            row["error"] = str(overflowed("A class's log-probability is not finite"))
        yield row


def decision(scores: Float[np.ndarray, " C"], classes: np.ndarray) -> dict[str, Any]:
    """The columns of a row by the log-probability of each class."""
    ranking = np.argsort(-scores, kind="stable")
    differences = scores[ranking[0]] - scores
    return {
        "prediction": int(classes[ranking[0]]),
        "ranking": classes[ranking],
        "differences": differences,
        "margin": float(differences[ranking[1]]),
        "evaluations": 1,
    }


def _header(
    task: Task,
    classifier: Classifier,
    columns: Sequence[tuple[int, ...]],
    asked: dict[str, Any],
) -> dict[str, Any]:
    described = classifier.describe()
    return {
        "format": FORMAT,
        "experiment": {
            **asked,
            "loss": None,
            "strategy": None,
            "temperature": 1.0,
            "resolution": classifier.resolution,
        },
        "data": task.describe(),
        "class_names": list(task.class_names),
        "classes": list(task.classes),
        "model": {
            "name": classifier.name,
            "kind": classifier.kind,
            "fingerprint": digest(map(repr, described.items())),
            **described,
            "ids": digest([repr(columns)]),
        },
        "environment": environment(device()),
    }
