"""Many images in a row; one that cannot be read does not lose the others."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
from jaxtyping import Float
from rich.console import Console

from diffjax.classifier import Candidates, DiffusionClassifier, Progress
from diffjax.data.images import load_image
from diffjax.data.prompts import Prompts
from diffjax.errors import DiffjaxError
from diffjax.progress import BatchProgress
from diffjax.record import Record


@dataclass(frozen=True, kw_only=True)
class Task:
    """What to do with every image.

    Attributes:
        model: as in ``DiffusionClassifier.from_pretrained``.
        options: its further arguments.
        prompts: what to choose from; None for all classes of a class-conditional
            model.
        templates: those that were asked for, if any.
    """

    model: str
    options: dict[str, Any] = field(default_factory=dict)
    prompts: Prompts | None = None
    templates: tuple[str, ...] = ()

    def prepare(self) -> tuple[DiffusionClassifier, Candidates]:
        """Load the model and make the classes ready for it.

        Raises:
            DiffjaxError: if the model or the classes are not to be had.
        """
        classifier = DiffusionClassifier.from_pretrained(self.model, **self.options)
        candidates = classifier.candidates(self.prompts)
        if candidates.truncated:
            shortened = (
                p if len(p) < 40 else p[:39] + "…" for p in candidates.truncated
            )
            examples = ", ".join(map(repr, islice(shortened, 3)))
            warnings.warn(
                f"{len(candidates.truncated)} of {len(candidates.prompts.prompts)} "
                f"prompts are too long for {self.model} and were cut at its last "
                f"token: {examples}",
                stacklevel=2,
            )
        if self.templates and classifier.model.kind == "class":
            warnings.warn(
                f"{self.model} knows classes by id: the template is not used.",
                stacklevel=2,
            )
        return classifier, candidates


@dataclass(frozen=True, kw_only=True, eq=False)
class Classified:
    """An image's result.

    Attributes:
        source: the path or URL that was asked for.
        pixels: as the model saw them, in [−1, 1].
        record: of the classification.
        first: whether the record's time holds the compilation.
    """

    source: str
    pixels: Float[np.ndarray, "h w 3"]
    record: Record
    first: bool


@dataclass(frozen=True, kw_only=True)
class Failed:
    """An image without a result, and why."""

    source: str
    message: str


def classify_images(
    sources: Sequence[str], task: Task, bar: BatchProgress
) -> Iterator[Classified | Failed]:
    """Classify images one after the other, yielding each when it is done.

    The model is loaded when the first readable image has been read: a mistyped path
    shows at once.

    Args:
        sources: paths or URLs.
        task: what to do with them.
        bar: told how far it is.

    Raises:
        DiffjaxError: from ``Task.prepare``; an image's own yields a ``Failed``.
    """
    ready: tuple[DiffusionClassifier, Candidates] | None = None

    def report(now: Progress) -> None:
        bar.update(now.done, now.remaining, now.alive)

    first = True
    for source in sources:
        bar.begin(source)
        try:
            image = load_image(source)
        except DiffjaxError as error:
            yield Failed(source=source, message=str(error))
            continue
        if ready is None:
            bar.stage(f"loading {task.model}")
            ready = task.prepare()
            bar.stage("compiling")
        classifier, candidates = ready
        try:
            pixels = classifier.pixels(image)
            record = classifier.classify(image, candidates, progress=report)
        except DiffjaxError as error:
            yield Failed(source=source, message=f"{source}: {error}")
            continue
        bar.finish(f"{record.label}, {record.evaluations:,} evaluations")
        yield Classified(source=source, pixels=pixels, record=record, first=first)
        first = False


def run_batch(
    sources: Sequence[str],
    task: Task,
    console: Console,
    *,
    quiet: bool = False,
    show: Callable[[Classified], None] = lambda item: None,
) -> tuple[list[Classified], list[str]]:
    """``classify_images`` at the command line.

    Args:
        sources: paths or URLs.
        task: what to do with them.
        console: for the progress.
        quiet: no progress.
        show: called with each result, while the progress bar is out of the way.

    Returns:
        The results, and the messages of images that failed.
    """
    results: list[Classified] = []
    failures: list[str] = []
    with BatchProgress(console, len(sources), quiet=quiet) as bar:
        for item in classify_images(sources, task, bar):
            if isinstance(item, Failed):
                failures.append(item.message)
                continue
            results.append(item)
            with bar.hidden():
                show(item)
    return results, failures
