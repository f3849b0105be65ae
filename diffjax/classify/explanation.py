"""Where in an image the evidence for one label over another lies.

    m[c, s](y, x) = mean over channels of ℓ(ε, ε̂(z_t, t, c))(y, x)
    d_s(y, x)     = m[other, s](y, x) − m[label, s](y, x)

d is how much worse the other label explains the noise at a place of the latent, for the
sample s = (t, ε). The mean of m over the places is the grid's cell e[c, s], so that of
d over places and samples is the difference that a classification rests on.
"""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from diffjax.classify.classifier import DiffusionClassifier
from diffjax.data.images import ImageSource
from diffjax.data.prompts import DEFAULT_TEMPLATE
from diffjax.errors import DiffjaxError, overflowed
from diffjax.scoring.grid import error_maps
from diffjax.strategies.exhaustive import Exhaustive
from diffjax.tracing import pinned


@dataclass(frozen=True, kw_only=True, eq=False)
class Band:
    """A group of neighbouring timesteps.

    Attributes:
        first: The smallest timestep.
        last: The largest timestep.
        evidence: The mean of d over the band's samples.
        standard_error: The standard error of the evidence, place by place; NaN for a
            single sample.
    """

    first: int
    last: int
    evidence: Float[np.ndarray, "h w"]
    standard_error: Float[np.ndarray, "h w"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Explanation:
    """Maps of the errors of two labels on one image.

    Attributes:
        pixels: What the model sees, in [−1, 1].
        label: The label that is explained.
        other: The label that it is explained against.
        timesteps: The timesteps of the samples, ascending.
        maps: The maps m of the two labels, in this order.
        settings: Model, loss and whatever else decides the maps.
        limits: A line about labels that the model never saw, if that is known.
    """

    pixels: Float[np.ndarray, "H W 3"]
    label: str
    other: str
    timesteps: Int[np.ndarray, "S"]
    maps: Float[np.ndarray, "S 2 h w"]
    settings: dict[str, Any]
    limits: str | None = None

    @property
    def difference(self) -> float:
        """The mean error of the other label less that of the label."""
        return float(self._d().mean())

    def bands(self, n: int) -> list[Band]:
        """Split the samples into n even groups of neighbouring timesteps.

        Raises:
            ValueError: If there are fewer samples than groups.
        """
        if not 1 <= n <= len(self.timesteps):
            raise ValueError(f"{len(self.timesteps)} samples do not make {n} bands")
        groups = np.array_split(np.arange(len(self.timesteps)), n)
        return [self._band(group) for group in groups]

    def _band(self, group: Int[np.ndarray, " s"]) -> Band:
        d = self._d()[group]
        several = len(group) > 1
        spread = d.std(axis=0, ddof=1) if several else np.full(d.shape[1:], np.nan)
        return Band(
            first=int(self.timesteps[group[0]]),
            last=int(self.timesteps[group[-1]]),
            evidence=d.mean(axis=0),
            standard_error=spread / np.sqrt(len(group)),
        )

    def _d(self) -> Float[np.ndarray, "S h w"]:
        d: np.ndarray = self.maps[:, 1].astype(np.float64) - self.maps[:, 0]
        return d


@pinned()
def explain(
    classifier: DiffusionClassifier,
    image: ImageSource,
    label: str,
    other: str,
    *,
    template: str = DEFAULT_TEMPLATE,
    n_samples: int = 100,
) -> Explanation:
    """Find where in an image the evidence for ``label`` over ``other`` lies.

    The samples are those of ``Exhaustive(n_samples)``, so the maps are those of the
    errors that it would decide by. The loss and the noise are the classifier's.

    Args:
        classifier: A classifier with a model of prompts or classes.
        image: A path, URL, PIL image or array.
        label: The class to explain.
        other: The class to explain it against.
        template: A prompt with one {} for the label; class-conditional models do not
            use it.
        n_samples: The number of timesteps, even over the schedule; each takes two
            evaluations.

    Raises:
        DiffjaxError: If the image cannot be read, the model lacks a label, the labels
            are the same, or the network's numbers overflow.
    """
    if label == other:
        raise DiffjaxError(f"Two different labels are needed, not {label!r} twice.")
    candidates = classifier.candidates([label, other], template)
    encoded, grid = classifier.encode(image), classifier.grid
    T = classifier.model.schedule.n_timesteps
    samples = Exhaustive(n_samples=n_samples).start(2, T).samples
    order = np.argsort(samples.timesteps, kind="stable")
    grid.check(samples.timesteps, samples.noises)
    asked = classifier.settings.as_dict()
    maps = error_maps(
        grid.denoiser,
        grid.schedule,
        grid.noise,
        jnp.uint32(encoded.key),
        jnp.asarray(encoded.z0),
        candidates.conditions,
        jnp.asarray(samples.timesteps[order], jnp.int32),
        jnp.asarray(samples.noises[order], jnp.int32),
        dict(encoded.told),
        loss=asked["loss"],
    )
    if not np.isfinite(maps).all():
        raise overflowed("A map of the errors is not finite")
    return Explanation(
        pixels=encoded.pixels,
        label=label,
        other=other,
        timesteps=samples.timesteps[order],
        maps=np.asarray(maps),
        limits=candidates.limits,
        settings=classifier.model.origin
        | {k: v for k, v in asked.items() if k in ("loss", "space")},
    )
