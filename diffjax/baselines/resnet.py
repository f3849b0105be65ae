"""A small residual network, trained to classify: pixels → logits.

    x = conv(pixels)
    x = shortcut(x) + conv(relu(norm(conv(relu(norm(x))))))        (each block)
    logits = W mean(relu(norm(x)))

He et al. 2016 (arXiv 1603.05027), with group norm (Wu & He 2018) in place of batch
norm: the logits of an image depend on it alone, and there are no running statistics.
The first block of each level but the first halves height and width.
"""

from dataclasses import asdict, dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from diffjax.models.config import Count, Edge, NetworkConfig, Rows, Width
from diffjax.models.layers import Make

EPSILON = 1e-5  # of every group norm
CLASS_NAME = "ResNet"  # in config.json


@dataclass(frozen=True, kw_only=True)
class ResNetConfig(NetworkConfig):
    """The numbers of a network; the default ones have 0.70 M parameters.

    Attributes:
        num_classes: C.
        sample_size: pixels along each edge of the images it is trained on.
        block_out_channels: the width of each level.
        layers_per_block: residual blocks a level.
        norm_num_groups: of every norm.
    """

    num_classes: Rows = 10
    sample_size: Edge = 32
    block_out_channels: tuple[Width, ...] = (32, 64, 128)
    layers_per_block: Count = 2
    norm_num_groups: Count = 8

    def as_dict(self) -> dict[str, Any]:
        """What ``from_dict`` reads."""
        numbers = asdict(self) | {"block_out_channels": list(self.block_out_channels)}
        return {"_class_name": CLASS_NAME} | numbers


class Block(nnx.Module):
    """Two convolutions beside a shortcut."""

    def __init__(
        self, inputs: int, outputs: int, stride: int, groups: int, make: Make
    ) -> None:
        self.norm1 = make.group_norm(inputs, groups, EPSILON)
        self.conv1 = make.conv(inputs, outputs, 3, stride=stride, bias=False)
        self.norm2 = make.group_norm(outputs, groups, EPSILON)
        self.conv2 = make.conv(outputs, outputs, 3, bias=False)
        if inputs != outputs or stride > 1:
            self.shortcut = make.conv(inputs, outputs, 1, stride=stride, bias=False)

    def __call__(self, x: Float[Array, "h w c"]) -> Float[Array, "h2 w2 d"]:
        """[h, w, inputs] → [h/stride, w/stride, outputs]."""
        y = jax.nn.relu(self.norm1(x))
        if hasattr(self, "shortcut"):
            x = self.shortcut(y)
        return x + self.conv2(jax.nn.relu(self.norm2(self.conv1(y))))


class ResNet(nnx.Module):
    """Maps one image of any size, or another map of ``channels``, to logits."""

    def __init__(
        self,
        config: ResNetConfig,
        *,
        channels: int = 3,
        rngs: nnx.Rngs | None,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
    ) -> None:
        make = Make(rngs=rngs, dtype=dtype, param_dtype=param_dtype)
        width, groups = config.block_out_channels[0], config.norm_num_groups
        self.config = config
        self.conv_in = make.conv(channels, width, 3, bias=False)
        blocks = []
        for level, outputs in enumerate(config.block_out_channels):
            for place in range(config.layers_per_block):
                stride = 2 if level > 0 and place == 0 else 1
                blocks.append(Block(width, outputs, stride, groups, make))
                width = outputs
        self.blocks = nnx.List(blocks)
        self.norm_out = make.group_norm(width, groups, EPSILON)
        self.head = make.linear(width, config.num_classes)

    def __call__(self, pixels: Float[Array, "H W d"]) -> Float[Array, " C"]:
        """Pixels in [−1, 1], or what else it was trained on → float32 logits."""
        x = self.conv_in(pixels)
        for block in self.blocks:
            x = block(x)
        x = jax.nn.relu(self.norm_out(x)).mean((0, 1))
        return self.head(x).astype(jnp.float32)


def resnet_loss(
    model: ResNet, pixels: Float[Array, "b H W 3"], labels: Int[Array, " b"]
) -> Float[Array, ""]:
    """The mean cross-entropy of the labels, in nats."""
    log_probabilities = jax.nn.log_softmax(jax.vmap(model)(pixels))
    return -jnp.take_along_axis(log_probabilities, labels[:, None], 1).mean()
