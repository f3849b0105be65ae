"""Residual networks of ImageNet, as they are when trained: pixels → logits.

    x = pool(relu(norm(conv7(pixels))))
    x = relu(shortcut(x) + norm(conv(… relu(norm(conv(x))))))      (each layer)
    logits = W mean(x) + b
    norm(x) = (x − mean) / √(variance + ε) · scale + bias,  of training's statistics

He et al. 2016 (arXiv 1512.03385). A stage's stride is in its first 3×3 convolution
(v1.5), or in the 1×1 before it where ``downsample_in_bottleneck`` says so. Config keys
as transformers' ``ResNetForImageClassification``. The small network that diffjax trains
is another: ``baselines/resnet.py``.
"""

from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from diffjax.errors import DiffjaxError
from diffjax.models.config import GENERIC, Count, NetworkConfig, Rows, Width
from diffjax.models.layers import Make

EPSILON = 1e-5  # of every norm
REDUCTION = 4  # of channels, inside of a bottleneck
_BACKBONE = "of a backbone, which has no classes"
_FIXED: dict[str, Any] = {
    "model_type": "resnet",
    "num_channels": 3,
    "hidden_act": "relu",
    "problem_type": (None, "single_label_classification"),
    "is_decoder": False,
    "add_cross_attention": False,
    "pruned_heads": {},
}
_IGNORED = {
    "architectures": "the loader knows the class",
    "out_features": _BACKBONE,
    "out_indices": _BACKBONE,
    "stage_names": _BACKBONE,
} | GENERIC


@dataclass(frozen=True, kw_only=True)
class ResNetForImageClassificationConfig(NetworkConfig):
    """The settings of a config.json that are implemented.

    Attributes:
        num_labels: C. No key of config.json, whose id2label tells it.
    """

    fixed, ignored = _FIXED, _IGNORED

    num_labels: Rows = 1000
    embedding_size: Width = 64
    hidden_sizes: tuple[Width, ...] = (256, 512, 1024, 2048)
    depths: tuple[Count, ...] = (3, 4, 6, 3)
    layer_type: Literal["bottleneck", "basic"] = "bottleneck"
    downsample_in_first_stage: bool = False
    downsample_in_bottleneck: bool = False

    def check(self, source: str) -> None:
        """Raise DiffjaxError unless every stage has a width and a depth."""
        if len(self.depths) != len(self.hidden_sizes):
            raise DiffjaxError(
                f"{source}: {len(self.hidden_sizes)} hidden_sizes, but "
                f"{len(self.depths)} depths."
            )


class Convolution(nnx.Module):
    """A convolution, normalised."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, make: Make, *, stride: int = 1
    ) -> None:
        self.convolution = make.conv(inputs, outputs, kernel, stride=stride, bias=False)
        self.normalization = make.batch_norm(outputs, EPSILON)

    def __call__(self, x: Float[Array, "h w i"]) -> Float[Array, "h2 w2 o"]:
        """[h, w, inputs] → [h/stride, w/stride, outputs]."""
        y: Array = self.normalization(self.convolution(x))
        return y


class ResNetLayer(nnx.Module):
    """Two or three convolutions beside a shortcut."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        stride: int,
        config: ResNetForImageClassificationConfig,
        make: Make,
    ) -> None:
        if inputs != outputs or stride != 1:
            self.shortcut = Convolution(inputs, outputs, 1, make, stride=stride)
        if config.layer_type == "basic":
            steps = [(outputs, 3, stride), (outputs, 3, 1)]
        else:
            inner = outputs // REDUCTION
            first, second = (
                (stride, 1) if config.downsample_in_bottleneck else (1, stride)
            )
            steps = [(inner, 1, first), (inner, 3, second), (outputs, 1, 1)]
        layer, width = [], inputs
        for channels, kernel, step in steps:
            layer.append(Convolution(width, channels, kernel, make, stride=step))
            width = channels
        self.layer = nnx.List(layer)

    def __call__(self, x: Float[Array, "h w i"]) -> Float[Array, "h2 w2 o"]:
        """[h, w, inputs] → [h/stride, w/stride, outputs]."""
        y = x
        for i, convolution in enumerate(self.layer):
            y = convolution(jax.nn.relu(y) if i else y)
        if hasattr(self, "shortcut"):
            x = self.shortcut(x)
        return jax.nn.relu(x + y)


class ResNetForImageClassification(nnx.Module):
    """Maps one image of any size to logits."""

    def __init__(
        self,
        config: ResNetForImageClassificationConfig,
        *,
        rngs: nnx.Rngs | None,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
    ) -> None:
        make = Make(rngs=rngs, dtype=dtype, param_dtype=param_dtype)
        self.config = config
        width = config.embedding_size
        self.embedder = Convolution(3, width, 7, make, stride=2)
        stages = []
        for i, (outputs, depth) in enumerate(
            zip(config.hidden_sizes, config.depths, strict=True)
        ):
            halves = i > 0 or config.downsample_in_first_stage
            layers = []
            for place in range(depth):
                stride = 2 if halves and place == 0 else 1
                layers.append(ResNetLayer(width, outputs, stride, config, make))
                width = outputs
            stages.append(nnx.List(layers))
        self.stages = nnx.List(stages)
        self.classifier = make.precise().linear(width, config.num_labels)

    def __call__(self, pixels: Float[Array, "H W 3"]) -> Float[Array, " C"]:
        """Pixels as the preprocessing has made them → float32 logits."""
        x = halved_by_maximum(jax.nn.relu(self.embedder(pixels)))
        for stage in self.stages:
            for layer in stage:
                x = layer(x)
        logits: Array = self.classifier(x.astype(jnp.float32).mean((0, 1)))
        return logits


def halved_by_maximum(x: Float[Array, "h w c"]) -> Float[Array, "h2 w2 c"]:
    """The largest of every 3×3 pixels around every second one."""
    around = ((1, 1), (1, 1), (0, 0))
    low = jnp.array(-jnp.inf, x.dtype)
    out: Array = lax.reduce_window(x, low, lax.max, (3, 3, 1), (2, 2, 1), around)
    return out
