"""What the phases minimise. Pure functions of networks, a batch and a key.

Autoencoder, with posterior N(μ, σ²) of an image x and a draw z = μ + σ ε:

    mean |decode(z) − x|  +  w · mean ½ (μ² + σ² − 1 − log σ²)                      (1)

Denoiser, with z_t of a latent z0 and a condition c (text states, or a class id):

    mean (model(z_t, time[t], c) − target)²,      target = α z0 + β ε               (2)

and where it predicts a variance too, plus w T times the mean term of the variational
bound (``scoring.bound``), through which no gradient reaches ε̂:                    (3)

Sources: Kingma and Welling 2014; Ho et al. 2020, Rombach et al. 2022; Nichol and
Dhariwal 2021, equation 16.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from diffjax.baselines.resnet import Block
from diffjax.models.autoencoder import AutoencoderKL
from diffjax.models.dit import DiTTransformer2DModel
from diffjax.models.layers import ResnetBlock2D
from diffjax.models.transformer import Transformer2DModel
from diffjax.models.unet import UNet2DConditionModel
from diffjax.schedules import (
    Schedule,
    add_noise,
    at,
    noise_from_prediction,
    prediction_target,
)
from diffjax.scoring.bound import bound_terms
from diffjax.scoring.noise import normal


def autoencoder_loss(
    vae: AutoencoderKL,
    pixels: Float[Array, "b H W 3"],
    key: Array,
    kl_weight: float | Float[Array, ""],
) -> Float[Array, ""]:
    """Equation (1).

    Args:
        vae: the network.
        pixels: in [−1, 1].
        key: the key of the posterior's draws.
        kl_weight: w.
    """
    mean, logvar = jax.vmap(vae.encode)(pixels)
    latent = mean + jnp.exp(0.5 * logvar) * normal(key, mean.shape)
    error = jnp.abs(jax.vmap(vae.decode)(latent) - pixels)
    divergence = 0.5 * (mean**2 + jnp.exp(logvar) - 1 - logvar)
    return error.mean() + kl_weight * divergence.mean()


def denoiser_loss(
    denoiser: UNet2DConditionModel | DiTTransformer2DModel,
    schedule: Schedule,
    latents: Float[Array, "b h w c"],
    conditions: Any,
    timesteps: Int[Array, " b"],
    key: Array,
    bound_weight: float | Float[Array, ""] = 0.0,
) -> Float[Array, ""]:
    """Equation (2); with the term (3) where the model predicts a variance.

    Args:
        denoiser: the network.
        schedule: the process and the prediction type.
        latents: z0, scaled.
        conditions: of each latent, a tree of b rows.
        timesteps: t in [0, T).
        key: the key of the noise.
        bound_weight: w of (3).
    """
    noise = normal(key, latents.shape)

    def error(z0: Array, noise: Array, t: Array, condition: Any) -> Array:
        z_t = add_noise(schedule, z0, noise, t)
        target = prediction_target(schedule, z0, noise, t)
        output = denoiser(z_t, at(schedule.time, t), condition)
        n = z0.shape[-1]
        prediction, variance = output[..., :n], output[..., n:]
        squared = jnp.mean((prediction - target) ** 2)
        if not variance.size:
            return squared
        frozen = noise_from_prediction(
            schedule, jax.lax.stop_gradient(prediction), z_t, t
        )
        terms = bound_terms(schedule, z0, t, noise, frozen, variance)
        return squared + bound_weight * schedule.n_timesteps * terms.mean()

    return jax.vmap(error)(latents, noise, timesteps, conditions).mean()


def zero_residuals(model: nnx.Module) -> None:
    """Set the last layer of every residual branch, and of a denoiser, to zero.

    So the network starts as the identity, which trains faster (Ho et al. 2020,
    Dhariwal and Nichol 2021, Peebles and Xie 2023 do the same).
    """
    for _, module in nnx.iter_modules(model):
        layers: list[nnx.Conv | nnx.Linear] = []
        match module:
            case ResnetBlock2D() | Block():
                layers = [module.conv2]
            case Transformer2DModel():
                layers = [module.proj_out]
            case UNet2DConditionModel():
                layers = [module.conv_out]
            case DiTTransformer2DModel():
                layers = [block.adaln for block in module.transformer_blocks]
                layers += [module.proj_out_1, module.proj_out_2]
        for layer in layers:
            layer.kernel[...] = jnp.zeros_like(layer.kernel[...])
