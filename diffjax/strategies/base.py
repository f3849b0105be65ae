"""What every strategy shares: samples, the table of errors, the rounds, the ranking.

A strategy decides which cells of the (class × sample) grid of errors are worth
computing. It runs on the host, knows nothing of models, and answers four calls:

    state = strategy.start(n_classes, n_timesteps)
    while (request := strategy.request(state)) is not None:
        errors = ...                                  # [classes, samples], elsewhere
        state = strategy.update(state, request, errors)
    decision = strategy.decide(state)

Every class sees the same samples in the same order: the error varies far more over
(timestep, noise) than over classes, and only paired differences are stable. So a run
is a sequence of rounds; round r evaluates the living classes on the samples from
``ends[r − 1]`` to ``ends[r]``, after which some may be dropped. Strategies differ in
the order of the samples, the length of the rounds, and in whom they drop.

Rows are called classes here. They are prompts when several prompts stand for one
class; ``class_decision`` then lets the best prompt represent its class. ``groups``
tells a strategy which rows those are: it need not tell them apart.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int

from diffjax.errors import DiffjaxError, overflowed
from diffjax.strategies.table import ErrorTable as ErrorTable
from diffjax.strategies.table import Request as Request
from diffjax.strategies.table import Samples as Samples

# When a living class was dropped: after any number of rounds.
NEVER = np.iinfo(np.int64).max
# What a forward and a backward pass count for: a backward pass takes about as many
# operations as a forward pass, but shares nothing with other classes'.
GRADIENT_COST = 3


@dataclass(frozen=True, kw_only=True, eq=False)
class State:
    """Where a run stands. All but the table's array is immutable.

    Attributes:
        samples: the S samples the run may use.
        ends: the number of samples used by the end of each round; the last is S.
        table: the errors so far.
        dropped: int [C], how many rounds were done when each class was dropped,
            ``NEVER`` for the living.
        n_rounds: how many rounds are done.
        groups: int [C], what each row stands for; rows of one group need not be told
            apart. None if each stands for itself.
        risk: that a dropped class was the best after all, as far as a strategy says.
        over: whether the rounds that are left are not needed.
        estimate: float64 [C], what was thought of each class before the first round,
            by which those that were never evaluated are ranked.
        foreseen: float32 [C, S], an estimate of the errors less its weighted mean; or
            None.
        n_gradients: forward and backward passes that the estimate took.
        n_extra: evaluations that it took besides, with those that checked it.
        deficits: float64 [2, C], by how much worse than the best each was when it was
            dropped, and the standard error that this was surely above; NaN for others.
            None of strategies that do not ask for the latter.
    """

    samples: Samples
    ends: tuple[int, ...]
    table: ErrorTable
    dropped: Int[np.ndarray, "C"]
    n_rounds: int = 0
    groups: Int[np.ndarray, "C"] | None = None
    risk: float = 0.0
    over: bool = False
    estimate: Float[np.ndarray, "C"] | None = None
    foreseen: Float[np.ndarray, "C S"] | None = None
    n_gradients: int = 0
    n_extra: int = 0
    deficits: Float[np.ndarray, "2 C"] | None = None

    @property
    def living(self) -> Bool[np.ndarray, "C"]:
        """Which classes have not been dropped."""
        alive: np.ndarray = self.dropped == NEVER
        return alive

    @property
    def unforeseen(self) -> ErrorTable:
        """The errors less what was foreseen: the same mean over all samples."""
        if self.foreseen is None:
            return self.table
        return replace(self.table, errors=self.table.errors - self.foreseen)

    @property
    def n_evaluations(self) -> int:
        """The number of cells evaluated so far, and what an estimate counts for."""
        cells = int(self.table.n_samples().sum())
        return cells + self.n_extra + GRADIENT_COST * self.n_gradients

    @property
    def n_used(self) -> int:
        """How many of the samples the living classes have seen."""
        return self.ends[self.n_rounds - 1] if self.n_rounds else 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Decision:
    """What a run has found out.

    Attributes:
        ranking: int [C], a permutation, best first. Living classes come first, by
            mean error; then the dropped, last dropped first, by the mean error at
            the moment they were dropped; those dropped before the first round, by
            the estimate that had them dropped. Ties go to the smaller index.
        mean_error: float64 [C] over the samples seen, by their weights, less what was
            foreseen of them.
        n_samples: int [C], how many that were. Means over different numbers of
            samples are not comparable.
        pruned: bool [C], the dropped.
        n_evaluations: cells evaluated in all, for a shortlist too, and
            ``GRADIENT_COST`` for a gradient.
        confidence: how sure it is, at least, that evaluating all samples for all
            classes (of a shortlist, if there was one) would find the same winner;
            None if the strategy does not say.
        n_gradients: forward and backward passes of a shortlist.
        deficits: what drops rested on, as ``State`` has it.
    """

    ranking: Int[np.ndarray, "C"]
    mean_error: Float[np.ndarray, "C"]
    n_samples: Int[np.ndarray, "C"]
    pruned: Bool[np.ndarray, "C"]
    n_evaluations: int
    confidence: float | None = None
    n_gradients: int = 0
    deficits: Float[np.ndarray, "2 C"] | None = None

    @property
    def winner(self) -> int:
        """The best class."""
        return int(self.ranking[0])


@runtime_checkable
class Strategy(Protocol):
    """The calls of a run, and an outlook. Strategies hold settings, no state.

    What is written here is right for a strategy that evaluates every class on every
    sample. Another one gives a plan and its own ``update`` at least.

    Attributes:
        facts: what JSON says of it besides its settings: runs of a strategy of whose
            decisions something else was true, or nothing said, are other runs.
    """

    facts: ClassVar[Mapping[str, str]] = {}

    def of(self, n_classes: int) -> "Strategy":
        """The strategy for so many classes, where a setting waits for their number."""
        return self

    def plan(self, n_timesteps: int) -> tuple[Samples, tuple[int, ...]]:
        """The samples, and how many are used by the end of each round.

        Raises:
            DiffjaxError: if the schedule has too few timesteps.
        """

    def plan_on(self, given: Samples) -> tuple[Samples, tuple[int, ...]]:
        """The plan where samples are given, in the order of their use.

        Raises:
            DiffjaxError: if they are too few, or settings make no sense of them.
        """
        return given, (len(given),)

    def start(
        self,
        n_classes: int,
        n_timesteps: int,
        groups: Int[np.ndarray, "C"] | None = None,
        given: Samples | None = None,
    ) -> State:
        """The state before the first round: nothing seen, everyone alive.

        Args:
            n_classes: how many.
            n_timesteps: of the schedule.
            groups: as ``State`` has them.
            given: samples that take the place of the plan's own.

        Raises:
            DiffjaxError: if there are no classes, or as the plans do.
        """
        plan = self.plan(n_timesteps) if given is None else self.plan_on(given)
        samples, ends = plan
        if n_classes < 1:
            raise DiffjaxError(
                "There are no classes to choose from; give at least one."
            )
        empty = np.full((n_classes, len(samples)), np.nan, np.float32)
        return State(
            samples=samples,
            ends=ends,
            table=ErrorTable(empty, samples.weights),
            dropped=np.full(n_classes, NEVER),
            groups=groups,
        )

    def request(self, state: State) -> Request | None:
        """The living on the samples of the next round; None when the run is over."""
        if state.over or state.n_rounds == len(state.ends):
            return None
        return Request(
            classes=np.flatnonzero(state.living),
            samples=np.arange(state.n_used, state.ends[state.n_rounds]),
        )

    def update(
        self, state: State, request: Request, errors: Float[np.ndarray, "k s"]
    ) -> State:
        """The state after the request's errors; raises as ``check_finite`` does."""
        check_finite(state, request, errors)
        state.table.write(request, errors)
        return replace(state, n_rounds=state.n_rounds + 1)

    def decide(self, state: State) -> Decision:
        """The ranking so far; it may be asked for after any round."""
        return rank(state)

    def remaining(self, state: State) -> int:
        """How many evaluations are still to come, if no class is dropped any more."""
        unseen = 0 if state.over else len(state.samples) - state.n_used
        return int(state.living.sum()) * unseen


