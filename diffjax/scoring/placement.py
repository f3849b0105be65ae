"""Where a tile runs: its blocks split among devices, the weights on each or split too.

    blocks    a part on each device of the mesh
    weights   a copy on each; or, where they would take too much of its memory, a part
              of the large ones, and a tile gathers what it multiplies with

A block is a sample under several classes, so the class-independent part of the network
still runs once a block. Devices that hold all weights do not talk to one another.

A mesh is over the devices of this process, or over those of all processes. In the
latter case every process runs the same program with the same inputs, and gets the
errors of all blocks.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from diffjax.errors import DiffjaxError, not_on_this_system
from diffjax.tracing import jit

Tree = TypeVar("Tree")

BLOCKS = "blocks"  # the one axis of the mesh
# More cells a device than this share no more work and keep it no busier.
MOST_CELLS = {"cpu": 32}
MOST_CELLS_ELSEWHERE = 128
# Nor do more bytes, where each evaluation is work enough for all cores.
MOST_BYTES = {"cpu": 2**28}
SHARE_OF_MEMORY = 0.5  # of what is free, for one tile; two or three are in flight

# The weights that are split: by the last name of their path, along the first of these
# axes that the number of devices divides. All others have a copy on every device: norms
# and biases are too small to be worth the messages.
SPLIT_WEIGHTS = {
    "kernel": (-1, -2),  # output channels, else input channels
    "embedding": (-1, -2),  # width, else rows
}
SMALLEST_SPLIT = 4096  # elements
WEIGHTS_SHARE_OF_MEMORY = 0.4  # of a device; beyond it "auto" splits them


def block_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh along blocks, over this process's devices by default."""
    chosen = list(devices) if devices is not None else jax.local_devices()
    return Mesh(np.array(chosen), (BLOCKS,), axis_types=(AxisType.Auto,))


def replicate(tree: Tree, mesh: Mesh) -> Tree:
    """A copy of every array on every device of the mesh."""
    copied: Tree = _put(tree, jax.tree.map(lambda leaf: PartitionSpec(), tree), mesh)
    return copied


def split_blocks(tree: Tree, mesh: Mesh) -> Tree:
    """Every array's first axis split among the devices of the mesh."""
    specs = jax.tree.map(lambda leaf: PartitionSpec(BLOCKS), tree)
    split: Tree = _put(tree, specs, mesh)
    return split


def everywhere(tree: Tree, mesh: Mesh) -> Tree:
    """Arrays that are split over the mesh, whole on every device."""
    if not mesh.is_multi_process:
        return tree  # this process can read all parts as it is
    whole = NamedSharding(mesh, PartitionSpec())
    copied: Tree = jit(lambda tree: tree, out_shardings=whole)(tree)
    return copied


def place_weights(network: Tree, mesh: Mesh, *, sharded: bool) -> Tree:
    """A network's weights on the devices, copied or split."""
    return _put(network, weight_specs(network, mesh, sharded=sharded), mesh)


def weight_specs(network: Tree, mesh: Mesh, *, sharded: bool) -> Tree:
    """How each weight lies on the mesh: the same tree, of PartitionSpecs."""

    def spec(path: tuple[Any, ...], leaf: Any) -> PartitionSpec:
        keys = jax.tree_util.keystr(path, simple=True, separator="/").split("/")
        if sharded and leaf.size >= SMALLEST_SPLIT:
            for axis in SPLIT_WEIGHTS.get(keys[-2], ()):  # the last is nnx's "value"
                if leaf.shape[axis] % mesh.size == 0:
                    return PartitionSpec(*[None] * (leaf.ndim + axis), BLOCKS)
        return PartitionSpec()

    specs: Tree = jax.tree_util.tree_map_with_path(spec, network)
    return specs


def gather_weights(network: Tree, specs: Tree) -> Tree:
    """All weights whole again, inside of ``shard_map``.

    XLA gathers one when the program comes to it, and frees it again, where it minds
    memory; for CPUs it does not by default.
    """

    def whole(leaf: jax.Array, spec: PartitionSpec) -> jax.Array:
        if BLOCKS not in spec:
            return leaf
        axis = spec.index(BLOCKS)
        gathered: jax.Array = jax.lax.all_gather(leaf, BLOCKS, axis=axis, tiled=True)
        return gathered

    wholes: Tree = jax.tree.map(whole, network, specs)
    return wholes


