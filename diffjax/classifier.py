"""The classifier: where images and labels, the grid and the strategy meet.

clf = DiffusionClassifier.from_pretrained("sd-2-base")
clf("cat.jpg", candidate_labels=["cat", "dog"])
record = clf.classify("cat.jpg", ["cat", "dog"])        # everything that is known
"""

import os
import time
import warnings
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float
from PIL import Image

from diffjax.checkpoints.loading import load_model
from diffjax.data.images import ImageSource, Transform, load_image, preprocess
from diffjax.data.labels import class_ids
from diffjax.data.prompts import DEFAULT_TEMPLATE, Prompts
from diffjax.errors import DiffjaxError
from diffjax.models.diffusion import DiffusionModel
from diffjax.record import Record
from diffjax.scoring.grid import Grid
from diffjax.scoring.noise import Noise, SeededNoise, read_noise
from diffjax.scoring.placement import cells_that_fit, replicate, sample_mesh
from diffjax.settings import Settings
from diffjax.strategies import parse_strategy
from diffjax.strategies.base import Request, State, Strategy, run

# as the models were trained
TRANSFORMS: dict[str, Transform] = {"text": "resize_crop", "class": "adm"}


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


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidates:
    """Classes made ready for a model: what the grid needs of them.

    Attributes:
        prompts: rows, their classes, and the classes' names.
        conditions: text states [P, l, d] or class ids [P], on the devices.
        truncated: prompts that were too long and have been cut.
    """

    prompts: Prompts
    conditions: Array
    truncated: tuple[str, ...] = ()


