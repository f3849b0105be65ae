"""How far a command is: what classifies says it here, and whoever watches shows it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


def _nobody(progress: "Progress") -> None:
    """Watch nothing."""


@dataclass(kw_only=True, eq=False)
class Progress:
    """How far the classification of images is. It is changed in place.

    Attributes:
        watch: A function that is called with this object after every tile, for each
            image in the tile, and after every image that is done.
        total: How many images there are; of captioned pairs, how many pairs.
        images_each: How many images are classified for each of the total.
        before: How many of the done were done before this process began.
        done: How many are done, among them those that failed.
        failed: How many could not be read or scored.
        correct: How many predictions are right; None where labels are not known.
        evaluations: The forward passes of this process, also of images that are not
            done.
        open: The images that have been begun and are not done: objects with ``done``,
            ``remaining`` and ``alive``, as ``ImageSearch`` has them.
    """

    watch: Callable[["Progress"], None] = _nobody
    total: int = 1
    images_each: int = 1
    before: int = 0
    done: int = 0
    failed: int = 0
    correct: int | None = None
    evaluations: int = 0
    open: set[Any] = field(default_factory=set)

    def begin(self, total: int, done: int, correct: int) -> None:
        """Note how many are to be judged, and how many of them have been before."""
        self.total, self.correct = total, correct
        self.before = self.done = done
        self.watch(self)

    def advance(self, evaluations: int) -> None:
        """Note that a tile has done so many evaluations of an image."""
        self.evaluations += evaluations
        self.watch(self)

    def count(self, *, failed: bool = False, right: bool = False) -> None:
        """Note that one more is done."""
        self.done += 1
        self.failed += failed
        if self.correct is not None:
            self.correct += right
        self.watch(self)

    @property
    def judged(self) -> int:
        """How many have a prediction."""
        return self.done - self.failed

    @property
    def remaining(self) -> int:
        """The evaluations of the open images that are still to come, at most."""
        return sum(image.remaining for image in self.open)

    @property
    def alive(self) -> int:
        """The classes of the open images that are not yet pruned."""
        return sum(image.alive for image in self.open)

    @property
    def completed(self) -> float:
        """How many are done, parts of the open ones included."""
        parts = (each.done / max(1, each.done + each.remaining) for each in self.open)
        done: float = self.done + sum(parts) / self.images_each
        return min(float(self.total), done)
