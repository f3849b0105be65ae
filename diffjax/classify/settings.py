"""How to classify: everything that decides an answer besides model and labels."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import inf
from numbers import Integral, Real
from pathlib import Path
from typing import Any, TypedDict

from diffjax.checkpoints.parts import Parts
from diffjax.choices import (
    DEGREES,
    DEVICES,
    INTERPOLATIONS,
    LOSSES,
    MAX_SEED,
    MERGES,
    SHARD_WEIGHTS,
    SPACES,
    STRATEGY,
    TEMPERATURE,
    TRANSFORMS,
)
from diffjax.classify.samples import LearnedSamples, few_shot, read_samples
from diffjax.classify.sizes import read_sizes
from diffjax.classify.temperature import read_calibration, warn_of_others
from diffjax.errors import DiffjaxError, unknown
from diffjax.strategies import (
    parse_shortlist,
    parse_strategy,
    strategy_to_dict,
    strategy_to_text,
    within,
)
from diffjax.strategies.base import Samples, Strategy
from diffjax.strategies.shortlist import Shortlist

DEFAULT_STRATEGY = parse_strategy(STRATEGY)
# of fields: what they must be, and how that is said
WHOLE = "a whole number"
KINDS: dict[str, tuple[Any, str]] = {
    "strategy": (Strategy, "a strategy, as Racing(), or in from_pretrained a text"),
    "shortlist": (Shortlist, "as Shortlist(k=50), or in from_pretrained a text"),
    "also": (tuple, "a tuple of losses"),
    "samples": (
        LearnedSamples,
        "what read_samples returns, or in from_pretrained a path",
    ),
    "seed": (Integral, WHOLE),
    "noise": (str, '"image", "shared" or a path'),
    "temperature": (Real, "a number, or in from_pretrained a calibrated run's folder"),
    "resolution": (Integral, WHOLE),
    "cells": (Integral, WHOLE),
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to classify.

    Attributes:
        strategy: The strategy that says which cells of the grid to evaluate.
        shortlist: The shortlist that says which classes take part at all, by an
            estimate; None for all.
        loss: The loss that prunes and decides: "l2", "l1", "huber", "vlb" or "l2+vlb";
            see ``scoring.losses``.
        space: The space in which l2 and l1 measure: "noise", "data" or "velocity",
            whose errors differ by factors of the timestep alone; see ``schedules``.
        also: Further losses of the same evaluations, by each of which is decided as
            well.
        samples: Learned samples that take the place of the strategy's own; None for
            these. Seed and noise are then theirs.
        seed: The seed of the noise, in [0, 2³²).
        noise: "image" gives each image its own noise, a function of the seed and of the
            image's pixels, or in a data set of its id; "shared" gives all images the
            same; a path is the file that noise is read from.
        temperature: The temperature of the scores, in units of the error; None for the
            one that the model comes with for the loss, or else a default that was
            fitted to nothing.
        resolution: The number of pixels along an edge; None for the model's own.
        transform: How an image becomes a square: "resize_crop" or "adm"; None for the
            one that the model's kind wants.
        interpolation: The filter of the resize, as ``data.images`` names them.
        sizes: What Stable Diffusion XL is told of sizes: "image" for each image's own
            size, no crop and the resolution; or six numbers of pixels with commas
            (height and width of the original, top and left of the crop, height and
            width that were aimed at). None for "image", where a model is told sizes.
        merge: What becomes of several prompts of a class: "compete" lets the best one
            count, "mean" takes the mean of their text states.
        cells: How many evaluations a call of the devices holds at most, one on each of
            them at least; None for as many as memory holds.
        shard_weights: "always" splits the denoiser's weights among the devices, "never"
            copies them to each, "auto" splits them where copies would take too much
            memory.
        devices: "local" for the devices of this process, "global" for those of all
            processes together, each of which then has to run the same program.

    Raises:
        DiffjaxError: On construction, for a value that makes no sense.
    """

    strategy: Strategy = DEFAULT_STRATEGY
    shortlist: Shortlist | None = None
    loss: str = "l2"
    space: str = "noise"
    also: tuple[str, ...] = ()
    samples: LearnedSamples | None = None
    seed: int = 0
    noise: str = "image"
    temperature: float | None = None
    resolution: int | None = None
    transform: str | None = None
    interpolation: str = "bicubic"
    sizes: str | None = None
    merge: str = "compete"
    cells: int | None = None
    shard_weights: str = "auto"
    devices: str = "local"

    def __post_init__(self) -> None:
        _check_kinds(vars(self))
        choices = {
            "loss": LOSSES,
            "space": SPACES,
            "transform": (None, *TRANSFORMS),
            "interpolation": INTERPOLATIONS,
            "merge": MERGES,
            "shard_weights": SHARD_WEIGHTS,
            "devices": DEVICES,
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                names = [each for each in known if each is not None]
                raise unknown(name, getattr(self, name), names)
        for loss in self.also:
            if loss not in LOSSES:
                raise unknown("loss", loss, LOSSES)
        if len({self.loss, *self.also}) <= len(self.also):
            raise DiffjaxError(
                f"The further losses {', '.join(self.also)} name one twice, or the "
                f"deciding one, {self.loss}."
            )
        for loss in (self.loss, *self.also):
            if self.space != "noise" and loss not in DEGREES:
                raise DiffjaxError(
                    f"The loss {loss} is of the noise: errors in the space of "
                    f"{self.space} are larger by a factor that it does not know. Use "
                    f"{' or '.join(DEGREES)} there."
                )
        self._check_samples()
        if self.temperature is not None and not 0 < self.temperature < inf:
            raise DiffjaxError(
                f"The temperature is {self.temperature}; it must be above 0 and finite."
            )
        if not 0 <= self.seed <= MAX_SEED:
            raise DiffjaxError(f"The seed is {self.seed}; it must be in [0, 2³²).")
        if self.sizes is not None:
            read_sizes(self.sizes)
        for name in ("cells", "resolution"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise DiffjaxError(f"{name} is {value}; it must be at least 1.")

    def _check_samples(self) -> None:
        """Raise DiffjaxError unless learned samples are of this loss and noise."""
        if self.samples is None:
            return
        theirs, own = (
            loss_name({"loss": each.loss, "space": each.space})
            for each in (self.samples, self)
        )
        if theirs != own:
            raise DiffjaxError(
                f"The samples were learned on errors by {theirs}, and {own} is asked "
                f"for: use --loss {self.samples.loss} --space {self.samples.space}, or "
                "learn samples of the other."
            )
        noise, seed = noise_of(self.samples)
        if (self.noise, self.seed) != (noise, seed):
            raise DiffjaxError(
                f"The samples were learned under the noise {noise!r} of seed {seed}, "
                f"and {self.noise!r} of seed {self.seed} is asked for: leave --noise "
                "and --seed away."
            )

    @property
    def given(self) -> Samples | None:
        """The samples that take the place of the strategy's own; None for these."""
        return None if self.samples is None else self.samples.samples

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values, without those settings that do nothing."""
        settings = asdict(self) | {
            "strategy": strategy_to_dict(self.strategy),
            "also": list(self.also),
        }
        if self.samples is None:
            del settings["samples"]
        else:
            settings["samples"] = self.samples.as_dict()
        if self.shortlist is None:
            del settings["shortlist"]  # runs from before there were any go on
        if self.space == "noise":
            del settings["space"]  # and so do these
        if self.sizes is None:
            del settings["sizes"]
        return settings

    def in_short(self) -> str:
        """Loss, strategy and pixels along an edge."""
        loss, strategy = loss_name(self.as_dict()), strategy_to_text(self.strategy)
        pixels = f", {self.resolution} pixels" if self.resolution else ""
        seen = few_shot(self.as_dict())
        return f"{loss}, {strategy}{pixels}{f', {seen}' if seen else ''}"


def loss_name(settings: Mapping[str, Any]) -> str:
    """The loss of settings as JSON values, with its space: "l2 of velocity"."""
    space = settings.get("space", "noise")
    return f"{settings['loss']}{'' if space == 'noise' else f' of {space}'}"


def temperature_for(
    settings: Settings, fitted: Mapping[str, float]
) -> tuple[float, dict[str, bool]]:
    """Choose the temperature of a model's scores.

    Args:
        settings: Which may ask for one.
        fitted: Temperatures that the model comes with, by the loss that decides.

    Returns:
        The temperature, and {"calibrated": whether it was fitted to labels}; {} of one
        that was asked for.
    """
    if settings.temperature is not None:
        return settings.temperature, {}
    loss = loss_name(settings.as_dict())
    return fitted.get(loss, TEMPERATURE), {"calibrated": loss in fitted}


class Chosen(TypedDict, total=False):
    """The fields of ``Settings`` as keyword arguments; some may also be texts.

    ``budget`` is that of the strategy, of evaluations an image: ``strategies.within``.
    """

    strategy: Strategy | str | None
    budget: int | None
    shortlist: Shortlist | str | None
    loss: str
    space: str
    also: tuple[str, ...]
    samples: LearnedSamples | str | Path | None
    seed: int
    noise: str
    temperature: float | str | Path | None
    resolution: int | None
    transform: str | None
    interpolation: str
    sizes: str | None
    merge: str
    cells: int | None
    shard_weights: str
    devices: str


class Options(Parts, Chosen, total=False):
    """Keyword arguments of ``DiffusionClassifier.from_pretrained``.

    Where the model's parts come from, and the fields of ``Settings``.
    """


def settings_from(given: Mapping[str, Any], model: str, **defaults: Any) -> Settings:
    """Make settings of keyword arguments, in which some may be texts.

    Args:
        given: Fields of ``Settings``, as ``Options`` has them; None for the default.
        model: The name of the model, to warn of a temperature that is another's.
        **defaults: Other defaults than those of ``Settings``.

    Raises:
        DiffjaxError: If one is not understood.
    """
    asked = defaults | {k: value for k, value in given.items() if value is not None}
    for name, parse in {
        "strategy": parse_strategy,
        "shortlist": parse_shortlist,
    }.items():
        if isinstance(text := asked.get(name), str):
            asked[name] = parse(text)
    if isinstance(place := asked.get("temperature"), str | Path):
        calibration = read_calibration(place)
        warn_of_others(calibration, model, loss_name({"loss": Settings.loss} | asked))
        asked["temperature"] = float(calibration["temperature"])
    if isinstance(place := asked.get("samples"), str | Path):
        asked["samples"] = read_samples(place)
    if isinstance(samples := asked.get("samples"), LearnedSamples):
        asked |= _with_samples(samples, asked)
    if isinstance(asked.get("also"), list):
        asked["also"] = tuple(asked["also"])
    if isinstance(asked.get("noise"), Path):
        asked["noise"] = str(asked["noise"])
    _check_kinds(asked)
    if (budget := asked.pop("budget", None)) is not None:
        if not isinstance(budget, Integral) or isinstance(budget, bool):
            raise DiffjaxError(f"budget is {budget!r}; it must be {WHOLE}.")
        strategy = asked.get("strategy", DEFAULT_STRATEGY)
        asked["strategy"] = within(strategy, int(budget))
    for name, (kind, _) in KINDS.items():
        if kind is Integral and name in asked:
            asked[name] = int(asked[name])  # JSON knows no other whole numbers
    return Settings(**asked)


def noise_of(samples: LearnedSamples) -> tuple[str, int]:
    """The noise, as ``Settings`` has it, and the seed of learned samples."""
    noise = samples.noise if samples.noise_file is None else samples.noise_file
    return noise, samples.seed


def _with_samples(samples: LearnedSamples, asked: Mapping[str, Any]) -> dict[str, Any]:
    """What learned samples say of settings that are at their defaults."""
    noise, seed = noise_of(samples)
    known = {"noise": noise, "seed": seed, "temperature": samples.temperature}
    return {
        name: value
        for name, value in known.items()
        if asked.get(name, getattr(Settings, name)) == getattr(Settings, name)
    }


def _check_kinds(values: Mapping[str, Any]) -> None:
    """Raise DiffjaxError for a field that is nothing of its kind."""
    for name in (name for name in KINDS if name in values):
        value, (kind, what) = values[name], KINDS[name]
        absent = value is None and getattr(Settings, name) is None
        if not absent and (not isinstance(value, kind) or isinstance(value, bool)):
            raise DiffjaxError(f"{name} is {value!r}; it must be {what}.")
