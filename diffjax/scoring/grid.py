"""The grid of errors: e[c, s] for classes c and samples s = (t, ε) of one image.

    z_t     = sqrt(ᾱ_t) z0 + sqrt(1 − ᾱ_t) ε
    e[c, s] = ℓ(ε, ε̂(z_t, t, c))                     for each loss ℓ of ``losses``

(Li et al. 2023, eqs. 3 and 6.) The grid is a vmap over classes of a vmap over samples
of one forward pass, which serves all losses. In the inner map z_t depends on the sample
alone and the condition on the class alone, so JAX computes z_t and every layer before
the first use of the condition once per sample, and the condition's own layers once per
class.

A cell depends on (noise, z0, condition, t) and on nothing else: grids are cut into
tiles of one fixed shape, filled up with repeated cells that are thrown away.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, Int

from diffjax.errors import DiffjaxError
from diffjax.models.diffusion import Network, predict
from diffjax.schedules import Schedule, add_noise
from diffjax.scoring.losses import LOSSES, Cell
from diffjax.scoring.noise import Noise
from diffjax.scoring.placement import SAMPLES

Item = TypeVar("Item")

TILES_AHEAD = 2  # dispatched before the first is read: the device never waits


@dataclass(frozen=True, kw_only=True)
class Tile:
    """The fixed shape in which cells are evaluated."""

    classes: int
    samples: int

    @classmethod
    def fitting(
        cls,
        classes: int,
        samples: int,
        cells: int,
        devices: int = 1,
        most_classes: int = 8,
    ) -> "Tile":
        """A tile of at most ``cells`` cells that ``classes`` classes fill evenly.

        It is no longer than ``samples`` need, and has a sample for each device.
        Wide tiles share more of the class-independent work; past ``most_classes``
        the gain is small and the samples, which split among devices, run short.
        """
        rows = -(-classes // min(classes, most_classes, cells))
        width = -(-classes // rows)
        per_device = max(1, cells // width // devices)
        return cls(
            classes=width, samples=min(per_device, -(-samples // devices)) * devices
        )


def cell_errors(
    denoiser: Network,
    schedule: Schedule,
    z0: Float[Array, "h w c"],
    condition: Array,
    t: Int[Array, ""],
    noise: Float[Array, "h w c"],
    *,
    losses: tuple[str, ...],
) -> Float[Array, " l"]:
    """e[c, s] for one class and one sample by each of ``losses``, float32."""
    z_t = add_noise(schedule, z0, noise, t)
    predicted, variance = predict(denoiser, schedule, z_t, t, condition)
    cell = Cell(schedule, z0, t, noise, predicted, variance)
    return jnp.stack([LOSSES[loss](cell) for loss in losses])


def grid_errors(
    denoiser: Network,
    schedule: Schedule,
    noise: Noise,
    z0: Float[Array, "h w c"],
    conditions: Array,
    timesteps: Int[Array, " s"],
    noises: Int[Array, " s"],
    *,
    losses: tuple[str, ...],
) -> Float[Array, "l n s"]:
    """Errors of all ``conditions`` on all samples by each loss, float32.

    Args:
        denoiser: the network.
        schedule: the forward process.
        noise: where a sample's ε comes from.
        z0: the image's latent.
        conditions: text states [n, l, d] or class ids [n].
        timesteps: t of each sample, in [0, T).
        noises: the noise index of each sample.
        losses: keys of ``LOSSES``.
    """

    def cell(condition: Array, t: Array, k: Array) -> Array:
        epsilon = noise.draw(k, z0.shape)
        return cell_errors(denoiser, schedule, z0, condition, t, epsilon, losses=losses)

    over_samples = jax.vmap(cell, in_axes=(None, 0, 0), out_axes=1)
    over_classes = jax.vmap(over_samples, in_axes=(0, None, None), out_axes=1)
    errors: Array = over_classes(conditions, timesteps, noises)
    return errors


@partial(jax.jit, static_argnames=("losses", "mesh"))
def tile_errors(
    denoiser: Network,
    schedule: Schedule,
    noise: Noise,
    z0: Float[Array, "h w c"],
    conditions: Array,
    classes: Int[Array, " n"],
    timesteps: Int[Array, " s"],
    noises: Int[Array, " s"],
    *,
    losses: tuple[str, ...],
    mesh: Mesh,
) -> Float[Array, "l n s"]:
    """``grid_errors`` of the conditions at ``classes``, samples split over the mesh."""
    everywhere, split = PartitionSpec(), PartitionSpec(SAMPLES)
    # shard_map rather than sharding constraints: the compiler would otherwise merge
    # the class axis into the split sample axis and have the devices exchange data
    return jax.shard_map(
        partial(grid_errors, losses=losses),
        mesh=mesh,
        in_specs=(everywhere,) * 5 + (split, split),
        out_specs=PartitionSpec(None, None, SAMPLES),
        check_vma=False,
    )(denoiser, schedule, noise, z0, conditions[classes], timesteps, noises)


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Evaluates requested cells of images, tile by tile.

    Attributes:
        denoiser: replicated over ``mesh``.
        schedule: likewise.
        losses: keys of ``LOSSES``, all had of the same forward passes.
        cells: how many cells a tile holds, about.
        mesh: devices along samples.
    """

    denoiser: Network
    schedule: Schedule
    losses: tuple[str, ...]
    cells: int
    mesh: Mesh

    def tile(self, classes: int, samples: int) -> Tile:
        """The tile for a request of so many classes and samples."""
        return Tile.fitting(classes, samples, self.cells, self.mesh.size)

    def tiles(self, classes: int, samples: int) -> int:
        """How many tiles such a request takes."""
        tile = self.tile(classes, samples)
        return -(-classes // tile.classes) * -(-samples // tile.samples)

    def errors(
        self,
        noise: Noise,
        z0: Float[Array, "h w c"],
        conditions: Array,
        classes: Int[np.ndarray, " n"],
        timesteps: Int[np.ndarray, " s"],
        noises: Int[np.ndarray, " s"],
        done: Callable[[int], None] = lambda cells: None,
    ) -> Float[np.ndarray, "l n s"]:
        """Errors of ``classes`` × samples by each loss, float32.

        Args:
            noise: where ε comes from.
            z0: the image's latent.
            conditions: of all classes, [N, …].
            classes: rows of ``conditions`` to evaluate.
            timesteps: of the samples.
            noises: noise indices of the samples.
            done: called after each tile with the number of cells finished so far.
        """
        noise.check(noises)
        n, s = len(classes), len(timesteps)
        tile = self.tile(n, s)

        def dispatch() -> Iterator[tuple[slice, slice, Array]]:
            for columns, k in _chunks(s, tile.samples):
                for rows, c in _chunks(n, tile.classes):
                    values = tile_errors(
                        self.denoiser,
                        self.schedule,
                        noise,
                        z0,
                        conditions,
                        classes[c],
                        timesteps[k],
                        noises[k],
                        losses=self.losses,
                        mesh=self.mesh,
                    )
                    yield rows, columns, values

        errors = np.full((len(self.losses), n, s), np.nan, np.float32)
        finished = 0
        try:
            for rows, columns, values in _ahead(dispatch(), TILES_AHEAD):
                target = errors[:, rows, columns]
                _, height, width = target.shape
                target[:] = np.asarray(values)[:, :height, :width]
                finished += height * width
                done(finished)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            raise DiffjaxError(
                f"The device's memory does not hold a tile of {self.cells} "
                "evaluations; allow fewer cells."
            ) from error
        return errors


def _ahead(items: Iterator[Item], n: int) -> Iterator[Item]:
    """The same items, each only once ``n`` more have been made."""
    waiting: deque[Item] = deque()
    for item in items:
        waiting.append(item)
        if len(waiting) > n:
            yield waiting.popleft()
    yield from waiting


def _chunks(n: int, size: int) -> Iterator[tuple[slice, np.ndarray]]:
    """Slices of [0, n) with the ``size`` indices that fill each, the last repeated."""
    for start in range(0, n, size):
        stop = min(start + size, n)
        yield slice(start, stop), np.minimum(np.arange(start, start + size), n - 1)
