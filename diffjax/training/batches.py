"""Which images, captions and timesteps step k sees: pure functions of (seed, k).

The items of a set of n images are 0 … n − 1, the images, then perhaps n … 2n − 1, the
same images flipped left to right, and n items more for every copy that is cropped;
further items may follow. All go round in epochs, each a fresh permutation.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int32, UInt8
from PIL import Image
from scipy.special import expit
from scipy.stats import norm

LEAST_CROP = 0.4  # of an image's area


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


@dataclass(frozen=True, kw_only=True)
class Levels:
    """t/T of items, of which a logit is normal (Esser et al. 2024, section 3.1).

    Attributes:
        n_own: how many items are the images', before further ones.
        own: mean and standard deviation of the logit for these; None for uniform t.
        further: the same for the others.
    """

    n_own: int
    own: tuple[float, float] | None
    further: tuple[float, float] | None

    def __call__(
        self, u: Float[np.ndarray, " b"], items: Int32[np.ndarray, " b"]
    ) -> Float[np.ndarray, " b"]:
        """t/T for u in (0, 1)."""
        share = np.array(u)
        u = np.clip(u, 1e-6, 1 - 1e-6)
        for which, numbers in (
            (items < self.n_own, self.own),
            (items >= self.n_own, self.further),
        ):
            if numbers is not None:
                share[which] = expit(norm.ppf(u[which], *numbers))
        return share


def batch_items(n: int, batch: int, step: int, seed: int) -> Int32[np.ndarray, " b"]:
    """The items in [0, n) of a step; an epoch's incomplete last batch is left out."""
    if not 0 < batch <= n:
        raise ValueError(f"a batch of {batch} from {n} items")
    epoch, place = divmod(step, n // batch)
    order = np.random.default_rng((seed, epoch)).permutation(n)
    return order[place * batch : (place + 1) * batch].astype(np.int32)


def item_pixels(
    images: UInt8[np.ndarray, "n H H 3"],
    items: Int32[np.ndarray, " b"],
    *,
    mirror: bool,
) -> Float32[np.ndarray, "b H H 3"]:
    """The pixels, in [−1, 1], of items of n images.

    Args:
        images: 0 to 255, squares.
        items: copy n + image; copy 0 is the image, copy 1 its mirror image if there
            are such, and any further copy a crop.
        mirror: whether there are mirror images.
    """
    copy, index = np.divmod(items, len(images))
    found = images[index]
    mirrored = (copy == 1) & mirror
    found[mirrored] = found[mirrored][:, :, ::-1]
    for place in np.flatnonzero(copy > mirror):
        random = np.random.default_rng((int(index[place]), int(copy[place])))
        found[place] = crop(found[place], random)
    return found.astype(np.float32) / 127.5 - 1


def crop(
    image: UInt8[np.ndarray, "H H 3"], random: np.random.Generator
) -> UInt8[np.ndarray, "H H 3"]:
    """A random square of an image at the image's own size, flipped half of the time.

    Its area is uniform between ``LEAST_CROP`` and the whole; bicubic (as is customary
    since Szegedy et al. 2015, but without changes of the aspect ratio).
    """
    side = len(image)
    edge = side * float(np.sqrt(random.uniform(LEAST_CROP, 1)))
    left, top = random.uniform(0, side - edge, 2)
    if random.random() < 0.5:
        image = image[:, ::-1]
    picture = Image.fromarray(image).resize(
        (side, side), Image.Resampling.BICUBIC, box=(left, top, left + edge, top + edge)
    )
    return np.asarray(picture)


def latent_batch(
    latents: Float32[np.ndarray, "k h w c"],
    ids: Callable[[Int32[np.ndarray, " b"], np.random.Generator], np.ndarray],
    nothing: Int32[np.ndarray, "..."],
    *,
    batch: int,
    empty: float,
    n_timesteps: int,
    levels: Callable[[Any, Any], Any] = lambda u, items: u,
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
        levels: (u, items) → t/T, for u uniform in (0, 1); by default t is uniform.
        step: from 0 on.
        seed: the seed of the run.
    """
    items = batch_items(len(latents), batch, step, seed)
    # a stream of its own: epochs are seeded by (seed, epoch)
    random = np.random.default_rng((seed, step, 1))
    shown = ids(items, random)
    shown[random.random(batch) < empty] = nothing
    # stratified, so that no step sees only easy timesteps; each one is still uniform
    u = (random.permutation(batch) + random.random(batch)) / batch
    share = levels(u, items)
    t = np.minimum(share * n_timesteps, n_timesteps - 1).astype(np.int32)
    return LatentBatch(latents[items], shown, t)
