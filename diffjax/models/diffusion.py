"""A whole diffusion model: images and prompts in, predicted noise out.

z0 = scaling_factor · mean of q(z | pixels)
condition = text states of a prompt, or a class id
ε̂ = noise that the denoiser's prediction for (z_t, t, condition) stands for
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from diffjax.errors import DiffjaxError
from diffjax.schedules import Schedule, noise_from_prediction

PROMPTS_AT_ONCE = 32  # through the text encoder; bounds its memory


@partial(
    jax.tree_util.register_dataclass, data_fields=["state"], meta_fields=["graphdef"]
)
@dataclass(frozen=True)
class Network:
    """A module split into structure and weights: a pytree to hand through jit.

    A module that jit closed over would compile its weights in as constants.
    """

    graphdef: Any
    state: Any

    @classmethod
    def of(cls, module: nnx.Module) -> "Network":
        """Split a module."""
        return cls(*nnx.split(module))

    def module(self) -> Any:
        """The module again, inside or outside of jit."""
        return nnx.merge(self.graphdef, self.state)

    @property
    def parameters(self) -> int:
        """The number of weights."""
        return sum(int(leaf.size) for leaf in jax.tree.leaves(self.state))


class Tokens(NamedTuple):
    """Token ids of prompts, and which of them did not fit."""

    ids: Int[np.ndarray, "n l"]
    truncated: tuple[bool, ...]


@dataclass(frozen=True, kw_only=True)
class DiffusionModel:
    """A denoiser with all that surrounds it.

    Attributes:
        name: what was asked for.
        kind: "text" (prompts) or "class" (class ids).
        denoiser: (z_t, t, condition) → prediction.
        autoencoder: pixels ⇄ latents.
        scaling_factor: from the autoencoder's mean to z0.
        schedule: the forward process and the prediction type.
        resolution: pixels along each edge that the model was trained for.
        latent_channels: channels of z0; a learned variance follows them in the
            denoiser's output.
        text_encoder: ids → states, of text models.
        tokenize: prompts → ids, of text models.
        class_names: names of the class ids, of class models that have them.
        n_classes: the number of class ids, of class models.
    """

    name: str
    kind: Literal["text", "class"]
    denoiser: Network
    autoencoder: Network
    scaling_factor: float
    schedule: Schedule
    resolution: int
    downscale: int
    latent_channels: int
    text_encoder: Network | None = None
    tokenize: Callable[[Sequence[str]], Tokens] | None = None
    class_names: tuple[str, ...] | None = None
    n_classes: int | None = None

    @property
    def parameters(self) -> int:
        """The number of weights of all parts."""
        parts = (self.denoiser, self.autoencoder, self.text_encoder)
        return sum(part.parameters for part in parts if part is not None)

    def latent(self, pixels: Float[np.ndarray, "H W 3"]) -> Float[Array, "h w c"]:
        """z0 of an image in [−1, 1]: the posterior's mean, scaled.

        Raises:
            DiffjaxError: if height or width do not divide into latent cells.
        """
        if pixels.shape[0] % self.downscale or pixels.shape[1] % self.downscale:
            raise DiffjaxError(
                f"an image of {pixels.shape[1]}×{pixels.shape[0]} pixels does not fit "
                f"{self.name}: both must be multiples of {self.downscale}"
            )
        mean: Array = _encode(self.autoencoder, pixels)
        return self.scaling_factor * mean

    def text_states(
        self, prompts: Sequence[str]
    ) -> tuple[Float[Array, "n l d"], tuple[str, ...]]:
        """Text states of prompts, and the prompts that were cut to fit.

        Raises:
            DiffjaxError: if the model takes class ids instead of prompts.
        """
        if self.text_encoder is None or self.tokenize is None:
            raise DiffjaxError(
                f"{self.name} knows classes by id, not by prompt; "
                "name its own classes as labels"
            )
        tokens = self.tokenize(prompts)
        n = len(prompts)
        # a fixed number at once, padded: one compilation whatever the count
        rows = np.resize(np.arange(n), -(-n // PROMPTS_AT_ONCE) * PROMPTS_AT_ONCE)
        states = [
            _encode_text(self.text_encoder, tokens.ids[chunk])
            for chunk in rows.reshape(-1, PROMPTS_AT_ONCE)
        ]
        cut = zip(prompts, tokens.truncated, strict=True)
        return jnp.concatenate(states)[:n], tuple(p for p, was in cut if was)


def predict_noise(
    denoiser: Network,
    schedule: Schedule,
    z_t: Float[Array, "h w c"],
    t: Int[Array, ""],
    condition: Array,
) -> Float[Array, "h w c"]:
    """ε̂ for one noised latent under one condition, float32."""
    prediction = denoiser.module()(z_t, t, condition)
    # learned-sigma models append the variance
    return noise_from_prediction(schedule, prediction[..., : z_t.shape[-1]], z_t, t)


@jax.jit
def _encode(autoencoder: Network, pixels: Array) -> Array:
    mean: Array = autoencoder.module().encode(pixels)[0]
    return mean


@jax.jit
def _encode_text(text_encoder: Network, ids: Array) -> Array:
    states: Array = jax.vmap(text_encoder.module())(ids)
    return states
