"""A DiT in miniature, trained on labels.

OUT/denoiser/        loss.csv, checkpoints and sample images
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Int32, UInt8
from rich.console import Console

from diffjax.checkpoints.mappings import AUTOENCODER, DIT
from diffjax.checkpoints.schedulers import read_schedule
from diffjax.models.autoencoder import AutoencoderKL
from diffjax.models.dit import DiTTransformer2DConfig, DiTTransformer2DModel
from diffjax.scoring.noise import seed_key
from diffjax.tracing import jit
from diffjax.training.batches import class_batch
from diffjax.training.beginning import Beginning
from diffjax.training.export import Made, Part, export_pipeline
from diffjax.training.initial import initial_network
from diffjax.training.latents import train_autoencoder
from diffjax.training.loop import fit
from diffjax.training.losses import steps_made
from diffjax.training.objective import denoiser_loss
from diffjax.training.recipes import ClassToImage, compute_dtype
from diffjax.training.samples import sample, write_sheet

MOST_SHOWN = 20  # classes


def train_class_to_image(
    recipe: ClassToImage,
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
    """Both phases and the export; arguments as of ``train_text_to_image``."""
    source = f"recipe {recipe.name}"
    config = DiTTransformer2DConfig.from_dict(
        recipe.transformer, f"{source}: transformer"
    )
    # the phases must not share their weights and keys: those of this one have the
    # next seed
    random = np.random.default_rng(seed + 1)
    transformer = initial_network(
        DiTTransformer2DModel, config, random, compute_dtype(recipe)
    )
    schedule = read_schedule(recipe.scheduler, source)
    if beginning is not None:
        beginning.check({"denoiser": transformer}, schedule, class_names)
        transformer = beginning.weights(transformer, "denoiser")
    graph, parameters = nnx.split(transformer)
    nothing = np.empty((0, *images.shape[1:]), np.uint8)
    latents = train_autoencoder(
        recipe, images, nothing, out, seed=seed, beginning=beginning, console=console
    )

    def loss(parameters: Any, batch: Any, key: Any) -> Any:  # of a ClassBatch
        return denoiser_loss(
            nnx.merge(graph, parameters),
            schedule,
            batch.latents,
            batch.classes,
            batch.timesteps,
            key,
            recipe.bound_weight,
        )

    shown = jnp.arange(min(len(class_names), MOST_SHOWN))

    @jit
    def draw(parameters: Any, vae: AutoencoderKL) -> Any:
        network = nnx.merge(graph, parameters)
        z0 = sample(
            lambda z_t, t: jax.vmap(network, (0, None, 0))(z_t, t, shown)[
                ..., : config.in_channels
            ],
            schedule,
            (len(shown), *latents.values.shape[1:]),
            seed_key(seed),
        )
        return jax.vmap(vae.decode)(z0 / latents.scaling_factor)

    def show(step: int, average: Any) -> None:
        pixels = np.asarray(draw(average, latents.vae))
        write_sheet(pixels, out / "denoiser" / f"samples-{step:06d}.png")

    parameters = fit(
        recipe.denoiser,
        loss,
        parameters,
        lambda step: class_batch(
            latents.values,
            labels,
            n_classes=len(class_names),
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
    vae_config = dict(recipe.vae) | {"scaling_factor": latents.scaling_factor}
    export_pipeline(
        recipe,
        "DiTPipeline",
        {
            "transformer": Part(nnx.merge(graph, parameters), DIT, recipe.transformer),
            "vae": Part(latents.vae, AUTOENCODER, vae_config),
        },
        out / "model",
        made=Made(steps_made(out / "denoiser"), seed, beginning),
        class_names=class_names,
    )
