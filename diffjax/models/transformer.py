"""The transformer over a feature map, by which the U-Net attends to its condition.

    x = x + attention(norm(x))
    x = x + attention(norm(x), condition)
    x = x + feed-forward(norm(x))                                   (each block)

Rombach et al. 2022; layers and names as diffusers' ``Transformer2DModel``.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from diffjax.models.layers import Attention, Make


class FeedForward(nnx.Module):
    """GEGLU: (a · gelu(b)) W, with [a, b] = x V."""

    def __init__(self, features: int, make: Make) -> None:
        self.proj_in = make.linear(features, 8 * features)
        self.proj_out = make.linear(4 * features, features)

    def __call__(self, x: Float[Array, "l d"]) -> Float[Array, "l d"]:
        """[l, d] → [l, d]."""
        a, b = jnp.split(self.proj_in(x), 2, axis=-1)
        return self.proj_out(a * jax.nn.gelu(b, approximate=False))


class BasicTransformerBlock(nnx.Module):
    """Self-attention, cross-attention to the condition, feed-forward; pre-norm."""

    def __init__(self, features: int, heads: int, condition: int, make: Make) -> None:
        self.norm1 = make.layer_norm(features, 1e-5)
        self.attn1 = Attention(features, heads, make)
        self.norm2 = make.layer_norm(features, 1e-5)
        self.attn2 = Attention(features, heads, make, condition_features=condition)
        self.norm3 = make.layer_norm(features, 1e-5)
        self.ff = FeedForward(features, make)

    def __call__(
        self, x: Float[Array, "l d"], condition: Float[Array, "m e"]
    ) -> Float[Array, "l d"]:
        """[l, d], [m, e] → [l, d]."""
        x = x + self.attn1(self.norm1(x))
        x = x + self.attn2(self.norm2(x), condition)
        return x + self.ff(self.norm3(x))


class Transformer2DModel(nnx.Module):
    """Transformer blocks over the pixels of a feature map, with residual."""

    def __init__(
        self,
        channels: int,
        heads: int,
        condition: int,
        groups: int,
        make: Make,
        *,
        layers: int = 1,
    ) -> None:
        self.norm = make.group_norm(channels, groups, 1e-6)
        # a 1×1 convolution is the same map: both checkpoint shapes load into this
        self.proj_in = make.linear(channels, channels)
        self.transformer_blocks = nnx.List(
            [
                BasicTransformerBlock(channels, heads, condition, make)
                for _ in range(layers)
            ]
        )
        self.proj_out = make.linear(channels, channels)

    def __call__(
        self, x: Float[Array, "h w c"], condition: Float[Array, "m e"]
    ) -> Float[Array, "h w c"]:
        """[h, w, c], [m, e] → [h, w, c]."""
        tokens = self.proj_in(self.norm(x).reshape(-1, x.shape[-1]))
        for block in self.transformer_blocks:
            tokens = block(tokens, condition)
        return self.proj_out(tokens).reshape(x.shape) + x
