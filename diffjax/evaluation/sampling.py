"""Images of a model, drawn into a folder."""

import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from diffjax.checkpoints.families import with_guidance
from diffjax.classify.classifier import DiffusionClassifier
from diffjax.classify.progress import Progress
from diffjax.classify.seen import told as told_by
from diffjax.data.drawn import DrawnFolder
from diffjax.data.sheets import as_bytes
from diffjax.errors import DiffjaxError
from diffjax.evaluation.subjects import Subjects
from diffjax.models.conditions import in_dtype
from diffjax.models.diffusion import DiffusionModel
from diffjax.models.flux import FluxTransformer2DConfig
from diffjax.models.mmdit import SD3Transformer2DConfig
from diffjax.models.pixart import PixArtTransformer2DConfig
from diffjax.scoring.cost import tile_cost
from diffjax.scoring.grid import Tile
from diffjax.scoring.images import Batch, Told, draw_images
from diffjax.scoring.placement import replicate

FORMAT = 1


class Usual(NamedTuple):
    """How a family is usually sampled.

    Attributes:
        steps: forward passes, or pairs of them where it is guided.
        guidance: of equation (2) of ``models.sampling``, or what FLUX.1 dev is told.
    """

    steps: int
    guidance: float


def is_flux(model: DiffusionModel) -> bool:
    """Whether a model is distilled from one that was guided, and is not guided."""
    config = getattr(model.denoiser.module(), "config", None)
    return isinstance(config, FluxTransformer2DConfig)


def usual(model: DiffusionModel) -> Usual:
    """The defaults of the family's pipeline in diffusers; of SiT and REPA, DiT's."""
    config = getattr(model.denoiser.module(), "config", None)
    if isinstance(config, FluxTransformer2DConfig):
        return Usual(28, 3.5) if config.guidance_embeds else Usual(4, 1.0)
    if isinstance(config, SD3Transformer2DConfig):
        return Usual(28, 7.0)
    if isinstance(config, PixArtTransformer2DConfig):
        return Usual(20, 4.5)
    if model.kind == "class":
        return Usual(50, 4.0)
    return Usual(50, 5.0 if model.sizes else 7.5)


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """What drawing takes on this machine.

    Attributes:
        images: of all classes.
        done: of them, that are there.
        evaluations_per_image: forward passes.
        batch: images at once, on all devices.
        flops_per_image: of the denoiser.
        seconds_per_image: the same, timed on a few batches of one step.
        device: they were timed on.
    """

    images: int
    done: int
    evaluations_per_image: int
    batch: int
    flops_per_image: float
    seconds_per_image: float
    device: str

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values, the time that is left included."""
        left = self.images - self.done
        return asdict(self) | {"seconds": left * self.seconds_per_image}


class Sampler:
    """Draws images of classes by a model on its devices.

    Attributes:
        subjects: the classes.
        settings: what decides the images, besides the model and the seed; plain JSON
            values.
        batch: how many images are drawn at once, a multiple of the devices.
    """

    def __init__(
        self,
        classifier: DiffusionClassifier,
        subjects: Subjects,
        *,
        steps: int | None = None,
        guidance: float | None = None,
        batch: int | None = None,
    ) -> None:
        """Make ready what all images share.

        Args:
            classifier: a model on its devices; its seed is that of the noise.
            subjects: the classes.
            steps: forward passes; the family's usual number by default.
            guidance: the scale; the family's usual one by default, and 1 for none.
            batch: images at once; by default what memory holds.

        Raises:
            DiffjaxError: if the model cannot be sampled so.
        """
        model = classifier.model
        known = usual(model)
        steps = known.steps if steps is None else steps
        guidance = known.guidance if guidance is None else guidance
        if not 0 <= guidance < float("inf"):
            raise DiffjaxError(f"The guidance is {guidance}; it must be 0 or above.")
        conditioner, flux = model.conditioner, is_flux(model)
        if conditioner is not None and "guidance" in conditioner.settings:
            model = with_guidance(model, guidance)
        elif flux and guidance != 1:
            raise DiffjaxError(
                f"{model.name} is told no guidance and takes none, as FLUX.1 schnell. "
                "Leave --guidance away."
            )
        resolution, mesh = classifier.resolution, classifier.grid.mesh
        levels = model.steps(steps, resolution)
        rows = subjects.conditions(model)
        nothing = None
        if guidance != 1 and not flux:
            nothing = in_dtype(model.unconditional(), model.denoiser.dtype)
        told = Told(
            conditions=rows,
            nothing=nothing,
            image=told_by(classifier.settings, resolution, resolution),
            guidance=np.float32(guidance),
            scale=np.float32(model.scaling_factor),
            shift=np.float32(model.shift_factor),
        )
        self.subjects = subjects
        self.model = model
        self.classifier = classifier
        self.passes = 1 if nothing is None else 2
        self._asked = batch
        self.batch = self.whole(batch or classifier.grid.cells // self.passes)
        self.settings: dict[str, Any] = {
            "steps": steps,
            "guidance": guidance,
            "resolution": resolution,
            "sampling": sampling_dict(model, resolution),
        }
        self._told = replicate(told, mesh)
        self._steps = replicate(levels, mesh)
        self._autoencoder = replicate(model.autoencoder, mesh)
        self._keys = [zlib.crc32(name.encode()) for name in subjects.names]

    def whole(self, batch: int) -> int:
        """About so many images, and as many on each device."""
        devices = self.classifier.grid.devices
        return max(1, batch // devices) * devices

    @property
    def evaluations(self) -> int:
        """Forward passes an image."""
        return int(self.settings["steps"]) * self.passes

    def open(self, path: Path) -> DrawnFolder:
        """Open the folder of its images, whose batches go on as they began.

        Raises:
            DiffjaxError: if it holds something else.
        """
        names, prompt = self.subjects.names, self.subjects.prompt
        folder = DrawnFolder(path, names, prompt, self._header())
        self.batch = self.whole(folder.header["batch"] or self.batch)
        folder.header["batch"] = self.batch
        return folder

    def _header(self) -> dict[str, Any]:
        """What a folder of its images says; the batch, if one was asked for."""
        return {
            "format": FORMAT,
            "model": self.model.name,
            "dtype": str(np.dtype(self.model.denoiser.dtype)),
            "fingerprint": self.model.fingerprint,
            "classes": list(self.subjects.names),
            "prompts": [list(each) for each in self.subjects.prompts],
            "seed": self.classifier.settings.seed,
            **self.settings,
            "batch": None if self._asked is None else self.whole(self._asked),
            "device": self.classifier.device,
        }

    def draw(self, images: list[tuple[int, int]]) -> Any:
        """Begin to draw images, each a class and a number; at most a batch.

        Returns:
            The pixels, on the devices: about [−1, 1], [batch, H, W, 3], of which the
            first are those asked for.
        """
        full = images + images[-1:] * (self.batch - len(images))
        labels, numbers = np.array(full, np.int32).T
        batch = Batch(
            keys=np.array(self._keys, np.uint32)[labels],
            numbers=numbers,
            rows=np.array([self.subjects.row(c, k) for c, k in full], np.int32),
        )
        grid = self.classifier.grid
        return draw_images(
            grid.denoiser,
            self._autoencoder,
            self._steps,
            grid.noise,
            self._told,
            batch,
            shape=self.classifier.latent_shape,
            mesh=grid.mesh,
            sharded=grid.sharded,
        )

    def cost(self) -> tuple[float, float]:
        """FLOPs and seconds of an image's forward passes; a few batches are timed."""
        tile = Tile(blocks=self.batch, classes=self.passes)
        found = tile_cost(
            self.classifier.grid,
            tile,
            self._told.conditions,
            self.classifier.latent_shape,
            self._told.image,
        )
        times = int(self.settings["steps"]) / self.batch
        return found.flops * times, found.seconds * times


