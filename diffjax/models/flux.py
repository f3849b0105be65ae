"""The transformer of FLUX.1: (z_t, t, texts, guidance) → prediction.

    c = MLP(sinusoids(t)) + MLP'(sinusoids(guidance)) + MLP″(pooled state)
    x = W patches(z_t);  y = W' text states
    x, y = block(x, y, c)                             (each double block, see ``joint``)
    w = x and y together;  of each single block
        s, γ, α = W silu(c);  u = (1 + γ) norm(w) + s
        w = w + α V (attention over u ‖ gelu(W″ u))
    γ, s = W silu(c);  prediction = unpatch(V((1 + γ) norm(x) + s))

Queries and keys are rotated by where their tokens are: features by the row and by the
column, but for a few by an axis along which all are at 0, as texts are along all of
them (Su et al. 2021). Only the dev model is told a guidance. Black Forest Labs 2024;
layers, names and config keys as diffusers' ``FluxTransformer2DModel``.
"""

from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from diffjax.errors import DiffjaxError
from diffjax.models.attention import attend
from diffjax.models.config import Count, NetworkConfig, Width
from diffjax.models.joint import EPSILON, JointBlock, Projections, Tokens, modulated
from diffjax.models.layers import Make, TimestepEmbedding, timestep_features
from diffjax.models.patches import bytes_of_tokens

TIMESTEP_FEATURES = 256
PATCH = 2  # cells of a latent along an edge of a token, which packs them
SAMPLE_SIZE = 128
TOKENS = 512  # of T5
THETA = 10000.0


@dataclass(frozen=True, kw_only=True)
class FluxTransformer2DConfig(NetworkConfig):
    """The settings of a ``transformer/config.json`` that are implemented."""

    fixed = MappingProxyType({"patch_size": 1})  # latents are packed before

    in_channels: Count = 64
    out_channels: Count | None = None
    num_layers: Count = 19
    num_single_layers: Count = 38
    attention_head_dim: Count = 128
    num_attention_heads: Count = 24
    joint_attention_dim: Width = 4096
    pooled_projection_dim: Width = 768
    guidance_embeds: bool = False
    axes_dims_rope: tuple[Count, ...] = (16, 56, 56)

    def check(self, source: str) -> None:
        """Raise DiffjaxError for settings that do not fit one another."""
        axes = self.axes_dims_rope
        if (
            len(axes) != 3
            or sum(axes) != self.attention_head_dim
            or any(axis % 2 for axis in axes)
        ):
            raise DiffjaxError(
                f"{source}: axes_dims_rope={list(axes)} must be three even numbers "
                f"that sum up to attention_head_dim={self.attention_head_dim}."
            )
        if self.in_channels % PATCH**2:
            raise DiffjaxError(
                f"{source}: in_channels={self.in_channels} must be a multiple of "
                f"{PATCH**2}: latents are packed {PATCH} × {PATCH}."
            )

    @property
    def sample_size(self) -> int:
        """Cells of a latent along an edge, by the pipeline's default."""
        return SAMPLE_SIZE

    @property
    def patch_size(self) -> int:
        """Cells of a latent along an edge of a token."""
        return PATCH

    @property
    def packed(self) -> int:
        """Cells of a latent whose channels a token has side by side."""
        return PATCH**2

    @property
    def features(self) -> int:
        """Width of a token."""
        return self.num_attention_heads * self.attention_head_dim


class FluxCondition(NamedTuple):
    """What the transformer is told of a prompt, and how strongly it is guided.

    Attributes:
        states: text states [m, joint_attention_dim], of every token.
        pooled: one state [p] of the whole prompt.
        guidance: of the dev model, a scale; None for a prompt alone.
    """

    states: Float[Array, "m d"]
    pooled: Float[Array, " p"]
    guidance: Float[Array, ""] | None = None


