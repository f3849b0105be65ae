"""A whole diffusion model: images and prompts in, predicted noise out.

z0 = scaling_factor · (mean of q(z | pixels) − shift_factor)
condition = a tree: what the conditioner makes of a prompt, or a class id
ε̂ = noise that the denoiser's prediction for (z_t, t, condition) stands for
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from diffjax.errors import DiffjaxError
from diffjax.models.conditioner import Conditioner
from diffjax.models.limits import Limits
from diffjax.models.network import Network, digest
from diffjax.models.sampling import Sampling, Steps
from diffjax.schedules import Schedule, at, noise_from_prediction
from diffjax.tracing import jit


@dataclass(frozen=True, kw_only=True)
class DiffusionModel:
    """A denoiser with all that surrounds it.

    Attributes:
        name: what was asked for.
        origin: all that was asked for, for the record: name, dtype, revision, and
            parts from elsewhere; plain JSON values.
        kind: "text" (prompts) or "class" (class ids).
        denoiser: (z_t, t, condition) → prediction.
        autoencoder: pixels ⇄ latents.
        scaling_factor: from the autoencoder's mean to z0.
        shift_factor: what is taken off that mean before.
        schedule: the process and the prediction type, at ``resolution``.
        schedule_at: pixels along an edge → the schedule; None for the same for all.
        resolution: pixels along each edge that the model was trained for.
        downscale: pixels along an edge of a latent cell.
        multiple: an image's edges must be multiples of this.
        largest: and at most this; None for any.
        latent_channels: channels of z0.
        learned_variance: whether as many channels about the variance of a step follow
            them in the denoiser's output.
        conditioner: prompts → conditions, of text models.
        class_names: names of the class ids, of class models that have them.
        n_classes: the number of class ids, of class models.
        sampling_at: pixels along an edge → how images are sampled; None where nobody
            says.
        limits: what it has learned, where that is little; None for a large model.
        temperatures: of scores, as fitted to labels, by the loss that decides.
        unguided: whether there is a condition of no class.
        sizes: whether an image tells the denoiser its size (``conditions.told_of``).
        configs: what the networks' configs say, by component.
    """

    name: str
    origin: dict[str, Any]
    kind: Literal["text", "class"]
    denoiser: Network
    autoencoder: Network
    scaling_factor: float
    schedule: Schedule
    resolution: int
    downscale: int
    multiple: int
    latent_channels: int
    learned_variance: bool = False
    conditioner: Conditioner | None = None
    class_names: tuple[str, ...] | None = None
    n_classes: int | None = None
    sizes: bool = False
    schedule_at: Callable[[int], Schedule] | None = None
    sampling_at: Callable[[int], Sampling] | None = None
    limits: Limits | None = None
    temperatures: Mapping[str, float] = field(default_factory=dict)
    unguided: bool = True
    shift_factor: float = 0.0
    largest: int | None = None
    configs: dict[str, dict[str, Any]] = field(default_factory=dict)

    def at(self, resolution: int) -> "DiffusionModel":
        """The model for images of so many pixels along an edge: its schedule is."""
        if self.schedule_at is None:
            return self
        return replace(self, schedule=self.schedule_at(resolution))

    @property
    def text_conditioner(self) -> Conditioner:
        """The conditioner of a text model.

        Raises:
            DiffjaxError: if the model takes class ids instead of prompts.
        """
        if self.conditioner is None:
            raise DiffjaxError(
                f"{self.name} knows classes by id, not by prompt; "
                "name its own classes as labels."
            )
        return self.conditioner

    def networks(self) -> dict[str, Network]:
        """Denoiser, autoencoder and text encoders, which may have to be read."""
        encoders = {} if self.conditioner is None else self.conditioner.encoders
        return {
            "denoiser": self.denoiser,
            "autoencoder": self.autoencoder,
            **{name: encoder.network() for name, encoder in encoders.items()},
        }

    def unconditional(self) -> Any:
        """What stands for no class, a tree of one row: "", or the null class's id.

        Raises:
            DiffjaxError: if the model has no such condition.
        """
        if not self.unguided:
            raise DiffjaxError(
                f"{self.name} has no condition that stands for no class."
            )
        if self.n_classes is not None:
            return np.array([self.n_classes], np.int32)  # the table's last row
        return self.text_conditioner.encode([""])[0]

    @property
    def weights(self) -> str:
        """16 hex digits of all weights."""
        parts = [self.denoiser.fingerprint, self.autoencoder.fingerprint]
        if self.conditioner is not None:
            parts += self.conditioner.fingerprints
            self.conditioner.let_go()
        return digest(parts)

    def describe(self) -> dict[str, Any]:
        """All that decides its numbers, besides the dtype; plain JSON values.

        How prompts become tokens, or names class ids, is not in it: that depends on
        the prompts and names.
        """
        return {
            "kind": self.kind,
            "weights": self.weights,
            "configs": self.configs,
            "scaling_factor": self.scaling_factor,
            **({"shift_factor": self.shift_factor} if self.shift_factor else {}),
            "n_timesteps": self.schedule.n_timesteps,
            "prediction_type": self.schedule.prediction_type,
            "schedule": self.schedule.fingerprint,
        }

    @property
    def fingerprint(self) -> str:
        """16 hex digits of what ``describe`` says: a name can come to mean another."""
        return digest(map(repr, self.describe().items()))

    def steps(self, n: int, resolution: int) -> Steps:
        """The noise levels of n steps of sampling, at a resolution.

        Raises:
            DiffjaxError: if there are no such steps, or nobody says how to sample.
        """
        if self.sampling_at is None:
            raise DiffjaxError(f"Nobody says how {self.name} is sampled.")
        return self.sampling_at(resolution).steps(self.schedule, n)

    def latent(self, pixels: Float[np.ndarray, "H W 3"]) -> Float[Array, "h w c"]:
        """z0 of one image; see ``latents``."""
        return self.latents(pixels[None])[0]

    def latents(self, pixels: Float[np.ndarray, "n H W 3"]) -> Float[Array, "n h w c"]:
        """z0 of images in [−1, 1]: the posterior's mean, scaled.

        Raises:
            DiffjaxError: if height or width do not divide into latent cells.
        """
        height, width = pixels.shape[1:3]
        if height % self.multiple or width % self.multiple:
            raise DiffjaxError(
                f"An image of {width}×{height} pixels does not fit {self.name}: both "
                f"must be multiples of {self.multiple}."
            )
        z0: Array = _encode(
            self.autoencoder, pixels, self.scaling_factor, self.shift_factor
        )
        return z0


@runtime_checkable
class Sized(Protocol):
    """Whatever knows which images fit; see ``DiffusionModel``."""

    @property
    def name(self) -> str:  # noqa: D102
        ...

    @property
    def multiple(self) -> int:  # noqa: D102
        ...

    @property
    def largest(self) -> int | None:  # noqa: D102
        ...


def check_resolution(resolution: int, model: Sized) -> None:
    """Raise a DiffjaxError unless a model takes images of so many pixels an edge."""
    needed = f"a multiple of {model.multiple}"
    if model.largest is not None:
        needed += f", and at most {model.largest}: it has no more positions"
    if resolution % model.multiple or resolution > (model.largest or resolution):
        raise DiffjaxError(
            f"A resolution of {resolution} does not fit {model.name}: it must be "
            f"{needed}."
        )


def largest_resolution(config: Any, downscale: int) -> int | None:
    """The most pixels an edge that a denoiser has positions for; None for any."""
    patches: int | None = getattr(config, "pos_embed_max_size", None)
    return None if patches is None else downscale * config.patch_size * patches


def predict(
    denoiser: Network,
    schedule: Schedule,
    z_t: Float[Array, "h w c"],
    t: Int[Array, ""],
    condition: Any,
) -> tuple[Float[Array, "h w c"], Float[Array, "h w c"] | None]:
    """One forward pass: ε̂ for a noised latent, and the variance channels, float32.

    The second is None for models that do not predict a variance.
    """
    output = denoiser.module()(z_t, at(schedule.time, t), condition)
    n = z_t.shape[-1]
    noise = noise_from_prediction(schedule, output[..., :n], z_t, t)
    return noise, output[..., n:] if output.shape[-1] == 2 * n else None


@jit
def _encode(
    autoencoder: Network,
    pixels: Array,
    scale: float | Array,
    shift: float | Array = 0.0,
) -> Array:
    means: Array = jax.vmap(autoencoder.module().encode)(pixels)[0]
    return scale * (means - shift)