def sampling_dict(model: DiffusionModel, resolution: int) -> dict[str, Any]:
    """Which method samples a model, and by which settings; plain JSON values."""
    assert model.sampling_at is not None  # or there were no steps
    found = model.sampling_at(resolution)
    return {"method": type(found).__name__, **asdict(found)}


def batches(
    n_classes: int, per_class: int, batch: int
) -> Iterator[list[tuple[int, int]]]:
    """All images, as (class, number): the first of each class, then the second, …

    More of a class are further batches, and what was drawn before stays as it is.
    """
    images = [(c, k) for k in range(per_class) for c in range(n_classes)]
    for start in range(0, len(images), batch):
        yield images[start : start + batch]


def draw_folder(
    sampler: Sampler, folder: DrawnFolder, per_class: int, progress: Progress
) -> None:
    """Draw what is missing of a folder.

    A batch of which an image is missing is drawn whole, so that an image is computed
    beside the same others as if nothing had been interrupted.
    """
    n_classes, todo = len(sampler.subjects.names), []
    for images in batches(n_classes, per_class, sampler.batch):
        if any(absent := [not folder.has(*image) for image in images]):
            todo.append((images, absent))
    folder.begin()
    progress.total = n_classes * per_class
    progress.before = progress.total - sum(sum(absent) for _, absent in todo)
    progress.done = progress.before
    progress.watch(progress)

    def write(images: list[tuple[int, int]], absent: list[bool], drawn: Any) -> None:
        pixels = jax.device_get(drawn)
        progress.advance(len(images) * sampler.evaluations)
        for image, is_absent, each in zip(images, absent, pixels, strict=False):
            if is_absent:
                folder.add(*image, as_bytes(each))
                progress.count()

    try:
        ahead: tuple[Any, ...] | None = None
        for images, absent in todo:
            drawn = sampler.draw(images)
            if ahead is not None:  # written while the next is computed
                write(*ahead)
            ahead = images, absent, drawn
        if ahead is not None:
            write(*ahead)
    finally:
        folder.flush()


def outlook(sampler: Sampler, folder: DrawnFolder, per_class: int) -> Drawing:
    """What drawing would take; nothing is drawn."""
    flops, seconds = sampler.cost()
    subjects = sampler.subjects
    n_classes = len(subjects.names)
    done = sum(folder.has(c, k) for k in range(per_class) for c in range(n_classes))
    return Drawing(
        images=n_classes * per_class,
        done=done,
        evaluations_per_image=sampler.evaluations,
        batch=sampler.batch,
        flops_per_image=flops,
        seconds_per_image=seconds,
        device=sampler.classifier.device,
    )
