"""Evaluates a trained classifier into a run like those of diffusion models.

The difference Δ of a class is log p(prediction) − log p(class), and the run's
temperature is 1, so that the scores of a report are the classifier's probabilities.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from diffjax.baselines.classifier import ImageClassifier
from diffjax.classify.progress import Progress
from diffjax.data.prompts import Prompts
from diffjax.errors import DiffjaxError, overflowed
from diffjax.evaluation.provenance import environment
from diffjax.evaluation.task import Task
from diffjax.models.network import digest
from diffjax.runs.folder import RunWriter, open_run, read_run, write_summary
from diffjax.runs.header import FORMAT
from diffjax.runs.metrics import summary
from diffjax.runs.robustness import KIND

CHUNK = 512  # images read at once


def evaluate_baseline(
    task: Task,
    classifier: ImageClassifier,
    path: Path,
    *,
    asked: dict[str, Any] | None = None,
    progress: Progress | None = None,
    opened: Callable[[RunWriter], None] = lambda run: None,
) -> dict[str, Any]:
    """Evaluate a task, or what is missing of it, into the run at ``path``.

    Args:
        task: images and classes; the prompts do not matter.
        classifier: trained on the classes of the data set.
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
    columns = task.model_ids(classifier.n_classes, classifier.class_names)
    names = tuple(task.class_names[c] for c in task.classes)
    prompts = Prompts(
        prompts=names, classidx=tuple(range(len(names))), class_names=names
    )
    header = _header(task, classifier, columns, asked or {})
    with open_run(path, header, prompts, save_errors=False) as run:
        opened(run)
        progress = progress or Progress()
        right = run.rows["label"].to_numpy() == run.rows["prediction"].to_numpy()
        progress.begin(len(task.indices), len(run.rows), int(right.sum()))
        todo = [int(i) for i in task.indices if int(i) not in run.done]
        for start in range(0, len(todo), CHUNK):
            for row in _rows(task, classifier, columns, todo[start : start + CHUNK]):
                run.add(row)
                failed = row.get("error") is not None
                right = not failed and row["prediction"] == row["label"]
                progress.count(failed=failed, right=right)
            run.flush()
    result = summary(read_run(path, errors=False)) | {"task": "image_classification"}
    if result["status"] == "complete":
        write_summary(path, result)
    return result


def _rows(
    task: Task,
    classifier: ImageClassifier,
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
    # a class of the data set may be several of the classifier's
    scores = np.stack(
        [np.logaddexp.reduce(found[:, list(ids)], axis=1) for ids in columns], axis=1
    )
    seconds = (time.perf_counter() - start) / len(read)
    for (row, _), each in zip(read, scores, strict=True):
        if np.isfinite(each).all():
            row |= _decision(each, np.asarray(task.classes)) | {"seconds": seconds}
        else:
            row["error"] = str(overflowed("A class's log-probability is not finite"))
        yield row


def _decision(scores: Float[np.ndarray, " C"], classes: np.ndarray) -> dict[str, Any]:
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
    classifier: ImageClassifier,
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
            "kind": KIND,
            "fingerprint": digest(map(repr, described.items())),
            **described,
            "ids": digest([repr(columns)]),
        },
        "environment": environment(classifier.device),
    }