def run(
    strategy: Strategy,
    n_classes: int,
    n_timesteps: int,
    evaluate: Callable[[State, Request], Float[np.ndarray, "k s"]],
    groups: Int[np.ndarray, "C"] | None = None,
    given: Samples | None = None,
) -> State:
    """Run a strategy to its end; ``evaluate`` computes the errors of a request."""
    state = strategy.start(n_classes, n_timesteps, groups, given)
    return run_on(strategy, state, evaluate)


def run_on(
    strategy: Strategy,
    state: State,
    evaluate: Callable[[State, Request], Float[np.ndarray, "k s"]],
) -> State:
    """Run a strategy from a state that it has started, or later."""
    while (request := strategy.request(state)) is not None:
        errors = evaluate(state, request)
        state = strategy.update(state, request, errors)
    return state


def check_finite(
    state: State, request: Request, errors: Float[np.ndarray, "k s"], loss: str = ""
) -> None:
    """Raise NotFiniteError, which names the loss, for an error that is not finite.

    A mean with it would be worthless.
    """
    for row, column in np.argwhere(~np.isfinite(errors)):
        t = state.samples.timesteps[request.samples[column]]
        raise overflowed(
            f"The {loss}{' ' if loss else ''}error of class {request.classes[row]} "
            f"(counted from 0) at timestep {t} is {errors[row, column]}"
        )


