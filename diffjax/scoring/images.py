"""Images of a model, a batch at a time, on all devices of a mesh.

    z_T   = ε(seed, class, number)                as errors have theirs, by ``noise``
    z     = down the levels, guided               ``models.sampling``
    image = decoder(z / scaling_factor + shift_factor)

An image is a function of its class and number, not of the batch it is in: a vmap over
images of one image, whose noise is its own. In a program of another shape sums are
rounded in another order, by which a pixel in thousands may be another by one level.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float

from diffjax.models.conditions import take, told_of
from diffjax.models.network import Network
from diffjax.models.sampling import Steps, guided, sample
from diffjax.scoring.noise import Noise
from diffjax.scoring.placement import BLOCKS, gather_weights, weight_specs
from diffjax.tracing import jit


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Batch:
    """Which images are drawn, B of them.

    Attributes:
        keys: of their classes, that decide the noise with the number, uint32 [B].
        numbers: in the class, from 0, int32 [B].
        rows: of the conditions, int32 [B].
    """

    # Left unchecked at run time: JAX rebuilds pytrees with placeholders as leaves.
    keys: Any
    numbers: Any
    rows: Any


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Told:
    """What all images have in common.

    Attributes:
        conditions: a tree of rows, as the network file says.
        nothing: the condition of no class, one row; None where nothing is guided.
        image: what an image tells besides (``models.conditions.told_of``), a dict.
        guidance: g of equation (2) of ``models.sampling``.
        scale: the autoencoder's scaling factor.
        shift: its shift factor.
    """

    conditions: Any
    nothing: Any
    image: Any
    guidance: Any
    scale: Any
    shift: Any


@partial(jit, static_argnames=("shape", "mesh", "sharded"))
def draw_images(
    denoiser: Network,
    autoencoder: Network,
    steps: Steps,
    noise: Noise,
    told: Told,
    batch: Batch,
    *,
    shape: tuple[int, int, int],
    mesh: Mesh,
    sharded: bool = False,
) -> Float[Array, "B H W 3"]:
    """A batch in [−1, 1], about; images split over the mesh, weights too if sharded.

    Args:
        denoiser: the network.
        autoencoder: its decoder makes the pixels.
        steps: the levels.
        noise: where z_T comes from.
        told: what all images have in common.
        batch: as many images as devices, or a multiple.
        shape: (h, w, c) of a latent.
        mesh: the devices.
        sharded: as of ``placement.place_weights``.
    """
    specs = weight_specs(denoiser, mesh, sharded=sharded)

    def part(
        denoiser: Network,
        autoencoder: Network,
        steps: Steps,
        noise: Noise,
        told: Told,
        batch: Batch,
    ) -> Array:
        module = gather_weights(denoiser, specs).module()

        def latent(one: Batch) -> Array:
            condition = told_of(take(told.conditions, one.rows), told.image)

            def denoise(z_t: Array, time: Array) -> Array:
                if told.nothing is None:
                    return _prediction(module, z_t, time, condition)
                nothing = told_of(take(told.nothing, 0), told.image)
                pair = jax.tree.map(lambda *two: jnp.stack(two), condition, nothing)
                predictions = jax.vmap(partial(_prediction, module, z_t, time))(pair)
                return guided(predictions, told.guidance)

            return sample(denoise, steps, noise.draw(one.keys, one.numbers, shape))

        def pixels(z: Array) -> Array:
            # one at a time: a decoder takes more memory than all the denoiser's steps
            image: Array = autoencoder.module().decode(z / told.scale + told.shift)
            return image

        drawn: Array = jax.lax.map(pixels, jax.vmap(latent)(batch))
        return drawn

    copied = PartitionSpec()
    images: Array = jax.shard_map(
        part,
        mesh=mesh,
        in_specs=(specs, *(copied,) * 4, PartitionSpec(BLOCKS)),
        out_specs=PartitionSpec(BLOCKS),
        check_vma=False,
    )(denoiser, autoencoder, steps, noise, told, batch)
    return images


def _prediction(module: Any, z_t: Array, time: Array, condition: Any) -> Array:
    """Without the variance, where there is one."""
    prediction: Array = module(z_t, time, condition)[..., : z_t.shape[-1]]
    return prediction
