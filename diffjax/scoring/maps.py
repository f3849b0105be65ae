"""Where in the latent the error is: maps of it, for a few classes.

    m[c, s](y, x) = mean over channels of ℓ(ε, ε̂(z_t, t, c))(y, x)

Its mean over y and x is the grid's cell e[c, s]: the samples, and so the noises, are
the grid's own.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from diffjax.models.diffusion import Network, predict
from diffjax.schedules import Schedule, add_noise
from diffjax.scoring.losses import LOSSES, Cell
from diffjax.scoring.noise import Noise
from diffjax.tracing import jit


@partial(jit, static_argnames="loss")
def error_maps(
    denoiser: Network,
    schedule: Schedule,
    noise: Noise,
    image: Array,
    z0: Float[Array, "h w c"],
    conditions: Array,
    timesteps: Int[Array, " s"],
    noises: Int[Array, " s"],
    *,
    loss: str,
) -> Float[Array, "s n h w"]:
    """The maps of one image for n classes, float32; one sample after the other.

    Args:
        denoiser: the network.
        schedule: the forward process.
        noise: where a sample's ε comes from.
        image: the image's number, uint32, for its noise.
        z0: its latent.
        conditions: of the classes: text states [n, l, d] or class ids [n].
        timesteps: t in [0, T).
        noises: noise indices.
        loss: a key of ``LOSSES``.
    """

    def sample(now: tuple[Array, Array]) -> Array:
        t, k = now
        epsilon = noise.draw(image, k, z0.shape)
        z_t = add_noise(schedule, z0, epsilon, t)

        def cell(condition: Array) -> Array:
            predicted, variance = predict(denoiser, schedule, z_t, t, condition)
            elements = LOSSES[loss](Cell(schedule, z0, t, epsilon, predicted, variance))
            return jnp.mean(elements, axis=-1)

        maps: Array = jax.vmap(cell)(conditions)
        return maps

    maps: Array = jax.lax.map(sample, (timesteps, noises))
    return maps
