"""The classifier, where images and labels, the grid and the strategy meet.

clf = DiffusionClassifier.from_pretrained("sd-2-base")
clf("cat.jpg", candidate_labels=["cat", "dog"])
record = clf.classify("cat.jpg", ["cat", "dog"])         # everything that is known
records = clf.classify(["1.jpg", "2.jpg"], ["cat", "dog"])       # faster together
"""

import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, Unpack, overload

import jax
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from diffjax.checkpoints.loading import load_model
from diffjax.checkpoints.parts import Parts, spelled_out
from diffjax.classify.candidates import Candidates, candidates_of, class_candidates
from diffjax.classify.estimates import Estimates
from diffjax.classify.placing import placed, settled
from diffjax.classify.progress import Progress
from diffjax.classify.record import Record
from diffjax.classify.search import ImageSearch
from diffjax.classify.seen import Encoded, is_one, see, told
from diffjax.classify.settings import Chosen, Options, Settings, settings_from
from diffjax.classify.supply import Supply
from diffjax.data.images import ImageSource
from diffjax.data.prompts import DEFAULT_TEMPLATE, Prompts, split_labels
from diffjax.errors import DiffjaxError, NotFiniteError
from diffjax.models.diffusion import DiffusionModel, check_resolution
from diffjax.models.own import own_model
from diffjax.schedules import Schedule
from diffjax.scoring.packing import Packer
from diffjax.scoring.placement import block_mesh, check_same
from diffjax.scoring.work import Work

PARTS = Parts.__annotations__

Labels = Iterable[Any] | Prompts | Candidates | None
Prefilter = Callable[[np.ndarray], Sequence[int]]
Name = TypeVar("Name")


