"""Fewer classes before the first round: a shortlist, or a prefilter's choice.

**Shortlist.** Only classes whose estimated error is small enough are evaluated.

An estimate of the error of every class, ê[c, s], costs the same for any number of
classes (``scoring.gradients``). The k classes with the smallest mean of ê over samples
go on to the strategy; the others are dropped before its first round. They rank below,
among themselves by the estimate, and have no errors.

A class of several prompts is as good as its best one, and keeps or loses them all.

If the estimate's samples are the strategy's own, as with ``auto``, or with
``racing:n_samples=64`` after ``k=30:n_samples=64``, it serves a second time, as a
control variate: instead of e[c, s] a strategy compares e[c, s] − ê[c, s] + mean of
ê[c, ·], which has the same mean over all samples, and varies less the better the
estimate is.

**How many classes?** ``auto`` takes as many as a risk asks for. The rows that seem
best, and fewer and fewer of the others, m in all, are evaluated on a few samples p, and
checked: with ê_c the mean of ê[c, ·],

    r_i   = mean of e[i, s] − ê[i, s] over s in p       by what the estimate is wrong
    r̂     = α + β ê, fitted by least squares: those that seem best are so by luck too
    s²    = the variance of r − r̂ over the m rows, of which
    v²    = is noise: how r_i, against the others', varies over s, as a mean over p
    b²    = max(s² − v², s² / 4)                        what remains over all samples
    g     = b² / (b² + v²)
    u     = min of ê_i + r̂_i + g (r_i − r̂_i)  +  2 sqrt(g v²)
                                                        what has to be beaten; the
                                                        smallest is so by luck too
    p_c   = F_{m−2}((u − ê_c − r̂_c) / sqrt(b² + s² h_c + g v²))

is the probability that c, one of the others, is better than the best of the m, if the
estimate is as wrong about c as it is about these: F is Student's t distribution, h the
leverage of the fit. For one of the m it is F of its distance to u over sqrt(g v²), and
the best of them stays. Classes are left out from the worst by ê on, as long as the sum
of their p_c is at most the risk. If ê is of other samples than the strategy's, its
variance over samples, each class against the one that seems best, is added under the
square root.

**Prefilter.** Something else, as CLIP, has chosen an image's classes: ``restrict``.
A shortlist is then made of these.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from diffjax.errors import DiffjaxError, overflowed
from diffjax.strategies.base import Samples, State, drop
from diffjax.strategies.orders import even_timesteps, require_positive, with_trials

N_SAMPLES = 16  # of an estimate for the best k
FEWEST = 2  # classes: one would leave nothing to decide
RISK = 0.01  # of leaving out the best class, for ``auto``
LUCK = 2  # standard errors by which the smallest of a few may be too small
CHECKED, CHECKS = 16, 4  # rows at most, and samples of each
DIRECTIONS = 8  # of the second order, for ``auto``
CURVED = 8  # samples of the second order, at most


@dataclass(frozen=True, kw_only=True)
class Shortlist:
    """Estimate the error of every class, and keep the best.

    Attributes:
        k: how many classes; at least two, since one would leave nothing to decide.
            None for as many as ``risk`` asks for.
        n_samples: forward and backward passes; timesteps, evenly spread.
            As many as the strategy's make the estimate a control variate. None for 16
            where there is a k, and for the strategy's own samples where there is none.
        directions: in how many the estimate is of second order
            (``scoring.curvature``); None for 8 where there is no k, and for none where
            there is one.
        risk: of leaving out the best class, in (0, 1); None where there is a k, and for
            0.01 where there is none.
    """

    k: int | None = None
    n_samples: int | None = None
    directions: int | None = None
    risk: float | None = None

    def __post_init__(self) -> None:
        if self.k is not None and self.n_samples is None:
            object.__setattr__(self, "n_samples", N_SAMPLES)  # as headers have it
        if self.k is None and self.risk is None:
            object.__setattr__(self, "risk", RISK)
        if self.k is None and self.directions is None:
            object.__setattr__(self, "directions", DIRECTIONS)
        if self.n_samples is not None:
            require_positive("n_samples", self.n_samples)
        if self.k is not None and self.k < FEWEST:
            raise DiffjaxError(
                f"A shortlist has at least {FEWEST} classes, not {self.k}: one would "
                "leave nothing to decide."
            )
        if self.k is not None and self.risk is not None:
            raise DiffjaxError("A shortlist has a k or a risk, not both: auto:risk=….")
        if self.directions is not None and self.directions < 0:
            raise DiffjaxError(f"directions must be at least 0, not {self.directions}.")
        if self.risk is not None and not 0 < self.risk < 1:
            raise DiffjaxError(f"risk must lie between 0 and 1, not {self.risk:g}.")

    def samples(self, n_timesteps: int, own: Samples) -> Samples:
        """Those of the estimate.

        Args:
            n_timesteps: of the schedule.
            own: the strategy's.

        Raises:
            DiffjaxError: if the schedule has too few timesteps.
        """
        if self.n_samples is None:
            return own
        return with_trials(even_timesteps(self.n_samples, n_timesteps), 1)

    def useful(self, n_classes: int) -> bool:
        """Whether it may leave out any of so many classes, and save evaluations."""
        return n_classes > (2 * CHECKED if self.k is None else self.k)


def shorten(
    state: State,
    k: int,
    estimates: Float[np.ndarray, "C s"],
    n_gradients: int,
    samples: Samples | None = None,
    n_extra: int = 0,
) -> State:
    """Drop all but the best k classes before the first round.

    Args:
        state: that a strategy has started.
        k: how many classes to keep; groups of rows where there are groups.
        estimates: ê of every row.
        n_gradients: forward and backward passes that they took.
        samples: of the estimates; those of the strategy, in any order, make them a
            control variate.
        n_extra: evaluations that they took besides, and by which k was found.

    Raises:
        NotFiniteError: if an estimate is NaN or infinite.
    """
    _check_finite(estimates)
    estimate = estimates.mean(axis=1, dtype=np.float64)
    columns = None if samples is None else _places(state.samples, samples)
    foreseen = None
    if columns is not None:
        ordered = estimates[:, columns]
        if state.samples.weights is not None:
            estimate = np.average(ordered, axis=1, weights=state.samples.weights)
        foreseen = (ordered - estimate[:, None]).astype(estimates.dtype)
    kept = np.argsort(_of_groups(state, estimate), kind="stable")[:k]
    state = replace(
        state,
        estimate=np.where(state.living, estimate, np.inf),  # a prefilter's word is last
        foreseen=foreseen,
        n_gradients=n_gradients,
        n_extra=n_extra,
    )
    return drop(state, np.flatnonzero(~np.isin(_groups(state), kept)))


def to_check(
    state: State, estimates: Float[np.ndarray, "C s"], samples: Samples
) -> tuple[Int[np.ndarray, "m"], Int[np.ndarray, "p"]]:
    """The rows and the columns of the estimates that are to be checked.

    The best row of each of the best classes, and, in steps that grow, of others down to
    the middle; timesteps that are evenly spread.

    Raises:
        NotFiniteError: if an estimate is NaN or infinite.
    """
    _check_finite(estimates)
    estimate = _weighted(estimates, samples)
    order = np.argsort(np.where(state.living, estimate, np.inf), kind="stable")
    _, first = np.unique(_groups(state)[order], return_index=True)
    rows = order[np.sort(first)]
    rows = rows[state.living[rows]]
    half = CHECKED // 2
    middle = max(len(rows) // 2, CHECKED)
    others = np.rint(np.geomspace(half, middle, CHECKED - half)).astype(int)
    places = np.union1d(np.arange(half), others)
    return rows[places[places < len(rows)]], a_few(samples, CHECKS)


def a_few(samples: Samples, n: int) -> Int[np.ndarray, "p"]:
    """Columns of at most n samples, of evenly spread timesteps."""
    places = np.unique((2 * np.arange(n) + 1) * len(samples) // (2 * n))
    return np.argsort(samples.timesteps, kind="stable")[places]


def enough(
    state: State,
    estimates: Float[np.ndarray, "C s"],
    samples: Samples,
    rows: Int[np.ndarray, "m"],
    columns: Int[np.ndarray, "p"],
    errors: Float[np.ndarray, "m p"],
    risk: float,
) -> int:
    """How many classes to keep, that the best is not among the others but for a risk.

    Args:
        state: that a strategy has started.
        estimates: ê of every row.
        samples: of the estimates.
        rows: that were checked, as of ``to_check``. Fewer than three are all that a
            prefilter left, and stay.
        columns: on which of the samples.
        errors: that were found.
        risk: that the best class is left out.
    """
    from scipy.special import stdtr

    if len(rows) < 3:
        return max(FEWEST, len(rows))
    estimate = _weighted(estimates, samples)
    off = errors.astype(np.float64) - estimates[np.ix_(rows, columns)]
    m, p = off.shape
    r = off.mean(axis=1)
    within = off - r[:, None] - off.mean(axis=0) + off.mean()
    noise = np.square(within).sum() / ((m - 1) * max(p - 1, 1)) / p
    centred = estimate - estimate[rows].mean()
    squares = np.square(centred[rows]).sum()
    slope = (centred[rows] @ r) / squares if squares > 0 else 0.0
    fitted = r.mean() + slope * centred
    spread = np.square(r - fitted[rows]).sum() / (m - 2)
    leverage = 1 / m + (np.square(centred) / squares if squares > 0 else 0.0)
    bias = max(spread - noise, spread / 4)
    gain = bias / (bias + noise) if bias + noise > 0 else 1.0
    known = (estimate + fitted)[rows] + gain * (r - fitted[rows])
    variance = bias + spread * leverage + gain * noise + np.zeros(len(estimate))
    if _places(state.samples, samples) is None:
        against = estimates - estimates[rows[np.argmin(known)]]
        variance += against.var(axis=1, ddof=1) / estimates.shape[1]
    beaten = known.min() + LUCK * np.sqrt(gain * noise)
    distance = estimate + fitted - beaten
    distance[rows], variance[rows] = known - beaten, gain * noise
    error = np.sqrt(variance)
    t = np.divide(distance, error, out=np.full(len(error), np.inf), where=error > 0)
    tail = np.where(state.living, stdtr(m - 2, -t), 0.0)
    tail[rows[np.argmin(known)]] = 1.0  # it stays
    groups = _groups(state)
    worst_first = np.argsort(-_of_groups(state, estimate), kind="stable")
    lost = np.cumsum(np.bincount(groups, tail)[worst_first])
    left_out = int(np.searchsorted(lost, risk, side="right"))
    n_groups = len(worst_first)
    return max(FEWEST, n_groups - min(left_out, n_groups))


def _weighted(
    estimates: Float[np.ndarray, "C s"], samples: Samples
) -> Float[np.ndarray, "C"]:
    """The mean over samples, by their weights."""
    return np.average(estimates.astype(np.float64), axis=1, weights=samples.weights)


def _check_finite(estimates: Float[np.ndarray, "C s"]) -> None:
    if not np.isfinite(estimates).all():
        raise overflowed("The gradients of the shortlist are not finite")


def _of_groups(
    state: State, estimate: Float[np.ndarray, "C"]
) -> Float[np.ndarray, "G"]:
    """The estimate of each class: its best living row's; infinite for none."""
    groups = _groups(state)
    best = np.full(groups.max() + 1, np.inf)
    np.minimum.at(best, groups, np.where(state.living, estimate, np.inf))
    return best


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
