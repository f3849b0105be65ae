"""CLIP as OpenCLIP and the program of the paper keep it: one file of both towers.

    open_clip_config.json   model_cfg: the numbers of the towers; preprocess_cfg
    *.safetensors           open_clip_model.safetensors, of all tensors

Different from transformers' besides the names in ``naming``:

    attn.in_proj_weight [3d, d]    →  q_proj, k_proj, v_proj  [d, d] each
    visual.proj, text_projection   →  transposed: x P, not P x

Towers of other libraries (timm's, transformers' text models) are not read.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from diffjax.errors import DiffjaxError
from diffjax.models.clip import LEGACY_END, CLIPTextWithProjectionConfig
from diffjax.models.clip_image import CLIPConfig, CLIPVisionConfig
from diffjax.models.config import Bounds, Count, Edge, NetworkConfig, Rows, Width
from diffjax.models.modified_resnet import REDUCTION, ModifiedResNetConfig

Ratio = Annotated[float, Bounds(0.1, 100.0)]
_IN_PROJ = re.compile(r"(.*\battn)\.in_proj_(weight|bias)")
_PROJECTIONS = ("visual.proj", "text_projection", "text.text_projection")
_PLAIN: dict[str, Any] = {  # what further settings say of towers as the paper has them
    "act_kwargs": (None, {}),
    "norm_kwargs": (None, {}),
    "block_type": (None, "default"),
}
_FIXED_OF_IMAGES = {"pool_type": "tok", "pos_embed_type": "learnable", **_PLAIN}
_IGNORED_OF_IMAGES = {
    "patch_dropout": "only used in training",
    "attn_pooler_queries": "of another pooling",
    "attn_pooler_heads": "of another pooling",
}
_FIXED_OF_TEXTS = {"pool_type": "argmax", "proj_type": "linear", **_PLAIN}
_IGNORED_OF_TEXTS = {
    "pad_id": "what follows the text's end changes nothing before it",
    "eos_id": "of another pooling",
}


@dataclass(frozen=True, kw_only=True)
class OpenCLIPVisionConfig(NetworkConfig):
    """The settings of a ``vision_cfg`` that are implemented."""

    fixed, ignored = _FIXED_OF_IMAGES, _IGNORED_OF_IMAGES

    layers: Count | tuple[Count, ...] = 12
    width: Width = 768
    head_width: Width = 64
    mlp_ratio: Ratio = 4.0
    patch_size: Edge | None = 16
    image_size: Edge = 224


@dataclass(frozen=True, kw_only=True)
class OpenCLIPTextConfig(NetworkConfig):
    """The settings of a ``text_cfg`` that are implemented."""

    fixed, ignored = _FIXED_OF_TEXTS, _IGNORED_OF_TEXTS

    context_length: Width = 77
    vocab_size: Rows = 49408
    width: Width = 512
    heads: Count = 8
    layers: Count = 12
    mlp_ratio: Ratio = 4.0


def open_clip_config(model_cfg: Mapping[str, Any], source: str) -> CLIPConfig:
    """The config of both towers.

    Args:
        model_cfg: as open_clip_config.json has it.
        source: the file, for messages.

    Raises:
        DiffjaxError: for what is missing or not implemented.
    """
    seen, read = model_cfg.get("vision_cfg"), model_cfg.get("text_cfg")
    width = model_cfg.get("embed_dim")
    if not isinstance(seen, dict) or not isinstance(read, dict) or width is None:
        raise DiffjaxError(
            f"{source} needs embed_dim, vision_cfg and text_cfg in its model_cfg. "
            "Download it again."
        )
    known = ("embed_dim", "vision_cfg", "text_cfg", "quick_gelu")
    if more := {key: v for key, v in model_cfg.items() if key not in known and v}:
        key, value = next(iter(more.items()))
        raise DiffjaxError(
            f"{source}: {key}={value!r} is not implemented; diffjax runs OpenCLIP's "
            "models of CLIP's own two towers."
        )
    images = OpenCLIPVisionConfig.from_dict(seen, f"{source}, vision_cfg")
    texts = OpenCLIPTextConfig.from_dict(read, f"{source}, text_cfg")
    activation = "quick_gelu" if model_cfg.get("quick_gelu") else "gelu"
    text = CLIPTextWithProjectionConfig.from_dict(
        {
            "vocab_size": texts.vocab_size,
            "hidden_size": texts.width,
            "intermediate_size": int(texts.mlp_ratio * texts.width),
            "num_hidden_layers": texts.layers,
            "num_attention_heads": texts.heads,
            "max_position_embeddings": texts.context_length,
            "hidden_act": activation,
            "projection_dim": width,
            "eos_token_id": LEGACY_END,  # a text ends at its largest id
        },
        source,
    )
    vision: CLIPVisionConfig | ModifiedResNetConfig
    if isinstance(images.layers, tuple):
        vision = ModifiedResNetConfig.from_dict(
            {
                "image_size": images.image_size,
                "layers": list(images.layers),
                "width": images.width,
                "num_attention_heads": images.width * REDUCTION // images.head_width,
                "projection_dim": width,
            },
            source,
        )
    else:
        vision = CLIPVisionConfig.from_dict(
            {
                "hidden_size": images.width,
                "intermediate_size": int(images.mlp_ratio * images.width),
                "num_hidden_layers": images.layers,
                "num_attention_heads": images.width // images.head_width,
                "image_size": images.image_size,
                "patch_size": images.patch_size or 16,
                "hidden_act": activation,
                "projection_dim": width,
            },
            source,
        )
    return CLIPConfig(vision=vision, text=text)


def unfused(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors as those of linear maps are stored, see above; views."""
    found: dict[str, np.ndarray] = {}
    for key, tensor in tensors.items():
        match = _IN_PROJ.fullmatch(key)
        if match is not None and tensor.ndim and len(tensor) % 3 == 0:
            names = (f"{match[1]}.{part}_proj.{match[2]}" for part in "qkv")
            found |= dict(zip(names, np.split(tensor, 3), strict=True))
        elif key in _PROJECTIONS and tensor.ndim == 2:
            found[f"{key}.weight"] = tensor.T
        else:
            found[key] = tensor
    return found
