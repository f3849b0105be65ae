"""Programs compiled for accelerators that are not here, and what their compilers say.

    bound = min(peak FLOP/s / FLOPs, bandwidth / bytes) of an evaluation

on all devices together: no program is faster, and real ones are slower. FLOPs are those
of the program as it is written, as kernels do not tell theirs; bytes are as the
compiler counts them, each operand of each fused operation once.

TPUs need the package libtpu, NVIDIA's GPUs JAX's plugin for CUDA, and both environment
variables that are set before JAX starts; `diffjax bench --compile-for` sets them.
"""

import re
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
from jax._src.cudnn import fused_attention_stablehlo  # no public way to tell it
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from diffjax.errors import DiffjaxError
from diffjax.models.attention import Target, traced_for
from diffjax.models.network import Network
from diffjax.schedules import Schedule
from diffjax.scoring.accelerators import Accelerator, accelerator
from diffjax.scoring.cost import count_flops
from diffjax.scoring.grid import Blocks, Tile, block_errors, tile_errors
from diffjax.scoring.noise import SeededNoise
from diffjax.scoring.placement import (
    BLOCKS,
    WEIGHTS_SHARE_OF_MEMORY,
    block_mesh,
    cells_within,
    weight_specs,
)
from diffjax.scoring.traffic import bytes_accessed

COLLECTIVE = re.compile(
    r" = .*? (all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter|"
    r"collective-broadcast|ragged-all-to-all)(?:-start)?\("
)
KERNEL = re.compile(r'custom_call_target="_*([^"]+)"')
# Without a card nothing is tuned, and XLA does not see whether its first choice of a
# tile for Triton's products can be had: where the result is reshaped it often cannot,
# and the program is refused. On a card such choices are tried, and dropped.
OPTIONS = {"cuda": {"xla_gpu_enable_triton_gemm": False}}
CUDNN = 91000  # 9.10
NAME = re.compile(r"(\w+):(\d+(?:x\d+)*)")


@dataclass(frozen=True, kw_only=True)
class Topology:
    """Devices to compile for.

    Attributes:
        name: as asked for: "v5e:2x4".
        accelerator: what is known of each.
        mesh: of all of them, along blocks.
    """

    name: str
    accelerator: Accelerator
    mesh: Mesh

    @property
    def target(self) -> Target:
        """What programs are traced for."""
        return Target(self.accelerator.platform, self.accelerator.compute_capability)


@dataclass(frozen=True, kw_only=True)
class Program:
    """What a compiler says of a program. Bytes are of each device.

    Attributes:
        seconds: of compiling.
        arguments: bytes of weights, conditions and blocks.
        outputs: bytes of results.
        temporaries: bytes besides, at the moment of most.
        bytes_accessed: on all devices together; None where the compiler does not count.
        collectives: exchanges between devices, by kind; no entry for what is not there.
        kernels: calls of what the compiler did not write: attention, and on GPUs
            libraries for convolutions and products.
        text: the program as compiled.
    """

    seconds: float
    arguments: int
    outputs: int
    temporaries: int
    bytes_accessed: float | None
    collectives: dict[str, int]
    kernels: dict[str, int]
    text: str = field(repr=False)

    @property
    def memory(self) -> int:
        """Bytes of a device while the program runs."""
        return self.arguments + self.outputs + self.temporaries


@dataclass(frozen=True, kw_only=True)
class CompiledTile:
    """A tile for devices that are not here.

    Attributes:
        topology: these devices.
        tile: its shape.
        dtype: of the denoiser.
        program: as compiled.
        flops: of all devices together.
    """

    topology: Topology
    tile: Tile
    dtype: str
    program: Program
    flops: float

    @property
    def fits(self) -> bool:
        """Whether a device holds it."""
        return self.program.memory <= self.topology.accelerator.memory

    @property
    def largest(self) -> int:
        """Evaluations of a tile that all devices hold, with weights and classes.

        What a tile needs besides these is taken to grow with its evaluations.
        """
        needed = self.program.outputs + self.program.temporaries
        room = self.topology.accelerator.memory - self.program.arguments
        return max(0, int(room / needed * self.tile.cells)) if needed else 0

    @property
    def most_by_flops(self) -> float | None:
        """Evaluations a second that the published FLOP/s allow."""
        peak = self.topology.accelerator.flops.get(self.dtype)
        speed = None if peak is None else peak * self.topology.mesh.size
        return None if speed is None else speed / self.flops * self.tile.cells

    @property
    def most_by_bytes(self) -> float | None:
        """Evaluations a second that the published bandwidth allows."""
        if self.program.bytes_accessed is None:
            return None
        speed = self.topology.accelerator.bandwidth * self.topology.mesh.size
        return float(speed / self.program.bytes_accessed * self.tile.cells)

    @property
    def bound(self) -> float | None:
        """Evaluations a second at most; None where neither is known."""
        most = (self.most_by_flops, self.most_by_bytes)
        return min((each for each in most if each is not None), default=None)


