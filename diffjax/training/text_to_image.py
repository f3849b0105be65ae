"""A Stable Diffusion in miniature: U-Net and text encoder, trained on captions.

OUT/tokenizer/       made first, from the captions
OUT/denoiser/        loss.csv, checkpoints and sample images
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import Int32, UInt8
from rich.console import Console

from diffjax.checkpoints.mappings import AUTOENCODER, CLIP_TEXT, UNET
from diffjax.checkpoints.schedulers import read_schedule
from diffjax.checkpoints.tokenizer import Tokenizer
from diffjax.data.scenes import scenes
from diffjax.models.autoencoder import AutoencoderKL
from diffjax.models.clip import CLIPTextConfig, CLIPTextModel
from diffjax.models.unet import TextCondition, UNet2DConditionModel
from diffjax.models.unet_config import UNet2DConditionConfig
from diffjax.scoring.noise import seed_key
from diffjax.tracing import jit
from diffjax.training.batches import Captions, text_batch
from diffjax.training.beginning import Beginning
from diffjax.training.export import Made, Part, export_pipeline
from diffjax.training.initial import initial_network
from diffjax.training.latents import train_autoencoder
from diffjax.training.loop import fit
from diffjax.training.losses import steps_made
from diffjax.training.objective import denoiser_loss
from diffjax.training.recipes import TextToImage, compute_dtype
from diffjax.training.samples import sample, write_sheet
from diffjax.training.tokenizer import END, START, save_tokenizer, train_tokenizer

SCENES_SEED = 0
SHOWN = 5  # class names, and as many scenes


def train_text_to_image(
    recipe: TextToImage,
    images: UInt8[np.ndarray, "n H W 3"],
    labels: Int32[np.ndarray, " n"],
    class_names: Sequence[str],
    out: Path,
    *,
    seed: int,
    steps: int | None,
    beginning: Beginning | None,
    console: Console,
) -> None:
    """Both phases and the export, each from where a former call in ``out`` stopped.

    Args:
        recipe: what to train.
        images: RGB, 0 to 255.
        labels: indices into ``class_names``.
        class_names: what the captions say.
        out: the run's folder.
        seed: of everything random.
        steps: stop after this many of the denoiser's steps.
        beginning: a model whose weights are trained on, instead of random ones.
        console: where the progress bar goes.
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
        of_classes=ids[: len(texts)].reshape(-1, len(class_names), length),
        of_items=ids[len(texts) : -1],
        empty=ids[-1],
    )
    schedule = read_schedule(recipe.scheduler, f"recipe {recipe.name}")
    unet, text_encoder, text_config = build_networks(recipe, vocabulary, seed)
    if beginning is not None:
        beginning.check({"denoiser": unet, "text_encoder": text_encoder}, schedule)
        unet = beginning.weights(unet, "denoiser")
        text_encoder = beginning.weights(text_encoder, "text_encoder", vocabulary)
    graph, parameters = nnx.split((unet, text_encoder))
    latents = train_autoencoder(
        recipe, images, composed, out, seed=seed, beginning=beginning, console=console
    )

    def loss(parameters: Any, batch: Any, key: Any) -> Any:  # of a TextBatch
        unet, text_encoder = nnx.merge(graph, parameters)
        states = TextCondition(jax.vmap(text_encoder)(batch.captions))
        return denoiser_loss(
            unet, schedule, batch.latents, states, batch.timesteps, key
        )

    @jit
    def draw(parameters: Any, vae: AutoencoderKL, captions: Any) -> Any:
        unet, text_encoder = nnx.merge(graph, parameters)
        states = TextCondition(jax.vmap(text_encoder)(captions))
        z0 = sample(
            lambda z_t, t: jax.vmap(unet, (0, None, 0))(z_t, t, states),
            schedule,
            (len(captions), *latents.values.shape[1:]),
            seed_key(seed),
        )
        return jax.vmap(vae.decode)(z0 / latents.scaling_factor)

    shown = [*captions.of_classes[0, :SHOWN], *captions.of_items[:SHOWN]]

    def show(step: int, average: Any) -> None:
        pixels = draw(average, latents.vae, np.stack(shown))
        write_sheet(np.asarray(pixels), out / "denoiser" / f"samples-{step:06d}.png")

    parameters = fit(
        recipe.denoiser,
        loss,
        parameters,
        lambda step: text_batch(
            latents.values,
            labels,
            captions,
            batch=recipe.denoiser.batch,
            empty=recipe.empty,
            n_timesteps=schedule.n_timesteps,
            logit_normal=recipe.logit_normal,
            step=step,
            seed=seed,
        ),
        out / "denoiser",
        seed=seed + 1,
        stop=steps,
        show=show,
        console=console,
    )
    unet, text_encoder = nnx.merge(graph, parameters)
    vae_config = dict(recipe.vae) | {"scaling_factor": latents.scaling_factor}
    export_pipeline(
        recipe,
        "StableDiffusionPipeline",
        {
            "unet": Part(unet, UNET, recipe.unet),
            "vae": Part(latents.vae, AUTOENCODER, vae_config),
            "text_encoder": Part(text_encoder, CLIP_TEXT, text_config),
        },
        out / "model",
        made=Made(steps_made(out / "denoiser"), seed, beginning),
        tokenizer=out / "tokenizer",
    )


def build_networks(
    recipe: TextToImage, vocabulary: Sequence[str], seed: int
) -> tuple[UNet2DConditionModel, CLIPTextModel, dict[str, Any]]:
    """U-Net, text encoder and its full config, with initial weights from the seed."""
    text_config = dict(recipe.text_encoder) | {
        "vocab_size": len(vocabulary),
        "bos_token_id": vocabulary.index(START),
        "eos_token_id": vocabulary.index(END),
        "pad_token_id": vocabulary.index(END),
    }
    source, dtype = f"recipe {recipe.name}", compute_dtype(recipe)
    # the phases must not share their weights and keys: those of this one have the
    # next seed
    random = np.random.default_rng(seed + 1)
    unet_config = UNet2DConditionConfig.from_dict(recipe.unet, f"{source}: unet")
    unet = initial_network(UNet2DConditionModel, unet_config, random, dtype)
    clip_config = CLIPTextConfig.from_dict(text_config, f"{source}: text_encoder")
    text_encoder = initial_network(CLIPTextModel, clip_config, random, dtype)
    return unet, text_encoder, text_config
