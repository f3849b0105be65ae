"""What is evaluated: images of a data set, and the classes to choose from."""

import hashlib
import warnings
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from diffjax.classify.candidates import Candidates
from diffjax.classify.classifier import DiffusionClassifier
from diffjax.data.imagenet import places_of_imagenet, readable_names
from diffjax.data.labels import class_ids
from diffjax.data.prefilter import Prefilter
from diffjax.data.prompts import Prompts
from diffjax.data.sources import Example, Source
from diffjax.errors import DiffjaxError


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """Images and classes, before any model is known. Made by ``make_task``.

    Attributes:
        source: the data set.
        indices: which of its images, ascending.
        prompts: of the C candidates, in local numbers 0 … C − 1.
        classes: the data set's number of each candidate, ascending.
        class_names: how results name ALL classes: the data set's, then distractors.
        prefilter: gives each image fewer candidates.
        pool: the images of which these are the first in the order of
            ``subsets.spread``; None where they are in no such order. A run goes on
            with more of them.
    """

    source: Source
    indices: Int[np.ndarray, " n"]
    prompts: Prompts
    classes: tuple[int, ...]
    class_names: tuple[str, ...]
    prefilter: Prefilter | None = None
    pool: Int[np.ndarray, " N"] | None = None

    def among(
        self, example: Example, pixels: Float[np.ndarray, "h w 3"]
    ) -> tuple[int, ...] | None:
        """What the prefilter leaves of the candidates, in local numbers.

        Args:
            example: of the source.
            pixels: of it in [−1, 1], as the model sees them.

        Returns:
            Ascending; None where there is no prefilter.

        Raises:
            DiffjaxError: if it leaves none, or does not know the image.
        """
        if self.prefilter is None:
            return None
        name = example.id
        chosen = {int(c) for c in self.prefilter.choose(example, pixels)}
        n = len(self.class_names)
        if wrong := [c for c in chosen if not 0 <= c < n]:
            raise DiffjaxError(
                f"The prefilter {self.prefilter.name} gives the image {name} the class "
                f"{wrong[0]}; {self.source.name} has 0 to {n - 1}."
            )
        left = tuple(i for i, c in enumerate(self.classes) if c in chosen)
        if not left:
            raise DiffjaxError(
                f"The prefilter {self.prefilter.name} leaves the image {name} no class."
            )
        return left

    def candidates(self, classifier: DiffusionClassifier) -> Candidates:
        """The candidates as a model takes them: prompts, or its own class numbers.

        Raises:
            DiffjaxError: if a class-conditional model lacks a class.
        """
        model = classifier.model
        if model.kind == "text":
            return classifier.candidates(self.prompts)
        names = self.prompts.class_names
        return classifier.classes(
            self.model_ids(model.n_classes, model.class_names), names
        )

    def model_ids(
        self, n: int | None, names: tuple[str, ...] | None
    ) -> list[tuple[int, ...]]:
        """The class ids that stand for each candidate, of a model with n classes.

        Raises:
            DiffjaxError: if it lacks a class.
        """
        source = self.source
        if len(self.class_names) > len(source.class_names):
            raise DiffjaxError(
                "Distractors are prompts, and a class-conditional model takes none. "
                "Leave --prompts out."
            )
        if source.model_classes is not None and n == 1000:
            place = places_of_imagenet(names)
            ours = (source.model_classes[c] for c in self.classes)
            return [tuple(place[i] for i in ids) for ids in ours]
        stored = [source.class_names[c] for c in self.classes]
        if names is None and n == len(source.class_names):
            return [(c,) for c in self.classes]
        try:
            return [(i,) for i in class_ids(stored, names, int(n or 0))]
        except DiffjaxError as error:
            raise DiffjaxError(
                f"The classes of {source.name} are not those of the model: {error}"
            ) from error

    def describe(self) -> dict[str, Any]:
        """What a run's header says of the data."""
        pool = self.pool
        return {
            "name": self.source.name,
            "split": self.source.split,
            "fingerprint": self.source.fingerprint,
            **_numbers(self.indices),
            **({} if pool is None else {"pool": _numbers(pool)}),
        }


def _numbers(indices: Int[np.ndarray, " n"]) -> dict[str, Any]:
    digest = hashlib.sha256(np.ascontiguousarray(indices, "<i8").tobytes())
    return {"n": len(indices), "indices": digest.hexdigest()[:16]}


