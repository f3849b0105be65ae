"""What tiles and gradients cost on this device, in FLOPs and seconds."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import jax
import numpy as np

from diffjax.models.attention import unfused
from diffjax.models.conditions import count
from diffjax.scoring.grid import Blocks, Grid, Tile, block_errors, tile_errors
from diffjax.tracing import jit, pinned

REPEATS = 3
N_NOISES = 4  # different ones; a file may hold few


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of one tile, or of an image's gradients.

    Attributes:
        flops: a multiplication and an addition are two; on all devices together, and
            the same whatever the attention is computed by.
        seconds: median of a few runs after the first.
        bytes_accessed: as the compiler counts them; None where it does not.
    """

    flops: float
    seconds: float
    bytes_accessed: float | None = None


def tile_cost(
    grid: Grid,
    tile: Tile,
    conditions: Any,
    latent_shape: tuple[int, int, int],
    told: Mapping[str, np.ndarray] | None = None,
) -> Cost:
    """Compile a tile and time it.

    Args:
        grid: that will evaluate it.
        tile: its shape.
        conditions: of all classes, a tree of rows on the devices.
        latent_shape: (h, w, c) of the images.
        told: what one of them tells of a condition besides.
    """
    arguments = _arguments(grid, tile, conditions, latent_shape, told)
    options = {"losses": grid.losses, "mesh": grid.mesh, "sharded": grid.sharded}
    # one device's share: the analysis is of the program that each of them runs
    compiled = tile_errors.lower(*arguments, **options).compile()

    @pinned()
    def run() -> object:
        return jax.block_until_ready(compiled(*arguments))

    cost = compiled.cost_analysis()
    assert cost is not None  # every backend of JAX has it
    size = cost.get("bytes accessed")
    return Cost(
        flops=count_flops(partial(block_errors, losses=grid.losses), *arguments),
        seconds=median_seconds(run),
        bytes_accessed=None if size is None else size * grid.mesh.size,
    )


def evaluation_flops(
    grid: Grid,
    conditions: Any,
    latent_shape: tuple[int, int, int],
    told: Mapping[str, np.ndarray] | None = None,
) -> float:
    """FLOPs of one class on one sample, where no other class shares any of them.

    Arguments are those of ``tile_cost``; nothing is compiled.
    """
    tile = Tile(blocks=1, classes=1)
    arguments = _arguments(grid, tile, conditions, latent_shape, told)
    return count_flops(partial(block_errors, losses=grid.losses), *arguments)


def _arguments(
    grid: Grid,
    tile: Tile,
    conditions: Any,
    latent_shape: tuple[int, int, int],
    told: Mapping[str, np.ndarray] | None,
) -> tuple[Any, ...]:
    """Of ``block_errors`` for such a tile."""
    place = np.arange(tile.blocks)
    blocks = Blocks(
        keys=place.astype(np.uint32),
        z0=np.zeros((tile.blocks, *latent_shape), np.float32),
        timesteps=(place % grid.schedule.n_timesteps).astype(np.int32),
        noises=place.astype(np.int32) % N_NOISES,
        classes=np.arange(tile.cells, dtype=np.int32).reshape(-1, tile.classes)
        % count(conditions),
        told={
            name: np.broadcast_to(leaf, (tile.blocks, *leaf.shape))
            for name, leaf in (told or {}).items()
        },
    )
    return grid.denoiser, grid.schedule, grid.noise, conditions, blocks


def count_flops(function: Callable[..., object], *arguments: Any) -> float:
    """As XLA counts them before it optimises; nothing is compiled.

    Args:
        function: not traced before: a partial object of its own.
        arguments: of it; their shapes count.
    """
    shapes = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype), arguments
    )
    with unfused():
        cost = jit(function).lower(*shapes).cost_analysis()
    assert cost is not None  # every backend of JAX has it
    return float(cost["flops"])


def median_seconds(call: Callable[[], object]) -> float:
    """Of a few calls after the first, which compiles."""
    call()
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return median(seconds)
