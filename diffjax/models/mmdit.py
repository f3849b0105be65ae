"""The transformer of Stable Diffusion 3 and 3.5: (z_t, t, texts) → prediction.

    c = MLP(sinusoids(t)) + MLP'(pooled state)
    x = W patches(z_t) + position;  y = W' text states
    x, y = block(x, y, c)                                  (each block, see ``joint``)
    γ, s = W' silu(c);  prediction = unpatch(W″((1 + γ) norm(x) + s))

The last block only reads y. Esser et al. 2024 (MMDiT); layers, names and config keys as
diffusers' ``SD3Transformer2DModel``.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from diffjax.errors import DiffjaxError
from diffjax.models.config import Bounds, Count, Edge, NetworkConfig, Width
from diffjax.models.joint import EPSILON, JointBlock, Tokens, modulated
from diffjax.models.layers import Make, TimestepEmbedding, timestep_features
from diffjax.models.patches import bytes_of_tokens, check_patches, unpatch

TIMESTEP_FEATURES = 256
TOKENS = 77 + 256  # of CLIP and of T5, as they are given to it


@dataclass(frozen=True, kw_only=True)
class SD3Transformer2DConfig(NetworkConfig):
    """The settings of a ``transformer/config.json`` that are implemented."""

    sample_size: Edge = 128
    patch_size: Count = 2
    in_channels: Count = 16
    out_channels: Count | None = 16
    num_layers: Count = 18
    attention_head_dim: Count = 64
    num_attention_heads: Count = 18
    joint_attention_dim: Width = 4096
    caption_projection_dim: Width = 1152
    pooled_projection_dim: Width = 2048
    pos_embed_max_size: Edge = 96
    dual_attention_layers: Annotated[
        tuple[Annotated[int, Bounds(0, 1023)], ...], Bounds(0, 1024)
    ] = ()
    qk_norm: Literal["rms_norm"] | None = None

    def check(self, source: str) -> None:
        """Raise DiffjaxError for settings that do not fit one another."""
        if self.caption_projection_dim != self.features:
            raise DiffjaxError(
                f"{source}: caption_projection_dim={self.caption_projection_dim} must "
                f"be num_attention_heads × attention_head_dim = {self.features}."
            )
        check_patches(self.sample_size, self.patch_size, source)
        if beyond := [i for i in self.dual_attention_layers if i >= self.num_layers]:
            raise DiffjaxError(
                f"{source}: dual_attention_layers names layer {beyond[0]} of "
                f"{self.num_layers}, counted from 0."
            )

    @property
    def features(self) -> int:
        """Width of a token."""
        return self.num_attention_heads * self.attention_head_dim


class JointCondition(NamedTuple):
    """What the transformer is told of a prompt.

    Attributes:
        states: text states [m, joint_attention_dim], of every token.
        pooled: one state [p] of the whole prompt.
    """

    states: Float[Array, "m d"]
    pooled: Float[Array, " p"]


class SD3Transformer2DModel(nnx.Module):
    """Predicts the velocity ε − z0 of one noised latent."""

    def __init__(
        self,
        config: SD3Transformer2DConfig,
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
        self.positions = make.embedding(config.pos_embed_max_size**2, d)
        self.timestep_embedder = TimestepEmbedding(TIMESTEP_FEATURES, d, make)
        self.text_embedder = TimestepEmbedding(config.pooled_projection_dim, d, make)
        self.context_embedder = make.linear(config.joint_attention_dim, d)
        n = config.num_layers
        tokens = Tokens(d, config.num_attention_heads, config.qk_norm is not None)
        self.transformer_blocks = nnx.List(
            [
                JointBlock(
                    tokens,
                    make,
                    dual=i in config.dual_attention_layers,
                    last=i == n - 1,
                )
                for i in range(n)
            ]
        )
        self.proj_out_1 = make.linear(d, 2 * d)
        make = make.precise()
        self.norm_out = make.layer_norm(d, EPSILON, affine=False)
        self.proj_out_2 = make.linear(d, p * p * self.out_channels)

    def memory(self, height: int, width: int) -> int:
        """Bytes that one more forward pass takes in a tile, about."""
        tokens = height * width // self.config.patch_size**2 + TOKENS
        return bytes_of_tokens(self.config, self.dtype, tokens)

    def vectors(self, condition: JointCondition) -> JointCondition:
        """The condition itself: it is of floating numbers."""
        return condition

    def condition_shapes(self) -> JointCondition:
        """Shapes of one prompt's condition."""
        config = self.config
        states: Any = jax.ShapeDtypeStruct(
            (TOKENS, config.joint_attention_dim), jnp.float32
        )
        pooled: Any = jax.ShapeDtypeStruct((config.pooled_projection_dim,), jnp.float32)
        return JointCondition(states, pooled)

    def __call__(
        self,
        latent: Float[Array, "h w c"],
        timestep: Int[Array, ""] | Float[Array, ""],
        condition: JointCondition,
    ) -> Float[Array, "h w o"]:
        """Predict from one noised latent.

        Args:
            latent: z_t, [h, w, in_channels], scaled; h and w multiples of the patch,
                of at most ``pos_embed_max_size`` patches.
            timestep: 1000 σ.
            condition: of one prompt.

        Returns:
            [h, w, out_channels], float32.

        Raises:
            ValueError: if there are more patches than positions.
        """
        p = self.config.patch_size
        height, width = latent.shape[0] // p, latent.shape[1] // p
        features = timestep_features(timestep, TIMESTEP_FEATURES)
        c = self.timestep_embedder(features.astype(self.dtype))
        c = c + self.text_embedder(condition.pooled.astype(self.dtype))
        y = self.context_embedder(condition.states.astype(self.dtype))
        x = self.patch(latent.astype(self.dtype)) + self._positions(height, width)
        x = x.reshape(height * width, -1)
        for block in self.transformer_blocks:
            x, y = block(x, y, c)
        scale, shift = jnp.split(self.proj_out_1(jax.nn.silu(c)), 2)
        x = self.proj_out_2(modulated(self.norm_out(x), shift, scale))
        return unpatch(x, height, width, p)

    def _positions(self, height: int, width: int) -> Float[Array, "h w d"]:
        """The middle of the table, which is one of a square."""
        edge = self.config.pos_embed_max_size
        if max(height, width) > edge:
            raise ValueError(f"{height} × {width} patches; there are {edge} × {edge}")
        top, left = (edge - height) // 2, (edge - width) // 2
        table = self.positions.embedding[...].reshape(edge, edge, -1)
        return table[top : top + height, left : left + width].astype(self.dtype)
