"""The classifier: where images and labels, the grid and the strategy meet.

clf = DiffusionClassifier.from_pretrained("sd-2-base")
clf("cat.jpg", candidate_labels=["cat", "dog"])
record = clf.classify("cat.jpg", ["cat", "dog"])        # everything that is known
"""

import os
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float
from PIL import Image

from diffjax.checkpoints.loading import load_model
from diffjax.classify.candidates import (
    Candidates,
    class_candidates,
    named_candidates,
    prompt_candidates,
)
from diffjax.classify.estimates import Estimates
from diffjax.classify.record import Record
from diffjax.classify.search import Encoded, ImageSearch
from diffjax.classify.settings import Settings
from diffjax.classify.temperature import read_calibration, warn_of_others
from diffjax.data.images import ImageSource, load_image, preprocess
from diffjax.data.prompts import DEFAULT_TEMPLATE, Prompts, split_labels
from diffjax.errors import DiffjaxError, NotFiniteError
from diffjax.models.diffusion import DiffusionModel
from diffjax.scoring.grid import Grid
from diffjax.scoring.losses import NEED_VARIANCE
from diffjax.scoring.noise import NoiseTable, SeededNoise, read_noise
from diffjax.scoring.packing import Packer
from diffjax.scoring.placement import (
    block_mesh,
    cells_that_fit,
    check_same,
    place_weights,
    replicate,
    shards_weights,
)
from diffjax.scoring.work import Work
from diffjax.strategies import parse_shortlist, parse_strategy
from diffjax.strategies.base import Strategy

