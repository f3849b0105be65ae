"""The settings of Stable Diffusion's U-Net, as its config.json has them."""

from dataclasses import dataclass
from typing import Any, Literal

from diffjax.errors import DiffjaxError
from diffjax.models.config import (
    Count,
    Edge,
    Epsilon,
    NetworkConfig,
    Shift,
    Width,
    per_block,
)

SIZES = 6  # height and width of the original, top and left of the crop, of the target

_FIXED: dict[str, Any] = {
    "act_fn": ("silu", "swish"),
    "attention_type": "default",
    "center_input_sample": False,
    "class_embed_type": None,
    "class_embeddings_concat": False,
    "conv_in_kernel": 3,
    "conv_out_kernel": 3,
    "cross_attention_norm": None,
    "dual_cross_attention": False,
    "mid_block_only_cross_attention": (None, False),
    "mid_block_scale_factor": 1,
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "num_attention_heads": None,
    "num_class_embeds": None,
    "only_cross_attention": False,
    "resnet_out_scale_factor": 1,
    "resnet_time_scale_shift": "default",
    "time_embedding_type": "positional",
}
_IGNORED = {
    "addition_embed_type_num_heads": "only used where addition_embed_type is text",
    "dropout": "there is none at inference",
    "upcast_attention": "the softmax is always in float32",
}


@dataclass(frozen=True, kw_only=True)
class UNet2DConditionConfig(NetworkConfig):
    """The settings of a ``unet/config.json`` that are implemented.

    ``attention_head_dim`` is, in diffusers' historical meaning, the NUMBER of heads,
    one value or one a block.
    """

    fixed, ignored = _FIXED, _IGNORED

    sample_size: Edge | tuple[Edge, ...] | None = None
    in_channels: Count = 4
    out_channels: Count = 4
    flip_sin_to_cos: bool = True
    freq_shift: Shift = 0.0
    down_block_types: tuple[Literal["DownBlock2D", "CrossAttnDownBlock2D"], ...] = (
        "CrossAttnDownBlock2D",
        "CrossAttnDownBlock2D",
        "CrossAttnDownBlock2D",
        "DownBlock2D",
    )
    up_block_types: tuple[Literal["UpBlock2D", "CrossAttnUpBlock2D"], ...] = (
        "UpBlock2D",
        "CrossAttnUpBlock2D",
        "CrossAttnUpBlock2D",
        "CrossAttnUpBlock2D",
    )
    block_out_channels: tuple[Width, ...] = (320, 640, 1280, 1280)
    layers_per_block: Count | tuple[Count, ...] = 2
    downsample_padding: Literal[0, 1] = 1
    norm_num_groups: Count = 32
    norm_eps: Epsilon = 1e-5
    cross_attention_dim: Width = 1280
    attention_head_dim: Count | tuple[Count, ...] = 8
    use_linear_projection: bool = False
    time_embedding_dim: Width | None = None
    transformer_layers_per_block: Count | tuple[Count, ...] = 1
    addition_embed_type: Literal["text_time"] | None = None
    addition_time_embed_dim: Width | None = None
    projection_class_embeddings_input_dim: Width | None = None

    def check(self, source: str) -> None:
        """Raise DiffjaxError for settings that do not fit one another."""
        n = len(self.block_out_channels)
        for name in (
            "down_block_types",
            "up_block_types",
            "layers_per_block",
            "attention_head_dim",
            "transformer_layers_per_block",
        ):
            per_block(getattr(self, name), n, f"{source}: {name}")
        if self.addition_embed_type and self.pooled_width < 1:
            raise DiffjaxError(
                f"{source}: diffjax tells a U-Net a pooled state and {SIZES} numbers "
                f"of an image's size, of {self.addition_time_embed_dim} sinusoids each "
                "(addition_time_embed_dim); that does not make "
                f"{self.projection_class_embeddings_input_dim} features "
                "(projection_class_embeddings_input_dim)."
            )

    @property
    def pooled_width(self) -> int:
        """Of the pooled state that a U-Net with ``addition_embed_type`` is told."""
        sinusoids = SIZES * (self.addition_time_embed_dim or 0)
        return (self.projection_class_embeddings_input_dim or 0) - sinusoids
