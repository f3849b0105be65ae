"""A Stable Diffusion: U-Net and text encoder, trained on captions.

OUT/tokenizer/       made first, from the captions
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int32, UInt8
from rich.console import Console

from diffjax.checkpoints.naming import CLIP_TEXT, UNET
from diffjax.checkpoints.tokenizer import Tokenizer
from diffjax.data.scenes import scenes
from diffjax.models.clip import CLIPTextConfig, CLIPTextModel
from diffjax.models.unet import UNet2DConditionModel
from diffjax.models.unet_config import UNet2DConditionConfig
from diffjax.training.batches import Captions
from diffjax.training.initial import initial_network
from diffjax.training.kind import Kind
from diffjax.training.recipes import TextToImage, compute_dtype
from diffjax.training.tokenizer import END, START, save_tokenizer, train_tokenizer

SCENES_SEED = 0
SHOWN = 5  # class names, and as many scenes


def text_to_image(
    recipe: TextToImage,
    images: UInt8[np.ndarray, "n H W 3"],
    labels: Int32[np.ndarray, " n"],
    class_names: Sequence[str],
    out: Path,
    random: np.random.Generator,
    console: Console,
) -> Kind:
    """Draw the scenes, train the tokenizer, and make the networks.

    Args:
        recipe: what to train.
        images: RGB, 0 to 255.
        labels: indices into ``class_names``.
        class_names: what the captions say.
        out: the run's folder.
        random: draws the initial weights.
        console: is told what takes a while.
    """
    composed, sentences = np.empty((0, *images.shape[1:]), np.uint8), list[str]()
    if recipe.scenes:
        console.print(f"Drawing {recipe.scenes:,} composed scenes.")
        composed, sentences = scenes(recipe.scenes, SCENES_SEED)
    texts = [t.format(name) for t in recipe.templates for name in class_names]
    length = int(recipe.text_encoder["max_position_embeddings"])
    vocabulary, merges = train_tokenizer([*texts, *sentences], recipe.vocabulary)
    save_tokenizer(vocabulary, merges, length, out / "tokenizer")
    tokenizer = Tokenizer(out / "tokenizer", length, len(vocabulary))
    ids = tokenizer([*texts, *sentences, ""]).ids
    captions = Captions(
        ids[: len(texts)].reshape(-1, len(class_names), length), ids[len(texts) : -1]
    )
    n_own = len(images) * recipe.copies
    unet, text_encoder, text_config = build_networks(recipe, vocabulary, random)
    return Kind(
        networks={"denoiser": unet, "text_encoder": text_encoder},
        ids=lambda items, random: captions.ids(items, labels, n_own, random),
        nothing=ids[-1],
        shown=np.stack([*captions.of_classes[0, :SHOWN], *captions.of_items[:SHOWN]]),
        further=composed,
        logit_normal=recipe.scenes_logit_normal,
        pipeline="StableDiffusionPipeline",
        stored={
            "unet": (UNET, recipe.unet),
            "text_encoder": (CLIP_TEXT, text_config),
        },
        vocabulary=vocabulary,
        tokenizer=out / "tokenizer",
    )


def build_networks(
    recipe: TextToImage, vocabulary: Sequence[str], random: np.random.Generator
) -> tuple[UNet2DConditionModel, CLIPTextModel, dict[str, Any]]:
    """Make the U-Net, and the text encoder with its full config."""
    text_config = dict(recipe.text_encoder) | {
        "vocab_size": len(vocabulary),
        "bos_token_id": vocabulary.index(START),
        "eos_token_id": vocabulary.index(END),
        "pad_token_id": vocabulary.index(END),
    }
    source, dtype = f"recipe {recipe.name}", compute_dtype(recipe)
    unet_config = UNet2DConditionConfig.from_dict(recipe.unet, f"{source}: unet")
    unet = initial_network(UNet2DConditionModel, unet_config, random, dtype)
    clip_config = CLIPTextConfig.from_dict(text_config, f"{source}: text_encoder")
    text_encoder = initial_network(CLIPTextModel, clip_config, random, dtype)
    return unet, text_encoder, text_config
