"""A whole diffusion model: images and prompts in, predicted noise out.

z0 = scaling_factor · mean of q(z | pixels)
condition = text states of a prompt, or a class id
ε̂ = noise that the denoiser's prediction for (z_t, t, condition) stands for
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from operator import itemgetter
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from diffjax.errors import DiffjaxError
from diffjax.schedules import Schedule, at, noise_from_prediction
from diffjax.tracing import eval_shape, jit, pinned

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

    def leaves(self) -> list[tuple[str, np.ndarray]]:
        """The weights by name, sorted, on the host."""
        flat = jax.tree_util.tree_leaves_with_path(self.state)
        names = [(jax.tree_util.keystr(path), leaf) for path, leaf in flat]
        return [
            (name, jax.device_get(leaf))
            for name, leaf in sorted(names, key=itemgetter(0))
        ]

    @property
    def fingerprint(self) -> str:
        """16 hex digits of the weights."""
        digest = hashlib.sha256()
        for path, leaf in self.leaves():
            digest.update(f"{path} {leaf.shape} {leaf.dtype}".encode())
            digest.update(np.ascontiguousarray(leaf).reshape(-1).view(np.uint8).data)
        return digest.hexdigest()[:16]

    @property
    def parameters(self) -> int:
        """The number of weights."""
        return sum(int(leaf.size) for leaf in jax.tree.leaves(self.state))

    @property
    def bytes(self) -> int:
        """That its weights take."""
        return sum(int(leaf.nbytes) for leaf in jax.tree.leaves(self.state))

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of its largest weight."""
        largest = max(jax.tree.leaves(self.state), key=lambda leaf: leaf.size)
        dtype: np.dtype[Any] = np.dtype(largest.dtype)
        return dtype


def digest(parts: Iterable[str]) -> str:
    """16 hex digits of texts."""
    return hashlib.sha256("".join(parts).encode()).hexdigest()[:16]


class OnDemand:
    """A network that is read again when it is needed after it was let go."""

    def __init__(self, read: Callable[[], Network]) -> None:
        """Read it for the first time."""
        self._read = read
        self._network: Network | None = read()

    def __call__(self) -> Network:
        """The network, which is read if it is not at hand."""
        if self._network is None:
            self._network = self._read()
        return self._network

    def let_go(self) -> None:
        """Free its memory as soon as nobody else has it."""
        self._network = None


