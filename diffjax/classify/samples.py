"""Samples that were learned on labelled images, as a file holds them.

``diffjax learn`` writes such a file: JSON with the timesteps, noises and weights of K
samples, where their noise comes from, and what they were learned on. Noises that were
learned too are in a file of their own beside it. Whoever decides by them has seen
labels: that is few-shot, and no longer zero-shot, and says so wherever it is shown.
"""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from diffjax.errors import DiffjaxError
from diffjax.files import read_json_object, user_path, write_json
from diffjax.strategies.base import Samples

KIND = "diffjax learned samples"
REMEDY = "`diffjax learn RUN` makes one."


@dataclass(frozen=True, kw_only=True)
class LearnedSamples:
    """K samples and their weights, the largest weight first.

    Attributes:
        timesteps: Of the samples.
        noises: The noise index of each.
        weights: Above 0, with a mean of 1.
        noise: "shared" for the noise of the seed; else a digest, as a run's header has
            it, of the file that holds the noises.
        seed: The seed of the noise.
        noise_file: Where that file is, or None.
        loss: The loss of the errors that were learned from.
        space: Their space.
        temperature: The temperature of the scores that fits them.
        model: Its "name" and "fingerprint".
        resolution: Pixels along an edge.
        learned_on: "data" (what it was, in words), "images", "classes".
        accuracy: What they are worth on images that had no say, as ``diffjax learn``
            shows it.
    """

    timesteps: tuple[int, ...]
    noises: tuple[int, ...]
    weights: tuple[float, ...]
    noise: str
    seed: int
    noise_file: str | None
    loss: str
    space: str
    temperature: float
    model: Mapping[str, str]
    resolution: int
    learned_on: Mapping[str, Any]
    accuracy: Mapping[str, Any]

    def __len__(self) -> int:
        """K."""
        return len(self.timesteps)

    @property
    def samples(self) -> Samples:
        """The samples as strategies take them."""
        return Samples(
            timesteps=np.array(self.timesteps),
            noises=np.array(self.noises),
            weights=np.array(self.weights),
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values, for headers and records: without the noises' place."""
        told = asdict(self)
        del told["noise_file"]
        for name in ("timesteps", "noises", "weights"):
            told[name] = list(told[name])
        return told

    def check(
        self, model: str, fingerprint: str, resolution: int, n_timesteps: int
    ) -> None:
        """Raise DiffjaxError unless they are samples of this model at this size."""
        theirs = self.model["fingerprint"]
        if theirs != fingerprint:
            raise DiffjaxError(
                f"The samples were learned on {self.model['name']} ({theirs}), and "
                f"this is {model} ({fingerprint}): the errors of another model are "
                "others. Learn samples of this one: `diffjax learn RUN`."
            )
        if (last := max(self.timesteps)) >= n_timesteps:
            raise DiffjaxError(
                f"The samples have the timestep {last}, and {model} knows 0 to "
                f"{n_timesteps - 1}: their file is damaged. Learn again."
            )
        if self.resolution != resolution:
            raise DiffjaxError(
                f"The samples were learned at {self.resolution} pixels, and this is at "
                f"{resolution}: their noise has another shape. Use --resolution "
                f"{self.resolution}."
            )


def few_shot(settings: Mapping[str, Any], decides: str | None = None) -> str | None:
    """What to say wherever something by these settings is shown; None for zero-shot.

    It begins with one word: "few-shot" of learned samples, "trained" of a head.

    Args:
        settings: As JSON values: of a record, or the "experiment" of a run's header.
        decides: The fingerprint of the data that are decided, where it is known. If it
            is that of the data that were learned on, images may be in both.
    """
    if isinstance(head := settings.get("trained"), Mapping):
        return _trained(head)
    samples = settings.get("samples")
    if not isinstance(samples, Mapping):
        return None
    on = samples.get("learned_on", {})
    images = on.get("images", "?")
    same = decides is not None and on.get("data_fingerprint") == decides
    warning = ", which is decided here: images in both flatter it" if same else ""
    return (
        f"few-shot (samples learned on {images} images of {on.get('data', '?')}"
        f"{warning})"
    )


def _trained(head: Mapping[str, Any]) -> str:
    """Of the "trained" of a run's header: a head on features."""
    names = ("head", "layer", "timestep", "images", "data")
    kind, layer, t, images, data = (head.get(name, "?") for name in names)
    return (
        f"trained (a {kind} head on features of {layer} at t = {t}, by the labels of "
        f"{images} images of {data})"
    )


def write_samples(path: Path, samples: LearnedSamples) -> None:
    """Write the file; that of the noises is named by its place beside it."""
    told = {"kind": KIND, "format": 1} | samples.as_dict()
    if samples.noise_file is not None:
        told["noise_file"] = os.path.relpath(samples.noise_file, path.parent)
    write_json(path, told)


def read_samples(path: str | os.PathLike[str]) -> LearnedSamples:
    """Read what ``write_samples`` wrote.

    Raises:
        DiffjaxError: If there is no such file, it is damaged, or the noises are not
            those that were learned.
    """
    file = user_path(path)
    told = read_json_object(file, "file of samples", REMEDY)
    if told.get("kind") != KIND or told.get("format") != 1:
        raise DiffjaxError(f"{file} holds no learned samples. {REMEDY}")
    try:
        samples = _built(told)
    except (LookupError, TypeError, ValueError) as error:
        raise DiffjaxError(
            f"{file} is damaged: {error}. Take it from a copy, or learn again."
        ) from None
    if samples.noise_file is None:
        return samples
    place = file.parent / samples.noise_file
    if not place.exists() or f"sha256 {file_digest(place)}" != samples.noise:
        what = "is another file" if place.exists() else "is missing"
        raise DiffjaxError(
            f"{place} {what}: {file} was learned with the noises that it held. Take "
            "both from a copy, or learn again."
        )
    return replace(samples, noise_file=str(place))


def _built(told: Mapping[str, Any]) -> LearnedSamples:
    """Samples of what JSON holds; anything odd raises."""
    timesteps, noises, weights = (
        told[name] for name in ("timesteps", "noises", "weights")
    )
    if not len(timesteps) == len(noises) == len(weights) > 0:
        raise ValueError("timesteps, noises and weights must be as many, and some")
    for name, values in (("timesteps", timesteps), ("noises", noises)):
        if any(type(value) is not int or value < 0 for value in values):
            raise ValueError(f"{name} must be whole numbers, not negative")
    if not all(isinstance(w, float | int) and 0 < w < np.inf for w in weights):
        raise ValueError("weights must be numbers above 0")
    if len(set(zip(timesteps, noises, strict=True))) < len(timesteps):
        raise ValueError("a sample is there twice")
    temperature = float(told["temperature"])
    if not 0 < temperature < np.inf:
        raise ValueError("the temperature must be above 0")
    model, on = told["model"], told["learned_on"]
    return LearnedSamples(
        timesteps=tuple(timesteps),
        noises=tuple(noises),
        weights=tuple(map(float, weights)),
        noise=str(told["noise"]),
        seed=int(told["seed"]),
        noise_file=None if told.get("noise_file") is None else str(told["noise_file"]),
        loss=str(told["loss"]),
        space=str(told["space"]),
        temperature=temperature,
        model={name: str(model[name]) for name in ("name", "fingerprint")},
        resolution=int(told["resolution"]),
        learned_on={**on, "images": int(on["images"]), "data": str(on["data"])},
        accuracy=dict(told["accuracy"]),
    )


def file_digest(path: Path) -> str:
    """16 hex digits of what a file holds."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