@cache  # programs are for the same devices only if they are the same objects
def topology(name: str) -> Topology:
    """Devices by name: an accelerator and how many of them lie along each axis.

    Args:
        name: "v5e:2x4"; more devices than a machine has are several machines.

    Raises:
        DiffjaxError: if there is no such accelerator or arrangement, or no compiler
            for it is installed.
    """
    match = NAME.fullmatch(name)
    if match is None:
        raise DiffjaxError(
            f"{name!r} names no devices; give an accelerator and its arrangement, "
            "such as v5e:2x4 or h100:1x1x8."
        )
    kind = accelerator(match[1])
    shape = tuple(map(int, match[2].split("x")))
    if len(shape) != len(kind.machine):
        example = "x".join(map(str, kind.machine))
        raise DiffjaxError(
            f"{name}: these lie along {len(kind.machine)} axes: {example}."
        )
    find, needs = COMPILERS[kind.platform]
    try:
        devices = find(name, kind, shape)
    except (jax.errors.JaxRuntimeError, RuntimeError, ImportError) as error:
        why = str(error).splitlines()[0].rstrip(".")
        raise DiffjaxError(f"{name} cannot be compiled for: {why}. {needs}") from error
    return Topology(name=name, accelerator=kind, mesh=block_mesh(devices))


def _tpus(name: str, kind: Accelerator, shape: tuple[int, ...]) -> list[jax.Device]:
    one = all(n <= most for n, most in zip(shape, kind.machine, strict=True))
    # those of more than one machine are four to a machine
    bounds = (shape if one else (2, 2, 1)) + (1,) * (3 - len(shape) if one else 0)
    found = topologies.get_topology_desc(
        platform=kind.platform, topology_name=name, chips_per_host_bounds=bounds
    )
    return list(found.devices)


def _gpus(name: str, kind: Accelerator, shape: tuple[int, ...]) -> list[jax.Device]:
    """Of a network of so many fast islands × machines × GPUs a machine."""
    assert kind.card is not None
    found = topologies.get_topology_desc(
        platform=kind.platform,
        topology_name="",
        topology="x".join(map(str, shape)),
        target_config=kind.card.description,
    )
    return list(found.devices)


# platform: what finds devices, and what it takes
COMPILERS = {
    "tpu": (_tpus, "TPUs need the package libtpu (pip install libtpu; x86 Linux)."),
    "cuda": (
        _gpus,
        "NVIDIA's GPUs need JAX's plugin (pip install \"jax[cuda12]\"; Linux, no GPU).",
    ),
}


@contextmanager
def answering_for(target: Target) -> Iterator[None]:
    """JAX's own checks of cuDNN's attention ask the local GPU and its library.

    Here the target answers, with the oldest cuDNN that knows all of its GPUs.
    """
    capability = target.compute_capability
    if capability is None:
        yield
        return

    def is_as_new(asked: str) -> bool:
        return capability >= tuple(map(int, asked.split(".")))

    with mock.patch.multiple(
        fused_attention_stablehlo,
        check_compute_capability=is_as_new,
        check_cudnn_version=lambda: CUDNN,
    ):
        yield


def compile_for(
    topology: Topology, function: Any, *arguments: Any, **options: Any
) -> Program:
    """Compile a jitted function.

    Args:
        topology: devices to compile for.
        function: of ``jax.jit``.
        arguments: of it: shapes of ``placed``.
        options: its static arguments.
    """
    platform = topology.accelerator.platform
    with traced_for(topology.target), answering_for(topology.target):
        lowered = function.lower(*arguments, **options)
        start = time.perf_counter()
        compiled = lowered.compile(OPTIONS.get(platform))
        seconds = time.perf_counter() - start
    text, memory = compiled.as_text(), compiled.memory_analysis()
    cost = compiled.cost_analysis() or {}
    size = cost.get("bytes accessed")
    if platform == "cuda":  # whose compiler does not count
        size = bytes_accessed(text)
    return Program(
        seconds=seconds,
        arguments=memory.argument_size_in_bytes,
        outputs=memory.output_size_in_bytes,
        temporaries=memory.temp_size_in_bytes,
        bytes_accessed=None if size is None else size * topology.mesh.size,
        collectives=dict(Counter(COLLECTIVE.findall(text))),
        kernels=dict(Counter(KERNEL.findall(text))),
        text=text,
    )


