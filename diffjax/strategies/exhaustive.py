"""Algorithm 1 of Diffusion Classifier: every class sees every sample."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from diffjax.strategies.base import (
    Decision,
    Request,
    State,
    begin,
    finish_round,
    next_round,
    rank,
)
from diffjax.strategies.orders import even_timesteps, require_positive, with_trials


@dataclass(frozen=True, kw_only=True)
class Exhaustive:
    """Evaluate all classes on ``n_samples`` timesteps spread evenly over the schedule.

    Attributes:
        n_samples: the number of timesteps.
        n_trials: the number of noises per timestep.
    """

    n_samples: int
    n_trials: int = 1

    def __post_init__(self) -> None:
        require_positive("n_samples", self.n_samples)
        require_positive("n_trials", self.n_trials)

    def start(
        self,
        n_classes: int,
        n_timesteps: int,
        groups: Int[np.ndarray, "C"] | None = None,
    ) -> State:
        """Plan one round with everything in it."""
        timesteps = even_timesteps(self.n_samples, n_timesteps)
        samples = with_trials(timesteps, self.n_trials)
        return begin(n_classes, samples, (len(samples),), groups)

    def request(self, state: State) -> Request | None:
        """The whole grid, once."""
        return next_round(state)

    def update(
        self, state: State, request: Request, errors: Float[np.ndarray, "k s"]
    ) -> State:
        """Enter the errors; DiffjaxError if any is not finite."""
        return finish_round(state, request, errors)

    def decide(self, state: State) -> Decision:
        """All classes by mean error."""
        return rank(state)

    def remaining(self, state: State) -> int:
        """The number of evaluations still to come."""
        return int(state.living.sum()) * (len(state.samples) - state.n_used)
