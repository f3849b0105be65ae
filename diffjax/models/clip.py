"""The text encoders of Stable Diffusion: token ids → text states.

    x = token embedding + position embedding
    x = x + attention(norm(x)), causal;  x = x + mlp(norm(x))      (each layer)
    states      = final norm(x)
    penultimate = x before the last layer
    pooled      = projection of the state of the token that ends the text

Which of these is used, is the family's to say. Radford et al. 2021; layers, names and
config keys as transformers' ``CLIPTextModel`` and ``CLIPTextModelWithProjection``.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from diffjax.errors import DiffjaxError
from diffjax.models.attention import attend
from diffjax.models.config import (
    GENERIC,
    Count,
    Epsilon,
    NetworkConfig,
    Rows,
    Width,
)
from diffjax.models.layers import ACTIVATIONS, Activation, Make

_FIXED: dict[str, Any] = {
    "model_type": "clip_text_model",
    "is_decoder": False,
    "add_cross_attention": False,
    "pruned_heads": {},
}
_POOLED = "only used for the pooled output"
_TRAINING = "only used in training"
_IGNORED = {
    "architectures": "the loader knows the class",
    "projection_dim": _POOLED,
    "bos_token_id": _POOLED,
    "eos_token_id": _POOLED,
    "pad_token_id": _POOLED,
    "dropout": _TRAINING,
    "attention_dropout": _TRAINING,
    "initializer_factor": _TRAINING,
    "initializer_range": _TRAINING,
} | GENERIC
_IGNORED_POOLED = {k: why for k, why in _IGNORED.items() if k != "eos_token_id"}
_IGNORED_PROJECTED = {
    k: why for k, why in _IGNORED_POOLED.items() if k != "projection_dim"
}


@dataclass(frozen=True, kw_only=True)
class CLIPTextConfig(NetworkConfig):
    """The settings of a ``text_encoder/config.json`` that are implemented."""

    fixed, ignored = _FIXED, _IGNORED

    vocab_size: Rows = 49408
    hidden_size: Width = 512
    intermediate_size: Width = 2048
    num_hidden_layers: Count = 12
    num_attention_heads: Count = 8
    max_position_embeddings: Width = 77
    hidden_act: Activation = "quick_gelu"
    layer_norm_eps: Epsilon = 1e-5


@dataclass(frozen=True, kw_only=True)
class CLIPTextPooledConfig(CLIPTextConfig):
    """The same, of an encoder whose pooled output is used."""

    ignored = _IGNORED_POOLED

    eos_token_id: Rows = 49407  # one of them


@dataclass(frozen=True, kw_only=True)
class CLIPTextWithProjectionConfig(CLIPTextPooledConfig):
    """The same, of an encoder whose pooled output is projected."""

    ignored = _IGNORED_PROJECTED

    projection_dim: Width = 512


@runtime_checkable
class Layered(Protocol):
    """The numbers of a layer."""

    @property
    def hidden_size(self) -> int: ...  # noqa: D102
    @property
    def intermediate_size(self) -> int: ...  # noqa: D102
    @property
    def num_attention_heads(self) -> int: ...  # noqa: D102
    @property
    def hidden_act(self) -> Activation: ...  # noqa: D102
    @property
    def layer_norm_eps(self) -> float: ...  # noqa: D102


class TextOutput(NamedTuple):
    """What an encoder says of a prompt, float32.

    Attributes:
        states: after the last layer and the final norm, [l, d].
        penultimate: before the last layer, not normalised, [l, d].
        pooled: of the whole prompt, [d] or [projection_dim], if it is asked for.
    """

    states: Float[Array, "l d"]
    penultimate: Float[Array, "l d"]
    pooled: Float[Array, " p"] | None = None


class SelfAttention(nnx.Module):
    """Multi-head self-attention: causal of texts, of all with all of images."""

    def __init__(self, features: int, heads: int, causal: bool, make: Make) -> None:
        if features % heads:
            raise DiffjaxError(f"{features} features do not divide into {heads} heads.")
        self.heads, self.causal = heads, causal
        self.q_proj = make.linear(features, features)
        self.k_proj = make.linear(features, features)
        self.v_proj = make.linear(features, features)
        self.out_proj = make.linear(features, features)

    def __call__(self, x: Float[Array, "l d"]) -> Float[Array, "l d"]:
        """[l, d] → [l, d]."""
        q, k, v = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        return self.out_proj(attend(q, k, v, self.heads, causal=self.causal))


class MLP(nnx.Module):
    """Two linear layers around the activation."""

    def __init__(self, config: Layered, make: Make) -> None:
        self.fc1 = make.linear(config.hidden_size, config.intermediate_size)
        self.fc2 = make.linear(config.intermediate_size, config.hidden_size)
        self.activation = ACTIVATIONS[config.hidden_act]

    def __call__(self, x: Float[Array, "l d"]) -> Float[Array, "l d"]:
        """[l, d] → [l, d]."""
        return self.fc2(self.activation(self.fc1(x)))


class EncoderLayer(nnx.Module):
    """Pre-norm attention and MLP, each with its residual."""

    def __init__(self, config: Layered, make: Make, *, causal: bool) -> None:
        d, epsilon = config.hidden_size, config.layer_norm_eps
        self.layer_norm1 = make.layer_norm(d, epsilon)
        self.self_attn = SelfAttention(d, config.num_attention_heads, causal, make)
        self.layer_norm2 = make.layer_norm(d, epsilon)
        self.mlp = MLP(config, make)

    def __call__(self, x: Float[Array, "l d"]) -> Float[Array, "l d"]:
        """[l, d] → [l, d]."""
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class CLIPTextModel(nnx.Module):
    """Token ids → text states."""

    def __init__(
        self,
        config: CLIPTextConfig,
        *,
        rngs: nnx.Rngs | None,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
    ) -> None:
        make = Make(rngs=rngs, dtype=dtype, param_dtype=param_dtype)
        d = config.hidden_size
        self.config = config
        self.dtype = dtype
        self.token_embedding = make.embedding(config.vocab_size, d)
        self.position_embedding = make.embedding(config.max_position_embeddings, d)
        self.layers = nnx.List(
            [
                EncoderLayer(config, make, causal=True)
                for _ in range(config.num_hidden_layers)
            ]
        )
        self.final_layer_norm = make.layer_norm(d, config.layer_norm_eps)

    def __call__(self, ids: Int[Array, " l"]) -> TextOutput:
        """All that the encoder says.

        Args:
            ids: token ids in [0, vocab_size), padded to at most
                ``max_position_embeddings``; the padding is not masked, as in
                Stable Diffusion.
        """
        length = ids.shape[0]
        if length > self.config.max_position_embeddings:
            raise ValueError(
                f"{length} tokens; the text encoder holds "
                f"{self.config.max_position_embeddings}"
            )
        x = self.token_embedding(ids) + self.position_embedding(jnp.arange(length))
        penultimate = x
        for layer in self.layers:
            penultimate, x = x, layer(x)
        states: Array = self.final_layer_norm(x)
        return TextOutput(states.astype(jnp.float32), penultimate.astype(jnp.float32))


LEGACY_END = 2  # the eos_token_id of configs from before transformers 4.31


class CLIPTextModelPooled(CLIPTextModel):
    """The same, and a pooled output: the state at the end of the text."""

    def __init__(
        self,
        config: CLIPTextPooledConfig,
        *,
        rngs: nnx.Rngs | None,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
    ) -> None:
        super().__init__(config, rngs=rngs, dtype=dtype, param_dtype=param_dtype)
        self.end = config.eos_token_id

    def __call__(self, ids: Int[Array, " l"]) -> TextOutput:
        """All that the encoder says; ``ids`` are those of ``CLIPTextModel``.

        The text ends at its first ``eos_token_id``. The files of most published
        encoders name a wrong one, 2; theirs ends at its largest id, as in transformers.
        """
        output = super().__call__(ids)
        place = jnp.argmax(ids if self.end == LEGACY_END else ids == self.end)
        return output._replace(pooled=output.states[place])


class CLIPTextModelWithProjection(CLIPTextModelPooled):
    """The same, and the pooled output projected."""

    def __init__(
        self,
        config: CLIPTextWithProjectionConfig,
        *,
        rngs: nnx.Rngs | None,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
    ) -> None:
        super().__init__(config, rngs=rngs, dtype=dtype, param_dtype=param_dtype)
        make = Make(rngs=rngs, dtype=dtype, param_dtype=param_dtype)
        self.text_projection = make.linear(
            config.hidden_size, config.projection_dim, bias=False
        )

    def __call__(self, ids: Int[Array, " l"]) -> TextOutput:
        """All that the encoder says; ``ids`` are those of ``CLIPTextModel``."""
        output = super().__call__(ids)
        assert output.pooled is not None
        pooled: Array = self.text_projection(output.pooled.astype(self.dtype))
        return output._replace(pooled=pooled.astype(jnp.float32))
