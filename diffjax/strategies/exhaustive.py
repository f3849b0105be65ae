"""Algorithm 1 of Diffusion Classifier: every class sees every sample."""

from dataclasses import dataclass

from diffjax.choices import N_SAMPLES
from diffjax.strategies.base import Samples, Strategy
from diffjax.strategies.orders import (
    even_timesteps,
    given_samples,
    require_positive,
    with_trials,
)


@dataclass(frozen=True, kw_only=True)
class Exhaustive(Strategy):
    """Evaluate all classes on ``n_samples`` timesteps spread evenly over the schedule.

    Attributes:
        n_samples: the number of timesteps.
        n_trials: the number of noises per timestep.
    """

    n_samples: int = N_SAMPLES
    n_trials: int = 1

    def __post_init__(self) -> None:
        require_positive("n_samples", self.n_samples)
        require_positive("n_trials", self.n_trials)

    def plan(self, n_timesteps: int) -> tuple[Samples, tuple[int, ...]]:
        """One round with everything in it."""
        timesteps = even_timesteps(self.n_samples, n_timesteps)
        samples = with_trials(timesteps, self.n_trials)
        return samples, (len(samples),)

    def plan_on(self, given: Samples) -> tuple[Samples, tuple[int, ...]]:
        """The first ``n_samples`` of the given ones, at once."""
        samples = given_samples(given, self.n_samples, self.n_trials)
        return samples, (len(samples),)
