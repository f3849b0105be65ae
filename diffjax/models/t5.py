"""The text encoder of Stable Diffusion 3, FLUX and PixArt: token ids → text states.

    x = token embedding
    x = x + attention(norm(x));  x = x + ff(norm(x))                  (each layer)
    states = final norm(x)

    attention: softmax(q kᵀ + b) v, where b of a pair of tokens depends on how far apart
    they are (and on the head), and is the first layer's in all layers
    ff(x) = wo(gelu(wi_0 x) · wi_1 x),  norm(x) = w x / √(mean x² + ε)

Raffel et al. 2020, version 1.1; layers, names and config keys as transformers'
``T5EncoderModel``. Nothing is divided by √h, and nothing has a bias.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from diffjax.errors import DiffjaxError
from diffjax.models.attention import precision
from diffjax.models.config import GENERIC, Count, Epsilon, NetworkConfig, Rows, Width
from diffjax.models.layers import Make

_TRAINING = "only used in training"
_DECODER = "of the decoder, which an encoder has not"
_TOKENS = "the tokenizer's own files say it"
GATED = "gated-gelu"

_FIXED: dict[str, Any] = {
    "model_type": "t5",
    "add_cross_attention": False,
    "pruned_heads": {},
}
_IGNORED = {
    "architectures": "the loader knows the class",
    "dropout_rate": _TRAINING,
    "classifier_dropout": _TRAINING,
    "initializer_factor": _TRAINING,
    "num_decoder_layers": _DECODER,
    "decoder_start_token_id": _DECODER,
    "is_decoder": _DECODER,
    "is_encoder_decoder": _DECODER,
    "scale_decoder_outputs": _DECODER,
    "output_past": _DECODER,
    "bos_token_id": _TOKENS,
    "eos_token_id": _TOKENS,
    "pad_token_id": _TOKENS,
    "n_positions": "positions are relative",
    "task_specific_params": "the tasks that T5 was trained for",
} | GENERIC


_IGNORED_MASKED = {k: why for k, why in _IGNORED.items() if k != "eos_token_id"}


@dataclass(frozen=True, kw_only=True)
class T5Config(NetworkConfig):
    """The settings of a T5 encoder's ``config.json`` that are implemented."""

    fixed, ignored = _FIXED, _IGNORED

    vocab_size: Rows = 32128
    d_model: Width = 512
    d_kv: Width = 64
    d_ff: Width = 2048
    num_layers: Count = 6
    num_heads: Count = 8
    relative_attention_num_buckets: Width = 32
    relative_attention_max_distance: Width = 128
    layer_norm_epsilon: Epsilon = 1e-6
    feed_forward_proj: Literal["relu", "gated-gelu"] = "relu"
    # what transformers derives from it, and lets a file say otherwise
    is_gated_act: bool | None = None
    dense_act_fn: str | None = None

    def check(self, source: str) -> None:
        """Raise DiffjaxError for another feed-forward layer, or odd buckets."""
        gated, activation = self.is_gated_act, self.dense_act_fn
        if gated is None:
            gated = self.feed_forward_proj == GATED
        if activation is None:
            activation = "gelu_new" if self.feed_forward_proj == GATED else "relu"
        if not gated or activation not in ("gelu_new", "gelu_pytorch_tanh"):
            raise DiffjaxError(
                f"{source}: diffjax's T5 has the feed-forward layer of version 1.1, "
                f"{GATED}; this config asks for {'a gated ' * gated}{activation}."
            )
        buckets = self.relative_attention_num_buckets
        if buckets % 4 or self.relative_attention_max_distance <= buckets // 4:
            raise DiffjaxError(
                f"{source}: relative_attention_num_buckets={buckets} must be a "
                "multiple of 4, and relative_attention_max_distance="
                f"{self.relative_attention_max_distance} more than a quarter of it."
            )


@dataclass(frozen=True, kw_only=True)
class MaskedT5Config(T5Config):
    """The same, of an encoder that does not attend to what fills up a prompt."""

    ignored = _IGNORED_MASKED

    eos_token_id: Rows = 1


class MaskedStates(NamedTuple):
    """States of tokens, and which of them are the text's."""

    states: Float[Array, "l d"]
    mask: Bool[Array, " l"]


def buckets(length: int, n: int, farthest: int) -> Int[np.ndarray, "l l"]:
    """The bucket of each pair (query, key) of tokens, in [0, n).

    Half of them are for keys that come after their query. Of each half one half is for
    a distance each, and the others grow with the logarithm of the distance up to
    ``farthest``; the last one takes all beyond.
    """
    half, exact = n // 2, n // 4
    distance = np.arange(length)[None] - np.arange(length)[:, None]
    far = np.log(np.maximum(np.abs(distance), 1) / exact, dtype=np.float32)
    grown = far / np.float32(np.log(farthest / exact)) * np.float32(half - exact)
    away = np.minimum(exact + grown.astype(np.int64), half - 1)
    away = np.where(np.abs(distance) < exact, np.abs(distance), away)
    found: np.ndarray = away + half * (distance > 0)
    return found