class DiffusionClassifier:
    """Classifies images by a diffusion model's noise-prediction errors."""

    def __init__(self, model: DiffusionModel, settings: Settings | None = None) -> None:
        """Place a loaded model on this process's devices."""
        settings = settings or Settings()
        self.settings, self.calibration = settled(settings, model)
        self.resolution = self.settings.resolution or model.resolution
        self.transform = self.settings.transform
        self._mesh = block_mesh(jax.devices() if settings.devices == "global" else None)
        check_resolution(self.resolution, model)
        edge = self.resolution // model.downscale
        self.model = model = model.at(self.resolution)
        self.latent_shape = (edge, edge, model.latent_channels)
        self.grid = placed(model, settings, self.latent_shape, self._mesh)
        self.work = Work()  # of the devices, so far
        self._estimates: Estimates | None = None  # of the latest candidates

    def __repr__(self) -> str:
        """One line: model, how it decides, pixels, devices."""
        how = self.settings.in_short()
        return f"<DiffusionClassifier {self.model.name} by {how}, on {self.device}>"

    @property
    def device(self) -> str:
        """The devices that evaluate, as "2 × NVIDIA H200"."""
        devices = self._mesh.devices.flat
        return f"{len(devices)} × {devices[0].device_kind}"

    @classmethod
    @spelled_out
    def from_pretrained(
        cls,
        name_or_path: str | Path = "tiny",
        *,
        dtype: DTypeLike = "auto",
        **options: Unpack[Options],
    ) -> "DiffusionClassifier":
        """Load a model and make a classifier of it.

        Args:
            name_or_path: A folder in the diffusers layout, a name of ``diffjax
                models``, or a Hugging Face id, as for ``load_model``.
            dtype: Number type of the denoiser: float32, bfloat16 or float16; "auto" is
                bfloat16 on accelerators and float32 on a CPU.
            **options: Where the parts of the model come from, as for ``load_model``,
                and the fields of ``Settings``. Strategy and shortlist may be texts, as
                "racing:confidence=0.95" and "auto" or "k=50"; the temperature may be
                the folder of a run that `diffjax calibrate` has calibrated, or its
                calibration.json. A budget, as budget=200, stops a race at so many
                evaluations of an image. None stands for the default.

        Raises:
            DiffjaxError: If the model cannot be found, read or run, or a setting is
                not understood.
        """
        given = {name: value for name, value in options.items() if value is not None}
        parts: Any = {name: given.pop(name) for name in PARTS if name in given}
        settings = settings_from(given, str(name_or_path))
        return cls(load_model(name_or_path, dtype=dtype, **parts), settings)

    @classmethod
    @spelled_out
    def from_denoiser(
        cls,
        predict: Callable[..., Any],
        schedule: Schedule,
        latent_shape: Sequence[int],
        conditions: Any = None,
        *,
        name: str,
        class_names: Sequence[str] | None = None,
        encode: Callable[..., Any] | None = None,
        **options: Unpack[Chosen],
    ) -> "DiffusionClassifier":
        """Make a classifier of a denoiser of your own, written in JAX.

        Args:
            predict: A function, or a pytree that can be called as an Equinox module,
                from (z_t [h, w, c], t, condition) of ONE image to the prediction [h, w,
                c], or [h, w, 2c] with the variance of a step as DiT has it. t is what
                the schedule has the network told. Bind parameters by
                functools.partial: what is merely closed over has no fingerprint.
            schedule: How an image becomes noise and what is predicted of it, as
                ``Schedule.named`` makes it.
            latent_shape: (h, w, c) of an image's latent z0; h and w are the same.
            conditions: A tree of arrays with a row for each class, whose rows predict
                is told; None to tell it the number of the class, from 0.
            name: What the model is called. It is part of the model's fingerprint: give
                another code another name.
            class_names: The names of the classes; numbers by default.
            encode: A function from the pixels [H, W, 3] of one image, in [−1, 1], to
                its latent; None takes the pixels, or their mean for c = 1.
            **options: The fields of ``Settings``, as in ``from_pretrained``. Set
                ``resolution`` to the H of encode; it is h by default.

        Raises:
            DiffjaxError: If shapes do not fit one another, or a setting is not
                understood.
        """
        settings = settings_from(options, name, transform="resize_crop")
        model = own_model(
            predict,
            schedule,
            latent_shape,
            conditions,
            name=name,
            class_names=class_names,
            encode=encode,
            resolution=settings.resolution,
        )
        return cls(model, settings)

    def __call__(
        self,
        image: ImageSource | Array | Iterable[ImageSource],
        candidate_labels: Iterable[Any] | str | None = None,
        hypothesis_template: str = DEFAULT_TEMPLATE,
    ) -> list[Any]:
        """Score labels as transformers' zero-shot-image-classification pipeline does.

        Args:
            image: A path, URL, PIL image or array; or several of them, which are
                faster together than one by one.
            candidate_labels: Class names, or one string of them with commas (and double
                quotes around a name with a comma). A class-conditional model takes all
                its classes if there are none.
            hypothesis_template: A prompt with one {} for the label; class-conditional
                models do not use it.

        Returns:
            A list of {"score", "label"}, best first, whose scores sum to 1; for a list
            of images a list of such lists. Classes that were pruned say so: see
            ``Record.scores``.

        Raises:
            DiffjaxError: If an image cannot be read or the labels make no sense.
        """
        if isinstance(candidate_labels, str):
            candidate_labels = split_labels(candidate_labels)
        records = self.classify(image, candidate_labels, hypothesis_template)
        if isinstance(records, Record):
            return records.scores()
        return [record.scores() for record in records]

    def candidates(
        self,
        labels: Iterable[Any] | Prompts | None,
        template: str | Sequence[str] = DEFAULT_TEMPLATE,
    ) -> Candidates:
        """Make classes ready: encode prompts, or look up class ids.

        Args:
            labels: Class names, or whole ``Prompts``; None for all classes of a
                class-conditional model.
            template: A prompt with one {} for the label, or several of them.

        Raises:
            DiffjaxError: If the labels make no sense or the model lacks them.
        """
        merge = self.settings.merge
        return candidates_of(self.model, labels, template, merge, self._mesh)

    def classes(self, ids: Sequence[Sequence[int]], names: Sequence[str]) -> Candidates:
        """Make classes of a class-conditional model ready, by number.

        Args:
            ids: For each class the class ids of the model that stand for it; the best
                one represents it.
            names: The names of the classes.

        Raises:
            DiffjaxError: If the model has no such ids.
        """
        return class_candidates(self.model, ids, names, self._mesh)

    @overload
    def classify(  # type: ignore[overload-overlap]  # a text has texts in it
        self,
        image: ImageSource | Array,
        labels: Labels = None,
        template: str | Sequence[str] = DEFAULT_TEMPLATE,
        *,
        prefilter: Prefilter | None = None,
        progress: Progress | None = None,
    ) -> Record: ...

    @overload
    def classify(
        self,
        image: Iterable[ImageSource],
        labels: Labels = None,
        template: str | Sequence[str] = DEFAULT_TEMPLATE,
        *,
        prefilter: Prefilter | None = None,
        progress: Progress | None = None,
    ) -> list[Record]: ...

    def classify(
        self,
        image: ImageSource | Array | Iterable[ImageSource],
        labels: Labels = None,
        template: str | Sequence[str] = DEFAULT_TEMPLATE,
        *,
        prefilter: Prefilter | None = None,
        progress: Progress | None = None,
    ) -> Record | list[Record]:
        """Classify an image, or several together, and tell everything.

        What is known of an image does not depend on those beside it. Several are read
        one by one, in another thread and a few ahead of being needed; their records
        come in the same order.

        Args:
            image: A path, URL, PIL image or array; or several of them.
            labels: Class names, ``Prompts``, or what ``candidates`` returns, made once
                for many calls.
            template: As for ``candidates``.
            prefilter: A function from an image's pixels [h, w, 3] in [−1, 1] to the
                classes to choose from, by their places among the labels; the others are
                not evaluated.
            progress: An object that is told how far it is.

        Raises:
            DiffjaxError: If an image cannot be read, the labels make no sense, the
                prefilter leaves none, or the network's numbers overflow; ``score`` goes
                on with the other images.
        """
        one = is_one(image)
        images: Any = [image] if one else image
        if not isinstance(labels, Candidates):
            labels = self.candidates(labels, template)

        def encoded() -> Iterator[tuple[int, Encoded]]:
            for place, each in enumerate(images):
                found = self.encode(each)
                if prefilter is not None:
                    among = tuple(map(int, prefilter(found.pixels)))
                    found = replace(found, among=among)
                yield place, found

        records: dict[int, Record] = {}
        progress = progress or Progress()
        for place, result in self.score(encoded(), labels, progress):
            if isinstance(result, DiffjaxError):
                raise result
            records[place] = result
            progress.count()
        return records[0] if one else [records[place] for place in sorted(records)]

    def encode(self, image: ImageSource | Array) -> Encoded:
        """Make an image ready for the grid; DiffjaxError if it cannot be read."""
        seen = see(image, self.settings)
        # known by its pixels, an image keeps its noise wherever it stands in a list
        key = zlib.crc32(seen.pixels.tobytes())
        z0 = jax.device_get(self.model.latent(seen.pixels))
        return seen.encoded(z0, key)

    def pixels(self, image: ImageSource | Array) -> Float[np.ndarray, "h w 3"]:
        """Return an image as the model sees it, in [−1, 1]."""
        return see(image, self.settings).pixels

    def score(
        self,
        images: Iterable[tuple[Name, Encoded | DiffjaxError]],
        candidates: Candidates,
        progress: Progress | None = None,
    ) -> Iterator[tuple[Name, Record | DiffjaxError]]:
        """Classify images that are made ready, many at a time.

        This is the one way from an image to its decision: ``classify``, the command
        line and evaluations of data sets go it. Images are made ready in a thread, a
        few ahead of being needed, and come back as they get done, in any order.

        Args:
            images: Images, each with a name of the caller's, by which it comes back;
                or the error that says why it could not be read. A thread takes them.
            candidates: The classes to choose from, as ``candidates`` or ``classes``
                returned them.
            progress: An object that is told of evaluations; whoever takes the results
                counts the images.

        Yields:
            The name of an image and its record; or the error that it came with, or that
            says how its numbers overflowed.

        Raises:
            DiffjaxError: If the strategy does not fit, the device's memory does not
                hold the smallest tile, or processes that share a mesh have other images
                or labels than one another.
        """
        progress = progress or Progress()
        asked = f"{candidates.prompts} {self.model.origin} {self.settings}"
        check_same(zlib.crc32(asked.encode()), self._mesh, "labels and settings")
        rows = len(candidates.prompts.prompts)
        settings = replace(self.settings, strategy=self.settings.strategy.of(rows))
        described = self.model.origin | settings.as_dict() | self.calibration
        n_timesteps = self.model.schedule.n_timesteps
        estimates = self.estimates(candidates)
        unread: list[tuple[Name, DiffjaxError]] = []
        supply = Supply(images, self.work)

        def searches() -> Iterator[ImageSearch]:
            for name, image in supply:
                key = image.key if isinstance(image, Encoded) else 0
                check_same(key, self._mesh, "images")
                if isinstance(image, DiffjaxError):
                    unread.append((name, image))
                    continue
                search = ImageSearch(
                    name,
                    image,
                    candidates,
                    settings,
                    n_timesteps,
                    progress,
                    described,
                    estimates,
                )
                progress.open.add(search)
                yield search

        packer = Packer(self.grid, candidates.conditions, rows, self.work)
        with supply:
            for search in packer.run(searches()):
                assert isinstance(search, ImageSearch)  # what it was given
                progress.open.discard(search)
                try:
                    yield search.name, search.record()
                except NotFiniteError as error:
                    yield search.name, error
                while unread:
                    yield unread.pop(0)
            yield from unread

    def estimates(self, candidates: Candidates) -> Estimates | None:
        """Return what makes shortlists of the candidates; None if all take part."""
        shortlist = self.settings.shortlist
        n_classes = len(candidates.prompts.class_names)
        if shortlist is None or not shortlist.useful(n_classes):
            return None
        if self._estimates is None or self._estimates.candidates is not candidates:
            example = told(self.settings, self.resolution, self.resolution)
            given, rows = self.settings.given, len(candidates.prompts.prompts)
            strategy, steps = self.settings.strategy, self.model.schedule.n_timesteps
            own = strategy.of(rows).start(rows, steps, given=given).samples
            of = (self.model, self.grid, self.latent_shape, own, example, given)
            self._estimates = Estimates(shortlist, candidates, *of)
        return self._estimates
