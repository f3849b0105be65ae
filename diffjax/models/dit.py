"""The diffusion transformer, DiT: (z_t, t, class) → prediction.

    c = MLP(sinusoids(t)) + table[class]       (or a vector in place of a row)
    x = patches(z_t) + position
    s₁, γ₁, α₁, s₂, γ₂, α₂ = W silu(c)                             (each block)
    x = x + α₁ attention((1 + γ₁) norm(x) + s₁)
    x = x + α₂ mlp((1 + γ₂) norm(x) + s₂)
    s, γ = W' silu(c);  prediction = unpatch(W″((1 + γ) norm(x) + s))

Peebles & Xie 2023 (adaLN-zero); config keys as diffusers' ``DiTTransformer2DModel``.
diffusers stores c's MLP and table once a block, all equal; here they stand once.
"""

from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from diffjax.errors import DiffjaxError
from diffjax.models.config import Count, Edge, Epsilon, NetworkConfig, Rows, Shift
from diffjax.models.layers import (
    Attention,
    FeedForward,
    Make,
    TimestepEmbedding,
    timestep_features,
)
from diffjax.models.patches import bytes_of_tokens, check_patches, unpatch

TIMESTEP_FEATURES = 256

_FIXED: dict[str, Any] = {
    "norm_type": "ada_norm_zero",
    "norm_elementwise_affine": False,
    # keys that older files of these checkpoints carry from a shared base class
    "attention_type": "default",
    "cross_attention_dim": None,
    "double_self_attention": False,
    "num_vector_embeds": None,
    "only_cross_attention": False,
    "use_linear_projection": False,
}
_IGNORED = {
    "dropout": "there is none at inference",
    "norm_num_groups": "there is no group norm",
    "upcast_attention": "the softmax is always in float32",
}


@dataclass(frozen=True, kw_only=True)
class DiTTransformer2DConfig(NetworkConfig):
    """The settings of a ``transformer/config.json`` that are implemented."""

    fixed, ignored = _FIXED, _IGNORED

    num_attention_heads: Count = 16
    attention_head_dim: Count = 72
    in_channels: Count = 4
    out_channels: Count | None = None
    num_layers: Count = 28
    attention_bias: bool = True
    sample_size: Edge = 32
    patch_size: Count = 2
    activation_fn: Literal["gelu", "gelu-approximate"] = "gelu-approximate"
    num_embeds_ada_norm: Rows = 1000
    norm_eps: Epsilon = 1e-5
    freq_shift: Shift = 1.0  # of the timestep's sinusoids; in diffusers always 1

    def check(self, source: str) -> None:
        """Raise DiffjaxError for settings that do not fit one another."""
        if self.features % 4:
            raise DiffjaxError(
                f"{source}: num_attention_heads × attention_head_dim = {self.features} "
                "must be a multiple of 4, for the position embedding."
            )
        check_patches(self.sample_size, self.patch_size, source)

    @property
    def features(self) -> int:
        """Width of a token."""
        return self.num_attention_heads * self.attention_head_dim


class DiTBlock(nnx.Module):
    """Attention and MLP, shifted, scaled and gated by the condition."""

    def __init__(self, config: DiTTransformer2DConfig, make: Make) -> None:
        d = config.features
        self.adaln = make.linear(d, 6 * d)
        self.norm1 = make.layer_norm(d, 1e-6, affine=False)
        self.attn1 = Attention(
            d, config.num_attention_heads, make, bias=config.attention_bias
        )
        self.norm3 = make.layer_norm(d, config.norm_eps, affine=False)
        self.ff = FeedForward(d, config.activation_fn, make)

    def __call__(
        self, x: Float[Array, "l d"], condition: Float[Array, " d"]
    ) -> Float[Array, "l d"]:
        """[l, d], [d] → [l, d]."""
        shift1, scale1, gate1, shift2, scale2, gate2 = jnp.split(
            self.adaln(jax.nn.silu(condition)), 6
        )
        x = x + gate1 * self.attn1(self.norm1(x) * (1 + scale1) + shift1)
        return x + gate2 * self.ff(self.norm3(x) * (1 + scale2) + shift2)


