"""Images drawn from a model in training, to see how it gets on.

DDIM without noise (Song et al. 2021, equation 12), from z_T ~ N(0, 1) down an even grid
of timesteps t > t', with ẑ0 and ε̂ of the model's prediction at t:

    z_t' = signal[t'] ẑ0 + sigma[t'] ε̂
"""

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from PIL import Image

from diffjax.schedules import (
    Schedule,
    at,
    latent_from_prediction,
    noise_from_prediction,
)
from diffjax.scoring.noise import normal

STEPS = 25
COLUMNS = 5
GAP = 2  # pixels between images


def sample(
    denoise: Callable[[Array, Array], Array],
    schedule: Schedule,
    shape: tuple[int, ...],
    key: Array,
    steps: int = STEPS,
) -> Float[Array, "n h w c"]:
    """Latents of n images.

    Args:
        denoise: (z_t of all images, time) → the model's predictions for them.
        schedule: the process and the prediction type.
        shape: (n, h, w, c).
        key: the key of z_T.
        steps: forward passes.
    """
    grid = np.linspace(schedule.n_timesteps - 1, 0, steps).round().astype(np.int32)
    # after the last step nothing is left of the noise
    signal = jnp.append(schedule.signal[grid[1:]], 1.0)
    sigma = jnp.append(schedule.sigma[grid[1:]], 0.0)

    def step(z_t: Array, now: tuple[Array, Array, Array]) -> tuple[Array, None]:
        t, a, s = now
        prediction = denoise(z_t, at(schedule.time, t))
        z0 = latent_from_prediction(schedule, prediction, z_t, t)
        noise = noise_from_prediction(schedule, prediction, z_t, t)
        return a * z0 + s * noise, None

    z_T = normal(key, shape)
    latents: Array = jax.lax.scan(step, z_T, (jnp.asarray(grid), signal, sigma))[0]
    return latents


def write_sheet(
    pixels: Float[np.ndarray, "n H W 3"], path: Path, columns: int = COLUMNS
) -> None:
    """Images in [−1, 1] beside and below each other, as a PNG file."""
    bytes_ = np.clip(np.round((pixels + 1) * 127.5), 0, 255).astype(np.uint8)
    sides = [(0, -len(bytes_) % columns), (0, GAP), (0, GAP), (0, 0)]
    tiles = np.pad(bytes_, sides, constant_values=255)
    rows = [np.hstack(row) for row in tiles.reshape(-1, columns, *tiles.shape[1:])]
    Image.fromarray(np.vstack(rows)).save(path)
