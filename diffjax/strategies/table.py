"""The table of errors of a run, and what is asked for and read of it.

What strategies compare is the weighted mean error over the samples that a class has
seen, with weights of samples w = 1 unless something else is said:

    e_c = Σ_s w_s e[c, s] / Σ_s w_s
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True, kw_only=True, eq=False)
class Samples:
    """The (timestep, noise) pairs a run may use, in the order of their use.

    Attributes:
        timesteps: int [S].
        noises: int [S], which of the image's noise draws each sample uses.
        weights: float64 [S], w, not negative and with a mean of 1; None for ones.
    """

    timesteps: Int[np.ndarray, "S"]
    noises: Int[np.ndarray, "S"]
    weights: Float[np.ndarray, "S"] | None = None

    def __len__(self) -> int:
        return len(self.timesteps)

    def head(self, n: int) -> "Samples":
        """The first n, or all of them if they are fewer."""
        n = min(n, len(self))
        weights = None if self.weights is None else self.first(n)
        return Samples(
            timesteps=self.timesteps[:n], noises=self.noises[:n], weights=weights
        )

    def first(self, n: int) -> Float[np.ndarray, "n"]:
        """The weights of the first n, with a mean of 1; zeros if all of them are."""
        if self.weights is None:
            return np.ones(n)
        weights = self.weights[:n]
        return weights / (weights.mean() or 1)


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
        mean: float64 [C], weighted; NaN where no sample is shared.
        standard_error: float64 [C] of the mean, as of a ratio of two means; infinite
            below two shared samples, zero for a leader of itself.
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

    Means are weighted by ``weights``, w; the errors themselves stay as they are.
    """

    errors: Float[np.ndarray, "C S"]
    weights: Float[np.ndarray, "S"] | None = None

    def rows(self, rows: Int[np.ndarray, "k"]) -> "ErrorTable":
        """Some of its classes, of a copy."""
        return replace(self, errors=self.errors[rows])

    @property
    def _weights(self) -> Float[np.ndarray, "S"]:
        return np.ones(self.errors.shape[1]) if self.weights is None else self.weights

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
        return _mean(self.errors.astype(np.float64), self._weights)[0]

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
        known = np.where(seen, self.errors, 0).astype(np.float64) * self._weights
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
        mean, total = _mean(d, self._weights)
        spread = np.nansum((self._weights * (d - mean[:, None])) ** 2, axis=1)
        # that of a mean of n terms w (d − mean) / (mean of w)
        poor = (n < 2) | (total == 0)
        scale = np.where(poor, 1, total) ** 2 * np.maximum(n - 1, 1)
        standard_error = np.where(poor, np.inf, np.sqrt(spread * n / scale))
        standard_error[np.arange(len(n)) == leaders] = 0.0
        return PairedDifference(mean, standard_error, n)


def _mean(
    values: Float[np.ndarray, "C S"], weights: Float[np.ndarray, "S"]
) -> tuple[Float[np.ndarray, "C"], Float[np.ndarray, "C"]]:
    """The weighted mean of what is not NaN, and the sum of its weights.

    NaN for a row without any value; 0 where all weights are, which tell nothing apart.
    """
    there = ~np.isnan(values)
    total = (there * weights).sum(axis=1)
    sums = np.nansum(values * weights, axis=1)
    mean = np.where(there.any(axis=1), sums / np.where(total > 0, total, 1), np.nan)
    return mean, total
