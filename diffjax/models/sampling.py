"""Sampling: from noise to a latent, down n noise levels.

With ẑ0 and ε̂ of the model's prediction p at a level (a, s), equations (3) and (4) of
``schedules``, and (a', s') after it,

    z'  = a' ẑ0 + s' ε̂                                                             (1)
    p   = p_∅ + g (p_c − p_∅)                                                      (2)

(1) is DDIM with η = 0 (Song et al. 2021, equation 12). Of a flow, where a = 1 − s, it
is a step of Euler's method, z' = z + (s' − s) v. (2) is classifier-free guidance (Ho
and Salimans 2022) of the scale g by the predictions for a class and for none; as p is
linear in ε̂ at a given z, it guides ε̂ alike.

Which levels there are is what diffusers' DDIMScheduler makes of timestep_spacing,
steps_offset and set_alpha_to_one, and FlowMatchEulerDiscreteScheduler of the shift:

    leading     t = k ⌊T / n⌋ + offset          trailing    t = T − 1 − k T / n
    linspace    t = k (T − 1) / (n − 1)         after each: t − ⌊T / n⌋
    flow        σ = f(x), x even from 1 down to the least; after the last 0

A step below t = 0 leads to a = 1, or to the first timestep's level. f has the shift,
f(x) = k x / (1 + (k − 1) x), and stretches 1 − σ so that the last σ is the terminal.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from diffjax.errors import DiffjaxError, unknown
from diffjax.schedules import (
    TIMES,
    Schedule,
    at,
    latent_from_prediction,
    noise_from_prediction,
)


class Steps(NamedTuple):
    """The levels that a sampler goes through, n of them.

    Attributes:
        levels: where each step begins: a schedule whose index is the step.
        signal: a' of equation (1), float32 [n].
        sigma: s' of equation (1), float32 [n].
    """

    levels: Schedule
    signal: Any  # Float[Array, "n"]
    sigma: Any


@dataclass(frozen=True, kw_only=True)
class DDIM:
    """How a DDPM process is sampled.

    Attributes:
        spacing: of timesteps, a key of ``SPACINGS``.
        offset: added to them where they are "leading".
        to_one: whether nothing of the noise is left after the last step; else as much
            as at the first timestep.
    """

    spacing: str = "leading"
    offset: int = 0
    to_one: bool = True

    def steps(self, schedule: Schedule, n: int) -> Steps:
        """The levels of n steps.

        Raises:
            DiffjaxError: if the schedule has no such steps.
        """
        T = schedule.n_timesteps
        if self.spacing not in SPACINGS:
            raise unknown("timestep_spacing", self.spacing, SPACINGS)
        if not 1 <= n <= T:
            raise DiffjaxError(f"{n} steps of {T} timesteps; there can be 1 to {T}.")
        t = SPACINGS[self.spacing](T, n, self.offset)
        if not 0 <= t.min() <= t.max() < T:
            raise DiffjaxError(
                f"{n} steps, {self.spacing} with an offset of {self.offset}, begin at "
                f"timestep {t.max()} of {T}. Take fewer."
            )
        tables = (schedule.signal, schedule.sigma, schedule.time)
        signal, sigma, time = (np.asarray(table) for table in tables)
        if signal[t[0]] == 0 and schedule.prediction_type == "epsilon":
            raise DiffjaxError(
                "Sampling begins at pure noise, where a model that predicts the noise "
                "says nothing of the image. Set rescale_betas_zero_snr to false."
            )
        after = t - T // n
        last = (1.0, 0.0) if self.to_one else (signal[0], sigma[0])
        a, s = (
            np.where(after < 0, end, table[np.maximum(after, 0)]).astype(np.float32)
            for end, table in zip(last, (signal, sigma), strict=True)
        )
        kind = schedule.prediction_type
        return _steps(signal[t], sigma[t], time[t], kind, a, s)


@dataclass(frozen=True, kw_only=True)
class Euler:
    """How a flow is sampled.

    Attributes:
        least: the last x, where it does not depend on n; else 1 / n.
        shift: k of f.
        terminal: to which f is stretched; 0 for not at all.
        time: what the network is told, a key of ``schedules.TIMES``.
    """

    least: float | None = None
    shift: float = 1.0
    terminal: float = 0.0
    time: str = "steps"

    def steps(self, schedule: Schedule, n: int) -> Steps:
        """The levels of n steps.

        Raises:
            DiffjaxError: if there are none.
        """
        if n < 1:
            raise DiffjaxError(f"{n} steps; there must be 1 at least.")
        x = np.linspace(1, 1 / n if self.least is None else self.least, n)
        sigma = self.shift * x / (1 + (self.shift - 1) * x)
        if self.terminal and n > 1:
            sigma = 1 - (1 - sigma) * (1 - self.terminal) / (1 - sigma[-1])
        time = TIMES[self.time](sigma, schedule.n_timesteps)
        after, kind = np.append(sigma[1:], 0.0), schedule.prediction_type
        return _steps(1 - sigma, sigma, time.astype(np.float32), kind, 1 - after, after)


Sampling = DDIM | Euler


def _steps(
    signal: np.ndarray,
    sigma: np.ndarray,
    time: np.ndarray,
    prediction_type: str,
    *after: np.ndarray,
) -> Steps:
    levels = Schedule(
        signal=signal.astype(np.float32),
        sigma=sigma.astype(np.float32),
        time=time,
        prediction_type=prediction_type,
    )
    steps: Steps = jax.tree.map(
        jax.device_put, Steps(levels, *(each.astype(np.float32) for each in after))
    )
    return steps


# timestep_spacing: (T, n, offset) → timesteps, falling
SPACINGS: dict[str, Callable[[int, int, int], Int[np.ndarray, " n"]]] = {
    "leading": lambda T, n, offset: np.arange(n)[::-1] * (T // n) + offset,
    "linspace": lambda T, n, offset: (
        np.linspace(0, T - 1, n).round()[::-1].astype(np.int64)
    ),
    "trailing": lambda T, n, offset: (
        np.round(np.arange(T, 0, -T / n)).astype(np.int64) - 1
    ),
}


def sample(
    denoise: Callable[[Array, Array], Array],
    steps: Steps,
    z_T: Float[Array, "*shape"],
) -> Float[Array, "*shape"]:
    """The latent, or latents, that noise becomes, float32.

    Args:
        denoise: (z_t, time) → the model's prediction, of z_t's shape.
        steps: the levels.
        z_T: standard normal noise.
    """

    def step(z_t: Array, now: tuple[Array, Array, Array]) -> tuple[Array, None]:
        k, a, s = now
        prediction = denoise(z_t, at(steps.levels.time, k)).astype(jnp.float32)
        z0 = latent_from_prediction(steps.levels, prediction, z_t, k)
        noise = noise_from_prediction(steps.levels, prediction, z_t, k)
        return a * z0 + s * noise, None

    place = jnp.arange(steps.signal.shape[0])
    latent: Array = jax.lax.scan(step, z_T, (place, steps.signal, steps.sigma))[0]
    return latent


def guided(
    predictions: Float[Array, "2 h w c"], scale: float | Array
) -> Float[Array, "h w c"]:
    """Equation (2), of the predictions for a class and for none, in this order."""
    of_class, of_none = predictions.astype(jnp.float32)
    p: Array = of_none + scale * (of_class - of_none)
    return p