def shards_weights(choice: str, network: Any, mesh: Mesh) -> bool:
    """Whether the weights are to be split among the devices of the mesh.

    Args:
        choice: "always", "never", or "auto": where a copy of all of them would take
            more than ``WEIGHTS_SHARE_OF_MEMORY`` of a device.
        network: whose weights, anywhere.
        mesh: as of ``block_mesh``.
    """
    if mesh.size == 1 or choice == "never":
        return False
    n_bytes = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(network))
    device = mesh.local_devices[0]
    too_large = n_bytes > WEIGHTS_SHARE_OF_MEMORY * _memory(device)
    return choice == "always" or not least(int(not too_large), mesh)


def cells_that_fit(bytes_per_cell: int, mesh: Mesh) -> int:
    """How many cells a tile can hold on all devices of the mesh together.

    Args:
        bytes_per_cell: that one forward pass needs, about.
        mesh: as of ``block_mesh``.
    """
    device = mesh.local_devices[0]
    fit = cells_within(free_bytes(device), bytes_per_cell, device.platform)
    return least(fit, mesh) * mesh.size


def cells_within(memory: int, bytes_per_cell: int, platform: str) -> int:
    """How many cells a tile can hold on one device.

    Args:
        memory: bytes that are free.
        bytes_per_cell: that one forward pass needs, about.
        platform: of the device.
    """
    most = MOST_CELLS.get(platform, MOST_CELLS_ELSEWHERE)
    room = SHARE_OF_MEMORY * memory
    room = min(room, MOST_BYTES.get(platform, room))
    return max(1, min(most, int(room // bytes_per_cell)))


def least(value: int, mesh: Mesh) -> int:
    """The smallest value of all processes of the mesh, below 2³¹.

    What shapes a program has to be the same in all of them.
    """
    return min(_of_every_process(value, mesh))


def check_same(value: int, mesh: Mesh, what: str) -> None:
    """Raise DiffjaxError in all processes of the mesh unless they have one value.

    Else they would run different programs, and wait for each other for ever.

    Args:
        value: in [0, 2³²).
        mesh: as of ``block_mesh``.
        what: that would differ.
    """
    values = _of_every_process(value, mesh)
    if len(set(values)) > 1:
        others = [k for k, other in enumerate(values) if other != values[0]]
        raise DiffjaxError(
            f"Processes that share a mesh need the same {what}; process {others[0]} "
            "has others than process 0. Give all of them the same command and files."
        )


def _of_every_process(value: int, mesh: Mesh) -> list[int]:
    if not mesh.is_multi_process:
        return [value]
    gathered = multihost_utils.process_allgather(np.uint32(value))
    return [int(each) for each in gathered]


def _put(tree: Tree, specs: Tree, mesh: Mesh) -> Tree:
    def put(leaf: Any, spec: PartitionSpec) -> Any:
        sharding = NamedSharding(mesh, spec)
        if not mesh.is_multi_process:
            return jax.device_put(leaf, sharding)
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            data = put(jax.random.key_data(leaf), spec)
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
        # not device_put, which would send all of it around to compare it
        host = np.asarray(leaf)
        return jax.make_array_from_callback(host.shape, sharding, host.__getitem__)

    placed: Tree = jax.tree.map(put, tree, specs)
    return placed


def _memory(device: jax.Device) -> int:
    """Bytes of a device, whether in use or not."""
    stats = device.memory_stats()
    if stats and "bytes_limit" in stats:
        return int(stats["bytes_limit"])
    # host memory, which simulated devices share
    if not hasattr(os, "sysconf"):
        raise not_on_this_system("Asking for the size of memory")
    pages: int = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return pages // len(jax.local_devices())


def free_bytes(device: jax.Device) -> int:
    """Bytes of a device that nothing takes yet.

    On a CPU other programs share the memory; Linux tells what they leave, other systems
    only how much there is.
    """
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        return _memory(device) - int(stats.get("bytes_in_use", 0))
    return min(_memory(device), available_bytes() // len(jax.local_devices()))


def available_bytes(table: Path = Path("/proc/meminfo")) -> int:
    """Bytes that a program can take before the system runs short; 2⁶³ where unknown."""
    try:
        lines = table.read_text(encoding="ascii").splitlines()
    except OSError:
        return 2**63
    values = dict(line.split(":", 1) for line in lines if ":" in line)
    found = values.get("MemAvailable", "").split()  # "12345678 kB", as Linux says it
    return 1024 * int(found[0]) if len(found) == 2 and found[1] == "kB" else 2**63
