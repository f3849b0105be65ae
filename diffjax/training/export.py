"""Trained networks → a folder that diffusers' StableDiffusionPipeline loads.

    model_index.json  README.md
    unet/  vae/       config.json, diffusion_pytorch_model.safetensors
    text_encoder/     config.json, model.safetensors
    tokenizer/        vocab.json, merges.txt, …
    scheduler/        scheduler_config.json

Weights are stored as float16, which diffusers widens on loading; but those of the text
encoder as float32, since transformers would compute in float16 beside a float32 U-Net.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx

from diffjax.checkpoints.mappings import AUTOENCODER, CLIP_TEXT, UNET, Names, to_torch
from diffjax.training.networks import Networks
from diffjax.training.recipes import Recipe

MODEL_INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "feature_extractor": [None, None],
    "safety_checker": [None, None],
    "requires_safety_checker": False,
    "scheduler": ["diffusers", "PNDMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def export_pipeline(
    networks: Networks,
    recipe: Recipe,
    *,
    scaling_factor: float,
    tokenizer: Path,
    folder: Path,
) -> None:
    """Write the pipeline.

    Args:
        networks: with trained weights.
        recipe: whose configs are written.
        scaling_factor: of the latents.
        tokenizer: the folder of its files.
        folder: is made; files of an earlier export in it are replaced.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = "diffusion_pytorch_model.safetensors"
    parts: list[tuple[str, nnx.Module, Names, Mapping[str, Any], str, type]] = [
        ("unet", networks.unet, UNET, recipe.unet, weights, np.float16),
        (
            "vae",
            networks.vae,
            AUTOENCODER,
            dict(recipe.vae) | {"scaling_factor": scaling_factor},
            weights,
            np.float16,
        ),
        (
            "text_encoder",
            networks.text_encoder,
            CLIP_TEXT,
            networks.text_config,
            "model.safetensors",
            np.float32,
        ),
    ]
    for name, network, names, config, file, dtype in parts:
        (folder / name).mkdir(exist_ok=True)
        _write_weights(network, names, folder / name / file, dtype)
        _write_json(folder / name / "config.json", config)
    (folder / "scheduler").mkdir(exist_ok=True)
    _write_json(folder / "scheduler" / "scheduler_config.json", recipe.scheduler)
    shutil.copytree(tokenizer, folder / "tokenizer", dirs_exist_ok=True)
    scheduler = ["diffusers", recipe.scheduler["_class_name"]]
    _write_json(folder / "model_index.json", MODEL_INDEX | {"scheduler": scheduler})
    (folder / "README.md").write_text(_card(networks, recipe), encoding="utf-8")


def _write_weights(network: nnx.Module, names: Names, path: Path, dtype: type) -> None:
    from safetensors.numpy import save_file

    tensors = to_torch(nnx.state(network, nnx.Param), names)
    stored: dict[str, np.ndarray] = {
        key: np.ascontiguousarray(t, dtype) for key, t in tensors.items()
    }
    # transformers reads the framework from here
    save_file(stored, path, metadata={"format": "pt"})


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def _card(networks: Networks, recipe: Recipe) -> str:
    sizes = {
        "U-Net": networks.unet,
        "autoencoder": networks.vae,
        "text encoder": networks.text_encoder,
    }
    rows = "\n".join(
        f"| {name} | {_count(network):,} |" for name, network in sizes.items()
    )
    templates = "\n".join(f"- `{template}`" for template in recipe.templates)
    seen = recipe.denoiser.steps * recipe.denoiser.batch
    return f"""# {recipe.name}

{recipe.summary} Written by `diffjax train {recipe.name}`, in the layout that diffusers'
`StableDiffusionPipeline` loads.

| network | parameters |
|---|---|
{rows}

## Data

The split `{recipe.split}` of `{recipe.dataset}`, unflipped and flipped left to right,
with captions made from class names; {recipe.empty_caption:.0%} of them empty:

{templates}

## Recipe

- Autoencoder: {recipe.autoencoder.steps:,} steps of {recipe.autoencoder.batch} images.
- U-Net and text encoder: {recipe.denoiser.steps:,} steps of {recipe.denoiser.batch}
  images ({seen:,} in all), AdamW, learning rate {recipe.denoiser.learning_rate:g}.
- The weights are exponential moving averages, stored as float16 (text encoder:
  float32).
"""


def _count(network: nnx.Module) -> int:
    import jax

    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(network, nnx.Param)))
