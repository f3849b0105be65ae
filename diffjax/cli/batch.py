"""Many images in a row; one that cannot be read does not lose the others."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from rich.console import Console

from diffjax.classify.candidates import Candidates
from diffjax.classify.classifier import DiffusionClassifier, Progress
from diffjax.classify.record import Record
from diffjax.cli.progress import BatchProgress
from diffjax.data.decoding import MAX_PIXELS
from diffjax.data.images import load_image
from diffjax.data.prompts import DEFAULT_TEMPLATE, Prompts
from diffjax.errors import DiffjaxError


class Done(NamedTuple):
    """An image's result.

    Attributes:
        source: the path or URL that was asked for.
        record: of the classification.
        first: whether the record's time holds the compilation.
    """

    source: str
    record: Record
    first: bool


def run_batch(
    sources: Sequence[str],
    labels: Sequence[str] | Prompts | None,
    template: str | Sequence[str] = DEFAULT_TEMPLATE,
    *,
    model: str,
    options: dict[str, Any],
    max_pixels: int | None = None,
    console: Console,
    quiet: bool = False,
    show: Callable[[Done], None],
) -> list[str]:
    """Classify images one after the other; nothing of them is kept here.

    The model is loaded when the first readable image has been read: a mistyped path
    shows at once.

    Args:
        sources: paths or URLs.
        labels: as in ``DiffusionClassifier.candidates``.
        template: likewise.
        model: as in ``DiffusionClassifier.from_pretrained``.
        options: its further arguments.
        max_pixels: as in ``load_image``, whose default it is if there is none.
        console: for the progress.
        quiet: no progress.
        show: called with each result as it comes, while the progress bar is out of
            the way.

    Returns:
        The messages of images that failed.

    Raises:
        DiffjaxError: if the model or the classes are not to be had.
    """
    first = True
    failures: list[str] = []
    ready: tuple[DiffusionClassifier, Candidates] | None = None
    with BatchProgress(console, len(sources), quiet=quiet) as bar:

        def report(now: Progress) -> None:
            bar.update(now.done, now.remaining, now.alive)

        for source in sources:
            bar.begin(source)
            try:
                image = load_image(source, max_pixels=max_pixels or MAX_PIXELS)
            except DiffjaxError as error:
                failures.append(str(error))
                continue
            if ready is None:
                bar.stage(f"loading {model}")
                classifier = DiffusionClassifier.from_pretrained(model, **options)
                ready = classifier, classifier.candidates(labels, template)
                bar.stage("compiling")
            classifier, candidates = ready
            try:
                record = classifier.classify(image, candidates, progress=report)
            except DiffjaxError as error:
                failures.append(f"{source}: {error}")
                continue
            bar.finish(f"{record.label}, {record.evaluations:,} evaluations")
            with bar.hidden():
                show(Done(source, record, first))
            first = False
    return failures
