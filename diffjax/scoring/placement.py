"""Where a tile runs: weights on every device, the tile's blocks split among them.

A block is a sample under several classes, so the class-independent part of the network
still runs once a block, and no device talks to another.
"""

import os
from collections.abc import Sequence
from typing import TypeVar

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

Tree = TypeVar("Tree")

BLOCKS = "blocks"  # the one axis of the mesh
# More cells a device than this share no more work and keep it no busier.
MOST_CELLS = {"cpu": 32}
MOST_CELLS_ELSEWHERE = 128
SHARE_OF_MEMORY = 0.5  # of what is free, for one tile; two or three are in flight


def block_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh over this process's devices, along blocks."""
    chosen = list(devices) if devices is not None else jax.local_devices()
    return Mesh(np.array(chosen), (BLOCKS,), axis_types=(AxisType.Auto,))


def replicate(tree: Tree, mesh: Mesh) -> Tree:
    """A copy of every array on every device of the mesh."""
    placed: Tree = jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))
    return placed


def cells_that_fit(bytes_per_cell: int, mesh: Mesh) -> int:
    """How many cells a tile can hold on all devices of the mesh together.

    Args:
        bytes_per_cell: that one forward pass needs, about.
        mesh: as of ``block_mesh``.
    """
    device = mesh.devices.flat[0]
    most = MOST_CELLS.get(device.platform, MOST_CELLS_ELSEWHERE)
    budget = SHARE_OF_MEMORY * _free_bytes(device)
    return max(1, min(most, int(budget // bytes_per_cell))) * mesh.size


def _free_bytes(device: jax.Device) -> int:
    stats = device.memory_stats()
    if stats and "bytes_limit" in stats:
        return int(stats["bytes_limit"] - stats.get("bytes_in_use", 0))
    # host memory, which simulated devices share
    pages: int = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return pages // len(jax.local_devices())
