"""Speed of a model's tiles on this machine: evaluations and FLOPs a second."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import numpy as np

from diffjax.checkpoints.loading import compute_dtype, load_model
from diffjax.checkpoints.schedulers import read_schedule
from diffjax.checkpoints.untrained import untrained
from diffjax.errors import DiffjaxError
from diffjax.evaluation.provenance import environment
from diffjax.models.conditions import take, told_of
from diffjax.models.diffusion import (
    DiffusionModel,
    check_resolution,
    largest_resolution,
)
from diffjax.models.network import Network
from diffjax.models.unet_config import SIZES
from diffjax.schedules import Schedule
from diffjax.scoring.cost import tile_cost
from diffjax.scoring.grid import Grid, Tile
from diffjax.scoring.noise import SeededNoise
from diffjax.scoring.placement import block_mesh, cells_that_fit, replicate
from diffjax.scoring.speed import Peak, measure_peak

DOWNSCALE = 8  # of Stable Diffusion's autoencoder, and DiT's
SCHEDULER = {"_class_name": "DDIMScheduler", "beta_schedule": "scaled_linear"}


@dataclass(frozen=True, kw_only=True, eq=False)
class Subject:
    """What is timed: a denoiser, and arrays of the right shapes.

    Attributes:
        name: of the model.
        denoiser: the network.
        schedule: the forward process.
        conditions: a tree of one row.
        channels: of a latent.
        resolution: pixels along an edge.
        downscale: pixels along an edge of a latent cell.
        multiple: a resolution must be a multiple of this.
        largest: and at most this; None for any.
    """

    name: str
    denoiser: Network
    schedule: Schedule
    conditions: Any
    channels: int
    resolution: int
    downscale: int
    multiple: int
    largest: int | None

    def latent_shape(self, resolution: int) -> tuple[int, int, int]:
        """(h, w, c) at a resolution; DiffjaxError if the model cannot take it."""
        check_resolution(resolution, self)
        edge = resolution // self.downscale
        return edge, edge, self.channels


@dataclass(frozen=True, kw_only=True)
class Timing:
    """A tile's speed.

    Attributes:
        dtype: of the denoiser.
        resolution: pixels along an edge.
        blocks: of the tile, samples.
        classes: of each block.
        seconds: of a tile, median; None if memory does not hold it.
        evaluations_per_second: classes × samples, with what they share done once.
        flops: of a tile, as compiled.
        flops_per_second: all devices together.
        share_of_peak: of the measured matrix product in the same dtype.
        intensity: FLOPs a byte, as the compiler counts bytes; None if it does not.
        roofline: FLOP/s that are possible at this intensity.
        share_of_roofline: of those.
    """

    dtype: str
    resolution: int
    blocks: int
    classes: int
    seconds: float | None = None
    evaluations_per_second: float | None = None
    flops: float | None = None
    flops_per_second: float | None = None
    share_of_peak: float | None = None
    intensity: float | None = None
    roofline: float | None = None
    share_of_roofline: float | None = None


@dataclass(kw_only=True)
class Bench:
    """A model on this process's devices, in one dtype, made ready to be timed.

    Raises DiffjaxError where the model cannot be had or there is no such dtype.
    """

    model: str
    random: bool
    dtype: str
    parts: Mapping[str, Any] = field(default_factory=dict)  # as for ``load_model``

    def __post_init__(self) -> None:
        self._mesh = block_mesh()
        self.dtype = str(compute_dtype(self.dtype))

    @cached_property
    def subject(self) -> Subject:
        """Loaded, on every device."""
        subject = (
            random_subject(self.model, self.dtype)
            if self.random
            else subject_of(load_model(self.model, dtype=self.dtype, **self.parts))
        )
        return replace(subject, denoiser=replicate(subject.denoiser, self._mesh))

    @cached_property
    def peak(self) -> Peak:
        """Of the devices, in this dtype."""
        return measure_peak(self._mesh, self.dtype)

    @property
    def device(self) -> str:
        """What is timed: "1 × NVIDIA H200", for one."""
        devices = self._mesh.devices.flat
        return f"{len(devices)} × {devices[0].device_kind}"

    def timings(
        self,
        resolutions: Sequence[int] = (),
        blocks: Sequence[int] = (),
        classes: Sequence[int] = (8,),
    ) -> Iterator[Timing]:
        """Time every combination.

        Args:
            resolutions: in pixels; none for the model's own.
            blocks: of a tile; none for as many as `diffjax evaluate` would take.
            classes: of a block.

        Raises:
            DiffjaxError: if one of them does not fit the model or the devices.
        """
        subject = self.subject
        for resolution in resolutions or (subject.resolution,):
            shape = subject.latent_shape(resolution)
            needs = subject.denoiser.module().memory(*shape[:2])
            grid = Grid(
                denoiser=subject.denoiser,
                schedule=replicate(subject.schedule, self._mesh),
                noise=replicate(SeededNoise.of(0), self._mesh),
                losses=("l2",),
                cells=cells_that_fit(needs, self._mesh),
                mesh=self._mesh,
            )
            for k in classes:
                for n in blocks or (grid.tile(k).blocks,):
                    if n % grid.devices:
                        raise DiffjaxError(
                            f"{n} blocks cannot be split among {grid.devices} devices."
                        )
                    tile = Tile(blocks=n, classes=k)
                    yield self._timing(grid, tile, resolution, shape)

    def _timing(
        self, grid: Grid, tile: Tile, resolution: int, shape: tuple[int, int, int]
    ) -> Timing:
        timing = Timing(
            dtype=self.dtype,
            resolution=resolution,
            blocks=tile.blocks,
            classes=tile.classes,
        )
        same = take(self.subject.conditions, np.zeros(tile.classes, int))
        conditions = replicate(same, self._mesh)
        try:
            cost = tile_cost(grid, tile, conditions, shape)
        except RuntimeError as error:  # of JAX, which this room does not know
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            return timing
        speed = cost.flops / cost.seconds
        size = cost.bytes_accessed
        roofline = self.peak.roofline(cost.flops / size) if size else None
        return replace(
            timing,
            seconds=cost.seconds,
            evaluations_per_second=tile.cells / cost.seconds,
            flops=cost.flops,
            flops_per_second=speed,
            share_of_peak=speed / self.peak.flops,
            intensity=cost.flops / size if size else None,
            roofline=roofline,
            share_of_roofline=speed / roofline if roofline else None,
        )

    def describe(self) -> dict[str, Any]:
        """The peak that was measured, as JSON values."""
        return {"dtype": self.dtype, **asdict(self.peak)}


def subject_of(model: DiffusionModel) -> Subject:
    """A loaded model, with the condition that stands for no class."""
    # any image would do
    told = {"sizes": np.zeros((1, SIZES), np.int32)} if model.sizes else {}
    return Subject(
        name=model.name,
        denoiser=model.denoiser,
        schedule=model.schedule,
        conditions=told_of(model.unconditional(), told),
        channels=model.latent_channels,
        resolution=model.resolution,
        downscale=model.downscale,
        multiple=model.multiple,
        largest=model.largest,
    )


def random_subject(name: str, dtype: str, *, weights: bool = True) -> Subject:
    """A published denoiser's size with random weights, or their shapes.

    Raises:
        DiffjaxError: if there is no such name.
    """
    found = untrained(name, dtype, weights=weights)
    config = found.config
    patch = getattr(config, "patch_size", 1)  # of a transformer
    downscale = 2 if name == "tiny" else DOWNSCALE
    return Subject(
        name=f"{name}, random weights",
        denoiser=found.network,
        schedule=read_schedule(SCHEDULER, "bench"),
        conditions=found.conditions,
        channels=config.in_channels // getattr(config, "packed", 1),
        resolution=config.sample_size * downscale,
        downscale=downscale,
        multiple=downscale * patch,
        largest=largest_resolution(config, downscale),
    )


def report(name: str, device: str, **found: Any) -> dict[str, Any]:
    """All that was found out about a model, and where, as JSON values."""
    return {
        "model": name,
        "environment": environment(device),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        **found,
    }
