"""Trained networks → a folder that a pipeline of diffusers loads.

    model_index.json  README.md
    unet/ or transformer/, vae/   config.json, diffusion_pytorch_model.safetensors
    text_encoder/                 config.json, model.safetensors
    tokenizer/                    vocab.json, merges.txt, …
    scheduler/                    scheduler_config.json

Weights are stored as float16, which diffusers widens on loading; but those of the text
encoder as float32, since transformers would compute in float16 beside a float32 U-Net.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

from diffjax.checkpoints.mappings import to_torch
from diffjax.checkpoints.naming import Names
from diffjax.files import write_json
from diffjax.training.beginning import Beginning
from diffjax.training.recipes import Diffusion, TextToImage


class Part(NamedTuple):
    """A network of a pipeline: with trained weights, their names, and config.json."""

    network: nnx.Module
    names: Names
    config: Mapping[str, Any]


class Made(NamedTuple):
    """How weights came about.

    Attributes:
        steps: of the denoiser, made so far.
        seed: the seed of the run.
        beginning: whose autoencoder they have and whose denoiser they began from.
    """

    steps: int
    seed: int
    beginning: Beginning | None


# the other entries of a pipeline's index
OTHERS: dict[str, dict[str, Any]] = {
    "StableDiffusionPipeline": {
        "feature_extractor": [None, None],
        "safety_checker": [None, None],
        "requires_safety_checker": False,
        "tokenizer": ["transformers", "CLIPTokenizer"],
    },
    "DiTPipeline": {},
}


def export_pipeline(
    recipe: Diffusion,
    pipeline: str,
    parts: Mapping[str, Part],
    folder: Path,
    *,
    made: Made,
    tokenizer: Path | None = None,
    class_names: Sequence[str] = (),
) -> None:
    """Write the pipeline.

    Args:
        recipe: whose scheduler is written, and of which the model card tells.
        pipeline: the class that loads it, a key of ``OTHERS``.
        parts: by component, as in the pipeline's index.
        folder: is made; files of an earlier export in it are replaced.
        made: how, for the model card.
        tokenizer: the folder of its files, of a model of captions.
        class_names: the classes of a model of classes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    index: dict[str, Any] = {"_class_name": pipeline} | OTHERS[pipeline]
    if class_names:
        index["id2label"] = {str(i): name for i, name in enumerate(class_names)}
    for name, part in parts.items():
        (folder / name).mkdir(exist_ok=True)
        write_json(folder / name / "config.json", part.config, indent=2)
        if "architectures" in part.config:
            index[name] = ["transformers", *part.config["architectures"]]
            _write_weights(part, folder / name / "model.safetensors", np.float32)
        else:
            index[name] = ["diffusers", part.config["_class_name"]]
            weights = folder / name / "diffusion_pytorch_model.safetensors"
            _write_weights(part, weights, np.float16)
    scheduler = folder / "scheduler"
    scheduler.mkdir(exist_ok=True)
    write_json(scheduler / "scheduler_config.json", recipe.scheduler, indent=2)
    index["scheduler"] = ["diffusers", recipe.scheduler["_class_name"]]
    if tokenizer is not None:
        shutil.copytree(tokenizer, folder / "tokenizer", dirs_exist_ok=True)
    write_json(folder / "model_index.json", index, indent=2)
    card = _card(recipe, pipeline, parts, made)
    (folder / "README.md").write_text(card, encoding="utf-8")


def _write_weights(part: Part, path: Path, dtype: type) -> None:
    from safetensors.numpy import save_file

    tensors = to_torch(nnx.state(part.network, nnx.Param), part.names)
    stored: dict[str, np.ndarray] = {
        key: np.ascontiguousarray(t, dtype) for key, t in tensors.items()
    }
    # transformers reads the framework from here
    save_file(stored, path, metadata={"format": "pt"})


def _card(
    recipe: Diffusion, pipeline: str, parts: Mapping[str, Part], made: Made
) -> str:
    sizes = {
        name: sum(
            leaf.size for leaf in jax.tree.leaves(nnx.state(part.network, nnx.Param))
        )
        for name, part in parts.items()
    }
    rows = "\n".join(f"| `{name}` | {size:,} |" for name, size in sizes.items())
    phase = recipe.denoiser
    optimiser = "Muon and AdamW" if phase.muon_rate else "AdamW"
    began = made.beginning
    autoencoder = (
        f"{recipe.autoencoder.steps:,} steps of {recipe.autoencoder.batch} images"
        if began is None
        else f"that of `{began.name}` (weights {began.fingerprint}); the other weights "
        "began from its"
    )
    steps = f"{made.steps:,} step" + ("s" if made.steps > 1 else "")
    text = " (text encoder: float32)" if isinstance(recipe, TextToImage) else ""
    ways = ["plain", *["flipped left to right"] * recipe.mirror]
    if recipe.crops:
        ways.append(f"in {recipe.crops} random crop" + "s" * (recipe.crops > 1))
    stopped = "" if made.steps == phase.steps else f" of {phase.steps:,}, stopped there"
    return f"""# {recipe.name}

{recipe.summary} Written by `diffjax train {recipe.name}`, seed {made.seed}, in the
layout that diffusers' `{pipeline}` loads.

| network | parameters |
|---|---|
{rows}

## Data

The split `{recipe.split}` of `{recipe.dataset}`, {" and ".join(ways)},
{_conditions(recipe)}

## Recipe

- Autoencoder: {autoencoder}.
- Denoiser: {steps}{stopped}, of {phase.batch} images each
  ({made.steps * phase.batch:,} in all), {optimiser}, learning rate
  {phase.learning_rate:g}.
- The weights are exponential moving averages, stored as float16{text}.
"""


def _conditions(recipe: Diffusion) -> str:
    if not isinstance(recipe, TextToImage):
        return f"by class; {recipe.empty:.0%} of them without."
    scenes = (
        f"\nand {recipe.scenes:,} composed scenes with captions of their own,"
        if recipe.scenes
        else ""
    )
    templates = "\n".join(f"- `{template}`" for template in recipe.templates)
    return (
        f"with captions made from class names,{scenes} "
        f"{recipe.empty:.0%} of all captions empty:\n\n{templates}"
    )
