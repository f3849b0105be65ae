"""Classifiers of ImageNet as torchvision publishes them: one file of weights alone.

    resnet101-63fe2227.pth, vit_l_32-c7638314.pth, …

The numbers of the network are read off its tensors, but for the heads of attention,
which are 64 wide, and 80 in ViT-H. Different besides the names in ``naming``:

    self_attention.in_proj  [3d, d]  →  to_q, to_k, to_v  [d, d] each
    ε of every layer norm  1e-6

The accuracies that the paper gives of ResNet-101, ViT-B/16 and ViT-L/32 are those of
torchvision's first weights (4.6 % on ImageNet-A for ResNet-101, where later recipes
have 19 %).
"""

import os
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt
from pathlib import Path
from typing import Any

import numpy as np

from diffjax.checkpoints.naming import TORCHVISION_RESNET, TORCHVISION_VIT, Names
from diffjax.checkpoints.processing import Processing, TorchvisionProcessing
from diffjax.errors import DiffjaxError
from diffjax.files import user_path
from diffjax.models.resnet import ResNetForImageClassificationConfig
from diffjax.models.vit import ViTForImageClassificationConfig

Tensors = Mapping[str, np.ndarray]

HEAD, HEADS = 64, {1280: 16}  # features of a head; heads by width, where others
ADDRESS, SUFFIX = "https://download.pytorch.org/models/", ".pth"
BILINEAR, BICUBIC = 2, 3


@dataclass(frozen=True)
class Published:
    """How a published file's images are resized before the crop."""

    edge: int = 256
    resample: int = BILINEAR


# by what torchvision calls them; of a model the first, with which the paper compares
PUBLISHED = {
    "resnet18-f37072fd": Published(),
    "resnet34-b627a593": Published(),
    "resnet50-0676ba61": Published(),
    "resnet50-11ad3fa6": Published(232),
    "resnet101-63fe2227": Published(),
    "resnet101-cd907fc2": Published(232),
    "resnet152-394f9c45": Published(),
    "resnet152-f82ba261": Published(232),
    "vit_b_16-c867db91": Published(),
    "vit_b_16_swag-9ac1b537": Published(384, BICUBIC),
    "vit_b_16_lc_swag-4e70ced5": Published(224, BICUBIC),
    "vit_b_32-d86f8d99": Published(),
    "vit_l_16-852ce7e3": Published(242),
    "vit_l_16_swag-4f3808c9": Published(512, BICUBIC),
    "vit_l_16_lc_swag-4d563306": Published(224, BICUBIC),
    "vit_l_32-c7638314": Published(),
}
_IN_PROJ = re.compile(r"(.*\.self_attention)\.in_proj_(weight|bias)")
_FIRST = re.compile(r"layer(\d+)\.(\d+)\.conv1\.weight")  # of every layer
_LAYER = re.compile(r"encoder\.layers\.encoder_layer_\d+\.ln_1\.weight")


def is_torchvision(tensors: Tensors) -> bool:
    """Whether tensors have the names of torchvision's ResNet or vision transformer."""
    return "conv_proj.weight" in tensors or {"bn1.weight", "fc.weight"} <= set(tensors)


def torchvision_network(
    tensors: Tensors, source: str
) -> tuple[Any, dict[str, np.ndarray], Names]:
    """The config, the tensors as the table of names has them, and that table.

    Args:
        tensors: those for which ``is_torchvision``.
        source: the file, for messages.

    Raises:
        DiffjaxError: if the tensors are not those of a whole network.
    """
    try:
        if "conv_proj.weight" in tensors:
            return _vit_config(tensors), _split_attention(tensors), TORCHVISION_VIT
        return _resnet_config(tensors), dict(tensors), TORCHVISION_RESNET
    except (KeyError, IndexError, ValueError) as error:
        raise DiffjaxError(
            f"{source} has names of torchvision's, but is not a whole network of its "
            f"ResNet or vision transformer ({error}). Download it again."
        ) from error


def _vit_config(tensors: Tensors) -> ViTForImageClassificationConfig:
    width, _, patch, _ = tensors["conv_proj.weight"].shape
    _, positions, _ = tensors["encoder.pos_embedding"].shape
    inner = "encoder.layers.encoder_layer_0.mlp"
    [widen] = [
        tensors[key]
        for key in (f"{inner}.0.weight", f"{inner}.linear_1.weight")
        if key in tensors
    ]
    return ViTForImageClassificationConfig(
        num_labels=len(tensors["heads.head.weight"]),
        hidden_size=width,
        intermediate_size=len(widen),
        num_hidden_layers=sum(map(bool, map(_LAYER.fullmatch, tensors))),
        num_attention_heads=HEADS.get(width, width // HEAD),
        layer_norm_eps=1e-6,
        image_size=patch * isqrt(positions - 1),
        patch_size=patch,
    )


def _resnet_config(tensors: Tensors) -> ResNetForImageClassificationConfig:
    layers = [match for match in map(_FIRST.fullmatch, tensors) if match]
    stages = sorted({int(match[1]) for match in layers})
    last = "conv3" if "layer1.0.conv3.weight" in tensors else "conv2"
    return ResNetForImageClassificationConfig(
        num_labels=len(tensors["fc.weight"]),
        embedding_size=len(tensors["bn1.weight"]),
        hidden_sizes=tuple(len(tensors[f"layer{i}.0.{last}.weight"]) for i in stages),
        depths=tuple(sum(int(match[1]) == i for match in layers) for i in stages),
        layer_type="bottleneck" if last == "conv3" else "basic",
    )


def _split_attention(tensors: Tensors) -> dict[str, np.ndarray]:
    """The tensors with queries, keys and values apart, as views."""
    found: dict[str, np.ndarray] = {}
    for key, tensor in tensors.items():
        match = _IN_PROJ.fullmatch(key)
        if match is None or len(tensor) % 3:
            found[key] = tensor
            continue
        names = (f"{match[1]}.to_{part}.{match[2]}" for part in "qkv")
        found |= dict(zip(names, np.split(tensor, 3), strict=True))
    return found


def torchvision_processing(path: Path, config: Any) -> Processing:
    """How images are made ready for a file's network.

    Warns of a file that is none of ``PUBLISHED``: its name does not tell.
    """
    pixels = getattr(config, "image_size", 224)
    published = PUBLISHED.get(path.stem)
    if published is None:
        published = Published(edge=256 * pixels // 224)
        warnings.warn(
            f"{path} is not called as torchvision's published files are: images are "
            f"resized to {published.edge} and cropped to {pixels} pixels, as for most "
            "of these.",
            stacklevel=2,
        )
    return TorchvisionProcessing(
        resample=published.resample,
        size_shortest_edge=published.edge,
        crop_size_height=pixels,
        crop_size_width=pixels,
    )


def published_file(name: str) -> Path | None:
    """Where the file of a model that torchvision publishes is here, or would be.

    Args:
        name: of a file, or as "resnet101" of a model: the first of its files.

    Returns:
        In the folder where torch keeps what it fetches; None for an unknown name.
    """
    stem = name.removesuffix(SUFFIX)
    found = [each for each in PUBLISHED if stem in (each, each.rpartition("-")[0])]
    if not found:
        return None
    cache = os.environ.get("XDG_CACHE_HOME") or user_path("~/.cache")
    torch = Path(os.environ.get("TORCH_HOME") or Path(cache) / "torch")
    return torch / "hub" / "checkpoints" / f"{found[0]}{SUFFIX}"
