"""Which images, captions and timesteps step k sees: pure functions of (seed, k).

The items of a set of n images are 0 … n − 1, the images, and n … 2n − 1, the same
images flipped left to right. They go round in epochs, each a fresh permutation.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int32, UInt8


class DenoiserBatch(NamedTuple):
    """The arguments of ``denoiser_loss`` that change from step to step."""

    latents: Float32[np.ndarray, "b h w c"]
    captions: Int32[np.ndarray, "k l"]
    caption: Int32[np.ndarray, " b"]
    timesteps: Int32[np.ndarray, " b"]


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


def denoiser_batch(
    latents: Float32[np.ndarray, "m h w c"],
    labels: Int32[np.ndarray, " n"],
    captions: Int32[np.ndarray, "templates classes l"],
    empty: Int32[np.ndarray, " l"],
    *,
    batch: int,
    empty_share: float,
    n_timesteps: int,
    step: int,
    seed: int,
) -> DenoiserBatch:
    """The batch of a step.

    Args:
        latents: of all items, scaled; m = 2n.
        labels: of the images.
        captions: token ids of every template with every class name.
        empty: token ids of the empty caption.
        batch: items a step.
        empty_share: the share of items that get the empty caption.
        n_timesteps: T.
        step: from 0 on.
        seed: of the run.
    """
    items = batch_items(len(latents), batch, step, seed)
    # a stream of its own: epochs are seeded by (seed, epoch)
    random = np.random.default_rng((seed, step, 1))
    templates, classes, _ = captions.shape
    # One template a class and step: few captions to encode, and in the long run all.
    template = random.integers(templates, size=classes)
    caption = labels[items % len(labels)]
    without = random.random(batch) < empty_share
    # Stratified, so that no step sees only easy timesteps; each one is still uniform.
    u = (random.permutation(batch) + random.random(batch)) / batch
    return DenoiserBatch(
        latents=latents[items],
        captions=np.concatenate([captions[template, np.arange(classes)], empty[None]]),
        caption=np.where(without, classes, caption).astype(np.int32),
        timesteps=np.minimum(u * n_timesteps, n_timesteps - 1).astype(np.int32),
    )