def make_task(
    source: Source,
    indices: Int[np.ndarray, " n"],
    prompts: Prompts | None = None,
    classes: tuple[int, ...] | None = None,
    prefilter: Prefilter | None = None,
    *,
    pool: Int[np.ndarray, " N"] | None = None,
) -> Task:
    """Put together what is evaluated.

    Args:
        source: the data set.
        indices: which of its images.
        prompts: of all classes of the data set, in its numbering; the default
            template with the data set's class names if there are none. Further classes
            may follow, if these go by the data set's names: distractors, which no image
            shows.
        classes: the candidates, ascending; all by default. They keep their numbers.
            Images of other classes are left out.
        prefilter: gives each image fewer candidates.
        pool: as ``Task`` has it.

    Raises:
        DiffjaxError: if prompts or classes do not fit the data set.
    """
    n = len(source.class_names)
    if prompts is None:
        prompts = Prompts.from_names(readable_names(source.class_names))
    prompts = _of_the_classes(prompts, source)
    _check_order(prompts, source)
    known = len(prompts.class_names)
    if known < n or (known > n and not _begin_with(prompts, source)):
        raise DiffjaxError(
            f"There are prompts for {known} classes, but {source.name} has {n}. Give "
            "prompts for all of them, in its numbering; distractors may follow, if "
            f"these have its names ({readable_names(source.class_names[:1])[0]}, …)."
        )
    chosen = tuple(range(known)) if classes is None else classes
    if wrong := [c for c in chosen if not 0 <= c < known]:
        raise DiffjaxError(
            f"{source.name} has no class {wrong[0]}, only 0 to {known - 1}."
        )
    if classes is not None:
        indices = indices[np.isin(source.labels()[indices], chosen)]
        if not len(indices):
            raise DiffjaxError("None of the images is of the classes to choose from.")
    return Task(
        source=source,
        indices=indices,
        prompts=prompts.restricted(chosen),
        classes=chosen,
        class_names=prompts.class_names,
        prefilter=prefilter,
        pool=pool,
    )


def _of_the_classes(prompts: Prompts, source: Source) -> Prompts:
    """Of prompts for ImageNet's 1,000 classes those of a data set with some of them."""
    ids = source.model_classes
    if ids is None or len(prompts.class_names) != 1000 or len(ids) == 1000:
        return prompts
    chosen = [each[0] for each in ids if len(each) == 1]
    if chosen != sorted(chosen) or len(chosen) < len(ids):
        return prompts
    warnings.warn(
        f"Of the prompts' 1,000 classes the {len(ids):,} of {source.name} are taken.",
        stacklevel=3,
    )
    return prompts.restricted(chosen)


def _check_order(prompts: Prompts, source: Source) -> None:
    """Raise a DiffjaxError if the prompts number the data set's names otherwise.

    Prompts may have names of their own, one of which may be another class's here. But
    where two classes or more have another's name, which its owner has lost, they have
    changed places.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of ids that are no names here
        ours = [_plain(name) for name in readable_names(source.class_names)]
    theirs = [_plain(name) for name in prompts.class_names]
    counts = Counter(ours)
    number = {name: c for c, name in enumerate(ours) if counts[name] == 1}
    moved = [
        (c, other)
        for c, (own, name) in enumerate(zip(ours, theirs, strict=False))
        if own != name
        and (other := number.get(name, len(theirs))) < len(theirs)
        and theirs[other] != ours[other]
    ]
    if len(moved) > 1:
        c, other = moved[0]
        raise DiffjaxError(
            f"Class {c} is {theirs[c]!r} in the prompts, but {ours[c]!r} in "
            f"{source.name}, where {theirs[c]!r} is class {other}. Number the prompts "
            "as the data set does its classes."
        )


def _begin_with(prompts: Prompts, source: Source) -> bool:
    """Whether the first classes of the prompts go by the data set's names."""
    ours, theirs = readable_names(source.class_names), prompts.class_names
    return all(_plain(a) == _plain(b) for a, b in zip(ours, theirs, strict=False))


def _plain(name: str) -> str:
    """A class's name as it is compared."""
    return name.replace("_", " ").strip().lower()
