"""Images by their names, classified together; one that fails does not lose the rest."""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from rich.console import Console

from diffjax.classify.classifier import DiffusionClassifier
from diffjax.classify.progress import Progress
from diffjax.classify.record import Record
from diffjax.data.images import load_image
from diffjax.data.prompts import Prompts
from diffjax.errors import DiffjaxError, NotFiniteError
from diffjax.evaluation.bar import Bar


def classify_all(
    sources: Sequence[str],
    labels: Sequence[str] | Prompts | None,
    template: str | Sequence[str],
    model: str,
    options: dict[str, Any],
    show: Callable[[str, Record], None],
    console: Console,
    *,
    quiet: bool,
    max_pixels: int | None = None,
) -> list[str]:
    """Classify images, and show each record, in the order of the images.

    Images are read as they are needed. The model is loaded when the first one has been
    read: a mistyped path shows at once.

    Args:
        sources: Paths or URLs.
        labels: As in ``DiffusionClassifier.candidates``.
        template: As in ``DiffusionClassifier.candidates``.
        model: As in ``DiffusionClassifier.from_pretrained``.
        options: Its further arguments.
        show: Called with a source and its record, while the bar is out of the way.
        console: Where the bar goes; where there is no terminal, a line an image.
        quiet: Whether to show neither.
        max_pixels: As in ``load_image``, whose default it is if there is none.

    Returns:
        The messages of images that failed, in their order.

    Raises:
        DiffjaxError: If the model or the classes are not to be had.
    """

    def read(source: str) -> Any:
        try:
            return load_image(source, max_pixels=max_pixels)
        except DiffjaxError as error:
            return error

    def results(bar: Bar) -> Iterator[Record | DiffjaxError]:
        images, place = map(read, sources), 0
        for image in images:
            if not isinstance(image, DiffjaxError):
                break
            yield image
            place += 1
        else:
            return
        bar.stage(f"loading {model}")
        classifier = DiffusionClassifier.from_pretrained(model, **options)
        candidates = classifier.candidates(labels, template)
        bar.stage("compiling")

        def encoded(at: int, image: Any) -> tuple[int, Any]:
            if not isinstance(image, DiffjaxError):
                try:
                    image = classifier.encode(image)
                except DiffjaxError as error:
                    image = DiffjaxError(f"{sources[at]}: {error}")
            return at, image

        todo = (encoded(*each) for each in enumerate(chain([image], images), place))
        progress = Progress(watch=bar.show, total=n, done=place, failed=place)
        waiting: dict[int, Record | DiffjaxError] = {}
        for at, result in classifier.score(todo, candidates, progress):
            if isinstance(result, NotFiniteError):
                result = DiffjaxError(f"{sources[at]}: {result}")
            waiting[at] = result
            progress.count(failed=isinstance(result, DiffjaxError))
            while place in waiting:
                yield waiting.pop(place)
                place += 1

    failures, n = [], len(sources)
    name = Path(sources[0]).name if n == 1 else f"{n} images"
    with Bar(console, name, quiet=quiet, lines=False) as bar:
        for k, result in enumerate(results(bar)):
            if isinstance(result, DiffjaxError):
                failures.append(str(result))
                continue
            told = f"{result.label}, {result.evaluations:,} evaluations"
            bar.line(f"{k + 1}/{n} {sources[k]}: {told}")
            with bar.hidden():
                show(sources[k], result)
    return failures
