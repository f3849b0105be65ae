"""Runs on the same images: how far one is ahead, and whether chance explains it.

With a images that only the one run has right, b that only the other has, of n that both
classified:

    difference  (a − b) / n
    interval    D ± 1.96 √((a + b + 1) / N² − (a − b)² / N³)
                with N = n + 2, D = (a − b) / N
    p           min(1, 2 P(X ≤ min(a, b))),  X binomial of a + b trials, each ½

The interval is Agresti and Min's (2005), who add ½ to each cell of the 2 × 2 table, so
that it is sound for few differences. p is McNemar's exact test, conditional on a + b.
Runs are told apart where p < 0.05, and nowhere else: the test keeps its level whatever
a + b is, the interval nearly. So an interval may just leave zero out at a p of 0.06.
The leader of several runs has to be told apart from every other one: of equal runs,
however many, one is called the winner no more often than that.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool
from scipy.special import bdtr

from diffjax.runs.metrics import Z

LEVEL = 0.05  # p below which two runs are told apart


class Rate(NamedTuple):
    """A proportion in [0, 1], or a difference of two, and its 95 % interval."""

    value: float
    low: float
    high: float


def paired_difference(
    right: Bool[np.ndarray, " n"], first: Bool[np.ndarray, " n"]
) -> Rate:
    """How much more often the one is right than the other, on the same images.

    Args:
        right, first: whether each image was classified correctly.

    Raises:
        ValueError: if there are no images.
    """
    if not len(right):
        raise ValueError("there are no images")
    a, b = int((right & ~first).sum()), int((first & ~right).sum())
    N = len(right) + 2
    half = Z * np.sqrt((a + b + 1) / N**2 - (a - b) ** 2 / N**3)
    low, high = (a - b) / N - half, (a - b) / N + half
    return Rate((a - b) / len(right), max(-1.0, float(low)), min(1.0, float(high)))


def mcnemar(right: Bool[np.ndarray, " n"], first: Bool[np.ndarray, " n"]) -> float:
    """The two-sided p of equal accuracies, exact; 1 if the two never differ."""
    a, b = int((right & ~first).sum()), int((first & ~right).sum())
    return min(1.0, 2 * float(bdtr(min(a, b), a + b, 0.5)))


class Place(NamedTuple):
    """A run's accuracy on the shared images, and its p against the leader's."""

    name: str
    accuracy: float
    p: float


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How runs stand on the images that all of them classified.

    Attributes:
        images: how many these are.
        places: the runs, most accurate first; none without a shared image.
    """

    images: int
    places: tuple[Place, ...]

    @property
    def tied(self) -> tuple[Place, ...]:
        """The runs that are not told apart from the leader, which is not among them."""
        return tuple(place for place in self.places[1:] if place.p >= LEVEL)

    @property
    def winner(self) -> str | None:
        """The leader, if it is told apart from every other run."""
        return self.places[0].name if self.places and not self.tied else None


def standing(names: Sequence[str], right: Bool[np.ndarray, "k n"]) -> Standing:
    """How k runs stand on n images; among equals the order stays."""
    n = right.shape[1]
    if not n:
        return Standing(images=0, places=())
    accuracies = right.mean(axis=1)
    order = np.argsort(-accuracies, kind="stable")
    places = [
        Place(names[k], float(accuracies[k]), mcnemar(right[k], right[order[0]]))
        for k in order
    ]
    return Standing(images=n, places=tuple(places))
