"""Images made worse on purpose, in five steps, to see what an accuracy is worth.

In the manner of CIFAR-10-C (Hendrycks and Dietterich 2019, arXiv 1903.12261), but made
here, so the numbers are not those of its files:

    noise       Gaussian, of this standard deviation, as a share of the range 0 … 255
    blur        Gaussian, of this standard deviation in pixels
    contrast    differences to the image's mean colour, times this
    jpeg        saved at this quality and read again
    shift       by so many pixels to one of four sides, the edge repeated behind it

Pixels of blur and shift are those of an image 32 pixels high or wide, whichever is
less; larger images get as many times more.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32, Int32, UInt8
from PIL import Image

from diffjax.data.sources import Example, Source, digest
from diffjax.errors import DiffjaxError, unknown

SEVERITIES = (1, 2, 3, 4, 5)
SIDE = 32  # of the images that blur and shift are given for

Pixels = Float32[np.ndarray, "h w 3"]
Change = Callable[[Pixels, float, np.random.Generator], np.ndarray]


def _noise(image: Pixels, sd: float, random: np.random.Generator) -> np.ndarray:
    return image + 255 * sd * random.standard_normal(image.shape)


def _blur(image: Pixels, sd: float, random: np.random.Generator) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    sd = sd * min(image.shape[:2]) / SIDE
    blurred: np.ndarray = gaussian_filter(image, (sd, sd, 0), mode="nearest")
    return blurred


def _contrast(image: Pixels, share: float, random: np.random.Generator) -> np.ndarray:
    mean = image.mean((0, 1))
    flatter: np.ndarray = mean + share * (image - mean)
    return flatter


def _jpeg(image: Pixels, quality: float, random: np.random.Generator) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image.astype(np.uint8)).save(file, "JPEG", quality=int(quality))
    return np.asarray(Image.open(file))


def _shift(image: Pixels, pixels: float, random: np.random.Generator) -> np.ndarray:
    n = max(1, round(pixels * min(image.shape[:2]) / SIDE))
    axis, way = random.integers(2, size=2)
    places = np.arange(image.shape[axis]) + (n if way else -n)
    moved: np.ndarray = image.take(places.clip(0, image.shape[axis] - 1), int(axis))
    return moved


# How it is done, and how much of it at each severity.
CORRUPTIONS: dict[str, tuple[Change, tuple[float | int, ...]]] = {
    "noise": (_noise, (0.03, 0.06, 0.09, 0.13, 0.18)),
    "blur": (_blur, (0.4, 0.6, 0.8, 1.1, 1.5)),
    "contrast": (_contrast, (0.75, 0.5, 0.4, 0.3, 0.15)),
    "jpeg": (_jpeg, (80, 60, 40, 25, 12)),
    "shift": (_shift, (1, 2, 3, 4, 6)),
}


@dataclass(frozen=True, kw_only=True)
class Corruption:
    """One kind of corruption at one severity.

    Attributes:
        kind: a key of ``CORRUPTIONS``.
        severity: 1 to 5.
        seed: the seed of what is random in it.
    """

    kind: str
    severity: int
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in CORRUPTIONS:
            raise unknown("corruption", self.kind, CORRUPTIONS)
        if self.severity not in SEVERITIES:
            raise DiffjaxError(f"The severity is 1 to 5, not {self.severity}.")

    def __str__(self) -> str:
        """As ``parse_corruption`` reads it."""
        return f"{self.kind}:{self.severity}"

    def apply(
        self, image: UInt8[np.ndarray, "h w 3"], index: int
    ) -> UInt8[np.ndarray, "h w 3"]:
        """The image made worse.

        Args:
            image: 0 to 255.
            index: of the image in its set; with the seed and the kind it decides what
                is random, for all severities alike.
        """
        change, amounts = CORRUPTIONS[self.kind]
        kind = list(CORRUPTIONS).index(self.kind)
        random = np.random.default_rng((self.seed, index, kind))
        changed = change(
            image.astype(np.float32), float(amounts[self.severity - 1]), random
        )
        return np.rint(changed).clip(0, 255).astype(np.uint8)


def parse_corruption(text: str) -> Corruption:
    """Read "blur:3".

    Raises:
        DiffjaxError: if there is no such kind or severity.
    """
    kind, _, severity = text.partition(":")
    if not severity.isdecimal():
        raise DiffjaxError(f"Write a corruption as in blur:3, not as {text!r}.")
    return Corruption(kind=kind, severity=int(severity))


def every_corruption() -> list[Corruption]:
    """Each kind at each severity."""
    return [
        Corruption(kind=kind, severity=severity)
        for kind in CORRUPTIONS
        for severity in SEVERITIES
    ]


class CorruptedSource(Source):
    """A source whose images are made worse; labels and ids are the same."""

    def __init__(self, source: Source, corruption: Corruption) -> None:
        self._source, self._corruption = source, corruption
        self.name = f"{source.name} {corruption}"
        self.split = source.split
        self.class_names = source.class_names
        self.model_classes = source.model_classes
        _, amounts = CORRUPTIONS[corruption.kind]
        how = f"{corruption} of {amounts}, seed {corruption.seed}"
        self.fingerprint = digest([source.fingerprint, how])

    def __len__(self) -> int:
        """The number of examples."""
        return len(self._source)

    def __getitem__(self, index: int) -> Example:
        """The example at an index in [0, len), made worse now."""
        example = self._source[index]
        return replace(example, image=self._corruption.apply(example.image, index))

    def labels(self) -> Int32[np.ndarray, " n"]:
        """The label of each example, in order."""
        return self._source.labels()
