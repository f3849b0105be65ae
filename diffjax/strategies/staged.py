"""Algorithm 2 of Diffusion Classifier: stages of more samples and fewer classes.

Stage k evaluates the living classes on as many further timesteps as make n_samples[k]
in all, and keeps the to_keep[k] classes with the smallest mean over ALL samples seen.

``official`` repeats the authors' program: with M = max(n_samples) and T timesteps

    grid    = the first M of  T // M // 2, + T // M, + T // M, …
    stage n = the first n of  grid[M // n // 2 :: M // n]

less the timesteps already evaluated. These stage grids need not contain one another, so
later stages may evaluate more than n_samples[k] timesteps in all; and where M does not
divide T, or n not M, they leave out the end of the schedule.

``nested`` thins the even grid of M timesteps instead, from the last stage to the first:
stage k takes every (n_samples[k+1] / n_samples[k])-th timestep of stage k + 1. Stages
then contain one another and cost exactly what n_samples says. For two stages with
n_samples[0] dividing n_samples[1] dividing T, as for Pets, both orders are the same.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from jaxtyping import Float, Int

from diffjax.choices import STAGES
from diffjax.errors import DiffjaxError, unknown
from diffjax.strategies.base import Request, Samples, State, Strategy, drop, rank
from diffjax.strategies.orders import (
    even_timesteps,
    given_samples,
    require_positive,
    require_timesteps,
    with_trials,
)

MOST = 5  # times as many classes as the paper's stages are for


@dataclass(frozen=True, kw_only=True)
class Staged(Strategy):
    """Prune the classes in stages.

    Attributes:
        to_keep: how many classes live on after each stage; falling, to 1.
        n_samples: how many timesteps the living have seen after each stage; rising.
            Without both, they are the paper's for about as many classes (of several
            prompts a class, prompts): those of CIFAR-10 for up to 50, of Food-101 for
            up to 500, of ImageNet for more.
        order: "official" or "nested".
        n_trials: the number of noises per timestep.
    """

    to_keep: tuple[int, ...] = ()
    n_samples: tuple[int, ...] = ()
    order: str = "official"
    n_trials: int = 1

    def __post_init__(self) -> None:
        require_positive("n_trials", self.n_trials)
        if self.order not in ORDERS:
            raise unknown("order", self.order, ORDERS)
        keep, n = self.to_keep, self.n_samples
        if len(keep) != len(n):
            raise DiffjaxError(
                f"to_keep has {len(keep)} stages {_text(keep)} and n_samples "
                f"{len(n)} {_text(n)}; give one of each per stage."
            )
        if not keep:
            return
        if keep[-1] != 1 or any(a <= b for a, b in pairwise(keep)):
            raise DiffjaxError(
                f"to_keep must fall from stage to stage and end in 1, as in 5,1; "
                f"it is {_text(keep)}."
            )
        if n[0] < 1 or any(a >= b for a, b in pairwise(n)):
            raise DiffjaxError(
                f"n_samples must be positive and rise from stage to stage, as in "
                f"25,250; it is {_text(n)}."
            )

    def of(self, n_classes: int) -> "Staged":
        """The strategy with the paper's stages, where it has none of its own."""
        if self.to_keep:
            return self
        like = next((n for n in STAGES if n_classes <= MOST * n), max(STAGES))
        to_keep, n_samples = STAGES[like]
        return replace(self, to_keep=to_keep, n_samples=n_samples)

    def start(
        self,
        n_classes: int,
        n_timesteps: int,
        groups: Int[np.ndarray, "C"] | None = None,
        given: Samples | None = None,
    ) -> State:
        """The state before the first stage."""
        if not self.to_keep:
            return self.of(n_classes).start(n_classes, n_timesteps, groups, given)
        return super().start(n_classes, n_timesteps, groups, given)

    def plan_on(self, given: Samples) -> tuple[Samples, tuple[int, ...]]:
        """Stages of the given samples, as they come; ``order`` is about timesteps."""
        if self.n_samples[-1] > len(given):
            raise DiffjaxError(
                f"The stages ask for {_text(self.n_samples)} samples, and there are "
                f"{len(given)} learned ones. Say stages of these, as in "
                f"staged:to_keep=5,1:n_samples={max(1, len(given) // 2)},{len(given)}."
            )
        samples = given_samples(given, self.n_samples[-1], self.n_trials)
        return samples, self.n_samples

    def plan(self, n_timesteps: int) -> tuple[Samples, tuple[int, ...]]:
        """One round for each stage; DiffjaxError if none are said."""
        if not self.n_samples:
            raise DiffjaxError(
                "Staged without to_keep and n_samples has to know how many classes "
                "there are: take what its method `of` returns."
            )
        stages = ORDERS[self.order](self.n_samples, n_timesteps)
        samples = with_trials(np.concatenate(stages), self.n_trials)
        ends = np.cumsum([len(stage) for stage in stages]) * self.n_trials
        return samples, tuple(ends.tolist())

    def update(
        self, state: State, request: Request, errors: Float[np.ndarray, "k s"]
    ) -> State:
        """Enter the errors and keep the best; DiffjaxError if any is not finite."""
        state = super().update(state, request, errors)
        to_keep = self.of(len(state.dropped)).to_keep
        # The last stage only ranks: whoever is in it has seen the same samples.
        while state.n_rounds < len(state.ends):
            done = state.n_rounds
            state = drop(state, rank(state).ranking[to_keep[done - 1] :])
            if state.ends[done] > state.ends[done - 1]:
                break
            # An official stage whose timesteps were all evaluated before only drops.
            state = replace(state, n_rounds=done + 1)
        return state

    def remaining(self, state: State) -> int:
        """How many evaluations are still to come; later stages drop classes."""
        total, before = 0, 0
        alive = len(state.dropped)
        to_keep = self.of(alive).to_keep
        for r, (end, keep) in enumerate(zip(state.ends, to_keep, strict=True)):
            if r >= state.n_rounds:
                total += min(alive, int(state.living.sum())) * (end - before)
            alive, before = min(alive, keep), end
        return total


def official(n_samples: tuple[int, ...], T: int) -> list[Int[np.ndarray, "_"]]:
    """The new timesteps of each stage in the authors' order."""
    M = max(n_samples)
    require_timesteps(M, T)
    grid = np.arange(T // M // 2, T, T // M)[:M]
    return _new([grid[M // n // 2 :: M // n][:n] for n in n_samples])


def nested(n_samples: tuple[int, ...], T: int) -> list[Int[np.ndarray, "_"]]:
    """The new timesteps of each stage when stages contain one another."""
    stages = [even_timesteps(n_samples[-1], T)]
    for n in reversed(n_samples[:-1]):
        larger = stages[0]
        stages.insert(0, larger[even_timesteps(n, len(larger))])
    return _new(stages)


ORDERS: dict[str, Callable[[tuple[int, ...], int], list[np.ndarray]]] = {
    "official": official,
    "nested": nested,
}


def _new(stages: list[Int[np.ndarray, "_"]]) -> list[Int[np.ndarray, "_"]]:
    seen = np.array([], int)
    new = []
    for stage in stages:
        new.append(stage[~np.isin(stage, seen)])
        seen = np.concatenate([seen, new[-1]])
    return new


def _text(numbers: tuple[int, ...]) -> str:
    return ",".join(map(str, numbers)) or "empty"
