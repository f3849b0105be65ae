"""A latent diffusion model in miniature: its autoencoder, then its denoiser.

OUT/denoiser/        loss.csv, checkpoints and sample images
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import Int32, UInt8
from rich.console import Console

from diffjax.checkpoints.naming import AUTOENCODER
from diffjax.checkpoints.schedulers import read_sampling, read_schedule
from diffjax.data.sheets import as_bytes, save_png, sheet
from diffjax.models.autoencoder import AutoencoderKL
from diffjax.models.sampling import sample
from diffjax.models.unet import TextCondition
from diffjax.scoring.noise import normal, seed_key
from diffjax.tracing import jit
from diffjax.training.batches import LatentBatch, Levels, latent_batch
from diffjax.training.beginning import Beginning
from diffjax.training.class_to_image import class_to_image
from diffjax.training.export import Made, Part, export_pipeline
from diffjax.training.kind import Kind
from diffjax.training.latents import train_autoencoder
from diffjax.training.log import steps_made
from diffjax.training.loop import fit
from diffjax.training.objective import denoiser_loss
from diffjax.training.recipes import ClassToImage, Diffusion, TextToImage
from diffjax.training.text_to_image import text_to_image

SAMPLE_STEPS = 25
COLUMNS = 5  # of sample images
KINDS: dict[type[Diffusion], Callable[..., Kind]] = {
    TextToImage: text_to_image,
    ClassToImage: class_to_image,
}


def train_diffusion(
    recipe: Diffusion,
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
    """Train and export, each phase from where a former call in ``out`` stopped.

    Args:
        recipe: what to train.
        images: RGB, 0 to 255.
        labels: indices into ``class_names``.
        class_names: what the images show.
        out: the run's folder.
        seed: the seed of everything random.
        steps: stop after this many of the denoiser's steps.
        beginning: a model whose weights are trained on, instead of random ones.
        console: where the progress bar goes.
    """
    named = f"recipe {recipe.name}"
    schedule = read_schedule(recipe.scheduler, named)
    sample_steps = read_sampling(recipe.scheduler, named).steps(schedule, SAMPLE_STEPS)
    # the phases must not share their weights and keys: those of this one have the
    # next seed
    random = np.random.default_rng(seed + 1)
    make_kind = KINDS[type(recipe)]
    kind = make_kind(recipe, images, labels, class_names, out, random, console)
    networks = kind.networks
    if beginning is not None:
        beginning.check(networks, schedule, kind.class_names)
        networks = {
            part: beginning.weights(
                network, part, kind.vocabulary if part == "text_encoder" else ()
            )
            for part, network in networks.items()
        }
    denoiser, *encoder = networks.values()
    # one network by itself, as in checkpoints made before there could be two
    graph, parameters = nnx.split((denoiser, *encoder) if encoder else denoiser)

    def merge(parameters: Any) -> tuple[Any, ...]:
        merged: Any = nnx.merge(graph, parameters)
        return merged if encoder else (merged,)

    def conditioned(parameters: Any, ids: Any) -> tuple[Any, Any]:
        denoiser, *encoder = merge(parameters)
        if not encoder:
            return denoiser, ids
        return denoiser, TextCondition(jax.vmap(encoder[0])(ids).states)

    latents = train_autoencoder(
        recipe,
        images,
        kind.further,
        out,
        seed=seed,
        beginning=beginning,
        console=console,
    )

    levels = Levels(
        n_own=len(images) * recipe.copies,
        own=recipe.logit_normal,
        further=kind.logit_normal,
    )

    def loss(parameters: Any, batch: Any, key: Any) -> Any:  # of a LatentBatch
        denoiser, conditions = conditioned(parameters, batch.ids)
        return denoiser_loss(
            denoiser,
            schedule,
            batch.latents,
            conditions,
            batch.timesteps,
            key,
            kind.bound_weight,
        )

    def batch_of_step(step: int) -> LatentBatch:
        return latent_batch(
            latents.values,
            kind.ids,
            kind.nothing,
            batch=recipe.denoiser.batch,
            empty=recipe.empty,
            n_timesteps=schedule.n_timesteps,
            levels=levels,
            step=step,
            seed=seed,
        )

    @jit
    def draw(parameters: Any, vae: AutoencoderKL, ids: Any) -> Any:
        denoiser, conditions = conditioned(parameters, ids)
        shape = (len(ids), *latents.values.shape[1:])
        z0 = sample(
            lambda z_t, t: jax.vmap(denoiser, (0, None, 0))(z_t, t, conditions)[
                ..., : shape[-1]
            ],
            sample_steps,
            normal(seed_key(seed), shape),
        )
        return jax.vmap(vae.decode)(z0 / latents.scaling_factor)

    def show(step: int, average: Any) -> None:
        pixels = np.asarray(draw(average, latents.vae, kind.shown))
        drawn = sheet(as_bytes(pixels), COLUMNS)
        save_png(drawn, out / "denoiser" / f"samples-{step:06d}.png")

    parameters = fit(
        recipe.denoiser,
        loss,
        parameters,
        batch_of_step,
        out / "denoiser",
        seed=seed + 1,
        stop=steps,
        show=show,
        console=console,
    )
    vae_config = dict(recipe.vae) | {"scaling_factor": latents.scaling_factor}
    parts = {"vae": Part(latents.vae, AUTOENCODER, vae_config)}
    for network, (name, stored) in zip(
        merge(parameters), kind.stored.items(), strict=True
    ):
        parts[name] = Part(network, *stored)
    export_pipeline(
        recipe,
        kind.pipeline,
        parts,
        out / "model",
        made=Made(steps_made(out / "denoiser"), seed, beginning),
        tokenizer=kind.tokenizer,
        class_names=kind.class_names,
    )