class SingleBlock(nnx.Module):
    """Attention and an MLP side by side, over image and text as one sequence."""

    def __init__(self, tokens: Tokens, make: Make) -> None:
        d = tokens.features
        self.adaln = make.linear(d, 3 * d)
        self.norm = make.layer_norm(d, EPSILON, affine=False)
        self.attn = Projections(tokens, make, back=False)
        self.proj_mlp = make.linear(d, 4 * d)
        self.proj_out = make.linear(5 * d, d)

    def __call__(
        self, w: Float[Array, "n d"], c: Float[Array, " d"], angles: Array
    ) -> Float[Array, "n d"]:
        """[n, d], [d] → [n, d]."""
        shift, scale, gate = jnp.split(self.adaln(jax.nn.silu(c)), 3)
        u = modulated(self.norm(w), shift, scale)
        q, k, v = self.attn(u)
        heads = self.attn.heads
        q, k = (rotated(each, angles, heads) for each in (q, k))
        along = attend(q, k, v, heads)
        beside = jax.nn.gelu(self.proj_mlp(u), approximate=True)
        both = jnp.concatenate([along, beside], axis=-1)
        return within_half(w + gate * self.proj_out(both))


class FluxTransformer2DModel(nnx.Module):
    """Predicts the velocity ε − z0 of one noised latent."""

    def __init__(
        self,
        config: FluxTransformer2DConfig,
        *,
        rngs: nnx.Rngs | None,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
    ) -> None:
        make = Make(rngs=rngs, dtype=dtype, param_dtype=param_dtype)
        d = config.features
        self.config = config
        self.dtype = dtype
        outputs = config.out_channels or config.in_channels
        self.out_channels = outputs // PATCH**2
        self.x_embedder = make.linear(config.in_channels, d)
        self.context_embedder = make.linear(config.joint_attention_dim, d)
        self.timestep_embedder = TimestepEmbedding(TIMESTEP_FEATURES, d, make)
        if config.guidance_embeds:
            self.guidance_embedder = TimestepEmbedding(TIMESTEP_FEATURES, d, make)
        self.text_embedder = TimestepEmbedding(config.pooled_projection_dim, d, make)
        tokens = Tokens(d, config.num_attention_heads, normalised=True)
        self.transformer_blocks = nnx.List(
            [
                JointBlock(tokens, make, dual=False, last=False)
                for _ in range(config.num_layers)
            ]
        )
        self.single_transformer_blocks = nnx.List(
            [SingleBlock(tokens, make) for _ in range(config.num_single_layers)]
        )
        self.proj_out_1 = make.linear(d, 2 * d)
        make = make.precise()
        self.norm_out = make.layer_norm(d, EPSILON, affine=False)
        self.proj_out_2 = make.linear(d, outputs)

    def memory(self, height: int, width: int) -> int:
        """Bytes that one more forward pass takes in a tile, about."""
        tokens = height * width // PATCH**2 + TOKENS
        # a single block has attention and the inside of its MLP side by side, and both
        return bytes_of_tokens(self.config, self.dtype, tokens, maps=14)

    def vectors(self, condition: FluxCondition) -> FluxCondition:
        """The condition itself: it is of floating numbers."""
        return condition

    def condition_shapes(self) -> FluxCondition:
        """Shapes of one prompt's condition, with a guidance where there is one."""

        def shape(*dims: int) -> Any:
            return jax.ShapeDtypeStruct(dims, jnp.float32)

        config = self.config
        return FluxCondition(
            shape(TOKENS, config.joint_attention_dim),
            shape(config.pooled_projection_dim),
            shape() if config.guidance_embeds else None,
        )

    def __call__(
        self,
        latent: Float[Array, "h w c"],
        timestep: Int[Array, ""] | Float[Array, ""],
        condition: FluxCondition,
    ) -> Float[Array, "h w o"]:
        """Predict from one noised latent.

        Args:
            latent: z_t, [h, w, in_channels / 4], scaled; h and w even.
            timestep: 1000 σ.
            condition: of one prompt.

        Returns:
            [h, w, out_channels / 4], float32.
        """
        height, width = latent.shape[0] // PATCH, latent.shape[1] // PATCH
        c = self.timestep_embedder(self._sinusoids(timestep))
        if self.config.guidance_embeds:
            assert condition.guidance is not None
            c = c + self.guidance_embedder(self._sinusoids(1000 * condition.guidance))
        c = c + self.text_embedder(condition.pooled.astype(self.dtype))
        x = self.x_embedder(packed(latent.astype(self.dtype)))
        y = self.context_embedder(condition.states.astype(self.dtype))
        axes = self.config.axes_dims_rope
        angles = jnp.asarray(angles_of(axes, height, width, len(y)))
        heads = self.config.num_attention_heads
        rotate = partial(rotated, angles=angles, heads=heads)
        for block in self.transformer_blocks:
            x, y = block(x, y, c, rotate)
            y = within_half(y)
        both = jnp.concatenate([x, y])
        for single in self.single_transformer_blocks:
            both = single(both, c, angles)
        scale, shift = jnp.split(self.proj_out_1(jax.nn.silu(c)), 2)
        x = self.norm_out(both[: len(x)])
        return unpacked(self.proj_out_2(modulated(x, shift, scale)), height, width)

    def _sinusoids(self, x: Array) -> Array:
        return timestep_features(x, TIMESTEP_FEATURES).astype(self.dtype)