def weigh(state: State, weights: Float[np.ndarray, "S"] | None) -> State:
    """Give the samples of a state other weights, before the first round."""
    return replace(
        state,
        samples=replace(state.samples, weights=weights),
        table=replace(state.table, weights=weights),
    )


def drop(state: State, classes: Int[np.ndarray, "k"]) -> State:
    """Drop living classes; before the first round this is a shortlist."""
    dropped = state.dropped.copy()
    dropped[classes] = np.minimum(dropped[classes], state.n_rounds)
    return replace(state, dropped=dropped)


def rank(state: State) -> Decision:
    """The decision of a run, as ``Decision`` describes it."""
    if state.n_rounds == 0:
        raise ValueError("nothing was evaluated, so there is nothing to decide")
    # A dropped class sees nothing more, so its mean is that of the moment it went.
    mean, n = state.unforeseen.mean(), state.table.n_samples()
    known = mean if state.estimate is None else np.where(n, mean, state.estimate)
    return Decision(
        # lexsort is stable, sorts by its LAST key first, and puts NaN at the end.
        ranking=np.lexsort((known, -state.dropped)),
        mean_error=mean,
        n_samples=n,
        pruned=~state.living,
        n_evaluations=state.n_evaluations,
        n_gradients=state.n_gradients,
        deficits=state.deficits,
    )


def class_decision(decision: Decision, classidx: Int[np.ndarray, "P"]) -> Decision:
    """Reduce a decision about prompts to one about classes: prompts compete.

    The best-ranked prompt of a class represents it.

    Args:
        decision: about P prompts.
        classidx: the class, 0 to C − 1, of each prompt.

    Raises:
        DiffjaxError: if the lengths differ, or a class has no prompt.
    """
    best = best_prompts(decision, classidx)
    place = np.empty_like(decision.ranking)
    place[decision.ranking] = np.arange(len(place))
    return replace(
        decision,
        ranking=np.argsort(place[best]),
        mean_error=decision.mean_error[best],
        n_samples=decision.n_samples[best],
        pruned=decision.pruned[best],
        deficits=None if decision.deficits is None else decision.deficits[:, best],
    )


def class_differences(
    table: ErrorTable, decision: Decision
) -> tuple[Float[np.ndarray, "C"], Float[np.ndarray, "C"]]:
    """How much worse each class is than the winner, and the standard error of that.

    Of a class that was dropped, than the one that was best until then: what the drop
    rested on. NaN and infinite for a class that was never evaluated.

    Args:
        table: the errors that the decision compares.
        decision: about the same classes.
    """
    paired = table.difference(table.leaders(decision.winner))
    if decision.deficits is None:
        return paired.mean, paired.standard_error
    both = np.stack([paired.mean, paired.standard_error])
    mean, error = np.where(np.isnan(decision.deficits), both, decision.deficits)
    return mean, error


def best_prompts(
    decision: Decision, classidx: Int[np.ndarray, "P"]
) -> Int[np.ndarray, "C"]:
    """The best-ranked prompt of each class; raises as ``class_decision`` does."""
    if len(classidx) != len(decision.ranking):
        raise DiffjaxError(
            f"classidx maps {len(classidx)} prompts to classes, but "
            f"{len(decision.ranking)} prompts were compared."
        )
    missing = sorted(set(range(int(classidx.max()) + 1)) - set(classidx.tolist()))
    if missing or classidx.min() < 0:
        what = f"class {missing[0]} has no prompt" if missing else "one is negative"
        raise DiffjaxError(
            f"classidx must number the classes 0, 1, 2, … without gaps: {what}."
        )
    # The first prompt of each class along the ranking; unique returns classes sorted.
    first = np.unique(classidx[decision.ranking], return_index=True)[1]
    return decision.ranking[first]
