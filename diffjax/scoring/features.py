"""Features of noised images: what layers inside of the denoiser put out.

    z_t = a_t z0 + s_t ε,                     ε of (seed, image, 0), as a grid's
    x_l = layer l in denoiser(z_t, t, c),     c the condition of no class
    f_l = x_l, averaged down to ``most`` places along an edge where it has more

An image's features depend on it alone, not on those beside it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from diffjax.models.conditions import told_of
from diffjax.models.network import Network
from diffjax.models.taps import outputs
from diffjax.schedules import Schedule, add_noise, at
from diffjax.scoring.noise import Noise
from diffjax.tracing import jit


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Images:
    """Images as their features are computed; n of them.

    Attributes:
        keys: the number of each that decides its noise, uint32 [n].
        z0: latents, float32 [n, h, w, c].
        told: what each tells of a condition, a dict of arrays [n, …].
    """

    keys: Any
    z0: Any
    told: Any


def image_features(
    denoiser: Network,
    schedule: Schedule,
    noise: Noise,
    condition: Any,
    image: Images,
    t: Int[Array, ""],
    *,
    layers: Sequence[str],
    most: int,
) -> list[Float[Array, "h w d"]]:
    """f_l of one image by each of ``layers``, float32."""
    epsilon = noise.draw(image.keys, 0, image.z0.shape)
    z_t = add_noise(schedule, image.z0, epsilon, t)
    found = outputs(
        denoiser.module(),
        layers,
        z_t,
        at(schedule.time, t),
        told_of(condition, image.told),
    )
    return [averaged(x.astype(jnp.float32), most) for x in found]


@partial(jit, static_argnames=("layers", "most"))
def features(
    denoiser: Network,
    schedule: Schedule,
    noise: Noise,
    condition: Any,
    images: Images,
    t: Int[Array, ""],
    *,
    layers: tuple[str, ...],
    most: int,
) -> list[Float[Array, "n h w d"]]:
    """f_l of images at one timestep, by each layer.

    Args:
        denoiser: the network.
        schedule: the forward process.
        noise: where ε comes from; its index is 0.
        condition: of no class, a tree of one.
        images: whatever devices they are split among.
        t: the timestep in [0, T).
        layers: names as of ``taps.layer_names``.
        most: places along an edge of a map, at most.
    """
    one = partial(
        image_features, denoiser, schedule, noise, condition, layers=layers, most=most
    )
    found: list[Array] = jax.vmap(lambda image: one(image, t))(images)
    return found


def averaged(x: Float[Array, "h w d"], most: int) -> Float[Array, "h2 w2 d"]:
    """A map with at most so many places along an edge, each the mean of an area."""
    for axis in (0, 1):
        if (n := x.shape[axis]) > most:
            mean, rows = jnp.asarray(_areas(n, most)), jnp.moveaxis(x, axis, 0)
            x = jnp.moveaxis(jnp.tensordot(mean, rows, 1, precision="highest"), 0, axis)
    return x


def _areas(n: int, m: int) -> Float[np.ndarray, "m n"]:
    """How much of each of m equal parts is of each of n cells; rows sum to 1."""
    edges = np.arange(m + 1) * n / m
    cells = np.arange(n)
    ends = np.minimum(edges[1:, None], cells + 1)
    begins = np.maximum(edges[:-1, None], cells)
    shares: np.ndarray = (np.maximum(ends - begins, 0) * m / n).astype(np.float32)
    return shares