class SelfAttention(nnx.Module):
    """Multi-head self-attention with a bias for each head and pair of tokens."""

    def __init__(self, config: T5Config, make: Make) -> None:
        self.heads = config.num_heads
        self.dtype = make.dtype
        inner = config.num_heads * config.d_kv
        self.q = make.linear(config.d_model, inner, bias=False)
        self.k = make.linear(config.d_model, inner, bias=False)
        self.v = make.linear(config.d_model, inner, bias=False)
        self.o = make.linear(inner, config.d_model, bias=False)

    def __call__(
        self, x: Float[Array, "l d"], bias: Float[Array, "heads l l"]
    ) -> Float[Array, "l d"]:
        """[l, d] → [l, d]."""
        q, k, v = (
            of(x).reshape(len(x), self.heads, -1) for of in (self.q, self.k, self.v)
        )
        product = partial(jnp.einsum, precision=precision(self.dtype))
        logits = product("qhd,khd->hqk", q, k).astype(jnp.float32) + bias
        weights = jax.nn.softmax(logits, axis=-1).astype(self.dtype)
        mixed = product("hqk,khd->qhd", weights, v)
        return self.o(mixed.reshape(len(x), -1))


class FeedForward(nnx.Module):
    """Two linear layers, the first one gated."""

    def __init__(self, config: T5Config, make: Make) -> None:
        self.wi_0 = make.linear(config.d_model, config.d_ff, bias=False)
        self.wi_1 = make.linear(config.d_model, config.d_ff, bias=False)
        self.wo = make.linear(config.d_ff, config.d_model, bias=False)

    def __call__(self, x: Float[Array, "l d"]) -> Float[Array, "l d"]:
        """[l, d] → [l, d]."""
        return self.wo(jax.nn.gelu(self.wi_0(x), approximate=True) * self.wi_1(x))


class EncoderLayer(nnx.Module):
    """Pre-norm attention and feed-forward layer, each with its residual."""

    def __init__(self, config: T5Config, make: Make) -> None:
        self.attention_norm = make.rms_norm(config.d_model, config.layer_norm_epsilon)
        self.attention = SelfAttention(config, make)
        self.ff_norm = make.rms_norm(config.d_model, config.layer_norm_epsilon)
        self.ff = FeedForward(config, make)

    def __call__(
        self, x: Float[Array, "l d"], bias: Float[Array, "heads l l"]
    ) -> Float[Array, "l d"]:
        """[l, d] → [l, d]."""
        x = x + self.attention(self.attention_norm(x), bias)
        return x + self.ff(self.ff_norm(x))


class T5EncoderModel(nnx.Module):
    """Token ids → the last hidden state, after the final norm."""

    def __init__(
        self,
        config: T5Config,
        *,
        rngs: nnx.Rngs | None,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
    ) -> None:
        make = Make(rngs=rngs, dtype=dtype, param_dtype=param_dtype)
        self.config = config
        n_buckets = config.relative_attention_num_buckets
        self.shared = make.embedding(config.vocab_size, config.d_model)
        self.bias = make.embedding(n_buckets, config.num_heads)
        self.layers = nnx.List(
            [EncoderLayer(config, make) for _ in range(config.num_layers)]
        )
        self.final_norm = make.rms_norm(config.d_model, config.layer_norm_epsilon)

    def __call__(
        self, ids: Int[Array, " l"], mask: Bool[Array, " l"] | None = None
    ) -> Float[Array, "l d"]:
        """Text states, float32.

        Args:
            ids: token ids in [0, vocab_size); any number of them.
            mask: which of them are attended to; all by default, padding too, as in
                Stable Diffusion 3 and FLUX.
        """
        n, farthest = (
            self.config.relative_attention_num_buckets,
            self.config.relative_attention_max_distance,
        )
        apart = jnp.asarray(buckets(ids.shape[0], n, farthest))
        bias = self.bias(apart).astype(jnp.float32).transpose(2, 0, 1)
        if mask is not None:
            bias = jnp.where(mask, bias, jnp.finfo(jnp.float32).min)
        x = self.shared(ids)
        for layer in self.layers:
            x = layer(x, bias)
        states: Array = self.final_norm(x).astype(jnp.float32)
        return states


class MaskedT5EncoderModel(T5EncoderModel):
    """The same, attending to the text alone: up to its last end token."""

    def __call__(  # type: ignore[override]  # a mask is not asked for
        self, ids: Int[Array, " l"]
    ) -> MaskedStates:
        """Text states and mask; ``ids`` are those of ``T5EncoderModel``."""
        assert isinstance(self.config, MaskedT5Config)
        places = jnp.arange(ids.shape[0])
        ends = ids == self.config.eos_token_id
        mask = places <= jnp.max(jnp.where(ends, places, 0))
        return MaskedStates(super().__call__(ids, mask), mask)
