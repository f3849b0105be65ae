"""A classification as it goes: what is known of an image after every tile.

moments = []
record = race(classifier, "ship.png", candidates, moments.append)

It is one image on the one way of all, ``DiffusionClassifier.score``, so its last moment
is what ``classify`` says.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from jaxtyping import Array

from diffjax.classify.candidates import Candidates
from diffjax.classify.classifier import DiffusionClassifier
from diffjax.classify.progress import Progress
from diffjax.classify.record import Record
from diffjax.classify.search import ImageSearch
from diffjax.classify.seen import told
from diffjax.data.images import ImageSource
from diffjax.errors import DiffjaxError
from diffjax.scoring.cost import evaluation_flops


@dataclass(frozen=True, kw_only=True, eq=False)
class Moment:
    """What is known of an image while it is being classified.

    Attributes:
        record: What is known after the latest look, as it would be decided by now: of
            every class how much larger its error is than the leader's, with a standard
            error, and whether it was dropped. None before the first.
        looks: How many times the strategy has looked.
        evaluations: The evaluations so far, those for the next look among them.
        most: How many it takes if no class is dropped any more.
        done: Whether this is the end.
    """

    record: Record | None
    looks: int
    evaluations: int
    most: int
    done: bool = False


def race(
    classifier: DiffusionClassifier,
    image: ImageSource | Array,
    candidates: Candidates,
    tell: Callable[[Moment], None],
) -> Record:
    """Classify an image, and tell how it goes.

    Args:
        classifier: The classifier.
        image: A path, URL, PIL image or array.
        candidates: The classes to choose from, of ``DiffusionClassifier.candidates``.
        tell: A function that is called with a moment after every tile, in the thread of
            the caller. An exception of its ends the classification before the next
            tile, and is raised here.

    Returns:
        The record that ``DiffusionClassifier.classify`` returns.

    Raises:
        DiffjaxError: If the image cannot be read, or as ``score`` does.
    """
    encoded = classifier.encode(image)
    known: Record | None = None
    looks = 0

    def watch(progress: Progress) -> None:
        nonlocal known, looks
        for search in progress.open:  # one, until it is done
            assert isinstance(search, ImageSearch)
            if search.state.n_rounds > looks:
                known, looks = _kept(search.known()), search.state.n_rounds
            done = search.done
            most = done + search.remaining
            tell(Moment(record=known, looks=looks, evaluations=done, most=most))

    progress = Progress(watch=watch)
    [(_, record)] = classifier.score([(None, encoded)], candidates, progress)
    if isinstance(record, DiffjaxError):
        raise record
    n = record.evaluations
    end = Moment(record=record, looks=looks + 1, evaluations=n, most=n, done=True)
    tell(end)
    return record


def flops_each(classifier: DiffusionClassifier, candidates: Candidates) -> float:
    """Return the FLOPs of an evaluation, at most: what classes share counts for each.

    A multiplication and an addition are two. Nothing is computed or compiled.
    """
    example = told(classifier.settings, classifier.resolution, classifier.resolution)
    shape = classifier.latent_shape
    return evaluation_flops(classifier.grid, candidates.conditions, shape, example)


def _kept(record: Record) -> Record:
    """A record whose errors stay as they are while the race goes on."""
    errors = record.table.errors.copy()
    return replace(record, table=replace(record.table, errors=errors), also={})
