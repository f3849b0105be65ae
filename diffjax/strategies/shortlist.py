"""Fewer classes before the first round: a shortlist, or a prefilter's choice.

**Shortlist.** Only classes whose estimated error is small enough are evaluated.

An estimate of the error of every class, ê[c, s], costs the same for any number of
classes (``scoring.gradients``). The k classes with the smallest mean of ê over samples
go on to the strategy; the others are dropped before its first round. They rank below,
among themselves by the estimate, and have no errors.

A class of several prompts is as good as its best one, and keeps or loses them all.

If the estimate's samples are the strategy's own, as with ``racing:n_samples=64`` after
``k=30:n_samples=64``, it serves a second time, as a control variate: instead of e[c, s]
a strategy compares e[c, s] − ê[c, s] + mean of ê[c, ·], which has the same mean over
all samples, and varies less the better the estimate is.

**Prefilter.** Something else, as CLIP, has chosen an image's classes: ``restrict``.
A shortlist is then made of these.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from diffjax.errors import DiffjaxError, overflowed, unknown
from diffjax.strategies.base import Samples, State, drop
from diffjax.strategies.orders import even_timesteps, require_positive, with_trials

BASES = ("mean", "unconditional", "clusters")


@dataclass(frozen=True, kw_only=True)
class Shortlist:
    """Estimate the error of every class, and keep the best k.

    Attributes:
        k: how many classes; at least two, since one would leave nothing to decide.
        n_samples: forward and backward passes for each base; timesteps, evenly spread.
            As many as the strategy's make the estimate a control variate.
        base: where the gradients are taken: at the "mean" of the classes' conditions,
            at the "unconditional" one, or at the means of "clusters" of classes.
        rounds: each further one takes the gradients at the mean of the best k classes
            of the round before.
        clusters: how many, for that base.
    """

    k: int
    n_samples: int = 16
    base: str = "mean"
    rounds: int = 1
    clusters: int = 8

    def __post_init__(self) -> None:
        for name in ("n_samples", "rounds", "clusters"):
            require_positive(name, getattr(self, name))
        if self.k < 2:
            raise DiffjaxError(
                f"A shortlist has at least 2 classes, not {self.k}: one would leave "
                "nothing to decide."
            )
        if self.base not in BASES:
            raise unknown("base", self.base, BASES)

    def samples(self, n_timesteps: int) -> Samples:
        """Those of the estimate; DiffjaxError if the schedule has too few timesteps."""
        return with_trials(even_timesteps(self.n_samples, n_timesteps), 1)


def shorten(
    state: State,
    k: int,
    estimates: Float[np.ndarray, "C s"],
    n_gradients: int,
    samples: Samples | None = None,
) -> State:
    """Drop all but the best k classes before the first round.

    Args:
        state: that a strategy has started.
        k: how many classes to keep; groups of rows where there are groups.
        estimates: ê of every row.
        n_gradients: forward and backward passes that they took.
        samples: of the estimates; those of the strategy, in any order, make them a
            control variate.

    Raises:
        NotFiniteError: if an estimate is NaN or infinite.
    """
    if not np.isfinite(estimates).all():
        raise overflowed("The gradients of the shortlist are not finite")
    estimate = estimates.mean(axis=1, dtype=np.float64)
    columns = None if samples is None else _places(state.samples, samples)
    foreseen = None
    if columns is not None:
        ordered = estimates[:, columns]
        if state.samples.weights is not None:
            estimate = np.average(ordered, axis=1, weights=state.samples.weights)
        foreseen = (ordered - estimate[:, None]).astype(estimates.dtype)
    groups = _groups(state)
    best = np.full(groups.max() + 1, np.inf)
    np.minimum.at(best, groups, np.where(state.living, estimate, np.inf))
    kept = np.argsort(best, kind="stable")[:k]
    state = replace(
        state, estimate=estimate, foreseen=foreseen, n_gradients=n_gradients
    )
    return drop(state, np.flatnonzero(~np.isin(groups, kept)))


def _places(own: Samples, samples: Samples) -> Int[np.ndarray, "s"] | None:
    """Where each of a strategy's own samples is among others; None unless all are."""
    theirs = np.lexsort((samples.noises, samples.timesteps))
    ours = np.lexsort((own.noises, own.timesteps))
    if len(theirs) != len(ours) or not (
        np.array_equal(samples.timesteps[theirs], own.timesteps[ours])
        and np.array_equal(samples.noises[theirs], own.noises[ours])
    ):
        return None
    places = np.empty_like(ours)
    places[ours] = theirs
    return places


def restrict(state: State, classes: Sequence[int]) -> State:
    """Drop all but these classes before the first round.

    Args:
        state: that a strategy has started.
        classes: those to keep, groups of rows where there are groups; one at least.

    Raises:
        DiffjaxError: if there are none, or no such ones.
    """
    groups = _groups(state)
    n = int(groups.max()) + 1
    if not len(classes):
        raise DiffjaxError("A prefilter left no class to choose from.")
    if wrong := [c for c in classes if not 0 <= c < n]:
        raise DiffjaxError(
            f"A prefilter left the class {wrong[0]}; there are 0 to {n - 1}."
        )
    return drop(state, np.flatnonzero(~np.isin(groups, np.asarray(classes, int))))


def _groups(state: State) -> Int[np.ndarray, "C"]:
    """The class of each row."""
    return np.arange(len(state.dropped)) if state.groups is None else state.groups