class DiTTransformer2DModel(nnx.Module):
    """Predicts ε for one noised latent; learned-sigma models append the variance."""

    def __init__(
        self,
        config: DiTTransformer2DConfig,
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
        self.timestep_embedder = TimestepEmbedding(TIMESTEP_FEATURES, d, make)
        # one more row: the unconditional class
        self.class_embedder = make.embedding(config.num_embeds_ada_norm + 1, d)
        self.transformer_blocks = nnx.List(
            [DiTBlock(config, make) for _ in range(config.num_layers)]
        )
        self.proj_out_1 = make.linear(d, 2 * d)
        make = make.precise()
        self.norm_out = make.layer_norm(d, 1e-6, affine=False)
        self.proj_out_2 = make.linear(d, p * p * self.out_channels)

    def memory(self, height: int, width: int) -> int:
        """Bytes that one more forward pass takes in a tile, about."""
        tokens = height * width // self.config.patch_size**2
        return bytes_of_tokens(self.config, self.dtype, tokens)

    def vectors(self, condition: Int[Array, ""]) -> Float[Array, " d"]:
        """The row of the table that a class id stands for."""
        row: Array = self.class_embedder(condition)
        return row

    def condition_shapes(self) -> jax.ShapeDtypeStruct:
        """Shape of a class id."""
        return jax.ShapeDtypeStruct((), jnp.int32)

    def __call__(
        self,
        latent: Float[Array, "h w c"],
        timestep: Int[Array, ""] | Float[Array, ""],
        condition: Int[Array, ""] | Float[Array, " d"],
    ) -> Float[Array, "h w o"]:
        """Predict from one noised latent.

        Args:
            latent: z_t, [h, w, in_channels], scaled; h and w multiples of the patch.
            timestep: what the schedule has it told: t, or a flow's time.
            condition: class id in [0, num_embeds_ada_norm], the last of which is
                the unconditional class; or a vector [d] in place of a row of
                ``class_embedder``'s table.

        Returns:
            [h, w, out_channels], float32.

        Raises:
            ValueError: if a vector is not as wide as the model.
        """
        p, d = self.config.patch_size, self.config.features
        height, width = latent.shape[0] // p, latent.shape[1] // p
        features = timestep_features(
            timestep, TIMESTEP_FEATURES, freq_shift=self.config.freq_shift
        )
        embedding = self.timestep_embedder(features.astype(self.dtype))
        c = embedding + self._class_vector(condition)

        x = self.patch(latent.astype(self.dtype)).reshape(-1, d)
        base = self.config.sample_size // p
        x = x + sincos_positions(d, height, width, base).astype(self.dtype)
        for block in self.transformer_blocks:
            x = block(x, c)
        shift, scale = jnp.split(self.proj_out_1(jax.nn.silu(c)), 2)
        x = self.proj_out_2(self.norm_out(x) * (1 + scale) + shift)

        return unpatch(x, height, width, p)

    def _class_vector(self, condition: Array) -> Array:
        if jnp.issubdtype(condition.dtype, jnp.integer):
            return self.class_embedder(condition)
        if condition.shape != (self.config.features,):
            raise ValueError(
                f"a class's vector has shape ({self.config.features},), "
                f"not {condition.shape}"
            )
        return condition.astype(self.dtype)


def sincos_positions(
    features: int, height: int, width: int, base: int | float
) -> Float[np.ndarray, "l d"]:
    """Position embedding of a patch grid: half the features for x, half for y.

    A grid of another size than ``base`` is stretched over the same range: 0 to base.
    """
    quarter = features // 4
    omega = 10000.0 ** (-np.arange(quarter) / quarter)

    def axis(n: int) -> np.ndarray:
        angle = np.outer(np.arange(n) * (base / n), omega)
        return np.concatenate([np.sin(angle), np.cos(angle)], axis=1)

    x = np.broadcast_to(axis(width)[None], (height, width, 2 * quarter))
    y = np.broadcast_to(axis(height)[:, None], (height, width, 2 * quarter))
    grid = np.concatenate([x, y], axis=-1).reshape(height * width, -1)
    return grid.astype(np.float32)
