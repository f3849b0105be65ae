"""What diffusion classifiers are compared with: images → log-probabilities of classes.

    ImageClassifier   is trained on its classes: pixels → logits
    ZeroShot          is told of them by prompts, and is then a classifier of them

``naming`` finds them by their names, and ``evaluation.baselines`` makes runs of them.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import jax
import numpy as np
from jaxtyping import Array, Float, Float32, UInt8
from PIL import Image

from diffjax.checkpoints.image_classifiers import NAMELESS
from diffjax.data.images import load_image
from diffjax.data.prompts import Prompts
from diffjax.models.network import Network
from diffjax.tracing import jit

DISCRIMINATIVE, CONTRASTIVE = "discriminative", "contrastive"
SMALL = 64  # pixels along an edge, of images of which many fit anywhere

See = Callable[[Image.Image], Float32[np.ndarray, "H W 3"]]


def batch_of(resolution: int) -> int:
    """Images in one call: another number would be compiled anew."""
    if resolution <= SMALL:
        return 128
    return 16 if jax.default_backend() == "cpu" else 64


def device() -> str:
    """What computes."""
    return f"1 × {jax.devices()[0].device_kind}"


@dataclass(frozen=True, kw_only=True)
class Classifier(ABC):
    """What a run is made of.

    Attributes:
        name: what was asked for.
        see: an upright RGB image → pixels as the network sees them.
        resolution: pixels along each edge of these.
        class_names: of the C classes that it tells apart.
        kind: what it is, a key of ``runs.robustness.FAMILIES``.
    """

    name: str
    see: See
    resolution: int
    class_names: tuple[str, ...]
    kind: ClassVar[str]

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """All that decides its numbers; plain JSON values."""

    @abstractmethod
    def log_probabilities(
        self, pixels: Float32[np.ndarray, "n H W 3"]
    ) -> Float32[np.ndarray, "n C"]:
        """Logarithms of the probabilities of all classes."""

    def pixels(self, image: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "H W 3"]:
        """What the network sees of an image: resized, cropped and scaled.

        Raises:
            DiffjaxError: if the image is too small or too long.
        """
        return self.see(load_image(image))


@dataclass(frozen=True, kw_only=True)
class ImageClassifier(Classifier):
    """A network that is trained on the classes that it tells apart.

    Attributes:
        network: pixels [H, W, 3] → logits [C].
        config: what the network's config says.
        sees: what decides the pixels besides the resolution; plain JSON values.
    """

    network: Network
    config: dict[str, Any]
    sees: dict[str, Any] = field(default_factory=dict)
    kind = DISCRIMINATIVE

    @property
    def known_names(self) -> tuple[str, ...] | None:
        """The names of the classes, if they have any but those of ``NAMELESS``."""
        n = len(self.class_names)
        nameless = self.class_names == tuple(map(NAMELESS.format, range(n)))
        return None if nameless else self.class_names

    def describe(self) -> dict[str, Any]:
        """All that decides its numbers; plain JSON values."""
        return {
            "weights": self.network.fingerprint,
            "configs": {"classifier": self.config},
            **({"preprocessing": self.sees} if self.sees else {}),
        }

    def log_probabilities(
        self, pixels: Float32[np.ndarray, "n H W 3"]
    ) -> Float32[np.ndarray, "n C"]:
        """Logarithms of the probabilities of all classes."""
        batch = batch_of(self.resolution)
        n = len(self.class_names)
        return in_batches(lambda x: _log_softmax(self.network, x), pixels, batch, n)


class ZeroShot(ABC):
    """A model of images and texts, which no data set's classes were shown to."""

    name: str

    @abstractmethod
    def of(self, prompts: Prompts) -> Classifier:
        """A classifier of the classes that the prompts stand for, in their order.

        Raises:
            DiffjaxError: if the text encoder's numbers overflow.
        """


Baseline = ImageClassifier | ZeroShot


def in_batches(
    compute: Callable[[np.ndarray], Array],
    rows: np.ndarray,
    batch: int,
    width: int,
) -> Float32[np.ndarray, "n w"]:
    """Compute [n, width] of n rows, of as many at a time as ``batch`` says.

    The last batch is filled up with zeros: it is computed as the others are.
    """
    n = len(rows)
    found = np.empty((n, width), np.float32)
    for start in range(0, n, batch):
        some = rows[start : start + batch]
        sides = [(0, batch - len(some))] + [(0, 0)] * (rows.ndim - 1)
        computed = jax.device_get(compute(np.pad(some, sides)))
        found[start : start + batch] = computed[: len(some)]
    return found


@jit
def _log_softmax(network: Network, pixels: Array) -> Float[Array, "n C"]:
    model: Any = network.module()
    return jax.nn.log_softmax(jax.vmap(model)(pixels))
