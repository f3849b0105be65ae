"""Images drawn from a model in training, to see how it gets on.

DDIM without noise (Song et al. 2021, equation 12), from z_T ~ N(0, 1) down an even grid
of timesteps t > t':

    ẑ0   = (z_t − √(1 − ᾱ_t) ε̂) / √ᾱ_t
    z_t' = √ᾱ_t' ẑ0 + √(1 − ᾱ_t') ε̂
"""

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from PIL import Image

from diffjax.schedules import Schedule, noise_from_prediction
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
        denoise: (z_t of all images, t) → the model's predictions for them.
        schedule: ᾱ and the prediction type.
        shape: (n, h, w, c).
        key: of z_T.
        steps: forward passes.
    """
    grid = np.linspace(schedule.n_timesteps - 1, 0, steps).round().astype(np.int32)
    alpha_bar = schedule.alpha_bar[grid]
    # after the last step nothing is left of the noise
    following = jnp.append(alpha_bar[1:], 1.0)

    def step(z_t: Array, now: tuple[Array, Array, Array]) -> tuple[Array, None]:
        t, a, a_next = now
        noise = noise_from_prediction(schedule, denoise(z_t, t), z_t, t)
        z0 = (z_t - jnp.sqrt(1 - a) * noise) / jnp.sqrt(a)
        return jnp.sqrt(a_next) * z0 + jnp.sqrt(1 - a_next) * noise, None

    z_T = normal(key, shape)
    latents: Array = jax.lax.scan(step, z_T, (jnp.asarray(grid), alpha_bar, following))[
        0
    ]
    return latents


def write_sheet(
    pixels: Float[np.ndarray, "n H W 3"], path: Path, columns: int = COLUMNS
) -> None:
    """Images in [−1, 1] beside and below each other, as a PNG file."""
    bytes_ = np.clip(np.round((pixels + 1) * 127.5), 0, 255).astype(np.uint8)
    n, height, width, _ = bytes_.shape
    rows = -(-n // columns)
    sheet = np.full((rows * (height + GAP), columns * (width + GAP), 3), 255, np.uint8)
    for i, image in enumerate(bytes_):
        y, x = i // columns * (height + GAP), i % columns * (width + GAP)
        sheet[y : y + height, x : x + width] = image
    Image.fromarray(sheet).save(path)
