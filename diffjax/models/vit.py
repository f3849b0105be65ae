"""Vision transformers that were trained to classify: pixels → logits.

    x = [class token; patches of the image, each W p + b] + positions
    x = x + attention(norm(x));  x = x + mlp(norm(x))          (each layer)
    logits = W norm(x)[0] + b

Dosovitskiy et al. 2021 (arXiv 2010.11929); config keys as transformers'
``ViTForImageClassification``.
"""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from diffjax.errors import DiffjaxError
from diffjax.models.config import (
    GENERIC,
    Count,
    Edge,
    Epsilon,
    NetworkConfig,
    Rows,
    Width,
)
from diffjax.models.layers import ACTIVATIONS, Activation, Attention, Make

_NO_POOLER = "of a pooler, which the class token's logits go around"
_TRAINING = "only used in training"
_FIXED: dict[str, Any] = {
    "model_type": "vit",
    "num_channels": 3,
    "problem_type": (None, "single_label_classification"),
    "is_decoder": False,
    "add_cross_attention": False,
    "pruned_heads": {},
}
_IGNORED = {
    "architectures": "the loader knows the class",
    "pooler_act": _NO_POOLER,
    "pooler_output_size": _NO_POOLER,
    "encoder_stride": "of another head",
    "attention_probs_dropout_prob": _TRAINING,
    "hidden_dropout_prob": _TRAINING,
    "initializer_range": _TRAINING,
} | GENERIC


@dataclass(frozen=True, kw_only=True)
class ViTForImageClassificationConfig(NetworkConfig):
    """The settings of a config.json that are implemented.

    Attributes:
        num_labels: C. No key of config.json, whose id2label tells it.
    """

    fixed, ignored = _FIXED, _IGNORED

    num_labels: Rows = 1000
    hidden_size: Width = 768
    intermediate_size: Width = 3072
    num_hidden_layers: Count = 12
    num_attention_heads: Count = 12
    hidden_act: Activation = "gelu"
    layer_norm_eps: Epsilon = 1e-12
    image_size: Edge = 224
    patch_size: Edge = 16
    qkv_bias: bool = True

    def check(self, source: str) -> None:
        """Raise DiffjaxError if an image is smaller than a patch."""
        if self.patch_size > self.image_size:
            raise DiffjaxError(
                f"{source}: patches of {self.patch_size} pixels do not fit into images "
                f"of {self.image_size}."
            )

    @property
    def n_patches(self) -> int:
        """Along both edges."""
        return int((self.image_size // self.patch_size) ** 2)


class ViTLayer(nnx.Module):
    """Pre-norm attention and MLP, each with its residual."""

    def __init__(self, config: ViTForImageClassificationConfig, make: Make) -> None:
        d, epsilon = config.hidden_size, config.layer_norm_eps
        self.layernorm_before = make.layer_norm(d, epsilon)
        self.attention = Attention(
            d, config.num_attention_heads, make, bias=config.qkv_bias
        )
        self.layernorm_after = make.layer_norm(d, epsilon)
        self.fc1 = make.linear(d, config.intermediate_size)
        self.fc2 = make.linear(config.intermediate_size, d)
        self.activation = ACTIVATIONS[config.hidden_act]

    def __call__(self, x: Float[Array, "l d"]) -> Float[Array, "l d"]:
        """[l, d] → [l, d]."""
        x = x + self.attention(self.layernorm_before(x))
        return x + self.fc2(self.activation(self.fc1(self.layernorm_after(x))))


class ViTForImageClassification(nnx.Module):
    """Maps one image to logits."""

    def __init__(
        self,
        config: ViTForImageClassificationConfig,
        *,
        rngs: nnx.Rngs | None,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
    ) -> None:
        make = Make(rngs=rngs, dtype=dtype, param_dtype=param_dtype)
        d = config.hidden_size
        self.config = config
        self.patch = make.conv(
            3, d, config.patch_size, stride=config.patch_size, padding=(0, 0)
        )
        self.class_token = make.embedding(1, d)
        self.positions = make.embedding(1 + config.n_patches, d)
        self.layers = nnx.List(
            [ViTLayer(config, make) for _ in range(config.num_hidden_layers)]
        )
        self.layernorm = make.layer_norm(d, config.layer_norm_eps)
        self.classifier = make.precise().linear(d, config.num_labels)

    def __call__(self, pixels: Float[Array, "H W 3"]) -> Float[Array, " C"]:
        """Pixels as the preprocessing has made them → float32 logits."""
        patches = self.patch(pixels)
        x = jnp.concatenate(
            [
                self.class_token.embedding[...],
                patches.reshape(-1, patches.shape[-1]),
            ]
        )
        x = x + self.positions.embedding[...]
        for layer in self.layers:
            x = layer(x)
        logits: Array = self.classifier(self.layernorm(x[0]))
        return logits
