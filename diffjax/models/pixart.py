"""The transformer of PixArt-α and -Σ: (z_t, t, text) → prediction.

    e = MLP(sinusoids(t)) + MLPs(sinusoids(height, width, height / width))   (α at 1024)
    x = patches(z_t) + position;  y = MLP'(text states)
    s₁, γ₁, α₁, s₂, γ₂, α₂ = W silu(e) + a table                    (of each block)
    x = x + α₁ attention((1 + γ₁) norm(x) + s₁)
    x = x + attention(x, y), to the tokens of the text alone
    x = x + α₂ mlp((1 + γ₂) norm(x) + s₂)
    s, γ = e + a table;  prediction = unpatch(W′((1 + γ) norm(x) + s))

Chen et al. 2023 and 2024 (adaLN-single); layers, names and config keys as diffusers'
``PixArtTransformer2DModel``. W is one for all blocks, and tables are theirs.
"""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from diffjax.errors import DiffjaxError
from diffjax.models.attention import attend
from diffjax.models.config import Count, Edge, Epsilon, NetworkConfig, Scale, Width
from diffjax.models.dit import sincos_positions
from diffjax.models.joint import modulated
from diffjax.models.layers import (
    Attention,
    FeedForward,
    Make,
    TimestepEmbedding,
    timestep_features,
)
from diffjax.models.patches import bytes_of_tokens, check_patches, unpatch

FEATURES = 256  # of a sinusoid
TOKENS = 300  # of T5
PIXELS = 8  # of the image along an edge of a latent cell, for the sizes that are told

_FIXED: dict[str, Any] = {
    "norm_type": "ada_norm_single",
    "norm_elementwise_affine": False,
    "attention_type": "default",
    "num_vector_embeds": None,
    "use_linear_projection": False,
    "double_self_attention": False,
    "only_cross_attention": False,
}
_IGNORED = {
    "dropout": "there is none at inference",
    "norm_num_groups": "there is no group norm",
    "num_embeds_ada_norm": "there is no table of timesteps",
    "upcast_attention": "the softmax is always in float32",
}


