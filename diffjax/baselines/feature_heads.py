"""Heads that are trained on features of a frozen diffusion model.

    y = (f − μ_d) / σ_d                       μ, σ of a feature over the training images
    linear:  logits = W mean(y) + b
    resnet:  x = conv(y);  x = shortcut(x) + conv(relu(norm(conv(relu(norm(x))))))
             logits = W mean(relu(norm(x))) + b

A share of the training images is held out. Of all weight decays and epochs, the head
with the smallest −log p(label) on these is taken; no other image has a say in it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from diffjax.baselines.resnet import ResNet, ResNetConfig
from diffjax.errors import DiffjaxError, optional
from diffjax.models.initial import drawn
from diffjax.models.layers import Make
from diffjax.models.network import Network
from diffjax.tracing import jit

GROUPS = 8  # of the ResNet's norms
WIDTHS = (64, 128)  # of its levels
LAYERS = 1  # residual blocks a level
SMALLEST = 1e-6  # deviation that a feature is divided by
MOST_AT_ONCE = 256  # maps that are looked at together
LEAST_STEPS, SMALLEST_BATCH = 32, 8  # an epoch; of few images batches are smaller


@runtime_checkable
class Maps(Protocol):
    """Features of images, wherever they are."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """h, w and d of each."""

    def __len__(self) -> int:
        """The number of images."""

    def take(self, images: Int[np.ndarray, " b"]) -> Float[np.ndarray, "b h w d"]:
        """Those of some images, float32."""


class Averages:
    """The means of maps over their places, in memory: maps of one place."""

    def __init__(self, maps: Maps) -> None:
        """Read all maps once."""
        n = len(maps)
        parts = [
            maps.take(np.arange(k, min(k + MOST_AT_ONCE, n))).mean((1, 2))
            for k in range(0, n, MOST_AT_ONCE)
        ]
        self._rows = np.concatenate(parts)[:, None, None]

    @property
    def shape(self) -> tuple[int, int, int]:
        """1, 1 and d."""
        return 1, 1, self._rows.shape[-1]

    def __len__(self) -> int:
        """The number of images."""
        return len(self._rows)

    def take(self, images: Int[np.ndarray, " b"]) -> Float[np.ndarray, "b 1 1 d"]:
        """Those of some images."""
        rows: np.ndarray = self._rows[images]
        return rows


class Sizes(NamedTuple):
    """What a head maps from and to."""

    features: int
    classes: int


class LinearHead(nnx.Module):
    """The mean of a map, multiplied."""

    def __init__(
        self,
        sizes: Sizes,
        *,
        rngs: nnx.Rngs | None,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
    ) -> None:
        make = Make(rngs=rngs, dtype=dtype, param_dtype=param_dtype)
        self.head = make.linear(*sizes)

    def __call__(self, y: Float[Array, "h w d"]) -> Float[Array, " C"]:
        """[h, w, d] → logits."""
        logits: Array = self.head(y.mean((0, 1)))
        return logits


def resnet_head(sizes: Sizes, **kinds: Any) -> ResNet:
    """The ResNet that models are compared with, small, of maps instead of pixels."""
    config = ResNetConfig(
        num_classes=sizes.classes,
        block_out_channels=WIDTHS,
        layers_per_block=LAYERS,
        norm_num_groups=GROUPS,
    )
    return ResNet(config, channels=sizes.features, **kinds)


@dataclass(frozen=True, kw_only=True)
class Course:
    """How a kind of head is trained.

    Attributes:
        module: its network.
        epochs: through the images that are not held out.
        rate: of AdamW at first; it falls to 0 as a cosine.
        decays: of weights, each of which is tried.
        batch: images a step, at most.
        averages: whether the head sees the mean of a map alone.
    """

    module: Callable[..., nnx.Module]
    epochs: int
    rate: float
    decays: tuple[float, ...]
    batch: int = 128
    averages: bool = False


COURSES: Mapping[str, Course] = {
    "linear": Course(
        module=LinearHead, epochs=40, rate=0.01, decays=(0.0, 0.1, 1.0), averages=True
    ),
    "resnet": Course(module=resnet_head, epochs=10, rate=1e-3, decays=(0.05,)),
}


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A head, and how it was chosen.

    Attributes:
        kind: a key of ``COURSES``.
        network: maps a map, normalised, to logits.
        mean, deviation: μ and σ, [d].
        decay: of the weights.
        epoch: after which it was taken, from 1.
        learned: images that it learned from.
        held: images that chose it.
        right: how many of these it decides rightly.
        surprise: the mean of −log p(label) over these, in nats.
    """

    kind: str
    network: Network
    mean: Float[np.ndarray, " d"]
    deviation: Float[np.ndarray, " d"]
    decay: float
    epoch: int
    learned: int
    held: int
    right: int
    surprise: float

    def log_probabilities(self, maps: Maps) -> Float[np.ndarray, "n C"]:
        """log p(class) of all images."""
        given = Averages(maps) if COURSES[self.kind].averages else maps
        every = np.arange(len(given))
        return _answers(self.network, given, every, self.mean, self.deviation)


