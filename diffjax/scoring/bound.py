"""The variational bound, timestep by timestep: what it costs to code a latent.

The forward process has the posterior q(z_{t−1} | z_t, z0) = N(μ̃(z0, z_t), β̃_t), the
model steps back by p(z_{t−1} | z_t) = N(μ̃(ẑ0, z_t), σ²), with

    μ̃(z0, z_t) = w_t z0 + (a term in z_t alone),     w_t = √ᾱ_{t−1} β_t / (1 − ᾱ_t)
    ẑ0         = (z_t − √(1 − ᾱ_t) ε̂) / √ᾱ_t         (not clipped)
    log σ²     = v log β_t + (1 − v) log β̃_t,         v = (variance channel + 1) / 2

Timestep t contributes, per element of the latent and in bits,

    t > 0:   KL(q ‖ p) = ½ (log σ² − log β̃_t + β̃_t / σ² + (μ̃(z0) − μ̃(ẑ0))² / σ² − 1)
    t = 0:   −log p(z0 | z_1), discretised as if z0 came from 8-bit values in [−1, 1]

and T times the mean over all t is the bound. β̃_0 is 0; β̃_1 stands in for it.

Sources: Ho et al. 2020 (arXiv 2006.11239), equations 7 and 13; Nichol and Dhariwal 2021
(2102.09672), equation 15. Latents are not 8-bit values: for them the term of t = 0 is a
convention, which the DiT results of Diffusion Classifier follow too.
"""

import math

import jax.numpy as jnp
from jax.scipy.stats import norm
from jaxtyping import Array, Float, Int

from diffjax.schedules import Schedule, add_noise

HALF_STEP = 1 / 255  # between neighbouring 8-bit values in [−1, 1]
EDGE = 0.999  # beyond it the outermost bins are open
SMALLEST = 1e-12  # probability, to keep the logarithm finite


def bound_terms(
    schedule: Schedule,
    z0: Float[Array, "h w c"],
    t: Int[Array, ""],
    noise: Float[Array, "h w c"],
    predicted: Float[Array, "h w c"],
    variance: Float[Array, "h w c"],
) -> Float[Array, "h w c"]:
    """The terms of one timestep, in bits: one for each element.

    Args:
        schedule: the forward process.
        z0: the latent.
        t: timestep in [0, T).
        noise: ε of z_t.
        predicted: ε̂.
        variance: the model's variance channels; −1 stands for β̃_t, 1 for β_t.
    """
    posterior = schedule.posterior
    assert posterior is not None, "checked when the classifier is made"
    alpha_bar = posterior.alpha_bar[t]
    log_beta, log_beta_tilde = posterior.log_beta[t], posterior.log_variance[t]
    z_t = add_noise(schedule, z0, noise, t)
    z0_hat = (z_t - jnp.sqrt(1 - alpha_bar) * predicted) / jnp.sqrt(alpha_bar)
    v = (variance + 1) / 2
    log_variance = v * log_beta + (1 - v) * log_beta_tilde

    # z0 − ẑ0 from ε − ε̂: the large parts of z0 and ẑ0 cancel exactly
    distance = jnp.sqrt((1 - alpha_bar) / alpha_bar) * (predicted - noise)
    shift = posterior.weight[t] * distance
    kl = gaussian_kl(shift, log_beta_tilde, log_variance)
    nats = jnp.where(t == 0, discretised_nll(z0, z0_hat, log_variance), kl)
    return nats / math.log(2)


def gaussian_kl(
    shift: Float[Array, "..."],
    log_variance_q: Float[Array, "..."],
    log_variance_p: Float[Array, "..."],
) -> Float[Array, "..."]:
    """KL of N(μ_q, σ_q²) from N(μ_p, σ_p²) with μ_q − μ_p = ``shift``, in nats."""
    difference = log_variance_q - log_variance_p
    # expm1: for nearly equal variances the terms of order one cancel
    kl: Array = jnp.expm1(difference) - difference
    return 0.5 * (kl + jnp.square(shift) * jnp.exp(-log_variance_p))


def discretised_nll(
    z: Float[Array, "..."], mean: Float[Array, "..."], log_variance: Float[Array, "..."]
) -> Float[Array, "..."]:
    """−log of a Gaussian's probability of the 8-bit bin around z, in nats."""
    scale = jnp.exp(-0.5 * log_variance)
    above = norm.cdf(scale * (z - mean + HALF_STEP))
    below = norm.cdf(scale * (z - mean - HALF_STEP))
    probability = jnp.where(
        z < -EDGE, above, jnp.where(z > EDGE, 1 - below, above - below)
    )
    return -jnp.log(jnp.maximum(probability, SMALLEST))
