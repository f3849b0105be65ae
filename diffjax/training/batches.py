"""Which images, captions and timesteps step k sees: pure functions of (seed, k).

The items of a set of n images are 0 … n − 1, the images, and perhaps n … 2n − 1, the
same images flipped left to right; further items may follow. All go round in epochs,
each a fresh permutation.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int32, UInt8
from scipy.special import expit
from scipy.stats import norm


class TextBatch(NamedTuple):
    """Latents, scaled, with the token ids of a caption each."""

    latents: Float32[np.ndarray, "b h w c"]
    captions: Int32[np.ndarray, "b l"]
    timesteps: Int32[np.ndarray, " b"]


class ClassBatch(NamedTuple):
    """Latents, scaled, with a class id each."""

    latents: Float32[np.ndarray, "b h w c"]
    classes: Int32[np.ndarray, " b"]
    timesteps: Int32[np.ndarray, " b"]


class PixelBatch(NamedTuple):
    """Images, in [−1, 1], with a label each."""

    pixels: Float32[np.ndarray, "b H W 3"]
    labels: Int32[np.ndarray, " b"]


class Captions(NamedTuple):
    """Token ids of all captions that items can have.

    Attributes:
        of_classes: of every template with every class name, for the images' items.
        of_items: one each, for the m items after those.
        empty: of the empty caption.
    """

    of_classes: Int32[np.ndarray, "templates classes l"]
    of_items: Int32[np.ndarray, "m l"]
    empty: Int32[np.ndarray, " l"]


def batch_items(n: int, batch: int, step: int, seed: int) -> Int32[np.ndarray, " b"]:
    """The items in [0, n) of a step; an epoch's incomplete last batch is left out."""
    if not 0 < batch <= n:
        raise ValueError(f"a batch of {batch} from {n} items")
    epoch, place = divmod(step, n // batch)
    order = np.random.default_rng((seed, epoch)).permutation(n)
    return order[place * batch : (place + 1) * batch].astype(np.int32)


def item_pixels(
    images: UInt8[np.ndarray, "n H W 3"], items: Int32[np.ndarray, " b"]
) -> Float32[np.ndarray, "b H W 3"]:
    """The pixels, in [−1, 1], of items in [0, 2n)."""
    n = len(images)
    pixels = images[items % n].astype(np.float32) / 127.5 - 1
    flipped = (items >= n)[:, None, None, None]
    either: np.ndarray = np.where(flipped, pixels[:, :, ::-1], pixels)
    return either


def text_batch(
    latents: Float32[np.ndarray, "k h w c"],
    labels: Int32[np.ndarray, " n"],
    captions: Captions,
    *,
    batch: int,
    empty: float,
    n_timesteps: int,
    logit_normal: tuple[float, float] | None = None,
    step: int,
    seed: int,
) -> TextBatch:
    """The batch of a step of a model of captions.

    Args:
        latents: of all k items; k = n + m, or 2n + m with the flipped images.
        labels: of the images.
        captions: that items can have.
        batch: items a step.
        empty: the share of items that get the empty caption.
        n_timesteps: T.
        logit_normal: mean and standard deviation of logit t/T; None for uniform t.
        step: from 0 on.
        seed: of the run.
    """
    items = batch_items(len(latents), batch, step, seed)
    random = _stream(seed, step)
    n = len(labels)
    template = random.integers(len(captions.of_classes), size=batch)
    ids = captions.of_classes[template, labels[items % n]]
    own = len(latents) - len(captions.of_items)
    further = items >= own
    ids[further] = captions.of_items[items[further] - own]
    ids[random.random(batch) < empty] = captions.empty
    t = _timesteps(random, batch, n_timesteps, logit_normal)
    return TextBatch(latents[items], ids, t)


def class_batch(
    latents: Float32[np.ndarray, "k h w c"],
    labels: Int32[np.ndarray, " n"],
    *,
    n_classes: int,
    batch: int,
    empty: float,
    n_timesteps: int,
    logit_normal: tuple[float, float] | None = None,
    step: int,
    seed: int,
) -> ClassBatch:
    """The batch of a step of a model of classes; k = n or 2n, else as ``text_batch``.

    Class id ``n_classes`` is the unconditional one, which a share ``empty`` gets.
    """
    items = batch_items(len(latents), batch, step, seed)
    random = _stream(seed, step)
    classes = labels[items % len(labels)]
    classes[random.random(batch) < empty] = n_classes
    t = _timesteps(random, batch, n_timesteps, logit_normal)
    return ClassBatch(latents[items], classes, t)


def _stream(seed: int, step: int) -> np.random.Generator:
    # a stream of its own: epochs are seeded by (seed, epoch)
    return np.random.default_rng((seed, step, 1))


def _timesteps(
    random: np.random.Generator,
    batch: int,
    n_timesteps: int,
    logit_normal: tuple[float, float] | None = None,
) -> Int32[np.ndarray, " b"]:
    # Stratified, so that no step sees only easy timesteps; each one is still uniform,
    # or logit t/T is normal (Esser et al. 2024, section 3.1).
    u = (random.permutation(batch) + random.random(batch)) / batch
    if logit_normal is not None:
        mean, sd = logit_normal
        u = expit(norm.ppf(np.clip(u, 1e-6, 1 - 1e-6), mean, sd))
    return np.minimum(u * n_timesteps, n_timesteps - 1).astype(np.int32)
