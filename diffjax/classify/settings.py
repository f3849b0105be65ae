"""How to classify: everything that decides an answer besides model and labels."""

from dataclasses import asdict, dataclass
from math import inf
from pathlib import Path
from typing import Any

from diffjax.checkpoints.parts import Parts
from diffjax.choices import (
    DEVICES,
    INTERPOLATIONS,
    LOSSES,
    MAX_SEED,
    MERGES,
    SHARD_WEIGHTS,
    STRATEGY,
    TEMPERATURE,
    TRANSFORMS,
)
from diffjax.errors import DiffjaxError, unknown
from diffjax.strategies import parse_strategy, strategy_to_dict
from diffjax.strategies.base import Strategy
from diffjax.strategies.shortlist import Shortlist

DEFAULT_STRATEGY = parse_strategy(STRATEGY)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to classify.

    Attributes:
        strategy: which cells of the grid to evaluate.
        shortlist: which classes take part at all, by an estimate; None for all.
        loss: "l2", "l1", "huber", "vlb" or "l2+vlb"; see ``scoring.losses``. It prunes
            and decides.
        also: further losses, had of the same evaluations and decided alongside.
        seed: of the noise, in [0, 2³²).
        noise: "image" gives each image its own noise, a function of the seed and of
            the image's pixels, or in a data set of its id;
            "shared" gives all images the same; a path reads it from a file.
        temperature: of the scores, in units of the error.
        resolution: pixels along an edge, or None for the model's own.
        transform: "resize_crop", "adm", or None for the one the model's kind wants.
        interpolation: of the resize, as ``data.images`` names them.
        merge: of several prompts of a class: "compete" (the best one counts) or
            "mean" (of their text states).
        cells: evaluations in one call of the devices at most, but one on each of them;
            None for as many as memory holds.
        shard_weights: "always" splits the denoiser's weights among the devices,
            "never" copies them to each, "auto" splits them where copies would take too
            much memory.
        devices: "local" for this process's, "global" for those of all processes
            together, each of which then has to run the same program.

    Raises:
        DiffjaxError: on construction, for a value that makes no sense.
    """

    strategy: Strategy = DEFAULT_STRATEGY
    shortlist: Shortlist | None = None
    loss: str = "l2"
    also: tuple[str, ...] = ()
    seed: int = 0
    noise: str = "image"
    temperature: float = TEMPERATURE
    resolution: int | None = None
    transform: str | None = None
    interpolation: str = "bicubic"
    merge: str = "compete"
    cells: int | None = None
    shard_weights: str = "auto"
    devices: str = "local"

    def __post_init__(self) -> None:
        choices = {
            "loss": LOSSES,
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
        if not 0 < self.temperature < inf:
            raise DiffjaxError(
                f"The temperature is {self.temperature}; it must be above 0 and finite."
            )
        if not 0 <= self.seed <= MAX_SEED:
            raise DiffjaxError(f"The seed is {self.seed}; it must be in [0, 2³²).")
        for name in ("cells", "resolution"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise DiffjaxError(f"{name} is {value}; it must be at least 1.")

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values; without the shortlist where there is none."""
        settings = asdict(self) | {
            "strategy": strategy_to_dict(self.strategy),
            "also": list(self.also),
        }
        if self.shortlist is None:
            del settings["shortlist"]  # runs from before there were any go on
        return settings


class Options(Parts, total=False):
    """Keyword arguments of ``DiffusionClassifier.from_pretrained``.

    Where the model's parts come from, and the fields of ``Settings``, some of which may
    also be texts.
    """

    strategy: Strategy | str | None
    shortlist: Shortlist | str | None
    loss: str
    also: tuple[str, ...]
    seed: int
    noise: str
    temperature: float | str | Path | None
    resolution: int | None
    transform: str | None
    interpolation: str
    merge: str
    cells: int | None
    shard_weights: str
    devices: str
