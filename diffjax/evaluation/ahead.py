"""Tiles of a model compiled ahead of time, for devices that are not here."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from diffjax.checkpoints.loading import compute_dtype, load_model
from diffjax.errors import DiffjaxError
from diffjax.evaluation.bench import Subject, random_subject, subject_of
from diffjax.models.conditions import in_dtype, shapes
from diffjax.scoring.compiling import (
    compile_tile,
    planned_cells,
    reckoned_bytes,
    splits_weights,
    topology,
)
from diffjax.scoring.grid import Tile, tile_of


@dataclass(frozen=True, kw_only=True)
class Compiled:
    """A tile as compiled; bytes are of each device, the rest of all together.

    Attributes:
        devices: what it was compiled for: "v5e:2x4".
        dtype: of the denoiser.
        resolution: pixels along an edge.
        blocks: of the tile, samples.
        classes: of each block.
        planned: evaluations that `diffjax evaluate` would put into a tile.
        reckoned: bytes that it takes an evaluation to need.
        memory: bytes of a device.
        fits: whether a device holds the tile; where not, nothing more is known.
        seconds: of compiling, on this machine.
        arguments: bytes of weights, conditions and blocks.
        temporaries: bytes besides, at the moment of most.
        largest: evaluations of the largest tile that fits, about.
        flops: of the tile.
        bytes_accessed: of the tile; None where the compiler does not count.
        bound_by_flops: evaluations a second that published FLOP/s allow.
        bound_by_bytes: evaluations a second that the published bandwidth allows.
        collectives: exchanges between devices, by kind.
        kernels: calls of what the compiler did not write, by name.
        source: of what is published.
    """

    devices: str
    dtype: str
    resolution: int
    blocks: int
    classes: int
    planned: int
    reckoned: int
    memory: int
    fits: bool
    source: str
    seconds: float | None = None
    arguments: int | None = None
    temporaries: int | None = None
    largest: int | None = None
    flops: float | None = None
    bytes_accessed: float | None = None
    bound_by_flops: float | None = None
    bound_by_bytes: float | None = None
    collectives: dict[str, int] | None = None
    kernels: dict[str, int] | None = None


@dataclass(kw_only=True)
class Ahead:
    """A model whose tiles are to be compiled for other devices, in one dtype.

    Raises DiffjaxError where there is no such model, dtype, or compiler.
    """

    devices: str
    model: str
    random: bool
    dtype: str
    parts: Mapping[str, Any] = field(default_factory=dict)  # as for ``load_model``

    def __post_init__(self) -> None:
        self._topology = topology(self.devices)
        wish = "bfloat16" if self.dtype == "auto" else self.dtype
        self.dtype = str(compute_dtype(wish))

    @cached_property
    def subject(self) -> Subject:
        """The network's shapes, or a loaded model."""
        if self.random:
            return random_subject(self.model, self.dtype, weights=False)
        return subject_of(load_model(self.model, dtype=self.dtype, **self.parts))

    def tiles(
        self,
        resolutions: Sequence[int] = (),
        blocks: Sequence[int] = (),
        classes: Sequence[int] = (8,),
    ) -> Iterator[Compiled]:
        """Compile every combination.

        Args:
            resolutions: in pixels; none for the model's own.
            blocks: of a tile; none for as many as `diffjax evaluate` would take.
            classes: of a block.

        Raises:
            DiffjaxError: if one of them does not fit the model or the devices.
        """
        subject, mesh = self.subject, self._topology.mesh
        for resolution in resolutions or (subject.resolution,):
            shape = subject.latent_shape(resolution)
            planned = planned_cells(self._topology, subject.denoiser, shape)
            for k in classes:
                usual = tile_of(planned, k, mesh.size).blocks
                for n in blocks or (usual,):
                    if n % mesh.size:
                        raise DiffjaxError(
                            f"{n} blocks cannot be split among {mesh.size} devices."
                        )
                    tile = Tile(blocks=n, classes=k)
                    yield self._tile(tile, resolution, shape, planned)

    def _tile(
        self, tile: Tile, resolution: int, shape: tuple[int, int, int], planned: int
    ) -> Compiled:
        accelerator = self._topology.accelerator
        told: dict[str, Any] = {
            "devices": self.devices,
            "dtype": self.dtype,
            "resolution": resolution,
            "planned": planned,
            "reckoned": reckoned_bytes(self._topology, self.subject.denoiser, shape),
            "memory": accelerator.memory,
            "source": accelerator.source,
            **asdict(tile),
        }
        subject = self.subject
        try:
            found = compile_tile(
                self._topology,
                subject.denoiser,
                subject.schedule,
                in_dtype(shapes(subject.conditions), self.dtype),
                shape,
                tile,
                sharded=splits_weights(self._topology, subject.denoiser),
            )
        except RuntimeError as error:  # of JAX, which this room does not know
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            return Compiled(**told, fits=False)
        program = found.program
        return Compiled(
            **told,
            fits=found.fits,
            seconds=program.seconds,
            arguments=program.arguments,
            temporaries=program.temporaries + program.outputs,
            largest=found.largest,
            flops=found.flops,
            bytes_accessed=program.bytes_accessed,
            bound_by_flops=found.most_by_flops,
            bound_by_bytes=found.most_by_bytes,
            collectives=program.collectives,
            kernels=program.kernels,
        )