# as the models were trained
TRANSFORMS = {"text": "resize_crop", "class": "adm"}


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far the classification of an image is.

    Attributes:
        done: evaluations so far.
        remaining: evaluations still to come, at most.
        alive: classes (prompts) not yet pruned.
    """

    done: int
    remaining: int
    alive: int


class DiffusionClassifier:
    """Classifies images by a diffusion model's noise-prediction errors."""

    def __init__(self, model: DiffusionModel, settings: Settings | None = None) -> None:
        """Place a loaded model on this process's devices."""
        settings = settings or Settings()
        self.model = model
        self.resolution = settings.resolution or model.resolution
        self.transform = settings.transform or TRANSFORMS[model.kind]
        self.settings = replace(
            settings, resolution=self.resolution, transform=self.transform
        )
        everywhere = self.settings.devices == "global"
        self._mesh = block_mesh(jax.devices()) if everywhere else block_mesh()
        if self.resolution % model.multiple:
            raise DiffjaxError(
                f"A resolution of {self.resolution} does not fit {model.name}: it must "
                f"be a multiple of {model.multiple}."
            )
        losses = (self.settings.loss, *self.settings.also)
        without = [loss for loss in losses if loss in NEED_VARIANCE]
        if without and not (model.learned_variance and model.schedule.posterior):
            raise DiffjaxError(
                f"{model.name} does not predict the variance of a step, which the loss "
                f"{without[0]} needs; DiT does, and no flow. Use l2, l1 or huber."
            )
        edge = self.resolution // model.downscale
        self.model = model = model.at(self.resolution)
        self.latent_shape = (edge, edge, model.latent_channels)
        needs = model.denoiser.module().memory(edge, edge)
        sharded = shards_weights(
            self.settings.shard_weights, model.denoiser, self._mesh
        )
        self.grid = Grid(
            denoiser=place_weights(model.denoiser, self._mesh, sharded=sharded),
            schedule=replicate(model.schedule, self._mesh),
            noise=replicate(self._noise(), self._mesh),
            losses=losses,
            cells=self.settings.cells or cells_that_fit(needs, self._mesh),
            mesh=self._mesh,
            sharded=sharded,
        )
        self.work = Work()  # of the devices, so far
        self._estimates: Estimates | None = None  # of the latest candidates

    @property
    def device(self) -> str:
        """What evaluates: "2 × NVIDIA H200", for one."""
        devices = self._mesh.devices.flat
        return f"{len(devices)} × {devices[0].device_kind}"

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path = "tiny",
        *,
        dtype: DTypeLike = "auto",
        strategy: Strategy | str | None = None,
        temperature: float | str | Path | None = None,
        unet: str | Path | None = None,
        transformer: str | Path | None = None,
        vae: str | Path | None = None,
        text_encoder: str | Path | None = None,
        tokenizer: str | Path | None = None,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
        variant: str | None = None,
        **settings: Any,
    ) -> "DiffusionClassifier":
        """Load a model and make a classifier of it.

        Args:
            name_or_path: a folder in the diffusers layout, a name of
                ``diffjax models``, or a Hugging Face id. This and the next arguments
                are those of ``load_model``, which tells more.
            dtype: float32, bfloat16 or float16, of the denoiser; "auto" is bfloat16 on
                accelerators and float32 on a CPU.
            unet: the U-Net from elsewhere.
            transformer: likewise of a DiT.
            vae: likewise.
            text_encoder: likewise.
            tokenizer: likewise.
            revision: on the Hub.
            cache_dir: of downloads.
            token: for the Hub.
            local_files_only: no network.
            variant: of the weights, such as "fp16".
            strategy: a ``Strategy``, or as text: "racing:confidence=0.95".
            temperature: of the scores, or the folder of a run that was calibrated
                (`diffjax calibrate`), or its calibration.json.
            **settings: the other fields of ``Settings``; a shortlist also as text:
                "k=50:rounds=2".

        Raises:
            DiffjaxError: if the model cannot be found, read or run, or a setting is
                not understood.
        """
        if isinstance(strategy, str):
            strategy = parse_strategy(strategy)
        if isinstance(settings.get("shortlist"), str):
            settings["shortlist"] = parse_shortlist(settings["shortlist"])
        if strategy is not None:
            settings["strategy"] = strategy
        if isinstance(temperature, str | Path):
            calibration = read_calibration(temperature)
            warn_of_others(calibration, str(name_or_path), settings.get("loss", "l2"))
            temperature = float(calibration["temperature"])
        if temperature is not None:
            settings["temperature"] = temperature
        chosen = Settings(**settings)
        model = load_model(
            name_or_path,
            dtype=dtype,
            unet=unet,
            transformer=transformer,
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            revision=revision,
            cache_dir=cache_dir,
            token=token,
            local_files_only=local_files_only,
            variant=variant,
        )
        return cls(model, chosen)

    def __call__(
        self,
        images: ImageSource | Array | Sequence[ImageSource],
        candidate_labels: Iterable[Any] | str | None = None,
        hypothesis_template: str = DEFAULT_TEMPLATE,
    ) -> list[Any]:
        """Scores as transformers' zero-shot-image-classification pipeline has them.

        Args:
            images: a path, URL, PIL image or array; or a list of them.
            candidate_labels: class names, or one string with commas (and
                double quotes around a name with a comma). A
                class-conditional model takes all its classes if there are none.
            hypothesis_template: with one {}; not used by class-conditional models.

        Returns:
            A list of {"score", "label"}, best first; for a list of images a list of
            such lists. Classes that were pruned say so: see ``Record.scores``.

        Raises:
            DiffjaxError: if an image cannot be read or the labels make no sense.
        """
        if isinstance(candidate_labels, str):
            candidate_labels = split_labels(candidate_labels)
        candidates = self.candidates(candidate_labels, hypothesis_template)
        if isinstance(images, jax.Array):
            images = np.asarray(images)
        if isinstance(images, str | bytes | os.PathLike | np.ndarray | Image.Image):
            return self.classify(images, candidates).scores()
        return [self.classify(image, candidates).scores() for image in images]

    def candidates(
        self,
        labels: Iterable[Any] | Prompts | None,
        template: str | Sequence[str] = DEFAULT_TEMPLATE,
    ) -> Candidates:
        """Make classes ready: encode prompts, or look up class ids.

        Args:
            labels: class names, or whole ``Prompts``; None for all classes of a
                class-conditional model.
            template: one or several, with one {} each.

        Raises:
            DiffjaxError: if the labels make no sense or the model lacks them.
        """
        if self.model.kind == "class":
            if isinstance(labels, Prompts) or template != DEFAULT_TEMPLATE:
                warnings.warn(
                    f"{self.model.name} knows classes by id: prompts are not used.",
                    stacklevel=2,
                )
            if isinstance(labels, Prompts):
                labels = labels.class_names
            return named_candidates(self.model, labels, self._mesh)
        if labels is None:
            raise DiffjaxError(f"{self.model.name} needs labels to choose from.")
        if not isinstance(labels, Prompts):
            labels = Prompts.from_labels(labels, template)
        return prompt_candidates(self.model, labels, self.settings.merge, self._mesh)

    def classes(self, ids: Sequence[Sequence[int]], names: Sequence[str]) -> Candidates:
        """Make classes of a class-conditional model ready, by number.

        Args:
            ids: of each class the model's class ids that stand for it; the best one
                represents it.
            names: of the classes.

        Raises:
            DiffjaxError: if the model has no such ids.
        """
        return class_candidates(self.model, ids, names, self._mesh)

    def classify(
        self,
        image: ImageSource,
        labels: Iterable[Any] | Prompts | Candidates | None = None,
        template: str | Sequence[str] = DEFAULT_TEMPLATE,
        *,
        prefilter: Callable[[np.ndarray], Sequence[int]] | None = None,
        progress: Callable[[Progress], None] = lambda progress: None,
    ) -> Record:
        """Classify one image and tell everything.

        Args:
            image: a path, URL, PIL image or array.
            labels: class names, ``Prompts``, or ``candidates`` made once for many
                images.
            template: as in ``candidates``.
            prefilter: from the image's pixels [h, w, 3] in [−1, 1], the classes (their
                places among the labels) to choose from; the others are not evaluated.
            progress: called after each tile.

        Raises:
            DiffjaxError: if the image cannot be read, the labels make no sense, the
                prefilter leaves none, or the network's numbers overflow.
        """
        if not isinstance(labels, Candidates):
            labels = self.candidates(labels, template)
        one = self.encode(image)
        asked = f"{labels.prompts} {self.model.origin} {self.settings}"
        check_same(zlib.crc32(asked.encode()), self._mesh, "labels and settings")

        def tile(search: ImageSearch, cells: int) -> None:
            alive = int(search.state.living.sum())
            progress(
                Progress(done=search.done, remaining=search.remaining, alive=alive)
            )

        if prefilter is not None:
            among = tuple(map(int, prefilter(one.pixels)))
            one = replace(one, among=among)
        [(_, result)] = self.score([one], labels, tile)
        if isinstance(result, NotFiniteError):
            raise result
        return result

    def encode(self, image: ImageSource) -> Encoded:
        """An image as the grid takes it; DiffjaxError if it cannot be read."""
        pixels = self.pixels(image)
        # known by its pixels, an image keeps its noise wherever it stands in a list
        key = zlib.crc32(pixels.tobytes())
        check_same(key, self._mesh, "image")
        z0 = jax.device_get(self.model.latent(pixels))
        return Encoded(pixels=pixels, z0=z0, key=key)

    def pixels(self, image: ImageSource) -> Float[np.ndarray, "h w 3"]:
        """An image as the model sees it, in [−1, 1]."""
        return preprocess(
            load_image(image),
            self.resolution,
            transform=self.transform,
            interpolation=self.settings.interpolation,
        )

    def score(
        self,
        images: Iterable[Encoded],
        candidates: Candidates,
        tile: Callable[[ImageSearch, int], None] = lambda search, cells: None,
    ) -> Iterator[tuple[Encoded, Record | NotFiniteError]]:
        """Classify images whose latents are known, many at a time.

        Images are taken as they are needed and come back as they get done, in any
        order. What is known of one does not depend on the others.

        Args:
            images: with their latents.
            candidates: of ``candidates`` or ``classes``.
            tile: is told, for each image in a tile, how many of its evaluations that
                tile has done.

        Yields:
            An image and its record, or the error that says how its numbers overflowed.

        Raises:
            DiffjaxError: if the strategy does not fit, or the device's memory does not
                hold the smallest tile.
        """
        n_timesteps = self.model.schedule.n_timesteps
        estimates = self.estimates(candidates)
        searches = (
            ImageSearch(image, candidates, self.settings, n_timesteps, tile, estimates)
            for image in images
        )
        described = self.model.origin | self.settings.as_dict()
        packer = Packer(
            self.grid, candidates.conditions, len(candidates.prompts.prompts), self.work
        )
        for search in packer.run(searches):
            assert isinstance(search, ImageSearch)  # it gives back what it was given
            try:
                yield search.encoded, search.record(described)
            except NotFiniteError as error:
                yield search.encoded, error

    def estimates(self, candidates: Candidates) -> Estimates | None:
        """What makes shortlists of the candidates; None if all of them take part."""
        shortlist = self.settings.shortlist
        if shortlist is None or len(candidates.prompts.class_names) <= shortlist.k:
            return None
        if self._estimates is None or self._estimates.candidates is not candidates:
            self._estimates = Estimates(
                shortlist, candidates, self.model, self.grid, self.latent_shape
            )
        return self._estimates

    def _noise(self) -> SeededNoise | NoiseTable:
        noise = self.settings.noise
        if noise in ("image", "shared"):
            return SeededNoise.of(self.settings.seed, shared=noise == "shared")
        return read_noise(Path(noise), self.latent_shape)
