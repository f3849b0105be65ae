"""Images by their names, classified together; one that fails does not lose the rest."""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

from diffjax.classify.classifier import DiffusionClassifier
from diffjax.classify.progress import Progress
from diffjax.classify.record import Record
from diffjax.cli.progress import Bar
from diffjax.data.decoding import MAX_PIXELS
from diffjax.data.images import load_image
from diffjax.data.prompts import DEFAULT_TEMPLATE, Prompts
from diffjax.errors import DiffjaxError, NotFiniteError


def classified(
    sources: Sequence[str],
    labels: Sequence[str] | Prompts | None,
    template: str | Sequence[str] = DEFAULT_TEMPLATE,
    *,
    model: str,
    options: dict[str, Any],
    max_pixels: int | None = None,
    bar: Bar,
) -> Iterator[tuple[str, Record | DiffjaxError]]:
    """Classify images together; nothing of them is kept here.

    Images are read as they are needed. The model is loaded when the first one has been
    read: a mistyped path shows at once.

    Args:
        sources: paths or URLs.
        labels: as in ``DiffusionClassifier.candidates``.
        template: as in ``DiffusionClassifier.candidates``.
        model: as in ``DiffusionClassifier.from_pretrained``.
        options: its further arguments.
        max_pixels: as in ``load_image``, whose default it is if there is none.
        bar: is told how far it is.

    Yields:
        Each source, in their order, with what is known of it or why it failed.

    Raises:
        DiffjaxError: if the model or the classes are not to be had.
    """

    def read(source: str) -> Any:
        try:
            return load_image(source, max_pixels=max_pixels or MAX_PIXELS)
        except DiffjaxError as error:
            return error

    images = enumerate(map(read, sources))
    for place, image in images:
        if not isinstance(image, DiffjaxError):
            break
        yield sources[place], image
    else:
        return
    bar.stage(f"loading {model}")
    classifier = DiffusionClassifier.from_pretrained(model, **options)
    candidates = classifier.candidates(labels, template)
    bar.stage("compiling")

    def encoded(at: int, image: Any) -> tuple[int, Any]:
        if isinstance(image, DiffjaxError):
            return at, image
        try:
            return at, classifier.encode(image)
        except DiffjaxError as error:
            return at, DiffjaxError(f"{sources[at]}: {error}")

    todo = (encoded(*each) for each in chain([(place, image)], images))
    progress = Progress(watch=bar.show, total=len(sources))
    progress.done = progress.failed = place  # could not be read
    waiting: dict[int, Record | DiffjaxError] = {}
    for at, result in classifier.score(todo, candidates, progress):
        if isinstance(result, NotFiniteError):
            result = DiffjaxError(f"{sources[at]}: {result}")
        waiting[at] = result
        progress.count(failed=isinstance(result, DiffjaxError))
        while place in waiting:
            yield sources[place], waiting.pop(place)
            place += 1
