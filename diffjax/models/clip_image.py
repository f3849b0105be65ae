"""The image towers of CLIP: pixels → features, and both towers as one network.

    x = norm([class; W patches] + positions)
    x = x + attention(norm(x));  x = x + mlp(norm(x))      (each layer)
    features = projection of norm(x[0])

is the vision transformer; ``modified_resnet`` has the other one. With unit vectors i of
an image and t of a text, their logit is exp(logit_scale) i · t. Radford et al. 2021
(arXiv 2103.00020); names and config keys as transformers' ``CLIPModel``.
"""

from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from diffjax.errors import DiffjaxError
from diffjax.models.clip import (
    CLIPTextModelWithProjection,
    CLIPTextWithProjectionConfig,
    EncoderLayer,
)
from diffjax.models.config import (
    GENERIC,
    Count,
    Edge,
    Epsilon,
    NetworkConfig,
    Width,
)
from diffjax.models.layers import Activation, Make
from diffjax.models.modified_resnet import ModifiedResNet, ModifiedResNetConfig

_TRAINING = "only used in training"
_FIXED: dict[str, Any] = {
    "model_type": "clip_vision_model",
    "num_channels": 3,
    "is_decoder": False,
    "add_cross_attention": False,
    "pruned_heads": {},
}
_IGNORED = {
    "architectures": "the loader knows the class",
    "dropout": _TRAINING,
    "attention_dropout": _TRAINING,
    "initializer_factor": _TRAINING,
    "initializer_range": _TRAINING,
} | GENERIC


@dataclass(frozen=True, kw_only=True)
class CLIPVisionConfig(NetworkConfig):
    """The settings of a ``vision_config`` that are implemented."""

    fixed, ignored = _FIXED, _IGNORED

    hidden_size: Width = 768
    intermediate_size: Width = 3072
    num_hidden_layers: Count = 12
    num_attention_heads: Count = 12
    image_size: Edge = 224
    patch_size: Edge = 32
    hidden_act: Activation = "quick_gelu"
    layer_norm_eps: Epsilon = 1e-5
    projection_dim: Width = 512

    def check(self, source: str) -> None:
        """Raise DiffjaxError if an image is smaller than a patch."""
        if self.patch_size > self.image_size:
            raise DiffjaxError(
                f"{source}: patches of {self.patch_size} pixels do not fit into images "
                f"of {self.image_size}."
            )

    @property
    def n_positions(self) -> int:
        """Those of the patches, and of the class."""
        return 1 + int((self.image_size // self.patch_size) ** 2)


class CLIPVisionModel(nnx.Module):
    """The vision transformer of CLIP, with its projection."""

    def __init__(
        self,
        config: CLIPVisionConfig,
        *,
        rngs: nnx.Rngs | None,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
    ) -> None:
        make = Make(rngs=rngs, dtype=dtype, param_dtype=param_dtype)
        d, patch = config.hidden_size, config.patch_size
        self.config = config
        self.patch_embedding = make.conv(
            3, d, patch, stride=patch, padding=(0, 0), bias=False
        )
        self.class_embedding = make.table(d)
        self.position_embedding = make.table(config.n_positions, d)
        self.pre_layrnorm = make.layer_norm(d, config.layer_norm_eps)  # as it is spelt
        self.layers = nnx.List(
            [
                EncoderLayer(config, make, causal=False)
                for _ in range(config.num_hidden_layers)
            ]
        )
        self.post_layernorm = make.layer_norm(d, config.layer_norm_eps)
        self.projection = make.linear(d, config.projection_dim, bias=False)

    def __call__(self, pixels: Float[Array, "H W 3"]) -> Float[Array, " p"]:
        """Pixels as the preprocessing has made them → float32 features."""
        patches = self.patch_embedding(pixels)
        patches = patches.reshape(-1, patches.shape[-1])
        x = jnp.concatenate([self.class_embedding[...][None], patches])
        x = self.pre_layrnorm(x + self.position_embedding[...])
        for layer in self.layers:
            x = layer(x)
        features: Array = self.projection(self.post_layernorm(x[0]))
        return features.astype(jnp.float32)


@dataclass(frozen=True, kw_only=True)
class CLIPConfig:
    """The configs of both towers, whose features have one width."""

    vision: CLIPVisionConfig | ModifiedResNetConfig = field(
        default_factory=CLIPVisionConfig
    )
    text: CLIPTextWithProjectionConfig = field(
        default_factory=CLIPTextWithProjectionConfig
    )


class CLIP(nnx.Module):
    """Both towers and the scale of their logits: what a checkpoint holds."""

    def __init__(
        self,
        config: CLIPConfig,
        *,
        rngs: nnx.Rngs | None,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
    ) -> None:
        how: dict[str, Any] = {
            "rngs": rngs,
            "dtype": dtype,
            "param_dtype": param_dtype,
        }
        self.config = config
        self.vision: CLIPVisionModel | ModifiedResNet
        if isinstance(config.vision, ModifiedResNetConfig):
            self.vision = ModifiedResNet(config.vision, **how)
        else:
            self.vision = CLIPVisionModel(config.vision, **how)
        self.text = CLIPTextModelWithProjection(config.text, **how)
        self.logit_scale = Make(rngs=rngs).table()