def train_head(
    kind: str,
    maps: Maps,
    labels: Int[np.ndarray, " n"],
    classes: int,
    *,
    seed: int = 0,
    share: float = 0.1,
    epochs: int | None = None,
) -> Trained:
    """Train a head, with what is random a function of the seed alone.

    Args:
        kind: a key of ``COURSES``.
        maps: the features of the training images.
        labels: of these, in [0, classes).
        classes: C.
        seed: of initial weights, batches and of which images are held out.
        share: of the images of each class that are held out, at least one of each.
        epochs: other than the course's.

    Raises:
        DiffjaxError: if a class has but one image, or the loss is not finite.
    """
    optax = optional("optax", "Training a head")
    adam = optax.scale_by_adam()
    course = COURSES[kind]
    epochs = epochs or course.epochs
    given = Averages(maps) if course.averages else maps
    taught, held = held_out(labels, share, seed)
    mean, deviation = moments(given, taught)
    batch = min(course.batch, max(SMALLEST_BATCH, len(taught) // LEAST_STEPS))
    steps = len(taught) // min(batch, len(taught))
    rates = course.rate * (1 + np.cos(np.linspace(0, np.pi, epochs * steps))) / 2
    best: Trained | None = None
    for decay in course.decays:
        random = np.random.default_rng(seed)
        network = _begun(course, Sizes(given.shape[-1], classes), random)
        state = adam.init(network.state)
        for epoch in range(epochs):
            order = random.permutation(taught)
            for step in range(steps):
                images = order[step * batch : (step + 1) * batch]
                y = _normal(given, images, mean, deviation)
                rate = np.float32(rates[epoch * steps + step])
                network, state = _step(
                    network, state, y, labels[images], rate, np.float32(decay)
                )
            odds = _answers(network, given, held, mean, deviation)
            surprise = float(-odds[np.arange(len(held)), labels[held]].mean())
            if not np.isfinite(surprise):
                raise DiffjaxError(
                    f"The loss of the {kind} head became {surprise} in epoch "
                    f"{epoch + 1}: its features are too large, or not finite."
                )
            if best is None or surprise < best.surprise:
                best = Trained(
                    kind=kind,
                    network=network,
                    mean=mean,
                    deviation=deviation,
                    decay=decay,
                    epoch=epoch + 1,
                    learned=len(taught),
                    held=len(held),
                    right=int((odds.argmax(axis=1) == labels[held]).sum()),
                    surprise=surprise,
                )
    assert best is not None  # there are epochs
    return best


def held_out(
    labels: Int[np.ndarray, " n"], share: float, seed: int
) -> tuple[Int[np.ndarray, " t"], Int[np.ndarray, " v"]]:
    """Images to learn from, and those held out, both ascending.

    Raises:
        DiffjaxError: if a class has but one image.
    """
    random = np.random.default_rng((seed, 1))
    held = []
    for label, count in zip(*np.unique(labels, return_counts=True), strict=True):
        if count < 2:
            raise DiffjaxError(
                f"Class {label} has one training image alone, and of each class some "
                "are held out: take more images."
            )
        members = random.permutation(np.flatnonzero(labels == label))
        held.append(members[: min(count - 1, max(1, round(share * count)))])
    chosen = np.sort(np.concatenate(held))
    return np.setdiff1d(np.arange(len(labels)), chosen), chosen


def moments(
    maps: Maps, images: Int[np.ndarray, " m"]
) -> tuple[Float[np.ndarray, " d"], Float[np.ndarray, " d"]]:
    """μ and σ of each feature, over images and places."""
    total = np.zeros((2, maps.shape[-1]))
    for k in range(0, len(images), MOST_AT_ONCE):
        part = maps.take(images[k : k + MOST_AT_ONCE]).astype(np.float64)
        total += part.sum((0, 1, 2)), np.square(part).sum((0, 1, 2))
    mean, square = total / (len(images) * maps.shape[0] * maps.shape[1])
    deviation = np.sqrt(np.maximum(square - mean**2, 0))
    floor = max(SMALLEST, SMALLEST * float(np.abs(mean).max()))
    return mean.astype(np.float32), np.maximum(deviation, floor).astype(np.float32)


def _begun(course: Course, sizes: Sizes, random: np.random.Generator) -> Network:
    """A head with initial weights, to which all classes are alike."""
    module = drawn(course.module, sizes, random)
    module.head.kernel[...] = jnp.zeros_like(module.head.kernel[...])
    return Network.of(module)


def _normal(
    maps: Maps, images: np.ndarray, mean: np.ndarray, deviation: np.ndarray
) -> np.ndarray:
    y: np.ndarray = (maps.take(images) - mean) / deviation
    return y


def _logits(network: Network, y: Array) -> Array:
    logits: Array = jax.vmap(network.module())(y)
    return logits


@jit
def _log_softmax(network: Network, y: Array) -> Array:
    out: Array = jax.nn.log_softmax(_logits(network, y))
    return out


def _answers(
    network: Network,
    maps: Maps,
    images: np.ndarray,
    mean: np.ndarray,
    deviation: np.ndarray,
) -> Float[np.ndarray, "n C"]:
    """log p(class) of some images."""
    found = []
    for k in range(0, len(images), MOST_AT_ONCE):
        # filled up with the last image: another number would be compiled anew
        places = np.minimum(np.arange(k, k + MOST_AT_ONCE), len(images) - 1)
        y = _normal(maps, images[places], mean, deviation)
        found.append(np.asarray(_log_softmax(network, y)))
    odds: np.ndarray = np.concatenate(found)[: len(images)].astype(np.float64)
    return odds


@jit
def _step(
    network: Network,
    state: Any,
    y: Float[Array, "b h w d"],
    labels: Int[Array, " b"],
    rate: Float[Array, ""],
    decay: Float[Array, ""],
) -> tuple[Network, Any]:
    """A step of AdamW; biases and the scales of norms do not decay."""
    optax = optional("optax", "Training a head")

    def loss(weights: Any) -> Array:
        odds = jax.nn.log_softmax(_logits(Network(network.graphdef, weights), y))
        return -jnp.take_along_axis(odds, labels[:, None], 1).mean()

    slope = jax.grad(loss)(network.state)
    change, state = optax.scale_by_adam().update(slope, state)

    def moved(weight: Array, change: Array) -> Array:
        return weight - rate * (change + decay * (weight.ndim > 1) * weight)

    weights = jax.tree.map(moved, network.state, change)
    return Network(network.graphdef, weights), state
