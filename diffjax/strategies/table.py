"""The table of errors of a run, and what is asked for and read of it."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True, kw_only=True, eq=False)
class Samples:
    """The (timestep, noise) pairs a run may use, in the order of their use.

    Attributes:
        timesteps: int [S].
        noises: int [S], which of the image's noise draws each sample uses.
    """

    timesteps: Int[np.ndarray, "S"]
    noises: Int[np.ndarray, "S"]

    def __len__(self) -> int:
        return len(self.timesteps)


@dataclass(frozen=True, kw_only=True, eq=False)
class Request:
    """Cells to evaluate: every one of ``classes`` with every one of ``samples``.

    Attributes:
        classes: int [k], ascending.
        samples: int [s], indices into the run's ``Samples``.
    """

    classes: Int[np.ndarray, "k"]
    samples: Int[np.ndarray, "s"]


@dataclass(frozen=True, eq=False)
class PairedDifference:
    """How much larger each class's error is than its leader's, on shared samples.

    Attributes:
        mean: float64 [C], NaN where no sample is shared.
        standard_error: float64 [C] of the mean; infinite below two shared samples,
            zero for a leader of itself.
        n_samples: int [C], the number of shared samples.
    """

    mean: Float[np.ndarray, "C"]
    standard_error: Float[np.ndarray, "C"]
    n_samples: Int[np.ndarray, "C"]


@dataclass(frozen=True, eq=False)
class ErrorTable:
    """The errors of a run, float32 [C, S], NaN where never evaluated.

    The array belongs to its run and is written IN PLACE: a copy for each of many
    rounds of a 1000 × 1000 table would cost more than the bookkeeping. Earlier states
    of the same run therefore see later errors; nothing is ever overwritten.
    """

    errors: Float[np.ndarray, "C S"]

    def identical(self) -> bool:
        """Whether several classes have the same errors wherever all were evaluated."""
        shared = self.errors[:, ~np.isnan(self.errors).any(axis=0)]
        return len(shared) > 1 and shared.size > 0 and bool((shared == shared[0]).all())

    def write(self, request: Request, errors: Float[np.ndarray, "k s"]) -> None:
        """Enter the errors of a request.

        Raises:
            ValueError: the shape is wrong, or a cell was evaluated before.
        """
        cells = np.ix_(request.classes, request.samples)
        expected = (len(request.classes), len(request.samples))
        if errors.shape != expected:
            raise ValueError(f"errors have shape {errors.shape}, not {expected}")
        if not np.isnan(self.errors[cells]).all():
            raise ValueError("a cell of this request was evaluated before")
        self.errors[cells] = errors

    def n_samples(self) -> Int[np.ndarray, "C"]:
        """The number of samples each class has seen."""
        counts: np.ndarray = (~np.isnan(self.errors)).sum(axis=1)
        return counts

    def mean(self) -> Float[np.ndarray, "C"]:
        """The mean error of each class over what it has seen; NaN for nothing."""
        return _mean(self.errors.astype(np.float64), self.n_samples())

    def leaders(self, winner: int) -> Int[np.ndarray, "C"]:
        """For each class the one that was best on the samples that it has seen.

        A class that was dropped was dropped for being worse than that one, which may
        have lost to the winner later. For whoever has seen as much as the winner it is
        the winner.

        Args:
            winner: the best class. No class has seen a sample that one that has seen
                more has not.
        """
        seen = ~np.isnan(self.errors)
        n = seen.sum(axis=1)
        order = np.argsort(-seen.sum(axis=0), kind="stable")  # of the samples' use
        known = np.where(seen, self.errors, 0).astype(np.float64)
        totals = known[:, order].cumsum(axis=1)
        leaders = np.full(len(n), winner)
        for k in np.unique(n[(n > 0) & (n < n[winner])]):
            there = np.flatnonzero(n >= k)
            leaders[n == k] = there[np.argmin(totals[there, k - 1])]
        return leaders

    def difference(self, leaders: int | Int[np.ndarray, "C"]) -> PairedDifference:
        """Compare each with its leader, or all with one, on samples that both saw."""
        errors = self.errors.astype(np.float64)
        d = errors - errors[leaders]
        n = (~np.isnan(d)).sum(axis=1)
        mean = _mean(d, n)
        spread = np.nansum((d - mean[:, None]) ** 2, axis=1)
        many = np.maximum(n, 2)  # only to keep the division below quiet
        standard_error = np.where(n < 2, np.inf, np.sqrt(spread / (many - 1) / many))
        standard_error[np.arange(len(n)) == leaders] = 0.0
        return PairedDifference(mean, standard_error, n)


def _mean(
    values: Float[np.ndarray, "C S"], n: Int[np.ndarray, "C"]
) -> Float[np.ndarray, "C"]:
    # np.nanmean would warn about rows without any value.
    return np.where(n == 0, np.nan, np.nansum(values, axis=1) / np.maximum(n, 1))