def placed(tree: Any, topology: Topology, specs: Any = None) -> Any:
    """A tree's shapes, on the topology's devices: a copy on each, or as specs say."""

    def shape(leaf: Any, spec: PartitionSpec) -> jax.ShapeDtypeStruct:
        sharding = NamedSharding(topology.mesh, spec)
        return jax.ShapeDtypeStruct(jnp.shape(leaf), leaf.dtype, sharding=sharding)

    if specs is None:
        specs = jax.tree.map(lambda leaf: PartitionSpec(), tree)
    return jax.tree.map(shape, tree, specs)


def reckoned_bytes(
    topology: Topology, denoiser: Network, latent_shape: tuple[int, int, int]
) -> int:
    """What one more evaluation in a tile is taken to need on these devices.

    Args:
        topology: the devices.
        denoiser: weights, or their shapes.
        latent_shape: (h, w, c) of the images.
    """
    with traced_for(topology.target):
        return int(denoiser.module().memory(*latent_shape[:2]))


def splits_weights(topology: Topology, denoiser: Network) -> bool:
    """Whether weights would be split among these devices, by the rule of "auto"."""
    share = denoiser.bytes / topology.accelerator.memory
    return topology.mesh.size > 1 and share > WEIGHTS_SHARE_OF_MEMORY


def planned_cells(
    topology: Topology, denoiser: Network, latent_shape: tuple[int, int, int]
) -> int:
    """How many cells tiles would have on these devices, were nothing else on them.

    Args:
        topology: the devices.
        denoiser: weights, or their shapes.
        latent_shape: (h, w, c) of the images.
    """
    weights = denoiser.bytes
    if splits_weights(topology, denoiser):
        weights //= topology.mesh.size
    needs = reckoned_bytes(topology, denoiser, latent_shape)
    free = topology.accelerator.memory - weights
    return cells_within(free, needs, "elsewhere") * topology.mesh.size


def compile_tile(
    topology: Topology,
    denoiser: Network,
    schedule: Schedule,
    condition: Any,
    latent_shape: tuple[int, int, int],
    tile: Tile,
    *,
    losses: tuple[str, ...] = ("l2",),
    sharded: bool = False,
) -> CompiledTile:
    """Compile what a grid evaluates.

    Args:
        topology: devices to compile for.
        denoiser: weights, or their shapes.
        schedule: the forward process.
        condition: shapes of one class's condition, a tree.
        latent_shape: (h, w, c) of the images.
        tile: blocks and classes; the blocks are a multiple of the devices.
        losses: keys of ``LOSSES``.
        sharded: whether the weights are split among the devices.
    """
    n, k = tile.blocks, tile.classes
    blocks = Blocks(
        keys=jax.ShapeDtypeStruct((n,), jnp.uint32),
        z0=jax.ShapeDtypeStruct((n, *latent_shape), jnp.float32),
        timesteps=jax.ShapeDtypeStruct((n,), jnp.int32),
        noises=jax.ShapeDtypeStruct((n,), jnp.int32),
        classes=jax.ShapeDtypeStruct((n, k), jnp.int32),
    )
    conditions = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((k, *leaf.shape), leaf.dtype), condition
    )
    copies = (schedule, SeededNoise.of(0), conditions)
    program = compile_for(
        topology,
        tile_errors,
        placed(
            denoiser, topology, weight_specs(denoiser, topology.mesh, sharded=sharded)
        ),
        *(placed(each, topology) for each in copies),
        placed(blocks, topology, jax.tree.map(lambda _: PartitionSpec(BLOCKS), blocks)),
        losses=losses,
        mesh=topology.mesh,
        sharded=sharded,
    )
    with traced_for(topology.target):
        flops = count_flops(
            partial(block_errors, losses=losses), denoiser, *copies, blocks
        )
    return CompiledTile(
        topology=topology,
        tile=tile,
        dtype=str(denoiser.dtype),
        program=program,
        flops=flops,
    )
