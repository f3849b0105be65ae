"""CLIP in a folder: both towers, what they see of an image, and how texts become ids.

    transformers'   config.json (CLIPModel), preprocessor_config.json, model.safetensors
    OpenCLIP's      open_clip_config.json, open_clip_model.safetensors

and a tokenizer's files beside them. Where a folder has both, OpenCLIP's are read.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from PIL import Image

from diffjax.checkpoints.components import COMPONENTS, TRANSFORMERS_STEM
from diffjax.checkpoints.formats import is_weight_file, read_tensors, weight_files
from diffjax.checkpoints.mappings import fill, without_wrappers
from diffjax.checkpoints.naming import CLIP_BOTH, OPEN_CLIP
from diffjax.checkpoints.networks import read_json
from diffjax.checkpoints.open_clip import open_clip_config, unfused
from diffjax.checkpoints.processing import (
    Processing,
    TorchvisionProcessing,
    processing_of,
    read_processing,
)
from diffjax.checkpoints.tokenizer import OpenCLIPTokenizer, Tokenizer
from diffjax.errors import DiffjaxError
from diffjax.models.clip import CLIPTextWithProjectionConfig
from diffjax.models.clip_image import CLIP, CLIPConfig, CLIPVisionConfig
from diffjax.models.network import Network

CONFIG, OPEN_CONFIG = "config.json", "open_clip_config.json"
OPEN_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
_TOWERS = ("text_config", "vision_config")


@dataclass(frozen=True, kw_only=True)
class Contrastive:
    """What a folder holds.

    Attributes:
        config: of both towers.
        vision: pixels [H, W, 3] → features [p].
        text: token ids [l] → ``TextOutput``, whose pooled are the features.
        scale: of the logits.
        fingerprint: of all weights.
        processing: what the image tower sees of an image.
        tokenize: prompts → token ids.
    """

    config: CLIPConfig
    vision: Network
    text: Network
    scale: float
    fingerprint: str
    processing: Processing
    tokenize: Tokenizer


def load_contrastive(place: Path) -> Contrastive:
    """Read a folder, or a file of weights in one.

    Raises:
        DiffjaxError: if files are missing or damaged, do not fit one another, or ask
            for what is not implemented.
    """
    folder = place if place.is_dir() else place.parent
    weights = None if place.is_dir() else place
    if weights is not None and not is_weight_file(weights):
        raise DiffjaxError(
            f"{place} is no file of weights: name the folder, or its .safetensors."
        )
    tokenizer: type[Tokenizer]
    if is_open(names_in(folder), weights):
        config, processing = _open_configs(folder)
        weights = weights or _open_weights(folder)
        tensors = unfused(without_wrappers(read_tensors(weights)))
        names, tokenizer = OPEN_CLIP, OpenCLIPTokenizer
    else:
        config = clip_config(read_json(folder / CONFIG), str(folder / CONFIG))
        processing = read_processing(folder, "CLIP")
        read = read_tensors(weights or folder, stem=TRANSFORMERS_STEM)
        tensors = without_wrappers(read)
        names, tokenizer = CLIP_BOTH, Tokenizer
    if processing.resolution != config.vision.image_size:
        raise DiffjaxError(
            f"{folder} makes images of {processing.resolution} pixels ready, but its "
            f"network takes {config.vision.image_size}. Download it again."
        )
    text = config.text
    tokenize = tokenizer(folder, text.max_position_embeddings, text.vocab_size)
    graphdef, empty = nnx.split(CLIP(config, rngs=None))
    state = fill(empty, tensors, names, str(weights or folder))
    whole = Network(graphdef, jax.device_put(state))
    module = whole.module()
    return Contrastive(
        config=config,
        vision=Network.of(module.vision),
        text=Network.of(module.text),
        scale=float(np.exp(module.logit_scale[...])),
        fingerprint=whole.fingerprint,
        processing=processing,
        tokenize=tokenize,
    )


def clip_config(raw: Mapping[str, Any], source: str) -> CLIPConfig:
    """The config of both towers, from transformers' config.json.

    The width of the features is said for both, and what the towers say of it, as some
    published files do, is not counted.

    Raises:
        DiffjaxError: if it is no CLIP's, or asks for what is not implemented.
    """
    named = raw.get("architectures") or [raw.get("model_type")]
    if "CLIPModel" not in named and "clip" not in named:
        raise DiffjaxError(
            f"{source} describes a {', '.join(map(str, named))}; as clip: diffjax runs "
            f"CLIPModel, or OpenCLIP's with {OPEN_CONFIG}."
        )
    towers = []
    for name in _TOWERS:
        tower = raw.get(f"{name}_dict")  # which older files have besides, and means all
        tower = (raw.get(name) or {}) if tower is None else tower
        if not isinstance(tower, dict):
            raise DiffjaxError(f"{source}: {name} is not an object. Download it again.")
        towers.append({**tower, "projection_dim": raw.get("projection_dim", 512)})
    text, vision = towers
    return CLIPConfig(
        text=CLIPTextWithProjectionConfig.from_dict(text, f"{source}, text_config"),
        vision=CLIPVisionConfig.from_dict(vision, f"{source}, vision_config"),
    )


def open_processing(config: Mapping[str, Any], size: int, source: str) -> Processing:
    """What OpenCLIP's transform makes of an image, by a preprocess_cfg.

    Raises:
        DiffjaxError: if it is malformed, or asks for what is not implemented.
    """
    given = {key: value for key, value in config.items() if value is not None}
    mode = given.pop("resize_mode", "shortest")
    name = str(given.pop("interpolation", "bicubic")).upper()
    mean, std = given.pop("mean", None), given.pop("std", None)
    size, color = given.pop("size", size), given.pop("mode", "RGB")
    given.pop("fill_color", None)  # of another resize_mode
    edge = {
        "shortest": ("size_shortest_edge",),
        "squash": ("size_height", "size_width"),
    }
    if mode not in edge or name not in Image.Resampling.__members__ or color != "RGB":
        raise DiffjaxError(
            f"{source}: a preprocess_cfg with resize_mode={mode!r}, interpolation="
            f"{name.lower()!r} and mode={color!r} is not implemented; resize_mode is "
            f"{' or '.join(edge)}, interpolation bicubic or bilinear, mode RGB."
        )
    size = size[0] if isinstance(size, list) and size[1:] == size[:1] else size
    clip = processing_of({}, "CLIP", source)
    raw = {
        **given,
        **dict.fromkeys(edge[mode], size),
        "resample": int(Image.Resampling[name]),
        "image_mean": mean or list(clip.image_mean),
        "image_std": std or list(clip.image_std),
        "do_center_crop": mode == "shortest",
        "crop_size_height": size,
        "crop_size_width": size,
    }
    return TorchvisionProcessing.from_dict(raw, source)


def is_open(names: Sequence[str], weights: Path | None = None) -> bool:
    """Whether files of these names are OpenCLIP's."""
    if weights is not None and weights.name in OPEN_WEIGHTS:
        return True
    return OPEN_CONFIG in names and (
        CONFIG not in names or any(name in names for name in OPEN_WEIGHTS)
    )


