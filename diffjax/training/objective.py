"""What the two phases minimise. Pure functions of networks, a batch and a key.

Autoencoder, with posterior N(μ, σ²) of an image x and a draw z = μ + σ ε:

    mean |decode(z) − x|  +  w · mean ½ (μ² + σ² − 1 − log σ²)                      (1)

Denoiser, with z_t of a latent z0, a caption c and its text states τ(c):

    mean (model(z_t, t, τ(c)) − target)²,   target = ε, v or z0                     (2)

Sources: Kingma and Welling 2014; Ho et al. 2020, Rombach et al. 2022.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from diffjax.models.autoencoder import AutoencoderKL
from diffjax.models.clip import CLIPTextModel
from diffjax.models.layers import ResnetBlock2D
from diffjax.models.transformer import Transformer2DModel
from diffjax.models.unet import UNet2DConditionModel
from diffjax.schedules import Schedule, add_noise, prediction_target


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
        key: of the posterior's draws.
        kl_weight: w.
    """
    mean, logvar = jax.vmap(vae.encode)(pixels)
    latent = mean + jnp.exp(0.5 * logvar) * jax.random.normal(key, mean.shape)
    error = jnp.abs(jax.vmap(vae.decode)(latent) - pixels)
    divergence = 0.5 * (mean**2 + jnp.exp(logvar) - 1 - logvar)
    return error.mean() + kl_weight * divergence.mean()


def denoiser_loss(
    unet: UNet2DConditionModel,
    text_encoder: CLIPTextModel,
    schedule: Schedule,
    latents: Float[Array, "b h w c"],
    captions: Int[Array, "k l"],
    caption: Int[Array, " b"],
    timesteps: Int[Array, " b"],
    key: Array,
) -> Float[Array, ""]:
    """Equation (2).

    Args:
        unet: the denoiser.
        text_encoder: τ.
        schedule: ᾱ and the prediction type.
        latents: z0, scaled.
        captions: token ids of the batch's different captions, each encoded once.
        caption: which of them belongs to each latent.
        timesteps: t in [0, T).
        key: of the noise.
    """
    states = jax.vmap(text_encoder)(captions)
    noise = jax.random.normal(key, latents.shape)

    def error(z0: Array, noise: Array, t: Array, condition: Array) -> Array:
        z_t = add_noise(schedule, z0, noise, t)
        target = prediction_target(schedule, z0, noise, t)
        return jnp.mean((unet(z_t, t, condition) - target) ** 2)

    return jax.vmap(error)(latents, noise, timesteps, states[caption]).mean()


def zero_residuals(model: nnx.Module) -> None:
    """Set the last layer of every residual branch, and of a U-Net, to zero.

    So the network starts as the identity, which trains faster (Ho et al. 2020 and
    Dhariwal and Nichol 2021 do the same).
    """
    for _, module in nnx.iter_modules(model):
        if isinstance(module, ResnetBlock2D):
            _zero(module.conv2)
        elif isinstance(module, Transformer2DModel):
            _zero(module.proj_out)
        elif isinstance(module, UNet2DConditionModel):
            _zero(module.conv_out)


def _zero(layer: nnx.Conv | nnx.Linear) -> None:
    layer.kernel[...] = jnp.zeros_like(layer.kernel[...])
