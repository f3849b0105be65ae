"""The grid of errors: e[c, s] for classes c and samples s = (t, ε) of an image.

    z_t     = sqrt(ᾱ_t) z0 + sqrt(1 − ᾱ_t) ε
    e[c, s] = ℓ(ε, ε̂(z_t, t, c))                     for each loss ℓ of ``losses``

(Li et al. 2023, eqs. 3 and 6.) The unit of work is a block: one sample of one image
under a few classes. A tile is a fixed number of blocks, of any images. It is a vmap
over blocks of a vmap over classes of one forward pass, which serves all losses. Inside
a block z_t does not depend on the class, so JAX computes z_t and every layer before the
first use of the condition once a block.

A cell depends on (noise, image, z0, condition, t) and on nothing else: not on the tile
it is in, nor on the blocks beside it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, Int

from diffjax.models.conditions import take, told_of
from diffjax.models.diffusion import predict
from diffjax.models.network import Network
from diffjax.schedules import Schedule, add_noise
from diffjax.scoring.losses import LOSSES, Cell
from diffjax.scoring.noise import Noise
from diffjax.scoring.placement import (
    BLOCKS,
    gather_weights,
    split_blocks,
    weight_specs,
)
from diffjax.tracing import jit


@dataclass(frozen=True, kw_only=True)
class Tile:
    """The fixed shape in which cells are evaluated: blocks of so many classes."""

    blocks: int
    classes: int

    @property
    def cells(self) -> int:
        """Evaluations in a tile."""
        return self.blocks * self.classes


def tile_of(cells: int, classes: int, devices: int) -> Tile:
    """A tile of at most so many cells, with a block for each device at least."""
    blocks = max(1, cells // classes // devices) * devices
    return Tile(blocks=blocks, classes=classes)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Blocks:
    """What a tile evaluates; B blocks of k classes.

    Attributes:
        keys: the number of each block's image that decides its noise, uint32 [B].
        z0: its latent, [B, h, w, c].
        timesteps: t in [0, T), int32 [B].
        noises: the noise index, int32 [B].
        classes: rows of the conditions, int32 [B, k].
        told: what the image tells of a condition (``models.conditions.told_of``), a
            dict of arrays [B, …]; empty for most networks.
    """

    # Left unchecked at run time: JAX rebuilds pytrees with placeholders as leaves.
    keys: Any
    z0: Any
    timesteps: Any
    noises: Any
    classes: Any
    told: Any = field(default_factory=dict)


def joined(parts: Sequence[Blocks], n: int) -> Blocks:
    """The blocks of all parts, on the host; the last one repeats until there are n."""
    columns: Blocks = jax.tree.map(lambda *each: np.concatenate(each), *parts)
    place = np.minimum(np.arange(n), len(columns.keys) - 1)
    return take(columns, place)


def cell_elements(
    denoiser: Network,
    schedule: Schedule,
    z0: Float[Array, "h w c"],
    condition: Any,
    t: Int[Array, ""],
    noise: Float[Array, "h w c"],
    *,
    losses: tuple[str, ...],
) -> list[Float[Array, "h w c"]]:
    """ℓ(ε, ε̂)[y, x, i] of one class and one sample by each of ``losses``, float32."""
    z_t = add_noise(schedule, z0, noise, t)
    predicted, variance = predict(denoiser, schedule, z_t, t, condition)
    cell = Cell(schedule, z0, t, noise, predicted, variance)
    return [LOSSES[loss](cell) for loss in losses]


def cell_errors(*of: Any, losses: tuple[str, ...]) -> Float[Array, " l"]:
    """e[c, s] by each of ``losses``: the means of ``cell_elements``."""
    return jnp.stack([jnp.mean(each) for each in cell_elements(*of, losses=losses)])


def block_errors(
    denoiser: Network,
    schedule: Schedule,
    noise: Noise,
    conditions: Any,
    blocks: Blocks,
    *,
    losses: tuple[str, ...],
) -> Float[Array, "l B k"]:
    """Errors of all blocks by each loss, float32.

    Args:
        denoiser: the network.
        schedule: the forward process.
        noise: where a sample's ε comes from.
        conditions: of all classes: a tree of n rows, as the network file says.
        blocks: what to evaluate.
        losses: keys of ``LOSSES``.
    """

    def block(block: Blocks) -> Array:
        epsilon = noise.draw(block.keys, block.noises, block.z0.shape)

        def cell(condition: Any) -> Array:
            return cell_errors(
                denoiser,
                schedule,
                block.z0,
                told_of(condition, block.told),
                block.timesteps,
                epsilon,
                losses=losses,
            )

        return jax.vmap(cell, out_axes=1)(take(conditions, block.classes))

    errors: Array = jax.vmap(block, out_axes=1)(blocks)
    return errors


@partial(jit, static_argnames="loss")
def error_maps(
    denoiser: Network,
    schedule: Schedule,
    noise: Noise,
    key: Array,
    z0: Float[Array, "h w c"],
    conditions: Any,
    timesteps: Int[Array, " s"],
    draws: Int[Array, " s"],
    told: Any,
    *,
    loss: str,
) -> Float[Array, "s n h w"]:
    """Where in the latent the cells' errors are: means over the channels alone.

    Args:
        denoiser: the network.
        schedule: the forward process.
        noise: where a sample's ε comes from.
        key: of the image, uint32, for its noise.
        z0: its latent.
        conditions: of the classes: a tree of n rows.
        timesteps: t in [0, T); one sample is computed after the other.
        draws: noise indices.
        told: what the image tells of a condition, a dict.
        loss: a key of ``LOSSES``.
    """

    def sample(now: tuple[Array, Array]) -> Array:
        t, draw = now
        epsilon = noise.draw(key, draw, z0.shape)

        def cell(condition: Any) -> Array:
            of = (denoiser, schedule, z0, told_of(condition, told), t, epsilon)
            [elements] = cell_elements(*of, losses=(loss,))
            return jnp.mean(elements, axis=-1)

        maps: Array = jax.vmap(cell)(conditions)
        return maps

    maps: Array = jax.lax.map(sample, (timesteps, draws))
    return maps


@partial(jit, static_argnames=("losses", "mesh", "sharded"))
def tile_errors(
    denoiser: Network,
    schedule: Schedule,
    noise: Noise,
    conditions: Any,
    blocks: Blocks,
    *,
    losses: tuple[str, ...],
    mesh: Mesh,
    sharded: bool = False,
) -> Float[Array, "l B k"]:
    """``block_errors``, the blocks split over the mesh, the weights too if sharded.

    The errors of a mesh over several processes are on all of its devices.
    """
    specs = weight_specs(denoiser, mesh, sharded=sharded)

    def part(denoiser: Network, *rest: Any) -> Array:
        whole = gather_weights(denoiser, specs)
        errors = block_errors(whole, *rest, losses=losses)
        if mesh.is_multi_process:  # every process needs them to decide alike
            errors = jax.lax.all_gather(errors, BLOCKS, axis=1, tiled=True)
        return errors

    copied = PartitionSpec()
    # shard_map rather than sharding constraints: the compiler would otherwise merge
    # the class axis into the split axis and have the devices exchange data
    return jax.shard_map(
        part,
        mesh=mesh,
        in_specs=(specs, *(copied,) * 3, PartitionSpec(BLOCKS)),
        out_specs=copied if mesh.is_multi_process else PartitionSpec(None, BLOCKS),
        check_vma=False,
    )(denoiser, schedule, noise, conditions, blocks)


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A model made ready to evaluate tiles.

    Attributes:
        denoiser: on ``mesh``, as of ``placement.place_weights``.
        schedule: replicated over ``mesh``.
        noise: replicated over ``mesh``.
        losses: keys of ``LOSSES``, all had of the same forward passes.
        cells: how many cells a tile holds at most, or one for each device.
        mesh: devices along blocks.
        sharded: whether the denoiser's weights are split among the devices.
    """

    denoiser: Network
    schedule: Schedule
    noise: Noise
    losses: tuple[str, ...]
    cells: int
    mesh: Mesh
    sharded: bool = False

    @property
    def devices(self) -> int:
        """Among which a tile's blocks are split."""
        return int(self.mesh.size)

    @property
    def together(self) -> bool:
        """Whether several processes compute every tile together."""
        return bool(self.mesh.is_multi_process)

    def check(
        self, timesteps: Int[np.ndarray, " s"], noises: Int[np.ndarray, " s"]
    ) -> None:
        """Refuse samples that cannot be drawn, or have no error; DiffjaxError."""
        self.schedule.check(timesteps)
        self.noise.check(noises)

    def tile(self, classes: int, cells: int | None = None) -> Tile:
        """A tile of at most so many cells, with a block for each device at least."""
        return tile_of(self.cells if cells is None else cells, classes, self.devices)

    def errors(self, conditions: Any, blocks: Blocks) -> Float[Array, "l B k"]:
        """Errors of a tile; returns before they are computed."""
        if self.mesh.is_multi_process:  # else JAX would take host arrays as copies
            blocks = split_blocks(blocks, self.mesh)
        errors: Array = tile_errors(
            self.denoiser,
            self.schedule,
            self.noise,
            conditions,
            blocks,
            losses=self.losses,
            mesh=self.mesh,
            sharded=self.sharded,
        )
        return errors
