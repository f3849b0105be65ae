"""The mean over all samples, from those seen, and how far it may be off.

The difference d of two classes' errors is partly smooth over the timesteps, partly
noise. x_s is the place of sample s among all, by timestep and then by noise, and g_s
its share of the mean that is wanted: 1/N, or in proportion to its weight. The line
through the seen d, broken at each and straight on beyond the first and the last, gives
those not seen, so that the mean over all is a sum over those seen:

    m    = Σ_s W_s d_s,      W_s = Σ_p g_p times what d_s counts for in the line at p
    se²  = v [Σ_s (W_s − g_s)² + Σ_u g_u²],       s seen, u not seen, p all

if noise has the variance v. It is known by what the line through the two neighbours of
a seen sample says of it, a and 1 − a being their shares:

    r_s  = (d_s − a d_s⁻ − (1 − a) d_s⁺) / sqrt(1 + a² + (1 − a)²)
    v    = Σ_s κ_s r_s²,     κ_s: the part of [ ] of s and of what is not seen near it
    ν    = 1 / Σ_s Σ_p κ_s κ_p ρ_sp²,     ρ: correlations of r, degrees of freedom of v

A straight line is no error, and none is claimed. Of a curve the line misses a fifth of
what r takes for noise, since r spans twice the gap. Where noise is stronger near large
gaps, v is larger. Two samples alone have their difference for r.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True, kw_only=True, eq=False)
class Interpolation:
    """A broken line through n samples.

    Attributes:
        order: which of the samples seen comes first, second, … by place.
        weights: W, in this order.
        error: [ ], the variance of m in units of v.
        left: a, of those that have two neighbours.
        shares: κ, of the same; of two samples, of their difference.
        degrees: ν, the degrees of freedom of v.
    """

    order: Int[np.ndarray, "n"]
    weights: Float[np.ndarray, "n"]
    error: float
    left: Float[np.ndarray, "i"]
    shares: Float[np.ndarray, "j"]
    degrees: float

    def mean(self, d: Float[np.ndarray, "k n"]) -> Float[np.ndarray, "k"]:
        """m, of values at the samples seen."""
        mean: np.ndarray = d[:, self.order] @ self.weights
        return mean

    def variance(self, d: Float[np.ndarray, "k n"]) -> Float[np.ndarray, "k"]:
        """v, of values at the samples seen."""
        d, a = d[:, self.order], self.left
        if len(a):
            r = d[:, 1:-1] - a * d[:, :-2] - (1 - a) * d[:, 2:]
            r /= np.sqrt(1 + a**2 + (1 - a) ** 2)
        else:
            r = np.diff(d, axis=1) / np.sqrt(2)
        variance: np.ndarray = r**2 @ self.shares
        return variance


def interpolate(
    places: Int[np.ndarray, "N"], n: int, goal: Float[np.ndarray, "N"]
) -> Interpolation:
    """The line through the first n of all samples, 2 ≤ n < N.

    Args:
        places: of all samples in the order of their use, a permutation of 0 … N − 1.
        n: how many of them are seen.
        goal: g, in the order of use; its sum is 1.
    """
    order = np.argsort(places[:n])
    x, left_out = places[:n][order], places[n:]
    # each sample that is not seen lies between two that are, or beyond two
    gap = np.clip(np.searchsorted(x, left_out) - 1, 0, n - 2)
    u = (left_out - x[gap]) / (x[gap + 1] - x[gap])
    weights = goal[:n][order] + _shared(gap, u, goal[n:], n)
    error = (weights - goal[:n][order]) ** 2
    error += _shared(gap, np.clip(u, 0, 1), goal[n:] ** 2, n)
    total = float(error.sum())
    shares = error[1:-1].copy() if n > 2 else np.ones(1)
    if n > 2:
        shares[0] += error[0]
        shares[-1] += error[-1]
    if not shares.any():  # what is not seen counts for nothing
        shares[:] = 1
    shares /= shares.sum()
    a = (x[2:] - x[1:-1]) / (x[2:] - x[:-2])
    # covariances of r with the next and the next but one, before they are scaled
    variance = 1 + a**2 + (1 - a) ** 2
    next_one = (1 - a[:-1] + a[1:]) ** 2 / (variance[:-1] * variance[1:])
    next_two = ((1 - a[:-2]) * a[2:]) ** 2 / (variance[:-2] * variance[2:])
    squares = (shares**2).sum()
    squares += 2 * (shares[:-1] * shares[1:]) @ next_one
    squares += 2 * (shares[:-2] * shares[2:]) @ next_two
    return Interpolation(
        order=order,
        weights=weights,
        error=total,
        left=a,
        shares=shares,
        degrees=float(1 / squares),
    )


def _shared(
    gap: Int[np.ndarray, "m"],
    u: Float[np.ndarray, "m"],
    amounts: Float[np.ndarray, "m"],
    n: int,
) -> Float[np.ndarray, "n"]:
    """Amounts given to both ends of a gap: 1 − u to the left, u to the right."""
    left = np.bincount(gap, (1 - u) * amounts, n)
    both: np.ndarray = left + np.bincount(gap + 1, u * amounts, n)
    return both
