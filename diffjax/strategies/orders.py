"""Which timesteps a run uses, one after the other, and how many may be asked for."""

import numpy as np
from jaxtyping import Int

from diffjax.errors import DiffjaxError
from diffjax.strategies.base import Samples


def even_timesteps(n: int, n_timesteps: int) -> Int[np.ndarray, "n"]:
    """The middles of ``n`` equal parts of the schedule, ascending: ⌊(i + ½) T / n⌋.

    Raises:
        DiffjaxError: if the schedule has fewer than ``n`` timesteps.
    """
    require_timesteps(n, n_timesteps)
    return (2 * np.arange(n) + 1) * n_timesteps // (2 * n)


def require_positive(name: str, value: int) -> None:
    """Raise DiffjaxError unless a setting is at least one."""
    if value < 1:
        raise DiffjaxError(f"{name} must be at least 1, not {value}.")


def require_timesteps(n: int, n_timesteps: int) -> None:
    """Raise DiffjaxError if the schedule has fewer than ``n`` timesteps."""
    if n > n_timesteps:
        raise DiffjaxError(
            f"n_samples asks for {n} timesteps, but the model's schedule has only "
            f"{n_timesteps}. Use n_samples up to {n_timesteps}, and n_trials for more "
            "noises per timestep."
        )


def van_der_corput(n: int) -> Int[np.ndarray, "n"]:
    """A permutation of 0 … n − 1 of which every prefix is nearly even.

    The k-th number is the rank, among all n, of

        x_k = (0.b₀b₁b₂… + 1/3) mod 1,   k = … b₂b₁b₀ in binary:

    van der Corput's sequence, moved by a third. Without that, each prefix of 2^m would
    begin at 0 and lie too low by half a gap. The digits of 1/3 are 0.010101…, so that
    no such prefix is off its centred place by more than a sixth of a gap.
    """
    k = np.arange(n)
    bits = np.arange(max(n - 1, 1).bit_length())
    x = ((k[:, None] >> bits & 1) * 0.5 ** (bits + 1)).sum(axis=1)
    return np.argsort(np.argsort((x + 1 / 3) % 1))


def given_samples(given: Samples, n: int, n_trials: int) -> Samples:
    """The first n of samples that are given.

    Raises:
        DiffjaxError: if each is asked for several times.
    """
    if n_trials > 1:
        raise DiffjaxError(
            f"n_trials={n_trials} asks for several noises a timestep, and samples that "
            "are given have theirs. Leave n_trials out."
        )
    return given.head(n)


def with_trials(timesteps: Int[np.ndarray, "n"], n_trials: int) -> Samples:
    """Each timestep ``n_trials`` times; every sample has a noise of its own."""
    repeated = np.repeat(timesteps, n_trials)
    return Samples(timesteps=repeated, noises=np.arange(len(repeated)))
