"""How well captions fit images, by a model: smaller numbers fit better.

diffusion   e(c, i), the mean error of image i under caption c over evenly spaced
            timesteps, its noise shared by the images and captions of an example
CLIP        e(c, i) = −cos(image, text)
"""

import warnings
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image

from diffjax.baselines.classifier import CONTRASTIVE, Baseline, batch_of, device
from diffjax.baselines.clip import Clip, described
from diffjax.classify.classifier import DiffusionClassifier
from diffjax.classify.progress import Progress
from diffjax.data.choices import ChoiceExample
from diffjax.data.compositional import Example
from diffjax.data.images import load_image
from diffjax.data.prompts import Prompts
from diffjax.errors import DiffjaxError
from diffjax.evaluation.provenance import environment, settings_of, where_from
from diffjax.models.conditioner import PROMPTS_AT_ONCE
from diffjax.models.network import digest
from diffjax.strategies.exhaustive import Exhaustive

EMPTY = ""

# e of caption c on image i at [c, i], evaluations; or why there are none
Found = tuple[Float[np.ndarray, "c i"], int] | DiffjaxError


def captions_of(example: Example) -> tuple[str, ...]:
    """The captions that an example's images are seen under.

    The empty one is the last where images are compared with one another.
    """
    alone = isinstance(example, ChoiceExample)
    return example.captions if alone else (*example.captions, EMPTY)


def images_of(example: Example, max_pixels: int | None) -> list[Image.Image]:
    """The images of an example, or the parts of them that are meant.

    Raises:
        DiffjaxError: if one cannot be read.
    """
    images = [load_image(path, max_pixels=max_pixels) for path in example.images]
    if isinstance(example, ChoiceExample) and example.box is not None:
        return [load_image(images[0].crop(example.box))]
    return images


class CaptionModel(ABC):
    """What captions and images are compared by.

    Attributes:
        name: of the model.
        at_once: how many examples are best asked for together.
    """

    name: str
    at_once: int

    @abstractmethod
    def header(self, captions: Sequence[str]) -> dict[str, Any]:
        """What a run's header says: "experiment", "model" and "environment"."""

    @abstractmethod
    def errors(
        self, examples: Sequence[Example], max_pixels: int | None, progress: Progress
    ) -> Iterator[Found]:
        """What is found of each example, in order."""


class DiffusionCaptions(CaptionModel):
    """A diffusion model."""

    def __init__(self, classifier: DiffusionClassifier) -> None:
        """Take a text model, with the exhaustive strategy.

        Raises:
            DiffjaxError: if model or strategy do not fit: means over other timesteps
                for some captions could not be compared.
        """
        name = classifier.model.name
        if classifier.model.kind != "text":
            raise DiffjaxError(
                f"{name} takes class numbers; captions need a text model."
            )
        if not isinstance(classifier.settings.strategy, Exhaustive):
            raise DiffjaxError(
                "Captions are compared by the exhaustive strategy alone."
            )
        self.name, self.classifier = name, classifier
        self.at_once = PROMPTS_AT_ONCE // 2 - 1  # of two captions, and the empty one

    def header(self, captions: Sequence[str]) -> dict[str, Any]:
        """What a run's header says."""
        tokens = self.classifier.model.text_conditioner.tokenize([EMPTY, *captions])
        return {
            "experiment": settings_of(self.classifier),
            **where_from(self.classifier, tokens.ids.tolist()),
        }

    def tell_of_unseen(self, captions: Sequence[str]) -> None:
        """Tell once of captions with words that a small model was not trained on."""
        model = self.classifier.model
        if model.limits is None:
            return
        if line := model.limits.warning(model.name, dict.fromkeys(captions)):
            warnings.warn(line, stacklevel=3)

    def errors(
        self, examples: Sequence[Example], max_pixels: int | None, progress: Progress
    ) -> Iterator[Found]:
        """What is found of each example, in order."""
        conditioner = self.classifier.model.text_conditioner
        if conditioner.kept is not None:
            # asked once for all, where answers are remembered: a text encoder that is
            # let go after each question is read once
            texts = [text for each in examples for text in each.captions]
            conditioner.encode([EMPTY, *texts])
        for example in examples:
            yield self._errors(example, max_pixels, progress)

    def _errors(
        self, example: Example, max_pixels: int | None, progress: Progress
    ) -> Found:
        captions = captions_of(example)
        candidates = self.classifier.candidates(
            Prompts(
                prompts=captions,
                classidx=tuple(range(len(captions))),
                class_names=("",) * len(captions),  # ``tell_of_unseen`` has told
            )
        )
        key = zlib.crc32(f"winoground {example.id}".encode())  # for all its images
        try:
            encoded = [
                replace(self.classifier.encode(image), key=key)
                for image in images_of(example, max_pixels)
            ]
        except DiffjaxError as error:
            return error
        found = dict(self.classifier.score(enumerate(encoded), candidates, progress))
        table, evaluations = np.empty((len(captions), len(encoded))), 0
        for i, result in found.items():
            if isinstance(result, DiffjaxError):
                return result
            table[:, i] = result.table.mean()
            evaluations += result.evaluations
        return table, evaluations


class ClipCaptions(CaptionModel):
    """CLIP or OpenCLIP."""

    def __init__(self, model: Baseline) -> None:
        """Take a model that is told of texts.

        Raises:
            DiffjaxError: if it is another.
        """
        if not isinstance(model, Clip):
            raise DiffjaxError(f"{model.name} knows its own classes and no captions.")
        self.name, self.clip = model.name, model
        self.at_once = 2 * batch_of(model.loaded.processing.resolution)

    def header(self, captions: Sequence[str]) -> dict[str, Any]:
        """What a run's header says."""
        loaded = self.clip.loaded
        about = described(loaded)
        ids = loaded.tokenize(tuple(captions)).ids.tolist()
        return {
            "experiment": {
                "loss": None,
                "strategy": None,
                "resolution": loaded.processing.resolution,
            },
            "model": {
                "name": self.name,
                "kind": CONTRASTIVE,
                "fingerprint": digest(map(repr, about.items())),
                **about,
                "ids": digest([repr(ids)]),
            },
            "environment": environment(device()),
        }

    def errors(
        self, examples: Sequence[Example], max_pixels: int | None, progress: Progress
    ) -> Iterator[Found]:
        """What is found of each example, in order."""
        texts = tuple(dict.fromkeys(t for each in examples for t in captions_of(each)))
        of_texts = dict(zip(texts, self.clip.texts(texts)[0], strict=True))
        see, seen, failed = self.clip.loaded.processing, [], {}
        for place, example in enumerate(examples):
            try:
                seen += [see(image) for image in images_of(example, max_pixels)]
            except DiffjaxError as error:
                failed[place] = error
        of_images = iter(self.clip.images(np.stack(seen)) if seen else ())
        for place, example in enumerate(examples):
            if place in failed:
                yield failed[place]
                continue
            i = np.stack([next(of_images) for _ in example.images])
            t = np.stack([of_texts[text] for text in captions_of(example)])
            yield -(t.astype(np.float64) @ i.T), i.shape[0]
