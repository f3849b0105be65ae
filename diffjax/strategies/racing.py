"""Racing: drop a class once it is surely worse than the leader; stop when one is left.

The race asks what Algorithm 1 would say of all N samples, and stops as soon as it is
sure. Samples come in van der Corput's order, so those seen are always spread evenly.
With n of them the mean over all N is estimated by a line through those seen, broken at
each (``interpolation`` has the equations). The leader l is the living class with the
smallest such mean, and for its R living rivals c

    d_s  = e[c, s] − e[l, s],        m_c = the estimated mean of d over all N
    v_c  = the variance of the noise in d, of ν degrees of freedom
    v̄_c  = (ν v_c + ν′ mean of v over the rivals) / (ν + ν′),
    ν′   = min(8, 3ν (R − 1) / (R + 3))
    se_c = sqrt(v̄_c [ ]),            [ ] by how many samples are seen, and where

    p_c  = Λ F(−m_c / se_c),         Λ = 1 + log2(N / floor)

bounds the probability that c beats l on all N. F is Student's t distribution with
ν + ν′ degrees of freedom: a few samples say little of a variance, but rivals' are
alike. R of them say 4R / (R + 3) times as much as one, since their differences share
the leader's noise, a correlation of a half; and for what is not alike, 8 degrees more
are the most. Λ pays for looking again and again: two looks at nearly the same samples
find nearly the same, so what counts is how often n doubles.

The risk 1 − confidence is shared by the classes (Bonferroni over those still living),
and what one does not use is left to the others:

    c is dropped when   p_c ≤ (1 − confidence − spent) / rivals
    spent               Σ p_c over the dropped
    rivals              living classes less the leader

So the sum of the p_c never exceeds the risk. But a p_c at which a class is dropped is
one of many, taken for being small, so each counts double, and all together never for
more than was agreed. Once all N samples are seen nothing is left to doubt; what the
race says of its confidence is

    1 − min(2 spent, 1 − confidence) − Σ P(c beats l by more than δ) over the living

A race that its budget stops has the leader for its winner, and this for its
confidence, which may then be less than was asked for; otherwise it is not. What was
asked for is kept by races as a whole. Of two classes that nothing tells apart, the
worst case, those that end early have been misled more often than they say: asked for
0.9, 7 to 9 % of all races err where 5 % is said; for 0.99, 0.7 % where 0.2 % is (N =
96, noise as in ``tests/strategies/test_racing.py``).

**Ties.** Classes whose errors are the same, or nearly, would be raced to the end of the
budget. With δ = indifference × standard deviation of the leader's errors over samples,
a rival is tied when

    Λ F((m_c − δ) / se_c) ≤ (1 − confidence − spent) / rivals,

that is, when its difference is surely below δ; the race is over when all rivals are.
They stay undropped, since nothing speaks against them. δ is meant for duplicates, whose
differences are zero or rounding: a model's classes differ by far more (on CIFAR-10,
the nearest two by 0.0018 of that deviation in the median). Prompts of one class are
rivals of the others, but the race is over when only prompts of one class are left.

**What it rests on.** That differences are smooth over the timesteps, or noise, or
both. On tables made of 2 to 1,000 classes, asked for 0.9, at least 90 % of races are
decided as by all samples, whether d is a line, a curve, concentrated at either end, or
noise alone, normal, Laplace, t(3) or skewed, of one size or of sizes that differ among
classes and over timesteps (``tests/strategies/test_confidence.py``). No rule that sees
a part can promise this of what the part cannot show: spikes at a few timesteps, and
what repeats itself over the timesteps, or in the order of use, as often as samples are
taken. The confidence is about the decision on all N samples, not about its being right;
of classes that a shortlist or a prefilter left out, it says nothing.

Where samples have weights, m_c is the estimated weighted mean: the line stays the same.

Where a shortlist's estimates foresee the errors of the race's own samples, e is what
was not foreseen (``State.unforeseen``): the same mean over all N, with less variance.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

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
from diffjax.strategies.interpolation import interpolate
from diffjax.strategies.orders import (
    even_timesteps,
    given_samples,
    require_positive,
    van_der_corput,
)

SURE = 1e-50  # a smaller probability is no smaller
BORROWED = 8  # the most degrees of freedom that rivals lend
LUCK = 2  # what a p counts for at which a class is dropped: small ones are taken
GROWTH = 8  # a look comes after an eighth more samples, or ``chunk``


@dataclass(frozen=True, kw_only=True)
class Racing(Strategy):
    """Race the classes on the samples of ``Exhaustive(n_samples, n_trials)``.

    Attributes:
        n_samples: the budget of a class: timesteps, even over the schedule.
        confidence: of deciding as the exhaustive strategy on these samples; in (0, 1).
        floor: samples that every class sees before any is dropped.
        chunk: samples between one look and the next, or an eighth of those seen, if
            that is more.
        indifference: the difference that does not matter, in units of the standard
            deviation of the leader's errors over samples.
        n_trials: the number of noises per timestep.
        budget: evaluations of an image, a shortlist's gradients included, before the
            look that would exceed them ends the race; 0 for as many as it needs.
    """

    n_samples: int = N_SAMPLES
    confidence: float = 0.9
    floor: int = 4
    chunk: int = 1
    indifference: float = 1e-5
    n_trials: int = 1
    budget: int = 0

    facts: ClassVar[Mapping[str, str]] = {"estimate": "interpolated"}

    def __post_init__(self) -> None:
        for name in ("n_samples", "chunk", "n_trials"):
            require_positive(name, getattr(self, name))
        if self.budget < 0:
            raise DiffjaxError(
                f"budget must be at least 1, not {self.budget}, or 0 for none."
            )
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
        """The looks, from ``floor`` samples on."""
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
        looks = [min(self.floor, N)]
        while (n := looks[-1]) < N:
            looks.append(min(n + max(self.chunk, n // GROWTH), N))
        return tuple(looks)

    def request(self, state: State) -> Request | None:
        """The next look of the living; None when the race is over, or stopped.

        Raises:
            DiffjaxError: if the budget does not hold the first look.
        """
        asked = super().request(state)
        if asked is None or not self.budget:
            return asked
        k, n = len(asked.classes), len(asked.samples)
        if state.n_evaluations + k * n <= self.budget:
            return asked
        if state.n_rounds:
            return None
        raise DiffjaxError(
            f"A budget of {self.budget:,} evaluations does not hold the first "
            f"look at {k:,} classes, {n} samples each, which takes "
            f"{state.n_evaluations + k * n:,}. Allow more, or a floor of fewer samples "
            "(racing:floor=2), or leave fewer classes by a shortlist."
        )

    def remaining(self, state: State) -> int:
        """How many evaluations are still to come, at most."""
        most = super().remaining(state)
        if self.budget and most:
            left = self.budget - state.n_evaluations
            ended = state.n_rounds and self.request(state) is None
            return 0 if ended else min(most, max(left, 0))
        return most

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
        """The living by estimated mean, then the dropped, last dropped first."""
        risk = min(LUCK * state.risk, 1 - self.confidence)
        decision = replace(rank(state), confidence=1 - risk)
        if not 1 < state.n_used < len(state.samples):
            return decision
        now = self._standing(state)
        risk += now.tail(now.mean + now.width)[now.foreign].sum()
        if state.over:
            risk = min(risk, 1 - self.confidence)
        ranking = decision.ranking.copy()
        ranking[: len(now.classes)] = now.classes[np.argsort(now.mean, kind="stable")]
        return replace(decision, ranking=ranking, confidence=max(0.0, 1 - float(risk)))

    def _standing(self, state: State) -> "_Standing":
        """How the living stand after some samples, two at least, but not all."""
        classes = np.flatnonzero(state.living)
        n, N = state.n_used, len(state.samples)
        by_time = np.lexsort((state.samples.noises, state.samples.timesteps))
        line = interpolate(np.argsort(by_time), n, state.samples.first(N) / N)
        errors = state.unforeseen.errors[classes, :n].astype(np.float64)
        leader = int(np.argmin(line.mean(errors)))
        difference = errors - errors[leader]
        variance = line.variance(difference)
        rivals = max(len(classes) - 1, 1)
        lent = min(BORROWED, 3 * line.degrees * (rivals - 1) / (rivals + 3))
        pooled = variance.sum() / rivals  # the leader's own is zero, and stays so
        variance = (line.degrees * variance + lent * pooled) / (line.degrees + lent)
        variance[leader] = 0
        spread = float(state.table.errors[classes[leader], :n].std(ddof=1, dtype=float))
        groups = classes if state.groups is None else state.groups[classes]
        return _Standing(
            classes=classes,
            foreign=groups != groups[leader],
            mean=line.mean(difference),
            standard_error=np.sqrt(variance * line.error),
            degrees=line.degrees + lent,
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
        degrees: ν + ν′.
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
        """R; one where the leader is alone, to divide by."""
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
