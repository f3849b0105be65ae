"""The ResNets of CLIP: pixels → features.

    x = pool(relu(norm(conv(…)))), three convolutions, the first of stride 2
    y = relu(norm(conv1×1(x)));  y = pool(relu(norm(conv3×3(y))))
    x = relu(norm(conv1×1(y)) + shortcut(x))               (each block)
    x = [mean(x); x] + positions,  features = projection of attention(x[0], x)

Where a block halves height and width, a mean over 2 × 2 pixels does it (antialiasing),
in the shortcut before its 1×1 convolution. Radford et al. 2021 (arXiv 2103.00020),
section 2.4; names as the program of the paper and OpenCLIP's.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from diffjax.errors import DiffjaxError
from diffjax.models.attention import attend
from diffjax.models.config import Count, Edge, NetworkConfig, Width
from diffjax.models.layers import Make

EPSILON = 1e-5  # of every batch norm
EXPANSION = 4  # of a block: from its inner width to its outer one
REDUCTION = 32  # from the pixels of an image to the cells that are attended to


@dataclass(frozen=True, kw_only=True)
class ModifiedResNetConfig(NetworkConfig):
    """The numbers of a network; those of RN50 by default.

    Attributes:
        image_size: pixels along each edge.
        layers: blocks of each of the four levels.
        width: channels after the first convolutions.
        num_attention_heads: of the pooling.
        projection_dim: of the features.
    """

    image_size: Edge = 224
    layers: tuple[Count, ...] = (3, 4, 6, 3)
    width: Width = 64
    num_attention_heads: Count = 32
    projection_dim: Width = 1024

    def check(self, source: str) -> None:
        """Raise DiffjaxError unless levels, heads and image fit."""
        if len(self.layers) != 4:
            raise DiffjaxError(
                f"{source}: layers has {len(self.layers)} entries; there are 4 levels."
            )
        if self.image_size < REDUCTION:
            raise DiffjaxError(
                f"{source}: image_size={self.image_size} must be {REDUCTION} or above."
            )


def mean_pool(x: Float[Array, "h w c"], stride: int) -> Float[Array, "h2 w2 c"]:
    """Means over squares of ``stride`` pixels; what is left at the ends is dropped."""
    h, w = (n // stride for n in x.shape[:2])
    squares = x[: h * stride, : w * stride].reshape(h, stride, w, stride, -1)
    return squares.mean((1, 3))


class Bottleneck(nnx.Module):
    """1×1, 3×3 and 1×1 convolutions beside a shortcut."""

    def __init__(self, inputs: int, inner: int, stride: int, make: Make) -> None:
        outputs = EXPANSION * inner
        self.stride = stride
        self.conv1 = make.conv(inputs, inner, 1, bias=False)
        self.bn1 = make.batch_norm(inner, EPSILON)
        self.conv2 = make.conv(inner, inner, 3, bias=False)
        self.bn2 = make.batch_norm(inner, EPSILON)
        self.conv3 = make.conv(inner, outputs, 1, bias=False)
        self.bn3 = make.batch_norm(outputs, EPSILON)
        if stride > 1 or inputs != outputs:
            self.downsample = nnx.List(
                [
                    make.conv(inputs, outputs, 1, bias=False),
                    make.batch_norm(outputs, EPSILON),
                ]
            )

    def __call__(self, x: Float[Array, "h w c"]) -> Float[Array, "h2 w2 d"]:
        """[h, w, inputs] → [h/stride, w/stride, 4 inner]."""
        y = jax.nn.relu(self.bn1(self.conv1(x)))
        y = mean_pool(jax.nn.relu(self.bn2(self.conv2(y))), self.stride)
        y = self.bn3(self.conv3(y))
        if hasattr(self, "downsample"):
            conv, norm = self.downsample
            x = norm(conv(mean_pool(x, self.stride)))
        return jax.nn.relu(y + x)


class AttentionPool(nnx.Module):
    """The mean of all cells attends to itself and to them."""

    def __init__(
        self, cells: int, features: int, outputs: int, heads: int, make: Make
    ) -> None:
        if features % heads:
            raise DiffjaxError(f"{features} features do not divide into {heads} heads.")
        self.heads = heads
        self.positional_embedding = make.table(cells + 1, features)
        self.q_proj = make.linear(features, features)
        self.k_proj = make.linear(features, features)
        self.v_proj = make.linear(features, features)
        self.c_proj = make.linear(features, outputs)

    def __call__(self, x: Float[Array, "h w c"]) -> Float[Array, " p"]:
        """[h, w, features] → [outputs]."""
        x = x.reshape(-1, x.shape[-1])
        x = jnp.concatenate([x.mean(0, keepdims=True), x])
        x = x + self.positional_embedding[...]
        q, k, v = self.q_proj(x[:1]), self.k_proj(x), self.v_proj(x)
        pooled: Array = self.c_proj(attend(q, k, v, self.heads))
        return pooled[0]


class ModifiedResNet(nnx.Module):
    """Maps one image to features."""

    def __init__(
        self,
        config: ModifiedResNetConfig,
        *,
        rngs: nnx.Rngs | None,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
    ) -> None:
        make = Make(rngs=rngs, dtype=dtype, param_dtype=param_dtype)
        half, width = max(config.width // 2, 1), config.width
        self.config = config
        self.conv1 = make.conv(3, half, 3, stride=2, bias=False)
        self.bn1 = make.batch_norm(half, EPSILON)
        self.conv2 = make.conv(half, half, 3, bias=False)
        self.bn2 = make.batch_norm(half, EPSILON)
        self.conv3 = make.conv(half, width, 3, bias=False)
        self.bn3 = make.batch_norm(width, EPSILON)
        channels = width
        for level, blocks in enumerate(config.layers):
            made, inner = [], width * 2**level
            for place in range(blocks):
                stride = 2 if level > 0 and place == 0 else 1
                made.append(Bottleneck(channels, inner, stride, make))
                channels = EXPANSION * inner
            setattr(self, f"layer{level + 1}", nnx.List(made))
        self.attnpool = AttentionPool(
            (config.image_size // REDUCTION) ** 2,
            channels,
            config.projection_dim,
            config.num_attention_heads,
            make,
        )

    def __call__(self, pixels: Float[Array, "H W 3"]) -> Float[Array, " p"]:
        """Pixels as the preprocessing has made them → float32 features."""
        x = jax.nn.relu(self.bn1(self.conv1(pixels)))
        x = jax.nn.relu(self.bn2(self.conv2(x)))
        x = mean_pool(jax.nn.relu(self.bn3(self.conv3(x))), 2)
        for level in range(4):
            for block in getattr(self, f"layer{level + 1}"):
                x = block(x)
        return self.attnpool(x).astype(jnp.float32)