def within_half(x: Array) -> Array:
    """What overflowed in float16 is the largest number that it has, as in diffusers."""
    if x.dtype != jnp.float16:
        return x
    largest = jnp.finfo(jnp.float16).max
    return jnp.clip(x, -largest, largest)


def packed(latent: Float[Array, "h w c"]) -> Float[Array, "l 4*c"]:
    """A token of every 2 × 2 pixels, in the order channel, row, column."""
    h, w, c = latent.shape
    squares = latent.reshape(h // PATCH, PATCH, w // PATCH, PATCH, c)
    return squares.transpose(0, 2, 4, 1, 3).reshape(-1, c * PATCH**2)


def unpacked(x: Float[Array, "l e"], height: int, width: int) -> Float[Array, "h w c"]:
    """The inverse of ``packed``, of a grid of tokens."""
    squares = x.reshape(height, width, -1, PATCH, PATCH)
    return squares.transpose(0, 3, 1, 4, 2).reshape(height * PATCH, width * PATCH, -1)


def angles_of(
    axes: tuple[int, ...], height: int, width: int, text: int
) -> Float[np.ndarray, "n half"]:
    """By what each pair of a head's features is rotated, of image and text tokens.

    Args:
        axes: features of a head for each axis: none, row, column.
        height: of the grid of tokens.
        width: of the grid of tokens.
        text: number of text tokens, all of them at 0.
    """
    rows, columns = np.divmod(np.arange(height * width), width)
    places = [np.zeros_like(rows), rows, columns]
    waves = [THETA ** -(np.arange(0, axis, 2) / axis) for axis in axes]
    image = [np.outer(*each) for each in zip(places, waves, strict=True)]
    angles = np.concatenate(image, axis=1)
    return np.pad(angles, [(0, text), (0, 0)]).astype(np.float32)


def rotated(x: Float[Array, "n d"], angles: Array, heads: int) -> Float[Array, "n d"]:
    """Each head's features, two at a time, turned in their plane; in float32."""
    pairs = x.astype(jnp.float32).reshape(len(x), heads, -1, 2)
    a, b = pairs[..., 0], pairs[..., 1]
    cos, sin = jnp.cos(angles)[:, None], jnp.sin(angles)[:, None]
    turned = jnp.stack([a * cos - b * sin, b * cos + a * sin], axis=-1)
    return turned.reshape(x.shape).astype(x.dtype)
