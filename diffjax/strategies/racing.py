"""Racing: drop a class once it is surely worse than the leader; stop when one is left.

The race asks what Algorithm 1 would say of all N samples, and stops as soon as it is
sure. Samples come in van der Corput's order, so those seen are always spread evenly.
After n of them the leader l is the living class with the smallest mean, and

    d_s  = e[c, s] − e[l, s],           m_c = mean of d_s
    v_c  = Σ (d_s − d_s′)² / 2(n − 1)   over neighbours s, s′ in the timestep
    se_c = sqrt(v_c (1/n − 1/N)),       the error of m_c as an estimate of d over all N:
                                        samples are drawn without replacement

    p_c  = Λ F_ν(−m_c / se_c),          Λ = 1 + log2(N / floor)

bounds the probability that c beats l on all N. v is von Neumann's estimate of a
variance (1941): what d does smoothly over the timesteps is no noise, since samples are
spread evenly. F is Student's t distribution, with v's ν = 2 (n − 1)² / (3n − 4) degrees
of freedom. Λ pays for looking again and again: two looks at nearly the same samples
find nearly the same, so what counts is how often n doubles. In simulation (normal,
Laplace and t(3) errors, N from 50 to 1000, a look every 1 to 4 samples) all looks
together err 2 to 10 times as often as one look does, near Λ.

The risk 1 − confidence is shared by the classes (Bonferroni over those still living),
and what one does not use is left to the others:

    c is dropped when   p_c ≤ (1 − confidence − spent) / rivals
    spent               Σ p_c over the dropped
    rivals              living classes less the leader

So the sum of the p_c never exceeds the risk. Once all N samples are seen nothing is
left to doubt, and what the race says of its confidence is always at least what was
asked for:

    1 − spent − Σ P(c beats l by more than δ) over the living

**Ties.** Classes whose errors are the same, or nearly, would be raced to the end of the
budget. With δ = indifference × standard deviation of the leader's errors over samples,
a rival is tied when

    Λ F_ν((m_c − δ) / se_c) ≤ (1 − confidence − spent) / rivals,

that is, when its difference is surely below δ; the race is over when all rivals are.
They stay undropped, since nothing speaks against them. δ is meant for duplicates, whose
differences are zero or rounding: a model's classes differ by far more (on CIFAR-10,
the nearest two by 0.0018 of that deviation in the median). Prompts of one class are
rivals of the others, but the race is over when only prompts of one class are left.

**What it rests on.** The t distribution is no friend of strong skewness: differences
that are nearly always a little positive and, at one timestep in twenty, very negative
can have a class dropped too early; ``floor`` guards against that. In simulation,
classes that nothing tells apart, the worst case, are decided otherwise than by all N
samples about half as often as the risk allows at N = 100, and as often at N = 1000;
with t(3) errors and a risk of 1 %, in 1.2 % of all cases. The confidence is about the
decision on all N samples, not about its being right; of classes that a shortlist or a
prefilter left out, it says nothing.

Where samples have weights w, with a mean of 1 over those seen, m_c is the mean of
w_s d_s, and v_c is of w_s (d_s − m_c): the error of a ratio.

Where a shortlist's estimates foresee the errors of the race's own samples, e is what
was not foreseen (``State.unforeseen``): the same mean over all N, with less variance.
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from diffjax.choices import N_SAMPLES
from diffjax.errors import DiffjaxError
from diffjax.strategies.base import (
    Decision,
    Request,
    Samples,
    State,
    Strategy,
    drop,
    rank,
)
from diffjax.strategies.orders import (
    even_timesteps,
    given_samples,
    require_positive,
    van_der_corput,
)

SURE = 1e-50  # a smaller probability is no smaller


@dataclass(frozen=True, kw_only=True)
class Racing(Strategy):
    """Race the classes on the samples of ``Exhaustive(n_samples, n_trials)``.

    Attributes:
        n_samples: the budget of a class: timesteps, even over the schedule.
        confidence: of deciding as the exhaustive strategy on these samples; in (0, 1).
        floor: samples that every class sees before any is dropped.
        chunk: samples between one look and the next.
        indifference: the difference that does not matter, in units of the standard
            deviation of the leader's errors over samples.
        n_trials: the number of noises per timestep.
    """

    n_samples: int = N_SAMPLES
    confidence: float = 0.9
    floor: int = 8
    chunk: int = 4
    indifference: float = 1e-5
    n_trials: int = 1

    def __post_init__(self) -> None:
        for name in ("n_samples", "chunk", "n_trials"):
            require_positive(name, getattr(self, name))
        if self.floor < 2:
            raise DiffjaxError(
                f"floor must be at least 2, not {self.floor}: one sample says nothing "
                "of how much the next may differ."
            )
        if not 0 < self.confidence < 1:
            raise DiffjaxError(
                f"confidence must lie between 0 and 1, not {self.confidence:g}. The "
                "strategy exhaustive is certain."
            )
        if not 0 <= self.indifference < np.inf:
            raise DiffjaxError(
                f"indifference must not be negative, and finite; it is "
                f"{self.indifference:g}."
            )

    def plan(self, n_timesteps: int) -> tuple[Samples, tuple[int, ...]]:
        """The looks, from ``floor`` samples on every ``chunk``."""
        # all timesteps with their first noise, then all with their second, …; noises
        # are numbered as Exhaustive does, so that its cells are a race's cells
        order = van_der_corput(self.n_samples)
        trials = np.arange(self.n_trials)[:, None]
        timesteps = even_timesteps(self.n_samples, n_timesteps)[order]
        samples = Samples(
            timesteps=np.tile(timesteps, self.n_trials),
            noises=(order * self.n_trials + trials).ravel(),
        )
        return samples, self._looks(len(samples))

    def plan_on(self, given: Samples) -> tuple[Samples, tuple[int, ...]]:
        """The looks on the first ``n_samples`` of the given ones, as they come."""
        samples = given_samples(given, self.n_samples, self.n_trials)
        return samples, self._looks(len(samples))

    def _looks(self, N: int) -> tuple[int, ...]:
        return (*range(min(self.floor, N), N, self.chunk), N)

    def update(
        self, state: State, request: Request, errors: Float[np.ndarray, "k s"]
    ) -> State:
        """Enter the errors and drop who lost; DiffjaxError if any is not finite."""
        state = super().update(state, request, errors)
        if state.n_used == len(state.samples):
            return state
        now = self._standing(state)
        reach = now.reach((1 - self.confidence - state.risk) / now.n_rivals)
        lost = now.mean > reach
        tied = now.mean + reach <= now.width
        if state.deficits is None:
            deficits = np.full((2, len(state.dropped)), np.nan)
        else:
            deficits = state.deficits.copy()
        deficits[:, now.classes[lost]] = now.mean[lost], now.standard_error[lost]
        return replace(
            drop(state, now.classes[lost]),
            risk=state.risk + float(now.tail(now.mean)[lost].sum()),
            over=not (now.foreign & ~lost & ~tied).any(),
            deficits=deficits,
        )

    def decide(self, state: State) -> Decision:
        """The living by mean error, then the dropped, last dropped first."""
        risk = state.risk
        if 0 < state.n_used < len(state.samples):
            now = self._standing(state)
            risk += float(now.tail(now.mean + now.width)[now.foreign].sum())
        return replace(rank(state), confidence=max(0.0, 1 - risk))

    def _standing(self, state: State) -> "_Standing":
        """How the living stand after some samples, but not all."""
        classes = np.flatnonzero(state.living)
        n, N = state.n_used, len(state.samples)
        errors = state.unforeseen.errors[classes, :n].astype(np.float64)
        weights = state.samples.first(n)
        leader = int(np.argmin((weights * errors).mean(axis=1)))
        difference = weights * (errors - errors[leader])
        mean = difference.mean(axis=1)
        order = np.lexsort((state.samples.noises[:n], state.samples.timesteps[:n]))
        steps = np.diff(difference[:, order], axis=1)
        steps -= mean[:, None] * np.diff(weights[order])
        variance = np.square(steps).sum(axis=1) / (2 * (n - 1))
        if not weights.any():
            variance[:] = np.inf
        spread = float(state.table.errors[classes[leader], :n].std(ddof=1, dtype=float))
        groups = classes if state.groups is None else state.groups[classes]
        return _Standing(
            classes=classes,
            foreign=groups != groups[leader],
            mean=mean,
            standard_error=np.sqrt(variance * (1 / n - 1 / N)),
            degrees=2 * (n - 1) ** 2 / (3 * n - 4),
            looks=1 + np.log2(N / self.floor),
            width=self.indifference * spread,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Standing:
    """The k living classes against their leader, after n samples.

    Attributes:
        classes: which they are.
        foreign: those of another group than the leader.
        mean: m; 0 for the leader.
        standard_error: se; 0 for the leader.
        degrees: ν.
        looks: Λ.
        width: δ.
    """

    classes: Int[np.ndarray, "k"]
    foreign: Bool[np.ndarray, "k"]
    mean: Float[np.ndarray, "k"]
    standard_error: Float[np.ndarray, "k"]
    degrees: float
    looks: float
    width: float

    @property
    def n_rivals(self) -> int:
        """Of the leader; one where it is alone, to divide by."""
        return max(len(self.classes) - 1, 1)

    def tail(self, distance: Float[np.ndarray, "k"]) -> Float[np.ndarray, "k"]:
        """Λ F(−distance / se), at most 1; none where differences do not vary."""
        from scipy.special import stdtr

        t = np.full(len(distance), np.inf)
        np.divide(distance, self.standard_error, out=t, where=self.standard_error > 0)
        tail: np.ndarray = np.minimum(1.0, self.looks * stdtr(self.degrees, -t))
        return tail

    def reach(self, level: float) -> Float[np.ndarray, "k"]:
        """The distance at which the tail is ``level``."""
        from scipy.special import stdtrit

        quantile = float(stdtrit(self.degrees, max(level, SURE) / self.looks))
        return -quantile * self.standard_error
