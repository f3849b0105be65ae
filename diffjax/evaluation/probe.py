"""What a strategy that stops early needs: as a run's rows say, or as a few images show.

Nobody knows it before: it depends on how far the classes' errors lie apart. A probe
classifies a few images as the run would. One that takes too long is given up; images
that are not done by then count with what they have had, and the mean is a lower bound.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diffjax.classify.classifier import DiffusionClassifier
from diffjax.classify.progress import Progress
from diffjax.classify.record import Record
from diffjax.errors import DiffjaxError
from diffjax.evaluation.latents import Latents
from diffjax.evaluation.plan import Plan
from diffjax.evaluation.provenance import make_header
from diffjax.evaluation.runner import encoded
from diffjax.evaluation.task import Task
from diffjax.files import json_text
from diffjax.runs.folder import read_run
from diffjax.runs.header import HEADER, differences

IMAGES = 5  # of a probe, spread evenly
SECONDS = 20.0  # after which it is given up


@dataclass(frozen=True, kw_only=True)
class Expected:
    """Evaluations of the images that are known.

    Attributes:
        evaluations_per_image: their mean.
        least: of an image.
        most: of an image.
        images: how many are known.
        unfinished: how many of them had not had all that they need.
        seen: "in the run", or "in a probe".
    """

    evaluations_per_image: float
    least: int
    most: int
    images: int
    unfinished: int
    seen: str


@dataclass(frozen=True, kw_only=True)
class Begun:
    """What is in the folder of a run already.

    Attributes:
        done: images that did not fail.
        evaluations: of each of them.
        refused: why the run there will not go on; "" if it will.
    """

    done: int = 0
    evaluations: tuple[int, ...] = ()
    refused: str = ""


def begun(
    path: Path,
    task: Task,
    classifier: DiffusionClassifier,
    asked: Mapping[str, Any],
) -> Begun:
    """Look for what a run would go on with.

    Args:
        path: the run's folder, whether it is there or not.
        task: the images and classes.
        classifier: the model and how to classify.
        asked: as for ``runner.evaluate``, with "save_errors".
    """
    if not (path / HEADER).exists():
        return Begun()
    try:
        found = read_run(path, errors=False)
        header = make_header(task, classifier, task.candidates(classifier), asked)
        other = differences(found.header, json.loads(json_text(header)))
    except DiffjaxError as error:
        return Begun(refused=str(error))
    if other:
        return Begun(
            refused=f"{path} holds a run of another configuration: {'; '.join(other)}"
        )
    good = found.good["evaluations"].to_pylist()
    return Begun(done=len(good), evaluations=tuple(good))


def expected(evaluations: Sequence[int]) -> Expected | None:
    """What a run's rows say; None if there are none."""
    if not evaluations:
        return None
    return _of(evaluations, unfinished=0, seen="in the run")


def too_slow(plan: Plan) -> bool:
    """Whether even images that one look decides would take a probe too long."""
    evaluation = plan.seconds_per_image / plan.evaluations_per_image
    return IMAGES * plan.fewest_evaluations_per_image * evaluation > SECONDS


def probe(
    task: Task,
    classifier: DiffusionClassifier,
    *,
    n_images: int = IMAGES,
    seconds: float = SECONDS,
) -> Expected | None:
    """Classify a few images; None if none could be begun in time, or read.

    Args:
        task: the images and classes.
        classifier: the model and how to classify.
        n_images: at most so many.
        seconds: after which the probe is given up, and a tile.
    """
    n = len(task.indices)
    chosen = sorted({int(task.indices[k * n // n_images]) for k in range(n_images)})
    end = time.monotonic() + seconds
    known: list[int] = []

    def watch(_: Progress) -> None:
        if time.monotonic() > end:
            raise TimeoutError

    progress = Progress(watch=watch)
    images = encoded(task, classifier, Latents(classifier, None), chosen)
    try:
        candidates = task.candidates(classifier)
        for _, record in classifier.score(images, candidates, progress):
            if isinstance(record, Record):
                known.append(record.evaluations)
    except TimeoutError:
        pass
    had = [image.done for image in progress.open if image.done]
    if not known + had:
        return None
    return _of(known + had, unfinished=len(had), seen="in a probe")


def _of(evaluations: Sequence[int], unfinished: int, seen: str) -> Expected:
    return Expected(
        evaluations_per_image=float(np.mean(evaluations)),
        least=min(evaluations),
        most=max(evaluations),
        images=len(evaluations),
        unfinished=unfinished,
        seen=seen,
    )