@dataclass(frozen=True, kw_only=True)
class PixArtTransformer2DConfig(NetworkConfig):
    """The settings of a ``transformer/config.json`` that are implemented."""

    fixed, ignored = _FIXED, _IGNORED

    num_attention_heads: Count = 16
    attention_head_dim: Count = 72
    in_channels: Count = 4
    out_channels: Count | None = 8
    num_layers: Count = 28
    cross_attention_dim: Width = 1152
    attention_bias: bool = True
    sample_size: Edge = 128
    patch_size: Count = 2
    activation_fn: Literal["gelu", "gelu-approximate"] = "gelu-approximate"
    norm_eps: Epsilon = 1e-6
    interpolation_scale: Scale | None = None
    use_additional_conditions: bool | None = None
    caption_channels: Width = 4096

    def check(self, source: str) -> None:
        """Raise DiffjaxError for settings that do not fit one another."""
        d = self.features
        if d % 4 or (self.told_sizes and d % 3):
            raise DiffjaxError(
                f"{source}: num_attention_heads × attention_head_dim = {d} must be a "
                "multiple of 4, and of 3 where the transformer is told sizes."
            )
        if self.cross_attention_dim != d:
            raise DiffjaxError(
                f"{source}: cross_attention_dim={self.cross_attention_dim} must be "
                f"num_attention_heads × attention_head_dim = {d}."
            )
        check_patches(self.sample_size, self.patch_size, source)

    @property
    def features(self) -> int:
        """Width of a token."""
        return self.num_attention_heads * self.attention_head_dim

    @property
    def told_sizes(self) -> bool:
        """Whether it is told the image's size; as diffusers has it by default."""
        if self.use_additional_conditions is None:
            return self.sample_size == 128
        return self.use_additional_conditions

    @property
    def scale(self) -> float:
        """By which positions are closer than one; as diffusers has it by default."""
        return float(self.interpolation_scale or max(self.sample_size // 64, 1))


class MaskedCondition(NamedTuple):
    """What the transformer is told of a prompt.

    Attributes:
        states: text states [m, caption_channels], of every token.
        mask: which of the tokens are the text's, [m].
    """

    states: Float[Array, "m d"]
    mask: Bool[Array, " m"]


class PixArtBlock(nnx.Module):
    """Attention, attention to the text, and an MLP."""

    def __init__(self, config: PixArtTransformer2DConfig, make: Make) -> None:
        d, heads = config.features, config.num_attention_heads
        bias = config.attention_bias
        self.scale_shift = make.embedding(6, d)
        self.norm1 = make.layer_norm(d, config.norm_eps, affine=False)
        self.attn1 = Attention(d, heads, make, bias=bias)
        self.attn2 = Attention(d, heads, make, bias=bias, condition_features=d)
        self.norm2 = make.layer_norm(d, config.norm_eps, affine=False)
        self.ff = FeedForward(d, config.activation_fn, make)

    def __call__(
        self,
        x: Float[Array, "l d"],
        y: Float[Array, "m d"],
        mask: Bool[Array, " m"],
        c: Float[Array, "6 d"],
    ) -> Float[Array, "l d"]:
        """Image tokens, text tokens, which of them count, W silu(e) → image tokens."""
        shift1, scale1, gate1, shift2, scale2, gate2 = (
            self.scale_shift.embedding[...].astype(c.dtype) + c
        )
        x = x + gate1 * self.attn1(modulated(self.norm1(x), shift1, scale1))
        attn = self.attn2
        q, k, v = attn.to_q(x), attn.to_k(y), attn.to_v(y)
        x = x + attn.to_out(attend(q, k, v, attn.heads, mask=mask))
        x = x + gate2 * self.ff(modulated(self.norm2(x), shift2, scale2))
        return x


class PixArtTransformer2DModel(nnx.Module):
    """Predicts ε for one noised latent, and channels about the variance of a step."""

    def __init__(
        self,
        config: PixArtTransformer2DConfig,
        *,
        rngs: nnx.Rngs | None,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
    ) -> None:
        make = Make(rngs=rngs, dtype=dtype, param_dtype=param_dtype)
        d, p = config.features, config.patch_size
        self.config = config
        self.dtype = dtype
        self.out_channels = config.out_channels or config.in_channels
        self.patch = make.conv(config.in_channels, d, p, stride=p, padding=(0, 0))
        self.timestep_embedder = TimestepEmbedding(FEATURES, d, make)
        if config.told_sizes:
            self.resolution_embedder = TimestepEmbedding(FEATURES, d // 3, make)
            self.aspect_ratio_embedder = TimestepEmbedding(FEATURES, d // 3, make)
        self.adaln = make.linear(d, 6 * d)
        self.caption_1 = make.linear(config.caption_channels, d)
        self.caption_2 = make.linear(d, d)
        self.transformer_blocks = nnx.List(
            [PixArtBlock(config, make) for _ in range(config.num_layers)]
        )
        make = make.precise()
        self.scale_shift = make.embedding(2, d)
        self.norm_out = make.layer_norm(d, 1e-6, affine=False)
        self.proj_out = make.linear(d, p * p * self.out_channels)

    def memory(self, height: int, width: int) -> int:
        """Bytes that one more forward pass takes in a tile, about."""
        tokens = height * width // self.config.patch_size**2
        return bytes_of_tokens(self.config, self.dtype, tokens, others=TOKENS)

    def vectors(self, condition: MaskedCondition) -> MaskedCondition:
        """The condition itself: its states are of floating numbers."""
        return condition

    def condition_shapes(self) -> MaskedCondition:
        """Shapes of one prompt's condition."""
        states: Any = jax.ShapeDtypeStruct(
            (TOKENS, self.config.caption_channels), jnp.float32
        )
        mask: Any = jax.ShapeDtypeStruct((TOKENS,), jnp.bool_)
        return MaskedCondition(states, mask)

    def __call__(
        self,
        latent: Float[Array, "h w c"],
        timestep: Int[Array, ""] | Float[Array, ""],
        condition: MaskedCondition,
    ) -> Float[Array, "h w o"]:
        """Predict from one noised latent.

        Args:
            latent: z_t, [h, w, in_channels], scaled; h and w multiples of the patch.
            timestep: t.
            condition: of one prompt.

        Returns:
            [h, w, out_channels], float32.
        """
        config, p = self.config, self.config.patch_size
        height, width = latent.shape[0] // p, latent.shape[1] // p
        e = self.timestep_embedder(self._sinusoids(timestep))
        if config.told_sizes:
            e = e + self._sizes(PIXELS * latent.shape[0], PIXELS * latent.shape[1])
        c = self.adaln(jax.nn.silu(e)).reshape(6, -1)
        y = self.caption_1(condition.states.astype(self.dtype))
        y = self.caption_2(jax.nn.gelu(y, approximate=True))
        x = self.patch(latent.astype(self.dtype)).reshape(height * width, -1)
        base = config.sample_size / p / config.scale
        where = sincos_positions(config.features, height, width, base)
        x = x + where.astype(self.dtype)
        for block in self.transformer_blocks:
            x = block(x, y, condition.mask, c)
        shift, scale = self.scale_shift.embedding[...] + e.astype(jnp.float32)
        x = self.proj_out(modulated(self.norm_out(x), shift, scale))
        return unpatch(x, height, width, p)

    def _sizes(self, height: int, width: int) -> Float[Array, " d"]:
        """Of the image in pixels."""
        told = [
            self.resolution_embedder(self._sinusoids(jnp.float32(height))),
            self.resolution_embedder(self._sinusoids(jnp.float32(width))),
            self.aspect_ratio_embedder(self._sinusoids(jnp.float32(height / width))),
        ]
        return jnp.concatenate(told)

    def _sinusoids(self, x: Array) -> Array:
        return timestep_features(x, FEATURES).astype(self.dtype)