class DiffusionClassifier:
    """Classifies images by a diffusion model's noise-prediction errors."""

    def __init__(self, model: DiffusionModel, settings: Settings | None = None) -> None:
        """Place a loaded model on this process's devices."""
        self.model = model
        self.settings = settings or Settings()
        self._mesh = sample_mesh()
        self.transform = cast(
            Transform, self.settings.transform or TRANSFORMS[model.kind]
        )
        asked = self.settings.resolution
        self.resolution = model.resolution if asked is None else asked
        if self.resolution % model.multiple:
            raise DiffjaxError(
                f"A resolution of {self.resolution} does not fit {model.name}: it must "
                f"be a multiple of {model.multiple}."
            )
        edge = self.resolution // model.downscale
        self._latent_shape = (edge, edge, model.latent_channels)
        needs = model.denoiser.module().memory(edge, edge)
        self._grid = Grid(
            denoiser=replicate(model.denoiser, self._mesh),
            schedule=replicate(model.schedule, self._mesh),
            loss=self.settings.loss,
            cells=self.settings.cells or cells_that_fit(needs, self._mesh),
            mesh=self._mesh,
        )
        self._table: Noise | None = None
        if self.settings.noise not in ("image", "shared"):
            self._table = replicate(
                read_noise(Path(self.settings.noise), self._latent_shape), self._mesh
            )

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path = "tiny",
        *,
        dtype: DTypeLike = jnp.float32,
        strategy: Strategy | str | None = None,
        unet: str | Path | None = None,
        transformer: str | Path | None = None,
        vae: str | Path | None = None,
        text_encoder: str | Path | None = None,
        tokenizer: str | Path | None = None,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
        **settings: Any,
    ) -> "DiffusionClassifier":
        """Load a model and make a classifier of it.

        Args:
            name_or_path: a name of ``diffjax models``, a folder in the diffusers
                layout, or a Hugging Face id. This and all arguments but the last two
                are those of ``load_model``, which tells more.
            dtype: float32, bfloat16 or float16, of the denoiser.
            unet: the U-Net from elsewhere.
            transformer: likewise of a DiT.
            vae: likewise.
            text_encoder: likewise.
            tokenizer: likewise.
            revision: on the Hub.
            cache_dir: of downloads.
            token: for the Hub.
            local_files_only: no network.
            strategy: a ``Strategy``, or as text: "staged:to_keep=5,1:n_samples=25,250".
            **settings: the other fields of ``Settings``.

        Raises:
            DiffjaxError: if the model cannot be found, read or run, or a setting is
                not understood.
        """
        if isinstance(strategy, str):
            strategy = parse_strategy(strategy)
        if strategy is not None:
            settings["strategy"] = strategy
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
        )
        return cls(model, chosen)

    def __call__(
        self,
        images: ImageSource | Array | Sequence[ImageSource],
        candidate_labels: Sequence[str] | str | None = None,
        hypothesis_template: str = DEFAULT_TEMPLATE,
    ) -> list[Any]:
        """Scores as transformers' zero-shot-image-classification pipeline has them.

        Args:
            images: a path, URL, PIL image or array; or a list of them.
            candidate_labels: class names, or one string with commas. A
                class-conditional model takes all its classes if there are none.
            hypothesis_template: with one {}; not used by class-conditional models.

        Returns:
            A list of {"score", "label"}, best first; for a list of images a list of
            such lists. Classes that were pruned say so: see ``Record.scores``.

        Raises:
            DiffjaxError: if an image cannot be read or the labels make no sense.
        """
        if isinstance(candidate_labels, str):
            candidate_labels = [part.strip() for part in candidate_labels.split(",")]
        candidates = self.candidates(candidate_labels, hypothesis_template)
        if isinstance(images, jax.Array):
            images = np.asarray(images)
        if isinstance(images, str | bytes | os.PathLike | np.ndarray | Image.Image):
            return self.classify(images, candidates).scores()
        return [self.classify(image, candidates).scores() for image in images]

    def candidates(
        self,
        labels: Sequence[str] | Prompts | None,
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
            return self._class_candidates(labels)
        if labels is None:
            raise DiffjaxError(f"{self.model.name} needs labels to choose from.")
        if not isinstance(labels, Prompts):
            labels = Prompts.from_labels(labels, template)
        mean = self.settings.merge == "mean"
        states, truncated = self.model.text_states(
            labels.prompts, np.asarray(labels.classidx) if mean else None
        )
        if truncated:
            warnings.warn(
                f"{len(truncated)} of {len(labels.prompts)} prompts are too long for "
                f"{self.model.name} and were cut at its last token: "
                f"{', '.join(map(_shortened, truncated[:3]))}.",
                stacklevel=2,
            )
        return Candidates(
            prompts=_merged(labels) if mean else labels,
            conditions=replicate(states, self._mesh),
            truncated=truncated,
        )

    def classify(
        self,
        image: ImageSource,
        labels: Sequence[str] | Prompts | Candidates | None = None,
        template: str | Sequence[str] = DEFAULT_TEMPLATE,
        *,
        progress: Callable[[Progress], None] = lambda progress: None,
    ) -> Record:
        """Classify one image and tell everything.

        Args:
            image: a path, URL, PIL image or array.
            labels: class names, ``Prompts``, or ``candidates`` made once for many
                images.
            template: as in ``candidates``.
            progress: called after each tile.

        Raises:
            DiffjaxError: if the image cannot be read, the labels make no sense, or
                the network's numbers overflow.
        """
        if not isinstance(labels, Candidates):
            labels = self.candidates(labels, template)
        return self._run(self.pixels(image), labels, progress)

    def pixels(self, image: ImageSource) -> Float[np.ndarray, "h w 3"]:
        """An image as the model sees it, in [−1, 1]."""
        return preprocess(
            load_image(image),
            self.resolution,
            transform=self.transform,
            interpolation=self.settings.interpolation,
        )

    def _class_candidates(self, labels: Iterable[str] | None) -> Candidates:
        n = self.model.n_classes
        assert n is not None  # of every class-conditional model
        names = self.model.class_names or tuple(map(str, range(n)))
        ids = (
            tuple(range(n))
            if labels is None
            else class_ids(tuple(labels), self.model.class_names, n)
        )
        chosen = names if labels is None else tuple(labels)
        return Candidates(
            prompts=Prompts(
                prompts=chosen, classidx=tuple(range(len(ids))), class_names=chosen
            ),
            conditions=replicate(jnp.asarray(ids, jnp.int32), self._mesh),
        )

    def _run(
        self,
        pixels: Float[np.ndarray, "h w 3"],
        candidates: Candidates,
        progress: Callable[[Progress], None],
    ) -> Record:
        start = time.perf_counter()
        z0 = replicate(self.model.latent(pixels), self._mesh)
        noise = self._noise(pixels)
        strategy = self.settings.strategy
        prompts = candidates.prompts

        def evaluate(state: State, request: Request) -> Float[np.ndarray, "k s"]:
            before, to_come = state.n_evaluations, strategy.remaining(state)
            return self._grid.errors(
                noise,
                z0,
                candidates.conditions,
                request.classes,
                state.samples.timesteps[request.samples],
                state.samples.noises[request.samples],
                lambda cells: progress(
                    Progress(
                        done=before + cells,
                        remaining=to_come - cells,
                        alive=len(request.classes),
                    )
                ),
            )

        n_timesteps = self.model.schedule.n_timesteps
        state = run(strategy, len(prompts.prompts), n_timesteps, evaluate)
        return Record(
            pixels=pixels,
            labels=prompts.class_names,
            prompts=prompts.prompts,
            classidx=np.asarray(prompts.classidx),
            truncated=candidates.truncated,
            samples=state.samples,
            table=state.table,
            prompt_decision=strategy.decide(state),
            temperature=self.settings.temperature,
            seconds=time.perf_counter() - start,
            settings=self.model.origin
            | self.settings.as_dict()
            | {"resolution": self.resolution, "transform": self.transform},
        )

    def _noise(self, pixels: Float[np.ndarray, "h w 3"]) -> Noise:
        if self._table is not None:
            return self._table
        # known by its pixels, an image keeps its noise wherever it stands in a list
        shared = self.settings.noise == "shared"
        image = 0 if shared else zlib.crc32(pixels.tobytes())
        noise = SeededNoise.of(self.settings.seed, image)
        return replicate(noise, self._mesh)


def _shortened(text: str, most: int = 40) -> str:
    return repr(text if len(text) <= most else text[: most - 1] + "…")


def _merged(prompts: Prompts) -> Prompts:
    """One row a class, named by all its prompts."""
    texts: list[list[str]] = [[] for _ in prompts.class_names]
    for text, c in zip(prompts.prompts, prompts.classidx, strict=True):
        texts[c].append(text)
    return Prompts(
        prompts=tuple(map(" | ".join, texts)),
        classidx=tuple(range(len(texts))),
        class_names=prompts.class_names,
    )