def files_of(names: Sequence[str], where: str) -> list[str]:
    """Those of a repository's files that are read.

    Raises:
        DiffjaxError: if it has no weights.
    """
    tokenizer = [
        name
        for name in names
        if COMPONENTS["tokenizer"].files.fullmatch(name)
        and not name.endswith(".index.json")
    ]
    if is_open(names):
        weights = [name for name in OPEN_WEIGHTS if name in names][:1]
    else:
        weights = weight_files(names, TRANSFORMERS_STEM, where=where)[1]
    return [*dict.fromkeys([*tokenizer, *weights])]


def names_in(folder: Path) -> list[str]:
    """Of a folder's files."""
    return [entry.name for entry in folder.iterdir()]


def _open_configs(folder: Path) -> tuple[CLIPConfig, Processing]:
    path = folder / OPEN_CONFIG
    raw = read_json(path)
    model, seen = raw.get("model_cfg"), raw.get("preprocess_cfg") or {}
    if not isinstance(model, dict) or not isinstance(seen, dict):
        raise DiffjaxError(f"{path} has no model_cfg. Download it again.")
    config = open_clip_config(model, str(path))
    return config, open_processing(seen, config.vision.image_size, str(path))


def _open_weights(folder: Path) -> Path:
    found = [folder / name for name in OPEN_WEIGHTS if (folder / name).is_file()]
    if not found:
        raise DiffjaxError(
            f"{folder} has {OPEN_CONFIG}, but no weights. Put "
            f"{OPEN_WEIGHTS[0]} there, from the same repository."
        )
    return found[0]