class Tokens(NamedTuple):
    """Token ids of prompts, and which of them did not fit."""

    ids: Int[np.ndarray, "n l"]
    truncated: tuple[bool, ...]


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
        schedule: the process and the prediction type, at ``resolution``.
        schedule_at: pixels along an edge → the schedule; None for the same for all.
        resolution: pixels along each edge that the model was trained for.
        downscale: pixels along an edge of a latent cell.
        multiple: an image's edges must be multiples of this.
        latent_channels: channels of z0.
        learned_variance: whether as many channels about the variance of a step follow
            them in the denoiser's output.
        text_network: ids → states, of text models. Where it is on demand, it is let
            go as soon as prompts are encoded.
        tokenize: prompts → ids, of text models.
        class_names: names of the class ids, of class models that have them.
        n_classes: the number of class ids, of class models.
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
    text_network: Network | OnDemand | None = None
    tokenize: Callable[[Sequence[str]], Tokens] | None = None
    class_names: tuple[str, ...] | None = None
    n_classes: int | None = None
    schedule_at: Callable[[int], Schedule] | None = None
    configs: dict[str, dict[str, Any]] = field(default_factory=dict)

    def at(self, resolution: int) -> "DiffusionModel":
        """The model for images of so many pixels along an edge: its schedule is."""
        if self.schedule_at is None:
            return self
        return replace(self, schedule=self.schedule_at(resolution))

    @property
    def text_encoder(self) -> Network | None:
        """Ids → states, of text models; it may have to be read for this."""
        network = self.text_network
        return network() if isinstance(network, OnDemand) else network

    def let_go(self) -> None:
        """Free the text encoder's memory, if it can be read again."""
        if isinstance(self.text_network, OnDemand):
            self.text_network.let_go()

    @property
    def weights(self) -> str:
        """16 hex digits of all weights."""
        networks = (self.denoiser, self.autoencoder, self.text_encoder)
        found = digest(each.fingerprint for each in networks if each is not None)
        self.let_go()
        return found

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
            "n_timesteps": self.schedule.n_timesteps,
            "prediction_type": self.schedule.prediction_type,
            "schedule": self.schedule.fingerprint,
        }

    @property
    def fingerprint(self) -> str:
        """16 hex digits of what ``describe`` says: a name can come to mean another."""
        return digest(map(repr, self.describe().items()))

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
        z0: Array = _encode(self.autoencoder, pixels, self.scaling_factor)
        return z0

    @property
    def text_state_size(self) -> int:
        """The number of elements of a prompt's text states.

        Raises:
            DiffjaxError: if the model takes class ids instead of prompts.
        """
        encoder, tokenize = self._text_parts()
        return int(np.prod(_text_shape(encoder, tokenize(("",)).ids)))

    @pinned()
    def text_states(
        self,
        prompts: Sequence[str],
        rows: Int[np.ndarray, " n"] | None = None,
        dtype: DTypeLike = jnp.float32,
    ) -> tuple[Float[Array, "c l d"], tuple[str, ...]]:
        """Text states of prompts, and the prompts that were cut to fit.

        Args:
            prompts: n of them.
            rows: in which row of the result each belongs; prompts of one row are
                averaged as they come, so that memory grows with the rows alone.
                By default each has its own.
            dtype: of the states; they are computed and averaged in float32.

        Raises:
            DiffjaxError: if the model takes class ids instead of prompts.
        """
        encoder, tokenize = self._text_parts()
        tokens = tokenize(prompts)
        alone, rows = rows is None, np.arange(len(prompts)) if rows is None else rows
        share = 1 / np.bincount(rows)[rows]
        shape = (int(rows.max()) + 1, *_text_shape(encoder, tokens.ids))
        # ten thousand classes of Stable Diffusion 2 are 3 GB in float32
        states = jnp.zeros(shape, dtype if alone else jnp.float32)
        for start in range(0, len(prompts), PROMPTS_AT_ONCE):
            chunk = slice(start, start + PROMPTS_AT_ONCE)
            states = _add_states(
                states,
                encoder,
                # padded to one length, with no share: one compilation for any count
                _padded(tokens.ids[chunk]),
                _padded(rows[chunk]),
                _padded(share[chunk].astype(np.float32)),
            )
        del encoder
        self.let_go()
        cut = zip(prompts, tokens.truncated, strict=True)
        return states.astype(dtype), tuple(p for p, was in cut if was)

    def _text_parts(self) -> tuple[Network, Callable[[Sequence[str]], Tokens]]:
        encoder = self.text_encoder
        if encoder is None or self.tokenize is None:
            raise DiffjaxError(
                f"{self.name} knows classes by id, not by prompt; "
                "name its own classes as labels."
            )
        return encoder, self.tokenize


def predict(
    denoiser: Network,
    schedule: Schedule,
    z_t: Float[Array, "h w c"],
    t: Int[Array, ""],
    condition: Array,
) -> tuple[Float[Array, "h w c"], Float[Array, "h w c"] | None]:
    """One forward pass: ε̂ for a noised latent, and the variance channels, float32.

    The second is None for models that do not predict a variance.
    """
    output = denoiser.module()(z_t, at(schedule.time, t), condition)
    n = z_t.shape[-1]
    noise = noise_from_prediction(schedule, output[..., :n], z_t, t)
    return noise, output[..., n:] if output.shape[-1] == 2 * n else None


@jit
def _encode(autoencoder: Network, pixels: Array, scale: float | Array) -> Array:
    means: Array = jax.vmap(autoencoder.module().encode)(pixels)[0]
    return scale * means


@partial(jit, donate_argnums=0)
def _add_states(
    states: Array, text_encoder: Network, ids: Array, rows: Array, share: Array
) -> Array:
    new: Array = jax.vmap(text_encoder.module())(ids)
    return states.at[rows].add((share[:, None, None] * new).astype(states.dtype))


def _text_shape(text_encoder: Network, ids: np.ndarray) -> tuple[int, ...]:
    one: jax.ShapeDtypeStruct = eval_shape(
        lambda network, ids: network.module()(ids), text_encoder, ids[0]
    )
    shape: tuple[int, ...] = one.shape
    return shape


def _padded(array: np.ndarray) -> np.ndarray:
    missing = PROMPTS_AT_ONCE - len(array)
    return np.pad(array, [(0, missing)] + [(0, 0)] * (array.ndim - 1))
