"""The networks of a recipe, and the latents of its images."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Float32, UInt8

from diffjax.models.autoencoder import AutoencoderKL, AutoencoderKLConfig
from diffjax.models.clip import CLIPTextConfig, CLIPTextModel
from diffjax.models.unet import UNet2DConditionConfig, UNet2DConditionModel
from diffjax.training.batches import item_pixels
from diffjax.training.objective import zero_residuals
from diffjax.training.recipes import Recipe
from diffjax.training.tokenizer import END, START


@dataclass(frozen=True, kw_only=True)
class Networks:
    """The three networks of a Stable Diffusion, and the encoder's full config."""

    vae: AutoencoderKL
    unet: UNet2DConditionModel
    text_encoder: CLIPTextModel
    text_config: dict[str, Any]


def build_networks(recipe: Recipe, vocabulary: Sequence[str], seed: int) -> Networks:
    """Networks with initial weights, a function of recipe, vocabulary and seed."""
    text_config = dict(recipe.text_encoder) | {
        "vocab_size": len(vocabulary),
        "bos_token_id": vocabulary.index(START),
        "eos_token_id": vocabulary.index(END),
        "pad_token_id": vocabulary.index(END),
    }
    source = f"recipe {recipe.name}"
    dtype = jnp.dtype(recipe.dtype)
    rngs = nnx.Rngs(seed)
    networks = Networks(
        vae=AutoencoderKL(
            AutoencoderKLConfig.from_dict(recipe.vae, f"{source}: vae"), rngs=rngs
        ),
        unet=UNet2DConditionModel(
            UNet2DConditionConfig.from_dict(recipe.unet, f"{source}: unet"),
            dtype=dtype,
            rngs=rngs,
        ),
        text_encoder=CLIPTextModel(
            CLIPTextConfig.from_dict(text_config, f"{source}: text_encoder"),
            dtype=dtype,
            rngs=rngs,
        ),
        text_config=text_config,
    )
    zero_residuals(networks.vae)
    zero_residuals(networks.unet)
    return networks


def encode_items(
    graph: nnx.GraphDef[AutoencoderKL],
    parameters: Any,
    images: UInt8[np.ndarray, "n H W 3"],
    path: Path,
    batch: int = 200,
) -> None:
    """Write the unscaled latents [2n, h, w, c] of all items to a .npy file.

    Latents are the posterior's means, as the classifier uses them.
    """

    @jax.jit
    def encode(parameters: Any, pixels: jax.Array) -> jax.Array:
        mean, _ = jax.vmap(nnx.merge(graph, parameters).encode)(pixels)
        return mean

    items = np.arange(2 * len(images), dtype=np.int32)
    latents = np.concatenate(
        [
            np.asarray(encode(parameters, item_pixels(images, items[i : i + batch])))
            for i in range(0, len(items), batch)
        ]
    )
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        np.save(file, latents, allow_pickle=False)
    os.replace(partial, path)


def read_latents(path: Path) -> tuple[Float32[np.ndarray, "m h w c"], float]:
    """The scaled latents, and the scaling factor: 1 / (their standard deviation).

    Source: Rombach et al. 2022, section 4.3.
    """
    latents = np.load(path, allow_pickle=False)
    # rounded, since it is written to config.json
    scaling_factor = float(f"{1 / latents.std():.6g}")
    latents *= np.float32(scaling_factor)
    return latents, scaling_factor
