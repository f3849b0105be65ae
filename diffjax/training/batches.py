"""Which images, captions and timesteps step k sees: pure functions of (seed, k).

The items of a set of n images are 0 … n − 1, the images, and perhaps n … 2n − 1, the
same images flipped left to right; further items may follow. All go round in epochs,
each a fresh permutation.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int32, UInt8
from scipy.special import expit
from scipy.stats import norm


class LatentBatch(NamedTuple):
    """Latents, scaled, with ids each: a class, or the tokens of a caption."""

    latents: Float32[np.ndarray, "b h w c"]
    ids: Int32[np.ndarray, "b ..."]
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
    """

    of_classes: Int32[np.ndarray, "templates classes l"]
    of_items: Int32[np.ndarray, "m l"]

    def ids(
        self,
        items: Int32[np.ndarray, " b"],
        labels: Int32[np.ndarray, " n"],
        n_own: int,
        random: np.random.Generator,
    ) -> Int32[np.ndarray, "b l"]:
        """A caption for each item; the first ``n_own`` items are those of n images."""
        template = random.integers(len(self.of_classes), size=len(items))
        ids: np.ndarray = self.of_classes[template, labels[items % len(labels)]]
        further = items >= n_own
        ids[further] = self.of_items[items[further] - n_own]
        return ids


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


def latent_batch(
    latents: Float32[np.ndarray, "k h w c"],
    ids: Callable[[Int32[np.ndarray, " b"], np.random.Generator], np.ndarray],
    nothing: Int32[np.ndarray, "..."],
    *,
    batch: int,
    empty: float,
    n_timesteps: int,
    logit_normal: tuple[float, float] | None = None,
    step: int,
    seed: int,
) -> LatentBatch:
    """The batch of a step of a diffusion model.

    Args:
        latents: the latents of all items.
        ids: (items, random) → new arrays of the ids that items are shown with.
        nothing: the ids in place of those, for a share of the items.
        batch: items a step.
        empty: that share.
        n_timesteps: T.
        logit_normal: mean and standard deviation of logit t/T; None for uniform t.
        step: from 0 on.
        seed: the seed of the run.
    """
    items = batch_items(len(latents), batch, step, seed)
    # a stream of its own: epochs are seeded by (seed, epoch)
    random = np.random.default_rng((seed, step, 1))
    shown = ids(items, random)
    shown[random.random(batch) < empty] = nothing
    # Stratified, so that no step sees only easy timesteps; each one is still uniform,
    # or logit t/T is normal (Esser et al. 2024, section 3.1).
    u = (random.permutation(batch) + random.random(batch)) / batch
    if logit_normal is not None:
        u = expit(norm.ppf(np.clip(u, 1e-6, 1 - 1e-6), *logit_normal))
    t = np.minimum(u * n_timesteps, n_timesteps - 1).astype(np.int32)
    return LatentBatch(latents[items], shown, t)
