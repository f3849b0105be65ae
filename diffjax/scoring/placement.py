"""Where a tile runs: weights on every device, the tile's samples split among them.

Every device sees its own samples of all classes of the tile, so the class-independent
part of the network still runs once per sample, and no device talks to another.
"""

from collections.abc import Sequence
from typing import TypeVar

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

Tree = TypeVar("Tree")

SAMPLES = "samples"  # the one axis of the mesh


def sample_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh over this process's devices, along samples."""
    chosen = list(devices) if devices is not None else jax.local_devices()
    return Mesh(np.array(chosen), (SAMPLES,), axis_types=(AxisType.Auto,))


def replicate(tree: Tree, mesh: Mesh) -> Tree:
    """A copy of every array on every device of the mesh."""
    placed: Tree = jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))
    return placed
