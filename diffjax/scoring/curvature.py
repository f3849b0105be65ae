"""The estimate's second order, in the few directions in which conditions differ most.

    f(c)     what the network says of z_t under condition c: ε̂, and the variance if any
    P        q orthonormal directions: the principal axes of c − b over all classes
    J[s]     = ∂f/∂c P at b, forward mode: one pass and q tangents for a sample
    H[s]     = Jᵀ (∂²ℓ/∂f²) J                                    (Gauss and Newton's)
    ê[c, s] += ½ aᵀ H[s] a,   a = Pᵀ (c − b)

serve all classes at once. Of a network that is linear in its condition this is all that
the first order leaves out in these directions; for l2 it is ‖J a‖² over the elements.
It differs far less over samples than the first order does, so its mean over a few of
them will do.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, Int

from diffjax.models.conditions import floating, with_floating
from diffjax.models.diffusion import predict
from diffjax.models.network import Network
from diffjax.schedules import Schedule, add_noise
from diffjax.scoring.losses import LOSSES, Cell
from diffjax.scoring.noise import ImageNoise
from diffjax.scoring.placement import (
    BLOCKS,
    everywhere,
    gather_weights,
    split_blocks,
    weight_specs,
)
from diffjax.tracing import jit

NEGLIGIBLE = 1e-4  # of the longest axis: rounding


def principal(
    vectors: Any, base: Any, q: int
) -> tuple[Float[np.ndarray, "n q"], list[Float[np.ndarray, "q ..."]]]:
    """Where the classes are on the principal axes of c − b, and these.

    Args:
        vectors: c of each class, a tree of rows.
        base: b, a tree.
        q: how many axes; fewer where classes differ in fewer directions.

    Returns:
        a, and P leaf by leaf.
    """
    rows = [np.asarray(leaf, np.float64) for leaf in floating(vectors)]
    origin = [np.asarray(leaf, np.float64) for leaf in floating(base)]
    apart = [c - b for c, b in zip(rows, origin, strict=True)]
    flat = np.concatenate([leaf.reshape(len(leaf), -1) for leaf in apart], axis=1)
    squares, u = np.linalg.eigh(flat @ flat.T)  # n × n: vectors can be long
    lengths = np.sqrt(np.maximum(squares[::-1][:q], 0))
    long = lengths > NEGLIGIBLE * lengths.max(initial=0)
    lengths, u = lengths[long], u[:, ::-1][:, :q][:, long]
    axes = [
        (np.tensordot(u.T, leaf, 1).T / lengths).T.astype(np.float32) for leaf in apart
    ]
    return (u * lengths).astype(np.float32), axes


def error_hessians(
    denoiser: Network,
    schedule: Schedule,
    noise: ImageNoise,
    z0: Float[Array, "h w c"],
    base: Any,
    axes: list[Float[Array, "q ..."]],
    timesteps: Int[Array, " s"],
    noises: Int[Array, " s"],
    *,
    loss: str,
) -> Float[Array, "s q q"]:
    """H of all samples.

    Args:
        denoiser: the network.
        schedule: the forward process.
        noise: of the image.
        z0: the image's latent.
        base: b, a tree.
        axes: P, as of ``principal``.
        timesteps: t of each sample, in [0, T).
        noises: the noise index of each sample.
        loss: a key of ``LOSSES``.
    """

    def of_sample(t: Array, k: Array) -> Array:
        epsilon = noise.draw(k, z0.shape)
        z_t = add_noise(schedule, z0, epsilon, t)

        def output(vectors: list[Array]) -> Any:
            return predict(denoiser, schedule, z_t, t, with_floating(base, vectors))

        def along(axis: list[Array]) -> tuple[Any, Any]:
            return jax.jvp(output, (floating(base),), (axis,))

        at_base, slopes = jax.vmap(along, out_axes=(None, 0))(axes)

        def error(a: Array) -> Array:
            moved = jax.tree.map(
                lambda y, slope: y + jnp.tensordot(a, slope, 1), at_base, slopes
            )
            return jnp.mean(LOSSES[loss](Cell(schedule, z0, t, epsilon, *moved)))

        hessian: Array = jax.hessian(error)(jnp.zeros(len(axes[0])))
        return hessian

    hessians: Array = jax.vmap(of_sample)(timesteps, noises)
    return hessians


@partial(jit, static_argnames=("loss", "mesh", "sharded"))
def _sharded_hessians(
    denoiser: Network, *rest: Any, loss: str, mesh: Mesh, sharded: bool
) -> Array:
    """``error_hessians``, samples split over the mesh; so are weights, if sharded."""
    specs = weight_specs(denoiser, mesh, sharded=sharded)

    def part(denoiser: Network, *rest: Any) -> Array:
        return error_hessians(gather_weights(denoiser, specs), *rest, loss=loss)

    copied, split = PartitionSpec(), PartitionSpec(BLOCKS)
    hessians: Array = jax.shard_map(
        part,
        mesh=mesh,
        in_specs=(specs, *(copied,) * 5, split, split),
        out_specs=split,
        check_vma=False,
    )(denoiser, *rest)
    return hessians


def second_order(
    denoiser: Network,
    schedule: Schedule,
    noise: ImageNoise,
    z0: Float[Array, "h w c"],
    base: Any,
    places: Float[np.ndarray, "n q"],
    axes: list[Any],
    timesteps: Int[np.ndarray, " s"],
    noises: Int[np.ndarray, " s"],
    *,
    loss: str,
    mesh: Mesh,
    sharded: bool = False,
) -> Float[np.ndarray, " n"]:
    """The mean of ½ aᵀ H a over samples, of all classes; one sample a device at once.

    The arguments are those of ``error_hessians``, on ``mesh``, and a of the classes.
    """
    s = len(timesteps)
    tiles = np.minimum(np.arange(-(-s // mesh.size) * mesh.size), s - 1)
    hessians = []
    for columns in tiles.reshape(-1, mesh.size):
        samples = split_blocks((timesteps[columns], noises[columns]), mesh)
        found = _sharded_hessians(
            *(denoiser, schedule, noise, z0, base, axes, *samples),
            **{"loss": loss, "mesh": mesh, "sharded": sharded},
        )
        hessians.append(np.asarray(everywhere(found, mesh)))
    mean = np.concatenate(hessians)[:s].mean(axis=0)
    return np.asarray(np.einsum("nq,qr,nr->n", places, mean, places) / 2)
